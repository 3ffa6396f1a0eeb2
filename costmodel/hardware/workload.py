"""A network on a device with its inputs, ready to run again and again: what is timed, and what is profiled."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.profiler import record_function

from costmodel.errors import InputError
from costmodel.graph import BACKWARD, LOSS_LAYER, OPTIMIZER, OPTIMIZER_LAYER
from costmodel.hardware.profiles.host import LAYER, PHASE
from costmodel.hardware.record import PrecisionSettings
from costmodel.tracer.inputs import floating_dtype, materialize, tensors_in
from costmodel.tracer.meta_copy import surround
from costmodel.tracer.training import CrossEntropy, Training, TrainingStep

_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


class Workload:
    """A copy of a network on a device, and random inputs for it. The network that it was given is only read.

    Raises InputError for a network without weights, an unknown dtype or memory format, and TrainingStep's for what
    cannot be trained.
    """

    def __init__(
        self,
        network: nn.Module,
        inputs: Any,
        device: torch.device,
        *,
        dtype: str | None = None,
        training: Training | None = None,
        memory_format: str = "contiguous",
    ) -> None:
        if any(tensor.is_meta for tensor in (*network.parameters(), *network.buffers())):
            raise InputError("this network has no weights to run with: build it for real (find(..., real=True)).")
        if memory_format not in _FORMATS:
            raise InputError(f"unknown memory format {memory_format!r}: use {', '.join(_FORMATS)}.")
        wanted, layout = floating_dtype(dtype), _FORMATS[memory_format]
        self.device = device
        self.network = copy.deepcopy(network).train(training is not None)
        self.network.to(device=device, dtype=wanted, memory_format=layout)  # type: ignore[call-overload]  # not all three
        floating = (p.dtype for p in self.network.parameters() if p.dtype.is_floating_point)
        self.dtype = wanted or next(floating, torch.get_default_dtype())

        def place(tensor: torch.Tensor) -> torch.Tensor:
            kind = self.dtype if tensor.is_floating_point() else None
            laid = layout if tensor.dim() == 4 else None
            return tensor.to(device=device, dtype=kind, memory_format=laid)

        args, kwargs = materialize(inputs, self.dtype, False, lambda tensor: tensor.detach().clone())
        self.args = tuple(_mapping(value, place) for value in args)
        self.kwargs = {name: _mapping(value, place) for name, value in kwargs.items()}
        self.training, self.optimizer = training, None
        if training is not None:
            _check_plain(training)
            step = TrainingStep(training, device.type)
            self.loss: Any = RandomLabels() if isinstance(step.loss, CrossEntropy) else step.loss
            trainable = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
            if not trainable:
                raise InputError("no parameter of this network requires a gradient: there is nothing to train.")
            self.optimizer = step.make_optimizer(trainable) if step.make_optimizer else None

    def run(self, annotated: bool = False) -> None:
        """One forward without gradients, or one training step; `annotated` for the profiler (see `profiles.host`)."""

        def inside(name: str) -> AbstractContextManager[Any]:
            return record_function(name) if annotated else nullcontext()

        if self.training is None:
            with torch.no_grad():
                self.network(*self.args, **self.kwargs)
            return
        for parameter in self.network.parameters():
            parameter.grad = None
        outputs = self.network(*self.args, **self.kwargs)
        with inside(LAYER + LOSS_LAYER):
            loss = self.loss(outputs)
        del outputs
        with inside(PHASE + BACKWARD):
            loss.backward()
        if self.optimizer is not None:
            with inside(PHASE + OPTIMIZER), inside(LAYER + OPTIMIZER_LAYER):
                self.optimizer.step()

    @contextmanager
    def annotated(self) -> Iterator[None]:
        """While this lasts, each module says its path to the profiler when it runs."""
        before = {module: module.__dict__.get("forward") for module in self.network.modules()}
        surround(self.network, lambda path: record_function(LAYER + path))
        try:
            yield
        finally:
            for module, forward in before.items():
                module.__dict__.pop("forward")
                if forward is not None:
                    module.__dict__["forward"] = forward


@contextmanager
def applied(settings: PrecisionSettings) -> Iterator[None]:
    """PyTorch's settings as given, and afterwards as they were."""
    places: Mapping[tuple[Any, str], bool] = {
        (torch.backends.cudnn, "allow_tf32"): settings.cudnn_allow_tf32,
        (torch.backends.cuda.matmul, "allow_tf32"): settings.matmul_allow_tf32,
        (torch.backends.cudnn, "benchmark"): settings.cudnn_benchmark,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions of torch have other names for two of these
        before = {place: getattr(*place) for place in places}
        _set(places)
        try:
            yield
        finally:
            _set(before)


def _set(places: Mapping[tuple[Any, str], bool]) -> None:
    for (module, name), value in places.items():
        setattr(module, name, value)


class RandomLabels(CrossEntropy):
    """Cross entropy against random class indices."""

    def __call__(self, outputs: Any) -> torch.Tensor:
        """The sum over the outputs."""
        if not self.labels:
            scores = [each for each in tensors_in(outputs) if each.requires_grad and each.dim() >= 2]
            self.labels = [
                torch.randint(each.shape[1], each.shape[:1] + each.shape[2:], device=each.device) for each in scores
            ]
        return super().__call__(outputs)


def _check_plain(training: Training) -> None:
    """Raises InputError for a way of training that is traced and not measured."""
    if training.settings.keys() & {"first_step", "set_to_none", "accumulate", "checkpoint"}:
        raise InputError("what is measured is a plain step of the steady state: no first step, no micro-batches ...")


def _mapping(value: Any, place: Any) -> Any:
    """The tensors inside an argument, put where they belong."""
    if isinstance(value, torch.Tensor):
        return place(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_mapping(item, place) for item in value)
    if isinstance(value, Mapping):
        return {key: _mapping(item, place) for key, item in value.items()}
    return value
