"""VGG as the book writes it (chapter 8.2): blocks of 3x3 convolutions, each block halving height and width.

An architecture is one pair (convolutions, filters) a block; those of VGG-11, 13, 16 and 19 are columns A, B, D and E of
table 1 of Simonyan and Zisserman, arXiv 1409.1556. 224x224 images leave the fifth block as 7x7 feature maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from costmodel.networks.book import BookNetwork
from costmodel.networks.heads import Head, dense, make_head

Architecture = Sequence[tuple[int, int]]

ARCHITECTURES: Mapping[str, Architecture] = {
    "vgg11": ((1, 64), (1, 128), (2, 256), (2, 512), (2, 512)),
    "vgg11-slim": ((1, 16), (1, 32), (2, 64), (2, 128), (2, 128)),  # what the book trains: filters divided by 4
    "vgg13": ((2, 64), (2, 128), (2, 256), (2, 512), (2, 512)),
    "vgg16": ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)),
    "vgg19": ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512)),
    "vgg28": ((2, 32), (2, 64), (2, 128)),  # 28x28 can be halved three times: to 14, 7 and 3
}


def vgg_block(num_convs: int, out_channels: int) -> nn.Sequential:
    """`num_convs` 3x3 convolutions with ReLU that keep height and width, and a max pool that halves them."""
    layers: list[nn.Module] = []
    for _ in range(num_convs):
        layers += [nn.LazyConv2d(out_channels, kernel_size=3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(kernel_size=2, stride=2))


class VGG(BookNetwork):
    """Blocks, a flatten and a head; the blocks are at net.0, net.1 ..."""

    WINDOW = 7
    """Height and width of the last feature maps of a 224x224 image."""

    def __init__(self, arch: Architecture, head: Head) -> None:
        blocks = (vgg_block(num_convs, out_channels) for num_convs, out_channels in arch)
        super().__init__(*blocks, *head.maps, nn.Flatten(), *head.vectors)


def vgg(arch: Architecture, num_classes: int = 10, head: str = "dense") -> VGG:
    """The VGG of any architecture: vgg(((1, 64), (1, 128), (2, 256), (2, 512), (2, 512))) is VGG-11."""
    return VGG(arch, make_head(head, num_classes, VGG.WINDOW))


def vgg11(num_classes: int = 10, head: str = "dense") -> VGG:
    """VGG-11 in the book's form, for 1x224x224; `head` may be a cheaper one ("gap", "width1024" ...)."""
    return vgg(ARCHITECTURES["vgg11"], num_classes, head)


def vgg11_slim(num_classes: int = 10, head: str = "dense") -> VGG:
    """The VGG-11 with a quarter of the filters that the book trains, for 1x224x224."""
    return vgg(ARCHITECTURES["vgg11-slim"], num_classes, head)


def vgg13(num_classes: int = 10, head: str = "dense") -> VGG:
    """VGG-13 in the book's form, for 1x224x224."""
    return vgg(ARCHITECTURES["vgg13"], num_classes, head)


def vgg16(num_classes: int = 10, head: str = "dense") -> VGG:
    """VGG-16 in the book's form, for 1x224x224."""
    return vgg(ARCHITECTURES["vgg16"], num_classes, head)


def vgg19(num_classes: int = 10, head: str = "dense") -> VGG:
    """VGG-19 in the book's form, for 1x224x224."""
    return vgg(ARCHITECTURES["vgg19"], num_classes, head)


def vgg28(num_classes: int = 10) -> VGG:
    """A VGG-like network for 1x28x28: three blocks of two convolutions, and FC layers of 512 features."""
    return VGG(ARCHITECTURES["vgg28"], dense(num_classes, width=512))
