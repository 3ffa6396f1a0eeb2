"""What a peer is asked about: a copy of the user's module, ready to run, and the inputs to run it on."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from costmodel.errors import InputError
from costmodel.tracer.inputs import materialize, tensors_in
from costmodel.tracer.meta_copy import copy_to_cpu, copy_to_meta, meta_tensor
from costmodel.tracer.torch_private import uncompiled


@dataclass(frozen=True)
class Subject:
    """A module that belongs to the peer, and its inputs."""

    network: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    train: bool
    """Whether a backward pass is wanted, of the sum of all outputs (`total_of`)."""

    device: str
    """"meta" or "cpu"."""

    def forward(self) -> Any:
        """Run it once."""
        return self.network(*self.args, **self.kwargs)


def prepare(module: nn.Module, inputs: Any, *, device: str, train: bool, run: bool) -> Subject:
    """A copy of `module` and inputs like `inputs`, on "meta" or the "cpu".

    A copy on the CPU has the module's own weights if it is to be `run` for its values, and otherwise stand-ins: every
    parameter is one zero, seen in its shape.
    """
    module = uncompiled(module)
    network = (copy_to_cpu(module) if run else copy_to_meta(module)).train(train)
    dtype = next((p.dtype for p in network.parameters() if p.dtype.is_floating_point), torch.get_default_dtype())
    if not run:
        args, kwargs = materialize(inputs, dtype, True, _like)
        if any(isinstance(m, LazyModuleMixin) and m.has_uninitialized_params() for m in network.modules()):
            with torch.no_grad():
                network(*args, **kwargs)
    if device == "cpu":
        if not run:
            _give_stand_ins(network)
        args, kwargs = materialize(inputs, dtype, False, _copy)
    return Subject(network, args, kwargs, train, device)


def total_of(outputs: Any) -> torch.Tensor:
    """The sum of every output that a gradient can flow from: a loss without contractions.

    Raises InputError if there is none.
    """
    sums = [tensor.sum() for tensor in tensors_in(outputs) if tensor.requires_grad]
    if not sums:
        raise InputError("no output of this network requires a gradient: there is nothing to train.")
    return functools.reduce(torch.add, sums)


@contextmanager
def gradients_enabled() -> Iterator[None]:
    """Run with gradients, whatever modes the caller is in: without them torch hides attention from its own counter."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


def own_parameters(network: nn.Module) -> dict[str, int]:
    """Parameters by the first module that holds each, as torch lists them."""
    held: dict[str, int] = {}
    for name, parameter in network.named_parameters():
        layer = name.rpartition(".")[0]
        held[layer] = held.get(layer, 0) + parameter.numel()
    return held


def _give_stand_ins(network: nn.Module) -> None:
    made: dict[int, torch.Tensor] = {}

    def stand_in(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            if isinstance(tensor, nn.Parameter):
                zero = torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
                made[id(tensor)] = nn.Parameter(zero, requires_grad=tensor.requires_grad)
            else:  # it may be written: a running mean
                made[id(tensor)] = torch.zeros(tensor.shape, dtype=tensor.dtype)
        return made[id(tensor)]

    kept = list(itertools.chain(network.parameters(), network.buffers()))  # so that no id is given twice
    for module in network.modules():
        tables: list[dict[str, Any]] = [module._parameters, module._buffers, module.__dict__]
        for table in tables:
            for key, tensor in table.items():
                if isinstance(tensor, torch.Tensor) and tensor.is_meta:
                    kept.append(tensor)
                    table[key] = stand_in(tensor)


def _like(tensor: torch.Tensor) -> torch.Tensor:
    return meta_tensor(tensor.detach()).requires_grad_(tensor.requires_grad)


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.is_meta:
        return torch.zeros(tensor.shape, dtype=tensor.dtype)
    return tensor.detach().to("cpu", copy=True).requires_grad_(tensor.requires_grad)
