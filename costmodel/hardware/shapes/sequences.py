"""What runs over a sequence in one operation: attention and recurrent layers, and their gradients.

Gradients are those of a forward that ran just before, as autograd asks for them: what a forward hands on to them is the
library's own affair.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  (its usual name)

from costmodel.hardware.shapes.sampling import (
    Call,
    Case,
    Gradients,
    Limits,
    Sampler,
    Shape,
    sample_channels,
    sample_number,
    search,
)


def _attention(source: random.Random, limits: Limits) -> Case:
    def sample() -> Shape:
        width = source.choice((32, 64, 64, 128))
        return sample_number(source, 1, 32), sample_number(source, 2, 16), sample_number(source, 32, 1024), width

    def fits(shape: Shape, limits: Limits) -> bool:
        return limits.least_flops <= 4 * math.prod(shape) * shape[2] <= limits.most_flops

    shape = search(sample, fits, limits)
    return Case(lambda: Call(_attend), (shape, shape, shape))


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(query, key, value)


class _Sequence(NamedTuple):
    steps: int
    batch: int
    inputs: int
    units: int

    @property
    def flops(self) -> int:
        """Of four gates, each a product of the input and one of the state."""
        return 8 * self.steps * self.batch * self.units * (self.inputs + self.units)


def _recurrent(source: random.Random, limits: Limits) -> Case:
    def sample() -> _Sequence:
        batch = sample_number(source, 1, 4 * limits.most_batch)
        return _Sequence(
            sample_number(source, 4, 128), batch, sample_channels(source, 32, 1024), sample_channels(source, 32, 1024)
        )

    def fits(drawn: _Sequence, limits: Limits) -> bool:
        return limits.least_flops <= drawn.flops <= limits.most_flops

    drawn = search(sample, fits, limits)
    return Case(lambda: nn.LSTM(drawn.inputs, drawn.units), ((drawn.steps, drawn.batch, drawn.inputs),))


def _gradients(forward: Sampler) -> Sampler:
    """The gradients of what `forward` draws, which take some two or three times as long."""

    def case(source: random.Random, limits: Limits) -> Case:
        drawn = forward(source, limits._replace(most_flops=limits.most_flops / 2))
        return drawn._replace(make=_with_gradients(drawn.make))

    return case


def _with_gradients(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: Gradients(make())


SAMPLERS: Mapping[str, Sampler] = {
    "attention": _attention,
    "attention_backward": _gradients(_attention),
    "recurrent": _recurrent,
    "recurrent_backward": _gradients(_recurrent),
}
