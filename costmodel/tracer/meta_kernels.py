"""What operators of libraries return on the meta device, where torch's own kernel is missing or leaves memory out.

A recurrent layer that is trained leaves to its backward what it computed on the way, in a block of bytes that its
library lays out as it likes. For oneDNN the size is that of its source; for cuDNN, whose source is closed, it is what
the library says when it is asked (`reserve_bytes`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

_KEPT = {0: (1,), 1: (1,), 2: (4, 1), 3: (6,)}
"""Numbers that cuDNN keeps of a unit and step for the backward, part by part, by its kind of cell: the state of a plain
one, an LSTM's gates and state, and six for a GRU."""

_PAGE = 4096


def reserve_bytes(
    mode: int, rows: int, hidden: int, projected: int, layers: int, directions: int, dropout: bool, itemsize: int
) -> int:
    """The bytes that a training forward of cuDNN leaves to the backward, `rows` being steps times sequences.

    Fitted to what cudnnGetRNNTempSpaceSizes of cuDNN 9.24 answers for its standard algorithm in float32 and float16,
    byte by byte: of each unit and step what `_KEPT` says, the projection and what goes into it, the outputs of all
    layers but the last, masks where some of those are dropped, in parts of whole 32 bytes, and 256 bytes. Another
    version, or the algorithms that keep their weights on the chip (small layers in float16), may keep something else.
    """
    units = rows * directions * hidden
    numbers = [*(layers * units * kept for kept in _KEPT[mode]), (layers - 1) * units]
    if projected:
        numbers += [layers * units, layers * rows * directions * projected]
    parts = [number * itemsize for number in numbers]
    if dropout:  # a bit for each number that either direction of a layer is handed from below
        parts += [-(-units // 8)] * ((layers - 1) * directions)
    return sum(_rounded(nbytes, 32) for nbytes in parts) + 256


def workspace_bytes(steps: int, batch: int, inputs: int, hidden: int, itemsize: int) -> int:
    """The bytes that a training forward of oneDNN's LSTM leaves to the backward, for one direction of one layer.

    oneDNN's src/cpu/rnn/rnn_utils.hpp, set_workspace_sizes: gates and outputs of all steps, then states of a step more
    and of two layers, once for the forward and, in float32, for the backward. Rows are made to fill 64 bytes, but not
    multiples of 256 elements; each part begins a page of 4096 bytes.
    """
    cells, states = steps * batch, 2 * (steps + 1) * batch
    wide = max(inputs, hidden)
    parts = [
        cells * _row(4 * hidden, itemsize) * itemsize,
        cells * _row(hidden, itemsize) * itemsize,
        states * _row(wide, itemsize) * itemsize,
        states * hidden * itemsize,
        states * _row(wide, 4) * 4,
        states * _row(wide, 4) * 4,
        states * hidden * 4,
    ]
    return sum(_rounded(nbytes, _PAGE) for nbytes in parts)


def _row(elements: int, itemsize: int) -> int:
    """The elements of a row as oneDNN lays it out (rnn_utils.cpp, get_good_ld)."""
    row = _rounded(elements, 64 // itemsize)
    return row if row % 256 else row + 64 // itemsize


def _rounded(number: int, unit: int) -> int:
    return -(-number // unit) * unit


def _cudnn_rnn(
    input: torch.Tensor,
    weight: Sequence[torch.Tensor],
    weight_stride0: int,
    weight_buf: torch.Tensor | None,
    hx: torch.Tensor,
    cx: torch.Tensor | None,
    mode: int,
    hidden_size: int,
    proj_size: int,
    num_layers: int,
    batch_first: bool,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_sizes: Sequence[int],
    dropout_state: torch.Tensor | None,
) -> tuple[torch.Tensor, ...]:
    """Outputs, last states, what is left to the backward, and the weights in one block."""
    steps = input.transpose(0, 1) if batch_first else input
    directions = 2 if bidirectional else 1
    output = input.new_empty((*steps.shape[:-1], directions * (proj_size or hidden_size)))
    kept = 0
    if train:
        sizes = (math.prod(steps.shape[:2]), hidden_size, proj_size, num_layers, directions)
        kept = reserve_bytes(mode, *sizes, dropout > 0, input.element_size())
    if weight_buf is None:
        weight_buf = input.new_empty(sum(one.numel() for one in weight))
    return (
        output.transpose(0, 1) if batch_first else output,
        hx.new_empty(hx.shape),
        hx.new_empty(0) if cx is None else cx.new_empty(cx.shape),
        input.new_empty(kept, dtype=torch.uint8),
        weight_buf,
    )


def _cudnn_rnn_backward(
    input: torch.Tensor,
    weight: Sequence[torch.Tensor],
    weight_stride0: int,
    weight_buf: torch.Tensor,
    hx: torch.Tensor,
    cx: torch.Tensor | None,
    *rest: Any,
) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor | None, list[torch.Tensor]]:
    """The gradients of input, states and weights: in one block as the weights are, or copied from it without biases."""
    batch_first, output_mask = rest[8], rest[-1]
    steps = input.transpose(0, 1) if batch_first else input
    of_input = input.new_empty(steps.shape)
    gradients: list[torch.Tensor] = []
    if output_mask[3] and weight_stride0 < 4:
        gradients = [one.new_empty(one.shape) for one in weight]
    elif output_mask[3]:
        flat, begin = weight_buf.new_empty(weight_buf.shape), 0
        for one in weight:
            gradients.append(flat[begin : begin + one.numel()].view(one.shape))
            begin += one.numel()
    return (
        of_input.transpose(0, 1) if batch_first else of_input,
        hx.new_empty(hx.shape),
        None if cx is None else cx.new_empty(cx.shape),
        gradients,
    )


def _mkldnn_rnn_layer(
    input: torch.Tensor,
    weight0: torch.Tensor,
    weight1: torch.Tensor,
    weight2: torch.Tensor,
    weight3: torch.Tensor,
    hx_: torch.Tensor,
    cx_: torch.Tensor,
    *rest: Any,
) -> tuple[torch.Tensor | None, ...]:
    """Outputs, last states and, where gradients are on, what is left to the backward."""
    (steps, batch, inputs), hidden = input.shape, hx_.shape[-1]
    kept = workspace_bytes(steps, batch, inputs, hidden, input.element_size())
    return (
        input.new_empty((steps, batch, hidden)),
        hx_.new_empty(hx_.shape),
        cx_.new_empty(cx_.shape),
        input.new_empty(kept, dtype=torch.uint8) if torch.is_grad_enabled() else None,
    )


def _mkldnn_rnn_layer_backward(
    input: torch.Tensor,
    weight1: torch.Tensor,
    weight2: torch.Tensor,
    weight3: torch.Tensor,
    weight4: torch.Tensor,
    hx_: torch.Tensor,
    cx_tmp: torch.Tensor,
    *rest: Any,
) -> tuple[torch.Tensor, ...]:
    """The gradients of input, weights, both biases and states, in float32."""
    hidden = hx_.shape[-1]
    shapes = (input.shape, weight1.shape, weight2.shape, (4 * hidden,), (4 * hidden,), hx_.shape, cx_tmp.shape)
    return tuple(input.new_empty(shape, dtype=torch.float32) for shape in shapes)


aten = torch.ops.aten

META_KERNELS: Mapping[Any, Callable[..., Any]] = {
    aten._cudnn_rnn.default: _cudnn_rnn,
    aten._cudnn_rnn_backward.default: _cudnn_rnn_backward,
    aten.mkldnn_rnn_layer.default: _mkldnn_rnn_layer,
    aten.mkldnn_rnn_layer_backward.default: _mkldnn_rnn_layer_backward,
}
"""By operator. They are given meta tensors, and their results are not remembered: they depend on more than specs."""
