"""Products of matrices: one, many at once, and by a vector."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping

import torch
from torch import nn

from costmodel.hardware.shapes.sampling import Call, Case, Limits, Sampler, sample_channels, sample_number, search


def _gemv(source: random.Random, limits: Limits) -> Case:
    def sample() -> tuple[int, int]:
        return sample_channels(source, 128, 16384), sample_channels(source, 128, 16384)

    inputs, outputs = search(sample, lambda drawn, limits: limits.hold(4 * drawn[0] * drawn[1]), limits)
    return Case(lambda: nn.Linear(inputs, outputs), ((1, inputs),))


def _gemm(source: random.Random, limits: Limits) -> Case:
    def sample() -> tuple[int, int, int]:
        return sample_number(source, 2, 2048), sample_channels(source, 64, 16384), sample_channels(source, 64, 16384)

    def fits(drawn: tuple[int, int, int], limits: Limits) -> bool:
        rows, inputs, outputs = drawn
        largest = 4 * max(rows * inputs, inputs * outputs, rows * outputs)
        return limits.hold(largest) and limits.least_flops <= 2 * math.prod(drawn) <= limits.flops

    rows, inputs, outputs = search(sample, fits, limits)
    return Case(lambda: nn.Linear(inputs, outputs), ((rows, inputs),))


def _gemm_batched(source: random.Random, limits: Limits) -> Case:
    def sample() -> tuple[int, int, int, int]:
        count, rows = sample_number(source, 4, 256), sample_number(source, 16, 512)
        return count, rows, sample_channels(source, 16, 512), sample_channels(source, 16, 512)

    def fits(drawn: tuple[int, int, int, int], limits: Limits) -> bool:
        return limits.least_flops <= 2 * math.prod(drawn) <= limits.most_flops

    count, rows, inner, columns = search(sample, fits, limits)
    return Case(lambda: Call(torch.bmm), ((count, rows, inner), (count, inner, columns)))


SAMPLERS: Mapping[str, Sampler] = {"gemv": _gemv, "gemm": _gemm, "gemm_batched": _gemm_batched}
