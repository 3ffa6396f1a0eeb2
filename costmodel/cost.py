"""A trace's costs: MACs, FLOPs and bytes of each operation, and their sums by operation, layer, block, kind and phase.

FLOPs = 2 x MACs + vector FLOPs. Read and write bytes count each distinct tensor that an operation takes or makes once,
at its own dtype; a view moves nothing. An operation without a rule is not zero: it is listed in `Costs.unmodelled`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from costmodel.display import html_table
from costmodel.errors import InputError, nearest, type_of
from costmodel.graph import LOSS_LAYER, OPTIMIZER, Module, Operation, TensorSpec, Trace
from costmodel.rules import Rule, Work, rules
from costmodel.units import iec, si

if TYPE_CHECKING:
    import pandas as pd

CONVENTIONS = {
    "mac": "one multiply-accumulate of a contraction (convolution, matrix product); of complex numbers it is four",
    "flops": "2 x MACs + vector FLOPs (bias, activation, pooling, normalisation, softmax, loss, optimizer)",
    "bytes": "each distinct tensor that an operation takes or makes, once, at its own dtype; a view moves nothing",
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
    """Dotted path; "" is the network itself, "(loss)" and "(optimizer)" what a training step adds."""

    kind: str
    type: str
    """The module's class."""

    parameters: int
    """Elements of the parameters that it holds; a shared one is counted where it is held first."""

    parameter_bytes: int
    cost: Cost
    output_shape: tuple[int, ...] | None
    """Shape of its last call's first output."""


class Sums(dict[str, Cost]):
    """Costs by the name of what they are summed by."""

    def __init__(self, by: str, sums: Mapping[str, Cost]) -> None:
        super().__init__(sums)
        self.by = by

    def to_frame(self) -> pd.DataFrame:
        """One row a name, in base units."""
        import pandas as pd

        rows = ((name, cost.macs, cost.flops, cost.read_bytes, cost.write_bytes) for name, cost in self.items())
        return pd.DataFrame(rows, columns=[self.by, "macs", "flops", "read_bytes", "write_bytes"])

    def _repr_html_(self) -> str:
        total = Cost.sum(self.values())
        rows = [(name, *_shown(cost)) for name, cost in self.items()]
        name = (self.by, "layer" if self.by in ("layer", "block") else "text")
        return html_table(f"Costs by {self.by}", [name, *_SHOWN], rows, ("total", *_shown(total)))


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
        return sum(p.tensor.elements for p in self.trace.parameters if not p.buffer)

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

    def by(self, key: str, depth: int | None = None) -> Sums:
        """Sums by "operator", "layer", "block", "kind" or "phase", in the order of first occurrence: a dict by name.

        A block is the module that a layer stands in; with `depth`, the layer's path cut to that many components.
        """
        if key not in _KEYS:
            raise InputError(f"cannot sum by {key!r}: use one of {', '.join(_KEYS)}.{nearest(key, _KEYS)}")
        name_of = _KEYS[key]
        if key == "block":
            leaf = {module.path for module in self.trace.modules if module.leaf}
            groups = self._grouped(lambda entry: block_of(entry.operation.layer, entry.operation.layer in leaf, depth))
        else:
            groups = self._grouped(name_of)
        return Sums(key, {name: Cost.sum(costs) for name, costs in groups.items()})

    def to_frame(self) -> pd.DataFrame:
        """One row a layer, in base units."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "name": layer.name,
                    "kind": layer.kind,
                    "type": layer.type,
                    "parameters": layer.parameters,
                    "parameter_bytes": layer.parameter_bytes,
                    "macs": layer.cost.macs,
                    "flops": layer.cost.flops,
                    "read_bytes": layer.cost.read_bytes,
                    "write_bytes": layer.cost.write_bytes,
                    "arithmetic_intensity": layer.cost.arithmetic_intensity,
                    "output_shape": layer.output_shape,
                }
                for layer in self.layers
            ]
        )

    def __repr__(self) -> str:
        work = f"{si(self.total.macs, 'MAC')}, {si(self.total.flops, 'FLOP')}, {iec(self.total.moved_bytes)} moved"
        return f"<Costs of {self.trace.model}: {si(self.parameters)} parameters, {work}>"

    def _repr_html_(self) -> str:
        """The table of layers for a notebook, folded where it is long."""
        columns = [
            ("layer", "layer"), ("type", "text"), ("kind", "term"), ("output", "shape"), ("parameters", "count"),
            ("weights", "bytes"), *_SHOWN,
        ]  # fmt: skip
        rows = [
            (
                *(layer.name, layer.type, layer.kind, layer.output_shape, layer.parameters, layer.parameter_bytes),
                *_shown(layer.cost),
            )
            for layer in self.layers
        ]
        missing = [f"{m.operator} has no rule: {m.count} calls count as zero." for m in self.unmodelled]
        notes = [*missing, f"FLOPs = {CONVENTIONS['flops']}. Bytes: {CONVENTIONS['bytes']}."]
        footer = ("total", "", "", None, self.parameters, self.parameter_bytes, *_shown(self.total))
        title = f"{self.trace.model}: {si(self.parameters)} parameters, {si(self.total.flops, 'FLOP')}"
        table = html_table("", columns, rows, footer, notes)
        opened = " open" if len(rows) <= _UNFOLDED else ""
        return f"<details{opened}><summary>{escape(title)}, {len(rows)} layers</summary>{table}</details>"

    def _grouped(self, name_of: Callable[[OperationCost], str]) -> dict[str, list[Cost]]:
        groups: dict[str, list[Cost]] = {}
        for entry in self.operations:
            groups.setdefault(name_of(entry), []).append(entry.cost)
        return groups


_KEYS: Mapping[str, Callable[[OperationCost], str]] = {
    "operator": lambda entry: entry.operation.operator,
    "layer": lambda entry: entry.operation.layer,
    "block": lambda entry: entry.operation.layer,
    "kind": lambda entry: entry.kind,
    "phase": lambda entry: entry.operation.phase,
}


def block_of(layer: str, leaf: bool, depth: int | None = None) -> str:
    """The block that a layer belongs to: the module around a leaf, or the first `depth` components of the path."""
    if depth is not None:
        return ".".join(layer.split(".")[:depth])
    return layer.rpartition(".")[0] if leaf else layer


def count(trace: Trace) -> Costs:
    """What each operation of a trace costs."""
    if not isinstance(trace, Trace):
        raise InputError(f"count takes a trace, not {type_of(trace)}: cm.trace(network, shape) makes one.")
    known = rules()
    return Costs(trace, tuple(_cost(operation, known) for operation in trace.operations))


def _cost(operation: Operation, known: Mapping[str, Rule]) -> OperationCost:
    if operation.view:
        return OperationCost(operation, "reshape", _NOTHING)
    found = known.get(operation.operator)
    kind = found.kind if found else "other"
    if operation.phase == OPTIMIZER:
        kind = "optimizer"
    elif operation.layer == LOSS_LAYER:
        kind = "loss"
    work = found.work(operation) if found else _NO_WORK
    read = _distinct_bytes(operation.inputs.values()) if work.read_bytes is None else work.read_bytes
    write = _distinct_bytes(operation.outputs) if work.write_bytes is None else work.write_bytes
    return OperationCost(operation, kind, Cost(work.macs, work.vector_flops, read, write), found is not None)


_UNFOLDED = 50
"""Layers that a notebook shows without being asked."""


_SHOWN = (("MACs", "macs"), ("FLOPs", "flops"), ("read", "bytes"), ("write", "bytes"), ("FLOP/B", "ratio"))
"""The columns of a cost."""


def _shown(cost: Cost) -> tuple[float, ...]:
    return (cost.macs, cost.flops, cost.read_bytes, cost.write_bytes, cost.arithmetic_intensity)


_NOTHING = Cost()
_NO_WORK = Work()


def _distinct_bytes(tensors: Collection[TensorSpec]) -> int:
    """Bytes of tensors, one that occurs twice counted once."""
    alone = len(tensors) < 2 or len({tensor.storage for tensor in tensors}) == len(tensors)
    return sum([tensor.nbytes for tensor in (tensors if alone else set(tensors))])


def _layers(costs: Costs) -> Iterable[LayerCost]:
    trace = costs.trace
    entries: dict[str, list[OperationCost]] = {}
    for entry in costs.operations:
        entries.setdefault(entry.operation.layer, []).append(entry)
    elements: Counter[str] = Counter()
    nbytes: Counter[str] = Counter()
    for parameter in trace.parameters:
        if not parameter.buffer:
            elements[parameter.layer] += parameter.tensor.elements
            nbytes[parameter.layer] += parameter.tensor.nbytes
    for module in trace.modules:
        own = entries.pop(module.path, [])
        works = any(not entry.operation.view for entry in own)
        if works or elements[module.path] or (module.leaf and module.calls):
            kind = _kind(own, module)
            yield LayerCost(
                module.path,
                kind,
                module.type,
                elements[module.path],
                nbytes[module.path],
                Cost.sum([entry.cost for entry in own]),
                None if kind == MIXED else module.output_shape,
            )
    for name, own in entries.items():  # the loss, the optimizer, modules that are no longer there
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
