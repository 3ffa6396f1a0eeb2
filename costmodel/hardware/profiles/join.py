"""Events -> seconds by layer and phase, over the repetitions: each kernel joined to its operator, that to its layer.

The time of a layer is that in which any of its kernels ran: less than their sum where they overlap on several streams.
Without kernels (on the CPU) an operator's own time counts: its duration less that of the operators inside it.
"""

from __future__ import annotations

import bisect
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from costmodel.hardware.profiles.events import ON_DEVICE, OPERATOR, Event
from costmodel.hardware.profiles.host import NOWHERE, REPETITION, Host, Places
from costmodel.hardware.record import Kernel, LayerTime, Spread

OTHERS = "(others)"
"""The name under which a layer's shortest kernels are summed up."""

Interval = tuple[float, float]
"""From when to when, in seconds."""

_LONGEST_NAME = 140
_NEGLIGIBLE = 0.03
"""Kernels with less of their layer's time than this are summed up."""


@dataclass(frozen=True)
class Joined:
    """What was found of some repetitions."""

    layers: tuple[LayerTime, ...]
    """In the order of execution."""

    kernel_time: tuple[float, ...]
    """The time in which any kernel ran in each repetition, those of no layer included, NCCL's left out: they wait for
    other GPUs."""

    unattributed: tuple[Kernel, ...]
    """What belongs to no layer, a repetition's share."""

    spans: tuple[float, ...] = ()
    """The time from each repetition's first kernel to its last; zeros on the CPU."""

    @property
    def idle(self) -> tuple[float, ...]:
        """The part of each span in which nothing ran."""
        return tuple(_rounded(max(0.0, span - ran)) for span, ran in zip(self.spans, self.kernel_time, strict=True))


def join(events: Iterable[Event]) -> Joined:
    """The time of each layer in each phase, over the repetitions that our annotations mark."""
    known = list(events)
    host = Host(known)
    marked = [host.events[index] for index in host.named(REPETITION)]
    kernels = [event for event in known if event.category in ON_DEVICE]
    return joined(host, Places(host), kernels, [(event.start, event.end) for event in marked])


def joined(host: Host, places: Places, kernels: Sequence[Event], repetitions: Sequence[Interval]) -> Joined:
    """The time of each layer in each phase, where repetitions are intervals on the host, in order."""
    groups: dict[tuple[str, str], _Group] = {}
    whole = _Group(len(repetitions))
    starts = [start for start, _ in repetitions]
    pieces = _of_kernels(host, places, kernels) if kernels else _of_operators(host, places)
    for piece in sorted(pieces, key=lambda each: each.start):
        index = bisect.bisect_right(starts, piece.start) - 1
        if index >= 0 and piece.start <= repetitions[index][1]:
            groups.setdefault(piece.place, _Group(len(repetitions))).add(piece, index)
            if not is_collective(piece.name):
                whole.add(piece, index)
    nowhere = groups.pop(NOWHERE, _Group(len(repetitions)))
    return Joined(
        tuple(group.layer_time(*place) for place, group in groups.items()),
        tuple(map(_rounded, whole.seconds())),
        nowhere.kernels(),
        tuple(map(_rounded, whole.spans())),
    )


def is_collective(kernel: str) -> bool:
    """Whether a kernel waits for other GPUs: NCCL's, by its name."""
    return "nccl" in kernel.lower()


def merged(intervals: Iterable[Interval]) -> list[Interval]:
    """The same moments in intervals that do not meet, in order."""
    found: list[Interval] = []
    for start, end in sorted(intervals):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def covered(intervals: Iterable[Interval]) -> float:
    """The seconds that some intervals cover, those that several cover once."""
    return sum(end - start for start, end in merged(intervals))


class _Piece(NamedTuple):
    """A kernel, or an operator's own time, where it belongs."""

    place: tuple[str, str]
    """Layer and phase; both empty if it belongs to none."""

    name: str
    start: float
    """When the host launched it."""

    seconds: float
    ran: Interval | None = None
    """When the device ran it; None for an operator."""


class _Group:
    """What ran for one layer in one phase."""

    def __init__(self, repetitions: int) -> None:
        self._own = [0.0] * repetitions
        self._ran: list[list[Interval]] = [[] for _ in range(repetitions)]
        self.by_name: dict[str, list[float]] = {}
        self.counts: Counter[str] = Counter()

    def add(self, piece: _Piece, repetition: int) -> None:
        """Count a piece in a repetition."""
        name = piece.name[:_LONGEST_NAME]
        if piece.ran is None:
            self._own[repetition] += piece.seconds
        else:
            self._ran[repetition].append(piece.ran)
        self.by_name.setdefault(name, [0.0] * len(self._own))[repetition] += piece.seconds
        self.counts[name] += 1

    def seconds(self) -> list[float]:
        """The time of each repetition."""
        return [own + covered(ran) for own, ran in zip(self._own, self._ran, strict=True)]

    def spans(self) -> list[float]:
        """The time of each repetition from the first kernel's start to the last one's end."""
        return [max(end for _, end in ran) - min(ran)[0] if ran else 0.0 for ran in self._ran]

    def layer_time(self, layer: str, phase: str) -> LayerTime:
        """The layer's row of a record."""
        spread = Spread.of(self.seconds()).rounded()
        return LayerTime(layer, phase, spread.median, spread.low, spread.high, self.kernels())

    def kernels(self) -> tuple[Kernel, ...]:
        """Medians by name, the longest first and the negligible in one."""
        medians = {name: statistics.median(seconds) for name, seconds in self.by_name.items()}
        least = _NEGLIGIBLE * sum(medians.values())
        kept = sorted((name for name in medians if medians[name] >= least), key=lambda name: -medians[name])
        found = [self._kernel(name, medians[name], self.counts[name]) for name in kept]
        rest = [name for name in medians if medians[name] < least]
        if rest:
            seconds, count = (sum(table[name] for name in rest) for table in (medians, self.counts))
            found.append(self._kernel(OTHERS, seconds, count))
        return tuple(found)

    def _kernel(self, name: str, seconds: float, count: float) -> Kernel:
        return Kernel(name, _rounded(seconds), round(count / len(self._own)))


def _of_kernels(host: Host, places: Places, kernels: Iterable[Event]) -> Iterable[_Piece]:
    for kernel in kernels:
        index, ran = host.operator_of(kernel), (kernel.start, kernel.end)
        if index is None:
            yield _Piece(NOWHERE, kernel.name, kernel.start, kernel.seconds, ran)
            continue
        place, owner = places[index], places.owner(index)
        if is_collective(kernel.name):
            place = NOWHERE
        name = f"{owner}: {kernel.name}" if place == NOWHERE and owner else kernel.name
        yield _Piece(place, name, host.events[index].start, kernel.seconds, ran)


def _of_operators(host: Host, places: Places) -> Iterable[_Piece]:
    own = [event.seconds for event in host.events]
    for index, event in enumerate(host.events):
        above = host.above[index]
        while above is not None and host.events[above].category != OPERATOR:
            above = host.above[above]
        if above is not None and event.category == OPERATOR:
            own[above] -= event.seconds
    for index, event in enumerate(host.events):
        if event.category == OPERATOR:
            yield _Piece(places[index], event.name, event.start, max(0.0, own[index]))


def _rounded(seconds: float) -> float:
    """To nanoseconds, as the profiler's clock has them."""
    return round(seconds, 9)
