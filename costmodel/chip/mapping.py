"""A nest on an array of processing elements (PEs): cycles, PEs at work, and words between buffer and array.

How rows x columns of PEs share a nest's loops is the dataflow. Pixels are output pixels of the batch, K and C one
group's output and input channels, R x S the window; groups run one after another unless stated otherwise.

weight_stationary, output_stationary: systolic arrays, with the cycles of SCALE-Sim's formula (Samajdar et al., "A
    systematic methodology for characterizing scalability of DNN accelerators using SCALE-Sim", ISPASS 2020, equation 3)

        (2 rows + columns + T - 2) ceil(Sr / rows) ceil(Sc / columns)

    where a convolution is a matrix product: Sr x Sc lie on the array while T steps stream through it.
    weight-stationary: Sr = C R S, Sc = K, T = pixels; output-stationary: Sr = pixels, Sc = K, T = C R S.

    The first `rows` cycles of a weight-stationary fold bring its weights. Where PEs hold two, as TPU v1's do, the next
    fold's arrive while this one multiplies, which takes longer, so that only the first fold's are waited for:

        rows + (rows + columns + T - 2) folds

channel_parallel: each column multiplies C of the rows' input channels by one filter's and sums them in an adder tree, a
    window tap at a time (NVDLA, http://nvdla.org/hw/v1/ias/unit_description.html: rows are Atomic-C, columns Atomic-K):

        pixels R S ceil(C / rows) ceil(K / columns)

    An image's few channels (up to 4) lie beside a window row's taps: R ceil(C S / rows) in place of R S ceil(C / rows).

row_stationary: Eyeriss, see `costmodel.chip.row_stationary`.

ideal: every PE multiplies in every cycle, and each word moves between buffer and array once.

A transposed convolution is mapped as its product: C by K R S, a step each input pixel, so that the MACs agree.
Each result is added to its output in the buffer: where windows overlap, all but an output's first result read it
before (as many as MACs count, those beyond the output included); what no window meets is written as zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from costmodel.chip.arrays import Array, Count, NestMapping, Scratchpads, ceil
from costmodel.chip.nests import Nest
from costmodel.chip.row_stationary import row_stationary
from costmodel.errors import InputError, nearest

__all__ = ["DATAFLOWS", "Array", "NestMapping", "Scratchpads", "map_nest", "systolic_cycles"]

IMAGE_CHANNELS = 4
"""Up to this many channels `channel_parallel` packs them with a window's row."""

STRIPE = 16
"""Pixels for which `channel_parallel` keeps its weights: NVDLA's stripe operation, 16 to 32 atomic ones."""


def map_nest(nest: Nest, array: Array) -> NestMapping:
    """Map a nest to an array; given arrays of rows and columns, to each (row-stationary: one array at a time).

    Raises InputError for an unknown dataflow, and where a row-stationary buffer is too small for any pass.
    """
    if array.dataflow not in _DATAFLOWS:
        hint = nearest(array.dataflow, DATAFLOWS) or f" Use {', '.join(DATAFLOWS)}."
        raise InputError(f"unknown dataflow {array.dataflow!r}.{hint}")
    mapped_by = _DATAFLOWS[array.dataflow]
    if not nest.transposed or array.dataflow == "ideal":
        return mapped_by(nest, array)
    product = _product(nest)
    mapping = mapped_by(product, array)
    return mapping._replace(partial_sum_words=mapping.partial_sum_words + abs(product.output_numel - nest.output_numel))


def systolic_cycles(rows: Count, columns: Count, down: Count, across: Count, steps: Count) -> Count:
    """SCALE-Sim's formula: (2 rows + columns + T - 2) ceil(Sr / rows) ceil(Sc / columns)."""
    return (2 * rows + columns + steps - 2) * ceil(down, rows) * ceil(across, columns)


def _weight_stationary(nest: Nest, array: Array) -> NestMapping:
    summed, pixels = _summed(nest), _pixels(nest)
    down, across = ceil(summed, array.rows), ceil(nest.out_channels, array.columns)
    cycles = nest.groups * systolic_cycles(array.rows, array.columns, summed, nest.out_channels, pixels)
    if array.weights_ahead:
        cycles -= array.rows * (nest.groups * down * across - 1)
    return NestMapping(
        cycles,
        nest.groups * pixels * down * across,
        nest.groups * pixels * summed * across,
        nest.weight_numel + 0 * across,
        nest.groups * pixels * nest.out_channels * (2 * down - 1),
    )


def _output_stationary(nest: Nest, array: Array) -> NestMapping:
    summed, pixels = _summed(nest), _pixels(nest)
    down, across = ceil(pixels, array.rows), ceil(nest.out_channels, array.columns)
    return NestMapping(
        nest.groups * systolic_cycles(array.rows, array.columns, pixels, nest.out_channels, summed),
        nest.groups * summed * down * across,
        nest.groups * pixels * summed * across,
        nest.weight_numel * down,
        nest.groups * pixels * nest.out_channels + 0 * across,
    )


def _channel_parallel(nest: Nest, array: Array) -> NestMapping:
    taps, lanes = nest.filter_rows * nest.filter_columns, nest.in_channels
    if nest.groups == 1 and nest.in_channels <= IMAGE_CHANNELS:
        taps, lanes = nest.filter_rows, nest.in_channels * nest.filter_columns
    across = ceil(nest.out_channels, array.columns)
    cycles = nest.groups * _pixels(nest) * taps * ceil(lanes, array.rows) * across
    return NestMapping(
        cycles,
        cycles,
        nest.groups * _pixels(nest) * _summed(nest) * across,
        nest.weight_numel * ceil(_pixels(nest), STRIPE) + 0 * across,
        nest.output_numel + 0 * across,
    )


def _ideal(nest: Nest, array: Array) -> NestMapping:
    cycles = ceil(nest.macs, array.rows * array.columns)
    once = 0 * cycles
    words = (nest.input_numel + once, nest.weight_numel + once, nest.output_numel + once)
    return NestMapping(cycles, cycles, *words)


_DATAFLOWS: Mapping[str, Callable[[Nest, Array], NestMapping]] = {
    "weight_stationary": _weight_stationary,
    "output_stationary": _output_stationary,
    "row_stationary": row_stationary,
    "channel_parallel": _channel_parallel,
    "ideal": _ideal,
}

DATAFLOWS = tuple(_DATAFLOWS)
"""The names of the dataflows."""


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
    """Products summed into one output."""
    return nest.in_channels * nest.filter_rows * nest.filter_columns
