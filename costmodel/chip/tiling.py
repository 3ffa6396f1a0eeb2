"""The least DRAM traffic of a loop nest under five schedules, for every size of the on-chip buffer at once.

Neither the footprint nor the traffic of a tile under a schedule (`schedules`) depends on the buffer: every tile worth
trying is laid out once, sorted by footprint, and the running minimum of the traffic is the answer for all buffers.
Tiles worth trying are exact, not sampled: along each dimension a size is left out only if a smaller one is at least as
good in all that a schedule's footprint and traffic grow with (`windows.tiles`); of weight-stationary's pairs (k, c)
those are left out whose traffic without any halo is no less than what the other schedules reach in the least room that
the pair needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from costmodel.chip.nests import Nest
from costmodel.chip.schedules import (
    SCHEDULE,
    SCHEDULES,
    Pool,
    Schedule,
    Tile,
    extents_of,
    footprints,
    in_bits,
    pixels_of,
    walk,
    walks,
)
from costmodel.chip.widths import Widths, whole
from costmodel.chip.windows import Tiles, sizes, tiles
from costmodel.errors import InputError
from costmodel.view import Table

if TYPE_CHECKING:
    import pandas as pd


Integers = npt.NDArray[np.int64]
_WEIGHT_STATIONARY = SCHEDULE["weight-stationary"]


class Tiling(NamedTuple):
    """The best schedule and tile of one nest for one buffer, all groups together."""

    schedule: str
    tile: Tile
    footprint_bytes: int
    """Bytes of the buffer in use."""

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
        """The smallest buffer with compulsory traffic: a larger one brings nothing."""
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
        bits = in_bits(schedule.words(walk(self.nest, tile, self.pool)), self.widths)
        inputs, weights, outputs, partials = (-(-int(part) * self.nest.groups // 8) for part in bits)
        footprint, traffic = int(self.footprint_bytes[step]), int(self.traffic_bytes[step])
        return Tiling(schedule.name, tile, footprint, inputs, weights, outputs, partials, traffic)

    def table(self) -> Table:
        """One row a step: from which buffer on, the traffic in bytes, schedule and tile."""
        columns = ("layer", "buffer_bytes", "dram_bytes", "schedule", "tile")
        schedules = [SCHEDULES[index].name for index in self.schedules.tolist()]
        tiles = [tuple(tile) for tile in self.tiles.tolist()]
        layer = [self.nest.layer] * len(schedules)
        data = (layer, self.footprint_bytes.tolist(), self.traffic_bytes.tolist(), schedules, tiles)
        return Table.of(columns, zip(*data, strict=True), title=f"{self.nest.layer}: DRAM traffic")

    def to_frame(self) -> pd.DataFrame:
        """The table as a data frame."""
        return self.table().to_frame()

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
    points = _merged([others, search.weight_stationary(others)])
    traffic = points.traffic * nest.groups
    return Curve(nest, widths, double_buffer, points.footprint, traffic, points.schedule, points.tile, pool)


class _Points(NamedTuple):
    """Tiles with their footprint and traffic, for one group, in bits; the tile is a row of five."""

    footprint: Integers
    traffic: Integers
    schedule: Integers
    tile: Integers


class _Search:
    """The tiles of one group that are worth trying."""

    def __init__(self, group: Nest, widths: Widths, double_buffer: bool, pool: Pool | None) -> None:
        self.group, self.widths, self.double_buffer = group, widths, double_buffer
        self.pixels = pixels_of(group, pool)
        self.batch, self.out_channels, self.in_channels = (sizes(extent) for extent in extents_of(group))
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
        # Bound each pair by its best rows and columns first: few pairs are left for the search over all tiles.
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
        words = schedule.words(walks(self.group, self.pixels, sizes, rows, columns))
        return (
            footprints(self.group, schedule, self.widths, self.double_buffer, sizes, rows, columns),
            sum(in_bits(words, self.widths)),
        )


def _merged(parts: Sequence[_Points]) -> _Points:
    """The staircase of several; of equal points the later part's is kept."""
    together = _Points(*(np.concatenate(columns) for columns in zip(*reversed(parts), strict=True)))
    chosen = _staircase(together.footprint, together.traffic)
    return _Points(*(column[chosen] for column in together))


def _staircase(footprint: Integers, traffic: Integers) -> Integers:
    """The indices of the Pareto front: footprints ascend, traffics descend. Of equal points the first."""
    if not len(footprint):
        return np.empty(0, dtype=np.int64)
    # Sort by footprint, keep where the running minimum of the traffic falls, and of one footprint the last such point.
    enough = footprint[traffic == traffic.min()].min()  # a larger footprint gains nothing
    indices = np.flatnonzero(footprint <= enough)
    indices = indices[np.argsort(footprint[indices], kind="stable")]
    least = np.minimum.accumulate(traffic[indices])
    steps = np.flatnonzero(np.diff(least, prepend=least[0] + 1))
    last = np.flatnonzero(np.diff(footprint[indices[steps]], append=-1))  # of one footprint the least traffic
    return indices[steps[last]]
