"""A network run in another way than it was written: its activations in place, or not; on images of another size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from costmodel.errors import CostModelError
from costmodel.graph import Trace
from costmodel.networks.resolve import Network
from costmodel.tracer import Shape, trace

_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.SiLU, nn.Mish, nn.Hardtanh, nn.Hardswish,
                nn.Hardsigmoid, nn.Threshold, nn.RReLU)  # fmt: skip


@contextmanager
def in_place(network: nn.Module, wanted: bool | None) -> Iterator[None]:
    """While this lasts, the network's activation modules overwrite their input (True) or do not (False).

    None leaves them as they are. Activations that are function calls stay as they were written.
    """
    changed = [m for m in network.modules() if isinstance(m, _ACTIVATIONS) and m.inplace is (not wanted)]
    changed = [] if wanted is None else changed
    for module in changed:
        module.inplace = bool(wanted)
    try:
        yield
    finally:
        for module in changed:
            module.inplace = not wanted


def resized(network: Network, factor: float, batch: int = 1, **options: Any) -> Trace | None:
    """The trace of a network on images with `factor` times as many rows and columns; None if it does not take them.

    Lazy layers follow the image; layers whose sizes were fixed for another one do not take it. Nor is there another
    size of what is no single image of three dimensions. The options are those of `costmodel.trace`.
    """
    shapes = network.input_shapes
    if len(shapes) != 1 or len(shapes[0].sizes) != 3 or network.needs_run:
        return None
    channels, rows, columns = shapes[0].sizes
    image = Shape((channels, max(1, round(rows * factor)), max(1, round(columns * factor))), shapes[0].dtype)
    try:
        return trace(network.module, network.inputs(batch, [image]), name=network.name, **options)
    except CostModelError:
        return None


_RESOLUTIONS = {"images of half the resolution": 0.5, "images of twice the resolution": 2.0}
_DOES_NOTHING = "to convolutions' weights, and to FC layers behind adaptive pooling"


def other_resolutions(network: Network, batch: int = 1, **options: Any) -> list[tuple[str, Trace, str]]:
    """What `costmodel.what_ifs` takes as `extra`: images of other sizes, without those that the network does not take.

    The options are those of `costmodel.trace`.
    """
    found = ((name, resized(network, factor, batch, **options)) for name, factor in _RESOLUTIONS.items())
    return [(name, trace, _DOES_NOTHING) for name, trace in found if trace is not None]
