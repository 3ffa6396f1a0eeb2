"""AlexNet as the book writes it, as its authors wrote it, and two that are small enough for Fashion-MNIST.

The book's (chapter 8.1), for one 224x224 grey image:

    96 filters 11x11, stride 4, padding 1   96 x 54 x 54
    max pool 3x3, stride 2                  96 x 26 x 26
    256 filters 5x5, padding 2              256 x 26 x 26
    max pool                                256 x 12 x 12
    384, 384, 256 filters 3x3, padding 1    256 x 12 x 12
    max pool                                256 x 5 x 5
    FC 4096, 4096, num_classes                  from 6400 features
"""

from __future__ import annotations

from torch import nn

from costmodel.networks.book import BookNetwork
from costmodel.networks.heads import Head, dense, make_head


class AlexNet(BookNetwork):
    """The book's AlexNet: one column of convolutions, no normalization, and a head."""

    WINDOW = 5
    """Height and width of the last feature maps of a 224x224 image."""

    def __init__(self, head: Head) -> None:
        super().__init__(
            nn.LazyConv2d(96, kernel_size=11, stride=4, padding=1), nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.LazyConv2d(256, kernel_size=5, padding=2), nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.LazyConv2d(384, kernel_size=3, padding=1), nn.ReLU(),
            nn.LazyConv2d(384, kernel_size=3, padding=1), nn.ReLU(),
            nn.LazyConv2d(256, kernel_size=3, padding=1), nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
            *head.maps, nn.Flatten(), *head.vectors,
        )  # fmt: skip


class GroupedAlexNet(BookNetwork):
    """AlexNet as published (Krizhevsky, Sutskever, Hinton, NIPS 2012) and as Caffe's bvlc_alexnet has it.

    Its two GPUs see each other's channels only in the third convolution: the second, fourth and fifth are grouped.
    Local response normalization, with Caffe's constants, follows the first two.
    """

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__(
            nn.LazyConv2d(96, kernel_size=11, stride=4), nn.ReLU(),
            nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.LazyConv2d(256, kernel_size=5, padding=2, groups=2), nn.ReLU(),
            nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.LazyConv2d(384, kernel_size=3, padding=1), nn.ReLU(),
            nn.LazyConv2d(384, kernel_size=3, padding=1, groups=2), nn.ReLU(),
            nn.LazyConv2d(256, kernel_size=3, padding=1, groups=2), nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Flatten(), *dense(num_classes).vectors,
        )  # fmt: skip


class FashionAlexNet(BookNetwork):
    """AlexNet for ten kinds of clothes (exercise 5.1): a quarter of the filters, an eighth of the FC features.

    A quarter is what the book itself does to VGG-11. The geometry is AlexNet's, so it still takes 224x224.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(
            nn.LazyConv2d(24, kernel_size=11, stride=4, padding=1), nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.LazyConv2d(64, kernel_size=5, padding=2), nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.LazyConv2d(96, kernel_size=3, padding=1), nn.ReLU(),
            nn.LazyConv2d(96, kernel_size=3, padding=1), nn.ReLU(),
            nn.LazyConv2d(64, kernel_size=3, padding=1), nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Flatten(), *dense(num_classes, width=512).vectors,
        )  # fmt: skip


class AlexNet28(BookNetwork):
    """An AlexNet that takes 28x28 directly (exercise 5.2): a 5x5 window with stride 1 in place of 11x11 with stride 4.

    Its filters are those that one of the two GPUs of 2012 held: 48, 128, 192, 192, 128. Feature maps are 28x28, pooled
    to 13x13, 6x6 and 2x2.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(
            nn.LazyConv2d(48, kernel_size=5, padding=2), nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.LazyConv2d(128, kernel_size=5, padding=2), nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.LazyConv2d(192, kernel_size=3, padding=1), nn.ReLU(),
            nn.LazyConv2d(192, kernel_size=3, padding=1), nn.ReLU(),
            nn.LazyConv2d(128, kernel_size=3, padding=1), nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Flatten(), *dense(num_classes, width=512).vectors,
        )  # fmt: skip


def alexnet(num_classes: int = 10, head: str = "dense") -> AlexNet:
    """AlexNet in the book's form, for 1x224x224; `head` may be a cheaper one ("gap", "width1024" ...)."""
    return AlexNet(make_head(head, num_classes, AlexNet.WINDOW))


def alexnet_grouped(num_classes: int = 1000) -> GroupedAlexNet:
    """The original AlexNet with grouped convolutions, for 3x227x227: what published timings and chips ran."""
    return GroupedAlexNet(num_classes)


def alexnet_fashion(num_classes: int = 10) -> FashionAlexNet:
    """AlexNet simplified for Fashion-MNIST, for 1x224x224."""
    return FashionAlexNet(num_classes)


def alexnet28(num_classes: int = 10) -> AlexNet28:
    """An AlexNet-like network for 1x28x28."""
    return AlexNet28(num_classes)
