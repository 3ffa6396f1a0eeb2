"""The book's networks, and any network by name, import path or file.

    networks.vgg16()                          a builder's network: weights come with its first real input
    networks.find("alexnet-gap")              a name of ours, here AlexNet with a cheaper head
    networks.find("torchvision:resnet50")     any model of torchvision's, nothing is downloaded
    networks.find("package.module:callable")  anybody's nn.Module, or what makes one
    networks.find("path/to/file.py:callable")

    networks.traced("alexnet", batch=32)      the trace of any of these; known networks need no torch for it

What `find` builds has no weights (they are on torch's meta device) unless it is asked for real ones. Names are loaded
on first use: what is built needs torch, what is kept does not.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.nn import Module

    from costmodel.networks.book.alexnet import alexnet, alexnet28, alexnet_fashion, alexnet_grouped
    from costmodel.networks.book.lenet import lenet, lenet_relu
    from costmodel.networks.book.vgg import ARCHITECTURES, vgg, vgg11, vgg11_slim, vgg13, vgg16, vgg19, vgg28, vgg_block
    from costmodel.networks.listing import NetworkInfo, names
    from costmodel.networks.reference import Reference, traced
    from costmodel.networks.resolve import Network, find

__all__ = [
    "ARCHITECTURES",
    "Module",
    "Network",
    "NetworkInfo",
    "Reference",
    "alexnet",
    "alexnet28",
    "alexnet_fashion",
    "alexnet_grouped",
    "find",
    "lenet",
    "lenet_relu",
    "names",
    "traced",
    "vgg",
    "vgg11",
    "vgg11_slim",
    "vgg13",
    "vgg16",
    "vgg19",
    "vgg28",
    "vgg_block",
]

_HOMES = {
    "torch.nn": ("Module",),
    "costmodel.networks.listing": ("NetworkInfo", "names"),
    "costmodel.networks.reference": ("Reference", "traced"),
    "costmodel.networks.resolve": ("Network", "find"),
    "costmodel.networks.book.alexnet": ("alexnet", "alexnet28", "alexnet_fashion", "alexnet_grouped"),
    "costmodel.networks.book.lenet": ("lenet", "lenet_relu"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((home for home, names in _HOMES.items() if name in names), "costmodel.networks.book.vgg")
    return getattr(importlib.import_module(home), name)
