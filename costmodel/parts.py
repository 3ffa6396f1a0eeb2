"""What the book tells apart in a network: its convolutions, its fully connected layers, and everything else.

A fully connected layer is a matrix product with a parameter, whoever calls it: attention's projections, which
`nn.MultiheadAttention` and torchvision's Swin transformers call as functions, are four to a block of a transformer that
no list of modules shows. A product of two activations, as of queries and keys, is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from costmodel.cost import Cost, Costs, LayerCost, OperationCost
from costmodel.formulas import CONV, FC, PARTS, REST, Weighted, parameter_formula
from costmodel.graph import Module, Operation, Parameter


class Part(NamedTuple):
    """What one of the three has."""

    parameters: int
    parameter_bytes: int
    output_bytes: int
    """Bytes that its operations write."""

    cost: Cost

    @property
    def flops(self) -> int:
        """FLOPs of its operations."""
        return self.cost.flops


def parts(costs: Costs) -> Mapping[str, Part]:
    """What each of `PARTS` has; they add up to the totals."""
    part_of = part_of_operation(costs)
    of_entry = [(entry, part_of(entry.operation, entry.kind)) for entry in costs.operations]
    held = _parts_of_parameters(costs, of_entry)
    found = {}
    for name in PARTS:
        cost = Cost.sum(entry.cost for entry, part in of_entry if part == name)
        mine = [parameter.tensor for parameter, part in held if part == name]
        found[name] = Part(sum(p.numel for p in mine), sum(p.nbytes for p in mine), cost.write_bytes, cost)
    return found


def part_of_operation(costs: Costs) -> Callable[[Operation, str], str]:
    """A function from an operation of a trace, and its kind, to the part that it belongs to.

    All that a convolution or a fully connected layer does is its own, so the gradient of its bias as well.
    """
    weights = {parameter.tensor.storage for parameter in costs.trace.parameters if not parameter.buffer}
    modules = costs.trace.module_by_path
    dense = {module.path for module in costs.trace.modules if "in_features" in module.settings}
    layers = {
        layer.name: CONV if layer.kind == "conv" else FC
        for layer in costs.layers
        if layer.name in modules and parameter_formula(modules[layer.name], layer.parameters)
    }

    def part_of(operation: Operation, kind: str) -> str:
        if kind == "conv":
            return CONV
        if kind == "linear" and (operation.layer in dense or _taken(operation) & weights):
            return FC
        return layers.get(operation.layer, REST)

    return part_of


def weighted(costs: Costs, batch: int) -> tuple[Weighted, ...]:
    """The convolutions and fully connected layers that ran, in order, each with what it holds and does.

    One that is called as a function goes by its weight's name: "encoder.0.self_attention.in_proj".
    """
    layers = {layer.name: layer for layer in costs.layers}
    modules = costs.trace.module_by_path
    by_storage = {parameter.tensor.storage: parameter for parameter in costs.trace.parameters if not parameter.buffer}
    groups: dict[str, list[OperationCost]] = {}
    called: dict[str, Parameter] = {}
    for entry in costs.operations:
        path = entry.operation.layer
        if not entry.cost.macs or path not in layers:
            continue
        if path in modules and parameter_formula(modules[path], layers[path].parameters):
            groups.setdefault(path, []).append(entry)
        elif entry.kind == "linear" and (weight := _weight(entry.operation, by_storage)) and weight.layer not in groups:
            name = weight.name.removesuffix("weight").rstrip("._")
            called[name] = weight
            groups.setdefault(name, []).append(entry)
    by_name = {parameter.name: parameter for parameter in by_storage.values()}
    return tuple(
        _called(name, called[name], by_name, entries, batch)
        if name in called
        else Weighted(layers[name], modules[name], batch, tuple(entry.operation for entry in entries))
        for name, entries in groups.items()
    )


def _called(
    name: str, weight: Parameter, by_name: Mapping[str, Parameter], entries: list[OperationCost], batch: int
) -> Weighted:
    """A fully connected layer that is no module's."""
    bias = by_name.get("bias".join(weight.name.rsplit("weight", 1)))
    mine = [weight.tensor, *([bias.tensor] if bias and "weight" in weight.name else [])]
    cost, output = Cost.sum(entry.cost for entry in entries), entries[-1].operation.outputs[0]
    inputs = entries[-1].cost.macs // output.numel
    layer = LayerCost(
        name, "linear", "Linear", sum(p.numel for p in mine), sum(p.nbytes for p in mine), cost, output.shape
    )
    settings = {"in_features": inputs, "out_features": weight.tensor.numel // inputs}
    module = Module(name, "Linear", leaf=True, calls=len(entries), output_shape=output.shape, settings=settings)
    return Weighted(layer, module, batch, tuple(entry.operation for entry in entries))


def _weight(operation: Operation, parameters: Mapping[int, Parameter]) -> Parameter | None:
    """The matrix among an operation's parameters."""
    taken = (parameters[storage] for storage in sorted(_taken(operation) & parameters.keys()))
    return max(taken, key=lambda parameter: len(parameter.tensor.shape), default=None)


def _taken(operation: Operation) -> set[int]:
    return {tensor.storage for tensor in operation.inputs.values()}


def _parts_of_parameters(costs: Costs, of_entry: Iterable[tuple[OperationCost, str]]) -> list[tuple[Parameter, str]]:
    """Each parameter with the part whose operation takes it; a bias that is added later goes with its weight."""
    first: dict[int, str] = {}
    for entry, part in of_entry:
        if part != REST:
            for storage in _taken(entry.operation):
                first.setdefault(storage, part)
    held = [parameter for parameter in costs.trace.parameters if not parameter.buffer]
    by_name = {parameter.name: first.get(parameter.tensor.storage, REST) for parameter in held}
    return [
        (parameter, max(by_name[name], by_name.get("weight".join(name.rsplit("bias", 1)), REST), key=_RANK.index))
        for parameter in held
        for name in [parameter.name]
    ]


_RANK = (REST, FC, CONV)


def share(part: float, whole: float) -> float:
    """A part of the whole; 0 where there is nothing."""
    return part / whole if whole else 0.0


def time_shares(costs: Costs, bounds: Iterable[tuple[Operation, str, float]]) -> Mapping[str, float]:
    """What each part has of the sum of some times, which are given by operation and kind."""
    part_of = part_of_operation(costs)
    times: dict[str, list[float]] = {name: [] for name in PARTS}
    for operation, kind, seconds in bounds:
        times[part_of(operation, kind)].append(seconds)
    whole = math.fsum(seconds for mine in times.values() for seconds in mine)
    return {name: share(math.fsum(mine), whole) for name, mine in times.items()}
