"""The schedules of a tiled loop nest: the order of the tiles, what it reads again, and what the buffer holds.

A tile is (n, k, c, h, w) over batch, output channels, input channels, output rows and output columns; the filter window
R x S is never split. A schedule loads tiles of inputs and weights, keeps one tile of each operand, and writes tiles of
outputs. |O|, |W|, |I| are the words of outputs, weights and touched inputs; nX = ceil(X / tX); A = nN nH nW; Ih are the
input words when every tile reads its own clipped window, halos again; Is the same when what two tiles share is kept
while the window slides down the image or, where that reads less, across it: h and w then change places. In words, a
group each:

    schedule            loops, outer to inner       inputs     weights   outputs
    output-stationary   n, h, w, k;  c              nK Ih      A |W|     |O|
    weight-stationary   k, c;  n, h, w              nK Ih      |W|       |O| + 2 (nC - 1) |O| partial sums
    input-stationary    n, h, w, c;  k              Ih         A |W|     |O| + 2 (nC - 1) |O| partial sums
    weights-resident    k;  n, w, h  (tc = C)       nK Is      |W|       |O|
    inputs-resident     n, w, h;  k  (tc = C)       Is         A |W|     |O|

Only the last two find the halo in the buffer, as their input tile has all channels. A schedule that held nothing but
halos beside a tile of some channels, or halos of both directions, is not among the five and could move less.

A schedule fits when its tiles do: p tn tk th tw + tk tc R S + tn tc ih iw words, ih x iw the largest clipped window and
p how much wider a partial sum is than a word; with double buffering the tiles that change in every innermost step (the
right of the semicolon) are held twice.

The names are those of Sze, Chen, Yang and Emer, "Efficient processing of deep neural networks: a tutorial and survey",
Proceedings of the IEEE 105(12), 2017, section V.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from costmodel.chip.nests import Nest
from costmodel.chip.widths import Widths
from costmodel.chip.windows import Tiles, Window, tiles_of

Pool = tuple[Window, Window]
"""A pooling that follows a convolution at once: how its rows and its columns meet the convolution's."""


class Tile(NamedTuple):
    """The tile on the chip, in iterations of each loop; the filter window is whole."""

    batch: int
    out_channels: int
    in_channels: int
    out_rows: int
    out_columns: int


class Words(NamedTuple):
    """Words between DRAM and buffer, by operand: a number each, or an array each."""

    inputs: Any
    weights: Any
    outputs: Any
    partials: Any


class Walk(NamedTuple):
    """What the traffic of a tiled nest is made of: a number each, or arrays that broadcast. Words are of one group."""

    outputs: Any
    """|O|, pooled if the layer is"""

    made: Any
    """|O| before pooling, as often as tiles make it: |O| where nothing is pooled"""

    weights: Any
    """|W|"""

    read: Any
    """Ih: input words when every tile reads its own window."""

    kept: Any
    """Is: input words when what two tiles share is kept, down the image or across it."""

    out_trips: Any
    """nK"""

    in_trips: Any
    """nC"""

    area_trips: Any
    """A = nN nH nW"""


class Schedule(NamedTuple):
    """An order of the tiles' loops."""

    name: str
    order: str
    """The loops, outer to inner; a semicolon stands before those inside which the stationary tile stays."""

    words: Callable[[Walk], Words]
    streamed: tuple[bool, bool, bool]
    """Whether the tile of inputs, weights, outputs changes in every innermost step."""

    free: str
    """Dimensions whose tile size is 1 because the traffic does not depend on it."""

    whole: bool = False
    """Whether a tile has all input channels."""


SCHEDULES = (
    Schedule(
        "output-stationary",
        "n, h, w, k; c",
        lambda walk: Words(walk.out_trips * walk.read, walk.area_trips * walk.weights, walk.outputs, 0),
        (True, True, False),
        "c",
    ),
    Schedule(
        "weight-stationary",
        "k, c; n, h, w",
        lambda walk: Words(walk.out_trips * walk.read, walk.weights, walk.outputs, 2 * (walk.in_trips - 1) * walk.made),
        (True, False, True),
        "n",
    ),
    Schedule(
        "input-stationary",
        "n, h, w, c; k",
        lambda walk: Words(
            walk.read, walk.area_trips * walk.weights, walk.outputs, 2 * (walk.in_trips - 1) * walk.made
        ),
        (False, True, True),
        "k",
    ),
    Schedule(
        "weights-resident",
        "k; n, w, h",
        lambda walk: Words(walk.out_trips * walk.kept, walk.weights, walk.outputs, 0),
        (True, False, True),
        "n",
        whole=True,
    ),
    Schedule(
        "inputs-resident",
        "n, w, h; k",
        lambda walk: Words(walk.kept, walk.area_trips * walk.weights, walk.outputs, 0),
        (False, True, True),
        "k",
        whole=True,
    ),
)
"""The five schedules; among equals the last is taken."""

SCHEDULE: Mapping[str, Schedule] = {schedule.name: schedule for schedule in SCHEDULES}


def walk(nest: Nest, tile: Tile, pool: Pool | None = None) -> Walk:
    """What the traffic of one group of a nest is made of with a certain tile, of pooled pixels if it is pooled."""
    n, k, c, h, w = tile
    down, across = pool or (None, None)
    return walks(nest, pixels_of(nest, pool), (n, k, c), _one(nest.rows, h, down), _one(nest.columns, w, across))


def footprint_bits(
    nest: Nest,
    tile: Tile,
    schedule: Schedule,
    widths: Widths,
    double_buffer: bool = False,
    pool: Pool | None = None,
) -> int:
    """The part of the buffer that a schedule's tiles fill."""
    n, k, c, h, w = tile
    down, across = pool or (None, None)
    rows, columns = _one(nest.rows, h, down), _one(nest.columns, w, across)
    return footprints(nest, schedule, widths, double_buffer, (n, k, c), rows, columns)


def walks(nest: Nest, pixels: int, sizes: Sequence[Any], rows: Tiles, columns: Tiles) -> Walk:
    """For tiles of some batch, output and input channels, rows and columns: numbers, or arrays that broadcast."""
    batch_trips, out_trips, in_trips = (
        -(-extent // size) for extent, size in zip(extents_of(nest), sizes, strict=True)
    )
    images = nest.batch * nest.in_channels
    made = nest.batch * nest.out_channels
    return Walk(
        outputs=made * pixels,
        made=made * rows.made * columns.made,
        weights=nest.weight_numel // nest.groups,
        read=images * rows.read * columns.read,
        kept=images * np.minimum(rows.kept * columns.read, rows.read * columns.kept),
        out_trips=out_trips,
        in_trips=in_trips,
        area_trips=batch_trips * rows.trips * columns.trips,
    )


def footprints(
    nest: Nest,
    schedule: Schedule,
    widths: Widths,
    double_buffer: bool,
    sizes: Sequence[Any],
    rows: Tiles,
    columns: Tiles,
) -> Any:
    """Bits of a tile of inputs, one of weights and one of partial sums; what streams twice if double-buffered."""
    n, k, c = sizes
    inputs, weights, outputs = (1 + (double_buffer and streams) for streams in schedule.streamed)
    window = nest.filter_rows * nest.filter_columns
    return (
        inputs * widths.input_bits * n * c * rows.largest * columns.largest
        + weights * widths.weight_bits * k * c * window
        + outputs * widths.partial_bits * n * k * rows.held * columns.held
    )


def in_bits(words: Words, widths: Widths) -> Words:
    """The same traffic in bits."""
    return Words(
        words.inputs * widths.input_bits,
        words.weights * widths.weight_bits,
        words.outputs * widths.output_bits,
        words.partials * widths.partial_bits,
    )


def _one(window: Window, size: int, pool: Window | None) -> Tiles:
    """Tiles of one size, as numbers."""
    return Tiles(*(int(column[0]) for column in tiles_of(window, np.array([size]), pool)))


def pixels_of(nest: Nest, pool: Pool | None) -> int:
    """Pixels of an output channel that go to DRAM."""
    return pool[0].outputs * pool[1].outputs if pool else nest.out_rows * nest.out_columns


def extents_of(nest: Nest) -> tuple[int, int, int]:
    """The extents of batch, output and input channels."""
    return nest.batch, nest.out_channels, nest.in_channels
