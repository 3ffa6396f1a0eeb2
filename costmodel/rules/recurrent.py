"""Recurrent layers that run as one operator: cuDNN's on CUDA, oneDNN's LSTM on a CPU.

Elsewhere a recurrent layer is the matrix products and elementwise operators of its steps, and the counts are the same:
of H units in one direction of one layer, each step of each sample takes a product with every weight matrix, and

    LSTM   gates         the sum of two products, three sigmoids of 4 FLOPs and a tanh     4 H + 13 H
           new state     c = f c + i g and h = o tanh(c)                                   5 H
    GRU    gates         two sums, two sigmoids                                            2 H + 8 H
           candidate     n = tanh(x + r y)                                                 3 H
           new state     h = n + z (h - n)                                                 3 H
    plain  new state     h = tanh(x + y), or the ReLU of it                                2 H

with two biases a gate. The backward differentiates each product by both of its factors, whether or not anybody asks for
the gradient of the input and of the first state, and of elementwise work takes

    LSTM   9 H for the sigmoids, 6 H for the tanhs, 6 H products, H to add what reaches c on two ways        22 H
    GRU    6 H for the sigmoids, 3 H for the tanh, g z, g - g z, h - n and dz 4 H, r y 2 H, the sum of h's   16 H
    plain  3 H for the tanh (1 for a ReLU), and the sum of what reaches h on two ways                        4 H, 2 H

and the biases' sums. Sources: Hochreiter and Schmidhuber, Long Short-Term Memory, 1997; Cho et al., arXiv:1406.1078;
both in PyTorch's form (torch.nn.LSTM, torch.nn.GRU).
"""

from __future__ import annotations

from typing import NamedTuple

from costmodel.graph import Operation, TensorSpec
from costmodel.rules import Work, rule


class _Cell(NamedTuple):
    """FLOPs a unit and step outside the products."""

    gates: int
    forward: int
    backward: int


_LSTM = _Cell(4, 22, 22)
_CELLS = {0: _Cell(1, 2, 2), 1: _Cell(1, 2, 4), 2: _LSTM, 3: _Cell(3, 16, 16)}
"""By cuDNN's number: ReLU, tanh, LSTM, GRU."""

_DROPOUT, _DROPOUT_BACKWARD = 3, 2  # as of aten.native_dropout


@rule("aten.mkldnn_rnn_layer", kind="linear")
def lstm(op: Operation) -> Work:
    """One direction of one layer, over all its steps."""
    weights = [op.inputs[name].numel for name in ("weight0", "weight1")]
    return Work(macs=_steps(op) * sum(weights), vector_flops=_steps(op) * _units(op) * (_LSTM.forward + _biases(op)))


@rule("aten.mkldnn_rnn_layer_backward", kind="linear")
def lstm_backward(op: Operation) -> Work:
    """The same."""
    weights = [op.inputs[name].numel for name in ("weight1", "weight2")]
    flops = _steps(op) * _units(op) * (_LSTM.backward + _biases(op))
    return Work(macs=2 * _steps(op) * sum(weights), vector_flops=flops)


@rule("aten._cudnn_rnn", kind="linear")
def layers(op: Operation) -> Work:
    """All layers and directions, and the dropout between layers. The weights are read once, all steps' states kept."""
    cell = _CELLS[op.attributes["mode"]]
    flops = _stacked_flops(op, cell.forward, cell.gates, _DROPOUT)
    flat = op.inputs.get("weight_buf")  # the weights once more, in one block
    read = sum(tensor.nbytes for name, tensor in op.inputs.items() if name != "weight_buf")
    written = sum(tensor.nbytes for tensor in op.outputs if flat is None or tensor.storage != flat.storage)
    return Work(_steps(op) * _weights(op), flops, read, written)


@rule("aten._cudnn_rnn_backward", kind="linear")
def layers_backward(op: Operation) -> Work:
    """The same."""
    cell = _CELLS[op.attributes["mode"]]
    flops = _stacked_flops(op, cell.backward, cell.gates, _DROPOUT_BACKWARD)
    read = sum(tensor.nbytes for name, tensor in op.inputs.items() if name != "weight_buf")
    return Work(2 * _steps(op) * _weights(op), flops, read)


def _steps(op: Operation) -> int:
    """Steps of all samples."""
    tensor = op.inputs["input"]
    return tensor.numel // tensor.shape[-1]


def _units(op: Operation) -> int:
    return int(op.attributes["hidden_size"])


def _biases(op: Operation) -> int:
    return 2 * _LSTM.gates if op.attributes["has_biases"] else 0


class Matrix(NamedTuple):
    """One weight matrix of a recurrent operator."""

    outputs: int
    inputs: int
    at_each_step: bool
    """Whether a step multiplies it by what the step before made, and not all steps at once by what comes from below."""


def matrices(op: Operation) -> list[Matrix]:
    """The weight matrices of a recurrent operator, forward or backward.

    Of each layer and direction those for what comes from below and for the state, and that of a projection. Their
    tensors may be flat, as in mixed precision.
    """
    gates, projected = _CELLS[op.attributes["mode"]].gates, op.attributes.get("proj_size", 0)
    # Biases stand between the two and the projection; oneDNN's operator is one layer's in one direction.
    stride = op.attributes.get("weight_stride0", len(_listed(op)))
    found = []
    for index, tensor in enumerate(_listed(op)):
        place = index % stride
        if place < 2 or (projected and place == stride - 1):
            outputs = gates * _units(op) if place < 2 else projected
            found.append(Matrix(outputs, tensor.numel // outputs, place > 0))
    return found


def _weights(op: Operation) -> int:
    """Elements of all weight matrices."""
    return sum(matrix.outputs * matrix.inputs for matrix in matrices(op))


def _stacked_flops(op: Operation, cell: int, gates: int, dropout: int) -> int:
    """FLOPs outside the products of all layers, `cell` and two biases a gate a unit, `dropout` between layers."""
    to = op.attributes
    directions, has_biases = (2 if to["bidirectional"] else 1), to["weight_stride0"] > 3
    units = _units(op) * directions * to["num_layers"] * (cell + (2 * gates if has_biases else 0))
    between = (to["proj_size"] or _units(op)) * directions * (to["num_layers"] - 1)
    return _steps(op) * (units + (between * dropout if to["train"] and to["dropout"] else 0))


def _listed(op: Operation) -> list[TensorSpec]:
    """Weights and biases."""
    return [tensor for name, tensor in op.inputs.items() if name.startswith("weight") and name != "weight_buf"]
