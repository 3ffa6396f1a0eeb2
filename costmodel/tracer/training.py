"""What a training step does beyond the forward: loss, backward, optimizer step."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from costmodel.errors import InputError, nearest
from costmodel.graph import BACKWARD, LOSS_LAYER, OPTIMIZER, OPTIMIZER_LAYER
from costmodel.tracer.inputs import tensors_in
from costmodel.tracer.recorder import Recorder

Loss = Callable[[Any], torch.Tensor]
MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]

OPTIMIZERS: Mapping[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


class TrainingStep:
    """Loss, backward and optimizer step, as they were asked for. Raises InputError for what does not exist."""

    def __init__(
        self, loss: str | Loss, optimizer: str | MakeOptimizer | None, options: Mapping[str, Any], target: str
    ) -> None:
        self.loss = _loss(loss)
        self.make_optimizer = _optimizer(optimizer, options, target)
        self.optimizer: torch.optim.Optimizer | None = None
        self.settings = {"loss": _name_of(loss), "optimizer": _name_of(optimizer), **options}

    def prepare(self, network: nn.Module) -> None:
        """Make the optimizer and take its first step, so that the state of the steady state is there."""
        trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
        if not trainable:
            raise InputError("no parameter of this network requires a gradient: there is nothing to train.")
        if self.make_optimizer is None:
            return
        with _fused_on_meta():
            self.optimizer = self.make_optimizer(trainable)
            for parameter in trainable:
                parameter.grad = torch.zeros_like(parameter)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    def assign_state(self, recorder: Recorder) -> None:
        """Tell the recorder which storages are the optimizer's."""
        for state in self.optimizer.state.values() if self.optimizer else ():
            for tensor in tensors_in(state):
                recorder.assign(tensor, "optimizer state", OPTIMIZER_LAYER)

    def take_loss(self, outputs: Any, recorder: Recorder) -> torch.Tensor:
        """The loss of the network's outputs. What is alive after it was kept for the backward."""
        recorder.enter(LOSS_LAYER)
        value = self.loss(outputs)
        recorder.leave()
        if not (isinstance(value, torch.Tensor) and value.numel() == 1 and value.requires_grad):
            raise InputError("the loss is not a single number that depends on a trainable parameter.")
        if isinstance(self.loss, CrossEntropy):
            for labels in self.loss.labels:
                recorder.assign(labels, "input", "labels")
        return value

    def step(self, loss: torch.Tensor, network: nn.Module, recorder: Recorder) -> None:
        """Backward and optimizer step."""
        recorder.storages.assign_others("activation")
        recorder.phase = BACKWARD
        loss.backward()
        for name, parameter in network.named_parameters():
            if parameter.grad is not None:
                recorder.assign(parameter.grad, "gradient", name)
        if self.optimizer is not None:
            recorder.phase = OPTIMIZER
            recorder.enter(OPTIMIZER_LAYER)
            self.optimizer.step()
            recorder.leave()


@contextmanager
def _fused_on_meta() -> Iterator[None]:
    """While this lasts, optimizers let parameters on the meta device pass for their fused kernels, as on CUDA."""
    module: Any = importlib.import_module("torch.optim.optimizer")
    supported = module._get_fused_kernels_supported_devices
    module._get_fused_kernels_supported_devices = lambda: [*supported(), "meta"]
    try:
        yield
    finally:
        module._get_fused_kernels_supported_devices = supported


class CrossEntropy:
    """Cross entropy of every output of at least two dimensions against class indices (dimension 1 is the classes)."""

    def __init__(self) -> None:
        self.labels: list[torch.Tensor] = []
        """The class indices: held, as a training loop holds its batch, until the step is over."""

    def __call__(self, outputs: Any) -> torch.Tensor:
        """The sum over the outputs. Raises InputError if none has classes."""
        scores = [tensor for tensor in _floating(outputs) if tensor.dim() >= 2]
        if not scores:
            raise InputError(
                "the network's output has no classes for a cross entropy: use loss='sum' or a function of yours."
            )
        return _total(functional.cross_entropy(tensor, self._labels_for(tensor)) for tensor in scores)

    def _labels_for(self, scores: torch.Tensor) -> torch.Tensor:
        make = torch.empty if scores.is_meta else torch.zeros
        labels = make(scores.shape[:1] + scores.shape[2:], dtype=torch.int64, device=scores.device)
        self.labels.append(labels)
        return labels


def _sum(outputs: Any) -> torch.Tensor:
    return _total(tensor.sum() for tensor in _floating(outputs))


_LOSSES: Mapping[str, Callable[[], Loss]] = {"cross_entropy": CrossEntropy, "sum": lambda: _sum}


def _loss(loss: str | Loss) -> Loss:
    if callable(loss):
        return loss
    if loss not in _LOSSES:
        raise InputError(f"unknown loss {loss!r}: use 'cross_entropy', 'sum' or a function.{nearest(loss, _LOSSES)}")
    return _LOSSES[loss]()


def _optimizer(optimizer: str | MakeOptimizer | None, options: Mapping[str, Any], target: str) -> MakeOptimizer | None:
    if optimizer is None or not isinstance(optimizer, str):
        return optimizer
    if optimizer not in OPTIMIZERS:
        raise InputError(
            f"unknown optimizer {optimizer!r}: use {', '.join(OPTIMIZERS)}.{nearest(optimizer, OPTIMIZERS)}"
        )
    make = OPTIMIZERS[optimizer]
    settings = {"lr": 1e-3, "foreach": target == "cuda", **options}
    try:
        make([nn.Parameter(torch.zeros(1))], **settings)
    except (TypeError, ValueError) as error:
        raise InputError(f"{optimizer} does not take these options: {error}.") from None
    return lambda parameters: make(parameters, **settings)


def _floating(outputs: Any) -> list[torch.Tensor]:
    return [tensor for tensor in tensors_in(outputs) if tensor.is_floating_point() and tensor.requires_grad]


def _total(values: Iterable[torch.Tensor]) -> torch.Tensor:
    return functools.reduce(torch.add, values)


def _name_of(value: Any) -> str | None:
    return value if isinstance(value, str) or value is None else getattr(value, "__name__", type(value).__name__)
