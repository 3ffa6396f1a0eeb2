"""What ran on the host, nested: which operator launched a kernel, and for which layer and phase.

- A kernel carries the "correlation" of its launch on the host, and the "External id" of the operator that launched it.
- Operators and annotations nest by time on their thread. Annotations of ours name the layer, the phase and the
  repetition (see the constants below), the innermost wins; so does any annotation or operator in `layers`.
- What autograd runs stands below "autograd::engine::evaluate_function", which carries its node's "Sequence number";
  until torch 1.11 the node itself does ("CudnnConvolutionBackward"), and what the engine does for it may follow it.
  In the forward the last operator with a number is the one that made the node, and that one's layer is meant.
  Gradients are added up in nodes without a number, right behind the node that made them.
"""

from __future__ import annotations

import bisect
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

from costmodel.graph import BACKWARD, FORWARD, LOSS_LAYER, OPTIMIZER, OPTIMIZER_LAYER
from costmodel.hardware.profiles.events import ANNOTATION, LAUNCHES, ON_DEVICE, OPERATOR, Event

LAYER, PHASE, REPETITION = "costmodel layer: ", "costmodel phase: ", "costmodel repetition"
"""How our annotations begin: the layer's path, the phase, nothing more."""

NOWHERE = ("", "")
"""The place of what belongs to no layer."""

STEP = "Optimizer.step#"
"""How torch.optim annotates an optimizer's step; its class's name follows."""

_ZERO_GRAD = "Optimizer.zero_grad#"
_NODE = "autograd::engine::evaluate_function"
_OLD_NODE = re.compile(r"(?!aten::)(?:.*Backward\d*|torch::autograd::\w+)$")


class _Around(NamedTuple):
    """What encloses an event."""

    layer: str | None = None
    phase: str = ""
    node: int | None = None
    """The autograd node that it runs in."""

    aside: bool = False
    """Whether it belongs to no layer whatever else is said."""

    outermost: int | None = None
    """The first operator or optimizer's annotation around it, itself included."""


class Host:
    """What ran on the host, in the order of time."""

    def __init__(self, events: Iterable[Event]) -> None:
        host = (event for event in events if event.category not in ON_DEVICE)
        self.events = sorted(host, key=lambda event: (event.start, -event.seconds, event.external or 0))
        self.above: list[int | None] = [None] * len(self.events)
        """Of each event the one that it is inside of."""
        open_on: dict[Any, list[int]] = defaultdict(list)
        for index, event in enumerate(self.events):
            stack = open_on[event.thread]
            while stack and self.events[stack[-1]].end <= event.start:
                stack.pop()
            self.above[index] = stack[-1] if stack else None
            stack.append(index)

    def operator_of(self, kernel: Event) -> int | None:
        """What launched a kernel: its launch, where that lies inside another event, or else its operator."""
        launch = self._by_correlation.get(kernel.correlation)
        if launch is not None and self.above[launch] is not None:
            return launch
        operator = self._by_external.get(kernel.external)  # which a kernel without operator may share by chance
        return launch if operator is None else operator

    def named(self, start: str) -> list[int]:
        """The annotations whose names begin so."""
        return [
            index
            for index, event in enumerate(self.events)
            if event.category == ANNOTATION and event.name.startswith(start)
        ]

    @cached_property
    def nodes(self) -> list[bool]:
        """Of each event whether it is an autograd node, or inside one."""
        found: list[bool] = []
        for index, event in enumerate(self.events):
            up = self.above[index]
            inside = up is not None and found[up]
            found.append(inside or (event.category == OPERATOR and _is_node(event)))
        return found

    @cached_property
    def engine_threads(self) -> frozenset[Any]:
        """The threads on which nothing but autograd's engine runs."""
        nodes, others = set(), set()
        for event, inside in zip(self.events, self.nodes, strict=True):
            if inside:
                nodes.add(event.thread)
            elif event.sequence is not None or event.category == ANNOTATION:
                others.add(event.thread)
        return frozenset(nodes - others)

    @cached_property
    def _by_external(self) -> Mapping[int | None, int]:
        return {
            event.external: index
            for index, event in enumerate(self.events)
            if event.category == OPERATOR and event.external is not None
        }

    @cached_property
    def _by_correlation(self) -> Mapping[int | None, int]:
        return {
            event.correlation: index
            for index, event in enumerate(self.events)
            if event.category in LAUNCHES and event.correlation is not None
        }


class Places:
    """The layer and phase of each event of the host.

    Args:
        host: the events.
        layers: the layers of some of them, and of all that is inside them; those that our annotations name need not
            be there.
        unmarked: the layer of what is in none: the network itself, or None for nowhere.
    """

    def __init__(self, host: Host, layers: Mapping[int, str] = {}, unmarked: str | None = "") -> None:
        self._host, self._layers, self._unmarked = host, layers, unmarked
        self._around: list[_Around] = []
        self._places: list[tuple[str, str]] = []
        self._layer_of_node: dict[int, str | None] = {}
        self._numbers: list[int] = []
        self._last: dict[Any, str | None] = defaultdict(lambda: unmarked)
        """Of each thread the layer whose node ran last."""
        for index in range(len(host.events)):
            self._places.append(self._place(index))

    def __getitem__(self, index: int) -> tuple[str, str]:
        return self._places[index]

    def owner(self, index: int) -> str:
        """The outermost operator or optimizer's annotation around an event; empty if there is none."""
        outermost = self._around[index].outermost
        return "" if outermost is None else self._host.events[outermost].name.partition("#")[0]

    def _place(self, index: int) -> tuple[str, str]:
        event, up = self._host.events[index], self._host.above[index]
        around = self._inside(index, event, self._around[up] if up is not None else _Around())
        self._around.append(around)
        layer = around.layer
        engine = event.thread in self._host.engine_threads
        phase = BACKWARD if around.node is not None or engine else around.phase or FORWARD
        if phase == BACKWARD and layer is None:
            number = None if around.node is None else self._host.events[around.node].sequence
            if number is not None:
                self._last[event.thread] = self._maker(number)
            # outside of a node it is a loss's first gradient, a one
            layer = LOSS_LAYER if around.node is None and not engine else self._last[event.thread]
        elif layer is None:
            layer = self._unmarked
        if phase == FORWARD and event.sequence is not None and event.sequence not in self._layer_of_node:
            bisect.insort(self._numbers, event.sequence)
        if phase == FORWARD and event.sequence is not None:
            self._layer_of_node[event.sequence] = layer
        return NOWHERE if around.aside or layer is None else (layer, phase)

    def _inside(self, index: int, event: Event, around: _Around) -> _Around:
        """What encloses everything inside of an event."""
        named = event.category == ANNOTATION and event.name.startswith((STEP, _ZERO_GRAD))
        if around.outermost is None and (event.category == OPERATOR or named):
            around = around._replace(outermost=index)
        if event.category == OPERATOR and _is_node(event) and (around.node is None or event.name.startswith(_NODE)):
            around = around._replace(node=index)
        if index in self._layers:
            around = around._replace(layer=self._layers[index])
        elif event.name.startswith(LAYER):
            around = around._replace(layer=event.name.removeprefix(LAYER))
        elif event.name.startswith(PHASE):
            around = around._replace(phase=event.name.removeprefix(PHASE))
        elif named and event.name.startswith(STEP) and around.layer is None:
            around = around._replace(layer=OPTIMIZER_LAYER, phase=OPTIMIZER)
        elif named and event.name.startswith(_ZERO_GRAD):
            around = around._replace(aside=True)
        return around

    def _maker(self, number: int) -> str | None:
        """The layer that made a node: of the last operator that began with no larger number.

        An operator that writes a view in place makes two nodes, and its event carries the number of the first.
        """
        if number not in self._layer_of_node:
            before = bisect.bisect_left(self._numbers, number)
            return self._layer_of_node[self._numbers[before - 1]] if before else self._unmarked
        return self._layer_of_node[number]


def _is_node(event: Event) -> bool:
    return event.name.startswith(_NODE) or _OLD_NODE.match(event.name) is not None
