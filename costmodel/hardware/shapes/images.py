"""Everything else, on feature maps: normalisation, pooling, what works on each element, copies, optimizers, views."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from costmodel.hardware.shapes.sampling import (
    Call,
    Case,
    Limits,
    Sampler,
    Shape,
    sample_channels,
    sample_number,
    search,
)


def _image(source: random.Random, limits: Limits, most: float = 1.0) -> Shape:
    """Feature maps; the largest have `most` of the bytes that a tensor may have."""

    def sample() -> Shape:
        size = sample_number(source, 7, 224)
        return sample_number(source, 1, 2 * limits.most_batch), sample_channels(source, 16, 1024), size, size

    def fits(shape: Shape, limits: Limits) -> bool:
        nbytes = 4 * math.prod(shape)
        return nbytes >= 16384 and limits.hold(nbytes / most)

    return search(sample, fits, limits)


def _norm(source: random.Random, limits: Limits) -> Case:
    shape = _image(source, limits)
    if source.random() < 0.3:
        width = sample_channels(source, 64, 2048)
        rows = max(8, math.prod(shape) // width)
        return Case(lambda: nn.LayerNorm(width), ((rows, width),))
    return Case(lambda: nn.BatchNorm2d(shape[1]).eval(), (shape,))


def _norm_backward(source: random.Random, limits: Limits) -> Case:
    shape = _image(source, limits, 0.5)
    channels = shape[1]

    def backward(gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, mean: torch.Tensor) -> Any:
        return torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, weight, mean, weight, True, 1e-5, [True] * 3
        )

    return Case(lambda: Call(backward), (shape, shape, (channels,), (channels,)))


_WINDOWS = ((3, 2, 1), (3, 2, 0), (2, 2, 0), (3, 1, 1))
"""Window, stride and padding that poolings have."""


def _pool_max(source: random.Random, limits: Limits) -> Case:
    window, stride, padding = source.choice(_WINDOWS)
    return Case(lambda: nn.MaxPool2d(window, stride, padding), (_image(source, limits),), rectified=True)


def _pool_max_backward(source: random.Random, limits: Limits) -> Case:
    window, stride, padding = source.choice(_WINDOWS)
    batch, channels, size, _ = _image(source, limits, 0.4)
    out = (size + 2 * padding - window) // stride + 1

    def backward(gradient: torch.Tensor, x: torch.Tensor, places: torch.Tensor) -> Any:
        return torch.ops.aten.max_pool2d_with_indices_backward(
            gradient, x, [window] * 2, [stride] * 2, [padding] * 2, [1, 1], False, places
        )

    def make() -> nn.Module:
        return Call(backward, torch.randint(size * size, (batch, channels, out, out)))

    return Case(make, ((batch, channels, out, out), (batch, channels, size, size)))


def _pool_mean(source: random.Random, limits: Limits) -> Case:
    shape = _image(source, limits)
    if source.random() < 0.6:
        size = source.choice((1, 1, 6, 7))
        return Case(lambda: nn.AdaptiveAvgPool2d(min(size, shape[-1])), (shape,))
    return Case(lambda: nn.AvgPool2d(2, 2), (shape,))


def _pool_mean_backward(source: random.Random, limits: Limits) -> Case:
    batch, channels, size, _ = _image(source, limits, 0.4)
    out = min(size, source.choice((1, 6, 7)))

    def backward(gradient: torch.Tensor, x: torch.Tensor) -> Any:
        return torch.ops.aten._adaptive_avg_pool2d_backward(gradient, x)

    return Case(lambda: Call(backward), ((batch, channels, out, out), (batch, channels, size, size)))


def _softmax(source: random.Random, limits: Limits) -> Case:
    rows, width = sample_number(source, 8, 16384), sample_number(source, 16, 2048)
    rows = max(1, min(rows, int(limits.most_bytes / 4 / width)))
    return Case(lambda: nn.Softmax(-1), ((rows, width),))


def _elementwise(source: random.Random, limits: Limits) -> Case:
    shape = _image(source, limits)
    if source.random() < 0.5:
        return Case(lambda: Call(torch.add), (shape, shape))
    return Case(nn.ReLU, (shape,))


def _elementwise_in_place(source: random.Random, limits: Limits) -> Case:
    shape = _image(source, limits)
    if source.random() < 0.3:
        return Case(lambda: Call(torch.Tensor.add_), (shape, shape))
    kind = source.choice((nn.ReLU, nn.ReLU6))
    return Case(lambda: kind(inplace=True), (shape,))


def _function(source: random.Random, limits: Limits) -> Case:
    kind = source.choice((nn.Sigmoid, nn.SiLU, nn.GELU, nn.Tanh))
    return Case(kind, (_image(source, limits),))


def _reduction(source: random.Random, limits: Limits) -> Case:
    return Case(lambda: Call(lambda x: x.mean((2, 3))), (_image(source, limits),))


def _copy(source: random.Random, limits: Limits) -> Case:
    shape = _image(source, limits, 0.5)
    if source.random() < 0.7:
        return Case(lambda: Call(lambda *parts: torch.cat(parts, 1)), (shape, shape))
    return Case(lambda: Call(torch.clone), (shape,))


def _optimizer(source: random.Random, limits: Limits) -> Case:
    count = sample_number(source, 2, 32)
    most = min(limits.most_bytes / 4, 2**28) / count
    shapes = tuple((sample_number(source, 64, most),) for _ in range(count))

    def step(*tensors: torch.Tensor) -> Any:
        half = len(tensors) // 2
        return torch._foreach_add_(list(tensors[:half]), list(tensors[half:]), alpha=-1e-3)

    return Case(lambda: Call(step), shapes + shapes)


def _view(source: random.Random, limits: Limits) -> Case:
    return Case(nn.Flatten, (_image(source, limits, 0.1),))


SAMPLERS: Mapping[str, Sampler] = {
    "norm": _norm,
    "norm_backward": _norm_backward,
    "pool_max": _pool_max,
    "pool_max_backward": _pool_max_backward,
    "pool_mean": _pool_mean,
    "pool_mean_backward": _pool_mean_backward,
    "softmax": _softmax,
    "elementwise": _elementwise,
    "elementwise_in_place": _elementwise_in_place,
    "function": _function,
    "reduction": _reduction,
    "copy": _copy,
    "optimizer": _optimizer,
    "view": _view,
}
