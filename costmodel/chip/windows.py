"""Which rows of an input a run of output rows touches, along one dimension, exactly: clipped, strided and dilated.

Output row p and tap r of the window meet input row

    y = p stride + r dilation - before          a convolution
    p = y stride + r dilation - before          a transposed one

where y lies inside the input; padding is not stored, so it is not read. Everything here follows from the list of pairs
(y, p), so rows that a stride skips or a dilation leaves out are not counted. Where a pooling follows at once, its rows
take the place of the outputs: a tile of pooled rows makes all output rows that it pools.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]


class Window(NamedTuple):
    """How output rows and input rows meet along one dimension."""

    outputs: int
    """Output rows."""

    inputs: int
    """Input rows that are stored."""

    taps: int = 1
    """Rows of the filter window."""

    stride: int = 1
    dilation: int = 1
    before: int = 0
    """Rows of padding before the first stored one."""

    transposed: bool = False
    """Whether the window slides over the output instead of the input."""


class Tiles(NamedTuple):
    """What tiles of consecutive output rows read: an array each, an entry for each size, or the numbers of one size."""

    sizes: Any
    """Output rows of a tile; the last tile may have fewer."""

    trips: Any
    """How many tiles there are."""

    largest: Any
    """Input rows that the largest tile touches: what a buffer has to hold."""

    read: Any
    """Input rows that all tiles read together when each reads its own."""

    kept: Any
    """The same when a tile finds in the buffer what the tile before it touched."""

    held: Any
    """Output rows that the largest tile makes before they are pooled: its size where nothing is pooled."""

    made: Any
    """Output rows that all tiles make together: more than there are where pooling windows overlap."""


def touched(window: Window) -> int:
    """Input rows that any output row touches."""
    return len(np.unique(pairs(window)[0]))


def met(window: Window) -> Integers:
    """How many stored input rows each tap meets, over all output rows: those on padding left out."""
    _, inner, last = _outer(window)
    return np.count_nonzero((inner >= 0) & (inner < last), axis=0)


_EVERY = 1024
"""Output rows up to which every tile size is considered."""


@lru_cache(maxsize=1024)
def tiles(window: Window, pool: Window | None = None) -> Tiles:
    """Every tile size that may be optimal, smallest first.

    A size is left out if a smaller or equal one has no more tiles, touches no more rows in its largest tile and reads
    no more rows in all: anything that grows with these numbers is then least at one of the sizes that stay. Without
    halos that leaves one size for each count of tiles, some 2 sqrt(outputs) of them. Above 1024 output rows only the
    smallest size of each count is looked at; another could save a row or two where its last halo is clipped.
    """
    extent = pool.outputs if pool else window.outputs
    return _undominated(tiles_of(window, sizes(extent, every=extent <= _EVERY), pool))


def sizes(extent: int, every: bool = False) -> Integers:
    """Tile sizes along a loop, ascending to the whole: the smallest for each number of tiles, or every one."""
    counts = np.arange(1, extent + 1)
    return counts if every else np.unique(-(-extent // counts))


def tiles_of(window: Window, sizes: Integers, pool: Window | None = None) -> Tiles:
    """What tiles of the given sizes read; they are of pooled rows where a pooling follows."""
    rows, outputs = pairs(window)  # sorted by row, so that a row's tiles follow one another in ascending order
    extent = window.outputs
    made, pooled = (np.arange(extent),) * 2
    if pool:
        made, pooled = pairs(pool)
        extent = pool.outputs
        rows, outputs = _joined(rows, outputs, made, pooled, extent)
    columns = []
    for size in sizes.tolist():
        row, tile = _distinct(rows, outputs // size)
        held = np.zeros(len(tile), dtype=bool)  # touched by the tile before it as well
        held[1:] = (row[1:] == row[:-1]) & (tile[1:] == tile[:-1] + 1)
        of_tile = _distinct(made, pooled // size)[1]
        columns.append((
            -(-extent // size), _most(tile), len(tile), int(len(tile) - held.sum()), _most(of_tile), len(of_tile),
        ))  # fmt: skip
    trips, largest, read, kept, most, all_made = np.array(columns, dtype=np.int64).T
    return Tiles(sizes, trips, largest, read, kept, most, all_made)


def pairs(window: Window) -> tuple[Integers, Integers]:
    """Input rows and the output rows that touch them, sorted by input row, then output row, each pair once."""
    outer, inner, last = _outer(window)
    inside = (inner >= 0) & (inner < last)
    far, near = np.broadcast_to(outer, inner.shape)[inside], inner[inside]
    rows, outputs = (far, near) if window.transposed else (near, far)
    codes = np.unique(rows * window.outputs + outputs)
    return codes // window.outputs, codes % window.outputs


def _outer(window: Window) -> tuple[Integers, Integers, int]:
    """The window's anchor rows, the rows that its taps meet, and how many of those are stored."""
    outer = np.arange(window.inputs if window.transposed else window.outputs)[:, None]
    inner = outer * window.stride + np.arange(window.taps) * window.dilation - window.before
    return outer, inner, window.outputs if window.transposed else window.inputs


def _joined(rows: Integers, outputs: Integers, made: Integers, pooled: Integers, extent: int) -> Any:
    """Input rows and the pooled rows that they contribute to: a composition, as a product of 0-1 matrices."""
    touch = np.zeros(
        (rows.max(initial=-1) + 1, max(outputs.max(initial=-1), made.max(initial=-1)) + 1), dtype=np.float32
    )
    touch[rows, outputs] = 1
    pools = np.zeros((touch.shape[1], extent), dtype=np.float32)
    pools[made, pooled] = 1
    return np.nonzero(touch @ pools)


def _distinct(rows: Integers, tiles: Integers) -> tuple[Integers, Integers]:
    """Each row and tile once, of pairs sorted by row, then tile."""
    fresh = np.ones(len(tiles), dtype=bool)
    fresh[1:] = (rows[1:] != rows[:-1]) | (tiles[1:] != tiles[:-1])
    return rows[fresh], tiles[fresh]


def _most(tiles: Integers) -> int:
    """The count of the most frequent value."""
    return int(np.bincount(tiles).max()) if len(tiles) else 0


def _undominated(all_tiles: Tiles) -> Tiles:
    """Without the sizes that a smaller one equals or beats in every number. Sizes must ascend."""
    stats = np.stack(all_tiles[1:], axis=1)
    kept: list[int] = []
    for index in range(len(stats)):
        if not kept or not (stats[kept] <= stats[index]).all(axis=1).any():
            kept.append(index)
    return Tiles(*(column[kept] for column in all_tiles))
