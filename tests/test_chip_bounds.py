"""Lower bounds by hand, and that they hold for whatever the search finds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from costmodel.chip.bounds import bound_bytes, compulsory_bytes, work
from costmodel.chip.nests import Nest
from costmodel.chip.tiling import least_traffic
from costmodel.chip.widths import Widths

CONV = Nest("layer", "aten.convolution", "conv", 1, 1, 64, 64, 224, 224, 3, 3,
            padding=((1, 1), (1, 1)), in_rows=224, in_columns=224)  # fmt: skip
"""VGG's second convolution: G = 64 x 64 x 9 x 224^2 = 1 849 688 064 MACs."""


def test_the_three_bounds_by_hand() -> None:
    """Words of 16 bits behind 32 KiB: S = 16 384 words.

    compulsory: 2 x 64 x 224^2 + 64 x 64 x 9 = 6 459 392 words
    9 G / (4 S) - S = 254 016 - 16 384 = 237 632
    2 G / sqrt(9 S) - 2 S = 3 699 376 128 / 384 - 32 768 = 9 601 024
    """
    assert CONV.macs == 1_849_688_064
    assert compulsory_bytes(CONV) == 2 * 6_459_392
    assert bound_bytes(CONV, 32 * 1024) == 2 * 9_601_024
    # 256 KiB: 2 G / sqrt(9 x 131 072) - 262 144 = 3 143 927: compulsory traffic is more.
    assert bound_bytes(CONV, 256 * 1024) == 2 * 6_459_392
    # A buffer of 32 words: 9 G / 128 - 32 = 130 056 160 beats 2 G / sqrt(9 x 32) - 64 = 217 987 827? It does not.
    assert bound_bytes(CONV, 64) == 2 * (math.ceil(2 * CONV.macs / math.sqrt(9 * 32)) - 64)


def test_a_buffer_of_few_words_is_bound_by_the_products_themselves() -> None:
    """rho = 49 and S = 16: 9 G / 64 - 16 = 0.1406 G, 2 G / sqrt(784) - 32 = 0.0714 G."""
    nest = Nest("layer", "aten.convolution", "conv", 1, 1, 8, 8, 56, 56, 7, 7,
                padding=((3, 3), (3, 3)), in_rows=56, in_columns=56)  # fmt: skip
    assert nest.macs == 64 * 49 * 56 * 56
    assert bound_bytes(nest, 32) == 2 * (9 * nest.macs // 64 - 16)


def test_an_array_of_buffers_gives_an_array() -> None:
    buffers = np.array([32, 64, 256]) * 1024
    assert bound_bytes(CONV, buffers).tolist() == [bound_bytes(CONV, int(buffer)) for buffer in buffers]


@pytest.mark.parametrize(
    ("taps", "stride", "gap", "rho"),
    [
        ((3, 3), (1, 1), (1, 1), 9.0),  # every word meets the whole window
        ((11, 11), (4, 4), (1, 1), 121 / 16),  # AlexNet's first: the paper's R S_f / stride^2
        ((1, 1), (2, 2), (1, 1), 1.0),  # three words of four are never used, the others meet one tap
        ((1, 9), (2, 1), (1, 1), 9.0),  # rows are skipped, columns are not: not 9 / 2
        ((3, 3), (2, 2), (2, 2), 9.0),  # even rows only, and each of them meets every tap
        ((4, 4), (2, 2), (1, 1), 4.0),
    ],
)
def test_how_often_a_window_meets_a_word(
    taps: tuple[int, int], stride: tuple[int, int], gap: tuple[int, int], rho: float
) -> None:
    """Without padding G is all MACs, and what is shared is G / sqrt(rho)."""
    rows, columns = (7 * s + d * (t - 1) + 1 for t, s, d in zip(taps, stride, gap, strict=True))
    nest = Nest("", "", "conv", 2, 3, 4, 5, 8, 8, *taps, stride, gap, in_rows=rows, in_columns=columns)
    macs, shared = work(nest)
    assert macs == nest.macs
    assert shared == pytest.approx(macs / math.sqrt(rho), rel=1e-12)


def test_words_of_several_widths() -> None:
    """A product of 64 x 64 matrices, inputs and weights of 8 bits, outputs of 32, behind 64 bytes = 512 bits.

    One width exceeds the other two together, so cP = 32 x 16 = 512: 512 x 64^3 / 512 - 512 = 261 632 bits;
    2 x 64^3 x sqrt(8 x 8 x 32 / 512) - 1024 = 2 x 64^3 x 2 - 1024 = 1 047 552 bits = 130 944 bytes.
    """
    nest = Nest("", "aten.mm", "linear", 64, 1, 64, 64)
    widths = Widths(8, 8, 32, 32)
    assert bound_bytes(nest, 64, widths) == 130_944
    assert compulsory_bytes(nest, widths) == 64 * 64 * (1 + 1 + 4)


def test_taps_on_padding_do_not_count_where_most_of_the_window_is_padding() -> None:
    """One pixel under a 3x3 window with padding 2: 9 outputs of 9 taps, of which one meets the pixel: 9 of 81 MACs.

    100 images, 100 to 100 channels, 100 words: a word meets up to 9 taps: 2 x 9 x 100^3 / sqrt(9 x 100) - 200 =
    599 800 words. The published form, 2 x 81 x 100^3 / sqrt(9 x 100) - 200 = 5 399 800, is beaten by a schedule.
    """
    nest = Nest("", "", "conv", 100, 1, 100, 100, 3, 3, 3, 3, padding=((2, 2), (2, 2)))
    assert nest.macs == 81 * 100**3
    assert bound_bytes(nest, 200) == 2 * 599_800
    assert 2 * 599_800 < least_traffic(nest).dram_bytes(200) < 2 * 5_399_800


def test_a_window_that_the_stride_does_not_divide() -> None:
    """3 taps, stride 2, a row of 9 for 4 outputs of 1 x 3: taps 0 and 2 share words, tap 1 does not.

    4 outputs a tap: 4 / sqrt 2 + 4 / 1 + 4 / sqrt 2; the published form takes the average, 12 / sqrt 1.5.
    9 rows are no less than 2 x 4, so the published form stands; transposed, the taps are followed.
    """
    nest = Nest("", "", "conv", 1, 1, 1, 1, 1, 4, 1, 3, (1, 2), in_rows=1, in_columns=9)
    assert work(nest) == (12, pytest.approx(12 / math.sqrt(1.5)))
    back = Nest("", "", "conv", 1, 1, 1, 1, 1, 9, 1, 3, (1, 2), in_rows=1, in_columns=4, transposed=True)
    assert work(back) == (12, pytest.approx(8 / math.sqrt(2) + 4))
