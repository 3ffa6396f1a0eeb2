"""Recurrent layers that run as one operator: oneDNN's LSTM, where a network is traced by running it on a CPU.

Elsewhere a recurrent layer is the matrix products and elementwise operators of its steps. Hochreiter and Schmidhuber,
Long Short-Term Memory, 1997, in PyTorch's form (torch.nn.LSTM): of H units, each step of each sample takes

    four gates    a product of the input and one of the state, two biases, and their sum    8 H biases + 4 H
                  three sigmoids of 4 FLOPs and a tanh                                      13 H
    a new state   c = f c + i g and h = o tanh(c)                                           5 H
"""

from __future__ import annotations

from costmodel.graph import Operation
from costmodel.rules import Work, rule


@rule("aten.mkldnn_rnn_layer", kind="linear")
def lstm(op: Operation) -> Work:
    """One direction of one layer, over all its steps."""
    weights = [op.inputs[name].elements for name in ("weight0", "weight1")]
    return Work(macs=_steps(op) * sum(weights), vector_flops=_steps(op) * _units(op) * (22 + _biases(op)))


@rule("aten.mkldnn_rnn_layer_backward", kind="linear")
def lstm_backward(op: Operation) -> Work:
    """Each of the two products differentiated by both of its factors.

    Of elementwise work 9 H for the sigmoids, 6 H for the tanhs, 6 H products, H to add what reaches c on two ways, and
    the biases' sums.
    """
    weights = [op.inputs[name].elements for name in ("weight1", "weight2")]
    return Work(macs=2 * _steps(op) * sum(weights), vector_flops=_steps(op) * _units(op) * (22 + _biases(op)))


def _steps(op: Operation) -> int:
    """Steps of all samples."""
    tensor = op.inputs["input"]
    return tensor.elements // tensor.shape[-1]


def _units(op: Operation) -> int:
    return int(op.attributes["hidden_size"])


def _biases(op: Operation) -> int:
    return 8 if op.attributes["has_biases"] else 0
