"""What no schedule can beat: lower bounds on the traffic of a loop nest behind a buffer.

They are of one nest by itself, its inputs and weights in DRAM before and its outputs there after it.

Every word that is used comes in once and every output goes out once (compulsory traffic). Behind a buffer of S words
a nest of G multiply-accumulates moves at least

    max(|I| + |W| + |O|,  9 G / (4 S) - S,  2 G / sqrt(rho S) - 2 S)    words,    rho = max(1, R S_f / stride^2)

where rho is how often a window meets an input word. In bits, with words of pI, pW and pO bits and pT = pI + pW + pO:

    max(pI |I| + pW |W| + pO |O|,  cP G / S - S,  2 G sqrt(pI pW pO / (rho S)) - 2 S)
    cP = pT^2 / 4 if no width exceeds the sum of the other two, else the widest times that sum

Source: Chen, Demmel, Dinh, Haberle and Holtz, "Communication bounds for convolutional neural networks", PASC 2022,
arXiv:2204.08279, theorem 2.1: the red-blue pebble game of Hong and Kung, STOC 1981, without hidden constants. Groups
share nothing, so S words serve one of them at a time: G counts all groups. A wider partial sum only adds traffic, so
the bound stands with the width of the outputs.

The theorem looks away from borders: G counts taps on padding, as MACs do, and it asks for windows no smaller than the
stride. A schedule that left those taps out could pass under it by their share at most (VGG's last layers: 9 %); ours
multiply them. Where borders or strides leave less than stride^2 input words an output pixel (a window on a map of one
pixel, 1x1 with stride 2, transposed convolutions), its proof is followed tap by tap instead. Of the taps with one
remainder r dilation mod stride, m meet a stored row over all outputs and a word meets at most n of them:

    G / sqrt(rho) = N K C x (sum over rows' taps of m / sqrt n) x (the same of columns),    G = N K C x (sum of m) x ...

which is the published form again where there is no border and the stride divides the window.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from costmodel.chip.nests import Nest
from costmodel.chip.widths import Widths
from costmodel.chip.windows import Integers, Window, met, touched


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
    macs, shared = work(nest)
    size = 8 * np.asarray(buffer_bytes, dtype=float)
    pebbles = np.maximum(
        factor * macs / size - size,
        2 * shared * np.sqrt(i * w * o / size) - 2 * size,
    )
    # Rounded down: a float a hair above the truth is not a bound.
    bits = np.maximum(_compulsory_bits(nest, widths), np.floor(pebbles * (1 - 1e-12)))
    result = np.ceil(bits / 8).astype(np.int64)
    return result if result.ndim else int(result)


def work(nest: Nest) -> tuple[int, float]:
    """G, and G / sqrt(rho): multiplications, and what is left of them when each input word serves a whole window."""
    dimensions = (nest.rows, nest.columns)
    if not nest.transposed and all(touched(each) >= each.stride * each.outputs for each in dimensions):
        rho = math.prod(each.taps * math.gcd(each.stride, each.dilation) / each.stride for each in dimensions)
        return nest.macs, nest.macs / math.sqrt(rho)
    products = nest.batch * nest.groups * nest.out_channels * nest.in_channels
    every = [met(each) for each in dimensions]
    return (
        products * math.prod(int(counts.sum()) for counts in every),
        products * math.prod(_shared(each, counts) for each, counts in zip(dimensions, every, strict=True)),
    )


def _shared(window: Window, counts: Integers) -> float:
    """The sum over the taps of m / sqrt n."""
    remainders = np.arange(window.taps) * window.dilation % window.stride
    alike = np.bincount(remainders, minlength=window.stride)[remainders]
    return float((counts / np.sqrt(alike)).sum())


def _compulsory_bits(nest: Nest, widths: Widths) -> int:
    return (
        widths.input_bits * nest.input_numel
        + widths.weight_bits * nest.weight_numel
        + widths.output_bits * nest.output_numel
    )
