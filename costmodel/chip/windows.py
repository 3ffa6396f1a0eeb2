"""Which rows of an input a run of output rows touches, along one dimension, exactly: clipped, strided and dilated.

Output row p and tap r of the window meet input row

    y = p stride + r dilation - before          a convolution
    p = y stride + r dilation - before          a transposed one

where y lies inside the input; padding is not stored, so it is not read. Everything here follows from the list of pairs
(y, p), so rows that a stride skips or a dilation leaves out are not counted.
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
    """Input rows that the hungriest tile touches: what a buffer has to hold."""

    read: Any
    """Input rows that all tiles read together when each reads its own."""

    kept: Any
    """The same when a tile finds in the buffer what the tile before it touched."""


def touched(window: Window) -> int:
    """Input rows that any output row touches."""
    return len(np.unique(_pairs(window)[0]))


def met(window: Window) -> Integers:
    """How many stored input rows each tap meets, over all output rows: those on padding left out."""
    _, inner, last = _outer(window)
    return np.count_nonzero((inner >= 0) & (inner < last), axis=0)


_EVERY = 1024
"""Output rows up to which every size of a tile is looked at."""


@lru_cache(maxsize=1024)
def tiles(window: Window) -> Tiles:
    """Every tile size that can be of use, smallest first.

    A size is left out if a smaller or equal one has no more tiles, touches no more rows in its hungriest tile and reads
    no more rows in all: whatever grows with these five numbers is then least at one of the sizes that stay. Without
    halos that leaves one size for each count of tiles, some 2 sqrt(outputs) of them. Above 1024 output rows only the
    smallest size of each count is looked at; another could save a row or two where its last halo is clipped.
    """
    return _undominated(tiles_of(window, sizes(window.outputs, every=window.outputs <= _EVERY)))


def sizes(extent: int, every: bool = False) -> Integers:
    """Tile sizes along a loop, ascending to the whole: the smallest for each number of tiles, or every one."""
    counts = np.arange(1, extent + 1)
    return counts if every else np.unique(-(-extent // counts))


def tiles_of(window: Window, sizes: Integers) -> Tiles:
    """What tiles of the given sizes read."""
    rows, outputs = _pairs(window)
    columns = []
    for size in sizes.tolist():
        tile = outputs // size
        fresh = np.ones(len(tile), dtype=bool)  # the first time that this tile touches this row
        fresh[1:] = (rows[1:] != rows[:-1]) | (tile[1:] != tile[:-1])
        row, tile = rows[fresh], tile[fresh]
        held = np.zeros(len(tile), dtype=bool)  # touched by the tile before it as well
        held[1:] = (row[1:] == row[:-1]) & (tile[1:] == tile[:-1] + 1)
        largest = int(np.bincount(tile).max()) if len(tile) else 0
        columns.append((-(-window.outputs // size), largest, len(tile), int(len(tile) - held.sum())))
    trips, most, read, kept = np.array(columns, dtype=np.int64).T
    return Tiles(sizes, trips, most, read, kept)


def _pairs(window: Window) -> tuple[Integers, Integers]:
    """Input rows and the output rows that touch them, sorted by input row, then output row, each pair once."""
    outer, inner, last = _outer(window)
    inside = (inner >= 0) & (inner < last)
    far, near = np.broadcast_to(outer, inner.shape)[inside], inner[inside]
    rows, outputs = (far, near) if window.transposed else (near, far)
    codes = np.unique(rows * window.outputs + outputs)
    return codes // window.outputs, codes % window.outputs


def _outer(window: Window) -> tuple[Integers, Integers, int]:
    """The rows from which the window hangs, the rows that its taps meet, and how many of those are stored."""
    outer = np.arange(window.inputs if window.transposed else window.outputs)[:, None]
    inner = outer * window.stride + np.arange(window.taps) * window.dilation - window.before
    return outer, inner, window.outputs if window.transposed else window.inputs


def _undominated(all_tiles: Tiles) -> Tiles:
    """Without the sizes for which a smaller one is as good in everything. Sizes have to ascend."""
    stats = np.stack(all_tiles[1:], axis=1)
    kept: list[int] = []
    for index in range(len(stats)):
        if not kept or not (stats[kept] <= stats[index]).all(axis=1).any():
            kept.append(index)
    return Tiles(*(column[kept] for column in all_tiles))
