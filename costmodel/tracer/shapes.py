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
_META = torch.device("meta")


def _new(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    return torch.empty(shape, dtype=like.dtype, device=_META)


def _vector(size: int, like: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided((size,), (1,), dtype=like.dtype, device=_META)


def _same(like: torch.Tensor) -> torch.Tensor:
    """A new tensor like a contiguous one."""
    return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=_META)


def _plain(tensor: torch.Tensor) -> bool:
    """Whether it is contiguous, in one way only, not empty, and of a floating-point type."""
    return tensor.is_contiguous() and tensor.dtype.is_floating_point and _one_layout(tensor.shape)


def _one_layout(shape: tuple[int, ...]) -> bool:
    """Whether there are elements, and contiguous can only mean rows and columns innermost, not channels last too."""
    if len(shape) == 4:
        return shape[1] > 1 and shape[2] * shape[3] > 1 and shape[0] > 0
    return 0 not in shape


def _empty(
    size: list[int],
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: Any = None,
    pin_memory: bool | None = None,
    memory_format: torch.memory_format | None = None,
) -> Made:
    plain = layout in (None, torch.strided) and not pin_memory and memory_format is None
    return torch.empty(size, dtype=dtype, device=_META) if plain else None


def _unary(self: torch.Tensor, *_: Any, **__: Any) -> Made:
    return _same(self) if _plain(self) else None


def _unary_in_place(self: torch.Tensor, *_: Any, **__: Any) -> Made:
    return self if self.dtype.is_floating_point else None


def _binary(self: torch.Tensor, other: Any, *_: Any, **__: Any) -> Made:
    if not isinstance(other, torch.Tensor):
        return _unary(self) if isinstance(other, (int, float)) else None
    alike = self.shape == other.shape and self.dtype == other.dtype
    return _same(self) if alike and _plain(self) and other.is_contiguous() else None


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
    return torch.empty((n, k, *out), dtype=input.dtype, device=_META, memory_format=layout)


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
    shape = None if ceil_mode else _pooled(self, kernel_size, stride or kernel_size, padding, dilation)
    return None if shape is None else (_new(shape, self), torch.empty(shape, dtype=torch.int64, device=_META))


def _average_pool(
    self: torch.Tensor,
    kernel_size: list[int],
    stride: list[int] = (),  # type: ignore[assignment]
    padding: list[int] = (0,),  # type: ignore[assignment]
    ceil_mode: bool = False,
    *_: Any,
) -> Made:
    shape = None if ceil_mode else _pooled(self, kernel_size, stride or kernel_size, padding, [1])
    return None if shape is None else _new(shape, self)


def _pooled(
    self: torch.Tensor, kernel_size: list[int], stride: list[int], padding: list[int], dilation: list[int]
) -> tuple[int, ...] | None:
    """The shape after a window slid over the last two of four dimensions, rounded down."""
    if self.dim() != 4 or not _plain(self):
        return None
    window, step, pad, gap = (_pair(value) for value in (kernel_size, stride, padding, dilation))
    out = [
        (self.shape[2 + i] + 2 * pad[i] - gap[i] * (window[i] - 1) - 1) // step[i] + 1
        for i in (0, 1)
        if step[i] > 0
        and 0 <= 2 * pad[i] <= window[i]
        and self.shape[2 + i] + 2 * pad[i] >= gap[i] * (window[i] - 1) + 1
    ]
    return (*self.shape[:2], *out) if len(out) == 2 else None


def _pair(value: list[int]) -> tuple[int, int]:
    return (value[0], value[-1])


def _adaptive_average(self: torch.Tensor, output_size: list[int]) -> Made:
    fits = self.dim() == 4 and len(output_size) == 2 and min(output_size) > 0 and _plain(self)
    return _new((*self.shape[:2], *output_size), self) if fits else None


def _batch_norm(
    input: torch.Tensor, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: float, eps: float
) -> Made:
    """Output, and mean and inverse deviation of each channel."""
    dtype = input.dtype
    if input.dim() < 2 or dtype != torch.float32 or not _plain(input):
        return None
    channels = input.shape[1:2]
    for tensor in (weight, bias, mean, var):
        if tensor is None or tensor.shape != channels or tensor.dtype != dtype:
            return None
    return _same(input), _vector(channels[0], input), _vector(channels[0], input)


def _cudnn_batch_norm(
    input: torch.Tensor, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: float, eps: float
) -> Made:
    """The same with the bytes that cuDNN sets aside, of which there are none; no statistics in evaluation."""
    made = _batch_norm(input, weight, bias, mean, var, training, momentum, eps)
    if not isinstance(made, tuple):
        return None
    aside = torch.empty(0, dtype=torch.uint8, device="meta")
    return (*made, aside) if training else (made[0], _vector(0, input), _vector(0, input), aside)


def _layer_norm(input: torch.Tensor, shape: list[int], weight: Any, bias: Any, eps: float) -> Made:
    """Output, and the mean and inverse deviation of each row."""
    rows = input.dim() - len(shape)
    if input.dtype != torch.float32 or not _plain(input) or tuple(shape) != input.shape[rows:]:
        return None
    for tensor in (weight, bias):
        if tensor is None or tensor.shape != input.shape[rows:] or tensor.dtype != input.dtype:
            return None
    statistics = (*input.shape[:rows], *(1 for _ in shape))
    return _same(input), _new(statistics, input), _new(statistics, input)


def _mean(self: torch.Tensor, dim: list[int] | None, keepdim: bool = False, *, dtype: Any = None) -> Made:
    rank = self.dim()
    if not dim or dtype is not None or not _plain(self) or any(not -rank <= d < rank for d in dim):
        return None
    gone = {d % rank for d in dim}
    if len(gone) != len(dim):
        return None
    kept = [1 if i in gone else n for i, n in enumerate(self.shape) if keepdim or i not in gone]
    return _new(tuple(kept), self)


def _embedding(weight: torch.Tensor, indices: torch.Tensor, *_: Any, **__: Any) -> Made:
    """Only raises RuntimeError for what cannot be an index, which some versions of torch let pass on meta tensors."""
    if indices.dtype not in (torch.int64, torch.int32):
        raise RuntimeError(f"Expected tensor for argument #1 'indices' to be of type Long or Int, not {indices.dtype}")
    return None


def _softmax(self: torch.Tensor, dim: int, half_to_float: bool) -> Made:
    return None if half_to_float or not -self.dim() <= dim < self.dim() else _unary(self)


def _cat(tensors: list[torch.Tensor], dim: int = 0) -> Made:
    first = tensors[0]
    dtype, size = first.dtype, first.shape
    if not 0 <= dim < len(size) or not dtype.is_floating_point or not _one_layout(size):
        return None
    before, after, whole = size[:dim], size[dim + 1 :], 0
    for tensor in tensors:
        if tensor.shape != size:  # most have the size of the one before
            size = tensor.shape
            if size[:dim] != before or size[dim + 1 :] != after or not _one_layout(size):
                return None
        if tensor.dtype != dtype or not tensor.is_contiguous():
            return None
        whole += size[dim]
    return _new((*before, whole, *after), first)


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
        aten.empty.memory_format: _empty,
        aten.addmm.default: _addmm,
        aten.mm.default: _mm,
        aten.convolution.default: _convolution,
        aten.max_pool2d_with_indices.default: _max_pool,
        aten.avg_pool2d.default: _average_pool,
        aten._adaptive_avg_pool2d.default: _adaptive_average,
        aten.mean.dim: _mean,
        aten.embedding.default: _embedding,
        aten.native_batch_norm.default: _batch_norm,
        aten.cudnn_batch_norm.default: _cudnn_batch_norm,
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
