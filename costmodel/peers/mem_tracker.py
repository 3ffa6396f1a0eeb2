"""torch's `MemTracker`: the peak of a training step, taken as a person would write it, on fake tensors of the CPU.

It sees every storage that an operator makes, and when it dies, so its peak is the sum of live requests at the
worst moment. It counts no allocator's rounding, and on fake tensors nothing is allocated. Of ours it takes the settings
of a step and the copy of the module; what is alive when, it finds by itself.

    tracked_peak(network, (8, 3, 224, 224), optimizer="adam") == memory_timeline(
        trace(network, (8, 3, 224, 224), train=True, target="cpu", optimizer="adam")
    ).peak_bytes

but for one thing: it watches as a dispatch mode, under which autograd makes a new tensor of every sum of two gradients
(`costmodel.tracer.accumulation`). Where a tensor is used twice, as in a residual connection, its peak can be higher.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from costmodel.errors import CostModelError, InputError, TraceError
from costmodel.peers.subject import gradients_enabled, prepare
from costmodel.tracer import OPTIMIZERS, Training
from costmodel.tracer.autocast import autocast_dtype
from costmodel.tracer.inputs import tensors_in
from costmodel.tracer.torch_private import fake_mode, map_tensors, mem_tracker

__all__ = ["tracked_peak"]


def tracked_peak(
    module: nn.Module,
    inputs: Any,
    *,
    autocast: str | torch.dtype | None = None,
    channels_last: bool = False,
    fake: bool = True,
    **options: Any,
) -> int:
    """The most bytes of live tensors in one training step on a CPU, by torch's MemTracker.

    Args:
        module: a network whose output is a tensor of scores, (N, classes). It is only read.
        inputs: as `trace` takes them; of tensors only the shapes, strides and types.
        autocast: "bfloat16" or "float16" for mixed precision.
        channels_last: whether 4-dimensional parameters and inputs have their channels innermost.
        fake: whether tensors are fake. Real ones take the memory and the time; they are for what fakes get wrong, such
            as batch norm in mixed precision, whose statistics a real CPU keeps in float32.
        options: of `Training`: optimizer (by its name), optimizer_options, first_step, set_to_none, accumulate. The
            loss is cross entropy against class indices.

    Raises:
        InputError: an argument cannot be used.
        TraceError: the network or the tracker raised, as it does where a parameter is frozen; or this torch has no
            MemTracker, as it was built without torch.distributed.
    """
    training, lower = Training.asked(True, options), autocast_dtype(autocast)
    if training.loss != "cross_entropy" or not isinstance(training.optimizer, str) or training.checkpoint:
        raise InputError("MemTracker is asked only about cross entropy, a named optimizer and no checkpoints.")
    tracker = mem_tracker()()
    layout = torch.channels_last if channels_last else torch.preserve_format
    try:
        with gradients_enabled():
            subject = prepare(module, inputs, device="meta", train=True, run=False)
            network = subject.network.to(memory_format=layout)
            with fake_mode()() if fake else nullcontext():
                _move_to_cpu(network)
                args, kwargs = map_tensors()(torch.Tensor, _zeros_like, (subject.args, subject.kwargs))
                return _peak_of_a_step(tracker, network, args, kwargs, training, lower, layout)
    except CostModelError:
        raise
    except Exception as error:
        text = str(error).strip().partition("\n")[0]
        raise TraceError(f"MemTracker cannot run this network: {type(error).__name__}: {text}") from error


def _peak_of_a_step(
    tracker: Any,
    network: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    training: Training,
    lower: torch.dtype | None,
    layout: torch.memory_format,
) -> int:
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not trainable:
        raise InputError("no parameter of this network requires a gradient: there is nothing to train.")
    given = list(tensors_in((args, kwargs)))
    if layout is torch.channels_last:
        for tensor in given:
            if tensor.dim() == 4:
                tensor.data = tensor.to(memory_format=layout)
    labels = torch.zeros(given[0].shape[:1], dtype=torch.int64)
    optimizer = OPTIMIZERS[str(training.optimizer)](trainable, **{"lr": 1e-3, **training.optimizer_options})

    def take_a_step() -> None:
        for _ in range(training.accumulate):
            tracker.reset_mod_stats()
            with torch.autocast("cpu", lower) if lower else nullcontext():
                loss = functional.cross_entropy(network(*args, **kwargs), labels)
                if training.accumulate > 1:
                    loss = loss / training.accumulate
            loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=training.set_to_none)

    if not training.first_step:  # the optimizer's state, and gradients of zero where they stay
        for parameter in trainable:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad(set_to_none=training.set_to_none)
    tracker.track_external(network, optimizer, *given, labels)
    with tracker:
        take_a_step()
    return int(tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"])


def _move_to_cpu(network: nn.Module) -> None:
    """Put zeros on the CPU, fake or real, in the place of a copy's meta tensors; what is shared stays shared."""
    tensors = [*network.parameters(), *network.buffers()]
    moved = {id(tensor): _zeros_like(tensor) for tensor in tensors}
    for module in network.modules():
        tables: list[dict[str, Any]] = [module._parameters, module._buffers]
        for table in tables:
            for key, tensor in table.items():
                table[key] = None if tensor is None else moved[id(tensor)]


def _zeros_like(tensor: torch.Tensor) -> torch.Tensor:
    zeros = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu").zero_()
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(zeros, requires_grad=tensor.requires_grad)
    return zeros.requires_grad_(tensor.requires_grad)
