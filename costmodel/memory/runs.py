"""A trace on the allocator: requested, allocated and reserved bytes over its operations, in the steady state.

A run allocates each operation's outputs while it runs and frees what nothing refers to after it; between two runs it
frees all that it made. What persists from run to run is what existed before the first operation: parameters, buffers,
optimizer state, and one batch, as if every run had the same. The first run makes the optimizer's state where its
optimizer step begins, so that it lies where the backward left room. Memory that operators allocate and free while they
run (cuDNN's and cuBLAS's workspaces) is not in a trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from costmodel.graph import HOST, OPTIMIZER, Trace
from costmodel.memory.allocator import Allocator, Block, Segment
from costmodel.units import iec
from costmodel.view import Table

if TYPE_CHECKING:
    import pandas as pd


class Moment(NamedTuple):
    """The storages, by index, that one operation allocates and frees."""

    births: tuple[int, ...]
    """Those that it makes, in the order of allocation."""

    deaths: tuple[int, ...]
    """Those that nothing refers to after it."""


@dataclass(frozen=True)
class AllocationSchedule:
    """The order in which a run allocates and frees its storages, whatever their sizes."""

    resident: tuple[int, ...]
    """What exists before the first operation: parameters, buffers, inputs."""

    lasting: tuple[int, ...]
    """What the first run makes for all later ones: optimizer state, and gradients if they are kept."""

    lasting_from: int
    """The operation before which it makes them: the first of the optimizer step."""

    moments: tuple[Moment, ...]
    """One an operation."""

    leftover: tuple[int, ...]
    """What the run made and still holds after the last operation: freed before the next run begins (gradients by
    `zero_grad`, outputs and loss when their names are bound anew)."""

    @classmethod
    def of(cls, trace: Trace) -> AllocationSchedule:
        """The schedule of a trace."""
        births: list[list[int]] = [[] for _ in trace.operations]
        deaths: list[list[int]] = [[] for _ in trace.operations]
        resident: list[int] = []
        lasting: list[int] = []
        leftover: list[int] = []
        for index, storage in enumerate(trace.storages):
            if storage.role == HOST or (storage.death is not None and storage.death < 0):
                continue
            if storage.birth >= 0:
                births[storage.birth].append(index)
            elif storage.role in _LASTING:
                lasting.append(index)
            else:
                resident.append(index)
            if storage.death is not None:
                deaths[storage.death].append(index)
            elif storage.birth >= 0:
                leftover.append(index)
        for operation, made in zip(trace.operations, births, strict=True):
            if operation.operator in _LAST_FIRST:
                made.reverse()
        moments = tuple(Moment(tuple(made), tuple(gone)) for made, gone in zip(births, deaths, strict=True))
        phases = [operation.phase for operation in trace.operations]
        step = phases.index(OPTIMIZER) if OPTIMIZER in phases else len(phases)
        return cls(tuple(resident), tuple(lasting), step, moments, tuple(leftover))


_LASTING = frozenset({"optimizer state", "gradient"})

_LAST_FIRST = frozenset({"aten.native_dropout"})
"""Operators that allocate their last output first: dropout its mask (aten/src/ATen/native/cuda/Dropout.cu,
dropout_cuda). The others allocate in the order in which they return, as far as we have read them."""


@dataclass(frozen=True, repr=False)
class Replay:
    """The allocator's sums over the operations of a run, in its steady state."""

    requested_bytes: tuple[int, ...]
    """Of the storages that are alive while each operation runs."""

    allocated_bytes: tuple[int, ...]
    """Of the blocks that hold them."""

    reserved_bytes: tuple[int, ...]
    """Of the segments that the blocks lie in."""

    runs: int
    """Which run is shown: the first that needed no new segment. Every later one repeats it, as what outlives a run does
    not move, and all else has merged into free segments by its end."""

    retries: int
    """How often free segments were released because memory ran out, in all runs; 0 without a limit."""

    segments: tuple[Segment, ...]
    """The segments after the last operation, by address."""

    @cached_property
    def peak_requested_bytes(self) -> int:
        """The most bytes requested at once."""
        return max(self.requested_bytes, default=0)

    @cached_property
    def peak_allocated_bytes(self) -> int:
        """The most bytes in blocks at once."""
        return max(self.allocated_bytes, default=0)

    @cached_property
    def peak_reserved_bytes(self) -> int:
        """The most bytes in segments at once."""
        return max(self.reserved_bytes, default=0)

    @property
    def fragmentation(self) -> float:
        """The share of the reserved bytes that no block uses even when blocks use most."""
        return 1 - self.peak_allocated_bytes / self.peak_reserved_bytes if self.peak_reserved_bytes else 0.0

    def table(self) -> Table:
        """One row an operation: the bytes requested, allocated and reserved while it runs."""
        rows = zip(self.requested_bytes, self.allocated_bytes, self.reserved_bytes, strict=True)
        title = f"Replay on the caching allocator: {self._summary}"
        return Table.of(("requested_bytes", "allocated_bytes", "reserved_bytes"), rows, title=title)

    def to_frame(self) -> pd.DataFrame:
        """The table as a data frame."""
        return self.table().to_frame()

    def __repr__(self) -> str:
        return f"<Replay: {self._summary}>"

    def _repr_html_(self) -> str:
        """The segments for a notebook."""
        pools = [("small" if segment.small else "large", segment.size) for segment in self.segments]
        rows = [(pool, size, pools.count((pool, size))) for pool, size in dict.fromkeys(pools)]
        total = {"pool": "total", "segment_bytes": self.peak_reserved_bytes, "segments": len(pools)}
        title = f"Replay on the caching allocator: {self._summary}"
        return Table.of(("pool", "segment_bytes", "segments"), rows, title=title, total=total)._repr_html_()

    @property
    def _summary(self) -> str:
        peaks = (self.peak_requested_bytes, self.peak_allocated_bytes, self.peak_reserved_bytes)
        words = zip(("requested", "allocated", "reserved"), peaks, strict=True)
        return ", ".join(f"{name} {iec(peak)}" for name, peak in words)


MOST_RUNS = 8
"""The most runs that are replayed: under a limit, segments may be released in every run."""


def replay(trace: Trace, *, limit_bytes: int | None = None) -> Replay:
    """A trace's births and deaths on the allocator, run after run until one needs no new segment.

    `limit_bytes` is the most that the driver can allocate. Raises MemoryLimitError if that is too little.
    """
    return replay_schedule(AllocationSchedule.of(trace), [storage.nbytes for storage in trace.storages], limit_bytes)


def replay_schedule(schedule: AllocationSchedule, sizes: Sequence[int], limit_bytes: int | None = None) -> Replay:
    """The same for a schedule and the sizes of its storages in bytes."""
    allocator = Allocator(limit_bytes)
    held: dict[int, Block] = {}

    def allocate(storages: Iterable[int]) -> None:
        for index in storages:
            block = allocator.malloc(sizes[index])
            if block is not None:
                held[index] = block

    def release(storages: Iterable[int]) -> None:
        for index in storages:
            if index in held:
                allocator.free(held.pop(index))

    for run in range(1, MOST_RUNS + 1):
        allocate([index for index in schedule.resident if index not in held])
        sums: list[tuple[int, int, int]] = []
        before = allocator.reserved_bytes, allocator.retries
        for index, (births, deaths) in enumerate(schedule.moments):
            if run == 1 and index == schedule.lasting_from:
                allocate(schedule.lasting)
            allocate(births)
            sums.append((allocator.requested_bytes, allocator.allocated_bytes, allocator.reserved_bytes))
            release(deaths)
        release(schedule.leftover)
        steady = (allocator.reserved_bytes, allocator.retries) == before
        if steady and (run > 1 or not schedule.lasting):
            break
    requested, allocated, reserved = zip(*sums, strict=True) if sums else ((), (), ())
    segments = tuple(segment for segment, _ in allocator.blocks())
    return Replay(requested, allocated, reserved, run, allocator.retries, segments)
