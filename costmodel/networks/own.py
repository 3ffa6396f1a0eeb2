"""Our own networks by name: the book's, and those of them that can have a cheaper head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from torch import nn

from costmodel.networks.book.alexnet import alexnet, alexnet28, alexnet_fashion, alexnet_grouped
from costmodel.networks.book.lenet import lenet, lenet_relu
from costmodel.networks.book.vgg import vgg11, vgg11_slim, vgg13, vgg16, vgg19, vgg28
from costmodel.networks.build import build
from costmodel.networks.heads import KINDS, head_title
from costmodel.tracer import Shape


class _Entry(NamedTuple):
    title: str
    make: Callable[..., nn.Module]
    input: tuple[int, ...] = (1, 224, 224)
    classes: int = 10
    headed: bool = False


_ENTRIES: Mapping[str, _Entry] = {
    "lenet": _Entry("LeNet-5 (book)", lenet, (1, 28, 28)),
    "lenet-relu": _Entry("LeNet-5 with ReLU and dropout", lenet_relu, (1, 28, 28)),
    "alexnet": _Entry("AlexNet (book)", alexnet, headed=True),
    "alexnet-fashion": _Entry("AlexNet for Fashion-MNIST", alexnet_fashion),
    "alexnet28": _Entry("AlexNet for 28x28", alexnet28, (1, 28, 28)),
    "alexnet-grouped": _Entry("AlexNet (2012, grouped)", alexnet_grouped, (3, 227, 227), 1000),
    "vgg11": _Entry("VGG-11 (book)", vgg11, headed=True),
    "vgg11-slim": _Entry("VGG-11, slim (book)", vgg11_slim, headed=True),
    "vgg13": _Entry("VGG-13 (book)", vgg13, headed=True),
    "vgg16": _Entry("VGG-16 (book)", vgg16, headed=True),
    "vgg19": _Entry("VGG-19 (book)", vgg19, headed=True),
    "vgg28": _Entry("VGG for 28x28", vgg28, (1, 28, 28)),
}

NAMES = tuple(_ENTRIES)
"""The networks' names."""

VARIANTS = tuple(f"{name}-{kind}" for name, entry in _ENTRIES.items() if entry.headed for kind in KINDS)
"""The networks with the usual cheaper heads; other widths and ranks are found as well."""


def split(name: str) -> tuple[str, str] | None:
    """A name as a network of ours and its head: "vgg16-gap" is ("vgg16", "gap"); its own head is "".

    None if it is not ours. Whether there is such a head is for `make` to say.
    """
    if name in _ENTRIES:
        return name, ""
    base, _, kind = name.rpartition("-")
    return (base, kind) if kind and base in _ENTRIES and _ENTRIES[base].headed else None


def title(base: str, kind: str = "") -> str:
    """The network's name for people: "AlexNet (book), global average pooling"."""
    return _ENTRIES[base].title + (f", {head_title(kind)}" if kind else "")


def input_shapes(base: str) -> tuple[Shape, ...]:
    """What it takes, without the batch."""
    return (Shape(_ENTRIES[base].input),)


def class_count(base: str) -> int:
    """How many classes it tells apart."""
    return _ENTRIES[base].classes


def make(base: str, kind: str, classes: int | None, real: bool, inputs: Sequence[Shape]) -> nn.Module:
    """Build the network; real weights are those for `inputs`. Raises InputError for an unknown head."""
    entry = _ENTRIES[base]
    options = {"head": kind} if kind else {}
    return build(lambda: entry.make(num_classes=classes or entry.classes, **options), real, inputs)
