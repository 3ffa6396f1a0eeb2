"""A network run in another way than it was written: its activations in place, or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

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
