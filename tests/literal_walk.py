"""The slow way: a tiled loop nest walked tile by tile, each word counted when it crosses the chip's edge.

One tile of each operand is on the chip. Nothing here knows a formula: sets of coordinates are loaded and stored, in
the order in which a schedule's loops run.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from costmodel.chip.nests import Nest
from costmodel.chip.schedules import Pool, Tile
from costmodel.chip.windows import Window

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

    def __init__(self, nest: Nest, tile: Tile, pool: Pool | None) -> None:
        self.nest, self.tile, self.pool = nest, tile, pool
        self.inputs = self.weights = self.outputs = self.partials = 0
        self.largest = [0, 0, 0]
        self.unfinished: set[tuple[Span, ...]] = set()

    def spans(self, extent: int, size: int) -> list[Span]:
        return [(start, min(start + size, extent)) for start in range(0, extent, size)]

    def loops(self) -> dict[str, list[Span]]:
        nest = self.nest
        rows, columns = (each.outputs for each in self.pool) if self.pool else (nest.out_rows, nest.out_columns)
        extents = (nest.batch, nest.out_channels, nest.in_channels, rows, columns)
        return {name: self.spans(*pair) for name, *pair in zip("nkchw", extents, self.tile, strict=True)}

    def window(self, n: Span, c: Span, h: Span, w: Span) -> set[tuple[int, ...]]:
        """The input words that the outputs of a tile touch."""
        rows, columns = (met(each, self.made(axis, span)) for axis, each, span in self.axes(h, w))
        return set(itertools.product(range(*n), range(*c), rows, columns))

    def axes(self, h: Span, w: Span) -> tuple[tuple[int, Window, Span], ...]:
        return (0, self.nest.rows, h), (1, self.nest.columns, w)

    def made(self, axis: int, span: Span) -> set[int]:
        """The output rows or columns of a tile, before they are pooled."""
        return met(self.pool[axis], set(range(*span))) if self.pool else set(range(*span))

    def load_inputs(self, words: set[tuple[int, ...]], held: set[tuple[int, ...]] = frozenset()) -> None:  # type: ignore[assignment]
        self.inputs += len(words - held)
        self.largest[0] = max(self.largest[0], len(words))

    def load_weights(self, k: Span, c: Span) -> None:
        words = (k[1] - k[0]) * (c[1] - c[0]) * self.nest.filter_rows * self.nest.filter_columns
        self.weights += words
        self.largest[1] = max(self.largest[1], words)

    def begin_outputs(self, n: Span, k: Span, h: Span, w: Span) -> set[tuple[int, ...]]:
        """A tile of outputs: what was written unfinished comes back."""
        words = set(itertools.product(range(*n), range(*k), self.made(0, h), self.made(1, w)))
        if (n, k, h, w) in self.unfinished:
            self.partials += len(words)
        self.largest[2] = max(self.largest[2], len(words))
        return words

    def store_outputs(self, words: set[tuple[int, ...]], finished: bool, where: tuple[Span, ...]) -> None:
        """A tile of outputs leaves, pooled if it is finished."""
        if finished:
            self.outputs += math.prod(end - start for start, end in where)
        else:
            self.partials += len(words)
            self.unfinished.add(where)

    def moved(self) -> Moved:
        groups = self.nest.groups
        totals = (self.inputs, self.weights, self.outputs, self.partials)
        return Moved(*(groups * total for total in totals), *self.largest)


def met(window: Window, outputs: set[int]) -> set[int]:
    """The stored input rows that some output rows touch, by trying all of them."""
    found = set()
    for y, tap, p in itertools.product(range(window.inputs), range(window.taps), outputs):
        near, far = (y, p) if window.transposed else (p, y)
        if near * window.stride + tap * window.dilation - window.before == far:
            found.add(y)
    return found


def walk_literally(nest: Nest, tile: Tile, schedule: str, pool: Pool | None = None) -> Moved:
    """What a schedule moves; the last two slide down and across, and what reads less counts."""
    walks = [_WALKS[schedule]] if schedule in _WALKS else [partial(_SLIDES[schedule], slide=way) for way in "hw"]
    found = []
    for walk in walks:
        chip = Chip(nest, tile, pool)
        walk(chip, **chip.loops())
        found.append(chip.moved())
    return min(found, key=lambda moved: moved.inputs)


def _output_stationary(chip: Chip, **loops: list[Span]) -> None:
    for n, h, w, k in _over("nhwk", loops):
        out = chip.begin_outputs(n, k, h, w)
        for c in loops["c"]:
            chip.load_inputs(chip.window(n, c, h, w))
            chip.load_weights(k, c)
        chip.store_outputs(out, finished=True, where=(n, k, h, w))


def _weight_stationary(chip: Chip, **loops: list[Span]) -> None:
    for k, c in _over("kc", loops):
        chip.load_weights(k, c)
        for n, h, w in _over("nhw", loops):
            chip.load_inputs(chip.window(n, c, h, w))
            out = chip.begin_outputs(n, k, h, w)
            chip.store_outputs(out, finished=c == loops["c"][-1], where=(n, k, h, w))


def _input_stationary(chip: Chip, **loops: list[Span]) -> None:
    for n, h, w, c in _over("nhwc", loops):
        chip.load_inputs(chip.window(n, c, h, w))
        for k in loops["k"]:
            chip.load_weights(k, c)
            out = chip.begin_outputs(n, k, h, w)
            chip.store_outputs(out, finished=c == loops["c"][-1], where=(n, k, h, w))


def _weights_resident(chip: Chip, slide: str, **loops: list[Span]) -> None:
    (c,) = loops["c"]
    for k in loops["k"]:
        chip.load_weights(k, c)
        for n, h, w, held in _sliding(chip, c, slide, loops):
            chip.load_inputs(chip.window(n, c, h, w), held)
            chip.store_outputs(chip.begin_outputs(n, k, h, w), finished=True, where=(n, k, h, w))


def _inputs_resident(chip: Chip, slide: str, **loops: list[Span]) -> None:
    (c,) = loops["c"]
    for n, h, w, held in _sliding(chip, c, slide, loops):
        chip.load_inputs(chip.window(n, c, h, w), held)
        for k in loops["k"]:
            chip.load_weights(k, c)
            chip.store_outputs(chip.begin_outputs(n, k, h, w), finished=True, where=(n, k, h, w))


def _sliding(
    chip: Chip, c: Span, slide: str, loops: dict[str, list[Span]]
) -> Iterator[tuple[Span, Span, Span, set[tuple[int, ...]]]]:
    """Tiles in the order in which a window slides along the inner loop, each with what the tile before it held."""
    for n, outer in _over("n" + "wh".replace(slide, ""), loops):
        held: set[tuple[int, ...]] = set()
        for inner in loops[slide]:
            h, w = (inner, outer) if slide == "h" else (outer, inner)
            yield n, h, w, held
            held = chip.window(n, c, h, w)


def _over(names: str, loops: dict[str, list[Span]]) -> Iterator[tuple[Span, ...]]:
    return itertools.product(*(loops[name] for name in names))


_WALKS = {
    "output-stationary": _output_stationary,
    "weight-stationary": _weight_stationary,
    "input-stationary": _input_stationary,
}
_SLIDES = {"weights-resident": _weights_resident, "inputs-resident": _inputs_resident}
