"""Networks with recurrent layers, for the stand-in GPU."""

from __future__ import annotations

import torch
from torch import nn


class Sequences(nn.Module):
    """A recurrent layer, and a classifier of its last output."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer
        wide = (getattr(layer, "proj_size", 0) or layer.hidden_size) * (2 if layer.bidirectional else 1)
        self.classifier = nn.Linear(wide, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores (batch, 10) of sequences (steps, batch, 24), or (batch, steps, 24) if the layer takes those."""
        outputs = self.layer(x)[0]
        return self.classifier(outputs[:, -1] if self.layer.batch_first else outputs[-1])


def lstm() -> nn.Module:
    """Two layers, both ways."""
    return Sequences(nn.LSTM(24, 40, 2, bidirectional=True))


def batch_first() -> nn.Module:
    """An LSTM on sequences that lie one after the other."""
    return Sequences(nn.LSTM(24, 40, batch_first=True))


def gru() -> nn.Module:
    """One layer without biases."""
    return Sequences(nn.GRU(24, 40, bias=False))


def projected() -> nn.Module:
    """An LSTM with a projection."""
    return Sequences(nn.LSTM(24, 40, 2, proj_size=16))
