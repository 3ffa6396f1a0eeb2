"""Convolutions by their filters, and the operators that autograd calls for them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

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


class _Conv(NamedTuple):
    batch: int
    channels: int
    filters: int
    size: int
    window: int
    stride: int
    groups: int

    @property
    def out_size(self) -> int:
        return (self.size - 1) // self.stride + 1

    @property
    def pixels(self) -> int:
        return self.batch * self.out_size**2

    @property
    def flops(self) -> int:
        return 2 * self.pixels * self.filters * (self.channels // self.groups) * self.window**2

    @property
    def largest_bytes(self) -> int:
        return 4 * self.batch * max(self.channels * self.size**2, self.filters * self.out_size**2)

    def module(self) -> nn.Module:
        padding, bias = self.window // 2, self.filters % 3 != 0
        return nn.Conv2d(self.channels, self.filters, self.window, self.stride, padding, groups=self.groups, bias=bias)

    def gradients(self) -> tuple[Callable[[], nn.Module], tuple[Shape, ...]]:
        """The operator that autograd calls for it, and the shapes of gradient, input and weight."""
        padding = self.window // 2

        def backward(gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> Any:
            return torch.ops.aten.convolution_backward(
                gradient, x, weight, [self.filters], [self.stride] * 2, [padding] * 2, [1, 1], False, [0, 0],
                self.groups, [self.channels > 3, True, True],
            )  # fmt: skip

        shapes = (
            (self.batch, self.filters, self.out_size, self.out_size),
            (self.batch, self.channels, self.size, self.size),
            (self.filters, self.channels // self.groups, self.window, self.window),
        )
        return lambda: Call(backward), shapes


_WINDOWS_OF = {"1x1": (1,), "3x3": (3,), "large": (5, 5, 7), "stem": (3, 3, 5, 7, 11), "depthwise": (3, 3, 5)}
_STRIDES_OF = {"stem": (1, 2, 2, 4), "large": (1, 1, 2)}


def _conv(source: random.Random, limits: Limits, kind: str) -> _Conv:
    """A convolution of a class, of any size."""
    channels, groups = sample_channels(source, 16, 1024), 1
    filters = sample_channels(source, max(16, channels / 4), min(1024, channels * 4))
    if kind == "stem":
        channels, filters = source.choice((1, 3, 3, 4)), sample_channels(source, 16, 128)
    elif kind == "depthwise":
        filters = groups = channels
    elif kind == "grouped":
        groups = source.choice((2, 4, 8))
        channels, filters = max(channels // groups, 2) * groups, max(filters // groups, 1) * groups
    window, stride = source.choice(_WINDOWS_OF.get(kind, (3,))), source.choice(_STRIDES_OF.get(kind, (1, 1, 1, 2)))
    batch, size = sample_number(source, 1, limits.most_batch), sample_number(source, 7, 224)
    return _Conv(batch, channels, filters, size, window, stride, groups)


def _fitting_conv(source: random.Random, limits: Limits, kind: str) -> _Conv:
    least_flops = limits.least_flops * (0.2 if kind == "depthwise" else 1.0)

    def fits(conv: _Conv, limits: Limits) -> bool:
        return limits.hold(conv.largest_bytes) and least_flops <= conv.flops <= limits.flops

    return search(lambda: _conv(source, limits, kind), fits, limits)


def _forward(kind: str) -> Sampler:
    def case(source: random.Random, limits: Limits) -> Case:
        conv = _fitting_conv(source, limits, kind)
        return Case(conv.module, ((conv.batch, conv.channels, conv.size, conv.size),))

    return case


def _gradients(kind: str) -> Sampler:
    def case(source: random.Random, limits: Limits) -> Case:
        conv = _fitting_conv(source, limits._replace(most_flops=limits.most_flops / 2), kind)
        make, shapes = conv.gradients()
        return Case(make, shapes)

    return case


_KINDS = ("1x1", "3x3", "large", "stem", "depthwise", "grouped")

SAMPLERS: Mapping[str, Sampler] = {
    **{f"conv_{kind}": _forward(kind) for kind in _KINDS},
    **{f"conv_backward_{kind}": _gradients(kind) for kind in _KINDS},
}
