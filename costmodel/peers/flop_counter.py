"""torch's own counter, `torch.utils.flop_counter.FlopCounterMode`, with gradients enabled.

What its total grows by while a layer runs belongs to that layer; in the backward, while a node of the autograd graph
runs, to the layer in whose forward the node was made. (Its own table names modules by class and attribute, and a shared
module twice.)
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from costmodel.graph import BACKWARD, FORWARD
from costmodel.peers import Findings, Reading
from costmodel.peers.subject import Subject, own_parameters, total_of
from costmodel.tracer.meta_copy import surround
from costmodel.tracer.torch_private import next_number, node_number


def count(subject: Subject) -> Findings:
    """Forward, and backward if requested, in FLOPs (2 a multiply-accumulate)."""
    parameters = own_parameters(subject.network)
    counter = FlopCounterMode(display=False)
    ledger = _Ledger(counter)
    surround(subject.network, ledger.inside)
    with counter:
        outputs = subject.forward()
        if subject.train:
            ledger.run_backward(total_of(outputs))
    readings = tuple(Reading(*key, amount) for key, amount in ledger.amounts.items())
    return Findings(readings, parameters, frozenset(str(operator) for operator in flop_registry))


class _Ledger:
    """Books what a counter's total grows by to the layer that is running."""

    def __init__(self, counter: FlopCounterMode) -> None:
        self.counter = counter
        self.phase, self.layer = FORWARD, ""
        self.amounts: Counter[tuple[str, str, str]] = Counter()
        self._booked: Mapping[Any, int] = {}
        self._starts: list[int] = [0]
        """The autograd sequence numbers at which the layer changed, and the layers from there on."""
        self._layers: list[str] = [""]

    @contextmanager
    def inside(self, layer: str) -> Iterator[None]:
        """What runs in here belongs to `layer`, apart from what its children run."""
        outer = self.layer
        self._move_to(layer)
        try:
            yield
        finally:
            self._move_to(outer)

    def run_backward(self, loss: torch.Tensor) -> None:
        """Run the backward pass node by node."""
        self._move_to("")
        self.phase = BACKWARD
        for node in _nodes(loss.grad_fn):
            if node.name() != "torch::autograd::AccumulateGrad":
                place = bisect_right(self._starts, node_number(node)) - 1
                node.register_prehook(functools.partial(self._begin, self._layers[place]))
        loss.backward()
        self._move_to("")

    def _begin(self, layer: str, _: Any) -> None:
        self._move_to(layer)

    def _move_to(self, layer: str) -> None:
        now = self.counter.get_flop_counts().get("Global", {})
        for operator, amount in now.items():
            growth = amount - self._booked.get(operator, 0)
            if growth:
                self.amounts[self.layer, self.phase, str(operator)] += growth
        self._booked = now
        self.layer = layer
        if self.phase == FORWARD:
            self._starts.append(next_number())
            self._layers.append(layer)


def _nodes(root: Any) -> Iterator[Any]:
    """Every node of the autograd graph."""
    seen, todo = set(), [root]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            todo.extend(parent for parent, _ in node.next_functions)
