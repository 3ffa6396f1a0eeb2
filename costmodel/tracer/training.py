"""What a training step does beyond the forward: loss, backward, optimizer step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from costmodel.errors import InputError, nearest
from costmodel.graph import BACKWARD, FORWARD, HOST, LOSS_LAYER, OPTIMIZER, OPTIMIZER_LAYER
from costmodel.tracer.inputs import tensors_in
from costmodel.tracer.recorder import Recorder
from costmodel.tracer.thread_patches import replaced_here
from costmodel.tracer.torch_private import FOREACH_DEVICES, FUSED_DEVICES, no_dispatch

Loss = Callable[[Any], torch.Tensor]
MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]

OPTIMIZERS: Mapping[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


@dataclass(frozen=True)
class Training:
    """How a training step is taken. Raises InputError for what does not exist or does not fit together.

    Without `first_step` it is a step of the steady state: the optimizer's state is there already.
    """

    loss: str | Loss = "cross_entropy"
    """"cross_entropy" (against class indices, see `CrossEntropy`), "sum", or a function from outputs to a scalar."""

    optimizer: str | MakeOptimizer | None = "sgd"
    """"sgd", "adam", "adamw", a function from parameters to an optimizer, or None to stop after the backward."""

    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of a named optimizer: lr, momentum, weight_decay, fused, foreach ... On CUDA it works on lists
    of tensors (foreach) unless told otherwise, on a CPU tensor by tensor, as torch chooses by itself."""

    first_step: bool = False
    """Whether it is the first: the optimizer makes its state, and no gradient is there before the backward."""

    set_to_none: bool = True
    """Whether the loop's `zero_grad` lets go of the gradients (torch's default). If not, the step ends by zeroing
    them, and after the first one they are alive throughout."""

    accumulate: int = 1
    """Micro-batches of the given inputs whose gradients are added up before the optimizer steps; each one's loss is
    divided by their number."""

    checkpoint: tuple[str, ...] = ()
    """The modules to run under torch.utils.checkpoint, by dotted path; `*` is any text without a dot."""

    def __post_init__(self) -> None:
        names = (self.checkpoint,) if isinstance(self.checkpoint, str) else tuple(self.checkpoint)
        object.__setattr__(self, "checkpoint", names)
        object.__setattr__(self, "optimizer_options", dict(self.optimizer_options or {}))
        if type(self.accumulate) is not int or self.accumulate < 1:
            raise InputError(f"cannot accumulate {self.accumulate!r} micro-batches: give a whole number from 1.")
        if isinstance(self.optimizer, str) and self.optimizer not in OPTIMIZERS:
            raise InputError(
                f"unknown optimizer {self.optimizer!r}: use {', '.join(OPTIMIZERS)}."
                f"{nearest(self.optimizer, OPTIMIZERS)}"
            )
        if isinstance(self.loss, str) and self.loss not in _LOSSES:
            raise InputError(
                f"unknown loss {self.loss!r}: use 'cross_entropy', 'sum' or a function.{nearest(self.loss, _LOSSES)}"
            )
        if self.optimizer_options and not isinstance(self.optimizer, str):
            raise InputError("optimizer_options belong to an optimizer given by its name.")

    @classmethod
    def asked(cls, train: bool | Training, options: Mapping[str, Any]) -> Training:
        """The training that `trace` was asked for. Raises InputError for an option that there is not."""
        known = [item.name for item in fields(cls)]
        for name in options:
            if name not in known:
                raise InputError(f"there is no option {name!r}: use {', '.join(known)}.{nearest(name, known)}")
        return replace(train if isinstance(train, Training) else cls(), **options)

    @property
    def settings(self) -> Mapping[str, Any]:
        """What was asked for, in words and numbers; what is torch's default is left out."""
        asked = {"loss": _name_of(self.loss), "optimizer": _name_of(self.optimizer), **self.optimizer_options}
        defaults = {"first_step": False, "set_to_none": True, "accumulate": 1, "checkpoint": ()}
        return asked | {name: getattr(self, name) for name, value in defaults.items() if getattr(self, name) != value}


class TrainingStep:
    """A training step on a meta copy: `prepare`, for each micro-batch `take_loss` and `backward`, then `update`."""

    def __init__(self, training: Training, target: str) -> None:
        self.training = training
        self.loss = _loss(training.loss)
        self.make_optimizer = _optimizer(training.optimizer, training.optimizer_options)
        self.optimizer: torch.optim.Optimizer | None = None
        self.target = target
        self._trainable: Mapping[str, nn.Parameter] = {}

    @property
    def settings(self) -> Mapping[str, Any]:
        """What was asked for, and what the loss took the outputs for."""
        last = isinstance(self.loss, CrossEntropy) and self.loss.classes_last
        return {**self.training.settings, **({"classes_last": True} if last else {})}

    def prepare(self, network: nn.Module, inputs: Any) -> None:
        """Make the optimizer and, for the steady state, take the step before: its state and gradients stay."""
        if isinstance(self.loss, CrossEntropy):
            self.loss.of_tokens = not any(tensor.is_floating_point() for tensor in tensors_in(inputs))
        self._trainable = {name: p for name, p in network.named_parameters() if p.requires_grad}
        if not self._trainable:
            raise InputError("no parameter of this network requires a gradient: there is nothing to train.")
        with _kernels_as_on(self.target):
            if self.make_optimizer is not None:
                self.optimizer = self.make_optimizer(list(self._trainable.values()))
            if self.training.first_step:
                return
            for parameter in self._trainable.values():
                parameter.grad = torch.zeros_like(parameter)
            if self.optimizer is not None:
                self.optimizer.step()
            network.zero_grad(set_to_none=self.training.set_to_none)

    def assign(self, recorder: Recorder) -> None:
        """Tell the recorder which storages are gradients, the optimizer's state and the loss's labels."""
        for name, parameter in self._trainable.items():
            if parameter.grad is not None:
                recorder.assign(parameter.grad, "gradient", name)
        names = {id(parameter): name for name, parameter in self._trainable.items()}
        for owned, state in self.optimizer.state.items() if self.optimizer else ():
            owner = f" of {names[id(owned)]}" if id(owned) in names else ""
            for key, value in state.items():
                for tensor in tensors_in(value):
                    here = self.target != "cuda" or tensor.is_meta
                    recorder.assign(tensor, "optimizer state" if here else HOST, f"{key}{owner}")
        for labels in self.loss.labels if isinstance(self.loss, CrossEntropy) else ():
            recorder.assign(labels, "input", "labels")

    def take_loss(self, outputs: Any, recorder: Recorder) -> torch.Tensor:
        """The loss of the network's outputs. What is alive after it was kept for the backward."""
        recorder.enter(LOSS_LAYER)
        value = self.loss(outputs)
        if not (isinstance(value, torch.Tensor) and value.numel() == 1 and value.requires_grad):
            raise InputError("the loss is not a single number that depends on a trainable parameter.")
        if self.training.accumulate > 1:
            value = value / self.training.accumulate
        recorder.leave()
        self.assign(recorder)
        return value

    def backward(self, loss: torch.Tensor, recorder: Recorder) -> None:
        """The backward of a micro-batch; the next may follow."""
        recorder.storages.assign_others("activation")
        recorder.phase = BACKWARD
        loss.backward()
        self.assign(recorder)
        recorder.phase = FORWARD

    def update(self, recorder: Recorder) -> None:
        """The optimizer's step and, where gradients are kept, their zeroing."""
        recorder.phase = OPTIMIZER
        recorder.enter(OPTIMIZER_LAYER)
        with _kernels_as_on(self.target):
            if self.optimizer is not None:
                self.optimizer.step()
            if not self.training.set_to_none:
                self._zero_gradients()
        recorder.leave()
        self.assign(recorder)

    def _zero_gradients(self) -> None:
        if self.optimizer is not None:
            self.optimizer.zero_grad(set_to_none=False)
        else:
            for parameter in self._trainable.values():
                if parameter.grad is not None:
                    parameter.grad.zero_()


def _kernels_as_on(target: str) -> AbstractContextManager[None]:
    """While this lasts, optimizers let parameters on the meta device pass for the target's where they choose a kernel:
    for fused steps, which CUDA and CPU have, and for steps on lists of tensors, which torch takes by itself on CUDA."""
    places = (FUSED_DEVICES, FOREACH_DEVICES) if target == "cuda" else (FUSED_DEVICES,)
    return replaced_here(*((place, lambda original: [*original(), "meta"]) for place in places))


class CrossEntropy:
    """Cross entropy of every output of at least two dimensions against class indices.

    Classes are dimension 1, as torch has it for one-hot scores (batch, classes, ...): segmentation, too. A language
    model's are the last of three: where a network's inputs are all whole numbers, which are tokens then, an output
    (batch, tokens, classes) is a list of batch x tokens scores.
    """

    def __init__(self) -> None:
        self.labels: list[torch.Tensor] = []
        """The class indices: held, as a training loop holds its batch, until the step is over. One for all batches."""
        self.of_tokens = False
        """Whether the network's inputs are tokens."""
        self.classes_last = False
        """Whether an output's classes were taken to be its last dimension."""

    def __call__(self, outputs: Any) -> torch.Tensor:
        """The sum over the outputs. Raises InputError if none has classes."""
        scores = [tensor for tensor in _trainable(outputs) if tensor.dim() >= 2]
        if not scores:
            raise InputError(
                "the network's output has no classes for a cross entropy: use loss='sum' or a function of yours."
            )
        if not self.labels:
            with no_dispatch():  # they come with the batch: making them is no part of the step
                self.labels = [self._labels_for(tensor) for tensor in scores]
        return _total(map(self._one, scores, self.labels))

    def _one(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self._is_of_tokens(scores):
            self.classes_last = True
            scores, labels = scores.flatten(0, 1), labels.flatten()
        return functional.cross_entropy(scores, labels)

    def _labels_for(self, scores: torch.Tensor) -> torch.Tensor:
        make = torch.empty if scores.is_meta else torch.zeros
        shape = scores.shape[:2] if self._is_of_tokens(scores) else scores.shape[:1] + scores.shape[2:]
        return make(shape, dtype=torch.int64, device=scores.device)

    def _is_of_tokens(self, scores: torch.Tensor) -> bool:
        return self.of_tokens and scores.dim() == 3


def _sum(outputs: Any) -> torch.Tensor:
    return _total(tensor.sum() for tensor in _trainable(outputs))


_LOSSES: Mapping[str, Callable[[], Loss]] = {"cross_entropy": CrossEntropy, "sum": lambda: _sum}


def _loss(loss: str | Loss) -> Loss:
    return _LOSSES[loss]() if isinstance(loss, str) else loss


def _optimizer(optimizer: str | MakeOptimizer | None, options: Mapping[str, Any]) -> MakeOptimizer | None:
    if not isinstance(optimizer, str):
        return optimizer
    build, settings = OPTIMIZERS[optimizer], {"lr": 1e-3, **options}

    def make(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return build(parameters, **settings)

    try:
        make([nn.Parameter(torch.zeros(1))])
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{optimizer} does not take these options: {str(error).rstrip('.')}.") from None
    return make


def _trainable(outputs: Any) -> list[torch.Tensor]:
    """The outputs that a loss can be taken of. Raises InputError if there are none."""
    found = [tensor for tensor in tensors_in(outputs) if tensor.is_floating_point() and tensor.requires_grad]
    if not found:
        raise InputError("no output of this network depends on a trainable parameter: there is nothing to train.")
    return found


def _total(values: Iterable[torch.Tensor]) -> torch.Tensor:
    return functools.reduce(torch.add, values)


def _name_of(value: Any) -> str | None:
    return value if isinstance(value, str) or value is None else getattr(value, "__name__", type(value).__name__)
