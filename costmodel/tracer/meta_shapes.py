"""What frequent operators return on the meta device, said directly: shapes, element types and strides of the outputs.

On meta tensors torch works out an operator's outputs by running its decomposition in Python: 1 ms for a matrix product,
1.4 ms for a batch norm. Where the answer is plain (dense, contiguous tensors of one dtype) it is given here in
microseconds. A shape function returns None whenever it is not certain, and torch is asked instead, which also words
the error if the shapes do not fit. A test holds every shape function against torch's own meta kernels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import torch

from costmodel.graph import TensorSpec
from costmodel.tracer.inputs import DTYPE_NAMES, DTYPES
from costmodel.tracer.torch_private import operator_schema

aten = torch.ops.aten


class MetaTensor(NamedTuple):
    """A new meta tensor as data: it fills a storage of its own."""

    shape: tuple[int, ...]
    dtype: str
    strides: tuple[int, ...]


Inputs: TypeAlias = Mapping[str, TensorSpec]
Attributes: TypeAlias = Mapping[str, Any]
Results: TypeAlias = tuple[MetaTensor, ...] | None
ShapeFunction: TypeAlias = Callable[[Inputs, Attributes], Results]
"""From an operation's tensors and other arguments, by name, to what it returns; None where torch must be asked."""

IN_PLACE: Results = ()
"""No results: the operator returns its first input, which it wrote."""

_FLOATING = frozenset(name for name, dtype in DTYPES.items() if dtype.is_floating_point)


@functools.lru_cache(maxsize=4096)
def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a contiguous tensor."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


@functools.lru_cache(maxsize=4096)
def channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a tensor whose channels, of shape (batch, channels, ...), lie innermost."""
    batch, channels, *size = shape
    first, *steps, last = row_major((batch, *size, channels))
    return (first, last, *steps)


@functools.lru_cache(maxsize=4096)
def suggests_channels_last(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether torch takes a tensor's channels for innermost, also where it is a slice of a tensor or has gaps.

    As c10/core/MemoryFormat.h has it (is_channels_last_strides_2d, _3d), with its choice where a size is 1.
    """
    rank = len(shape)
    if rank not in (4, 5) or strides[1] == 0:
        return False
    least = 0
    for dim in (1, *range(rank - 1, 1, -1), 0):
        if shape[dim] == 0 or strides[dim] < least or (dim == 0 and least == strides[1]):
            return False
        least = strides[dim] * max(shape[dim], 1)
    return True


def _is_laid_out(tensor: TensorSpec, strides: tuple[int, ...]) -> bool:
    """Whether its elements lie as with these strides; where a size is 1 the stride leads nowhere."""
    if tensor.strides == strides:
        return True
    return all(a == b or size == 1 for size, a, b in zip(tensor.shape, tensor.strides, strides, strict=True))


def _is_contiguous(tensor: TensorSpec) -> bool:
    return _is_laid_out(tensor, row_major(tensor.shape))


def is_plain(tensor: TensorSpec) -> bool:
    """Whether it is contiguous, in one way only, not empty, and of a floating-point type."""
    return tensor.dtype in _FLOATING and _one_layout(tensor.shape) and _is_contiguous(tensor)


def _one_layout(shape: tuple[int, ...]) -> bool:
    """Whether there are elements, and contiguous can only mean rows and columns innermost, not channels last too."""
    if len(shape) == 4:
        return shape[1] > 1 and shape[2] * shape[3] > 1 and shape[0] > 0
    return 0 not in shape


def _contiguous(shape: tuple[int, ...], dtype: str) -> MetaTensor:
    return MetaTensor(shape, dtype, row_major(shape))


def _same(like: TensorSpec) -> MetaTensor:
    """A new tensor like a contiguous one."""
    return _contiguous(like.shape, like.dtype)


def _empty(_: Inputs, to: Attributes) -> Results:
    plain = to.get("layout") in (None, "strided") and not to.get("pin_memory") and to.get("memory_format") is None
    dtype = to.get("dtype") or DTYPE_NAMES[torch.get_default_dtype()]
    return (_contiguous(to["size"], dtype),) if plain and min(to["size"], default=0) >= 0 else None


def _unary(given: Inputs, _: Attributes) -> Results:
    (tensor,) = given.values()
    return (_same(tensor),) if is_plain(tensor) else None


def _unary_in_place(given: Inputs, _: Attributes) -> Results:
    (tensor,) = given.values()
    return IN_PLACE if tensor.dtype in _FLOATING else None


def _binary(given: Inputs, to: Attributes) -> Results:
    tensor, other = given["self"], given.get("other")
    if other is None:
        return (_same(tensor),) if isinstance(to.get("other"), (int, float)) and is_plain(tensor) else None
    alike = tensor.shape == other.shape and tensor.dtype == other.dtype
    return (_same(tensor),) if alike and is_plain(tensor) and _is_contiguous(other) else None


def _binary_in_place(given: Inputs, to: Attributes) -> Results:
    tensor, other = given["self"], given.get("other")
    if other is None:
        fits = isinstance(to.get("other"), (int, float))
    else:
        fits = tensor.shape == other.shape and tensor.dtype == other.dtype
    return IN_PLACE if fits and tensor.dtype in _FLOATING else None


def _addmm(given: Inputs, _: Attributes) -> Results:
    bias, mat1, mat2 = given["self"], given["mat1"], given["mat2"]
    (rows, inner), wide = _matrix(mat1), _matrix(mat2)
    fits = inner == wide[0] and bias.shape == wide[1:] and bias.dtype == mat1.dtype == mat2.dtype
    return (_contiguous((rows, wide[1]), mat1.dtype),) if fits else None


def _mm(given: Inputs, _: Attributes) -> Results:
    mat1, mat2 = given["self"], given["mat2"]
    (rows, inner), (other, columns) = _matrix(mat1), _matrix(mat2)
    return (_contiguous((rows, columns), mat1.dtype),) if inner == other and mat1.dtype == mat2.dtype else None


def _grouped_mm(given: Inputs, to: Attributes) -> Results:
    """Products of float32, which devices run but torch's meta kernel refuses; rows fill 16 bytes, as it would ask."""
    first, second, offs = given["self"], given["mat2"], given.get("offs")
    groups = None if offs is None else offs.shape[0]
    dtype = first.dtype
    if dtype != "float32" or second.dtype != dtype or "bias" in given or to.get("out_dtype") not in (None, dtype):
        return None
    inner, columns = second.shape[-2:]
    ranks = (len(first.shape), len(second.shape))
    fits = first.shape[-1] == inner and all(s[0] == groups for s in (first.shape, second.shape) if len(s) == 3)
    ragged = any(step % 4 for step in (columns, *first.strides, *second.strides) if step != 1)
    if ranks not in _GROUPED or groups is None or not fits or ragged:
        return None
    shape = (first.shape[-2], columns)
    return (_contiguous((groups, *shape) if ranks == (2, 2) else shape, dtype),)


_GROUPED = ((2, 3), (3, 2), (2, 2))


def _matrix(tensor: TensorSpec) -> tuple[int, int]:
    """Its two sizes; two that fit nothing if it is no matrix."""
    shape = tensor.shape
    return (shape[0], shape[1]) if len(shape) == 2 else (-1, -2)


def _convolution(given: Inputs, to: Attributes) -> Results:
    """The output has its channels last if torch takes the input or the weight for such, as in cuDNN and oneDNN.

    (ConvUtils.h: cudnn_conv_suggest_memory_format, mkldnn_conv_use_channels_last; torch's meta kernel does otherwise.)
    Raises RuntimeError for a window larger than the input, which older meta kernels let pass.
    """
    tensor, weight, bias = given["input"], given["weight"], given.get("bias")
    stride, transposed, groups, dtype = to["stride"], to["transposed"], to["groups"], tensor.dtype
    rank = len(stride) + 2
    if not len(tensor.shape) == len(weight.shape) == rank or dtype != weight.dtype:
        return None
    n, channels, *size = tensor.shape
    first, second, *window = weight.shape
    taken, k = (first, second * groups) if transposed else (second * groups, first)
    if channels != taken or first % groups or min(stride) < 1 or 0 in tensor.shape:
        return None
    if bias is not None and (bias.shape != (k,) or bias.dtype != dtype):
        return None
    dims = len(size)
    padding = to["padding"] if len(to["padding"]) == dims else to["padding"] * dims  # one, if it was "valid"
    out = []
    if transposed:
        more = to["output_padding"]
        for x, p, d, f, step, extra in zip(size, padding, to["dilation"], window, stride, more, strict=True):
            out.append((x - 1) * step - 2 * p + d * (f - 1) + extra + 1)
            if out[-1] < 1 or extra >= max(step, d):
                return None
    else:
        for x, p, d, f, step in zip(size, padding, to["dilation"], window, stride, strict=True):
            room = x + 2 * p - d * (f - 1) - 1
            if room < 0:
                raise RuntimeError(
                    f"Kernel size can't be greater than actual input size: {window} on {size}, padding {[*padding]}"
                )
            out.append(room // step + 1)
    shape = (n, k, *out)
    if rank == 3:  # a signal is an image of one row, and made contiguous
        innermost = _is_contiguous(tensor) and suggests_channels_last(*_as_image(tensor))
        innermost = innermost or suggests_channels_last(*_as_image(weight))
    else:
        innermost = suggests_channels_last(tensor.shape, tensor.strides)
        innermost = innermost or suggests_channels_last(weight.shape, weight.strides)
    return (MetaTensor(shape, dtype, channels_last(shape) if innermost else row_major(shape)),)


def _as_image(signal: TensorSpec) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape and strides of a signal as an image of one row."""
    (n, channels, length), (far, step, near) = signal.shape, signal.strides
    return (n, channels, 1, length), (far, step, length * near, near)


def _max_pool(given: Inputs, to: Attributes) -> Results:
    """Output, and the index of each maximum."""
    shape = _pooled(given["self"], to, to["dilation"])
    return None if shape is None else (_contiguous(shape, given["self"].dtype), _contiguous(shape, "int64"))


def _average_pool(given: Inputs, to: Attributes) -> Results:
    shape = _pooled(given["self"], to, (1,))
    return None if shape is None else (_contiguous(shape, given["self"].dtype),)


def _pooled(tensor: TensorSpec, to: Attributes, dilation: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape after a window slid over the last two of four dimensions, rounded down."""
    if len(tensor.shape) != 4 or to["ceil_mode"] or not is_plain(tensor):
        return None
    window, padding = to["kernel_size"], to["padding"]
    step = to["stride"] or window
    out = []
    for axis, at in ((2, 0), (3, -1)):
        room = tensor.shape[axis] + 2 * padding[at] - dilation[at] * (window[at] - 1) - 1
        if step[at] < 1 or not 0 <= 2 * padding[at] <= window[at] or room < 0:
            return None
        out.append(room // step[at] + 1)
    return (*tensor.shape[:2], *out)


def _adaptive_average(given: Inputs, to: Attributes) -> Results:
    (tensor,), size = given.values(), to["output_size"]
    fits = len(tensor.shape) == 4 and len(size) == 2 and min(size) > 0 and is_plain(tensor)
    return (_contiguous((*tensor.shape[:2], *size), tensor.dtype),) if fits else None


def _batch_norm(given: Inputs, _: Attributes) -> Results:
    """Output, and mean and inverse deviation of each channel."""
    tensor = given["input"]
    if len(given) != 5 or len(tensor.shape) < 2 or tensor.dtype != "float32" or not is_plain(tensor):
        return None
    channels = tensor.shape[1:2]
    for vector in given.values():
        if vector is not tensor and (vector.shape != channels or vector.dtype != "float32"):
            return None
    statistics = _contiguous(channels, "float32")
    return (_same(tensor), statistics, statistics)


def _cudnn_batch_norm(given: Inputs, to: Attributes) -> Results:
    """The same with the bytes that cuDNN sets aside, of which there are none; no statistics in evaluation."""
    normalised = _batch_norm(given, to)
    if normalised is None:
        return None
    return (*normalised, _ASIDE) if to["training"] else (normalised[0], _NO_STATISTICS, _NO_STATISTICS, _ASIDE)


_NO_STATISTICS, _ASIDE = MetaTensor((0,), "float32", (1,)), MetaTensor((0,), "uint8", (1,))


def _layer_norm(given: Inputs, to: Attributes) -> Results:
    """Output, and the mean and inverse deviation of each row."""
    tensor, shape = given["input"], to["normalized_shape"]
    weight, bias = given.get("weight"), given.get("bias")
    rows = len(tensor.shape) - len(shape)
    if weight is None or bias is None or rows < 0 or tensor.shape[rows:] != shape or not is_plain(tensor):
        return None
    if not (weight.shape == bias.shape == shape and tensor.dtype == weight.dtype == bias.dtype == "float32"):
        return None
    statistics = _contiguous((*tensor.shape[:rows], *(1 for _ in shape)), "float32")
    return (_same(tensor), statistics, statistics)


def _mean(given: Inputs, to: Attributes) -> Results:
    (tensor,), dim = given.values(), to.get("dim")
    rank = len(tensor.shape)
    if not dim or to.get("dtype") is not None or not is_plain(tensor) or any(not -rank <= d < rank for d in dim):
        return None
    gone = {d % rank for d in dim}
    if len(gone) != len(dim):
        return None
    kept = tuple(1 if i in gone else n for i, n in enumerate(tensor.shape) if to["keepdim"] or i not in gone)
    return (_contiguous(kept, tensor.dtype),)


def _embedding(given: Inputs, _: Attributes) -> Results:
    """Only raises RuntimeError for what cannot be an index, which some versions of torch let pass on meta tensors."""
    dtype = given["indices"].dtype
    if dtype not in ("int64", "int32"):
        raise RuntimeError(f"Expected tensor for argument #1 'indices' to be of type Long or Int, not {dtype}")
    return None


def _softmax(given: Inputs, to: Attributes) -> Results:
    (tensor,) = given.values()
    rank = len(tensor.shape)
    return None if to["half_to_float"] or not -rank <= to["dim"] < rank else _unary(given, to)


def _cat(given: Inputs, to: Attributes) -> Results:
    dim = to["dim"]
    tensors = iter(given.values())
    first = next(tensors, None)
    if first is None or not 0 <= dim < len(first.shape) or not is_plain(first):
        return None
    dtype, size = first.dtype, first.shape
    strides, whole = row_major(size), size[dim]
    before, after = size[:dim], size[dim + 1 :]
    for tensor in tensors:
        if tensor.shape != size:  # most have the size of the one before
            size = tensor.shape
            if size[:dim] != before or size[dim + 1 :] != after or not _one_layout(size):
                return None
            strides = row_major(size)
        if tensor.dtype != dtype or not (tensor.strides == strides or _is_contiguous(tensor)):
            return None
        whole += size[dim]
    return (_contiguous((*before, whole, *after), dtype),)


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
    return [operator for operator in found if str(operator_schema(operator).arguments[0].type) == "Tensor"]


def _meta_shapes() -> dict[Any, ShapeFunction]:
    table: dict[Any, ShapeFunction] = {
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
    if hasattr(aten, "_grouped_mm"):  # since 2.8
        table[aten._grouped_mm.default] = _grouped_mm
    for names, fresh, in_place in ((_UNARY, _unary, _unary_in_place), (_BINARY, _binary, _binary_in_place)):
        for name in names:
            table |= dict.fromkeys(_overloads(name), fresh) | dict.fromkeys(_overloads(f"{name}_"), in_place)
    return table


META_SHAPES: Mapping[Any, ShapeFunction] = _meta_shapes()
"""By operator."""
