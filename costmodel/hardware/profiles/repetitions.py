"""The steps of a trace: where each begins and ends on the host, and which of them were cold.

A step is a "ProfilerStep#N", as `torch.profiler` marks them where its `step` is called; or else what stands between the
beginnings of one forward and the next. The first step of a process loads kernels, searches algorithms and takes memory
from the device: where nothing says that steps went before, it is set apart.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from costmodel.hardware.profiles.host import STEP, Host
from costmodel.hardware.profiles.join import Interval

PROFILER_STEP = "ProfilerStep#"

_COLD = 1.5
"""Leading steps that take so many times as long as the median of all are cold, too."""


class Repetitions(NamedTuple):
    """The steps of a trace, in seconds on the host's clock."""

    warm: tuple[Interval, ...]
    cold: tuple[Interval, ...] = ()
    """Set apart, because they came first."""

    found_by: str = ""
    """What marks them."""


def of_profiler(host: Host) -> tuple[Interval, ...]:
    """The steps that torch.profiler marked."""
    return tuple((host.events[index].start, host.events[index].end) for index in host.named(PROFILER_STEP))


def of_forwards(host: Host, forwards: Sequence[Interval], train: bool) -> tuple[Interval, ...]:
    """The steps that begin with each forward: in training until the last of backward and optimizer, before the next."""
    if not train:
        return tuple(forwards)
    ends = sorted(
        event.end
        for event, inside in zip(host.events, host.nodes, strict=True)
        if inside or event.name.startswith(STEP)
    )
    found = []
    for index, (start, end) in enumerate(forwards):
        until = forwards[index + 1][0] if index + 1 < len(forwards) else float("inf")
        found.append((start, max([each for each in ends if start <= each <= until], default=end)))
    return tuple(found)


def without_cold(host: Host, steps: Sequence[Interval], found_by: str) -> Repetitions:
    """The steps with cold ones set apart: the first, unless the profiler counted others before it, and such after it
    that take much longer than the rest. At least one is warm."""
    if len(steps) < 2:
        return Repetitions(tuple(steps), (), found_by)
    walls = [end - start for start, end in steps]
    usual = statistics.median(walls)
    first = 0 if _counted_before(host) else 1
    while first < len(steps) - 1 and walls[first] > _COLD * usual:
        first += 1
    return Repetitions(tuple(steps[first:]), tuple(steps[:first]), found_by)


def _counted_before(host: Host) -> bool:
    """Whether the profiler's steps begin with a number above 0: others ran before it recorded."""
    steps = host.named(PROFILER_STEP)
    number = host.events[steps[0]].name.removeprefix(PROFILER_STEP) if steps else ""
    return number.isdecimal() and int(number) > 0
