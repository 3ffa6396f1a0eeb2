"""Normalisation: y = (x - mean) / sqrt(var + eps) * weight + bias.

Per element that is a subtraction, a multiplication by the inverse deviation, a multiplication and an addition. Where
the statistics are computed from the same data (in training, and always in layer and group norm), the mean takes an
addition and the variance a subtraction, a square and an addition more. What is done once a channel or row (a square
root, a division) is counted too: 3 for each statistic, and 3 for each running one that is updated (x + m (y - x)).

The backward is that of Ioffe and Szegedy (arXiv:1502.03167): with n = (x - mean) * inverse, dx = inverse / N * weight *
(N dy - sum(dy) - n sum(dy n)), where sum(dy) is the bias's gradient and sum(dy n) the weight's.
"""

from __future__ import annotations

import math

from costmodel.graph import Operation
from costmodel.rules import Work, rule

_STATISTICS = 4  # mean: add; variance: subtract, square, add
_NORMALISE = 2  # subtract the mean, times the inverse deviation
_ONCE = 3  # a statistic: divide the sums, root, invert
_RUNNING = 3  # a running mean or variance: subtract, multiply, add

_BATCH_NORMS = (
    "aten.native_batch_norm",
    "aten._native_batch_norm_legit",
    "aten._native_batch_norm_legit_functional",
    "aten._native_batch_norm_legit_no_training",
    "aten._batch_norm_with_update",
    "aten._batch_norm_no_update",
    "aten.cudnn_batch_norm",
    "aten.miopen_batch_norm",
)


@rule(*_BATCH_NORMS, kind="norm")
def batch_norm(op: Operation) -> Work:
    """Statistics over a channel's N values in training, the running ones in evaluation."""
    x = op.inputs["input"]
    channels = x.shape[1]
    training = bool(op.attributes.get("training", op.operator in ("aten._batch_norm_with_update",)))
    flops = x.numel * (_NORMALISE + _affine(op)) + _ONCE * channels
    written = sum(tensor.nbytes for tensor in op.outputs)
    if training:
        running = [op.inputs[name] for name in ("running_mean", "running_var") if name in op.inputs]
        flops += _STATISTICS * x.numel + _RUNNING * channels * len(running)
        written += sum(tensor.nbytes for tensor in running)
    return Work(vector_flops=flops, write_bytes=written)


@rule("aten.native_batch_norm_backward", "aten.cudnn_batch_norm_backward", "aten.batch_norm_backward", kind="norm")
def batch_norm_backward(op: Operation) -> Work:
    """Two reductions (4 FLOPs an element with n recomputed: 2 + sum + multiply-sum), then dx (4)."""
    x = op.inputs["input"]
    return Work(vector_flops=_backward_flops(x.numel, op))


@rule("aten.native_layer_norm", "aten._fused_rms_norm", "aten.rms_norm", kind="norm")
def layer_norm(op: Operation) -> Work:
    """Statistics of each row; RMS norm has no mean, so it squares and adds (2) and multiplies once."""
    x = op.inputs["input"]
    rows = x.numel // math.prod(op.attributes["normalized_shape"])
    if "rms" in op.operator:
        return Work(vector_flops=x.numel * (3 + _affine(op)) + _ONCE * rows)
    return Work(vector_flops=x.numel * (_STATISTICS + _NORMALISE + _affine(op)) + _ONCE * rows)


@rule("aten.native_layer_norm_backward", "aten._fused_rms_norm_backward", kind="norm")
def layer_norm_backward(op: Operation) -> Work:
    """As for batch norm, by row."""
    return Work(vector_flops=_backward_flops(op.inputs["input"].numel, op))


@rule("aten.native_group_norm", kind="norm")
def group_norm(op: Operation) -> Work:
    """Statistics of each of the groups of each sample."""
    x = op.inputs["input"]
    statistics = op.attributes["N"] * op.attributes["group"]
    return Work(vector_flops=x.numel * (_STATISTICS + _NORMALISE + _affine(op)) + _ONCE * statistics)


@rule("aten.native_group_norm_backward", kind="norm")
def group_norm_backward(op: Operation) -> Work:
    """As for batch norm, by group."""
    return Work(vector_flops=_backward_flops(op.inputs["input"].numel, op))


@rule("aten._weight_norm_interface", kind="norm")
def weight_norm(op: Operation) -> Work:
    """w = g v / |v|: square and add for the norm, then two multiplications."""
    return Work(vector_flops=4 * op.inputs["v"].numel + 2 * op.inputs["g"].numel)


@rule("aten._weight_norm_interface_backward", kind="norm")
def weight_norm_backward(op: Operation) -> Work:
    """dg = sum(dw v) / |v|, dv = g / |v| (dw - v dg / |v|): multiply-add, then subtract and two multiplications."""
    return Work(vector_flops=5 * op.inputs["saved_v"].numel + 3 * op.inputs["saved_g"].numel)


@rule("aten.renorm", kind="norm")
def renorm(op: Operation) -> Work:
    """Square and add for the norm of each slice, then a multiplication."""
    return Work(vector_flops=3 * op.inputs["self"].numel)


@rule("aten.embedding_renorm_", kind="norm")
def embedding_renorm(op: Operation) -> Work:
    """The same for the rows that the places name, which it reads and writes in place."""
    table, places = op.inputs["self"], op.inputs["indices"]
    rows = places.numel * math.prod(table.shape[1:])
    moved = rows * table.itemsize
    return Work(vector_flops=3 * rows, read_bytes=places.nbytes + moved, write_bytes=moved)


def _affine(op: Operation) -> int:
    return ("weight" in op.inputs) + ("bias" in op.inputs)


def _backward_flops(elements: int, op: Operation) -> int:
    """n again (2), dy times the weight (1), sums of dy and of dy n (3), dx = inverse (dy - mean - n mean) (4)."""
    return elements * (_NORMALISE + ("weight" in op.inputs) + 3 + 4)
