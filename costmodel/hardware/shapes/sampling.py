"""What a drawn operation is, and how sizes are drawn: evenly on a logarithmic scale between limits."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

from costmodel.errors import InputError

Sampled = TypeVar("Sampled")
Shape = tuple[int, ...]
Sampler = Callable[[random.Random, "Limits"], "Case"]


class Limits(NamedTuple):
    """How large operations may be."""

    least_flops: float
    most_flops: float
    most_bytes: float
    """Of one tensor."""

    most_batch: int = 16

    least_bytes: float = 0
    """Of an operation's largest tensor, where that is to outgrow the cache."""

    def hold(self, nbytes: float) -> bool:
        """Whether an operation's largest tensor may have that many bytes."""
        return self.least_bytes <= nbytes <= self.most_bytes

    @property
    def flops(self) -> float:
        """The most FLOPs: large tensors may take longer."""
        return self.most_flops * (6 if self.least_bytes else 1)


class Case(NamedTuple):
    """One operation to time."""

    make: Callable[[], nn.Module]
    """Builds the module that runs it, with weights of its own."""

    shapes: tuple[Shape, ...]
    """Of its inputs."""

    rectified: bool = False
    """Whether its inputs are as ReLU leaves them, which branches of a max pooling depend on."""


class Call(nn.Module):
    """A function as a module; a buffer, if there is one, is its last argument."""

    def __init__(self, function: Callable[..., Any], buffer: torch.Tensor | None = None) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("buffer", buffer)

    def forward(self, *tensors: torch.Tensor) -> Any:
        """Call it."""
        return self.function(*tensors) if self.buffer is None else self.function(*tensors, self.buffer)


class Gradients(nn.Module):
    """What autograd runs for a module: `begin` is its forward, `finish` the gradients of inputs and parameters."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._begun: tuple[torch.Tensor, list[torch.Tensor], torch.Tensor] | None = None

    def begin(self, *tensors: torch.Tensor) -> None:
        """Run the forward, and keep what the gradients need."""
        with torch.enable_grad():
            inputs = [each.detach().requires_grad_() for each in tensors]
            outputs = self.module(*inputs)
            first = outputs if isinstance(outputs, torch.Tensor) else outputs[0]
        self._begun = first, [*inputs, *self.module.parameters()], torch.ones_like(first)

    def finish(self) -> Any:
        """The gradients of what was begun."""
        if self._begun is None:
            raise RuntimeError("there are no gradients of a forward that has not run")
        (first, wanted, gradient), self._begun = self._begun, None
        return torch.autograd.grad(first, wanted, gradient)

    def forward(self, *tensors: torch.Tensor) -> Any:
        """Both: what is traced."""
        self.begin(*tensors)
        return self.finish()

    def train(self, mode: bool = True) -> Gradients:
        """Its module trains in any mode: cuDNN's recurrent layers have no gradients otherwise."""
        super().train(mode)
        self.module.train()
        return self


def search(sample: Callable[[], Sampled], fits: Callable[[Sampled, Limits], bool], limits: Limits) -> Sampled:
    """The first draw that fits; where nothing large does, a smaller one."""
    for tries in range(_TRIES):
        drawn = sample()
        if fits(drawn, limits if tries < _TRIES // 2 else limits._replace(least_bytes=0)):
            return drawn
    raise InputError(f"no operation fits within {limits}: give wider limits.")


_TRIES = 20_000


def sample_number(source: random.Random, low: float, high: float) -> int:
    """A number between two others, evenly on a logarithmic scale."""
    return round(math.exp(source.uniform(math.log(low), math.log(high))))


def sample_channels(source: random.Random, low: float, high: float) -> int:
    """A number of channels, round as people choose them: mostly two or three times a power of two, at least 8."""
    drawn = sample_number(source, low, high)
    finer = 1 if source.random() < 0.7 else 4
    step = max(8, 2 ** int(math.log2(drawn / 2)) // finer)
    return max(step, round(drawn / step) * step)
