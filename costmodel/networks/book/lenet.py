"""LeNet-5 as the book writes it, and with what came later (book, chapter 7.6 and exercise 7 of chapter 8.1).

For one 28x28 grey image:

    6 filters 5x5, padding 2   6 x 28 x 28
    average pool 2x2           6 x 14 x 14
    16 filters 5x5             16 x 10 x 10
    average pool 2x2           16 x 5 x 5
    FC 120, 84, num_classes
"""

from __future__ import annotations

from torch import nn

from costmodel.networks.book import BookNetwork


class LeNet(BookNetwork):
    """LeNet-5 (LeCun et al. 1998) without its Gaussian last layer, as the book has it."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(
            nn.LazyConv2d(6, kernel_size=5, padding=2), nn.Sigmoid(),
            nn.AvgPool2d(kernel_size=2, stride=2),
            nn.LazyConv2d(16, kernel_size=5), nn.Sigmoid(),
            nn.AvgPool2d(kernel_size=2, stride=2),
            nn.Flatten(),
            nn.LazyLinear(120), nn.Sigmoid(),
            nn.LazyLinear(84), nn.Sigmoid(),
            nn.LazyLinear(num_classes),
        )  # fmt: skip


class LeNetReLU(BookNetwork):
    """LeNet-5 with two ideas of AlexNet's: ReLU for the sigmoid, and dropout behind the hidden FC layers."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(
            nn.LazyConv2d(6, kernel_size=5, padding=2), nn.ReLU(),
            nn.AvgPool2d(kernel_size=2, stride=2),
            nn.LazyConv2d(16, kernel_size=5), nn.ReLU(),
            nn.AvgPool2d(kernel_size=2, stride=2),
            nn.Flatten(),
            nn.LazyLinear(120), nn.ReLU(), nn.Dropout(0.5),
            nn.LazyLinear(84), nn.ReLU(), nn.Dropout(0.5),
            nn.LazyLinear(num_classes),
        )  # fmt: skip


def lenet(num_classes: int = 10) -> LeNet:
    """LeNet-5 in the book's form, for 1x28x28."""
    return LeNet(num_classes)


def lenet_relu(num_classes: int = 10) -> LeNetReLU:
    """LeNet-5 with ReLU and dropout, for 1x28x28."""
    return LeNetReLU(num_classes)
