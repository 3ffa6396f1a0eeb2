"""What frequent operators return on the meta device, made directly.

On meta tensors torch works out an operator's outputs by running its decomposition in Python: 1 ms for a matrix product,
1.4 ms for a batch norm. Where the answer is plain (dense, contiguous tensors of one dtype) it is given here in
microseconds. A maker returns None whenever it is not certain, and torch is asked instead, which also words the error if
the shapes do not fit. A test holds every maker against torch's own meta kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch

aten = torch.ops.aten
Made: TypeAlias = torch.Tensor | tuple[torch.Tensor, ...] | None


_LAST = torch.channels_last


def _new(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    return torch.empty(shape, dtype=like.dtype, device="meta")


def _plain(*tensors: torch.Tensor) -> bool:
    """Whether all are contiguous, non-empty and of the first one's floating-point dtype."""
    dtype = tensors[0].dtype
    return dtype.is_floating_point and all(t.dtype == dtype and t.is_contiguous() and t.numel() for t in tensors)


def _one_layout(tensor: torch.Tensor) -> bool:
    """Whether contiguous can only mean rows and columns innermost, not channels last as well."""
    return not (tensor.dim() == 4 and tensor.is_contiguous(memory_format=_LAST))


def _unary(self: torch.Tensor, *_: Any, **__: Any) -> Made:
    return _new(self.shape, self) if _plain(self) and _one_layout(self) else None


def _unary_in_place(self: torch.Tensor, *_: Any, **__: Any) -> Made:
    return self if self.dtype.is_floating_point else None


def _binary(self: torch.Tensor, other: Any, *_: Any, **__: Any) -> Made:
    if not isinstance(other, torch.Tensor):
        return _unary(self) if isinstance(other, (int, float)) else None
    return _new(self.shape, self) if self.shape == other.shape and _plain(self, other) and _one_layout(self) else None


def _binary_in_place(self: torch.Tensor, other: Any, *_: Any, **__: Any) -> Made:
    if not isinstance(other, torch.Tensor):
        return _unary_in_place(self) if isinstance(other, (int, float)) else None
    return self if self.shape == other.shape and self.dtype == other.dtype and self.dtype.is_floating_point else None


def _addmm(self: torch.Tensor, mat1: torch.Tensor, mat2: torch.Tensor, **_: Any) -> Made:
    fits = mat1.dim() == mat2.dim() == 2 and mat1.shape[1] == mat2.shape[0] and self.shape == mat2.shape[1:]
    return _new((mat1.shape[0], mat2.shape[1]), mat1) if fits and self.dtype == mat1.dtype == mat2.dtype else None


def _mm(self: torch.Tensor, mat2: torch.Tensor) -> Made:
    fits = self.dim() == mat2.dim() == 2 and self.shape[1] == mat2.shape[0] and self.dtype == mat2.dtype
    return _new((self.shape[0], mat2.shape[1]), self) if fits else None


def _convolution(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> Made:
    """The output has its channels last if the input or the weight has, as cuDNN and oneDNN do it (not torch's meta).

    Raises RuntimeError for a window larger than the input, which older meta kernels let pass.
    """
    spatial = len(stride)
    if transposed or not input.dim() == weight.dim() == spatial + 2 or input.dtype != weight.dtype or not input.numel():
        return None
    n, channels, *size = input.shape
    k, per_group, *window = weight.shape
    if channels != per_group * groups or k % groups or min(stride) < 1:
        return None
    if bias is not None and (bias.shape != (k,) or bias.dtype != input.dtype):
        return None
    room = [x + 2 * p - d * (f - 1) - 1 for x, p, d, f in zip(size, padding, dilation, window, strict=True)]
    if min(room) < 0:
        raise RuntimeError(
            f"Kernel size can't be greater than actual input size: {window} on {size}, padding {padding}"
        )
    last = [not tensor.is_contiguous() for tensor in (input, weight)]
    if any(last) and (spatial != 2 or not all(_dense(tensor) for tensor in (input, weight))):
        return None
    out = [left // step + 1 for left, step in zip(room, stride, strict=True)]
    layout = _LAST if any(last) else torch.contiguous_format
    return torch.empty((n, k, *out), dtype=input.dtype, device="meta", memory_format=layout)


def _dense(tensor: torch.Tensor) -> bool:
    return tensor.is_contiguous() or tensor.is_contiguous(memory_format=_LAST)


def _max_pool(
    self: torch.Tensor,
    kernel_size: list[int],
    stride: list[int] = (),  # type: ignore[assignment]
    padding: list[int] = (0,),  # type: ignore[assignment]
    dilation: list[int] = (1,),  # type: ignore[assignment]
    ceil_mode: bool = False,
) -> Made:
    """Output, and the index of each maximum."""
    if ceil_mode or self.dim() != 4 or not _plain(self) or not _one_layout(self):
        return None
    window, step, pad, gap = (_pair(value) for value in (kernel_size, stride or kernel_size, padding, dilation))
    out = [
        (self.shape[2 + i] + 2 * pad[i] - gap[i] * (window[i] - 1) - 1) // step[i] + 1
        for i in (0, 1)
        if step[i] > 0
        and 0 <= 2 * pad[i] <= window[i]
        and self.shape[2 + i] + 2 * pad[i] >= gap[i] * (window[i] - 1) + 1
    ]
    if len(out) != 2:
        return None
    shape = (*self.shape[:2], *out)
    return _new(shape, self), torch.empty(shape, dtype=torch.int64, device="meta")


def _pair(value: list[int]) -> tuple[int, int]:
    return (value[0], value[-1])


def _adaptive_average(self: torch.Tensor, output_size: list[int]) -> Made:
    fits = self.dim() == 4 and len(output_size) == 2 and min(output_size) > 0 and _plain(self) and _one_layout(self)
    return _new((*self.shape[:2], *output_size), self) if fits else None


def _batch_norm(
    input: torch.Tensor, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: float, eps: float
) -> Made:
    """Output, and mean and inverse deviation of each channel."""
    if input.dim() < 2 or input.dtype != torch.float32 or not _plain(input) or not _one_layout(input):
        return None
    channels = input.shape[1:2]
    for tensor in (weight, bias, mean, var):
        if tensor is None or tensor.shape != channels or tensor.dtype != input.dtype:
            return None
    return _new(input.shape, input), _new(channels, input), _new(channels, input)


def _layer_norm(input: torch.Tensor, shape: list[int], weight: Any, bias: Any, eps: float) -> Made:
    """Output, and the mean and inverse deviation of each row."""
    rows = input.dim() - len(shape)
    if (
        input.dtype != torch.float32
        or not _plain(input)
        or not _one_layout(input)
        or tuple(shape) != input.shape[rows:]
    ):
        return None
    for tensor in (weight, bias):
        if tensor is None or tensor.shape != input.shape[rows:] or tensor.dtype != input.dtype:
            return None
    statistics = (*input.shape[:rows], *(1 for _ in shape))
    return _new(input.shape, input), _new(statistics, input), _new(statistics, input)


def _softmax(self: torch.Tensor, dim: int, half_to_float: bool) -> Made:
    return None if half_to_float or not -self.dim() <= dim < self.dim() else _unary(self)


def _cat(tensors: list[torch.Tensor], dim: int = 0) -> Made:
    first = tensors[0]
    if not 0 <= dim < first.dim() or not _plain(*tensors) or not all(_one_layout(tensor) for tensor in tensors):
        return None
    shape = list(first.shape)
    shape[dim] = 0
    for tensor in tensors:
        if tensor.dim() != len(shape) or any(a != b for i, (a, b) in enumerate(zip(tensor.shape, shape)) if i != dim):  # noqa: B905
            return None
        shape[dim] += tensor.shape[dim]
    made = _new(tuple(shape), first)
    return made if _one_layout(made) else None


_UNARY = (
    "relu",
    "gelu",
    "silu",
    "sigmoid",
    "tanh",
    "hardswish",
    "hardsigmoid",
    "hardtanh",
    "leaky_relu",
    "elu",
    "exp",
    "neg",
)
_BINARY = ("add", "sub", "mul", "div")


def _overloads(name: str) -> list[Any]:
    packet = getattr(aten, name, None)
    found = [getattr(packet, o) for o in packet.overloads() if o in ("default", "Tensor", "Scalar")] if packet else []
    return [operator for operator in found if str(operator._schema.arguments[0].type) == "Tensor"]


def _makers() -> dict[Any, Callable[..., Made]]:
    table: dict[Any, Callable[..., Made]] = {
        aten.addmm.default: _addmm,
        aten.mm.default: _mm,
        aten.convolution.default: _convolution,
        aten.max_pool2d_with_indices.default: _max_pool,
        aten._adaptive_avg_pool2d.default: _adaptive_average,
        aten.native_batch_norm.default: _batch_norm,
        aten.native_layer_norm.default: _layer_norm,
        aten._softmax.default: _softmax,
        aten.cat.default: _cat,
    }
    for names, fresh, in_place in ((_UNARY, _unary, _unary_in_place), (_BINARY, _binary, _binary_in_place)):
        for name in names:
            table |= dict.fromkeys(_overloads(name), fresh) | dict.fromkeys(_overloads(f"{name}_"), in_place)
    return table


MAKERS = _makers()
"""By operator: a function of its arguments that returns its outputs, or None where torch must be asked."""
