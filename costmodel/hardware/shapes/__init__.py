"""The operations that a calibration runs: drawn at random, class by class, none taken from a network.

A `Case` is a module and the shapes of its inputs. Sizes are drawn evenly on a logarithmic scale between limits that
suit the device, with the same seed each time. What a case demands is not stated here: it is traced and counted as any
network is, so that calibration and prediction cannot differ in how they count.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

from costmodel.hardware.shapes import convolutions, images, products, sequences
from costmodel.hardware.shapes.sampling import Case, Gradients, Limits, Sampler

__all__ = ["SAMPLERS", "Case", "Gradients", "Limits", "cases"]

SAMPLERS: Mapping[str, Sampler] = {
    **convolutions.SAMPLERS,
    **products.SAMPLERS,
    **sequences.SAMPLERS,
    **images.SAMPLERS,
}
"""What draws an operation of each class."""


def cases(name: str, count: int, limits: Limits, seed: int = 0) -> Iterator[Case]:
    """`count` operations of a class, each within the limits."""
    source = random.Random(f"{seed} {name}")
    for number in range(count):
        large = number % _LARGE_EACH == _LARGE_EACH - 1
        yield SAMPLERS[name](source, limits if large else limits._replace(least_bytes=0))


_LARGE_EACH = 7
"""One shape in this many has a tensor larger than any cache."""
