"""Traffic against a literal walk of the loops, against brute force over all tiles, and against published anchors."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from literal_walk import walk_literally

from costmodel.chip.bounds import bound_bytes, compulsory_bytes
from costmodel.chip.nests import Nest
from costmodel.chip.schedules import SCHEDULE, Pool, Tile, footprint_bits, walk
from costmodel.chip.tiling import Curve, least_traffic
from costmodel.chip.widths import Widths
from costmodel.chip.windows import Window
from costmodel.errors import InputError


@st.composite
def nests(draw: st.DrawFn, largest: int = 5) -> Nest:
    """Small nests: any stride, dilation and padding, windows larger and smaller than the stride, transposed ones."""
    size = st.integers(1, largest)
    axes = []
    transposed = draw(st.booleans())
    for _ in range(2):
        taps, stride, gap = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
        padding, inputs = draw(st.integers(0, taps - 1)), draw(st.integers(1, largest + 3))
        if transposed:
            outputs = (inputs - 1) * stride - 2 * padding + gap * (taps - 1) + 1
        else:
            outputs = (inputs + 2 * padding - gap * (taps - 1) - 1) // stride + 1
        assume(0 < outputs <= largest + 3)
        axes.append((outputs, inputs, taps, stride, gap, (padding, padding)))
    (out_rows, out_columns), (in_rows, in_columns), taps, strides, gaps, paddings = zip(*axes, strict=True)
    nest = Nest(
        "layer", "aten.convolution", "conv", draw(size), draw(st.integers(1, 2)), draw(size), draw(size),
        out_rows, out_columns, *taps, strides, gaps, paddings, in_rows, in_columns, transposed,
    )  # fmt: skip
    assume(nest.input_numel > 0)
    return nest


WIDTHS = st.builds(
    lambda i, w, o, more: Widths(i, w, o, o + more), *[st.sampled_from([4, 8, 16])] * 3, st.sampled_from([0, 8, 16])
)


@st.composite
def tilings(draw: st.DrawFn) -> tuple[Nest, str, Tile]:
    nest = draw(nests(4))
    schedule = SCHEDULE[draw(st.sampled_from(list(SCHEDULE)))]
    extents = (nest.batch, nest.out_channels, nest.in_channels, nest.out_rows, nest.out_columns)
    sizes = [draw(st.integers(1, extent)) for extent in extents]
    if schedule.whole:
        sizes[2] = nest.in_channels
    return nest, schedule.name, Tile(*sizes)


@settings(max_examples=500, deadline=None)
@given(tilings(), WIDTHS)
def test_the_formulas_are_a_literal_walk(case: tuple[Nest, str, Tile], widths: Widths) -> None:
    nest, name, tile = case
    schedule = SCHEDULE[name]
    literal = walk_literally(nest, tile, name)
    words = schedule.words(walk(nest, tile))
    assert [nest.groups * count for count in words] == list(literal[:4])
    inputs, weights, outputs = literal[4:]
    sizes = (inputs * widths.input_bits, weights * widths.weight_bits, outputs * widths.partial_bits)
    assert footprint_bits(nest, tile, schedule, widths) == sum(sizes)
    twice = sum(size * (1 + streams) for size, streams in zip(sizes, schedule.streamed, strict=True))
    assert footprint_bits(nest, tile, schedule, widths, double_buffer=True) == twice


@st.composite
def pools(draw: st.DrawFn, nest: Nest) -> Pool:
    """A pooling over a nest's outputs: windows that overlap, touch or leave gaps, with padding."""
    axes = []
    for outputs in (nest.out_rows, nest.out_columns):
        taps, stride = draw(st.integers(1, min(3, outputs))), draw(st.integers(1, 3))
        before = draw(st.integers(0, taps // 2))
        axes.append(Window((outputs + 2 * before - taps) // stride + 1, outputs, taps, stride, 1, before))
    return axes[0], axes[1]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_pooled_nest_is_a_literal_walk_too(data: st.DataObject) -> None:
    nest = data.draw(nests(4))
    pool = data.draw(pools(nest))
    schedule = SCHEDULE[data.draw(st.sampled_from(list(SCHEDULE)))]
    extents = (nest.batch, nest.out_channels, nest.in_channels, pool[0].outputs, pool[1].outputs)
    sizes = [data.draw(st.integers(1, extent)) for extent in extents]
    tile = Tile(*sizes[:2], nest.in_channels if schedule.whole else sizes[2], *sizes[3:])
    literal = walk_literally(nest, tile, schedule.name, pool)
    words = schedule.words(walk(nest, tile, pool))
    assert [nest.groups * count for count in words] == list(literal[:4])
    assert footprint_bits(nest, tile, schedule, Widths.of(1), pool=pool) == sum(literal[4:])


def test_pooling_at_once_writes_pooled_outputs_only() -> None:
    """VGG's second convolution and its 2x2 pooling: a quarter of 64 x 224 x 224 outputs."""
    nest = vgg16()[1]
    pool = (Window(112, 224, 2, 2),) * 2
    plain, fused = least_traffic(nest), least_traffic(nest, pool=pool)
    assert plain.traffic_bytes[-1] - fused.traffic_bytes[-1] == 2 * 64 * (224**2 - 112**2)
    assert fused.at(65536).output_bytes == 2 * 64 * 112**2
    assert fused.smallest_buffer_bytes == 2 * (4 * 4 + 9 + 4)  # 2x2 outputs before pooling, their 4x4 window


def brute_force(nest: Nest, widths: Widths, double_buffer: bool) -> dict[int, int]:
    """The least traffic for each footprint that some tile of any size has, in bits, by the formulas proved above."""
    extents = (nest.batch, nest.out_channels, nest.in_channels, nest.out_rows, nest.out_columns)
    found: dict[int, int] = {}
    for schedule in SCHEDULE.values():
        for sizes in itertools.product(*(range(1, extent + 1) for extent in extents)):
            tile = Tile(*sizes)
            if schedule.whole and tile.in_channels != nest.in_channels:
                continue
            bits = footprint_bits(nest, tile, schedule, widths, double_buffer)
            i, w, o, p = schedule.words(walk(nest, tile))
            traffic = i * widths.input_bits + w * widths.weight_bits + o * widths.output_bits + p * widths.partial_bits
            found[bits] = min(found.get(bits, traffic * nest.groups), traffic * nest.groups)
    return found


@settings(max_examples=60, deadline=None)
@given(nests(3), WIDTHS, st.booleans())
def test_the_optimum_is_that_of_all_tiles_of_any_size(nest: Nest, widths: Widths, double_buffer: bool) -> None:
    curve = least_traffic(nest, widths, double_buffer)
    steps, best = [], None
    for bits, traffic in sorted(brute_force(nest, widths, double_buffer).items()):
        if best is None or traffic < best:
            best = traffic
            steps.append((bits, traffic))
    assert list(zip(curve.footprint_bits.tolist(), curve.traffic_bits.tolist(), strict=True)) == steps


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 11), st.integers(1, 12), WIDTHS, st.booleans())
def test_the_optimum_of_a_product_is_that_of_all_tiles(
    batch: int, out: int, summed: int, widths: Widths, double_buffer: bool
) -> None:
    """Larger channel counts than above: tiles with some of the input channels win here."""
    nest = Nest("layer", "aten.mm", "linear", batch, 1, out, summed)
    curve = least_traffic(nest, widths, double_buffer)
    every = brute_force(nest, widths, double_buffer)
    for bits, traffic in zip(curve.footprint_bits.tolist(), curve.traffic_bits.tolist(), strict=True):
        assert traffic == min(value for key, value in every.items() if key <= bits)
    assert len(curve) == len({min(v for k, v in every.items() if k <= bits) for bits in every})


@settings(max_examples=200, deadline=None)
@given(nests(8), WIDTHS, st.booleans())
def test_a_curve_falls_from_its_smallest_buffer_to_compulsory_traffic_and_stays_above_the_bound(
    nest: Nest, widths: Widths, double_buffer: bool
) -> None:
    curve = least_traffic(nest, widths, double_buffer)
    assert (np.diff(curve.footprint_bits) > 0).all()
    assert (np.diff(curve.traffic_bits) < 0).all()
    assert curve.traffic_bytes[-1] == compulsory_bytes(nest, widths)
    assert (curve.traffic_bytes >= bound_bytes(nest, curve.footprint_bytes, widths)).all()
    assert curve.dram_bytes(10**9) == compulsory_bytes(nest, widths)
    for buffer in (curve.smallest_buffer_bytes, curve.sufficient_buffer_bytes):
        tiling = curve.at(buffer)
        assert tiling.footprint_bytes <= buffer
        bits = footprint_bits(nest, tiling.tile, SCHEDULE[tiling.schedule], widths, double_buffer)
        assert tiling.footprint_bytes == -(-bits // 8)
        parts = tiling.input_bytes + tiling.weight_bytes + tiling.output_bytes + tiling.partial_bytes
        assert 0 <= parts - tiling.dram_bytes <= 3  # each rounded up to whole bytes


@settings(max_examples=60, deadline=None)
@given(nests(6), WIDTHS)
def test_double_buffering_and_wider_partial_sums_never_help(nest: Nest, widths: Widths) -> None:
    plain = least_traffic(nest, widths)
    for worse in (
        least_traffic(nest, widths, double_buffer=True),
        least_traffic(nest, replace(widths, partial_bits=2 * widths.partial_bits)),
    ):
        buffers = worse.footprint_bytes
        assert (worse.dram_bytes(buffers) >= plain.dram_bytes(buffers)).all()


@settings(max_examples=60, deadline=None)
@given(nests(5), WIDTHS)
def test_a_nest_turned_on_its_side_moves_as_much(nest: Nest, widths: Widths) -> None:
    """Rows for columns: windows slide along whichever way saves more."""
    turned = replace(
        nest, out_rows=nest.out_columns, out_columns=nest.out_rows, in_rows=nest.in_columns, in_columns=nest.in_rows,
        filter_rows=nest.filter_columns, filter_columns=nest.filter_rows, stride=nest.stride[::-1],
        dilation=nest.dilation[::-1], padding=nest.padding[::-1],
    )  # fmt: skip
    one, other = least_traffic(nest, widths), least_traffic(turned, widths)
    assert (one.footprint_bits == other.footprint_bits).all() and (one.traffic_bits == other.traffic_bits).all()


def test_a_convolution_over_one_dimension_keeps_its_halos() -> None:
    """64 to 64 channels, 9 taps, 4096 pixels, behind 84 KiB = 43,008 words: 36,864 weights stay, the window slides.

    What is left, 6,144 words, holds 64 x 9 inputs and an output; each input and output crosses once all the same:
    2 x (2 x 64 x 4096 + 36,864) bytes.
    """
    nest = Nest("", "", "conv", 1, 1, 64, 64, 1, 4096, 1, 9, padding=((0, 0), (4, 4)), in_rows=1, in_columns=4096)
    assert least_traffic(nest).dram_bytes(84 * 1024) == 2 * (2 * 64 * 4096 + 36_864) == compulsory_bytes(nest)


def test_inputs_that_stay_find_their_halos_too() -> None:
    """A column of 6 inputs under a window of 3, 4 outputs for each of 2 filters, 5 input channels, words of 8 bits.

    Inputs of a window (15), one filter's weights (15) and an output: 31 words. Tiles of one output: 4 x 30 weights,
    8 outputs, and each input once, 30 words, where windows that were read anew would be 4 x 15.
    """
    nest = Nest("", "", "conv", 1, 1, 2, 5, 4, 1, 3, 1, in_rows=6)
    schedule, tile = SCHEDULE["inputs-resident"], Tile(1, 1, 5, 1, 1)
    assert schedule.words(walk(nest, tile)) == (30, 120, 8, 0)
    assert footprint_bits(nest, tile, schedule, Widths.of(8)) == 8 * 31


def test_groups_are_nests_side_by_side() -> None:
    grouped = Nest("layer", "aten.convolution", "conv", 2, 3, 4, 5, 7, 7, 3, 3, (1, 1), (1, 1), ((1, 1),) * 2, 7, 7)
    one, all_three = least_traffic(grouped.of_group()), least_traffic(grouped)
    assert (all_three.traffic_bits == 3 * one.traffic_bits).all()
    assert (all_three.footprint_bits == one.footprint_bits).all()


def test_a_product_by_hand() -> None:
    """2 x 3 times 3 x 4 in words of 8 bits: 6 + 12 + 8 = 26 words if enough fits.

    Whole inputs (one row of 3 and a column of 3 weights and 1 output: 7 words) read the weights once a row:
    6 + 2 x 12 + 8 = 38. Whole rows of both (2 x 3 inputs, 3 weights, 2 outputs: 11 words) read each once. The least
    room, an input, a weight and a partial sum: output-stationary reads 4 x 6 inputs, 2 x 12 weights, writes 8: 56;
    input-stationary 6 inputs, 24 weights, 8 + 2 x 2 x 8 outputs: 70.
    """
    curve = least_traffic(Nest("fc", "aten.mm", "linear", 2, 1, 4, 3), Widths.of(8))
    assert curve.smallest_buffer_bytes == 3
    assert curve.at(3)[:2] == ("output-stationary", Tile(1, 1, 1, 1, 1))
    assert [int(curve.dram_bytes(size)) for size in (3, 7, 11, 1000)] == [56, 38, 26, 26]
    assert curve.at(11)[:2] == ("inputs-resident", Tile(2, 1, 3, 1, 1))


def vgg16(batch: int = 1) -> list[Nest]:
    """torchvision's VGG-16, its convolutions: channels in, channels out, size."""
    shapes = [(3, 64, 224), (64, 64, 224), (64, 128, 112), (128, 128, 112), (128, 256, 56), (256, 256, 56),
              (256, 256, 56), (256, 512, 28), (512, 512, 28), (512, 512, 28)] + [(512, 512, 14)] * 3  # fmt: skip
    return [
        Nest(f"features.{n}", "aten.convolution", "conv", batch, 1, out, of, size, size, 3, 3,
             padding=((1, 1), (1, 1)), in_rows=size, in_columns=size)
        for n, (of, out, size) in enumerate(shapes)
    ]  # fmt: skip


def alexnet_grouped(batch: int) -> list[Nest]:
    """AlexNet's convolutions of 2012: groups, channels in and out of a group, size in and out, window, stride."""
    shapes = [(1, 3, 96, 227, 55, 11, 4, 0), (2, 48, 128, 27, 27, 5, 1, 2), (1, 256, 384, 13, 13, 3, 1, 1),
              (2, 192, 192, 13, 13, 3, 1, 1), (2, 192, 128, 13, 13, 3, 1, 1)]  # fmt: skip
    return [
        Nest(f"conv{n}", "aten.convolution", "conv", batch, groups, out, of, size_out, size_out, taps, taps,
             (stride, stride), (1, 1), ((pad, pad),) * 2, size_in, size_in)
        for n, (groups, of, out, size_in, size_out, taps, stride, pad) in enumerate(shapes, start=1)
    ]  # fmt: skip


def megabytes(curves: list[Curve], kib: int) -> float:
    return sum(int(curve.dram_bytes(1024 * kib)) for curve in curves) / 1e6


def test_vgg16_moves_no_more_than_an_exhaustive_prototype_found() -> None:
    """Issue 4's anchors, 16-bit words, batch 1; and never less than the precise bound."""
    curves = [least_traffic(nest) for nest in vgg16()]
    for kib, most in {32: 208.5, 64: 156.1, 108: 121.4, 256: 96.3, 512: 82.8, 1024: 77.2}.items():
        bound = sum(bound_bytes(curve.nest, 1024 * kib) for curve in curves) / 1e6
        assert bound <= megabytes(curves, kib) <= most


def test_alexnet_of_2012_moves_no_more_than_an_exhaustive_prototype_found() -> None:
    """Issue 4's anchor: batch 4 behind Eyeriss' 108 KiB, 16-bit words, convolutions only."""
    assert megabytes([least_traffic(nest) for nest in alexnet_grouped(4)], 108) <= 17.7


def test_a_fully_connected_layer_at_small_batch_is_its_weights_once_at_any_buffer() -> None:
    """AlexNet's three: 9216 x 4096 + 4096 x 4096 + 4096 x 1000 weights are 117.2 MB in 16-bit words."""
    layers = [(9216, 4096), (4096, 4096), (4096, 1000)]
    curves = [least_traffic(Nest("fc", "aten.addmm", "linear", 1, 1, out, of)) for of, out in layers]
    weights = sum(2 * of * out for of, out in layers)
    assert weights == 117_243_904
    for kib in (16, 32, 1024, 65536):
        assert weights < 1e6 * megabytes(curves, kib) < 1.004 * weights


def test_a_buffer_that_holds_no_tile_is_refused_with_the_smallest_that_does() -> None:
    """A 3 x 3 window of one channel, its 9 weights and one partial sum are 19 words: 38 bytes."""
    curve = least_traffic(vgg16()[1])
    assert curve.smallest_buffer_bytes == 38
    with pytest.raises(InputError, match=r"'features.1': give it at least 38 bytes"):
        curve.at(37)
    with pytest.raises(InputError, match="holds no tile"):
        curve.dram_bytes(np.array([4096, 37]))
    assert curve.at(38).footprint_bytes == 38


@pytest.mark.parametrize("size", [0, -1, 2.5, True, "32768", None])
def test_a_buffer_that_is_no_size_is_refused(size: object) -> None:
    with pytest.raises(InputError, match="positive whole number of bytes"):
        least_traffic(vgg16()[0]).at(size)  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [0, -16, 12.5, True, "16"])
@pytest.mark.parametrize("field", ["input_bits", "weight_bits", "output_bits", "partial_bits"])
def test_a_width_that_is_none_is_refused(field: str, bits: object) -> None:
    with pytest.raises(InputError, match="positive whole number of bits"):
        Widths(**{field: bits})  # type: ignore[arg-type]


def test_partial_sums_are_no_narrower_than_outputs() -> None:
    with pytest.raises(InputError, match="8 bits are narrower than outputs of 16"):
        Widths.of(16, partial_bits=8)
    assert Widths.of(8) == Widths(8, 8, 8, 8)
    assert Widths.of(8, 32).partial_bits == 32
