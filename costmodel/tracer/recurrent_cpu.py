"""Recurrent layers on a CPU.

An LSTM in float32 is an operator of oneDNN's for each layer and direction (aten/src/ATen/native/mkldnn/RNN.cpp, where
`use_mkldnn` of aten/src/ATen/native/RNN.cpp says so). Every other layer multiplies the inputs of all its steps by their
weight at once, and then goes step by step: FullLayer, FullBidirectionalLayer and the cells of that file.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch.nn.functional import linear

from costmodel.tracer.dispatch_override import Original, Override
from costmodel.tracer.torch_private import is_onednn_enabled

_LSTM = 2
"""oneDNN's number for an LSTM."""

Hidden: TypeAlias = tuple[torch.Tensor, ...]
"""What a step hands to the next: h, and an LSTM's c."""


class _Weights(NamedTuple):
    """One layer's in one direction."""

    ih: torch.Tensor
    hh: torch.Tensor
    bias_ih: torch.Tensor | None = None
    bias_hh: torch.Tensor | None = None
    hr: torch.Tensor | None = None
    """The projection, of LSTMs that have one."""


Cell: TypeAlias = Callable[[torch.Tensor, Hidden, _Weights], Hidden]
"""A step, of the product of its inputs and what the step before left."""


def overrides_on_cpu() -> Mapping[str, Override]:
    """By operator: how a CPU runs it."""
    cells = {"lstm": _lstm_cell, "gru": _gru_cell, "rnn_tanh": _tanh_cell, "rnn_relu": _relu_cell}
    return {f"{name}.input": functools.partial(_run, cell) for name, cell in cells.items()}


def _run(
    cell: Cell,
    original: Original,
    input: torch.Tensor,
    hx: Any,
    params: Sequence[torch.Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[torch.Tensor, ...]:
    """All layers, over the steps of sequences of one length."""
    if not input.is_meta:
        return original(input, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first)
    lstm = cell is _lstm_cell
    weights = _by_layer(params, has_biases, lstm and hx[0].shape[2] != hx[1].shape[2])
    steps = input.transpose(0, 1) if batch_first else input
    dropout = dropout if train else 0.0
    if lstm and weights[0].hr is None and _is_for_onednn(input):
        output, *states = _on_onednn(steps, hx, weights, num_layers, dropout, bidirectional, batch_first, train)
    else:
        output, *states = _stack(cell, steps, hx if lstm else (hx,), weights, dropout, bidirectional)
    if batch_first:
        output = output.transpose(0, 1) if lstm else output.transpose_(0, 1)
    return (output, *states)


def _by_layer(params: Sequence[torch.Tensor], has_biases: bool, projected: bool) -> list[_Weights]:
    """The weights of each layer and direction."""
    size = (4 if has_biases else 2) + projected
    groups = [params[at : at + size] for at in range(0, len(params), size)]
    if projected and not has_biases:
        return [_Weights(ih, hh, hr=hr) for ih, hh, hr in groups]
    return [_Weights(*group) for group in groups]


def _stack(
    cell: Cell, input: torch.Tensor, hx: Hidden, weights: Sequence[_Weights], dropout: float, bidirectional: bool
) -> tuple[torch.Tensor, ...]:
    """Layer on layer (RNN.cpp, apply_layer_stack): the outputs, and the last states of all."""
    directions = 2 if bidirectional else 1
    hiddens = list(zip(*(state.unbind(0) for state in hx), strict=True))
    finals: list[Hidden] = []
    for begin in range(0, len(weights), directions):
        end = begin + directions
        input, last = _layer(cell, input, hiddens[begin:end], weights[begin:end])
        finals += last
        if dropout and end < len(weights):
            input = torch.dropout(input, dropout, True)
    # The last first: torch's C++ leaves the order to the compiler, and GCC goes from right to left.
    states = [torch.stack(parts, 0) for parts in reversed(list(zip(*finals, strict=True)))]
    return (input, *reversed(states))


def _layer(
    cell: Cell, input: torch.Tensor, hiddens: Sequence[Hidden], weights: Sequence[_Weights]
) -> tuple[torch.Tensor, list[Hidden]]:
    """One layer."""
    outputs, finals, kept = [], [], []
    for direction, hidden in enumerate(hiddens):
        products = linear(input, weights[direction].ih, weights[direction].bias_ih)
        steps = products.unbind(0)[:: -1 if direction else 1]
        hidden_states = []
        for step in steps:
            hidden = cell(step, hidden, weights[direction])
            hidden_states.append(hidden[0])
        outputs.append(torch.stack(hidden_states[:: -1 if direction else 1], 0))
        finals.append(hidden)
        kept.append(hidden_states)  # as torch does until it is through with both directions
    return (torch.cat(outputs, -1) if len(outputs) > 1 else outputs[0]), finals


def _lstm_cell(gates: torch.Tensor, hidden: Hidden, weights: _Weights) -> Hidden:
    h, c = hidden
    chunks = linear(h, weights.hh, weights.bias_hh).add_(gates).unsafe_chunk(4, 1)
    enter, forget, new, leave = chunks[0].sigmoid_(), chunks[1].sigmoid_(), chunks[2].tanh_(), chunks[3].sigmoid_()
    c = (forget * c).add_(enter * new)
    h = leave * c.tanh()
    return (h if weights.hr is None else torch.matmul(h, weights.hr.t())), c


def _gru_cell(gates: torch.Tensor, hidden: Hidden, weights: _Weights) -> Hidden:
    (h,) = hidden
    reset_in, update_in, new_in = gates.unsafe_chunk(3, 1)
    reset, update, new = linear(h, weights.hh, weights.bias_hh).unsafe_chunk(3, 1)
    reset = reset.add_(reset_in).sigmoid_()
    update = update.add_(update_in).sigmoid_()
    new = new_in.add(new.mul_(reset)).tanh_()
    return ((h - new).mul_(update).add_(new),)


def _tanh_cell(gates: torch.Tensor, hidden: Hidden, weights: _Weights) -> Hidden:
    return (linear(hidden[0], weights.hh, weights.bias_hh).add_(gates).tanh(),)


def _relu_cell(gates: torch.Tensor, hidden: Hidden, weights: _Weights) -> Hidden:
    return (linear(hidden[0], weights.hh, weights.bias_hh).add_(gates).relu(),)


def _is_for_onednn(input: torch.Tensor) -> bool:
    """Whether oneDNN runs an LSTM of this input."""
    onednn = torch.backends.mkldnn
    lower: dict[torch.dtype, Callable[[], bool]] = {
        torch.bfloat16: lambda: torch.ops.mkldnn._is_mkldnn_bf16_supported(),
        torch.float16: lambda: not torch.is_grad_enabled() and torch.ops.mkldnn._is_mkldnn_fp16_supported(),
    }
    if not (onednn.is_available() and is_onednn_enabled() and input.numel()):
        return False
    return bool(input.dtype == torch.float32 or (input.dtype in lower and lower[input.dtype]()))


def _on_onednn(
    input: torch.Tensor,
    hx: Sequence[torch.Tensor],
    weights: Sequence[_Weights],
    num_layers: int,
    dropout: float,
    bidirectional: bool,
    batch_first: bool,
    train: bool,
) -> tuple[torch.Tensor, ...]:
    """An LSTM, layer on layer (mkldnn/RNN.cpp, mkldnn_rnn)."""
    layer_input = input = input.contiguous()
    h, c = hx[0].contiguous(), hx[1].contiguous()
    directions, hidden_size = (2 if bidirectional else 1), hx[0].shape[2]
    last_h, last_c = [], []
    for begin in range(0, len(weights), directions):
        outputs = []
        for at in range(begin, begin + directions):
            own, first = weights[at], (h[at], c[at])
            output, new_h, new_c, _ = torch.ops.aten.mkldnn_rnn_layer(
                *(layer_input, own.ih, own.hh, *_biases(own), *first, at > begin, (), _LSTM),
                *(hidden_size, num_layers, own.bias_ih is not None, bidirectional, batch_first, train),
            )
            outputs.append(output)
            last_h.append(new_h)
            last_c.append(new_c)
        layer_input = torch.cat(outputs, -1) if bidirectional else outputs[0]
        if dropout and begin + directions < len(weights):
            layer_input = torch.dropout(layer_input, dropout, True)
    return layer_input, torch.stack(last_h, 0), torch.stack(last_c, 0)


def _biases(weights: _Weights) -> tuple[torch.Tensor, torch.Tensor]:
    """A layer's biases; where it has none, zeros of its weights' shapes, the second of which torch makes first."""
    if weights.bias_ih is not None and weights.bias_hh is not None:
        return weights.bias_ih, weights.bias_hh
    second, first = (torch.zeros(like.shape, dtype=like.dtype, device=like.device) for like in (weights.hh, weights.ih))
    return first, second
