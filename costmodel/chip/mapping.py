"""A nest on an array of processing elements: cycles, elements at work, and words between buffer and array.

How rows x columns of elements share a nest's loops is the dataflow. Pixels are output pixels of the batch, K and C one
group's output and input channels, R x S the window; groups run one after another unless said otherwise.

weight_stationary, output_stationary: systolic arrays, with the cycles of SCALE-Sim's formula (Samajdar et al., "A
    systematic methodology for characterizing scalability of DNN accelerators using SCALE-Sim", ISPASS 2020, equation 3)

        (2 rows + columns + T - 2) ceil(Sr / rows) ceil(Sc / columns)

    where a convolution is a matrix product: Sr x Sc lie on the array while T steps stream through it.
    weight-stationary: Sr = C R S, Sc = K, T = pixels; output-stationary: Sr = pixels, Sc = K, T = C R S.

    The first `rows` cycles of a weight-stationary fold bring its weights. Where elements hold two, as TPU v1's do, the
    next fold's come while this one multiplies, which takes longer, so that the first fold's alone are waited for:

        rows + (rows + columns + T - 2) folds

channel_parallel: each column multiplies C of the rows' input channels by one filter's and sums them in an adder tree, a
    window tap at a time (NVDLA, http://nvdla.org/hw/v1/ias/unit_description.html: rows are Atomic-C, columns Atomic-K):

        pixels R S ceil(C / rows) ceil(K / columns)

    An image's few channels (up to 4) lie beside a window row's taps: R ceil(C S / rows) in place of R S ceil(C / rows).

row_stationary: Eyeriss (Chen et al., IEEE JSSC 52(1), 2017, and ISCA 2016). A set of R x e elements makes e output
    rows: element (i, j) slides filter row i over one input row. Sets are replicated over r input and t output channels
    and over g groups; an element interleaves q channels
    and p filters in its scratchpads, n images share a load of the filters. For E x F output pixels of G groups, with
    every ceil as the hardware has it:

        multiply  = N ceil(G/g) ceil(E/e) F ceil(K/t) (S ceil(C/r) + ceil(C/(q r)))
        cycles    = max(multiply, input words / rate, partial sums / rate) + weight words / rate

    An element takes one cycle for each product and one to add the partial sum that comes from its neighbour or from an
    earlier pass: its adder does either. Inputs and partial sums arrive while elements work; the filters of a pass have
    to be there before it begins. Scratchpads bound p q S, q S and p. The buffer holds a pass's partial sums, as wide as
    an accumulator, and two passes' inputs, of a strip of w columns:

        n g (p t e w accumulators + 2 q r (e, w and the window's reach) operands)  <=  buffer

    t and n are as large as elements and buffer allow; g, e and w one size for each number of rounds. Of all of them the
    mapping takes the fastest, of those the one that moves the fewest words.

ideal: every element multiplies in every cycle, and each word moves between buffer and array once.

A transposed convolution is placed as its product: C by K R S, a step each input pixel, so that MACs are the count's.
Each result is added to its output in the buffer: where windows overlap, all but an output's first result read it
before (as many as MACs count, those beyond the output included); what no window meets is written as zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from costmodel.chip.nests import Nest
from costmodel.chip.windows import Window
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

    buffer_bytes: int = 1 << 62
    """What the buffer behind a row-stationary array holds."""

    operand_bytes: int = 2
    """Of an input or a weight."""

    partial_sum_bytes: int = 2
    weights_ahead: bool = False
    """Whether a weight-stationary array takes in the next fold's weights while it multiplies."""


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
    placed = _DATAFLOWS[array.dataflow]
    if not nest.transposed or array.dataflow == "ideal":
        return placed(nest, array)
    product = _product(nest)
    found = placed(product, array)
    return found._replace(
        partial_sum_words=found.partial_sum_words + abs(product.output_elements - nest.output_elements)
    )


def systolic_cycles(rows: Count, columns: Count, down: Count, across: Count, steps: Count) -> Count:
    """SCALE-Sim's formula: (2 rows + columns + T - 2) ceil(Sr / rows) ceil(Sc / columns)."""
    return (2 * rows + columns + steps - 2) * _ceil(down, rows) * _ceil(across, columns)


def _weight_stationary(nest: Nest, array: Array) -> Mapped:
    summed, pixels = _summed(nest), _pixels(nest)
    down, across = _ceil(summed, array.rows), _ceil(nest.out_channels, array.columns)
    cycles = nest.groups * systolic_cycles(array.rows, array.columns, summed, nest.out_channels, pixels)
    if array.weights_ahead:
        cycles -= array.rows * (nest.groups * down * across - 1)
    return Mapped(
        cycles,
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
    shape = replace(nest, layer="", operator="", kind="", phase="")  # layers of one shape are mapped once
    sides = array._replace(rows=int(array.rows), columns=int(array.columns))
    found = _row_stationary_of(shape, sides, array.scratchpads)
    if found is None:
        raise InputError(
            f"a buffer of {array.buffer_bytes:,} bytes is too small for any row-stationary pass of layer "
            f"{nest.layer or '(network)'!r}: give it more."
        )
    return found


@lru_cache(maxsize=4096)
def _row_stationary_of(nest: Nest, array: Array, pads: Scratchpads) -> Mapped | None:
    """The fastest mapping; None if the buffer holds no pass."""
    best: Mapped | None = None
    least: tuple[int, ...] = (_NEVER,)  # what no buffer holds takes no less
    ways = _ways(nest, array, pads)
    for width in reversed(_sizes(nest.out_columns)):  # strips of columns where the buffer does not hold whole rows
        passes = _passes(nest, array, pads, ways, width)
        criteria = (passes.cycles, passes.inputs + passes.weights + 2 * passes.sums, passes.multiply_cycles)
        first = _least(*criteria)
        if (found := tuple(int(each[first]) for each in criteria)) < least:
            best, least = _mapped(nest, ways, passes, width, first), found
        # A narrower strip helps by holding more images, and where that could still be the fastest.
        useful = (passes.images < nest.batch) & (passes.fewest_cycles <= least[0])
        if not useful.any():
            break
        ways = _Ways(*(each[useful] for each in ways))
    return best


class _Ways(NamedTuple):
    """Ways to lay a nest on the elements, an entry each: groups, output rows, channels and filters side by side and
    filters and channels in an element's scratchpads."""

    g: Any
    e: Any
    r: Any
    t: Any
    p: Any
    q: Any


class _Passes(NamedTuple):
    """What ways come to with strips of some width, an entry each."""

    images: Any
    """That share a load of filters; 0 where the buffer holds none, which takes for ever."""

    cycles: Any
    fewest_cycles: Any
    """With any strips, and one load of filters for all images."""

    multiply_cycles: Any
    inputs: Any
    weights: Any
    sums: Any


def _folds(nest: Nest, array: Array, pads: Scratchpads) -> tuple[int, int]:
    """How often a window's rows and columns are cut, where there are more than there is room for."""
    return _ceil(nest.filter_rows, array.rows), _ceil(nest.filter_columns, min(pads.input_words, pads.weight_words))


def _ways(nest: Nest, array: Array, pads: Scratchpads) -> _Ways:
    row_folds, column_folds = _folds(nest, array, pads)
    taps = _ceil(nest.filter_columns, column_folds)
    stacks = array.rows // _ceil(nest.filter_rows, row_folds)
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
    strips = _ceil(e, columns)
    sets = np.where(strips == 1, stacks * (columns // np.minimum(e, columns)), stacks // strips)
    t = np.minimum(nest.out_channels, sets // (g * r))
    fits = (t >= 1) & (p * q * taps <= pads.weight_words)
    return _Ways(*(np.broadcast_to(each, fits.shape)[fits] for each in (g, e, r, t, p, q)))


def _passes(nest: Nest, array: Array, pads: Scratchpads, ways: _Ways, width: int) -> _Passes:
    g, e, r, t, p, q = ways
    row_folds, column_folds = _folds(nest, array, pads)
    taps, folds = _ceil(nest.filter_columns, column_folds), row_folds * column_folds
    accumulators, window = p * t * e * width, _reach(e, 1, nest.rows) * _reach(width, 1, nest.columns)
    held = g * (accumulators * array.partial_sum_bytes + 2 * q * r * window * array.operand_bytes)
    images = np.minimum(nest.batch, array.buffer_bytes // held)

    e_trips, across = _ceil(nest.out_rows, e), _ceil(nest.out_columns, width)
    read = _reach(nest.out_rows, e_trips, nest.rows) * _reach(nest.out_columns, across, nest.columns)
    k_trips, c_trips = _ceil(nest.out_channels, p * t), _ceil(nest.in_channels, q * r) * folds
    rounds = _ceil(nest.groups, g) * nest.batch * e_trips * nest.out_columns * _ceil(nest.out_channels, t)
    multiply = rounds * taps * folds * _ceil(nest.in_channels, r)
    load = nest.weight_elements * e_trips
    weights = load * across * _ceil(nest.batch, np.maximum(images, 1))
    inputs = nest.groups * nest.batch * nest.in_channels * read * k_trips
    sums = nest.output_elements * c_trips
    busy = np.maximum(multiply + rounds * c_trips, np.maximum(
        _ceil(inputs, pads.inputs_per_cycle), _ceil(sums, pads.partial_sums_per_cycle)
    ))  # fmt: skip
    return _Passes(
        images,
        np.where(images >= 1, busy + _ceil(weights, pads.weights_per_cycle), _NEVER),
        multiply + rounds * c_trips + _ceil(load, pads.weights_per_cycle),
        multiply,
        inputs,
        weights,
        sums,
    )


def _mapped(nest: Nest, ways: _Ways, passes: _Passes, width: int, index: int) -> Mapped:
    chosen = {name: int(each[index]) for name, each in ways._asdict().items()} | {"n": int(passes.images[index])}
    how = {name: size for name, size in chosen.items() if name != "g" or nest.groups > 1}
    if width < nest.out_columns:
        how["w"] = width
    return Mapped(
        int(passes.cycles[index]),
        int(passes.multiply_cycles[index]),
        int(passes.inputs[index]),
        int(passes.weights[index]),
        2 * int(passes.sums[index]) - nest.output_elements,  # the first pass reads none
        ", ".join(f"{name} {size}" for name, size in how.items()),
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


def _product(nest: Nest) -> Nest:
    """A transposed convolution's product: each input pixel meets the whole window, taps beside output channels."""
    taps = nest.filter_rows * nest.filter_columns
    return replace(
        nest, transposed=False, out_channels=nest.out_channels * taps, out_rows=nest.in_rows,
        out_columns=nest.in_columns, filter_rows=1, filter_columns=1, stride=(1, 1), dilation=(1, 1),
        padding=((0, 0), (0, 0)),
    )  # fmt: skip


def _pixels(nest: Nest) -> int:
    """Output pixels of the whole batch."""
    return nest.batch * nest.out_rows * nest.out_columns


def _summed(nest: Nest) -> int:
    """Products that make one output."""
    return nest.in_channels * nest.filter_rows * nest.filter_columns


def _least(*criteria: Any) -> int:
    """The index of what is least by the first, of those by the second, and so on."""
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
    return sorted({_ceil(extent, parts) for parts in range(1, extent + 1)})


def _ceil(value: Any, by: Any) -> Any:
    return -(-value // by)
