"""Heads: what stands between the last convolution of AlexNet or VGG and the scores, as published and cheaper.

The fully connected (FC) layers hold most of these networks' parameters: I inputs and O outputs make (I + 1) * O. The
book asks (VGG, exercise 1) how their cost could be cut; each answer is a head here, and each is a network to count:

    dense       the head of the paper and the book: FC 4096, FC 4096, FC num_classes, with ReLU and dropout
    gap         global average pooling, then one FC layer: C inputs in place of C * H * W
    conv1x1     1x1 convolutions that score every position, then global average pooling (Lin et al., Network in
                Network, arXiv 1312.4400)
    fullconv    dense, with each FC layer written as a convolution over its whole window (Long et al., Fully
                Convolutional Networks, arXiv 1411.4038): same parameters and arithmetic, but for any size of image
    widthN      dense with N in place of 4096 features
    lowrankR    dense with each O x I weight factored into O x R and R x I: R * (I + O) in place of I * O (Girshick,
                Fast R-CNN, arXiv 1504.08083, section 3.1)
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from torch import nn

from costmodel.errors import InputError, nearest

WIDTH = 4096
"""Features of the two hidden FC layers in AlexNet's and VGG's papers."""

KINDS = ("gap", "conv1x1", "fullconv", "width1024", "lowrank256")
"""The cheaper heads, with a usual number where one is to be chosen."""

_FILTERS_1X1 = 512  # as many as VGG's last convolution has
_TITLES = {
    "dense": "fully connected head",
    "gap": "global average pooling",
    "conv1x1": "1x1 convolutions and global average pooling",
    "fullconv": "FC layers as convolutions",
    "width": "FC layers of width",
    "lowrank": "FC layers of rank",
}


class Head(NamedTuple):
    """The layers of a head; between its two parts stands a flatten."""

    maps: tuple[nn.Module, ...]
    """Layers that see feature maps (batch, channels, height, width)."""

    vectors: tuple[nn.Module, ...]
    """Layers that see vectors (batch, features)."""


def make_head(kind: str, num_classes: int, window: int) -> Head:
    """The head called `kind`.

    Args:
        kind: "dense" or one of KINDS, with any number from 1 to 4096 behind "width" and "lowrank".
        num_classes: how many scores it gives.
        window: height and width of the feature maps that it is made for; only "fullconv" depends on it.

    Raises InputError for another kind or number.
    """
    name, number = _parse(kind)
    if name == "gap":
        return Head((nn.AdaptiveAvgPool2d(1),), (nn.LazyLinear(num_classes),))
    if name == "conv1x1":
        hidden = (nn.LazyConv2d(_FILTERS_1X1, kernel_size=1), nn.ReLU(), nn.Dropout(0.5))
        return Head((*hidden, nn.LazyConv2d(num_classes, kernel_size=1), nn.AdaptiveAvgPool2d(1)), ())
    if name == "fullconv":
        first = (nn.LazyConv2d(WIDTH, kernel_size=window), nn.ReLU(), nn.Dropout(0.5))
        second = (nn.LazyConv2d(WIDTH, kernel_size=1), nn.ReLU(), nn.Dropout(0.5))
        return Head((*first, *second, nn.LazyConv2d(num_classes, kernel_size=1), nn.AdaptiveAvgPool2d(1)), ())
    if name == "lowrank":
        return _low_rank(num_classes, number)
    return dense(num_classes, number)


def dense(num_classes: int, width: int = WIDTH) -> Head:
    """Two hidden FC layers with ReLU and dropout, and one that gives the scores."""
    hidden = (
        nn.LazyLinear(width), nn.ReLU(), nn.Dropout(0.5),
        nn.LazyLinear(width), nn.ReLU(), nn.Dropout(0.5),
    )  # fmt: skip
    return Head((), (*hidden, nn.LazyLinear(num_classes)))


def replace_head(network: nn.Module, kind: str, num_classes: int) -> nn.Module:
    """Give torchvision's AlexNet or VGG (features, avgpool, flatten, classifier) another head, in place."""
    average: Any = network.avgpool
    maps, vectors = make_head(kind, num_classes, average.output_size[0])
    if kind.startswith(("gap", "conv1x1")):  # these average over whatever the convolutions leave
        network.avgpool = nn.Sequential(*maps)
    else:
        network.avgpool = nn.Sequential(average, *maps)
    network.classifier = nn.Sequential(*vectors)
    return network


def head_title(kind: str) -> str:
    """The head's name for people: "FC layers of rank 256"."""
    name, number = _parse(kind)
    return f"{_TITLES[name]} {number}" if name in ("width", "lowrank") else _TITLES[name]


def _parse(kind: str) -> tuple[str, int]:
    """A kind's name and its number: "lowrank256" is ("lowrank", 256)."""
    match = re.fullmatch(r"(width|lowrank)([0-9]+)", kind)
    if match is None:
        if kind not in _TITLES or kind in ("width", "lowrank"):
            raise InputError(f"unknown head {kind!r}: use {', '.join(KINDS)}.{nearest(kind, KINDS)}")
        return kind, WIDTH
    number = int(match[2]) if len(match[2]) <= len(str(WIDTH)) else WIDTH + 1
    if not 1 <= number <= WIDTH:
        raise InputError(
            f"head {kind!r}: its number must be from 1 to {WIDTH}, the width of the head it makes cheaper."
        )
    return match[1], number


def _low_rank(num_classes: int, rank: int) -> Head:
    """The dense head with each weight factored, where that makes it smaller."""

    def factored(features: int) -> tuple[nn.Module, ...]:
        return nn.LazyLinear(rank, bias=False), nn.LazyLinear(features)

    hidden = (
        *factored(WIDTH), nn.ReLU(), nn.Dropout(0.5),
        *factored(WIDTH), nn.ReLU(), nn.Dropout(0.5),
    )  # fmt: skip
    smaller = rank * (WIDTH + num_classes) < WIDTH * num_classes
    return Head((), (*hidden, *(factored(num_classes) if smaller else (nn.LazyLinear(num_classes),))))
