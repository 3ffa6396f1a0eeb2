"""The operations that a calibration runs: drawn at random, class by class, none taken from a network.

A `Case` is a module and the shapes of its inputs. Sizes are drawn evenly on a logarithmic scale between limits that
suit the device, with the same seed each time. What a case demands is not stated here: it is traced and counted as any
network is, so that calibration and prediction cannot differ in how they count.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  (its usual name)

from costmodel.errors import InputError

Drawn = TypeVar("Drawn")
Shape = tuple[int, ...]
Draw = Callable[[random.Random, "Limits"], "Case"]


class Limits(NamedTuple):
    """How large operations may be."""

    least_flops: float
    most_flops: float
    most_bytes: float
    """Of one tensor."""

    most_batch: int = 16

    least_bytes: float = 0
    """Of an operation's largest tensor, where that is to outgrow the cache."""

    def hold(self, nbytes: float) -> bool:
        """Whether an operation's largest tensor may have so many bytes."""
        return self.least_bytes <= nbytes <= self.most_bytes

    @property
    def flops(self) -> float:
        """The most FLOPs: large tensors may take longer."""
        return self.most_flops * (6 if self.least_bytes else 1)


class Case(NamedTuple):
    """One operation to time."""

    make: Callable[[], nn.Module]
    """Builds the module that runs it, with weights of its own."""

    shapes: tuple[Shape, ...]
    """Of its inputs."""

    rectified: bool = False
    """Whether its inputs are as ReLU leaves them, which branches of a max pooling depend on."""


class Call(nn.Module):
    """A function as a module; a buffer, if there is one, is its last argument."""

    def __init__(self, function: Callable[..., Any], buffer: torch.Tensor | None = None) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("buffer", buffer)

    def forward(self, *tensors: torch.Tensor) -> Any:
        """Call it."""
        return self.function(*tensors) if self.buffer is None else self.function(*tensors, self.buffer)


def cases(name: str, count: int, limits: Limits, seed: int = 0) -> Iterator[Case]:
    """`count` operations of a class, each within the limits."""
    source = random.Random(f"{seed} {name}")
    for number in range(count):
        large = number % _LARGE_EACH == _LARGE_EACH - 1
        yield DRAWS[name](source, limits if large else limits._replace(least_bytes=0))


_LARGE_EACH = 7
"""One shape of so many has a tensor that no cache holds."""


def _search(draw: Callable[[], Drawn], fits: Callable[[Drawn, Limits], bool], limits: Limits) -> Drawn:
    """The first draw that fits; where nothing large does, a smaller one."""
    for tries in range(_TRIES):
        drawn = draw()
        if fits(drawn, limits if tries < _TRIES // 2 else limits._replace(least_bytes=0)):
            return drawn
    raise InputError(f"no operation fits within {limits}: give wider limits.")


_TRIES = 20_000


def _number(source: random.Random, low: float, high: float) -> int:
    """A number between two others, evenly on a logarithmic scale."""
    return round(math.exp(source.uniform(math.log(low), math.log(high))))


def _channels(source: random.Random, low: float, high: float) -> int:
    """A number of channels, round as people choose them: mostly two or three times a power of two, at least 8."""
    drawn = _number(source, low, high)
    finer = 1 if source.random() < 0.7 else 4
    step = max(8, 2 ** int(math.log2(drawn / 2)) // finer)
    return max(step, round(drawn / step) * step)


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
    channels, groups = _channels(source, 16, 1024), 1
    filters = _channels(source, max(16, channels / 4), min(1024, channels * 4))
    if kind == "stem":
        channels, filters = source.choice((1, 3, 3, 4)), _channels(source, 16, 128)
    elif kind == "depthwise":
        filters = groups = channels
    elif kind == "grouped":
        groups = source.choice((2, 4, 8))
        channels, filters = max(channels // groups, 2) * groups, max(filters // groups, 1) * groups
    window, stride = source.choice(_WINDOWS_OF.get(kind, (3,))), source.choice(_STRIDES_OF.get(kind, (1, 1, 1, 2)))
    return _Conv(
        _number(source, 1, limits.most_batch), channels, filters, _number(source, 7, 224), window, stride, groups
    )


def _fitting_conv(source: random.Random, limits: Limits, kind: str) -> _Conv:
    least_flops = limits.least_flops * (0.2 if kind == "depthwise" else 1.0)

    def fits(conv: _Conv, limits: Limits) -> bool:
        return limits.hold(conv.largest_bytes) and least_flops <= conv.flops <= limits.flops

    return _search(lambda: _conv(source, limits, kind), fits, limits)


def _forward(kind: str) -> Draw:
    def case(source: random.Random, limits: Limits) -> Case:
        conv = _fitting_conv(source, limits, kind)
        return Case(conv.module, ((conv.batch, conv.channels, conv.size, conv.size),))

    return case


def _gradients(kind: str) -> Draw:
    def case(source: random.Random, limits: Limits) -> Case:
        conv = _fitting_conv(source, limits._replace(most_flops=limits.most_flops / 2), kind)
        make, shapes = conv.gradients()
        return Case(make, shapes)

    return case


def _gemv(source: random.Random, limits: Limits) -> Case:
    def draw() -> tuple[int, int]:
        return _channels(source, 128, 16384), _channels(source, 128, 16384)

    inputs, outputs = _search(draw, lambda drawn, limits: limits.hold(4 * drawn[0] * drawn[1]), limits)
    return Case(lambda: nn.Linear(inputs, outputs), ((1, inputs),))


def _gemm(source: random.Random, limits: Limits) -> Case:
    def draw() -> tuple[int, int, int]:
        return _number(source, 2, 2048), _channels(source, 64, 16384), _channels(source, 64, 16384)

    def fits(drawn: tuple[int, int, int], limits: Limits) -> bool:
        rows, inputs, outputs = drawn
        largest = 4 * max(rows * inputs, inputs * outputs, rows * outputs)
        return limits.hold(largest) and limits.least_flops <= 2 * math.prod(drawn) <= limits.flops

    rows, inputs, outputs = _search(draw, fits, limits)
    return Case(lambda: nn.Linear(inputs, outputs), ((rows, inputs),))


def _gemm_batched(source: random.Random, limits: Limits) -> Case:
    def draw() -> tuple[int, int, int, int]:
        return _number(source, 4, 256), _number(source, 16, 512), _channels(source, 16, 512), _channels(source, 16, 512)

    def fits(drawn: tuple[int, int, int, int], limits: Limits) -> bool:
        return limits.least_flops <= 2 * math.prod(drawn) <= limits.most_flops

    count, rows, inner, columns = _search(draw, fits, limits)
    return Case(lambda: Call(torch.bmm), ((count, rows, inner), (count, inner, columns)))


def _attention(source: random.Random, limits: Limits) -> Case:
    def draw() -> Shape:
        width = source.choice((32, 64, 64, 128))
        return _number(source, 1, 32), _number(source, 2, 16), _number(source, 32, 1024), width

    def fits(shape: Shape, limits: Limits) -> bool:
        return limits.least_flops <= 4 * math.prod(shape) * shape[2] <= limits.most_flops

    shape = _search(draw, fits, limits)
    return Case(lambda: Call(lambda q, k, v: F.scaled_dot_product_attention(q, k, v)), (shape, shape, shape))


def _image(source: random.Random, limits: Limits, most: float = 1.0) -> Shape:
    """Feature maps; the largest have `most` of the bytes that a tensor may have."""

    def draw() -> Shape:
        size = _number(source, 7, 224)
        return _number(source, 1, 2 * limits.most_batch), _channels(source, 16, 1024), size, size

    def fits(shape: Shape, limits: Limits) -> bool:
        nbytes = 4 * math.prod(shape)
        return nbytes >= 16384 and limits.hold(nbytes / most)

    return _search(draw, fits, limits)


def _norm(source: random.Random, limits: Limits) -> Case:
    shape = _image(source, limits)
    if source.random() < 0.3:
        width = _channels(source, 64, 2048)
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
    rows, width = _number(source, 8, 16384), _number(source, 16, 2048)
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
    count = _number(source, 2, 32)
    most = min(limits.most_bytes / 4, 2**28) / count
    shapes = tuple((_number(source, 64, most),) for _ in range(count))

    def step(*tensors: torch.Tensor) -> Any:
        half = len(tensors) // 2
        return torch._foreach_add_(list(tensors[:half]), list(tensors[half:]), alpha=-1e-3)

    return Case(lambda: Call(step), shapes + shapes)


def _view(source: random.Random, limits: Limits) -> Case:
    return Case(nn.Flatten, (_image(source, limits, 0.1),))


_CONVS = ("1x1", "3x3", "large", "stem", "depthwise", "grouped")

DRAWS: Mapping[str, Draw] = {
    **{f"conv_{kind}": _forward(kind) for kind in _CONVS},
    **{f"conv_backward_{kind}": _gradients(kind) for kind in _CONVS},
    "gemv": _gemv,
    "gemm": _gemm,
    "gemm_batched": _gemm_batched,
    "attention": _attention,
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
"""What draws an operation of each class."""
