"""Nests on arrays of elements: cycles derived by hand, SCALE-Sim's own output, and Eyeriss as it was measured."""

from __future__ import annotations

import csv
from dataclasses import replace
from math import ceil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.chip.accelerator import accelerator
from costmodel.chip.mapping import DATAFLOWS, Array, Scratchpads, place, systolic_cycles
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
    out, weight = (place(nest, Array(f"{what}_stationary", 16, 24)) for what in ("output", "weight"))
    assert (out.cycles, weight.cycles) == (4 * 99, 3 * 118)
    assert (out.multiply_cycles, weight.multiply_cycles) == (4 * 45, 3 * 64)
    # words: inputs 64 x 45 once a column fold; outputs once, or read and written for all but the first of 3 row folds
    assert out[2:5] == (64 * 45, 7 * 45 * 4, 64 * 7)
    assert weight[2:5] == (64 * 45, 7 * 45, 64 * 7 * 5)


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
    assert place(nest, Array("weight_stationary", 16, 24)).cycles == weight_stationary + 1
    # Its output-stationary simulation leaves out the drain of each fold, `rows` cycles that its published formula has.
    folds = ceil(nest.out_rows * nest.out_columns / 16) * ceil(nest.out_channels / 24)
    assert place(nest, Array("output_stationary", 16, 24)).cycles == output_stationary + 1 + 16 * folds


@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 200), st.integers(1, 200), st.integers(1, 300),
)  # fmt: skip
def test_scale_sims_formula(rows: int, columns: int, down: int, across: int, steps: int) -> None:
    expected = (2 * rows + columns + steps - 2) * ceil(down / rows) * ceil(across / columns)
    assert systolic_cycles(rows, columns, down, across, steps) == expected
    assert place(fc(down, across, steps), Array("weight_stationary", rows, columns)).cycles == expected
    assert place(fc(steps, across, down), Array("output_stationary", rows, columns)).cycles == expected


def test_groups_run_one_after_another() -> None:
    nest = conv(12, 8, 3, 16)
    for flow in ("weight_stationary", "output_stationary", "channel_parallel"):
        one, four = (place(replace(nest, groups=groups), Array(flow, 8, 8)) for groups in (1, 4))
        assert four.cycles == 4 * one.cycles


def test_channel_parallel_by_hand() -> None:
    # 56x56 pixels, 3x3 window, 64 -> 128 channels on Atomic-C 64 x Atomic-K 32: 3136 x 9 x 1 x 4
    assert place(conv(58, 64, 3, 128), Array("channel_parallel", 64, 32)).cycles == 3136 * 9 * 4
    # an image's 3 channels lie beside the window's 7 columns: 21 of 64 lanes, 7 taps; 64 filters on 32 columns
    assert place(conv(229, 3, 7, 64, 2), Array("channel_parallel", 64, 32)).cycles == 112 * 112 * 7 * 2
    # on 8 lanes, 21 products take 3 steps
    assert place(conv(229, 3, 7, 64, 2), Array("channel_parallel", 8, 8)).cycles == 112 * 112 * 7 * 3 * 8


def test_ideal_wastes_nothing() -> None:
    nest = conv(12, 8, 3, 16)
    found = place(nest, Array("ideal", 10, 10))
    assert found.cycles == ceil(nest.macs / 100)
    assert found[2:5] == (nest.input_elements, nest.weight_elements, nest.output_elements)


@pytest.mark.parametrize("flow", [flow for flow in DATAFLOWS if flow != "row_stationary"])
def test_arrays_of_arrays(flow: str) -> None:
    rows, columns = np.array([4, 8, 16]), np.array([16, 8, 4])
    for nest in (conv(12, 8, 3, 16), fc(40, 30, 5)):
        together = place(nest, Array(flow, rows, columns))
        for index in range(3):
            alone = place(nest, Array(flow, int(rows[index]), int(columns[index])))
            for name in ("cycles", "multiply_cycles", "input_words", "weight_words", "partial_sum_words"):
                values = np.broadcast_to(getattr(together, name), (3,))
                assert values[index] == getattr(alone, name), name


nests = st.builds(
    conv, st.integers(7, 20), st.integers(1, 40), st.integers(1, 7), st.integers(1, 40), st.integers(1, 3),
    batch=st.integers(1, 3), groups=st.sampled_from([1, 2, 5]),
)  # fmt: skip


@given(nests, st.sampled_from(DATAFLOWS), st.integers(2, 20), st.integers(2, 20))
def test_no_array_does_more_than_its_elements_can(nest: Nest, flow: str, rows: int, columns: int) -> None:
    found = place(nest, Array(flow, rows, columns, PADS if flow == "row_stationary" else None))
    assert found.cycles >= found.multiply_cycles
    assert 0 < found.active(nest) <= rows * columns
    assert found.weight_words >= nest.weight_elements and found.partial_sum_words >= nest.output_elements


def published() -> list[dict[str, str]]:
    path = Path(__file__).with_name("data") / "eyeriss_alexnet.csv"
    return list(csv.DictReader(line for line in path.open() if not line.startswith("#")))


@pytest.mark.parametrize(("nest", "row"), list(zip(alexnet(), published(), strict=True)))
def test_eyeriss_as_it_was_measured(nest: Nest, row: dict[str, str]) -> None:
    eyeriss = accelerator("eyeriss")
    found = place(nest, eyeriss.array)
    assert nest.macs == pytest.approx(float(row["giga_macs"]) * 1e9, rel=2e-4)  # printed in five digits
    assert found.active(nest) == pytest.approx(float(row["active_pes"]), rel=0.05)
    assert found.cycles / eyeriss.clock_hertz == pytest.approx(float(row["processing_milliseconds"]) / 1e3, rel=0.15)


def test_eyeriss_by_hand() -> None:
    # conv3, batch 4: 12 x 14 elements hold 4 sets of 3 x 13. With r = 2, t = 2, p = 18, q = 4, n = 4:
    # multiply 4 x 13 x ceil(384 / 2) x 3 x ceil(256 / 2) = 3,833,856, a neighbour's sum 4 x 13 x 192 x ceil(256 / 8)
    # more, and 884,736 weights, once for all images, 4 a cycle
    found = place(alexnet()[2], accelerator("eyeriss").array)
    assert found.multiply_cycles == 4 * 13 * 192 * 3 * 128
    assert found.cycles == found.multiply_cycles + 4 * 13 * 192 * 32 + 884_736 // 4
    assert found.active(alexnet()[2]) == 156


def test_row_stationary_replicates_depthwise_groups() -> None:
    nest = conv(14, 1, 3, 1, groups=64)
    found = place(nest, Array("row_stationary", 12, 12, PADS))
    assert found.active(nest) > 100  # 4 sets of 3 x 12, side by side


def test_what_cannot_be_placed() -> None:
    with pytest.raises(InputError, match="Did you mean weight_stationary"):
        place(fc(4, 4), Array("weight_stationry", 4, 4))
    with pytest.raises(InputError, match="needs scratchpads"):
        place(fc(4, 4), Array("row_stationary", 4, 4))
    with pytest.raises(InputError, match="20 words is too small for any row-stationary pass of layer 'layer'"):
        place(conv(227, 3, 11, 96, 4), Array("row_stationary", 12, 14, PADS, 20))
