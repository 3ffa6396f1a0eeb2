"""Memory at any batch, and the largest batch that fits: two traces in place of one at every batch.

A network's tensors are affine in its batch: bytes(B) = constant + slope · B, storage by storage, while the order in
which they come and go stays the same. Two traces give both numbers, and with them the live bytes at any batch and, by a
replay, the allocator's segments. The lines are trusted up to the largest batch at which a trace confirmed them: the
first query beyond it makes a trace there, which confirms all batches below. Where a trace disagrees (the network's code
depends on the batch), every batch is traced from then on.

On a GPU the largest batch is the largest whose replay fits in what the process's own memory (`levels.overheads`) leaves
of the device's. Live bytes, each rounded to whole blocks, only grow with the batch, so nothing runs beyond the batch at
which they alone fill the memory; a trace checks the lines there. Below it nothing is monotone, as fragmentation differs
from batch to batch: the batches in between are tried one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from costmodel.devices import device as find_device
from costmodel.errors import InputError
from costmodel.graph import Trace
from costmodel.memory.allocator import MIN_BLOCK, MemoryLimitError
from costmodel.memory.levels import (
    CONTEXT_BYTES,
    MemoryLevel,
    Overhead,
    check_target,
    memory_levels,
    overheads,
    requested_only,
)
from costmodel.memory.runs import AllocationSchedule, Replay, replay_schedule
from costmodel.memory.search import largest, last
from costmodel.units import iec
from costmodel.view import Table, column

if TYPE_CHECKING:
    import pandas as pd

    from costmodel.devices import Device

TraceAt = Callable[[int], Trace]
"""Makes the trace of a batch."""

_SAMPLES = (2, 3)
"""The batches that are traced. A batch of 1 is special to some operators: it is traced when it is needed."""

EFFORT = 100_000
"""The most operations that a search replays to try every batch below the bound."""


class Point(NamedTuple):
    """What one batch takes."""

    batch: int
    requested_bytes: int
    allocated_bytes: int | None
    """None on the CPU, whose allocator is not replayed; so are the next two."""
    reserved_bytes: int | None
    process_bytes: int | None


@dataclass(frozen=True, repr=False)
class Fit:
    """The largest batch that a device runs."""

    device: Device
    batch: int
    """0 if not even one sample fits."""

    level: str
    """Which level was compared with the memory: "process" on a GPU, "requested" on a CPU."""

    point: Point
    """What that batch takes on the device; or what one sample would take, if none fits."""

    batch_without_retries: int
    """The largest batch found that runs without the allocator releasing segments and allocating others in every step,
    which costs time; `batch` itself if it does not have to."""

    bound: int
    """No larger batch can run: its live bytes alone fill the memory."""

    exhaustive: bool
    """Whether every batch between `batch` and the bound was tried; otherwise it was found by bisection."""

    extrapolated: bool
    """Whether it follows from two traces, checked by a third at `bound`; otherwise batches were traced one by one."""

    limit_bytes: int
    """What the device leaves for tensors."""

    beside: tuple[Overhead, ...]
    """What the process is assumed to hold besides its tensors."""

    def __repr__(self) -> str:
        return f"<Fit of the {self.device.title}: batch {self.batch:,}>"

    def table(self) -> Table:
        """The largest batch, what it takes, and how far that is certain."""
        point = self.point
        values = {
            "device": self.device.title,
            "available_bytes": self.device.available_bytes,
            "largest_batch": self.batch,
            "batch_without_retries": self.batch_without_retries,
            "bound_batch": self.bound,
            "requested_bytes": point.requested_bytes,
            "reserved_bytes": point.reserved_bytes,
            "process_bytes": point.process_bytes,
            "level": self.level,
            "limit_bytes": self.limit_bytes,
            "exhaustive": self.exhaustive,
            "extrapolated": self.extrapolated,
        }
        columns = [column(name, rank=9) if name in _FURTHER else column(name) for name in values]
        title = f"{self.device.title}: {iec(self.device.available_bytes or 0)}"
        assumed = (f"{overhead.what} {iec(overhead.nbytes)}" for overhead in self.beside)
        notes = (f"Assumed beside the tensors: {', '.join(assumed)}.",) if self.beside else ()
        return Table.of(columns, [tuple(values.values())], title=title, notes=notes)

    def to_frame(self) -> pd.DataFrame:
        """The table as a data frame."""
        return self.table().to_frame()

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


_FURTHER = ("level", "limit_bytes", "exhaustive", "extrapolated")


class Scaling:
    """What a run takes at any batch."""

    def __init__(self, trace_at: TraceAt, context_bytes: int = CONTEXT_BYTES) -> None:
        """`trace_at(batch)` makes a trace; it is called for two batches, and for those that have to be traced."""
        self._trace_at = trace_at
        self._traces: dict[int, Trace] = {}
        self._checked = _SAMPLES[-1]
        """The largest batch at which a trace agreed with the lines."""
        self.context_bytes = context_bytes

    def __repr__(self) -> str:
        return f"<Scaling of {self._any_trace.model}: {'affine in' if self.affine else 'traced at'} its batch>"

    @property
    def affine(self) -> bool:
        """Whether bytes are affine in the batch, as far as the traces so far show."""
        return self._lines is not None

    def trace(self, batch: int) -> Trace:
        """The trace at a batch. Raises InputError for a batch below one."""
        if batch < 1:
            raise InputError(f"a batch of {batch} cannot run: give at least 1.")
        if batch not in self._traces:
            self._traces[batch] = self._trace_at(batch)
        return self._traces[batch]

    def peak_bytes(self, batch: int) -> int:
        """The most requested bytes alive at once."""
        return self._plan(batch).peak_bytes

    def replay(self, batch: int, *, limit_bytes: int | None = None) -> Replay:
        """The batch on the allocator. Raises MemoryLimitError if a limit is too small."""
        return self._plan(batch).replay(limit_bytes)

    def levels(self, batch: int, device: Device | str | None = None) -> tuple[MemoryLevel, ...]:
        """The four levels at a batch; on another target than CUDA only the first."""
        beside = self.beside(device)
        if self._any_trace.target != "cuda":
            return requested_only(self.peak_bytes(batch))
        return memory_levels(self.replay(batch), beside)

    def beside(self, device: Device | str | None = None) -> tuple[Overhead, ...]:
        """What the process holds besides its tensors: nothing on a CPU.

        Raises InputError for a device that does not run the trace's target.
        """
        trace = self._any_trace
        if device is not None:
            check_target(trace, find_device(device))
        return overheads(trace, device, self.context_bytes) if trace.target == "cuda" else ()

    def point(self, batch: int, device: Device | str | None = None, *, limit_bytes: int | None = None) -> Point:
        """What a batch takes at every level, with or without a limit on memory."""
        beside = self.beside(device)
        if self._any_trace.target != "cuda":
            return Point(batch, self.peak_bytes(batch), None, None, None)
        levels = memory_levels(self.replay(batch, limit_bytes=limit_bytes), beside)
        return Point(batch, *(level.nbytes for level in levels))

    def sweep(self, batches: Iterable[int], device: Device | str | None = None) -> Table:
        """One row a batch: what it takes on every level, in bytes; on a device of known memory, whether it `fits`."""
        batches = tuple(batches)
        if batches:
            self._confirmed_up_to(max(batches))  # the largest first: if the lines hold there, they hold below
        points = Table.of(Point._fields, [self.point(batch, device) for batch in batches])
        if device is None or not find_device(device).available_bytes:
            return points
        return points.beside(Table.of(("fits",), [(self.holds(batch, device),) for batch in batches]))

    def holds(self, batch: int, device: Device | str) -> bool:
        """Whether a device runs a batch.

        Raises InputError if the device's memory is unknown, or if it does not run the trace's target.
        """
        limit, plan = self._limit_bytes(find_device(device)), self._plan(batch)
        return plan.runs_in(limit) if self._any_trace.target == "cuda" else plan.peak_bytes <= limit

    def fit(self, device: Device | str, *, effort: int = EFFORT) -> Fit:
        """The largest batch that a device runs.

        `effort` is how many operations may be replayed to try every batch below the bound; beyond it the
        search bisects. Raises InputError if the device's memory is unknown, or if it does not run the trace's target.
        """
        device = find_device(device)
        limit, target = self._limit_bytes(device), self._any_trace.target
        result = self._search(limit, effort)
        if self.affine and not self._confirmed_up_to(max(1, result.bound)):
            result = self._search(limit, effort)  # which traces every batch that it tries
        return Fit(
            device=device,
            batch=result.batch,
            level="process" if target == "cuda" else "requested",
            point=self.point(max(1, result.batch), device, limit_bytes=limit if result.batch else None),
            batch_without_retries=result.batch_without_retries,
            bound=result.bound,
            exhaustive=result.exhaustive,
            extrapolated=self.affine,
            limit_bytes=limit,
            beside=self.beside(device),
        )

    def _limit_bytes(self, device: Device) -> int:
        """What a device leaves for tensors."""
        beside = self.beside(device)
        if device.available_bytes is None:
            raise InputError(
                f"{device.title} has no memory size: give memory_bytes in its file, with the source of the number."
            )
        return max(0, device.available_bytes - sum(overhead.nbytes for overhead in beside))

    def _search(self, limit_bytes: int, effort: int) -> _SearchResult:
        """The largest batch that a memory holds."""
        trace = self._any_trace
        on_gpu = trace.target == "cuda"

        def could_run(batch: int) -> bool:
            plan = self._extrapolated(batch)
            return (plan.rounded_peak_bytes if on_gpu else plan.peak_bytes) <= limit_bytes

        def runs(batch: int) -> bool:
            return self._extrapolated(batch).runs_in(limit_bytes)

        def runs_without_retries(batch: int) -> bool:
            return self._extrapolated(batch).replay().peak_reserved_bytes <= limit_bytes

        bound = last(could_run)
        if not on_gpu:
            return _SearchResult(bound, bound, bound, True)
        tries = effort // len(trace.operations) if self.affine else 0
        batch, exhaustive = largest(runs, bound, tries)
        return _SearchResult(batch, largest(runs_without_retries, batch, tries)[0], bound, exhaustive)

    @property
    def _any_trace(self) -> Trace:
        return next(iter(self._traces.values())) if self._traces else self.trace(_SAMPLES[0])

    @cached_property
    def _lines(self) -> _Lines | None:
        """The storages' bytes as functions of the batch; None if they are not affine."""
        return _Lines.through(*((batch, _Plan.of(self.trace(batch))) for batch in _SAMPLES))

    def _extrapolated(self, batch: int) -> _Plan:
        """The plan of a batch by the lines, confirmed or not."""
        lines = self._lines
        return self._plan(batch) if lines is None or batch < _SAMPLES[0] else lines.at(batch)

    def _plan(self, batch: int) -> _Plan:
        """The plan of a batch: by its trace if there is one or it needs one, else by confirmed lines."""
        if batch not in self._traces and batch >= _SAMPLES[0] and self._confirmed_up_to(batch):
            return self._extrapolated(batch)
        return _Plan.of(self.trace(batch))

    def _confirmed_up_to(self, batch: int) -> bool:
        """Whether the lines hold up to a batch: a trace there decides for all batches below it."""
        lines = self._lines
        if lines is not None and batch > self._checked:
            if _Plan.of(self.trace(batch)).same_as(lines.at(batch)):
                self._checked = batch
            else:
                self._lines = None  # from here on every batch is traced
        return self.affine


class _SearchResult(NamedTuple):
    """The result of a search; see `Fit`."""

    batch: int
    batch_without_retries: int
    bound: int
    exhaustive: bool


class _Plan(NamedTuple):
    """One run: when storages are allocated and freed, and how large they are."""

    schedule: AllocationSchedule
    sizes: NDArray[np.int64]
    """[storage]: bytes"""

    @classmethod
    def of(cls, trace: Trace) -> _Plan:
        sizes = np.array([storage.nbytes for storage in trace.storages], dtype=np.int64)
        return cls(AllocationSchedule.of(trace), sizes)

    def same_as(self, other: _Plan) -> bool:
        """Whether both allocate and free the same storages, with the same sizes."""
        return self.schedule == other.schedule and bool(np.array_equal(self.sizes, other.sizes))

    def replay(self, limit_bytes: int | None = None) -> Replay:
        """The run on the allocator. Raises MemoryLimitError if a limit is too small."""
        return replay_schedule(self.schedule, self.sizes.tolist(), limit_bytes)

    def runs_in(self, limit_bytes: int) -> bool:
        """Whether it fits in a limit."""
        try:
            self.replay(limit_bytes)
        except MemoryLimitError:
            return False
        return True

    @property
    def peak_bytes(self) -> int:
        return _peak(self.schedule, self.sizes)

    @property
    def rounded_peak_bytes(self) -> int:
        """The peak if every storage took whole blocks and nothing else: a lower bound of what the allocator needs."""
        return _peak(self.schedule, -(-self.sizes // MIN_BLOCK) * MIN_BLOCK)


def _peak(schedule: AllocationSchedule, sizes: NDArray[np.int64]) -> int:
    """The most bytes alive while an operation runs."""
    change = np.zeros(len(schedule.moments) + 1, dtype=np.int64)
    change[0] = sizes[[*schedule.resident, *schedule.lasting]].sum()
    for index, (births, deaths) in enumerate(schedule.moments):
        for birth in births:
            change[index] += sizes[birth]
        for death in deaths:
            change[index + 1] -= sizes[death]
    return int(np.cumsum(change[:-1]).max(initial=0))


class _Lines(NamedTuple):
    """A run at any batch: the storages' bytes are constant + slope · batch."""

    schedule: AllocationSchedule
    constants: NDArray[np.int64]
    slopes: NDArray[np.int64]

    @classmethod
    def through(cls, first: tuple[int, _Plan], second: tuple[int, _Plan]) -> _Lines | None:
        """The lines through two runs; None if they differ in more than their sizes, or shrink."""
        (low, one), (high, other) = first, second
        if one.schedule != other.schedule:
            return None
        slopes, rest = np.divmod(other.sizes - one.sizes, high - low)
        constants = one.sizes - slopes * low
        if rest.any() or (slopes < 0).any():
            return None
        return cls(one.schedule, constants, slopes)

    def at(self, batch: int) -> _Plan:
        return _Plan(self.schedule, self.constants + self.slopes * batch)


def scaling(trace_at: TraceAt, *, context_bytes: int = CONTEXT_BYTES) -> Scaling:
    """What a run takes at any batch, from a function that traces it at one: memory and the largest batch that fits.

    >>> memory = scaling(lambda batch: costmodel.trace(network, (batch, 3, 224, 224), train=True))  # doctest: +SKIP
    >>> memory.fit(costmodel.device("h200")).batch  # doctest: +SKIP
    """
    return Scaling(trace_at, context_bytes)
