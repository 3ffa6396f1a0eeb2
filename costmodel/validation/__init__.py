"""Our trace against other programs and published numbers: every difference explained by name, or the check fails.

Parameters and the multiply-accumulates of contractions are compared layer by layer and in total. What a peer counts
besides (an adaptive pool, a norm) or leaves out (attention that is fused, a convolution's backward) is expected to the
unit: see `explanations`. What torchvision publishes with its weights is compared to the digit printed there: see
`published`.

    validation = validate(networks.find("torchvision:vgg16"))
    validation.ok, validation.totals, validation.to_frame()
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from costmodel.cost import Costs, OperationCost, count
from costmodel.errors import InputError
from costmodel.graph import PHASES
from costmodel.validation.explanations import CountedLayer, explain
from costmodel.validation.rows import TOTAL, ComparisonRow, with_total
from costmodel.view import Table

if TYPE_CHECKING:
    import pandas as pd

    from costmodel.networks import Module, Network
    from costmodel.peers import PeerAnswer

__all__ = ["TOTAL", "ComparisonRow", "Validation", "validate"]


@dataclass(frozen=True, repr=False)
class Validation:
    """The rows of a comparison, and the answers that they came from."""

    model: str
    rows: tuple[ComparisonRow, ...]
    """Layer by layer, each source's and phase's followed by its total."""

    notes: tuple[str, ...]
    """Operators that we have no rule for, where each peer ran or why it could not, what was not compared."""

    @cached_property
    def totals(self) -> tuple[ComparisonRow, ...]:
        """The rows of sums."""
        return tuple(row for row in self.rows if row.layer == TOTAL)

    @property
    def ok(self) -> bool:
        """Whether something was compared and nothing is unexplained."""
        return bool(self.rows) and all(row.ok for row in self.rows)

    def table(self, *, every: bool = True) -> Table:
        """One row a number of ours beside somebody else's; or only totals, and differences that nothing explains."""
        names = ("source", "phase", "layer", "quantity", "ours", "peer", "difference", "ok", "explanation")
        chosen = (row for row in self.rows if every or row.layer == TOTAL or not row.ok)
        rows = [[getattr(row, name) for name in names] for row in chosen]
        return Table.of(names, rows, title=f"{self.model}: {self._verdict}", notes=self.notes)

    def to_frame(self) -> pd.DataFrame:
        """The table as a data frame."""
        return self.table().to_frame()

    def __repr__(self) -> str:
        return f"<Validation of {self.model}: {self._verdict}>"

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    @property
    def _verdict(self) -> str:
        unexplained = sum(not row.ok for row in self.rows)
        equal = sum(not row.difference for row in self.rows)
        return f"{len(self.rows)} numbers compared, {equal} equal, {unexplained} unexplained"


def validate(
    network: Network | Module,
    inputs: Any = None,
    *,
    batch: int = 1,
    train: bool = False,
    run: bool | None = None,
    peers: Iterable[str] | None = None,
) -> Validation:
    """Compare our trace of a network with what peers (all of them if None) and publications say.

    `network` comes from `costmodel.networks.find`, or is any module; then `inputs` says what it is fed, as in `trace`.
    With `train` the backward pass of the sum of its outputs is compared too. With `run` it is really run on the CPU;
    None runs those networks that say they need it.

    Raises InputError for a module without inputs or an unknown peer, and TraceError where `trace` does.
    """
    from costmodel.networks import Network
    from costmodel.peers import PEERS, ask
    from costmodel.peers.subject import total_of
    from costmodel.tracer import trace
    from costmodel.validation.published import published_rows

    if isinstance(network, Network):
        module, name = network.module, network.name
        inputs = network.inputs(batch) if inputs is None else inputs
        run = network.needs_run if run is None else run
    else:
        module, name = network, type(network).__name__
        run = bool(run)
    if inputs is None:
        raise InputError("say what this module is fed: inputs=(1, 3, 224, 224), for example.")
    options: dict[str, Any] = {"train": train, "run": run, "name": name}
    if train:
        options |= {"loss": total_of, "optimizer": None}
    ours = count(trace(module, inputs, **options))
    plain = ours if run else count(trace(module, inputs, target="meta", **options))
    answers = [ask(peer, module, inputs, train=train, run=run) for peer in (PEERS if peers is None else peers)]
    rows = [row for answer in answers if answer.problem is None for row in _compare(ours, plain, answer)]
    printed, notes = published_rows(name, ours) if isinstance(network, Network) and not train else ([], [])
    missing = [f"no rule says what {entry.operator} costs (calls: {entry.count})" for entry in ours.unmodelled]
    return Validation(name, (*rows, *printed), (*missing, *map(_note, answers), *notes))


def _note(answer: PeerAnswer) -> str:
    peer = f"{answer.peer.name} ({answer.peer.package} {answer.version})".replace(" )", ")")
    if answer.problem:
        return f"{peer} {answer.problem}"
    where = {"meta": "on the meta device", "cpu": "on the CPU"}[answer.device]
    return f"{peer} ran {where}; it counts {answer.peer.convention}"


def _compare(ours: Costs, plain: Costs, answer: PeerAnswer) -> Iterator[ComparisonRow]:
    """Every layer that we or the peer have a number for, and the totals."""
    if answer.findings.parameters is not None:
        own = {layer.name: layer.parameters for layer in ours.layers if layer.parameters}
        yield from _parameters(answer.peer.name, own, answer.findings.parameters)
    for phase in PHASES[:2]:
        if phase in ours.trace.phases and (phase == PHASES[0] or answer.peer.backward):
            yield from _contractions(ours.phase(phase), plain.phase(phase), phase, answer)


def _parameters(peer: str, ours: Mapping[str, int], theirs: Mapping[str, int]) -> Iterator[ComparisonRow]:
    layers = dict.fromkeys([*ours, *theirs])
    return with_total(
        peer, "", "parameters", [(layer, ours.get(layer, 0), theirs.get(layer, 0), {}) for layer in layers]
    )


def _contractions(ours: Costs, plain: Costs, phase: str, answer: PeerAnswer) -> Iterator[ComparisonRow]:
    peer, findings = answer.peer, answer.findings
    own, as_run = _by_layer(ours, findings.uncalled), _by_layer(plain, findings.uncalled)
    counted, modules = answer.amounts(phase), ours.trace.module_by_path
    numbers = []
    for layer in dict.fromkeys([*own, *counted]):
        case = CountedLayer(
            own.get(layer, ()),
            as_run.get(layer, ()),
            counted.get(layer, {}),
            (findings.unsupported or {}).get(layer, {}),
            findings.formulas,
            peer.flops_per_mac,
            modules.get(layer),
        )
        mine = peer.flops_per_mac * sum(entry.cost.macs for entry in case.ours)
        theirs = sum(case.counted.values())
        expected = explain(peer.name, case)
        if mine or theirs or expected:
            numbers.append((layer, mine, theirs, expected))
    return with_total(peer.name, phase, "macs" if peer.flops_per_mac == 1 else "contraction_flops", numbers)


def _by_layer(costs: Costs, uncalled: frozenset[str]) -> dict[str, tuple[OperationCost, ...]]:
    """The operations of each layer; those of a layer that the peer did not see called stand where it books them."""
    layers: dict[str, list[OperationCost]] = {}
    for entry in costs.operations:
        layer = entry.operation.layer
        while layer in uncalled:
            layer = layer.rpartition(".")[0]
        layers.setdefault(layer, []).append(entry)
    return {layer: tuple(entries) for layer, entries in layers.items()}
