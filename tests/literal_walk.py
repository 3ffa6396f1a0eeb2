"""The slow way: a tiled loop nest walked tile by tile, each word counted when it crosses the chip's edge.

One tile of each operand is on the chip. Nothing here knows a formula: sets of coordinates are loaded and stored, in
the order in which a schedule's loops run.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from costmodel.chip.nests import Nest
from costmodel.chip.tiling import Tile

Span = tuple[int, int]


class Moved(NamedTuple):
    """Words by operand, and the largest that the three tiles were."""

    inputs: int
    weights: int
    outputs: int
    partials: int
    input_tile: int
    weight_tile: int
    output_tile: int


class Chip:
    """Counts what its tiles load and store, for one group of a nest."""

    def __init__(self, nest: Nest, tile: Tile) -> None:
        self.nest, self.tile = nest, tile
        self.inputs = self.weights = self.outputs = self.partials = 0
        self.largest = [0, 0, 0]
        self.written: set[tuple[int, ...]] = set()

    def spans(self, extent: int, size: int) -> list[Span]:
        return [(start, min(start + size, extent)) for start in range(0, extent, size)]

    def loops(self) -> dict[str, list[Span]]:
        nest = self.nest
        extents = (nest.batch, nest.out_channels, nest.in_channels, nest.out_rows, nest.out_columns)
        return {name: self.spans(*pair) for name, *pair in zip("nkchw", extents, self.tile, strict=True)}

    def window(self, n: Span, c: Span, h: Span, w: Span) -> set[tuple[int, ...]]:
        """The input words that the outputs of a tile touch."""
        rows, columns = self.met(0, h), self.met(1, w)
        return set(itertools.product(range(*n), range(*c), rows, columns))

    def met(self, axis: int, span: Span) -> set[int]:
        nest = self.nest
        taps = (nest.filter_rows, nest.filter_columns)[axis]
        outputs, inputs = ((nest.out_rows, nest.in_rows), (nest.out_columns, nest.in_columns))[axis]
        stride, gap, before = nest.stride[axis], nest.dilation[axis], nest.padding[axis][0]
        found = set()
        for y in range(inputs):
            for tap in range(taps):
                if nest.transposed:
                    if span[0] <= y * stride + tap * gap - before < span[1]:
                        found.add(y)
                else:
                    found |= {y for p in range(*span) if p * stride + tap * gap - before == y}
        assert outputs >= span[1]
        return found

    def load_inputs(self, words: set[tuple[int, ...]], held: set[tuple[int, ...]] = frozenset()) -> None:  # type: ignore[assignment]
        self.inputs += len(words - held)
        self.largest[0] = max(self.largest[0], len(words))

    def load_weights(self, k: Span, c: Span) -> None:
        words = (k[1] - k[0]) * (c[1] - c[0]) * self.nest.filter_rows * self.nest.filter_columns
        self.weights += words
        self.largest[1] = max(self.largest[1], words)

    def begin_outputs(self, n: Span, k: Span, h: Span, w: Span) -> set[tuple[int, ...]]:
        """A tile of outputs: what was written unfinished comes back."""
        words = set(itertools.product(range(*n), range(*k), range(*h), range(*w)))
        self.partials += len(words & self.written)
        self.largest[2] = max(self.largest[2], len(words))
        return words

    def store_outputs(self, words: set[tuple[int, ...]], finished: bool) -> None:
        if finished:
            self.outputs += len(words)
        else:
            self.partials += len(words)
        self.written |= words

    def moved(self) -> Moved:
        groups = self.nest.groups
        totals = (self.inputs, self.weights, self.outputs, self.partials)
        return Moved(*(groups * total for total in totals), *self.largest)


def walk_literally(nest: Nest, tile: Tile, schedule: str) -> Moved:
    chip = Chip(nest, tile)
    _WALKS[schedule](chip, **chip.loops())
    return chip.moved()


def _output_stationary(chip: Chip, **loops: list[Span]) -> None:
    for n, h, w, k in _over("nhwk", loops):
        out = chip.begin_outputs(n, k, h, w)
        for c in loops["c"]:
            chip.load_inputs(chip.window(n, c, h, w))
            chip.load_weights(k, c)
        chip.store_outputs(out, finished=True)


def _weight_stationary(chip: Chip, **loops: list[Span]) -> None:
    for k, c in _over("kc", loops):
        chip.load_weights(k, c)
        for n, h, w in _over("nhw", loops):
            chip.load_inputs(chip.window(n, c, h, w))
            out = chip.begin_outputs(n, k, h, w)
            chip.store_outputs(out, finished=c == loops["c"][-1])


def _input_stationary(chip: Chip, **loops: list[Span]) -> None:
    for n, h, w, c in _over("nhwc", loops):
        chip.load_inputs(chip.window(n, c, h, w))
        for k in loops["k"]:
            chip.load_weights(k, c)
            out = chip.begin_outputs(n, k, h, w)
            chip.store_outputs(out, finished=c == loops["c"][-1])


def _weights_resident(chip: Chip, **loops: list[Span]) -> None:
    (c,) = loops["c"]
    for k in loops["k"]:
        chip.load_weights(k, c)
        for n, w in _over("nw", loops):
            held: set[tuple[int, ...]] = set()
            for h in loops["h"]:
                words = chip.window(n, c, h, w)
                chip.load_inputs(words, held)
                held = words
                chip.store_outputs(chip.begin_outputs(n, k, h, w), finished=True)


def _inputs_resident(chip: Chip, **loops: list[Span]) -> None:
    (c,) = loops["c"]
    for n, h, w in _over("nhw", loops):
        chip.load_inputs(chip.window(n, c, h, w))
        for k in loops["k"]:
            chip.load_weights(k, c)
            chip.store_outputs(chip.begin_outputs(n, k, h, w), finished=True)


def _over(names: str, loops: dict[str, list[Span]]) -> Iterator[tuple[Span, ...]]:
    return itertools.product(*(loops[name] for name in names))


_WALKS = {
    "output-stationary": _output_stationary,
    "weight-stationary": _weight_stationary,
    "input-stationary": _input_stationary,
    "weights-resident": _weights_resident,
    "inputs-resident": _inputs_resident,
}
