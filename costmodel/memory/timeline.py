"""A trace's memory: which bytes are alive when, when they peak, and who holds them then.

A storage is alive from the operation that makes it to the one after which nothing refers to it; an operation's outputs
add to everything that is alive while it runs. These are requested bytes, before an allocator rounds them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from costmodel.cost import BLOCKS
from costmodel.devices import device as find_device
from costmodel.errors import InputError, type_of
from costmodel.graph import HOST, LOSS_LAYER, OPTIMIZER_LAYER, ROLES, Operation, Storage, Trace
from costmodel.grouping import grouped
from costmodel.memory.levels import MemoryLevel, check_target, memory_levels, overheads, requested_only
from costmodel.memory.runs import Replay, replay
from costmodel.units import iec
from costmodel.view import Column, Table, share

if TYPE_CHECKING:
    import pandas as pd

    from costmodel.devices import Device


class PeakTensor(NamedTuple):
    """Bytes that one tensor holds at the peak."""

    name: str
    """The parameter's or buffer's name, or the layer that made it."""

    role: str
    nbytes: int
    shape: tuple[int, ...] = ()
    """Of the first tensor on the storage."""

    dtype: str = ""


class SavedStorage(NamedTuple):
    """A tensor that autograd saved in the forward for the backward."""

    name: str
    """The parameter's or buffer's name, or the layer that made it."""

    role: str
    nbytes: int
    layers: tuple[str, ...]
    """The layers whose operations saved it, in order."""


@dataclass(frozen=True, repr=False)
class MemoryTimeline:
    """The live bytes of a trace."""

    trace: Trace

    @cached_property
    def timeline(self) -> Mapping[str, tuple[int, ...]]:
        """Live bytes while each operation runs, by role."""
        return {role: self._live(role) for role in ROLES if any(s.role == role for s in self.trace.storages)}

    @cached_property
    def live_bytes(self) -> tuple[int, ...]:
        """Live bytes while each operation runs."""
        return tuple(map(sum, zip(*self.timeline.values(), strict=True)))

    @property
    def peak_bytes(self) -> int:
        """The most bytes alive at once."""
        return max(self.live_bytes, default=0)

    @property
    def peak_index(self) -> int:
        """The first operation at which the most bytes are alive."""
        return self.live_bytes.index(self.peak_bytes)

    @property
    def peak_operation(self) -> Operation:
        """The operation that runs at the peak: its layer and phase say where."""
        return self.trace.operations[self.peak_index]

    @property
    def peak_place(self) -> str:
        """That operation and its layer in words: "aten.relu of features.1"."""
        operator, layer = self.peak_operation.operator, self.peak_operation.layer
        return operator if layer in (LOSS_LAYER, OPTIMIZER_LAYER) else f"{operator} of {layer or 'the network itself'}"

    @property
    def by_role(self) -> Mapping[str, int]:
        """The peak's bytes by role."""
        return {role: live[self.peak_index] for role, live in self.timeline.items()}

    def peak_tensors(self) -> tuple[PeakTensor, ...]:
        """Who holds the bytes at the peak, largest first."""
        tensors = _first_tensors(self.trace)
        held = [
            PeakTensor(storage.name, storage.role, storage.nbytes, *tensors.get(index, ()))
            for index, storage in enumerate(self.trace.storages)
            if storage.nbytes and storage.role != HOST and _alive(storage, self.peak_index)
        ]
        return tuple(sorted(held, key=lambda tensor: -tensor.nbytes))

    def by(self, key: str, depth: int | None = None) -> dict[str, int]:
        """The peak's bytes by "layer", "block" or "role", the largest first.

        A parameter, its gradient and its optimizer state belong to the layer that holds it, what was computed to the
        layer that made it; the network's inputs are "(input)". A block is the module that a layer stands in; with
        `depth`, the layer's path cut to that many components. Raises InputError for another key.
        """
        layers = {parameter.name: parameter.layer for parameter in self.trace.parameters}
        names: Mapping[str, Callable[[PeakTensor], str]] = {
            "layer": lambda tensor: _layer_of(tensor, layers),
            "role": lambda tensor: tensor.role,
        }
        groups = grouped(self.peak_tensors(), key, names, self.trace, depth)
        sums = {name: sum(tensor.nbytes for tensor in held) for name, held in groups.items()}
        return dict(sorted(sums.items(), key=lambda item: -item[1]))

    @property
    def saved_bytes(self) -> int:
        """Bytes of the distinct storages that autograd saves in forward and loss for the backward.

        It is what torch.autograd.graph.saved_tensors_hooks sees, each storage once and whole, without parameters and
        buffers, which exist anyway; the network's inputs and the labels count. (In a step of several micro-batches, of
        the first.)
        """
        return sum(self.saved_by_layer.values())

    @cached_property
    def saved_by_layer(self) -> Mapping[str, int]:
        """The saved bytes by the layer that saved a storage first, in the layers' order."""
        by_layer: dict[str, int] = {}
        for saved in self.saved():
            if saved.role not in ("parameter", "buffer"):
                by_layer[saved.layers[0]] = by_layer.get(saved.layers[0], 0) + saved.nbytes
        return by_layer

    def saved(self) -> tuple[SavedStorage, ...]:
        """Every storage that autograd saves, parameters and buffers too, in the order in which they were made."""
        return tuple(SavedStorage(s.name, s.role, s.nbytes, s.saved_by) for s in self.trace.storages if s.saved_by)

    @cached_property
    def replay(self) -> Replay:
        """The trace on PyTorch's caching allocator, as it runs on CUDA."""
        return replay(self.trace)

    def levels(self, device: Device | str | None = None) -> tuple[MemoryLevel, ...]:
        """The peak from what tensors ask for to what a process holds; on another target than CUDA only the former.

        Raises InputError for a device that does not run the trace's target.
        """
        if device is not None:
            check_target(self.trace, find_device(device))
        if self.trace.target != "cuda":
            return requested_only(self.peak_bytes)
        return memory_levels(self.replay, overheads(self.trace, device))

    def table(self, by: str = "tensor", depth: int | None = None, *, most: int | None = None) -> Table:
        """Who holds the peak: one row a tensor, layer, block or role, the largest first, and their sum.

        Beyond `most` rows, one for the rest. With by="operation" the whole timeline instead: one row an operation, with
        the bytes of each role that are alive while it runs. Raises InputError for another `by`.
        """
        if by == "operation":
            return self._operations()
        names: tuple[str, ...] = ("tensor", "role", "shape", "dtype") if by == "tensor" else (by,)
        rows: list[tuple[Any, ...]] = (
            [(held.name, held.role, held.shape or None, held.dtype, held.nbytes) for held in self.peak_tensors()]
            if by == "tensor"
            else list(self.by(by, depth).items())
        )
        rest = rows[most:] if most is not None else []
        if rest:
            more = (f"{len(rest)} more", *[""] * (len(names) - 1), sum(row[-1] for row in rest))
            rows = [*rows[: len(rows) - len(rest)], more]
        peak = self.peak_bytes
        return Table.of(
            (*names, "held_bytes", "held_share"),
            [(*row, share(row[-1], peak)) for row in rows],
            title=f"{self.trace.model}: peak of {iec(peak)} in {self.peak_place} ({self.peak_operation.phase})",
            notes=(*self.notes, BYTES, *([BLOCKS] if by == "block" and depth is None else [])),
        ).summed()

    def _operations(self) -> Table:
        """The timeline, operation by operation."""
        columns = [Column(role, role, "bytes", f"bytes of role {role} alive") for role in self.timeline]
        where = ((o.phase, o.layer, o.operator) for o in self.trace.operations)
        rows = (place + live for place, live in zip(where, zip(*self.timeline.values(), strict=True), strict=True))
        return Table.of(("phase", "layer", "operator", *columns), rows, title=f"{self.trace.model}: live bytes")

    @property
    def notes(self) -> tuple[str, ...]:
        """How high the peak is, when it is reached and for what, in sentences."""
        roles = ", ".join(f"{role} {iec(held)}" for role, held in self.by_role.items() if held)
        saved = f"Autograd saves {iec(self.saved_bytes)} in the forward for the backward."
        peak = f"Peak of {iec(self.peak_bytes)} in {self.peak_place} ({self.peak_operation.phase})."
        return (peak, f"By role: {roles}.", *([saved] if self.trace.train else []))

    def to_frame(self, by: str = "tensor", depth: int | None = None) -> pd.DataFrame:
        """The table as a data frame, in bytes."""
        return self.table(by, depth).to_frame()

    def __repr__(self) -> str:
        where = self.peak_operation
        return f"<Memory of {self.trace.model}: peak of {iec(self.peak_bytes)} in {where.layer or where.operator}>"

    def _repr_html_(self) -> str:
        return self.table(most=_SHOWN)._repr_html_()

    def _live(self, role: str) -> tuple[int, ...]:
        """Bytes of one role, from what each operation adds and what the one before it let go."""
        # Differences first, then one running sum: linear in storages and operations.
        count = len(self.trace.operations)
        change = [0] * (count + 1)
        for storage in self.trace.storages:
            if storage.role == role and (storage.death is None or storage.death >= 0):
                change[max(0, storage.birth)] += storage.nbytes
                change[count if storage.death is None else storage.death + 1] -= storage.nbytes
        return tuple(accumulate(change[:count]))


_SHOWN = 12
"""Tensors that a notebook shows."""

BYTES = "Bytes are those that tensors ask for, before an allocator rounds."
"""What the peak's bytes are, in one line."""


def memory_timeline(trace: Trace) -> MemoryTimeline:
    """The live bytes of a trace over its operations. Raises InputError for anything but a trace."""
    if not isinstance(trace, Trace):
        raise InputError(f"memory_timeline takes a trace, not {type_of(trace)}: cm.trace(network, shape) makes one.")
    return MemoryTimeline(trace)


def _layer_of(tensor: PeakTensor, layers: Mapping[str, str]) -> str:
    """The layer that a tensor belongs to, by the layers of the parameters."""
    if tensor.role == "input":
        return "(input)"
    if tensor.role == "optimizer state":  # "exp_avg of features.0.weight"
        return layers.get(tensor.name.partition(" of ")[2], OPTIMIZER_LAYER)
    return layers.get(tensor.name, tensor.name)


def _first_tensors(trace: Trace) -> dict[int, tuple[tuple[int, ...], str]]:
    """Shape and element type of the first tensor on each storage."""
    first: dict[int, tuple[tuple[int, ...], str]] = {}
    known = (*(parameter.tensor for parameter in trace.parameters), *trace.inputs)
    for tensor in (*known, *(spec for o in trace.operations for spec in (*o.outputs, *o.inputs.values()))):
        first.setdefault(tensor.storage, (tensor.shape, tensor.dtype))
    return first


def _alive(storage: Storage, index: int) -> bool:
    return storage.birth <= index and (storage.death is None or storage.death >= index)
