"""From a command's options to what the library takes: a network and its trace, a device and a prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.cli.options import Feed, Step, Tf32
from costmodel.errors import InputError

if TYPE_CHECKING:
    from costmodel.cost import Costs
    from costmodel.devices import Device
    from costmodel.graph import Trace
    from costmodel.networks import Network
    from costmodel.roofline import Prediction


def network(model: str, feed: Feed) -> Network:
    """The network that a text names, with the inputs and classes that were asked for."""
    from costmodel.networks import find

    return find(model, classes=feed.classes, real=feed.run, shapes=feed.input)


def traced(model: str, feed: Feed, step: Step) -> tuple[Network, Trace]:
    """A network, and what it does with its inputs."""
    options = {"momentum": step.momentum, "weight_decay": step.weight_decay}
    given = {name: value for name, value in options.items() if value is not None}
    if not step.train and (given or step.optimizer):
        raise InputError("--optimizer, --momentum and --weight-decay say how to train: give --train with them.")
    found = network(model, feed)
    from costmodel.tracer import trace

    return found, trace(
        found.module,
        found.inputs(feed.batch),
        train=step.train,
        optimizer=step.optimizer or "sgd",
        optimizer_options=given,
        dtype=step.dtype,
        target=step.target,
        run=feed.run,
        name=found.name,
    )


def machine(name: str) -> Device:
    """The device that a text names."""
    from costmodel.devices import device

    return device(name)


def predicted(costs: Costs, device: Device, tf32: Tf32) -> Prediction:
    """How long the costs take on a device."""
    from costmodel.roofline import predict

    return predict(costs, device, allow_tf32_conv=tf32.tf32_conv, allow_tf32_matmul=tf32.tf32_matmul)
