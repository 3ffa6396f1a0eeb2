"""What the networks of the book have in common: layers one after the other, held as `net`.

The book is Dive into Deep Learning (Zhang, Lipton, Li, Smola; https://d2l.ai), PyTorch edition. Its layers are lazy:
they take their numbers of input channels and features from the first input, so that building one allocates nothing and
any size of image will do.
"""

from __future__ import annotations

from typing import Any

from torch import nn


class BookNetwork(nn.Module):
    """Layers one after the other, at the paths net.0, net.1 ..."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.net = nn.Sequential(*layers)

    def forward(self, images: Any) -> Any:
        """Scores (batch, classes) of images (batch, channels, height, width)."""
        return self.net(images)
