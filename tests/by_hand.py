"""The book's networks by hand: what each layer holds, computes and moves, from the formulas of the textbook alone.

A network is a list of layers: ("conv", filters, window, stride, padding), ("fc", outputs), ("act", FLOPs an element) or
("max" or "avg", window, stride). For N images of C x H x W and 4-byte numbers:

    conv   parameters (F²·C+1)·K, MACs N·P·Q·F²·C·K, a FLOP an output for the bias
    fc     parameters (I+1)·O, MACs N·I·O, a FLOP an output for the bias
    act    ReLU is a FLOP an element, a sigmoid 4
    max    F²-1 FLOPs an output, and an 8-byte index beside each output
    avg    F² FLOPs an output

and P = (H - F + 2·padding) / stride + 1 rounded down. What is read once and what is written once is moved.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

POOL3, POOL2, RELU, SIGMOID = ("max", 3, 2), ("max", 2, 2), ("act", 1), ("act", 4)

ALEXNET = [
    ("conv", 96, 11, 4, 1), RELU, POOL3, ("conv", 256, 5, 1, 2), RELU, POOL3,
    ("conv", 384, 3, 1, 1), RELU, ("conv", 384, 3, 1, 1), RELU, ("conv", 256, 3, 1, 1), RELU, POOL3,
    ("fc", 4096), RELU, ("fc", 4096), RELU, ("fc", 10),
]  # fmt: skip


def vgg(arch: tuple[tuple[int, int], ...]) -> list[Any]:
    """A VGG of blocks of (convolutions, filters)."""
    blocks = [layer for number, filters in arch for layer in [("conv", filters, 3, 1, 1), RELU] * number + [POOL2]]
    return [*blocks, ("fc", 4096), RELU, ("fc", 4096), RELU, ("fc", 10)]


VGG11 = vgg(((1, 64), (1, 128), (2, 256), (2, 512), (2, 512)))
VGG16 = vgg(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)))
VGG19 = vgg(((2, 64), (2, 128), (4, 256), (4, 512), (4, 512)))
LENET = [
    ("conv", 6, 5, 1, 2), SIGMOID, ("avg", 2, 2), ("conv", 16, 5, 1, 0), SIGMOID, ("avg", 2, 2),
    ("fc", 120), SIGMOID, ("fc", 84), SIGMOID, ("fc", 10),
]  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One layer."""

    kind: str
    parameters: int
    macs: int
    vector_flops: int
    read_bytes: int
    write_bytes: int
    outputs: tuple[int, ...]

    @property
    def flops(self) -> int:
        return 2 * self.macs + self.vector_flops

    @property
    def moved_bytes(self) -> int:
        return self.read_bytes + self.write_bytes

    def compute_seconds(self, tensor_peak: float, vector_peak: float) -> float:
        """Of arithmetic: a convolution's MACs run on tensor cores beside its bias, the rest on the vector units."""
        if self.kind == "conv":
            return max(2 * self.macs / tensor_peak, self.vector_flops / vector_peak)
        return self.flops / vector_peak

    def bound_seconds(
        self, tensor_peak: float = 494.7e12, vector_peak: float = 66.9e12, bandwidth: float = 4.8e12
    ) -> float:
        """The longer of arithmetic and traffic; an H200 does 494.7 TFLOP/s of TF32, 66.9 of FP32 and moves 4.8 TB/s."""
        return max(self.compute_seconds(tensor_peak, vector_peak), self.moved_bytes / bandwidth)


def rows(layers: list[Any], batch: int = 1, image: tuple[int, ...] = (1, 224, 224)) -> list[Row]:
    """The layers of a network one after another."""
    found, shape = [], image
    for kind, *numbers in layers:
        taken = math.prod(shape)
        if kind == "conv":
            filters, window, stride, padding = numbers
            height, width = ((size - window + 2 * padding) // stride + 1 for size in shape[1:])
            parameters = (window**2 * shape[0] + 1) * filters
            macs = height * width * window**2 * shape[0] * filters
            shape, vector, more = (filters, height, width), filters * height * width, 0
        elif kind == "fc":
            parameters, macs = (taken + 1) * numbers[0], taken * numbers[0]
            shape, vector, more = (numbers[0],), numbers[0], 0
        elif kind == "act":
            parameters, macs, vector, more = 0, 0, numbers[0] * taken, 0
        else:
            window, stride = numbers
            shape = (shape[0], *((size - window) // stride + 1 for size in shape[1:]))
            parameters, macs = 0, 0
            vector = math.prod(shape) * (window**2 - (kind == "max"))
            more = 8 * math.prod(shape) if kind == "max" else 0
        made = math.prod(shape)
        found.append(
            Row(
                kind, parameters, batch * macs, batch * vector, 4 * (parameters + batch * taken),
                batch * (4 * made + more), shape,
            )
        )  # fmt: skip
    return found


def bound_seconds(layers: list[Any], batch: int = 1, image: tuple[int, ...] = (1, 224, 224)) -> float:
    """The sum of the layers' bounds on an H200."""
    return math.fsum(row.bound_seconds() for row in rows(layers, batch, image))
