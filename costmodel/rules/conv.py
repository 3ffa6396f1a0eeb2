"""Convolutions, forward and backward.

A convolution with K output channels, C input channels in each of g groups, a filter window of R x S and P x Q output
pixels makes every output from (C / g) R S products:

    MACs = N K P Q (C / g) R S = N P Q x (elements of the weight)

A transposed convolution is the same sum seen from the other side, so its input pixels stand where the output's were.
Where windows are further apart than they are wide, as those of a 1x1 convolution with stride 2, what lies between them
is not read: of a side of n pixels the windows meet those at o s + j d - p for output pixels o and taps j, as far as
they are 0 to n - 1.
Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285.
"""

from __future__ import annotations

import math
from typing import Any

from costmodel.graph import Operation, TensorSpec
from costmodel.rules import Work, rule


@rule("aten.convolution", "aten._convolution", "aten.convolution_overrideable", "aten.mkldnn_convolution", kind="conv")
def convolution(op: Operation) -> Work:
    """N P Q x weight elements MACs, and one addition an output element for a bias."""
    output = op.outputs[0]
    pixels = op.inputs["input"] if op.attributes.get("transposed", False) else output
    return Work(
        macs=_macs(pixels, op.inputs["weight"]),
        vector_flops=output.numel if "bias" in op.inputs else 0,
        read_bytes=_read_bytes(op, output.shape),
    )


@rule("aten.convolution_backward", kind="conv")
def convolution_backward(op: Operation) -> Work:
    """Each of the input's and the weight's gradient is a convolution with as many MACs as the forward.

    The bias's gradient sums the output's gradient: one addition an element. `output_mask` says which of (input, weight,
    bias) are asked for.
    """
    gradient, weight = op.inputs["grad_output"], op.inputs["weight"]
    pixels = op.inputs["input"] if op.attributes.get("transposed", False) else gradient
    for_input, for_weight, for_bias = op.attributes["output_mask"]
    return Work(
        macs=(for_input + for_weight) * _macs(pixels, weight),
        vector_flops=gradient.numel if for_bias else 0,
        read_bytes=_read_bytes(op, gradient.shape),
    )


@rule("aten.conv_tbc", kind="conv")
def convolution_of_time(op: Operation) -> Work:
    """A convolution over the first dimension: (time, batch, channels) with a weight (window, channels in, out)."""
    window, channels, _ = op.inputs["weight"].shape
    output = op.outputs[0]
    return Work(macs=output.numel * window * channels, vector_flops=output.numel)


def _macs(pixels: TensorSpec, weight: TensorSpec) -> int:
    """Batch x pixels x weight elements; a tensor without a batch has one dimension fewer than the weight."""
    spatial = len(weight.shape) - 2
    batch = math.prod(pixels.shape[: len(pixels.shape) - spatial - 1])
    return batch * math.prod(pixels.shape[len(pixels.shape) - spatial :]) * weight.numel


def _read_bytes(op: Operation, outputs: tuple[int, ...]) -> int | None:
    """Bytes read if windows do not meet all of the input; None if each input is read once, as usual."""
    if op.attributes.get("transposed", False) or "stride" not in op.attributes:
        return None
    image, window = op.inputs["input"], op.inputs["weight"].shape[2:]
    stride, dilation, padding = (_each(op, name, len(window)) for name in ("stride", "dilation", "padding"))
    sides = image.shape[len(image.shape) - len(window) :]
    counts = outputs[len(outputs) - len(window) :]
    geometry = list(zip(sides, window, counts, stride, dilation, padding, strict=True))
    if not any(step > apart * (taps - 1) + 1 for _, taps, _, step, apart, _ in geometry):
        return None
    met = math.prod(_met(*side) for side in geometry)
    unread = image.nbytes // math.prod(sides) * (math.prod(sides) - met) if math.prod(sides) else 0
    return sum(tensor.nbytes for tensor in set(op.inputs.values())) - unread


def _met(side: int, taps: int, outputs: int, stride: int, dilation: int, padding: int) -> int:
    """How many of a side's pixels the windows meet; all of them where windows touch or overlap."""
    if stride <= dilation * (taps - 1) + 1:
        return side
    starts = (output * stride - padding for output in range(outputs))
    return sum(0 <= start + tap * dilation < side for start in starts for tap in range(taps))


def _each(op: Operation, name: str, dimensions: int) -> tuple[int, ...]:
    """An attribute that is given for each dimension, or once for all."""
    values: Any = op.attributes[name]
    return tuple(values) * dimensions if len(values) == 1 else tuple(values)
