"""A run of layers as one: tiles of its last outputs, with all that they need of the layers before.

A tile of the tip, h x w pixels of the last layer, needs a window of the layer before it, which needs a larger window of
the one before, and so on down to the input: a pyramid. Only the input, the weights and the tip's outputs meet DRAM.
Neighbouring pyramids overlap. Either each makes its own (recomputation: more arithmetic, the input's halos are read
again) or what the next ones need stays on the chip (kept: every word is made once and read once):

    kept    of each layer's input, the rows that a later row of tiles needs, over the whole width, and the columns that
            the next tile needs, over the height of a window
    working the input and output tile of whichever layer has the largest two, partial sums at their own width, and a
            window of weights
    weights those that fit stay for the whole pass, the others come once for each tile

Source: Alwani, Chen, Ferdman and Milder, "Fused-layer CNN accelerators", MICRO 2016, whose buffers BT and BL are the
kept rows and columns. Which rows a tile touches, makes and keeps is followed row by row, clipped at the borders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from costmodel.chip.chains import Stage
from costmodel.chip.widths import Widths
from costmodel.chip.windows import Integers, Window, pairs, sizes
from costmodel.errors import InputError


class Levels(NamedTuple):
    """Along one dimension, rows of each tensor of a run for tip tiles of some sizes: arrays of (tensor, size).

    Tensor 0 is the run's input, tensor t what stage t - 1 makes, the last one the tip.
    """

    sizes: Integers
    """The tip's rows of a tile, one for each size."""

    trips: Integers
    """How many tiles there are."""

    touched: Integers
    """Rows that any tile needs, a number for each tensor."""

    window: Integers
    """Rows of the largest pyramid."""

    all_windows: Integers
    """Rows of all pyramids together."""

    fresh: Integers
    """Rows that the tile which adds most adds, when what was made is kept."""

    reach: Integers
    """Rows that the largest fresh part of the next tensor touches."""

    carried: Integers
    """The most rows that stay for later tiles."""


@dataclass(frozen=True)
class Pyramids:
    """A run of stages over tip tiles of some sizes: arrays of (rows' size, columns' size), words of one image."""

    keep: bool
    """Whether overlaps are kept, or recomputed."""

    trips: Integers
    """Tiles of one image."""

    input_words: Integers
    """Read from DRAM."""

    output_words: int
    """Written to DRAM."""

    kept_words: Integers
    """Rows and columns that stay between tiles."""

    working_bits: Integers
    """The largest two tiles and a window of weights."""

    macs: Integers


def pyramids(stages: Sequence[Stage], rows: Levels, columns: Levels, keep: bool, widths: Widths) -> Pyramids:
    """What a run of stages reads, keeps and computes for every combination of the tip's rows and columns."""

    def words(tensor: int, down: Integers, across: Integers) -> Integers:
        return _channels(stages, tensor) * down[tensor][:, None] * across[tensor][None, :]

    if keep:
        tile = [words(t, rows.fresh, columns.fresh) for t in range(len(stages) + 1)]
        made = [words(t, _column(rows), _column(columns)) for t in range(len(stages) + 1)]
        kept = sum(
            words(t, rows.carried, _column(columns)) + words(t, rows.reach, columns.carried) for t in range(len(stages))
        )
    else:
        tile = [words(t, rows.window, columns.window) for t in range(len(stages) + 1)]
        made = [words(t, rows.all_windows, columns.all_windows) for t in range(len(stages) + 1)]
        kept = np.zeros_like(tile[0])
    working = [
        tile[t] * widths.input_bits
        + tile[t + 1] * (widths.partial_bits if stage.nest else widths.output_bits)
        + (widths.weight_bits * stage.rows.taps * stage.columns.taps if stage.nest else 0)
        for t, stage in enumerate(stages)
    ]
    shape = np.broadcast_shapes(*(each.shape for each in tile))
    return Pyramids(
        keep,
        rows.trips[:, None] * columns.trips[None, :],
        np.broadcast_to(made[0], shape),
        _channels(stages, len(stages)) * int(rows.touched[-1] * columns.touched[-1]),
        np.broadcast_to(kept, shape),
        np.broadcast_to(np.max(np.stack([np.broadcast_to(each, shape) for each in working]), axis=0), shape),
        np.broadcast_to(sum(_macs(stage, made[t + 1]) for t, stage in enumerate(stages)), shape),
    )


def levels(windows: Sequence[Window], tip_sizes: Integers | None = None) -> Levels:
    """What tiles of a tip need of each tensor along one dimension; of every size of use if none is given.

    Raises InputError for an impossible tile size.
    """
    extent = windows[-1].outputs
    chosen = sizes(extent) if tip_sizes is None else tip_sizes
    if len(chosen) == 0 or chosen.min() < 1 or chosen.max() > extent:
        raise InputError(f"a tile of the last layer has 1 to {extent} rows and columns, not {chosen.tolist()}.")
    trips = -(-extent // chosen)
    when = np.arange(extent) // chosen[:, None]  # the tile that makes a row first, for each size
    own = np.arange(extent)[:, None] // np.repeat(chosen, trips) == np.concatenate([np.arange(n) for n in trips])
    need = own  # rows x the tiles of all sizes, one size after another
    starts = np.concatenate([[0], np.cumsum(trips)[:-1]])
    most = int(trips.max())
    used = np.ones(extent, dtype=bool)
    per_tensor = [(extent, *_windows(need, starts), _busiest(when, most), np.zeros_like(chosen), np.zeros_like(chosen))]
    # From the tip to the input: `need` says which rows each tile needs, `when` which tile needs a row first, `used`
    # which rows any tile needs. Pairs are sorted by row, so each reduceat runs over the outputs that one row touches.
    for window in reversed(windows):
        row, output = pairs(window)
        needed = np.zeros((window.inputs, need.shape[1]), dtype=bool)
        begins = np.flatnonzero(np.diff(row, prepend=-1))
        needed[row[begins]] = np.logical_or.reduceat(need[output], begins, axis=0)
        need = needed
        row, output = row[used[output]], output[used[output]]
        touched = np.unique(row)
        at = when[:, output]
        begins = np.flatnonzero(np.diff(row, prepend=-1))
        first, last = np.minimum.reduceat(at, begins, axis=1), np.maximum.reduceat(at, begins, axis=1)
        when = np.zeros((len(chosen), window.inputs), dtype=np.int64)
        when[:, touched] = first
        used = np.zeros(window.inputs, dtype=bool)
        used[touched] = True
        code = np.sort(np.searchsorted(touched, row) * most + at, axis=1)
        distinct = np.diff(code, axis=1, prepend=-1) > 0
        per_tensor.append((
            len(touched), *_windows(need, starts), _busiest(first, most), _busiest(code % most, most, distinct),
            _carried(first, last, most),
        ))  # fmt: skip
    columns = [np.array(column) for column in zip(*reversed(per_tensor), strict=True)]
    return Levels(chosen, trips, *columns)


def of_run(whole: Levels, first: int) -> Levels:
    """The levels of a run that begins `first` stages later and has the same tip."""
    return Levels(whole.sizes, whole.trips, *(column[first:] for column in whole[2:]))


@lru_cache(maxsize=1024)
def needed(windows: tuple[Window, ...]) -> int:
    """Rows of a run's input that any row of its tip needs: without what a stride skips or a pooling drops."""
    rows = np.arange(windows[-1].outputs)
    for window in reversed(windows):
        touching, output = pairs(window)
        rows = np.unique(touching[np.isin(output, rows)])
    return len(rows)


def _windows(need: Any, starts: Integers) -> tuple[Integers, Integers]:
    rows = np.count_nonzero(need, axis=0)
    return np.maximum.reduceat(rows, starts), np.add.reduceat(rows, starts)


def _busiest(tile: Integers, most: int, counted: Any = None) -> Integers:
    """For each size the most entries that one tile has."""
    size = np.broadcast_to(np.arange(len(tile))[:, None], tile.shape)
    code = (size * most + tile).ravel() if counted is None else (size * most + tile)[counted]
    return np.bincount(code, minlength=len(tile) * most).reshape(len(tile), most).max(axis=1)


def _carried(first: Integers, last: Integers, most: int) -> Integers:
    """For each size the most rows that were touched by some tile and will be by a later one."""
    # A row is carried from its first tile to its last: count both ends, and sum the difference over tiles.
    size = np.arange(len(first))[:, None] * (most + 1)
    began, ended = (
        np.bincount((size + tile).ravel(), minlength=len(first) * (most + 1)).reshape(len(first), most + 1)
        for tile in (first, last)
    )
    return np.cumsum(began - ended, axis=1).max(axis=1)


def _column(level: Levels) -> Integers:
    """The touched rows of each tensor, as if for one size."""
    return level.touched[:, None]


def _channels(stages: Sequence[Stage], tensor: int) -> int:
    return stages[tensor].in_channels if tensor < len(stages) else stages[-1].out_channels


def _macs(stage: Stage, made: Integers) -> Integers:
    """Of one image, for so many output words: each takes the products of a channel's window."""
    return made * (stage.weights // stage.out_channels) if stage.nest else np.zeros_like(made)
