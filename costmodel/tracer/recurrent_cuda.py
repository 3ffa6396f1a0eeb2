"""Recurrent layers on CUDA: cuDNN runs a stack of layers, all steps and both directions, as one operator.

As aten/src/ATen/native/cudnn/RNN.cpp does it, where `use_cudnn` of aten/src/ATen/native/RNN.cpp says so. The weights
lie side by side in one block of memory, which is what `RNNBase.flatten_parameters` sees to when a module moves to CUDA;
where they do not, the operator copies them together at every call.

Packed sequences hang on values, so no static trace has them. Left out are the state of cuDNN's random numbers, which a
process with dropout between layers keeps (some 2 MB), and what the operator takes while it runs: a workspace, copies of
tensors whose batch comes first, zeros for gradients of last states that nobody used, and in the backward of layers
without biases the block that their gradients are copied from.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from costmodel.tracer.dispatch_override import Original, Override
from costmodel.tracer.torch_private import address, recurrent_weights

MODES = {"rnn_relu": 0, "rnn_tanh": 1, "lstm": 2, "gru": 3}
"""cuDNN's numbers for the kinds of cells, by torch's operators."""

_GATES = {"RNN_RELU": 1, "RNN_TANH": 1, "LSTM": 4, "GRU": 3}
_CUDNN_TAKES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def overrides_on_cuda() -> Mapping[str, Override]:
    """By operator: how CUDA runs it."""
    return {f"{name}.input": functools.partial(_run, mode) for name, mode in MODES.items()}


def flatten_weights(modules: Iterable[nn.Module]) -> None:
    """Lay the weights of each recurrent layer, on the meta device, side by side, as `flatten_parameters` does on CUDA.

    cuDNN's block has room for both biases of a layer that has none.
    """
    for module in modules:
        if not isinstance(module, nn.RNNBase) or not torch.backends.cudnn.enabled:
            continue
        weights = recurrent_weights(module)
        plain = all(isinstance(weight, nn.Parameter) and weight.dtype in _CUDNN_TAKES for weight in weights)
        if not plain or len({weight.dtype for weight in weights}) > 1 or len(set(map(id, weights))) < len(weights):
            continue
        gates = _GATES[module.mode] * module.hidden_size
        layers = module.num_layers * (2 if module.bidirectional else 1)
        room = sum(weight.numel() for weight in weights) + (0 if module.bias else 2 * gates * layers)
        flat, begin = weights[0].data.new_empty(room), 0
        for weight in weights:
            weight.data = flat[begin : begin + weight.numel()].view(weight.shape)
            begin += weight.numel()


def _run(
    mode: int,
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
    if not (torch.backends.cudnn.enabled and input.is_meta and input.dtype in _CUDNN_TAKES and input.numel()):
        return original(input, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first)
    hx, cx = hx if mode == MODES["lstm"] else (hx, None)
    hidden = (hx if cx is None else cx).shape[2]
    projected = hx.shape[2] if hx.shape[2] != hidden else 0
    stride = (4 if has_biases else 2) + bool(projected)
    output, hy, cy, *_ = torch.ops.aten._cudnn_rnn(
        *(input, params, stride, _flat(params), hx, cx, mode, hidden, projected, num_layers),
        *(batch_first, dropout, train, bidirectional, (), None),
    )
    return (output, hy) if cx is None else (output, hy, cy)


def _flat(params: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """The block that the weights lie in, if they lie in one (RNN.cpp, try_get_weight_buf)."""
    first = params[0].untyped_storage()
    if any(address(weight.untyped_storage()) != address(first) for weight in params[1:]):
        return None
    return torch.empty(0, dtype=params[0].dtype, device=params[0].device).set_(first)  # type: ignore[call-overload]
