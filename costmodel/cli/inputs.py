"""From a command's options to what the library takes: a network and its trace, a device and a prediction."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from costmodel.cli.options import InputOptions, NetworkOptions, StepOptions, Tf32Options, TrainingOptions
from costmodel.errors import InputError

if TYPE_CHECKING:
    from costmodel.cost import Costs
    from costmodel.devices import Device
    from costmodel.graph import Trace
    from costmodel.networks import Network, Reference
    from costmodel.roofline import Prediction


def network(model: str, feed: NetworkOptions, real: bool = False) -> Network:
    """The network that a text names, with the inputs and classes that were asked for; `real` with weights."""
    from costmodel.networks import find

    return find(model, classes=feed.classes, real=real, shapes=feed.input)


def reference(model: str, feed: InputOptions) -> Reference:
    """The network that a text names, to be traced; it is built only if an earlier command has not traced it so."""
    from costmodel.networks import Reference

    return Reference(model, classes=feed.classes, real=feed.run, shapes=feed.input, kept=not feed.no_cache)


def traced(model: str, feed: InputOptions, step: StepOptions, device: Device | None = None) -> tuple[Reference, Trace]:
    """A network, and what it does with its inputs (on a device)."""
    options = run_options(feed, step, device)
    found = reference(model, feed)
    return found, found.trace(feed.batch, **options)


def run_options(feed: InputOptions, step: StepOptions, device: Device | None = None) -> dict[str, Any]:
    """How a network is run, in the options of `costmodel.trace`: unless told otherwise with the device's operators."""
    return {
        "train": step.train,
        "dtype": step.dtype,
        "autocast": step.autocast,
        "channels_last": step.channels_last,
        "target": step.target or (device.target if device else "cuda"),
        "run": feed.run,
        **training_options(step),
    }


def training_options(training: TrainingOptions) -> dict[str, Any]:
    """The options of a training step that were given, as `trace` takes them. Raises InputError without --train."""
    for name, value in (("momentum", training.momentum), ("weight-decay", training.weight_decay)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise InputError(f"--{name} {value} is not a number from 0: give one such as 0.9 or 5e-4.")
    optimizer = {
        "momentum": training.momentum,
        "weight_decay": training.weight_decay,
        "fused": training.fused or None,
        "foreach": training.foreach,
    }
    options: dict[str, Any] = {
        "optimizer": training.optimizer,
        "optimizer_options": {name: value for name, value in optimizer.items() if value is not None} or None,
    }
    if isinstance(training, StepOptions):
        options |= {
            "first_step": training.first_step or None,
            "set_to_none": False if training.keep_gradients else None,
            "accumulate": training.accumulate,
            "checkpoint": tuple(training.checkpoint) if training.checkpoint else None,
        }
    given = {name: value for name, value in options.items() if value is not None}
    if given and not training.train:
        raise InputError("this says how to train (--optimizer, --momentum, --checkpoint ...): give --train with it.")
    return given


def check_depth(by: str, depth: int | None) -> None:
    """Raises InputError for a depth without the blocks that it is about."""
    if depth is not None and by != "block":
        raise InputError("--depth says how deep blocks go: give --by block with it.")


def batches_of(sweep: str | None) -> list[int]:
    """The batches of "1,2,4", in order; none if nothing was asked for. Raises InputError for what is no batch."""
    if sweep is None:
        return []
    parts = [part.strip() for part in sweep.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"cannot read batches from {sweep!r}: give whole numbers from 1, like 1,2,4,8.")
    return sorted({int(part) for part in parts})


def predicted(costs: Costs, device: Device, tf32: Tf32Options, estimate: bool | None = None) -> Prediction:
    """How long the costs take on a device, with the switches of the command line."""
    from costmodel.roofline import predict

    return predict(costs, device, allow_tf32_conv=tf32.tf32_conv, allow_tf32_matmul=tf32.tf32_matmul, estimate=estimate)
