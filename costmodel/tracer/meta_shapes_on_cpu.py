"""Shapes and layouts where a CPU's kernels do otherwise than CUDA's and than torch's meta kernels say.

Some of them keep channels innermost in memory, and a batch norm keeps no statistics in evaluation. As in `shapes`, a
shape function that is not certain leaves the answer to torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costmodel.tracer.meta_shapes import (
    META_SHAPES,
    Attributes,
    Inputs,
    MetaTensor,
    Results,
    ShapeFunction,
    aten,
    channels_last,
    is_plain,
    row_major,
    suggests_channels_last,
)


def _layer_norm(given: Inputs, to: Attributes) -> Results:
    """Its statistics are of the input's type, or of float32 beside weights of float32."""
    tensor, shape = given["input"], to["normalized_shape"]
    rows = len(tensor.shape) - len(shape)
    statistics = _statistics(given, shape)
    if statistics is None or rows < 0 or tensor.shape[rows:] != shape or not is_plain(tensor):
        return None
    kept = (*tensor.shape[:rows], *(1 for _ in shape))
    return (_contiguous(tensor.shape, tensor.dtype), *[_contiguous(kept, statistics)] * 2)


def _batch_norm(given: Inputs, to: Attributes) -> Results:
    """The same of each channel. In evaluation there are none (aten/src/ATen/native/Normalization.cpp)."""
    tensor = given["input"]
    if len(tensor.shape) < 2 or 0 in tensor.shape:
        return None
    statistics = _statistics(given, tensor.shape[1:2])
    if statistics is None:
        return None
    if to["training"]:
        kept = _contiguous(tensor.shape[1:2], statistics)
        return (_contiguous(tensor.shape, tensor.dtype), kept, kept) if is_plain(tensor) else None
    innermost = suggests_channels_last(tensor.shape, tensor.strides)
    strides = channels_last(tensor.shape) if innermost else row_major(tensor.shape)
    return (MetaTensor(tensor.shape, tensor.dtype, strides), *[_contiguous((0,), statistics)] * 2)


def _statistics(given: Inputs, shape: tuple[int, ...]) -> str | None:
    """The type of a normalisation's statistics (mixed_data_type.h, param_scalar_type); None if it does not fit."""
    dtype = given["input"].dtype
    others = {(tensor.shape, tensor.dtype) for name, tensor in given.items() if name != "input"}
    if any(size != shape or kind not in (dtype, "float32") for size, kind in others):
        return None
    return "float32" if any(kind != dtype for _, kind in others) else dtype


def _contiguous(shape: tuple[int, ...], dtype: str) -> MetaTensor:
    return MetaTensor(shape, dtype, row_major(shape))


def _group_norm(given: Inputs, to: Attributes) -> Results:
    tensor = given["input"]
    kept = _kept(given, tensor.shape)
    if kept is None or any(other.dtype != tensor.dtype for other in given.values()):
        return None
    statistics = MetaTensor((to["N"], to["group"]), tensor.dtype, (to["group"], 1))
    return (*kept, statistics, statistics)


def _kept(given: Inputs, shape: tuple[int, ...]) -> Results:
    """A result of this shape, its channels innermost; None unless the input's are."""
    tensor = next(iter(given.values()))
    if len(tensor.shape) != 4 or not suggests_channels_last(tensor.shape, tensor.strides):
        return None
    return (MetaTensor(shape, tensor.dtype, channels_last(shape)),)


def _pixel_shuffle(given: Inputs, to: Attributes) -> Results:
    *batch, channels, height, width = given["self"].shape
    by = to["upscale_factor"]
    if by < 1 or channels % (by * by):
        return None
    return _kept(given, (*batch, channels // (by * by), height * by, width * by))


def _channel_shuffle(given: Inputs, to: Attributes) -> Results:
    shape = given["self"].shape
    return _kept(given, shape) if to["groups"] > 0 and shape[1] % to["groups"] == 0 else None


def _pad(given: Inputs, to: Attributes) -> Results:
    *maps, height, width = given["self"].shape
    left, right, top, bottom = to["padding"]
    fits = min(to["padding"]) >= 0 and max(left, right) < width and max(top, bottom) < height
    return _kept(given, (*maps, height + top + bottom, width + left + right)) if fits else None


META_SHAPES_ON_CPU: Mapping[Any, ShapeFunction] = {
    **META_SHAPES,
    aten.native_layer_norm.default: _layer_norm,
    aten.native_batch_norm.default: _batch_norm,
    aten.native_group_norm.default: _group_norm,
    aten.pixel_shuffle.default: _pixel_shuffle,
    aten.channel_shuffle.default: _channel_shuffle,
    aten.reflection_pad2d.default: _pad,
    aten.replication_pad2d.default: _pad,
}
"""By operator."""
