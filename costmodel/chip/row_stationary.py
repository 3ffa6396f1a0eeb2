"""A nest on a row-stationary array: Eyeriss (Chen et al., IEEE JSSC 52(1), 2017, and ISCA 2016).

A set of R x e PEs makes e output rows: PE (i, j) slides filter row i over one input row. Sets are replicated
over r input and t output channels and over g groups; a PE interleaves q channels and p filters in its
scratchpads, n images share a load of the filters. For E x F output pixels of G groups:

    multiply  = N ceil(G/g) ceil(E/e) F ceil(K/t) (S ceil(C/r) + ceil(C/(q r)))
    cycles    = max(multiply, input words / rate, partial sums / rate) + weight words / rate

A PE takes one cycle for each product and one to add the partial sum that comes from its neighbour or from an earlier
pass: its adder does either. Inputs and partial sums arrive while PEs work; the filters of a pass have to
be there before it begins. Scratchpads bound p q S, q S and p. The buffer holds a pass's partial sums, as wide as an
accumulator, and two passes' inputs, of a strip of w columns:

    n g (p t e w accumulators + 2 q r (input rows of e) (input columns of w) operands)  <=  buffer

t and n are as large as PEs and buffer allow; g, e and w one size for each number of rounds. Of all of them the
mapping takes the fastest, of those the one that moves the fewest words.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from costmodel.chip.arrays import Array, NestMapping, Scratchpads, ceil
from costmodel.chip.nests import Nest
from costmodel.chip.shapes import shape_of
from costmodel.chip.windows import Window
from costmodel.errors import InputError

_NEVER = np.iinfo(np.int64).max


def row_stationary(nest: Nest, array: Array) -> NestMapping:
    """The fastest mapping. Raises InputError without scratchpads, and where the buffer is too small for any pass."""
    if array.scratchpads is None:
        raise InputError("a row-stationary array needs scratchpads: say what a PE holds.")
    sides = array._replace(rows=int(array.rows), columns=int(array.columns))
    mapping = _fastest(shape_of(nest), sides, array.scratchpads)
    if mapping is None:
        raise InputError(
            f"a buffer of {array.buffer_bytes:,} bytes is too small for any row-stationary pass of layer "
            f"{nest.layer or '(network)'!r}: give it more."
        )
    return mapping


@lru_cache(maxsize=4096)
def _fastest(nest: Nest, array: Array, pads: Scratchpads) -> NestMapping | None:
    """The fastest mapping; None if the buffer holds no pass."""
    best: NestMapping | None = None
    least: tuple[int, ...] = (_NEVER,)  # a way that does not fit takes _NEVER too
    ways = _ways(nest, array, pads)
    for width in reversed(_sizes(nest.out_columns)):  # strips of columns where the buffer does not hold whole rows
        passes = _passes(nest, array, pads, ways, width)
        criteria = (passes.cycles, passes.inputs + passes.weights + 2 * passes.sums, passes.multiply_cycles)
        first = _least(*criteria)
        if (cost := tuple(int(values[first]) for values in criteria)) < least:
            best, least = _mapping(nest, ways, passes, width, first), cost
        # A narrower strip helps by holding more images, and where that could still be the fastest.
        useful = (passes.images < nest.batch) & (passes.fewest_cycles <= least[0])
        if not useful.any():
            break
        ways = _Ways(*(each[useful] for each in ways))
    return best


class _Ways(NamedTuple):
    """Ways to map a nest to the PEs, an entry each: groups, output rows, channels and filters side by side, and filters
    and channels in a PE's scratchpads."""

    g: Any
    e: Any
    r: Any
    t: Any
    p: Any
    q: Any


class _Passes(NamedTuple):
    """The cost of each way with strips of some width, an entry each."""

    images: Any
    """Images that share a load of filters; 0 if the buffer holds none, which makes the way impossible."""

    cycles: Any
    fewest_cycles: Any
    """A lower bound: any strips, and one load of filters for all images."""

    multiply_cycles: Any
    inputs: Any
    weights: Any
    sums: Any


def _folds(nest: Nest, array: Array, pads: Scratchpads) -> tuple[int, int]:
    """Into how many parts a window's rows and columns are cut if they do not fit at once."""
    return ceil(nest.filter_rows, array.rows), ceil(nest.filter_columns, min(pads.input_words, pads.weight_words))


def _ways(nest: Nest, array: Array, pads: Scratchpads) -> _Ways:
    row_folds, column_folds = _folds(nest, array, pads)
    taps = ceil(nest.filter_columns, column_folds)
    stacks = array.rows // ceil(nest.filter_rows, row_folds)
    most, columns = int(stacks * array.columns), array.columns
    axes = np.meshgrid(
        [size for size in _sizes(nest.groups) if size <= most],
        [size for size in _sizes(nest.out_rows) if size <= most],
        np.arange(1, min(nest.in_channels, most) + 1),
        np.arange(1, min(nest.out_channels, pads.partial_sum_words, pads.weight_words // taps) + 1),
        np.arange(1, min(nest.in_channels, pads.input_words // taps) + 1),
        indexing="ij",
        sparse=True,
    )
    g, e, r, p, q = axes
    strips = ceil(e, columns)
    sets = np.where(strips == 1, stacks * (columns // np.minimum(e, columns)), stacks // strips)
    t = np.minimum(nest.out_channels, sets // (g * r))
    fits = (t >= 1) & (p * q * taps <= pads.weight_words)
    return _Ways(*(np.broadcast_to(each, fits.shape)[fits] for each in (g, e, r, t, p, q)))


def _passes(nest: Nest, array: Array, pads: Scratchpads, ways: _Ways, width: int) -> _Passes:
    g, e, r, t, p, q = ways
    row_folds, column_folds = _folds(nest, array, pads)
    taps, folds = ceil(nest.filter_columns, column_folds), row_folds * column_folds
    accumulators, window = p * t * e * width, _reach(e, 1, nest.rows) * _reach(width, 1, nest.columns)
    held = g * (accumulators * array.partial_sum_bytes + 2 * q * r * window * array.operand_bytes)
    images = np.minimum(nest.batch, array.buffer_bytes // held)

    e_trips, across = ceil(nest.out_rows, e), ceil(nest.out_columns, width)
    read = _reach(nest.out_rows, e_trips, nest.rows) * _reach(nest.out_columns, across, nest.columns)
    k_trips, c_trips = ceil(nest.out_channels, p * t), ceil(nest.in_channels, q * r) * folds
    rounds = ceil(nest.groups, g) * nest.batch * e_trips * nest.out_columns * ceil(nest.out_channels, t)
    multiply = rounds * taps * folds * ceil(nest.in_channels, r)
    load = nest.weight_numel * e_trips
    weights = load * across * ceil(nest.batch, np.maximum(images, 1))
    inputs = nest.groups * nest.batch * nest.in_channels * read * k_trips
    sums = nest.output_numel * c_trips
    busy = np.maximum(multiply + rounds * c_trips, np.maximum(
        ceil(inputs, pads.inputs_per_cycle), ceil(sums, pads.partial_sums_per_cycle)
    ))  # fmt: skip
    return _Passes(
        images,
        np.where(images >= 1, busy + ceil(weights, pads.weights_per_cycle), _NEVER),
        multiply + rounds * c_trips + ceil(load, pads.weights_per_cycle),
        multiply,
        inputs,
        weights,
        sums,
    )


def _mapping(nest: Nest, ways: _Ways, passes: _Passes, width: int, index: int) -> NestMapping:
    chosen = {name: int(each[index]) for name, each in ways._asdict().items()} | {"n": int(passes.images[index])}
    how = {name: size for name, size in chosen.items() if name != "g" or nest.groups > 1}
    if width < nest.out_columns:
        how["w"] = width
    return NestMapping(
        int(passes.cycles[index]),
        int(passes.multiply_cycles[index]),
        int(passes.inputs[index]),
        int(passes.weights[index]),
        2 * int(passes.sums[index]) - nest.output_numel,  # the first pass reads none
        ", ".join(f"{name} {size}" for name, size in how.items()),
    )


def _least(*criteria: Any) -> int:
    """The index of the lexicographic minimum."""
    kept = np.arange(len(criteria[0]))
    for values in criteria:
        kept = kept[values[kept] == values[kept].min()]
    return int(kept[0])


def _reach(outputs: Any, strips: Any, along: Window) -> Any:
    """Input rows under the windows of output rows in so many strips, without those that a stride skips."""
    window = (along.taps - 1) * along.dilation + 1
    return (outputs - strips) * min(along.stride, window) + strips * window


def _sizes(extent: int) -> list[int]:
    """One tile size for each number of tiles, the smallest first."""
    return sorted({ceil(extent, parts) for parts in range(1, extent + 1)})
