"""fvcore's `FlopCountAnalysis` and `parameter_count`: a TorchScript trace of the forward, and a formula an operator.

Its counts include those of the modules inside; a layer's own are what its children's leave. fvcore gives an operator to
the module that owns it by its path, a shared module by its first path, as we do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from fvcore.nn import FlopCountAnalysis, parameter_count

from costmodel.graph import FORWARD
from costmodel.peers import Findings, Reading
from costmodel.peers.subject import Subject


def count(subject: Subject) -> Findings:
    """The forward, in fvcore's "flops" (1 a multiply-accumulate). Raises TypeError for keyword inputs."""
    if subject.kwargs:
        raise TypeError("it takes positional inputs only")
    analysis = FlopCountAnalysis(subject.network, subject.args)
    inclusive = analysis.by_module_and_operator()
    readings = tuple(
        Reading(layer, FORWARD, operator, int(amount))
        for layer, operators in _own(inclusive).items()
        for operator, amount in operators.items()
    )
    missing = _own({layer: analysis.unsupported_ops(layer) for layer in inclusive})
    counted = parameter_count(subject.network)  # by the names of modules, and of the parameters themselves
    held = _own({layer: Counter(all=counted[layer]) for layer in inclusive})
    parameters = {layer: number["all"] for layer, number in held.items() if number["all"]}
    uncalled = frozenset(layer for layer in analysis.uncalled_modules() if layer)
    return Findings(readings, parameters, None, missing, uncalled)


def _own(inclusive: Mapping[str, Mapping[str, float]]) -> dict[str, Counter[str]]:
    """What each layer counts without its children: all are nested by their dotted paths."""
    own = {layer: Counter(dict(numbers)) for layer, numbers in inclusive.items()}
    for layer, numbers in inclusive.items():
        if layer:
            own[_parent(layer, inclusive)].subtract(numbers)
    return {layer: Counter({key: n for key, n in numbers.items() if n}) for layer, numbers in own.items()}


def _parent(layer: str, known: Mapping[str, object]) -> str:
    """The nearest module above that is known."""
    parent = layer.rpartition(".")[0]
    while parent and parent not in known:
        parent = parent.rpartition(".")[0]
    return parent
