"""Published timings beside our bounds."""

from __future__ import annotations

import pytest
from torch import nn

import costmodel as cm
from costmodel.validation.published_times import BAND, published_times
from costmodel.validation.reasons import padding_factor, winograd_factor


@pytest.fixture(scope="module")
def rows():
    return published_times()


def one(rows, model, gpu, library, phase="forward", dtype="float32"):
    (found,) = (
        row
        for row in rows
        if (row.model, row.gpu, row.library, row.phase, row.dtype) == (model, gpu, library, phase, dtype)
    )
    return found


def test_every_time_is_inside_the_band_or_explained(rows) -> None:
    assert len(rows) == 2 * 37, "37 lines of the file, forward and backward"
    assert all(row.ok for row in rows)
    assert all(bool(row.explanation) != row.inside for row in rows)
    assert all(row.executed_bound_seconds < row.published_seconds for row in rows), "no algorithm beats its roof"
    assert 20 < sum(row.inside for row in rows) < 60


def test_vgg16_by_hand(rows) -> None:
    """16 images of 15.47 GMACs at 6.605 TFLOP/s take 74.9 ms; what the activations and weights move comes on top."""
    row = one(rows, "torchvision:vgg16", "GeForce GTX Titan X (Maxwell)", "cuDNN 5.1.05")
    products = 16 * 2 * 15.470264e9 / 6.605e12
    assert products < row.bound_seconds < 1.15 * products
    assert row.published_seconds == 0.062298
    assert not row.inside and row.attained > 1 and "Winograd" in row.explanation


def test_without_a_tuned_library(rows) -> None:
    row = one(rows, "torchvision:vgg16", "Titan X (Pascal)", "cuDNN none")
    assert row.attained < BAND[0] and "im2col" in row.explanation


def test_which_alexnet_it_was(rows) -> None:
    """jcjohnson ran BVLC's grouped one, soumith torchvision's."""
    models = {row.source.partition("/")[0]: row.model for row in rows if "alexnet" in row.model}
    assert models == {"jcjohnson": "alexnet-grouped", "soumith": "torchvision:alexnet"}


def test_16_bit_storage_halves_the_traffic_and_not_the_arithmetic(rows) -> None:
    """Maxwell computes float16 in float32."""
    where = ("torchvision:vgg11", "GeForce GTX Titan X (Maxwell)")
    half = one(rows, *where, "CuDNN R4-fp16", dtype="float16").bound_seconds
    single = one(rows, *where, "CuDNN R4-fp32").bound_seconds
    assert 0.9 * single < half < single


@pytest.mark.parametrize(
    ("convolution", "factor"),
    [
        (nn.Conv2d(2, 2, 3, padding=1), 36 * 4 / 36),  # 4x4 outputs of 3x3 products by 6x6
        (nn.Conv2d(2, 2, 5), 25 * 25 / 81),
        (nn.Conv2d(2, 2, 3, stride=2), 1),
        (nn.Conv2d(2, 2, 3, dilation=2), 1),
        (nn.Conv2d(2, 2, 1), 1),
        (nn.Conv2d(2, 2, 11), 1),
    ],
)
def test_winograd_by_filter(convolution, factor) -> None:
    trace = cm.trace(convolution, (1, 2, 16, 16), train=True, loss="sum")
    operations = [operation for operation in trace.operations if "convolution" in operation.operator]
    assert [winograd_factor(operation) for operation in operations] == [factor] * 2
    assert all(winograd_factor(operation) == 1 for operation in trace.operations if operation not in operations)


@pytest.mark.parametrize(
    ("convolution", "size", "share"),
    [
        (nn.Conv2d(2, 2, 3, padding=1), 7, (19 / 21) ** 2),  # of 7 x 3 products in a row one at each end is by padding
        (nn.Conv2d(2, 2, 3, padding=1, stride=2), 8, (11 / 12) ** 2),  # outputs at -1, 1, 3, 5: one product of 12
        (nn.Conv2d(2, 2, 3, padding=2, dilation=2), 8, (20 / 24) ** 2),  # two at each end
        (nn.Conv2d(2, 2, 3), 8, 1),
        (nn.Conv1d(2, 2, 5, padding=2), 6, 24 / 30),  # 2 + 1 at each end
    ],
)
def test_products_with_padding(convolution, size, share) -> None:
    shape = (1, 2, *[size] * (convolution.weight.dim() - 2))
    trace = cm.trace(convolution, shape, train=True, loss="sum")
    operations = [operation for operation in trace.operations if "convolution" in operation.operator]
    assert [1 / padding_factor(operation) for operation in operations] == pytest.approx([share] * 2)
    assert all(padding_factor(operation) == 1 for operation in trace.operations if operation not in operations)
