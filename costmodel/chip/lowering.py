"""Trace -> loop nests: which dimension of each contraction becomes which loop of a `Nest`.

A convolution or a product is one nest; attention is two, the scores and the weighted values; a recurrent layer's matrix
is one nest for what comes from below, and one a step for what comes from the step before. The backward pass of a
convolution is two nests: the input's gradient is the transposed convolution; the weight's is a convolution whose window
is the output's gradient, whose batch is the input channels and which sums over the batch:

    grad_weight[c, k, r, s] += input[c, n, r dilation + p stride - padding, ...] * grad_output[n, k, p, q]

A convolution over three dimensions is a nest if along one of them no two windows meet and none meets padding: outputs
along it are further images, and its taps further input channels (of a transposed one, inputs and output channels). That
is one with a single tap along some dimension, as in R(2+1)D, and a video transformer's embedding of patches.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from costmodel.chip.nests import Nest, Nests, Unlowered
from costmodel.chip.unfused import unfused_numel
from costmodel.cost import Costs, OperationCost, count
from costmodel.errors import InputError
from costmodel.graph import Operation, TensorSpec, Trace
from costmodel.rules.recurrent import matrices


def lower(network: Trace | Costs) -> Nests:
    """The loop nests of every contraction of a trace, forward and backward, in the order of execution.

    Their MACs and those of `Nests.unlowered` (a convolution whose windows overlap along three dimensions, a product of
    three tensors) add up to the count's. Raises InputError for a network that has no contraction to lower, and for
    anything but a trace or costs.
    """
    if not isinstance(network, (Trace, Costs)):
        raise InputError(
            f"loop nests come from a trace or its costs, not from {type(network).__name__!r}: "
            "costmodel.trace(module, inputs) makes one."
        )
    costs = network if isinstance(network, Costs) else count(network)
    nests: list[Nest] = []
    lost: list[tuple[OperationCost, str]] = []
    for entry in costs.operations:
        if not entry.modelled:
            lost.append((entry, "no rule says what it costs"))
        elif entry.cost.macs:
            made = nests_of(entry.operation)
            nests += made
            if not made:
                lost.append((entry, _why_not(entry.operation)))
    if not nests:
        have = ", ".join(dict.fromkeys(entry.operation.operator for entry, _ in lost))
        raise InputError(
            f"{costs.trace.model} has no contraction (convolution or matrix product) with a loop nest"
            + (f": only {have}." if have else ".")
        )
    shape = costs.trace.inputs[0].shape if costs.trace.inputs else ()
    images = shape[0] if shape else 1
    return Nests(costs.trace.model, tuple(nests), _unlowered(lost), images, unfused_numel(costs))


def nests_of(operation: Operation) -> tuple[Nest, ...]:
    """The loop nests of one operation; none if it is not a contraction, or has no loop nest."""
    lowering = _LOWERINGS.get(operation.operator)
    made = lowering(operation) if lowering else ()
    return tuple(nest for nest in made if nest.macs)


def _convolution(op: Operation) -> Iterable[Nest]:
    nest = _conv(op, op.inputs["input"], op.inputs["weight"], op.outputs[0])
    return (nest,) if nest else ()


def _convolution_backward(op: Operation) -> Iterable[Nest]:
    forward = _conv(op, op.inputs["input"], op.inputs["weight"], op.inputs["grad_output"])
    if forward is None:
        return
    for_input, for_weight, _ = op.attributes["output_mask"]
    if for_input:
        yield replace(
            forward,
            operator=f"{op.operator} (input)",
            transposed=not forward.transposed,
            **_swapped(forward, "out_channels", "in_channels"),
            **_swapped(forward, "out_rows", "in_rows"),
            **_swapped(forward, "out_columns", "in_columns"),
        )
    if for_weight:  # its window is the forward's pixels; what the window slides over is the other tensor
        windowed = "out" if forward.transposed else "in"
        pixels = "in" if forward.transposed else "out"

        def get(side: str, what: str) -> int:
            return int(getattr(forward, f"{side}_{what}"))

        yield replace(
            forward,
            operator=f"{op.operator} (weight)",
            transposed=False,
            batch=get(windowed, "channels"),
            out_channels=get(pixels, "channels"),
            in_channels=forward.batch,
            out_rows=forward.filter_rows,
            out_columns=forward.filter_columns,
            filter_rows=get(pixels, "rows"),
            filter_columns=get(pixels, "columns"),
            stride=forward.dilation,
            dilation=forward.stride,
            in_rows=get(windowed, "rows"),
            in_columns=get(windowed, "columns"),
        )


class _Axis(NamedTuple):
    """One dimension of a convolution."""

    outputs: int = 1
    inputs: int = 1
    taps: int = 1
    stride: int = 1
    dilation: int = 1
    padding: int = 0

    def apart(self, transposed: bool) -> bool:
        """Whether no two windows meet, and none meets padding; and a transposed one's fill the output."""
        if transposed:
            side_by_side = self.inputs == 1 or self.stride == self.taps
            dense = self.dilation == 1 and self.outputs == self.inputs * self.taps
            return not self.padding and dense and side_by_side
        reach = (self.taps - 1) * self.dilation + 1
        return not self.padding and (self.outputs == 1 or reach <= self.stride)


def _conv(op: Operation, data: TensorSpec, weight: TensorSpec, output: TensorSpec) -> Nest | None:
    """The nest of the forward convolution; None if there is none. A batch may be missing."""
    spatial = len(weight.shape) - 2
    transposed = bool(op.attributes.get("transposed", False))
    groups = int(op.attributes.get("groups", 1))
    batch = math.prod(data.shape[: -spatial - 1])
    out_channels, in_channels = (tensor.shape[-spatial - 1] // groups for tensor in (output, data))
    settings = (_each(op.attributes[name], spatial) for name in ("stride", "dilation", "padding"))
    axes = [
        _Axis(*sizes)
        for sizes in zip(output.shape[-spatial:], data.shape[-spatial:], weight.shape[2:], *settings, strict=True)
    ]
    if spatial == 1:
        axes.insert(0, _Axis())
    if spatial == 3:
        folded = next((axis for axis in axes if axis.apart(transposed)), None)
        if folded is None:
            return None
        axes.remove(folded)
        batch *= folded.inputs if transposed else folded.outputs
        out_channels *= folded.taps if transposed else 1
        in_channels *= 1 if transposed else folded.taps
    rows, columns = axes
    return Nest(
        op.layer,
        op.operator,
        "conv",
        batch=batch,
        groups=groups,
        out_channels=out_channels,
        in_channels=in_channels,
        out_rows=rows.outputs,
        out_columns=columns.outputs,
        filter_rows=rows.taps,
        filter_columns=columns.taps,
        stride=(rows.stride, columns.stride),
        dilation=(rows.dilation, columns.dilation),
        padding=((rows.padding,) * 2, (columns.padding,) * 2),
        in_rows=rows.inputs,
        in_columns=columns.inputs,
        transposed=transposed,
        phase=op.phase,
    )


def _product(op: Operation) -> Iterable[Nest]:
    """Rows of the first matrix are the batch; the second matrix is the weights."""
    first, second = list(op.inputs.values())[:2]
    yield _matmul(op, first, second)


def _product_and_sum(op: Operation) -> Iterable[Nest]:
    first, second = (op.inputs[name] for name in _factors(op))
    if op.operator == "aten.addbmm":  # sums over its batch too
        groups, rows, summed = first.shape
        yield _linear(op, batch=rows, in_channels=groups * summed, out_channels=second.shape[-1])
    else:
        yield _matmul(op, first, second)


def _matmul(op: Operation, first: TensorSpec, second: TensorSpec) -> Nest:
    if len(second.shape) == 1:  # a matrix or a vector times a vector: the first factor is the weights
        return _linear(op, in_channels=second.shape[0], out_channels=math.prod(first.shape[:-1]))
    *leading, rows, summed = first.shape
    columns, groups = second.shape[-1], math.prod(leading)
    if groups > 1 and second.strides[0] == 0:  # one matrix, expanded
        return _linear(op, batch=groups * rows, in_channels=summed, out_channels=columns)
    if groups > 1 and first.strides[0] == 0:
        return _linear(op, batch=rows, in_channels=summed, out_channels=groups * columns)
    return _linear(op, groups=groups, batch=rows, in_channels=summed, out_channels=columns)


def _attention(op: Operation) -> Iterable[Nest]:
    """Scores, then values. Query heads that share a key's head are rows of one product."""
    query, key, value = (op.inputs[name].shape for name in ("query", "key", "value"))
    heads, shared = math.prod(query[:-2]), math.prod(key[:-2])
    rows = query[-2] * (heads // shared)
    for part, summed, out in (("scores", query[-1], key[-2]), ("values", key[-2], value[-1])):
        yield replace(_linear(op, summed, out, rows, shared), operator=f"{op.operator} ({part})", kind="attention")


def _attention_backward(op: Operation) -> Iterable[Nest]:
    """Scores once more, then the gradients of values, probabilities, queries and keys."""
    query, key, value = (op.inputs[name].shape for name in ("query", "key", "value"))
    heads, shared = math.prod(query[:-2]), math.prod(key[:-2])
    rows, keys, size, size_v = query[-2] * (heads // shared), key[-2], query[-1], value[-1]
    for part, batch, summed, out in (
        ("scores", rows, size, keys),
        ("value", keys, rows, size_v),
        ("probabilities", rows, size_v, keys),
        ("query", rows, keys, size),
        ("key", keys, rows, size),
    ):
        yield replace(_linear(op, summed, out, batch, shared), operator=f"{op.operator} ({part})", kind="attention")


def _recurrent(op: Operation) -> Iterable[Nest]:
    """The layer's input is multiplied for all steps at once, the state of the step before at each step."""
    steps, batch = _steps_of(op)
    for out, summed, at_each_step in matrices(op):
        whole = _linear(op, summed, out, batch if at_each_step else steps * batch)
        yield from itertools.repeat(whole, steps if at_each_step else 1)


def _recurrent_backward(op: Operation) -> Iterable[Nest]:
    """The input's gradient as the product was computed; that of the weights sums over all steps."""
    steps, batch = _steps_of(op)
    for out, summed, at_each_step in matrices(op):
        of_input = _linear(op, out, summed, batch if at_each_step else steps * batch)
        yield from itertools.repeat(replace(of_input, operator=f"{op.operator} (input)"), steps if at_each_step else 1)
        yield replace(_linear(op, steps * batch, summed, out), operator=f"{op.operator} (weight)")


def _steps_of(op: Operation) -> tuple[int, int]:
    """Steps and sequences of a recurrent operator."""
    first, second, _ = op.inputs["input"].shape
    batch_first = "cudnn" in op.operator and op.attributes["batch_first"]  # oneDNN's operator takes steps first
    return (second, first) if batch_first else (first, second)


def _linear(op: Operation, in_channels: int, out_channels: int, batch: int = 1, groups: int = 1) -> Nest:
    return Nest(op.layer, op.operator, "linear", batch, groups, out_channels, in_channels, phase=op.phase)


_FUSED_ATTENTION = (
    "aten._scaled_dot_product_flash_attention",
    "aten._scaled_dot_product_efficient_attention",
    "aten._scaled_dot_product_cudnn_attention",
    "aten._scaled_dot_product_flash_attention_for_cpu",
    "aten._scaled_dot_product_fused_attention_overrideable",
)

_LOWERINGS: Mapping[str, Callable[[Operation], Iterable[Nest]]] = {
    **dict.fromkeys(
        ("aten.convolution", "aten._convolution", "aten.convolution_overrideable", "aten.mkldnn_convolution"),
        _convolution,
    ),
    "aten.convolution_backward": _convolution_backward,
    **dict.fromkeys(
        ("aten.mm", "aten.bmm", "aten.mv", "aten.dot", "aten.vdot", "aten._scaled_mm", "aten._int_mm"), _product
    ),
    **dict.fromkeys(
        ("aten.addmm", "aten._addmm_activation", "aten.baddbmm", "aten.addmv", "aten.addbmm"), _product_and_sum
    ),
    **dict.fromkeys(_FUSED_ATTENTION, _attention),
    **{f"{name}_backward": _attention_backward for name in _FUSED_ATTENTION},
    **dict.fromkeys(("aten._cudnn_rnn", "aten.mkldnn_rnn_layer"), _recurrent),
    **dict.fromkeys(("aten._cudnn_rnn_backward", "aten.mkldnn_rnn_layer_backward"), _recurrent_backward),
}


def _factors(op: Operation) -> tuple[str, str]:
    return next(pair for pair in (("mat1", "mat2"), ("batch1", "batch2"), ("mat", "vec")) if pair[0] in op.inputs)


def _each(value: Any, spatial: int) -> tuple[int, ...]:
    """A setting for each dimension; one number stands for all."""
    sizes = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return sizes if len(sizes) == spatial else sizes * spatial


def _swapped(nest: Nest, a: str, b: str) -> dict[str, Any]:
    return {a: getattr(nest, b), b: getattr(nest, a)}


def _why_not(op: Operation) -> str:
    weight = op.inputs.get("weight")
    if "convolution" in op.operator and weight is not None:
        return f"a convolution whose windows overlap along {len(weight.shape) - 2} dimensions"
    return "not a product of two tensors that a nest can say"


def _unlowered(lost: list[tuple[OperationCost, str]]) -> tuple[Unlowered, ...]:
    alike: dict[tuple[str, str, str], list[OperationCost]] = {}
    for entry, why in lost:
        alike.setdefault((entry.operation.operator, why, entry.operation.phase), []).append(entry)
    rows = []
    for (operator, why, phase), own in alike.items():
        macs = sum(entry.cost.macs for entry in own) if own[0].modelled else None
        layers = tuple(dict.fromkeys(entry.operation.layer for entry in own))
        rows.append(Unlowered(operator, why, len(own), layers, macs, phase))
    return tuple(rows)
