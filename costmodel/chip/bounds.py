"""What no schedule can beat: lower bounds on the traffic of a loop nest behind a buffer, and a practical target.

Every word that is used comes in once and every output goes out once (compulsory traffic). Behind a buffer of S words
a nest of G multiply-accumulates moves at least

    max(|I| + |W| + |O|,  9 G / (4 S) - S,  2 G / sqrt(rho S) - 2 S)    words,    rho = max(1, R S_f / stride^2)

where rho is how often a window meets an input word. In bits, with words of pI, pW and pO bits and pT = pI + pW + pO:

    max(pI |I| + pW |W| + pO |O|,  cP G / S - S,  2 G sqrt(pI pW pO / (rho S)) - 2 S)
    cP = pT^2 / 4 if no width exceeds the sum of the other two, else the widest times that sum

Source: Chen, Demmel, Dinh, Haberle and Holtz, "Communication bounds for convolutional neural networks", PASC 2022,
arXiv:2204.08279, theorem 2.1: the red-blue pebble game of Hong and Kung, STOC 1981, without hidden constants. It asks
for windows no smaller than the stride. Where they are smaller, some input words are never used and the others meet one
tap: rho is the product over both dimensions of max(1, taps / stride), and a dilation with a common divisor g with the
stride leaves g taps / stride. Groups share nothing, so that S words serve one of them at a time: G counts all groups.
A wider partial sum only adds traffic, so the bound stands with the width of the outputs.

The theorem looks away from borders: G counts taps on padding, as MACs do. A window that hangs over the border by more
than half, and a transposed one, meet so few words that this would be wrong: there G counts the taps that meet a word.

The practical target of Chen, Han and Wang, "Communication lower bound in convolution accelerators", HPCA 2020, is
2 G / sqrt(rho S) + |O|: the whole buffer holds partial sums, no halo is read twice. It is no bound: a schedule that
keeps weights or inputs on the chip can be below it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from costmodel.chip.nests import Nest
from costmodel.chip.widths import Widths
from costmodel.chip.windows import meetings


def reuse(nest: Nest) -> float:
    """rho: how many taps of the window meet an input word, on average over the words that are used."""
    dimensions = zip((nest.filter_rows, nest.filter_columns), nest.stride, nest.dilation, strict=True)
    return math.prod(max(1.0, taps * math.gcd(stride, gap) / stride) for taps, stride, gap in dimensions)


def compulsory_bytes(nest: Nest, widths: Widths | None = None) -> int:
    """Each touched input, weight and output once."""
    return -(-_compulsory_bits(nest, widths or Widths()) // 8)


def bound_bytes(nest: Nest, buffer_bytes: Any, widths: Widths | None = None) -> Any:
    """What any schedule moves at least behind a buffer, in whole bytes; an array for an array of buffers."""
    widths = widths or Widths()
    i, w, o = widths.input_bits, widths.weight_bits, widths.output_bits
    widest = max(i, w, o)
    others = i + w + o - widest
    factor = (i + w + o) ** 2 / 4 if widest <= others else widest * others
    macs = _macs(nest)
    size = 8 * np.asarray(buffer_bytes, dtype=float)
    pebbles = np.maximum(
        factor * macs / size - size,
        2 * macs * np.sqrt(i * w * o / (reuse(nest) * size)) - 2 * size,
    )
    # Rounded down: a float a hair above the truth is not a bound.
    bits = np.maximum(_compulsory_bits(nest, widths), np.floor(pebbles * (1 - 1e-12)))
    result = np.ceil(bits / 8).astype(np.int64)
    return result if result.ndim else int(result)


def practical_target_bytes(nest: Nest, buffer_bytes: Any, widths: Widths | None = None) -> Any:
    """HPCA 2020's 2 G / sqrt(rho S) + |O|, S the partial sums that fill the buffer; no bound."""
    widths = widths or Widths()
    size = 8 * np.asarray(buffer_bytes, dtype=float) / widths.partial_bits
    streamed = math.sqrt(widths.input_bits * widths.weight_bits) * 2 * nest.macs / np.sqrt(reuse(nest) * size)
    result = np.ceil((streamed + widths.output_bits * nest.output_elements) / 8).astype(np.int64)
    return result if result.ndim else int(result)


def _macs(nest: Nest) -> int:
    """G: the MACs; only those that meet an input word where a border takes many away."""
    sides = zip(nest.padding, (nest.filter_rows, nest.filter_columns), nest.dilation, strict=True)
    if not nest.transposed and all(2 * max(padding) <= (taps - 1) * gap for padding, taps, gap in sides):
        return nest.macs
    taps = meetings(nest.rows) * meetings(nest.columns)
    return nest.batch * nest.groups * nest.out_channels * nest.in_channels * taps


def _compulsory_bits(nest: Nest, widths: Widths) -> int:
    return (
        widths.input_bits * nest.input_elements
        + widths.weight_bits * nest.weight_elements
        + widths.output_bits * nest.output_elements
    )
