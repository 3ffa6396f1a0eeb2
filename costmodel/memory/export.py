"""A timeline for a public viewer: Chrome's trace event format, which ui.perfetto.dev and chrome://tracing open.

The format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU. Counters ("ph": "C") carry
the live bytes by role and, on CUDA, the sums of the allocator; complete events ("X") are phases and operations, a row
each. No time is modelled: each operation lasts a microsecond of the viewer's clock, so that the axis counts operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from costmodel.graph import Operation
from costmodel.memory.runs import Replay
from costmodel.memory.timeline import MemoryTimeline

Event = dict[str, Any]

_PROCESS, _PHASES, _OPERATIONS = 1, 1, 2
"""The process and its rows."""


def chrome_trace(memory: MemoryTimeline, replay: Replay | None = None) -> Mapping[str, Any]:
    """A memory's timeline as a JSON document; with a replay, also what the allocator does.

    `json.dump` it into a file and open that in ui.perfetto.dev.
    """
    return {
        "traceEvents": [*_names(memory), *_slices(memory), *_counters(memory), *_allocator(replay)],
        "displayTimeUnit": "ns",
        "otherData": {
            "model": memory.trace.model,
            "axis": "operations: each lasts one microsecond of the viewer's clock, no time is modelled",
            "peak_bytes": memory.peak_bytes,
            "peak_index": memory.peak_index,
        },
    }


def _names(memory: MemoryTimeline) -> Iterator[Event]:
    yield _event("M", "process_name", _PHASES, args={"name": f"memory of {memory.trace.model}"})
    yield _event("M", "thread_name", _PHASES, args={"name": "phase"})
    yield _event("M", "thread_name", _OPERATIONS, args={"name": "operation"})


def _slices(memory: MemoryTimeline) -> Iterator[Event]:
    """The phases, and the operations with their layers."""
    numbered = enumerate(memory.trace.operations)
    for phase, group in groupby(numbered, key=lambda item: item[1].phase):
        first, *rest = (index for index, _ in group)
        yield _event("X", phase, _PHASES, ts=first, dur=1 + len(rest), cat="phase")
    for index, (operation, live) in enumerate(zip(memory.trace.operations, memory.live_bytes, strict=True)):
        yield _event(
            "X", operation.operator, _OPERATIONS, ts=index, dur=1, cat=operation.phase, args=_about(operation, live)
        )
    name = f"peak: {memory.peak_bytes:,} B in {memory.peak_place}"
    yield _event("i", name, _OPERATIONS, ts=memory.peak_index, s="p")


def _about(operation: Operation, live: int) -> dict[str, Any]:
    shapes = ["x".join(map(str, spec.shape)) for spec in operation.outputs]
    return {"layer": operation.layer, "live_bytes": live, "outputs": shapes}


def _counters(memory: MemoryTimeline) -> Iterator[Event]:
    for index in range(len(memory.trace.operations)):
        yield _counter("live bytes by role", index, {role: live[index] for role, live in memory.timeline.items()})


def _allocator(replay: Replay | None) -> Iterator[Event]:
    if replay is not None:
        for index, sums in enumerate(zip(replay.allocated_bytes, replay.reserved_bytes, strict=True)):
            yield _counter("allocated bytes", index, {"bytes": sums[0]})
            yield _counter("reserved bytes", index, {"bytes": sums[1]})


def _counter(name: str, index: int, values: dict[str, int]) -> Event:
    return {"ph": "C", "name": name, "pid": _PROCESS, "ts": index, "args": values}


def _event(kind: str, name: str, row: int, **more: Any) -> Event:
    return {"ph": kind, "name": name, "pid": _PROCESS, "tid": row} | more
