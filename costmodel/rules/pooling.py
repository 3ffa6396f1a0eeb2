"""Pooling and resampling.

A window of R x S values takes R S - 1 comparisons for its maximum, and R S - 1 additions and one division for its mean.
Max pooling writes the place of each maximum as well, an int64 an output, also in inference.
"""

from __future__ import annotations

import math

from costmodel.graph import Operation, TensorSpec
from costmodel.rules import Work, rule


@rule(
    "aten.max_pool2d_with_indices", "aten.max_pool3d_with_indices", "aten.max_pool2d", "aten.max_pool1d",
    "aten.max_pool3d", "aten.max_pool1d_with_indices", "aten.mkldnn_max_pool2d", kind="pool",
)  # fmt: skip
def max_pool(op: Operation) -> Work:
    """One comparison fewer than the window has values, an output."""
    return Work(vector_flops=op.outputs[0].numel * (_window(op) - 1))


@rule("aten.avg_pool2d", "aten.avg_pool3d", "aten.avg_pool1d", kind="pool")
def average_pool(op: Operation) -> Work:
    """Additions over the window and a division, an output."""
    return Work(vector_flops=op.outputs[0].numel * _window(op))


@rule("aten.avg_pool2d_backward", "aten.avg_pool3d_backward", kind="pool")
def average_pool_backward(op: Operation) -> Work:
    """A division an output, and an addition for each value of its window. The input is named for its shape alone."""
    gradient = op.inputs["grad_output"]
    return Work(vector_flops=gradient.numel * (_window(op) + 1), read_bytes=gradient.nbytes)


@rule("aten._adaptive_avg_pool2d", "aten._adaptive_avg_pool3d", "aten.adaptive_avg_pool1d", kind="pool")
def adaptive_average_pool(op: Operation) -> Work:
    """Additions over each window and a division an output; neighbouring windows may share a row or column."""
    return Work(vector_flops=_adaptive(next(iter(op.inputs.values())), op.outputs[0]))


@rule("aten._adaptive_avg_pool2d_backward", "aten._adaptive_avg_pool3d_backward", kind="pool")
def adaptive_average_pool_backward(op: Operation) -> Work:
    """A division an output, and an addition for each value of its window. The input is named for its shape alone."""
    gradient = op.inputs["grad_output"]
    return Work(vector_flops=_adaptive(op.outputs[0], gradient) + gradient.numel, read_bytes=gradient.nbytes)


@rule("aten.adaptive_max_pool2d", "aten.adaptive_max_pool3d", "aten.adaptive_max_pool1d", kind="pool")
def adaptive_max_pool(op: Operation) -> Work:
    """One comparison fewer than the window has values, an output."""
    output = op.outputs[0]
    return Work(vector_flops=_adaptive(next(iter(op.inputs.values())), output) - output.numel)


@rule(
    "aten.max_pool2d_with_indices_backward", "aten.max_pool3d_with_indices_backward",
    "aten.fractional_max_pool2d_backward", "aten.adaptive_max_pool2d_backward", "aten.adaptive_max_pool3d_backward",
    kind="pool",
)  # fmt: skip
def max_pool_backward(op: Operation) -> Work:
    """An addition for each output, at the place of its maximum. The input is named for its shape alone."""
    gradient, places = op.inputs["grad_output"], op.inputs["indices"]
    return Work(vector_flops=gradient.numel, read_bytes=gradient.nbytes + places.nbytes)


@rule("aten.fractional_max_pool2d", "aten.fractional_max_pool3d", kind="pool")
def fractional_max_pool(op: Operation) -> Work:
    """As max pooling, with windows in random places."""
    window = math.prod(op.attributes["kernel_size"])
    return Work(vector_flops=op.outputs[0].numel * (window - 1))


@rule("aten.max_unpool2d", "aten.max_unpool3d", kind="pool")
def max_unpool(op: Operation) -> Work:
    """Puts each value back to its place: no arithmetic."""
    return Work()


_TAPS = {
    "nearest": 0,
    "nearest_exact": 0,
    "_nearest_exact": 0,
    "linear": 2,
    "bilinear": 4,
    "trilinear": 8,
    "bicubic": 16,
}
"""Values that an interpolated one is a weighted sum of; the nearest one is copied."""


def _upsample(name: str) -> int:
    """FLOPs of an interpolated value: a multiplication for each of its values, and the additions between them."""
    mode = name.removeprefix("aten.").removesuffix("_backward")
    mode = mode.removeprefix("_upsample_").removeprefix("upsample_").removesuffix("_aa").rstrip("0123456789d")
    return 2 * _TAPS[mode] - 1 if _TAPS[mode] else 0


_UPSAMPLES = (
    "aten.upsample_nearest1d", "aten.upsample_nearest2d", "aten.upsample_nearest3d", "aten._upsample_nearest_exact1d",
    "aten._upsample_nearest_exact2d", "aten._upsample_nearest_exact3d", "aten.upsample_linear1d",
    "aten.upsample_bilinear2d", "aten.upsample_trilinear3d", "aten.upsample_bicubic2d",
)  # fmt: skip


@rule(*_UPSAMPLES, kind="pool")
def upsample(op: Operation) -> Work:
    """Each output is a weighted sum of 0 (nearest), 2, 4, 8 or 16 values."""
    return Work(vector_flops=op.outputs[0].numel * _upsample(op.operator))


@rule(*(f"{name}_backward" for name in _UPSAMPLES), kind="pool")
def upsample_backward(op: Operation) -> Work:
    """Each gradient goes to the values its output was made of: a multiplication and an addition each."""
    gradient = op.inputs["grad_output"]
    mode = _upsample(op.operator)
    return Work(vector_flops=gradient.numel * (mode + 1))


_SUPPORT = {"aten._upsample_bilinear2d_aa": 1, "aten._upsample_bicubic2d_aa": 2}
"""How far from its middle, in pixels, a filter against aliasing reaches where the image does not shrink."""


@rule(*_SUPPORT, kind="pool")
def upsample_smoothly(op: Operation) -> Work:
    """Rows, then columns: each value of a pass is a weighted sum over the filter, wider where the image shrinks."""
    passes = _passes(op.inputs["self"].shape, op.outputs[0].shape, _SUPPORT[op.operator])
    return Work(vector_flops=sum(values * (2 * taps - 1) for values, taps in passes))


@rule(*(f"{name}_backward" for name in _SUPPORT), kind="pool")
def upsample_smoothly_backward(op: Operation) -> Work:
    """Each gradient of a pass goes to the values under its filter: a multiplication and an addition each."""
    support = _SUPPORT[op.operator.removesuffix("_backward")]
    passes = _passes(op.outputs[0].shape, op.inputs["grad_output"].shape, support)
    return Work(vector_flops=sum(values * 2 * taps for values, taps in passes))


@rule("aten.affine_grid_generator", kind="linear")
def affine_grid(op: Operation) -> Work:
    """A place for each pixel: two (or three) sums of its coordinates and a 1, each times a number of the matrix."""
    grid = op.outputs[0]
    return Work(macs=grid.numel * (grid.shape[-1] + 1))


@rule("aten.grid_sampler_2d", "aten.grid_sampler_3d", kind="pool")
def grid_sample(op: Operation) -> Work:
    """A place a pixel (3 FLOPs a dimension), then as bilinear interpolation; mode 1 takes the nearest, 2 is bicubic."""
    output, grid = op.outputs[0], op.inputs["grid"]
    taps = {0: 2 ** grid.shape[-1], 1: 0, 2: 16}[op.attributes["interpolation_mode"]]
    return Work(vector_flops=output.numel * (2 * taps - 1 if taps else 0) + 3 * grid.numel)


@rule("aten.grid_sampler_2d_backward", "aten.grid_sampler_3d_backward", kind="pool")
def grid_sample_backward(op: Operation) -> Work:
    """The gradient of the input and of the grid: each as much as the forward."""
    gradient, grid = op.inputs["grad_output"], op.inputs["grid"]
    taps = {0: 2 ** grid.shape[-1], 1: 0, 2: 16}[op.attributes["interpolation_mode"]]
    return Work(vector_flops=2 * (gradient.numel * 2 * taps + 3 * grid.numel))


def _passes(old: tuple[int, ...], new: tuple[int, ...], support: int) -> list[tuple[int, int]]:
    """What a separable resize from one image (N, C, H, W) to another makes along its rows, then along its columns.

    Values, and how many each is made of: 2 x support, times the factor by which that side shrinks.
    """
    (*maps, height, width), (*_, new_height, new_width) = old, new
    rows = (math.prod(maps) * height * new_width, _taps(width, new_width, support))
    columns = (math.prod(maps) * new_height * new_width, _taps(height, new_height, support))
    return [rows, columns]


def _taps(size: int, new_size: int, support: int) -> int:
    return max(2 * support, -(-2 * support * size // new_size))


def _window(op: Operation) -> int:
    """Values of a window; a single size stands for all dimensions."""
    size = op.attributes["kernel_size"]
    size = (size,) if isinstance(size, int) else size
    dimensions = next((int(c) for c in op.operator if c in "123"), len(size))
    return math.prod(size) if len(size) == dimensions else size[0] ** dimensions


def _adaptive(x: TensorSpec, y: TensorSpec) -> int:
    """Values of all adaptive windows together: output i of O takes inputs floor(i I / O) to ceil((i + 1) I / O)."""
    covered = y.numel
    for size, out in zip(x.shape, y.shape, strict=True):
        if size != out:
            covered = covered // out * sum(-(-(i + 1) * size // out) - i * size // out for i in range(out))
    return covered
