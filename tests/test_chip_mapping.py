"""Nests on arrays of elements: cycles derived by hand, SCALE-Sim's own output, and Eyeriss as it was measured."""

from __future__ import annotations

import csv
from dataclasses import replace
from itertools import product
from math import ceil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.chip.accelerator import accelerator
from costmodel.chip.mapping import DATAFLOWS, Array, Scratchpads, map_nest, systolic_cycles
from costmodel.chip.nests import Nest
from costmodel.errors import InputError

PADS = Scratchpads(224, 12, 24, 4, 1, 4)


def conv(size: int, channels: int, window: int, filters: int, stride: int = 1, **more) -> Nest:
    """A convolution without padding over square images."""
    out = (size - window) // stride + 1
    return Nest(
        "layer", "aten.convolution", "conv", in_channels=channels, out_channels=filters, out_rows=out,
        out_columns=out, filter_rows=window, filter_columns=window, stride=(stride, stride), in_rows=size,
        in_columns=size, **more,
    )  # fmt: skip


def fc(inputs: int, outputs: int, batch: int = 1) -> Nest:
    return Nest("fc", "aten.addmm", "linear", batch=batch, in_channels=inputs, out_channels=outputs)


def alexnet(batch: int = 4) -> list[Nest]:
    """The grouped AlexNet's convolutions, 227x227, as Eyeriss ran them."""
    return [
        conv(227, 3, 11, 96, 4, batch=batch),
        replace(conv(31, 48, 5, 128, batch=batch, groups=2), padding=((2, 2), (2, 2)), in_rows=27, in_columns=27),
        *(
            replace(
                conv(15, channels, 3, filters, batch=batch, groups=groups),
                padding=((1, 1), (1, 1)),
                in_rows=13,
                in_columns=13,
            )
            for channels, filters, groups in ((256, 384, 1), (192, 192, 2), (192, 128, 2))
        ),
    ]


def test_systolic_arrays_by_hand() -> None:
    # 10x10x5 image, 3x3 window, 7 filters: 64 pixels, 45 products each, on 16 x 24 elements.
    # Output-stationary: 4 x 1 folds of 2 x 16 + 24 + 45 - 2 = 99 cycles. Weight-stationary: 3 x 1 of 32 + 24 + 64 - 2.
    nest = conv(10, 5, 3, 7)
    out, weight = (map_nest(nest, Array(f"{what}_stationary", 16, 24)) for what in ("output", "weight"))
    assert (out.cycles, weight.cycles) == (4 * 99, 3 * 118)
    assert (out.multiply_cycles, weight.multiply_cycles) == (4 * 45, 3 * 64)
    # words: inputs 64 x 45 once a column fold; outputs once, or read and written for all but the first of 3 row folds
    assert out[2:5] == (64 * 45, 7 * 45 * 4, 64 * 7)
    assert weight[2:5] == (64 * 45, 7 * 45, 64 * 7 * 5)


def test_weights_that_come_ahead() -> None:
    """The nest above: 16 cycles bring the first weights, then 3 folds of 16 + 24 + 64 - 2; groups follow at once."""
    array = Array("weight_stationary", 16, 24, weights_ahead=True)
    nest = conv(10, 5, 3, 7)
    assert map_nest(nest, array).cycles == 16 + 3 * 102
    assert map_nest(replace(nest, groups=4), array).cycles == 16 + 4 * 3 * 102
    alone = conv(10, 1, 3, 7)  # a single fold has no other's weights to wait for
    assert map_nest(alone, array).cycles == map_nest(alone, array._replace(weights_ahead=False)).cycles
    assert map_nest(nest, array)[1:] == map_nest(nest, array._replace(weights_ahead=False))[1:]


@pytest.mark.parametrize(
    ("nest", "output_stationary", "weight_stationary"),
    [  # scalesim 3.0.0's "Total Cycles" on a 16 x 24 array: it starts at cycle 0, so one less than the count
        (conv(10, 5, 3, 7), 331, 353),
        (conv(23, 3, 5, 40, 2), 1581, 1539),
        (conv(9, 70, 1, 33), 1295, 1349),
        (fc(300, 50), 1013, 3134),
    ],
)
def test_scale_sims_own_output(nest: Nest, output_stationary: int, weight_stationary: int) -> None:
    assert map_nest(nest, Array("weight_stationary", 16, 24)).cycles == weight_stationary + 1
    # Its output-stationary simulation leaves out the drain of each fold, `rows` cycles that its published formula has.
    folds = ceil(nest.out_rows * nest.out_columns / 16) * ceil(nest.out_channels / 24)
    assert map_nest(nest, Array("output_stationary", 16, 24)).cycles == output_stationary + 1 + 16 * folds


@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 200), st.integers(1, 200), st.integers(1, 300),
)  # fmt: skip
def test_scale_sims_formula(rows: int, columns: int, down: int, across: int, steps: int) -> None:
    expected = (2 * rows + columns + steps - 2) * ceil(down / rows) * ceil(across / columns)
    assert systolic_cycles(rows, columns, down, across, steps) == expected
    assert map_nest(fc(down, across, steps), Array("weight_stationary", rows, columns)).cycles == expected
    assert map_nest(fc(steps, across, down), Array("output_stationary", rows, columns)).cycles == expected


def test_groups_run_one_after_another() -> None:
    nest = conv(12, 8, 3, 16)
    for flow in ("weight_stationary", "output_stationary", "channel_parallel"):
        one, four = (map_nest(replace(nest, groups=groups), Array(flow, 8, 8)) for groups in (1, 4))
        assert four.cycles == 4 * one.cycles


def test_channel_parallel_by_hand() -> None:
    # 56x56 pixels, 3x3 window, 64 -> 128 channels on Atomic-C 64 x Atomic-K 32: 3136 x 9 x 1 x 4
    assert map_nest(conv(58, 64, 3, 128), Array("channel_parallel", 64, 32)).cycles == 3136 * 9 * 4
    # an image's 3 channels lie beside the window's 7 columns: 21 of 64 lanes, 7 taps; 64 filters on 32 columns
    assert map_nest(conv(229, 3, 7, 64, 2), Array("channel_parallel", 64, 32)).cycles == 112 * 112 * 7 * 2
    # on 8 lanes, 21 products take 3 steps
    assert map_nest(conv(229, 3, 7, 64, 2), Array("channel_parallel", 8, 8)).cycles == 112 * 112 * 7 * 3 * 8


def test_channel_parallel_keeps_its_weights_for_a_stripe_of_16_pixels() -> None:
    # 3136 pixels are 196 stripes, each of which reads all 9 x 64 x 128 weights; a pixel's 576 inputs are read for each
    # of the 4 sets of 32 filters, and its 128 sums are written once
    found = map_nest(conv(58, 64, 3, 128), Array("channel_parallel", 64, 32))
    assert found[2:5] == (3136 * 576 * 4, 196 * 73_728, 3136 * 128)
    # 5 x 5 pixels take two stripes, the second of 9
    assert map_nest(conv(7, 64, 3, 32), Array("channel_parallel", 64, 32)).weight_words == 2 * 9 * 64 * 32


def test_a_nest_of_unequal_sides_by_hand() -> None:
    # 3 groups of 5 -> 7 channels, windows of 2 x 3, 4 x 6 pixels of 2 images: 48 pixels of 30 products, 630 weights and
    # 1008 outputs; 8 rows and 4 columns hold a group's 30 products four times over and its 7 filters twice
    nest = Nest(
        "layer", "aten.convolution", "conv", batch=2, groups=3, in_channels=5, out_channels=7, out_rows=4,
        out_columns=6, filter_rows=2, filter_columns=3, in_rows=5, in_columns=8,
    )  # fmt: skip
    weight, output, channel = (
        map_nest(nest, Array(f"{flow}", 8, 4))
        for flow in ("weight_stationary", "output_stationary", "channel_parallel")
    )
    inputs = 3 * 48 * 30 * 2  # for each fold across
    assert weight[:5] == (3 * (16 + 4 + 48 - 2) * 8, 3 * 48 * 8, inputs, 630, 3 * 48 * 7 * (4 + 3))
    assert output[:5] == (3 * (16 + 4 + 30 - 2) * 6 * 2, 3 * 30 * 12, inputs, 630 * 6, 1008)
    assert channel[:5] == (3 * 48 * 6 * 1 * 2, 3 * 48 * 6 * 1 * 2, inputs, 630 * 3, 1008)
    # with its next weights taken in meanwhile, all folds but the first save 8 cycles
    assert map_nest(nest, Array("weight_stationary", 8, 4, weights_ahead=True)).cycles == weight.cycles - 8 * 23
    # up to 4 channels lie beside a window's 3 columns: 12 lanes in two steps for each of 2 rows; 5 take 6 taps
    four, five = (replace(nest, groups=1, in_channels=channels) for channels in (4, 5))
    assert map_nest(four, Array("channel_parallel", 8, 4)).cycles == 48 * 2 * 2 * 2
    assert map_nest(five, Array("channel_parallel", 8, 4)).cycles == 48 * 6 * 1 * 2


def test_a_transposed_nest_of_unequal_sides_by_hand() -> None:
    # 3 x 5 pixels of 2 images, 5 channels, to 7 channels by windows of 2 x 3: a product of 30 rows by 5 by 42. Its
    # 1260 results are added up in 4 x 7 pixels: all but the 392 outputs' first read what was there.
    nest = Nest(
        "layer", "aten.convolution", "conv", batch=2, in_channels=5, out_channels=7, out_rows=4, out_columns=7,
        filter_rows=2, filter_columns=3, in_rows=3, in_columns=5, transposed=True,
    )  # fmt: skip
    found = map_nest(nest, Array("weight_stationary", 8, 4))
    assert found[:5] == ((16 + 4 + 30 - 2) * 11, 30 * 11, 30 * 5 * 11, 5 * 42, 1260 + 1260 - 392)
    # windows apart leave each result alone, and 6 x 16 pixels hold 84 that none meets, written as zero
    apart = replace(nest, stride=(2, 3), out_rows=6, out_columns=16)
    assert map_nest(apart, Array("weight_stationary", 8, 4)).partial_sum_words == 1260 + 2 * 7 * 6


def test_ideal_wastes_nothing() -> None:
    nest = conv(12, 8, 3, 16)
    found = map_nest(nest, Array("ideal", 10, 10))
    assert found.cycles == ceil(nest.macs / 100)
    assert found[2:5] == (nest.input_numel, nest.weight_numel, nest.output_numel)


@pytest.mark.parametrize("flow", [flow for flow in DATAFLOWS if flow != "row_stationary"])
def test_arrays_of_arrays(flow: str) -> None:
    rows, columns = np.array([4, 8, 16]), np.array([16, 8, 4])
    for nest in (conv(12, 8, 3, 16), fc(40, 30, 5)):
        together = map_nest(nest, Array(flow, rows, columns))
        for index in range(3):
            alone = map_nest(nest, Array(flow, int(rows[index]), int(columns[index])))
            for name in ("cycles", "multiply_cycles", "input_words", "weight_words", "partial_sum_words"):
                values = np.broadcast_to(getattr(together, name), (3,))
                assert values[index] == getattr(alone, name), name


nests = st.builds(
    conv, st.integers(7, 20), st.integers(1, 40), st.integers(1, 7), st.integers(1, 40), st.integers(1, 3),
    batch=st.integers(1, 3), groups=st.sampled_from([1, 2, 5]),
)  # fmt: skip


@given(nests, st.sampled_from(DATAFLOWS), st.integers(2, 20), st.integers(2, 20))
def test_no_array_does_more_than_its_elements_can(nest: Nest, flow: str, rows: int, columns: int) -> None:
    found = map_nest(nest, Array(flow, rows, columns, PADS if flow == "row_stationary" else None))
    assert found.cycles >= found.multiply_cycles
    assert 0 < found.active(nest) <= rows * columns
    assert found.weight_words >= nest.weight_numel and found.partial_sum_words >= nest.output_numel


def published() -> list[dict[str, str]]:
    path = Path(__file__).with_name("data") / "eyeriss_alexnet.csv"
    return list(csv.DictReader(line for line in path.open() if not line.startswith("#")))


@pytest.mark.parametrize(("nest", "row"), list(zip(alexnet(), published(), strict=True)))
def test_eyeriss_as_it_was_measured(nest: Nest, row: dict[str, str]) -> None:
    eyeriss = accelerator("eyeriss")
    found = map_nest(nest, eyeriss.array)
    assert nest.macs == pytest.approx(float(row["giga_macs"]) * 1e9, rel=2e-4)  # printed in five digits
    assert found.active(nest) == pytest.approx(float(row["active_pes"]), rel=0.05)
    assert found.cycles / eyeriss.clock_hertz == pytest.approx(float(row["processing_milliseconds"]) / 1e3, rel=0.15)


def test_eyeriss_by_hand() -> None:
    # conv3, batch 4: 12 x 14 elements hold 4 sets of 3 x 13. With r = 2, t = 2, p = 18, q = 4, n = 4:
    # multiply 4 x 13 x ceil(384 / 2) x 3 x ceil(256 / 2) = 3,833,856, a neighbour's sum 4 x 13 x 192 x ceil(256 / 8)
    # more, and 884,736 weights, once for all images, 4 a cycle
    found = map_nest(alexnet()[2], accelerator("eyeriss").array)
    assert found.multiply_cycles == 4 * 13 * 192 * 3 * 128
    assert found.cycles == found.multiply_cycles + 4 * 13 * 192 * 32 + 884_736 // 4
    assert found.active(alexnet()[2]) == 156


def literal_row_stationary(nest: Nest, array: Array) -> tuple[int, int] | None:
    """Cycles and words of the fastest mapping, by trying all: the docstring's formulas one by one."""
    pads, best = array.scratchpads, None
    window_rows, taps, (down, across) = nest.filter_rows, nest.filter_columns, nest.stride
    for g, e, w, r, p, q in product(
        *({ceil(extent / parts) for parts in range(1, extent + 1)} for extent in (
            nest.groups, nest.out_rows, nest.out_columns
        )),
        range(1, nest.in_channels + 1), range(1, nest.out_channels + 1), range(1, nest.in_channels + 1),
    ):  # fmt: skip
        stacks, strips = array.rows // window_rows, ceil(e / array.columns)
        sets = stacks * (array.columns // e) if strips == 1 else stacks // strips
        t = min(nest.out_channels, sets // (g * r))
        if t == 0 or p * q * taps > pads.weight_words or q * taps > pads.input_words or p > pads.partial_sum_words:
            continue
        rows_in = (e - 1) * min(down, window_rows) + window_rows
        columns_in = (w - 1) * min(across, taps) + taps
        image = g * (p * t * e * w * array.partial_sum_bytes + 2 * q * r * rows_in * columns_in * array.operand_bytes)
        for n in range(1, min(nest.batch, array.buffer_bytes // image) + 1):
            rounds = nest.batch * ceil(nest.groups / g) * ceil(nest.out_rows / e) * nest.out_columns
            multiply = (
                rounds
                * ceil(nest.out_channels / t)
                * (taps * ceil(nest.in_channels / r) + ceil(nest.in_channels / (q * r)))
            )
            tiles = ceil(nest.out_rows / e) * ceil(nest.out_columns / w)
            inputs = nest.batch * nest.groups * nest.in_channels * ceil(nest.out_channels / (p * t))
            inputs *= sum((min(e, nest.out_rows - y) - 1) * min(down, window_rows) + window_rows
                          for y in range(0, nest.out_rows, e))  # fmt: skip
            inputs *= sum((min(w, nest.out_columns - x) - 1) * min(across, taps) + taps
                          for x in range(0, nest.out_columns, w))  # fmt: skip
            weights = nest.weight_numel * tiles * ceil(nest.batch / n)
            sums = nest.output_numel * ceil(nest.in_channels / (q * r))
            arriving = max(ceil(inputs / pads.inputs_per_cycle), ceil(sums / pads.partial_sums_per_cycle))
            cycles = max(multiply, arriving) + ceil(weights / pads.weights_per_cycle)
            found = (cycles, inputs + weights + 2 * sums - nest.output_numel)
            best = min(best or found, found)
    return best


small = st.builds(
    conv, st.integers(3, 7), st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(1, 3),
    batch=st.integers(1, 3), groups=st.integers(1, 3),
)  # fmt: skip
small_arrays = st.builds(
    Array, st.just("row_stationary"), st.integers(3, 6), st.integers(2, 5), st.just(Scratchpads(12, 6, 3, 2, 1, 2)),
    st.integers(8, 600), st.sampled_from([1, 2]), st.sampled_from([2, 4]),
)  # fmt: skip


@settings(deadline=None)
@given(small, small_arrays)
def test_row_stationary_is_the_fastest_of_all_ways(nest: Nest, array: Array) -> None:
    expected = literal_row_stationary(nest, array)
    if expected is None:
        with pytest.raises(InputError, match="too small for any row-stationary pass"):
            map_nest(nest, array)
    else:
        found = map_nest(nest, array)
        assert (found.cycles, sum(found[2:5])) == expected


@settings(deadline=None)
@given(nests, st.integers(200, 20_000), st.integers(0, 20_000))
def test_more_buffer_never_takes_more_cycles(nest: Nest, buffer: int, more: int) -> None:
    array = Array("row_stationary", 12, 14, PADS, buffer, 1, 4)
    try:
        less = map_nest(nest, array).cycles
    except InputError:
        return
    assert map_nest(nest, array._replace(buffer_bytes=buffer + more)).cycles <= less


def test_more_buffer_never_takes_more_cycles_of_vggs_second_layer() -> None:
    second = replace(conv(226, 64, 3, 64, batch=3), padding=((1, 1), (1, 1)), in_rows=224, in_columns=224)
    eyeriss = accelerator("eyeriss")
    cycles = [
        map_nest(second, eyeriss.replace(buffer_bytes=kib << 10, buffer_banks=1).array).cycles
        for kib in (8, 12, 16, 32, 108, 512)
    ]
    assert cycles == sorted(cycles, reverse=True)
    # Never less than what all of its elements take to multiply, 3 x 224² x 64 x 64 x 9 / 168.
    assert cycles[-1] >= second.macs / 168


def test_partial_sums_fill_the_buffer_as_wide_as_they_are() -> None:
    """64 to 64 channels, 3x3, on 56² pixels: what one pass of the mapping holds, by its sizes."""
    nest = replace(conv(58, 64, 3, 64), padding=((1, 1), (1, 1)), in_rows=56, in_columns=56)
    for operand, accumulator in ((2, 2), (1, 4), (1, 2)):
        array = accelerator("eyeriss").array._replace(operand_bytes=operand, partial_sum_bytes=accumulator)
        size = {
            name: int(number) for name, number in (part.split() for part in map_nest(nest, array).choice.split(", "))
        }
        e, w = size["e"], size.get("w", 56)
        sums, inputs = size["p"] * size["t"] * e * w, size["q"] * size["r"] * (e + 2) * (w + 2)
        assert size["n"] * (sums * accumulator + 2 * inputs * operand) <= 110_592


@pytest.mark.parametrize("flow", [flow for flow in DATAFLOWS if flow != "ideal"])
def test_a_transposed_convolution_whose_windows_do_not_overlap_is_a_product(flow: str) -> None:
    """Window 2, stride 2, 64 to 32 channels, 32x32 to 64x64: each input pixel makes 4 outputs, as 4 x 32 channels."""
    nest = Nest(
        "up", "aten.convolution", "conv", in_channels=64, out_channels=32, out_rows=64, out_columns=64,
        filter_rows=2, filter_columns=2, stride=(2, 2), in_rows=32, in_columns=32, transposed=True,
    )  # fmt: skip
    array = Array(flow, 16, 8, PADS if flow == "row_stationary" else None)
    found = map_nest(nest, array)
    assert found == map_nest(conv(32, 64, 1, 128), array)
    assert found.multiply_cycles * 128 >= nest.macs == 1024 * 64 * 32 * 4


def test_transposed_convolutions_by_hand() -> None:
    nest = Nest(
        "up", "aten.convolution", "conv", in_channels=64, out_channels=32, out_rows=64, out_columns=64,
        filter_rows=2, filter_columns=2, stride=(2, 2), in_rows=32, in_columns=32, transposed=True,
    )  # fmt: skip
    out, weight, rows, ideal = (
        map_nest(nest, Array(f"{flow}", 16, 8, PADS if flow.startswith("row") else None))
        for flow in ("output_stationary", "weight_stationary", "row_stationary", "ideal")
    )
    assert out.partial_sum_words == 64 * 64 * 32
    # 64 x 128 weights are 4 x 16 folds; every pixel streams through each
    assert weight.cycles == (2 * 16 + 8 + 1024 - 2) * 4 * 16
    assert weight.input_words == 1024 * 64 * 16 and weight.partial_sum_words == 64 * 64 * 32 * (2 * 4 - 1)
    assert rows.input_words % (1024 * 64) == 0 and rows.weight_words >= 64 * 128
    assert ideal[2:5] == (1024 * 64, 64 * 128, 64 * 64 * 32)
    # Window 3, stride 1 on 10² pixels: 12² outputs of 900 results. The others read what is there before they add.
    full = replace(
        nest, filter_rows=3, filter_columns=3, stride=(1, 1), in_rows=10, in_columns=10, out_rows=12, out_columns=12
    )
    assert map_nest(full, Array("output_stationary", 16, 8)).partial_sum_words == 32 * (900 + 900 - 144)
    # Window 1, stride 2: outputs between the 10² results are zeros that have to be written.
    apart = replace(nest, filter_rows=1, filter_columns=1, in_rows=10, in_columns=10, out_rows=19, out_columns=19)
    assert map_nest(apart, Array("output_stationary", 16, 8)).partial_sum_words == 32 * 19**2


def test_row_stationary_replicates_depthwise_groups() -> None:
    nest = conv(14, 1, 3, 1, groups=64)
    found = map_nest(nest, Array("row_stationary", 12, 12, PADS))
    assert found.active(nest) > 100  # 4 sets of 3 x 12, side by side


def test_what_cannot_be_placed() -> None:
    with pytest.raises(InputError, match="Did you mean weight_stationary"):
        map_nest(fc(4, 4), Array("weight_stationry", 4, 4))
    with pytest.raises(InputError, match="needs scratchpads"):
        map_nest(fc(4, 4), Array("row_stationary", 4, 4))
    # two passes of one 11x11 window's inputs take 484 bytes
    with pytest.raises(InputError, match="400 bytes is too small for any row-stationary pass of layer 'layer'"):
        map_nest(conv(227, 3, 11, 96, 4), Array("row_stationary", 12, 14, PADS, 400))
