"""A nest on an array of processing elements: cycles, elements at work, and words between buffer and array.

How rows x columns of elements share a nest's loops is the dataflow. Pixels are output pixels of the batch, K and C one
group's output and input channels, R x S the window; groups run one after another unless said otherwise.

weight_stationary, output_stationary: systolic arrays, with the cycles of SCALE-Sim's formula (Samajdar et al., "A
    systematic methodology for characterizing scalability of DNN accelerators using SCALE-Sim", ISPASS 2020, equation 3)

        (2 rows + columns + T - 2) ceil(Sr / rows) ceil(Sc / columns)

    where a convolution is a matrix product: Sr x Sc lie on the array while T steps stream through it.
    weight-stationary: Sr = C R S, Sc = K, T = pixels; output-stationary: Sr = pixels, Sc = K, T = C R S.

channel_parallel: each column multiplies C of the rows' input channels by one filter's and sums them in an adder tree, a
    window tap at a time (NVDLA, http://nvdla.org/hw/v1/ias/unit_description.html: rows are Atomic-C, columns Atomic-K):

        pixels R S ceil(C / rows) ceil(K / columns)

    An image's few channels (up to 4) lie beside a window row's taps: R ceil(C S / rows) in place of R S ceil(C / rows).

row_stationary: Eyeriss (Chen et al., IEEE JSSC 52(1), 2017, and ISCA 2016). A set of R x e elements makes e output
    rows: element (i, j) slides filter row i over one input row. Sets are replicated over r input and t output channels
    (and over groups, where the array has room); an element interleaves q channels and p filters in its scratchpads, n
    images share a load of the filters. For E x F output pixels, with every ceil as the hardware has it:

        multiply  = N ceil(E/e) F ceil(K/t) (S ceil(C/r) + ceil(C/(q r)))
        cycles    = max(multiply, input words / rate, partial sums / rate) + weight words / rate

    An element takes one cycle for each product and one to add the partial sum that comes from its neighbour or from an
    earlier pass: its adder does either. Inputs and partial sums arrive while elements work; the filters of a pass have
    to be there before it begins. Scratchpads bound p q S, q S and p; the buffer holds a pass's partial sums and two
    passes' inputs. Of all (e, r, t, p, q, n) the mapping takes the fastest, then the one that moves the fewest words.

ideal: every element multiplies in every cycle, and each word moves between buffer and array once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from costmodel.chip.nests import Nest
from costmodel.errors import InputError, nearest

Count = int | npt.NDArray[np.int64]
"""A whole number, or an array of them: one for each of several arrays of elements."""

IMAGE_CHANNELS = 4
"""Up to how many channels `channel_parallel` packs a window's row with them."""

STRIPE = 16
"""Pixels for which `channel_parallel` keeps its weights: NVDLA's stripe operation, 16 to 32 atomic ones."""


class Scratchpads(NamedTuple):
    """What a row-stationary element holds, and what reaches the array in a cycle, in words."""

    weight_words: int
    input_words: int
    partial_sum_words: int
    weights_per_cycle: int
    inputs_per_cycle: int
    partial_sums_per_cycle: int


class Array(NamedTuple):
    """An array of processing elements."""

    dataflow: str
    rows: Count
    columns: Count
    scratchpads: Scratchpads | None = None
    """Of a row-stationary element."""

    buffer_words: int = 1 << 62
    """What the buffer behind a row-stationary array holds."""


class Mapped(NamedTuple):
    """A nest on an array."""

    cycles: Count
    """From the first word into the array to the last out of it, if no word is late."""

    multiply_cycles: Count
    """Those of them in which the array multiplies: without filling, draining, loading and adding up."""

    input_words: Count
    """Words from the buffer into the array, a multicast counted once."""

    weight_words: Count
    partial_sum_words: Count
    """Words of partial sums and outputs between array and buffer, both ways."""

    how: str = ""
    """What the mapping chose, where it has a choice."""

    def active(self, nest: Nest) -> Any:
        """Elements at work while the array multiplies, on average."""
        return nest.macs / self.multiply_cycles


def place(nest: Nest, array: Array) -> Mapped:
    """A nest on an array; with arrays of rows and columns, on each (not row-stationary, which is one array at a time).

    Raises InputError for an unknown dataflow, and where a row-stationary buffer is too small for any pass.
    """
    if array.dataflow not in _DATAFLOWS:
        hint = nearest(array.dataflow, DATAFLOWS) or f" Use {', '.join(DATAFLOWS)}."
        raise InputError(f"unknown dataflow {array.dataflow!r}.{hint}")
    return _DATAFLOWS[array.dataflow](nest, array)


def systolic_cycles(rows: Count, columns: Count, down: Count, across: Count, steps: Count) -> Count:
    """SCALE-Sim's formula: (2 rows + columns + T - 2) ceil(Sr / rows) ceil(Sc / columns)."""
    return (2 * rows + columns + steps - 2) * _ceil(down, rows) * _ceil(across, columns)


def _weight_stationary(nest: Nest, array: Array) -> Mapped:
    summed, pixels = _summed(nest), _pixels(nest)
    down, across = _ceil(summed, array.rows), _ceil(nest.out_channels, array.columns)
    return Mapped(
        nest.groups * systolic_cycles(array.rows, array.columns, summed, nest.out_channels, pixels),
        nest.groups * pixels * down * across,
        nest.groups * pixels * summed * across,
        nest.weight_elements + 0 * across,
        nest.groups * pixels * nest.out_channels * (2 * down - 1),
    )


def _output_stationary(nest: Nest, array: Array) -> Mapped:
    summed, pixels = _summed(nest), _pixels(nest)
    down, across = _ceil(pixels, array.rows), _ceil(nest.out_channels, array.columns)
    return Mapped(
        nest.groups * systolic_cycles(array.rows, array.columns, pixels, nest.out_channels, summed),
        nest.groups * summed * down * across,
        nest.groups * pixels * summed * across,
        nest.weight_elements * down,
        nest.groups * pixels * nest.out_channels + 0 * across,
    )


def _channel_parallel(nest: Nest, array: Array) -> Mapped:
    taps, lanes = nest.filter_rows * nest.filter_columns, nest.in_channels
    if nest.groups == 1 and nest.in_channels <= IMAGE_CHANNELS:
        taps, lanes = nest.filter_rows, nest.in_channels * nest.filter_columns
    across = _ceil(nest.out_channels, array.columns)
    cycles = nest.groups * _pixels(nest) * taps * _ceil(lanes, array.rows) * across
    return Mapped(
        cycles,
        cycles,
        nest.groups * _pixels(nest) * _summed(nest) * across,
        nest.weight_elements * _ceil(_pixels(nest), STRIPE) + 0 * across,
        nest.output_elements + 0 * across,
    )


def _ideal(nest: Nest, array: Array) -> Mapped:
    cycles = _ceil(nest.macs, array.rows * array.columns)
    once = 0 * cycles
    words = (nest.input_elements + once, nest.weight_elements + once, nest.output_elements + once)
    return Mapped(cycles, cycles, *words)


def _row_stationary(nest: Nest, array: Array) -> Mapped:
    if array.scratchpads is None:
        raise InputError("a row-stationary array needs scratchpads: say what an element holds.")
    shape = replace(nest, layer="", operator="", phase="")  # layers of one shape are mapped once
    found = _row_stationary_of(shape, int(array.rows), int(array.columns), array.scratchpads, array.buffer_words)
    if found is None:
        raise InputError(
            f"a buffer of {array.buffer_words:,} words is too small for any row-stationary pass of layer "
            f"{nest.layer or '(network)'!r}: give it more."
        )
    return found


@lru_cache(maxsize=4096)
def _row_stationary_of(nest: Nest, rows: int, columns: int, pads: Scratchpads, buffer_words: int) -> Mapped | None:
    """The fastest mapping; None if the buffer holds no pass."""
    images, groups, out_rows, out_columns = nest.batch, nest.groups, nest.out_rows, nest.out_columns
    channels, filters = nest.in_channels, nest.out_channels
    row_folds = _ceil(nest.filter_rows, rows)  # a window with more rows or columns than there is room for
    column_folds = _ceil(nest.filter_columns, min(pads.input_words, pads.weight_words))
    folds = row_folds * column_folds
    taps = _ceil(nest.filter_columns, column_folds)
    stacks = rows // _ceil(nest.filter_rows, row_folds)

    e, r, p, q = np.meshgrid(
        [size for size in _sizes(out_rows) if size <= stacks * columns],
        np.arange(1, min(channels, stacks * columns) + 1),
        np.arange(1, min(filters, pads.partial_sum_words, pads.weight_words // taps) + 1),
        np.arange(1, min(channels, pads.input_words // taps) + 1),
        indexing="ij",
        sparse=True,
    )
    strips = _ceil(e, columns)
    sets = np.where(strips == 1, stacks * (columns // np.minimum(e, columns)), stacks // strips)
    t = np.minimum(filters, np.maximum(sets // r, 1))
    side_by_side = np.minimum(groups, np.maximum(sets // (r * t), 1))
    fits_elements = (r <= sets) & (p * q * taps <= pads.weight_words)
    rows_in = (e - 1) * nest.stride[0] + (nest.filter_rows - 1) * nest.dilation[0] + 1
    for width in reversed(_sizes(out_columns)):  # strips of columns where the buffer does not hold whole rows
        columns_in = (width - 1) * nest.stride[1] + (nest.filter_columns - 1) * nest.dilation[1] + 1
        partial_sums, inputs = p * t * e * width, q * r * rows_in * columns_in
        n = np.minimum(images, buffer_words // (partial_sums + 2 * inputs))
        fits = fits_elements & (n >= 1)
        if fits.any():
            break
    else:
        return None
    n = np.maximum(n, 1)
    e_trips, k_trips, c_trips = _ceil(out_rows, e), _ceil(filters, p * t), _ceil(channels, q * r) * folds
    across = _ceil(out_columns, width)
    rounds = _ceil(groups, side_by_side) * images * e_trips * out_columns * _ceil(filters, t)
    multiply = rounds * taps * folds * _ceil(channels, r)
    adding = rounds * c_trips
    weights = nest.weight_elements * _ceil(images, n) * e_trips * across
    inputs_in = groups * images * channels * e_trips * rows_in * columns_in * across * k_trips
    sums = nest.output_elements * c_trips
    busy = np.maximum(multiply + adding, np.maximum(
        _ceil(inputs_in, pads.inputs_per_cycle), _ceil(sums, pads.partial_sums_per_cycle)
    ))  # fmt: skip
    cycles = busy + _ceil(weights, pads.weights_per_cycle)
    words = inputs_in + weights + 2 * sums
    cycles, words = np.where(fits, cycles, _NEVER), np.broadcast_to(words, fits.shape)
    fastest = cycles == cycles.min()
    best = np.unravel_index(np.argmin(np.where(fastest, words, _NEVER)), fits.shape)

    def at(values: Any) -> int:
        return int(np.broadcast_to(values, fits.shape)[best])

    chosen = {"e": e, "r": r, "t": t, "p": p, "q": q, "n": n}
    return Mapped(
        at(cycles),
        at(multiply),
        at(inputs_in),
        at(weights),
        at(2 * sums) - nest.output_elements,  # the first pass reads none
        ", ".join(f"{name} {at(values)}" for name, values in chosen.items()),
    )


_NEVER = np.iinfo(np.int64).max

_DATAFLOWS: Mapping[str, Callable[[Nest, Array], Mapped]] = {
    "weight_stationary": _weight_stationary,
    "output_stationary": _output_stationary,
    "row_stationary": _row_stationary,
    "channel_parallel": _channel_parallel,
    "ideal": _ideal,
}

DATAFLOWS = tuple(_DATAFLOWS)
"""The dataflows that there are."""


def _pixels(nest: Nest) -> int:
    """Pixels at which the window is applied, of the whole batch."""
    return nest.macs // nest.weight_elements


def _summed(nest: Nest) -> int:
    """Products that make one output."""
    return nest.in_channels * nest.filter_rows * nest.filter_columns


def _sizes(extent: int) -> list[int]:
    """One tile size for each number of tiles, the smallest first."""
    return sorted({_ceil(extent, parts) for parts in range(1, extent + 1)})


def _ceil(value: Any, by: Any) -> Any:
    return -(-value // by)
