"""A trace's costs: MACs, FLOPs and bytes of each operation, and their sums by operation, layer, block, kind and phase.

FLOPs = 2 x MACs + vector FLOPs. Read and write bytes count each distinct tensor that an operation takes or makes once,
at its own dtype; a view moves nothing. An operation without a rule is not zero: it is listed in `Costs.unmodelled`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from costmodel.errors import InputError, type_of
from costmodel.formulas import parameter_formula
from costmodel.graph import LOSS_LAYER, OPTIMIZER, Module, Operation, TensorSpec, Trace
from costmodel.grouping import grouped, some
from costmodel.rules import Rule, Work, rules
from costmodel.units import iec, plural, si
from costmodel.view import Table, column, share

if TYPE_CHECKING:
    import pandas as pd

CONVENTIONS = {
    "mac": "one multiply-accumulate of a contraction (convolution, matrix product); of complex numbers it is four",
    "flops": "2 x MACs + vector FLOPs (bias, activation, pooling, normalisation, softmax, loss, optimizer)",
    "bytes": "each distinct tensor that an operation takes or makes, once, at its own dtype, but for what lies between "
    "the windows of a convolution; a view moves nothing",
    "arithmetic_intensity": "FLOPs / (read + write bytes)",
}


class Cost(NamedTuple):
    """Work and traffic, which add up."""

    macs: int = 0
    """Multiply-accumulates of contractions."""

    vector_flops: int = 0
    """FLOPs outside contractions."""

    read_bytes: int = 0
    write_bytes: int = 0

    @property
    def flops(self) -> int:
        """2 x MACs + vector FLOPs."""
        return 2 * self.macs + self.vector_flops

    @property
    def moved_bytes(self) -> int:
        """Bytes read and written."""
        return self.read_bytes + self.write_bytes

    @property
    def arithmetic_intensity(self) -> float:
        """FLOPs per byte moved; 0 where nothing moves."""
        return self.flops / self.moved_bytes if self.moved_bytes else 0.0

    def __add__(self, other: Cost) -> Cost:  # type: ignore[override]
        return Cost(
            self.macs + other.macs,
            self.vector_flops + other.vector_flops,
            self.read_bytes + other.read_bytes,
            self.write_bytes + other.write_bytes,
        )

    @classmethod
    def sum(cls, costs: Iterable[Cost]) -> Cost:
        """The sum of any number of costs."""
        costs = tuple(costs)
        if len(costs) == 1:
            return costs[0]
        macs = vector_flops = read_bytes = write_bytes = 0
        for cost in costs:
            macs += cost.macs
            vector_flops += cost.vector_flops
            read_bytes += cost.read_bytes
            write_bytes += cost.write_bytes
        return cls(macs, vector_flops, read_bytes, write_bytes)


class OperationCost(NamedTuple):
    """One operation with its kind and cost; `modelled` is false where no rule says what it computes."""

    operation: Operation
    kind: str
    cost: Cost
    modelled: bool = True


class LayerCost(NamedTuple):
    """One layer: a leaf module, or a module that called operators itself (or holds parameters) beside its children."""

    name: str
    """Dotted path; "" is the network itself, "(loss)" and "(optimizer)" are added by a training step."""

    kind: str
    type: str
    """The module's class."""

    parameters: int
    """Elements of the parameters that it holds; a shared one is counted where it is held first."""

    parameter_bytes: int
    cost: Cost
    output_shape: tuple[int, ...] | None
    """Shape of its last call's first output."""


@dataclass(frozen=True, slots=True)
class Unmodelled:
    """An operator without a rule."""

    operator: str
    count: int
    layers: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Costs:
    """The costs of a trace."""

    trace: Trace
    operations: tuple[OperationCost, ...]

    @cached_property
    def total(self) -> Cost:
        """The sum over all operations."""
        return Cost.sum(entry.cost for entry in self.operations)

    @cached_property
    def parameters(self) -> int:
        """Elements of all parameters, shared ones once. Buffers are not parameters."""
        return sum(p.tensor.numel for p in self.trace.parameters if not p.buffer)

    @cached_property
    def parameter_bytes(self) -> int:
        """Bytes of all parameters, shared ones once."""
        return sum(p.tensor.nbytes for p in self.trace.parameters if not p.buffer)

    @cached_property
    def unmodelled(self) -> tuple[Unmodelled, ...]:
        """The operators that ran without a rule, most frequent first."""
        missing = [entry.operation for entry in self.operations if not entry.modelled]
        counts = Counter(operation.operator for operation in missing)
        return tuple(
            Unmodelled(operator, count, tuple(dict.fromkeys(o.layer for o in missing if o.operator == operator)))
            for operator, count in counts.most_common()
        )

    @cached_property
    def layers(self) -> tuple[LayerCost, ...]:
        """One row a layer, in the order of execution; the rows add up to the totals."""
        return tuple(_layers(self))

    def phase(self, phase: str) -> Costs:
        """The costs of one phase alone."""
        return Costs(self.trace, tuple(entry for entry in self.operations if entry.operation.phase == phase))

    def by(self, key: str, depth: int | None = None) -> dict[str, Cost]:
        """Sums by "operator", "layer", "block", "kind" or "phase", in the order of first occurrence.

        A block is the module that a layer stands in; with `depth`, the layer's path cut to that many components.
        Raises InputError for another key.
        """
        groups = grouped(self.operations, key, GROUPED_BY, self.trace, depth)
        return {name: Cost.sum([entry.cost for entry in entries]) for name, entries in groups.items()}

    def table(self, by: str = "layer", depth: int | None = None) -> Table:
        """One row a layer, block, kind, operator or phase, in the order of execution, and their sum.

        Parameters stand with the block or the kind of the layer that holds them; operators and phases hold none.
        """
        if by == "layer":
            rows = [(*self._of(layer), *_numbers(layer.cost)) for layer in self.layers]
            names = (NAME, "kind", "type", "output_shape", "parameter_formula", "parameters", "parameter_bytes")
            table = Table.of((*names, *NUMBERS), rows)
        else:
            groups, held = self.by(by, depth), self._held(by, depth)
            holds = ("parameters", "parameter_bytes") if held else ()
            rows = [
                (name, *held.get(name, (0, 0))[: len(holds)], *_numbers(cost), share(cost.flops, self.total.flops))
                for name in dict.fromkeys([*groups, *held])
                for cost in (groups.get(name, Cost()),)
            ]
            table = Table.of((by, *holds, *NUMBERS, "flops_share"), rows)
        title = f"{self.trace.model}: {si(self.parameters)} parameters, {si(self.total.flops, 'FLOP')}"
        notes = (NOTE, *notes_on_rows(self, by, depth))
        return self._counted(table, by, depth).summed().around(title=title, notes=notes, warnings=not_counted(self))

    def to_frame(self) -> pd.DataFrame:
        """One row a layer, in base units."""
        return self.table().to_frame()

    def __repr__(self) -> str:
        work = f"{si(self.total.macs, 'MAC')}, {si(self.total.flops, 'FLOP')}, {iec(self.total.moved_bytes)} moved"
        return f"<Costs of {self.trace.model}: {si(self.parameters)} parameters, {work}>"

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def _of(self, layer: LayerCost) -> tuple[Any, ...]:
        """A layer's row apart from its cost."""
        module = self.trace.module_by_path.get(layer.name)
        formula = parameter_formula(module, layer.parameters) if module else ""
        named = (layer.name, layer.kind, layer.type, layer.output_shape)
        return (*named, formula, layer.parameters, layer.parameter_bytes)

    def _held(self, by: str, depth: int | None) -> Mapping[str, tuple[int, int]]:
        """Parameters and their bytes by block or kind."""
        if by not in ("block", "kind"):
            return {}
        names: Mapping[str, Callable[[LayerCost], str]] = {"layer": lambda of: of.name, "kind": lambda of: of.kind}
        held = grouped((layer for layer in self.layers if layer.parameters), by, names, self.trace, depth)
        return {
            name: (sum(layer.parameters for layer in layers), sum(layer.parameter_bytes for layer in layers))
            for name, layers in held.items()
        }

    def _counted(self, table: Table, by: str, depth: int | None) -> Table:
        """With a further column if some operations have no rule: the rows whose sums leave them out."""
        missing = tuple(entry for entry in self.operations if not entry.modelled)
        if not missing:
            return table
        incomplete = Costs(self.trace, missing).by(by, depth)
        names = table.data[0]
        return table.beside(Table.of(("counted",), [("not all" if n in incomplete else "all",) for n in names]))


GROUPED_BY: Mapping[str, Callable[[Any], str]] = {
    "operator": lambda entry: entry.operation.operator,
    "layer": lambda entry: entry.operation.layer,
    "kind": lambda entry: entry.kind,
    "phase": lambda entry: entry.operation.phase,
}
"""What costs and predictions can be grouped by, besides blocks."""

NAME = column("name", title="layer")
"""A layer's own row begins with its path."""

NUMBERS = ("macs", "flops", "read_bytes", "write_bytes", "arithmetic_intensity")

NOTE = "FLOPs = 2 x MACs + vector FLOPs; bytes count each distinct tensor that an operation takes or makes once."
"""What a table's numbers count, in one line."""


def _numbers(cost: Cost) -> tuple[float, ...]:
    return tuple(getattr(cost, name) for name in NUMBERS)


def notes_on_rows(costs: Costs, by: str, depth: int | None = None) -> list[str]:
    """What a row stands for, if that may be misread."""
    if by == "block" and depth is None:
        return [BLOCKS]
    if by == "layer" and any(layer.kind == MIXED for layer in costs.layers):
        return [
            "mixed: what a module calls itself, beside the modules inside it (F.relu, F.max_pool2d ...); "
            "--by operator and --by kind tell it apart."
        ]
    return []


BLOCKS = "A block's row is what stands directly in it, without the blocks inside it."


def not_counted(costs: Costs) -> tuple[str, ...]:
    """A sentence for each operator without a rule, which the sums leave out."""
    return tuple(
        f"Not counted, as it has no rule: {entry.operator} ({plural(entry.count, 'call')}, in {some(entry.layers)})."
        for entry in costs.unmodelled
    )


def count(trace: Trace) -> Costs:
    """The costs of each operation of a trace. Raises InputError for anything but a trace."""
    if not isinstance(trace, Trace):
        raise InputError(f"count takes a trace, not {type_of(trace)}: cm.trace(network, shape) makes one.")
    known = rules()
    return Costs(trace, tuple(_cost(operation, known) for operation in trace.operations))


def _cost(operation: Operation, known: Mapping[str, Rule]) -> OperationCost:
    if operation.view:
        return OperationCost(operation, "reshape", _NOTHING)
    rule = known.get(operation.operator)
    kind = rule.kind if rule else "other"
    if operation.phase == OPTIMIZER:
        kind = "optimizer"
    elif operation.layer == LOSS_LAYER:
        kind = "loss"
    work = rule.work(operation) if rule else _NO_WORK
    read = _distinct_bytes(operation.inputs.values()) if work.read_bytes is None else work.read_bytes
    write = _distinct_bytes(operation.outputs) if work.write_bytes is None else work.write_bytes
    return OperationCost(operation, kind, Cost(work.macs, work.vector_flops, read, write), rule is not None)


_NOTHING = Cost()
_NO_WORK = Work()


def _distinct_bytes(tensors: Collection[TensorSpec]) -> int:
    """Bytes of tensors, one that occurs twice counted once."""
    distinct = len(tensors) < 2 or len({tensor.storage for tensor in tensors}) == len(tensors)
    return sum([tensor.nbytes for tensor in (tensors if distinct else set(tensors))])


def _layers(costs: Costs) -> Iterable[LayerCost]:
    trace = costs.trace
    entries: dict[str, list[OperationCost]] = {}
    for entry in costs.operations:
        entries.setdefault(entry.operation.layer, []).append(entry)
    numel: Counter[str] = Counter()
    nbytes: Counter[str] = Counter()
    for parameter in trace.parameters:
        if not parameter.buffer:
            numel[parameter.layer] += parameter.tensor.numel
            nbytes[parameter.layer] += parameter.tensor.nbytes
    for module in trace.modules:
        own = entries.pop(module.path, [])
        works = any(not entry.operation.view for entry in own)
        if works or numel[module.path] or (module.leaf and module.calls):
            kind = _kind(own, module)
            yield LayerCost(
                module.path,
                kind,
                module.type,
                numel[module.path],
                nbytes[module.path],
                Cost.sum([entry.cost for entry in own]),
                None if kind == MIXED else module.output_shape,
            )
    for name, own in entries.items():  # the loss, the optimizer, modules that no longer exist
        yield LayerCost(name, _kind(own), "", 0, 0, Cost.sum(entry.cost for entry in own), None)


MIXED = "mixed"
"""The kind of a module that calls several operators of different kinds itself, beside the modules inside it."""


def _kind(entries: list[OperationCost], module: Module | None = None) -> str:
    """The kind of a layer: that of its costliest operation, or for a layer that ran nothing what its name says."""
    type_name = module.type if module else ""
    contracts = any(entry.cost.macs for entry in entries)
    if "Attention" in type_name and contracts:
        return "attention"
    if len(entries) == 1:
        return entries[0].kind
    if module and not module.leaf and not contracts and len({e.kind for e in entries if not e.operation.view}) > 1:
        return MIXED
    if entries:
        return max(entries, key=lambda entry: (entry.cost.flops, entry.cost.moved_bytes)).kind
    return "dropout" if "Drop" in type_name else "other"
