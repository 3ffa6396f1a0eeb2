"""The operators that torchvision brings along: regions of interest, non-maximum suppression, deformable convolution."""

from __future__ import annotations

import math

from costmodel.graph import Operation
from costmodel.rules import Work, rule

_IOU = 13  # 4 corners of the overlap, 2 sides clipped at 0 (2 + 2), its area, the union (2), ratio, comparison
_BILINEAR = 7  # four products and three additions


@rule("torchvision.nms", kind="other")
def nms(op: Operation) -> Work:
    """All n (n - 1) / 2 pairs of boxes, as the CUDA kernel compares them; a CPU stops at boxes already suppressed."""
    n = op.inputs["dets"].shape[0]
    return Work(vector_flops=n + n * (n - 1) // 2 * _IOU)


@rule("torchvision.roi_align", "torchvision.ps_roi_align", kind="pool")
def roi_align(op: Operation) -> Work:
    """A mean of sampling_ratio squared bilinear samples an output.

    With a ratio that adapts to the box (at most 0) the samples depend on values: one a bin is counted, the least.
    """
    ratio = max(1, op.attributes.get("sampling_ratio", 1))
    samples = op.outputs[0].numel * ratio * ratio
    return Work(vector_flops=samples * (_BILINEAR + 1))


@rule("torchvision._roi_align_backward", "torchvision._ps_roi_align_backward", kind="pool")
def roi_align_backward(op: Operation) -> Work:
    """Each sample's gradient goes to four places: a product and an addition each."""
    ratio = max(1, op.attributes.get("sampling_ratio", 1))
    return Work(vector_flops=op.inputs["grad"].numel * ratio * ratio * 8)


@rule("torchvision.roi_pool", "torchvision.ps_roi_pool", kind="pool")
def roi_pool(op: Operation) -> Work:
    """At least one comparison an output: how many values a bin has depends on the boxes."""
    return Work(vector_flops=op.outputs[0].numel)


@rule("torchvision.deform_conv2d", kind="conv")
def deformable_convolution(op: Operation) -> Work:
    """A convolution (Dai et al., arXiv:1703.06211) whose inputs are bilinear samples, one a place of the window."""
    weight, output = op.inputs["weight"], op.outputs[0]
    pixels = output.shape[0] * math.prod(output.shape[2:])
    samples = pixels * op.inputs["input"].shape[1] * math.prod(weight.shape[2:])
    masked = bool(op.attributes.get("use_mask", False))
    return Work(macs=pixels * weight.numel, vector_flops=samples * (_BILINEAR + masked) + output.numel)
