"""The book's networks, and any network by name, import path or file.

    networks.vgg16()                          a builder's network: weights come with its first real input
    networks.find("alexnet-gap")              a name of ours, here AlexNet with a cheaper head
    networks.find("torchvision:resnet50")     any model of torchvision's, nothing is downloaded
    networks.find("package.module:callable")  anybody's nn.Module, or what makes one
    networks.find("path/to/file.py:callable")

What `find` builds has no weights (they are on torch's meta device) unless it is asked for real ones.
"""

from __future__ import annotations

from torch.nn import Module

from costmodel.networks.alexnet import alexnet, alexnet28, alexnet_fashion, alexnet_grouped
from costmodel.networks.lenet import lenet, lenet_relu
from costmodel.networks.resolve import Network, NetworkInfo, find, names
from costmodel.networks.vgg import ARCHITECTURES, vgg, vgg11, vgg11_slim, vgg13, vgg16, vgg19, vgg28, vgg_block

__all__ = [
    "ARCHITECTURES",
    "Module",
    "Network",
    "NetworkInfo",
    "alexnet",
    "alexnet28",
    "alexnet_fashion",
    "alexnet_grouped",
    "find",
    "lenet",
    "lenet_relu",
    "names",
    "vgg",
    "vgg11",
    "vgg11_slim",
    "vgg13",
    "vgg16",
    "vgg19",
    "vgg28",
    "vgg_block",
]
