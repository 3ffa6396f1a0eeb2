"""The class of an operation: a calibrated device has rates of its own for each.

Operations of one class run similar kernels, so that two rates and a constant describe them; convolutions by 1x1 and by
3x3 filters do not. An operation's class follows from its name and shapes alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from costmodel.cost import OperationCost
from costmodel.graph import Operation

CLASSES: Mapping[str, str] = {
    "conv_1x1": "convolutions by 1x1 filters",
    "conv_3x3": "convolutions by filters of 2 to 9 places",
    "conv_large": "convolutions by filters of 10 places and more: 5x5, 7x7, 11x11",
    "conv_stem": "convolutions of an image: fewer than 8 input channels",
    "conv_depthwise": "convolutions of each channel for itself",
    "conv_grouped": "convolutions in groups of several channels",
    "conv_backward_1x1": "gradients of conv_1x1",
    "conv_backward_3x3": "gradients of conv_3x3",
    "conv_backward_large": "gradients of conv_large",
    "conv_backward_stem": "gradients of conv_stem",
    "conv_backward_depthwise": "gradients of conv_depthwise",
    "conv_backward_grouped": "gradients of conv_grouped",
    "gemv": "products of a matrix and a vector: a fully connected layer at batch 1",
    "gemm": "products of matrices: fully connected layers, and their gradients",
    "gemm_batched": "many small products of matrices at once",
    "attention": "attention as one operation",
    "attention_backward": "gradients of attention",
    "recurrent": "recurrent layers as one operation over all steps",
    "recurrent_backward": "gradients of recurrent layers",
    "norm": "normalisation",
    "norm_backward": "gradients of normalisation",
    "pool_max": "max pooling",
    "pool_max_backward": "gradients of max pooling",
    "pool_mean": "mean pooling, interpolation",
    "pool_mean_backward": "gradients of mean pooling",
    "softmax": "softmax and its gradient",
    "elementwise": "arithmetic on each element: sums, ReLU, dropout",
    "elementwise_in_place": "the same, into the tensor that it was read from; what optimizers do with one tensor",
    "function": "elementary functions on each element: sigmoid, GELU, SiLU",
    "reduction": "sums, means and maxima",
    "copy": "what moves bytes and computes nothing: concatenation, copies, casts, padding",
    "optimizer": "optimizer steps on many tensors at once",
    "view": "what only looks at memory in another way: the host's time",
}
"""The classes, and what is in each."""

_FUNCTIONS = (
    "sigmoid", "tanh", "gelu", "silu", "exp", "log", "sin", "cos", "erf", "softplus", "mish", "elu", "selu", "celu",
    "pow", "log_sigmoid_forward",
)  # fmt: skip

_PRODUCTS = ("aten.mm", "aten.addmm", "aten.mv", "aten.addmv", "aten.dot", "aten._addmm_activation", "aten._scaled_mm")
_REDUCTIONS = (
    "sum",
    "mean",
    "amax",
    "amin",
    "max",
    "min",
    "prod",
    "var",
    "std",
    "var_mean",
    "norm",
    "linalg_vector_norm",
)


def class_of(entry: OperationCost) -> str | None:
    """The class of an operation; None if it has none."""
    operation = entry.operation
    name = operation.operator.removeprefix("aten.")
    backward = "_backward" if "backward" in name else ""
    if operation.view or not (entry.cost.flops or entry.cost.moved_bytes):
        return "view" if entry.modelled else None
    if name.startswith(("_foreach_", "_fused_adam", "_fused_sgd")):
        return "optimizer"
    if "convolution" in name:
        return f"conv{backward}_{_filter(operation)}"
    if operation.operator in _PRODUCTS:
        return "gemv" if _rows(operation) == 1 else "gemm"
    if name in ("bmm", "baddbmm"):
        return "gemm_batched"
    if "_rnn" in name and entry.cost.macs:
        return f"recurrent{backward}"
    if entry.kind == "attention":
        return f"attention{backward}"
    if "softmax" in name:
        return "softmax"
    if entry.kind == "norm":
        return f"norm{backward}"
    if entry.kind == "pool":
        return f"pool_{'max' if 'max_pool' in name else 'mean'}{backward}"
    plain = name.removesuffix("_backward").rstrip("_")
    if plain in _FUNCTIONS:
        return "function"
    if plain in _REDUCTIONS:
        return "reduction"
    if entry.modelled and not entry.cost.macs:
        if entry.cost.vector_flops:
            return "elementwise_in_place" if _in_place(operation) else "elementwise"
        return "copy"
    return None


def _filter(operation: Operation) -> str:
    """The convolution's class by its filters."""
    weight = operation.inputs["weight"].shape
    groups = operation.attributes.get("groups", 1)
    transposed = operation.attributes.get("transposed", False)
    channels = weight[0] // groups if transposed else weight[1]
    if groups > 1:
        return "depthwise" if channels == 1 else "grouped"
    places = math.prod(weight[2:])
    if channels < 8:
        return "stem"
    return "1x1" if places == 1 else "3x3" if places < 10 else "large"


def _in_place(operation: Operation) -> bool:
    """Whether it writes all outputs into its inputs."""
    taken = {tensor.storage for tensor in operation.inputs.values()}
    return bool(operation.outputs) and all(tensor.storage in taken for tensor in operation.outputs)


def _rows(operation: Operation) -> int:
    """Rows of the product, or its columns if those are fewer."""
    return min(operation.outputs[0].shape[-2:], default=1) if len(operation.outputs[0].shape) > 1 else 1
