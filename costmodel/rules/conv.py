"""Convolutions, forward and backward.

A convolution with K output channels, C input channels in each of g groups, a filter window of R x S and P x Q output
pixels makes every output from (C / g) R S products:

    MACs = N K P Q (C / g) R S = N P Q x (elements of the weight)

A transposed convolution is the same sum seen from the other side, so its input pixels stand where the output's were.
Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285.
"""

from __future__ import annotations

import math

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
