"""torch.profiler's events -> seconds by layer and phase: each kernel joined to its operator, that to its layer.

Read from the profiler's Chrome trace, whose form is the same in all versions of torch and needs no torch:
- a kernel carries the "correlation" of its launch on the host, and the "External id" of the operator that launched it;
- operators and annotations nest by time on their thread. Annotations of ours name the layer, the phase and the
  repetition (see the constants below), the innermost wins;
- what autograd runs stands below "autograd::engine::evaluate_function", which carries its node's "Sequence number". In
  the forward the last operator with a number is the one that made the node, and that one's layer is meant. Gradients
  are added up in nodes without a number, right behind the node that made them.

Without kernels (on the CPU) an operator's own time counts: its duration less that of the operators inside it.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from costmodel.graph import BACKWARD, FORWARD, LOSS_LAYER
from costmodel.hardware.record import Kernel, LayerTime, Spread

LAYER, PHASE, REPETITION = "costmodel layer: ", "costmodel phase: ", "costmodel repetition"
"""How our annotations begin: the layer's path, the phase, nothing more."""

OTHERS = "(others)"
"""The name under which a layer's shortest kernels are summed up."""

_NODE = "autograd::engine::evaluate_function"
ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
_HOST = ("cpu_op", "user_annotation", "cuda_runtime", "cuda_driver")
_LONGEST_NAME = 140
_NEGLIGIBLE = 0.03
"""Kernels with less of their layer's time than this are summed up."""


class Event(NamedTuple):
    """Something that the profiler saw, with its times in seconds."""

    category: str
    """"cpu_op", "user_annotation", "cuda_runtime", "cuda_driver", "kernel", "gpu_memcpy" or "gpu_memset"."""

    name: str
    thread: Any
    start: float
    seconds: float
    external: int | None = None
    """An operator's own number; a kernel's or a launch's: that of its operator."""

    correlation: int | None = None
    """What a launch and its kernel have in common."""

    sequence: int | None = None
    """The number of the autograd node that an operator belongs to."""

    @property
    def end(self) -> float:
        """When it was over."""
        return self.start + self.seconds


@dataclass(frozen=True)
class Joined:
    """What was found of some repetitions."""

    layers: tuple[LayerTime, ...]
    """In the order of execution."""

    kernel_time: tuple[float, ...]
    """The sum of all kernels of each repetition, those of no layer included."""

    unattributed: tuple[Kernel, ...]
    """What belongs to no layer, a repetition's share."""


def read_events(document: Mapping[str, Any]) -> list[Event]:
    """The events of a Chrome trace."""
    raw = [event for event in document["traceEvents"] if event.get("cat") in (*ON_DEVICE, *_HOST) and "dur" in event]
    origin = min((event["ts"] for event in raw), default=0.0)  # subtracted first: the times have 16 digits
    events = []
    for event in raw:
        arguments = event.get("args", {})
        numbers = (arguments.get(name) for name in ("External id", "correlation", "Sequence number"))
        start, seconds = (event["ts"] - origin) / 1e6, event["dur"] / 1e6
        events.append(Event(event["cat"], event["name"], (event["pid"], event["tid"]), start, seconds, *numbers))
    return events


def join(events: Iterable[Event]) -> Joined:
    """The time of each layer in each phase, over the repetitions that the events' annotations mark."""
    host = _Host([event for event in events if event.category in _HOST])
    kernels = [event for event in events if event.category in ON_DEVICE]
    count = len(host.repetitions)
    groups: dict[tuple[str, str], _Group] = {}
    for piece in sorted(_of_kernels(host, kernels) if kernels else _of_operators(host), key=lambda each: each.start):
        index = host.repetition_of(piece.start)
        if index is not None:
            groups.setdefault(piece.place, _Group(count)).add(piece, index)
    work = [sum(group.seconds[index] for group in groups.values()) for index in range(count)]
    nowhere = groups.pop(_NOWHERE, _Group(count))
    return Joined(
        tuple(group.layer_time(*place) for place, group in groups.items()),
        tuple(map(_rounded, work)),
        nowhere.kernels(),
    )


class _Group:
    """What ran for one layer in one phase."""

    def __init__(self, repetitions: int) -> None:
        self.seconds = [0.0] * repetitions
        self.by_name: dict[str, list[float]] = {}
        self.counts: Counter[str] = Counter()

    def add(self, piece: _Piece, repetition: int) -> None:
        """Count a piece in a repetition."""
        name = piece.name[:_LONGEST_NAME]
        self.seconds[repetition] += piece.seconds
        self.by_name.setdefault(name, [0.0] * len(self.seconds))[repetition] += piece.seconds
        self.counts[name] += 1

    def layer_time(self, layer: str, phase: str) -> LayerTime:
        """The layer's row of a record."""
        spread = Spread.of(self.seconds).rounded()
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
        return Kernel(name, _rounded(seconds), round(count / len(self.seconds)))


class _Piece(NamedTuple):
    """A kernel, or an operator's own time, where it belongs."""

    place: tuple[str, str]
    """Layer and phase; both empty if it belongs to none."""

    name: str
    start: float
    """When the host launched it."""

    seconds: float


_NOWHERE = ("", "")


class _Host:
    """What ran on the host, nested."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = sorted(events, key=lambda event: (event.start, -event.seconds, event.external or 0))
        self.above: list[int | None] = [None] * len(self.events)
        """Of each event the one that it is inside of."""
        self._nest()
        self.repetitions = [event for event in self.events if event.name == REPETITION]
        self.by_external: dict[int | None, int] = {
            event.external: index
            for index, event in enumerate(self.events)
            if event.category == "cpu_op" and event.external is not None
        }
        self.by_correlation: dict[int | None, int] = {
            event.correlation: index
            for index, event in enumerate(self.events)
            if event.category in ("cuda_runtime", "cuda_driver") and event.correlation is not None
        }
        self._layer_of_node: dict[int, str] = {}
        self._places: list[tuple[str, str]] = []
        self._find_places()

    def place(self, index: int) -> tuple[str, str]:
        """The layer and phase of an event."""
        return self._places[index]

    def operator_of(self, kernel: Event) -> int | None:
        """What launched a kernel: its launch, where that lies inside another event, or else its operator."""
        launch = self.by_correlation.get(kernel.correlation)
        if launch is not None and self.above[launch] is not None:
            return launch
        return self.by_external.get(kernel.external)  # a number that a kernel without operator may share by chance

    def repetition_of(self, moment: float) -> int | None:
        """In which repetition a moment lies."""
        return next((i for i, event in enumerate(self.repetitions) if event.start <= moment <= event.end), None)

    def _nest(self) -> None:
        open_on: dict[Any, list[int]] = defaultdict(list)
        for index, event in enumerate(self.events):
            stack = open_on[event.thread]
            while stack and self.events[stack[-1]].end <= event.start:
                stack.pop()
            self.above[index] = stack[-1] if stack else None
            stack.append(index)

    def _find_places(self) -> None:
        last_node: dict[Any, str] = defaultdict(str)
        for index, event in enumerate(self.events):
            layer, phase, node = self._look_up(index)
            if phase == BACKWARD and layer is None:
                number = None if node is None else self.events[node].sequence
                if number is not None:
                    last_node[event.thread] = self._maker(number)
                layer = LOSS_LAYER if node is None else last_node[event.thread]  # a loss's first gradient is a one
            elif phase == FORWARD and event.sequence is not None:
                self._layer_of_node[event.sequence] = layer or ""
            self._places.append((layer or "", phase))

    def _maker(self, number: int) -> str:
        """The layer that made a node: of the last operator that began with no larger number.

        An operator that writes a view in place makes two nodes, and its event carries the number of the first.
        """
        if number not in self._layer_of_node:
            number = max((key for key in self._layer_of_node if key < number), default=-1)
        return self._layer_of_node.get(number, "")

    def _look_up(self, index: int) -> tuple[str | None, str, int | None]:
        """The innermost layer around an event, its phase, and the autograd node that it runs in."""
        layer: str | None = None
        phase, node = "", None
        at: int | None = index
        while at is not None:
            event = self.events[at]
            if event.name.startswith(_NODE) and node is None:
                node = at
            elif event.name.startswith(LAYER) and layer is None:
                layer = event.name.removeprefix(LAYER)
            elif event.name.startswith(PHASE) and not phase:
                phase = event.name.removeprefix(PHASE)
            at = self.above[at]
        return layer, BACKWARD if node is not None else phase or FORWARD, node


def _of_kernels(host: _Host, kernels: Iterable[Event]) -> Iterable[_Piece]:
    for kernel in kernels:
        index = host.operator_of(kernel)
        if index is None:
            yield _Piece(_NOWHERE, kernel.name, kernel.start, kernel.seconds)
        else:
            yield _Piece(host.place(index), kernel.name, host.events[index].start, kernel.seconds)


def _of_operators(host: _Host) -> Iterable[_Piece]:
    own = [event.seconds for event in host.events]
    for index, event in enumerate(host.events):
        above = host.above[index]
        while above is not None and host.events[above].category != "cpu_op":
            above = host.above[above]
        if above is not None and event.category == "cpu_op":
            own[above] -= event.seconds
    for index, event in enumerate(host.events):
        if event.category == "cpu_op":
            yield _Piece(host.place(index), event.name, event.start, max(0.0, own[index]))


def _rounded(seconds: float) -> float:
    """To nanoseconds, as the profiler's clock has them."""
    return round(seconds, 9)
