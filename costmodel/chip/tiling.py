"""The least DRAM traffic of a loop nest behind an on-chip buffer, for every size of the buffer at once.

A tile is (n, k, c, h, w) over batch, output channels, input channels, output rows and output columns; the filter window
R x S is never split. A schedule loads tiles of inputs and weights, keeps one tile of each operand, and writes tiles of
outputs. |O|, |W|, |I| are the words of outputs, weights and touched inputs; nX = ceil(X / tX); A = nN nH nW; Ih are the
input words when every tile reads its own clipped window, halos again; Is the same when the rows that two tiles share
are kept while the window slides down. In words, a group each:

    schedule            loops, outer to inner       inputs     weights   outputs
    output-stationary   n, h, w, k;  c              nK Ih      A |W|     |O|
    weight-stationary   k, c;  n, h, w              nK Ih      |W|       |O| + 2 (nC - 1) |O| partial sums
    input-stationary    n, h, w, c;  k              Ih         A |W|     |O| + 2 (nC - 1) |O| partial sums
    weights-resident    k;  n, w, h  (tc = C)       nK Is      |W|       |O|
    inputs-resident     n, h, w;  k  (tc = C)       Ih         A |W|     |O|

A schedule fits when its tiles do: p tn tk th tw + tk tc R S + tn tc ih iw words, ih x iw the largest clipped window and
p how much wider a partial sum is than a word; with double buffering the tiles that change in every innermost step (the
right of the semicolon) are held twice.

Neither footprint nor traffic depends on the buffer: every tile worth trying is laid out once, sorted by footprint, and
the running minimum of the traffic is the answer for all buffers. Tiles worth trying are exact, not sampled: along each
dimension a size is left out only if a smaller one is at least as good in all that a schedule's footprint and traffic
grow with (`windows.tiles`); of weight-stationary's pairs (k, c) those are left out whose traffic without any halo is no
less than what the other schedules reach in the least room that the pair needs.

The names are those of Sze, Chen, Yang and Emer, "Efficient processing of deep neural networks: a tutorial and survey",
Proceedings of the IEEE 105(12), 2017, section V.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from costmodel.chip.nests import Nest
from costmodel.chip.widths import Widths, whole
from costmodel.chip.windows import Tiles, Window, sizes, tiles, tiles_of
from costmodel.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Integers = npt.NDArray[np.int64]
Pool = tuple[Window, Window]
"""A pooling that follows a convolution at once: how its rows and its columns meet the convolution's."""


class Tile(NamedTuple):
    """What is on the chip at once, in elements of each loop; the filter window is whole."""

    batch: int
    out_channels: int
    in_channels: int
    out_rows: int
    out_columns: int


class Tiling(NamedTuple):
    """The best schedule and tile of one nest for one buffer, all groups together."""

    schedule: str
    tile: Tile
    footprint_bytes: int
    """What of the buffer it fills."""

    input_bytes: int
    """Read from DRAM."""

    weight_bytes: int
    """Read from DRAM."""

    output_bytes: int
    """Written to DRAM, once."""

    partial_bytes: int
    """Partial sums written to DRAM and read back, both ways together."""

    dram_bytes: int
    """All of them, in whole bytes."""


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
    """Is: input words when rows are kept from tile to tile down the image."""

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
        "n, h, w; k",
        lambda walk: Words(walk.read, walk.area_trips * walk.weights, walk.outputs, 0),
        (False, True, True),
        "k",
        whole=True,
    ),
)
"""The five schedules; of equal ones the last is named."""

SCHEDULE: Mapping[str, Schedule] = {schedule.name: schedule for schedule in SCHEDULES}
_WEIGHT_STATIONARY = SCHEDULE["weight-stationary"]


@dataclass(frozen=True, repr=False)
class Curve:
    """The least DRAM traffic of one nest behind a buffer of any size: a staircase, smallest buffer first."""

    nest: Nest
    widths: Widths
    double_buffer: bool
    footprint_bits: Integers
    """The buffer at which each step begins, ascending."""

    traffic_bits: Integers
    """The traffic from there on, all groups together, descending."""

    schedules: Integers
    """Index into SCHEDULES, a step each."""

    tiles: Integers
    """The tile, a row of five for each step."""

    pool: Pool | None = None
    """The pooling that follows at once, by rows and by columns."""

    def __len__(self) -> int:
        return len(self.footprint_bits)

    @cached_property
    def smallest_buffer_bytes(self) -> int:
        """The smallest buffer that holds any tile."""
        return -(-int(self.footprint_bits[0]) // 8)

    @cached_property
    def sufficient_buffer_bytes(self) -> int:
        """The smallest buffer from which on a larger one helps no more: traffic is compulsory from there."""
        return -(-int(self.footprint_bits[-1]) // 8)

    @cached_property
    def footprint_bytes(self) -> Integers:
        """The whole bytes of buffer at which each step begins."""
        return -(-self.footprint_bits // 8)

    @cached_property
    def traffic_bytes(self) -> Integers:
        """The traffic from each step on, in whole bytes."""
        return -(-self.traffic_bits // 8)

    def dram_bytes(self, buffer_bytes: Any) -> Any:
        """The least traffic behind a buffer, or behind each buffer of an array.

        Raises InputError if no tile fits, with the smallest buffer that holds one.
        """
        return self.traffic_bytes[self._steps(buffer_bytes)]

    def at(self, buffer_bytes: int) -> Tiling:
        """The schedule and tile that reach the least traffic behind a buffer, and their traffic by operand.

        Raises InputError if no tile fits, with the smallest buffer that holds one.
        """
        step = int(self._steps(whole(buffer_bytes, "a buffer's size", "bytes")))
        tile = Tile(*(int(size) for size in self.tiles[step]))
        schedule = SCHEDULES[int(self.schedules[step])]
        bits = _bits(schedule.words(walk(self.nest, tile, self.pool)), self.widths)
        inputs, weights, outputs, partials = (-(-int(part) * self.nest.groups // 8) for part in bits)
        footprint, traffic = int(self.footprint_bytes[step]), int(self.traffic_bytes[step])
        return Tiling(schedule.name, tile, footprint, inputs, weights, outputs, partials, traffic)

    def to_frame(self) -> pd.DataFrame:
        """One row a step: from which buffer on, the traffic in bytes, schedule and tile."""
        import pandas as pd

        return pd.DataFrame(
            {
                "layer": self.nest.layer,
                "buffer_bytes": self.footprint_bytes,
                "dram_bytes": self.traffic_bytes,
                "schedule": [SCHEDULES[index].name for index in self.schedules.tolist()],
                "tile": [tuple(tile) for tile in self.tiles.tolist()],
            }
        )

    def __repr__(self) -> str:
        return f"<Curve of {self.nest.layer or self.nest.operator}: {len(self)} steps>"

    def _steps(self, buffer_bytes: Any) -> Any:
        buffers = np.asarray(buffer_bytes)
        if buffers.size and int(buffers.min()) < self.smallest_buffer_bytes:
            raise InputError(
                f"a buffer of {int(buffers.min())} bytes holds no tile of layer {self.nest.layer or '(network)'!r}: "
                f"give it at least {self.smallest_buffer_bytes} bytes."
            )
        return np.searchsorted(self.footprint_bits, 8 * buffers.astype(np.int64), side="right") - 1


def least_traffic(
    nest: Nest, widths: Widths | None = None, double_buffer: bool = False, pool: Pool | None = None
) -> Curve:
    """The least DRAM traffic of a nest behind a buffer of any size, with the schedule and tile that reach it.

    With `pool`, the rows and columns of a pooling that follows at once, only pooled outputs go to DRAM and a tile's
    rows and columns are pooled ones. Its outputs are all on the chip before they are pooled; where pooling windows
    overlap, each tile makes its own.
    """
    widths = widths or Widths()
    search = _Search(nest.of_group(), widths, double_buffer, pool)
    others = _merged([search.whole_space(schedule) for schedule in SCHEDULES if schedule is not _WEIGHT_STATIONARY])
    found = _merged([others, search.weight_stationary(others)])
    traffic = found.traffic * nest.groups
    return Curve(nest, widths, double_buffer, found.footprint, traffic, found.schedule, found.tile, pool)


def walk(nest: Nest, tile: Tile, pool: Pool | None = None) -> Walk:
    """What the traffic of one group of a nest is made of with a certain tile, of pooled pixels if it is pooled."""
    n, k, c, h, w = tile
    down, across = pool or (None, None)
    return _walk(nest, _pixels(nest, pool), (n, k, c), _one(nest.rows, h, down), _one(nest.columns, w, across))


def footprint_bits(
    nest: Nest,
    tile: Tile,
    schedule: Schedule,
    widths: Widths,
    double_buffer: bool = False,
    pool: Pool | None = None,
) -> int:
    """What a schedule's tiles fill of the buffer."""
    n, k, c, h, w = tile
    down, across = pool or (None, None)
    rows, columns = _one(nest.rows, h, down), _one(nest.columns, w, across)
    return _footprint(nest, schedule, widths, double_buffer, (n, k, c), rows, columns)


class _Points(NamedTuple):
    """Tiles and what they come to, for one group, in bits; the tile is a row of five."""

    footprint: Integers
    traffic: Integers
    schedule: Integers
    tile: Integers


class _Search:
    """The tiles of one group that are worth trying."""

    def __init__(self, group: Nest, widths: Widths, double_buffer: bool, pool: Pool | None) -> None:
        self.group, self.widths, self.double_buffer = group, widths, double_buffer
        self.pixels = _pixels(group, pool)
        self.batch, self.out_channels, self.in_channels = (sizes(extent) for extent in _extents(group))
        down, across = pool or (None, None)
        self.rows, self.columns = tiles(group.rows, down), tiles(group.columns, across)

    def whole_space(self, schedule: Schedule) -> _Points:
        """The staircase of one schedule over all its tiles."""
        one = np.ones(1, dtype=np.int64)
        n = one if "n" in schedule.free else self.batch
        k = one if "k" in schedule.free else self.out_channels
        split = one if "c" in schedule.free else self.in_channels[:-1]
        c = self.in_channels[-1:] if schedule.whole else split
        return self._points(schedule, n[:, None, None, None, None], k[:, None, None, None], c[:, None, None])

    def weight_stationary(self, others: _Points) -> _Points:
        """The staircase of weight-stationary tiles, without those that cannot beat the `others`.

        With a pair (tk, tc) the traffic is no less than when no halo is read twice, and the footprint no less than that
        of the smallest window.
        """
        k, c = (each.ravel() for each in np.meshgrid(self.out_channels, self.in_channels[:-1], indexing="ij"))
        least = [Tiles(*(column.min() for column in each)) for each in (self.rows, self.columns)]
        footprint, traffic = self._stats(_WEIGHT_STATIONARY, (1, k, c), *least)
        step = np.searchsorted(others.footprint, footprint, side="right") - 1
        useful = (step < 0) | (traffic < others.traffic[step])
        return self._points(_WEIGHT_STATIONARY, 1, k[useful, None, None], c[useful, None, None])

    def _points(self, schedule: Schedule, n: Any, k: Any, c: Any) -> _Points:
        """The staircase over tiles of sizes that broadcast with rows and columns, the last two axes."""
        rows, columns = Tiles(*(each[:, None] for each in self.rows)), self.columns
        footprint, traffic = np.broadcast_arrays(*self._stats(schedule, (n, k, c), rows, columns))
        chosen = _staircase(footprint.ravel(), traffic.ravel())
        place = np.unravel_index(chosen, footprint.shape)
        sizes = (np.broadcast_to(each, footprint.shape)[place] for each in (n, k, c, rows.sizes, columns.sizes))
        index = np.full(len(chosen), SCHEDULES.index(schedule))
        return _Points(footprint[place], traffic[place], index, np.stack(list(sizes), axis=1))

    def _stats(self, schedule: Schedule, sizes: Sequence[Any], rows: Tiles, columns: Tiles) -> tuple[Any, Any]:
        """Footprints and traffics in bits."""
        words = schedule.words(_walk(self.group, self.pixels, sizes, rows, columns))
        return (
            _footprint(self.group, schedule, self.widths, self.double_buffer, sizes, rows, columns),
            sum(_bits(words, self.widths)),
        )


def _walk(nest: Nest, pixels: int, sizes: Sequence[Any], rows: Tiles, columns: Tiles) -> Walk:
    """For tiles of some batch, output and input channels, rows and columns: numbers, or arrays that broadcast."""
    batch_trips, out_trips, in_trips = (-(-extent // size) for extent, size in zip(_extents(nest), sizes, strict=True))
    images = nest.batch * nest.in_channels
    made = nest.batch * nest.out_channels
    return Walk(
        outputs=made * pixels,
        made=made * rows.made * columns.made,
        weights=nest.weight_elements // nest.groups,
        read=images * rows.read * columns.read,
        kept=images * rows.kept * columns.read,
        out_trips=out_trips,
        in_trips=in_trips,
        area_trips=batch_trips * rows.trips * columns.trips,
    )


def _footprint(
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


def _bits(words: Words, widths: Widths) -> Words:
    return Words(
        words.inputs * widths.input_bits,
        words.weights * widths.weight_bits,
        words.outputs * widths.output_bits,
        words.partials * widths.partial_bits,
    )


def _one(window: Window, size: int, pool: Window | None) -> Tiles:
    """Tiles of one size, as numbers."""
    return Tiles(*(int(column[0]) for column in tiles_of(window, np.array([size]), pool)))


def _pixels(nest: Nest, pool: Pool | None) -> int:
    """Pixels of an output channel that go to DRAM."""
    return pool[0].outputs * pool[1].outputs if pool else nest.out_rows * nest.out_columns


def _extents(nest: Nest) -> tuple[int, int, int]:
    return nest.batch, nest.out_channels, nest.in_channels


def _merged(parts: Sequence[_Points]) -> _Points:
    """The staircase of several; of equal points the later part's is kept."""
    together = _Points(*(np.concatenate(columns) for columns in zip(*reversed(parts), strict=True)))
    chosen = _staircase(together.footprint, together.traffic)
    return _Points(*(column[chosen] for column in together))


def _staircase(footprint: Integers, traffic: Integers) -> Integers:
    """The indices of the points that no other beats: footprints ascend, traffics descend. Of equal points the first."""
    if not len(footprint):
        return np.empty(0, dtype=np.int64)
    enough = footprint[traffic == traffic.min()].min()  # more room than this gains nothing
    indices = np.flatnonzero(footprint <= enough)
    indices = indices[np.argsort(footprint[indices], kind="stable")]
    least = np.minimum.accumulate(traffic[indices])
    steps = np.flatnonzero(np.diff(least, prepend=least[0] + 1))
    last = np.flatnonzero(np.diff(footprint[indices[steps]], append=-1))  # of one footprint the least traffic
    return indices[steps[last]]
