"""From the text that names a network to the network: ours, torchvision's, or anybody's by import path or file."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from costmodel.errors import CostModelError, InputError
from costmodel.graph import Trace
from costmodel.networks import imported, own, zoo
from costmodel.networks.listing import NetworkInfo
from costmodel.networks.variants import in_place
from costmodel.tracer import Shape, parse_shape, trace

_TORCHVISION = "torchvision:"

_MOST_ELEMENTS = 2**40
"""Of an input. Torch counts a tensor's bytes in 64 bits and does not say when they overflow: this leaves room for
activations a million times as large."""


@dataclass(frozen=True)
class Network:
    """A network that was found, with what it is fed."""

    name: str
    """Its name in full: "alexnet", "torchvision:vgg16", "pkg.mod:callable"."""

    title: str
    """Its name for people: "AlexNet (book)"."""

    module: nn.Module = field(repr=False)
    """Without weights (meta tensors; lazy layers stay lazy), or with real ones where `find` was asked for them."""

    input_shapes: tuple[Shape, ...]
    """Its inputs without the batch; empty if nobody said what it takes."""

    needs_run: bool = False
    """Whether it is a detection model: fed a list of images, with control flow that depends on values, so that only a
    real run can trace it."""

    def inputs(self, batch: int = 1, shapes: Sequence[Shape | str] | None = None) -> tuple[Any, ...] | dict[str, Shape]:
        """What `costmodel.tracer.trace` takes for `batch` samples of the network's own shapes, or of those given: by
        their names if they have some.

        Raises InputError for a batch below 1, for a network that does not say what it takes, and for names of some.
        """
        if type(batch) is not int or batch < 1:
            raise InputError(f"a batch of {batch!r} cannot be run: it must be a whole number of at least 1.")
        chosen = _parsed(shapes) or self.input_shapes
        if not chosen:
            raise InputError(f"{self.name} does not say what it takes: give --input CxHxW, one for each input.")
        most = _MOST_ELEMENTS // max(math.prod(shape.sizes) for shape in chosen)
        if batch > most:
            raise InputError(f"a batch of {batch} is too large for a tensor's size: give at most {most}.")
        if self.needs_run:
            return ([*chosen] * batch,)
        fed = [replace(shape, sizes=(batch, *shape.sizes)) for shape in chosen]
        named = {shape.name: shape for shape in fed if shape.name}
        if named and len(named) < len(fed):
            raise InputError("name every input, each once, or none: --input NAME=SIZES.")
        return named or tuple(fed)

    def trace(self, batch: int = 1, *, inplace: bool | None = None, **options: Any) -> Trace:
        """What it does with a batch. The options are those of `costmodel.trace`, which says what is raised.

        `inplace` is whether activation modules overwrite their input; None leaves them as they are.
        """
        with in_place(self.module, inplace):
            return trace(self.module, self.inputs(batch), **{"name": self.name, **options})

    def resized(self, factor: float, batch: int = 1, **options: Any) -> Trace | None:
        """What it does with images of `factor` times as many rows and columns; None if it does not take them.

        Lazy layers follow the image; layers whose sizes were fixed for another one do not take it. Nor is there another
        size of what is no single image of three dimensions. The options are those of `costmodel.trace`.
        """
        if len(self.input_shapes) != 1 or len(self.input_shapes[0].sizes) != 3 or self.needs_run:
            return None
        (usual,) = self.input_shapes
        channels, rows, columns = usual.sizes
        image = replace(usual, sizes=(channels, max(1, round(rows * factor)), max(1, round(columns * factor))))
        try:
            return trace(self.module, self.inputs(batch, [image]), **{"name": self.name, **options})
        except CostModelError:
            return None


def find(
    spec: str, *, classes: int | None = None, real: bool = False, shapes: Sequence[Shape | str] | None = None
) -> Network:
    """The network that a text names.

    Args:
        spec: a name of ours ("vgg16", "alexnet-gap"), "torchvision:NAME", "package.module:callable" or
            "path/file.py:callable". Case matters only in the last two.
        classes: how many classes it tells apart; the network's own number if None.
        real: with weights, on the CPU and from a fixed seed, in place of meta tensors.
        shapes: its inputs without the batch, in place of its own.

    Raises InputError, with the nearest names, if there is no such network.
    """
    if classes is not None and (type(classes) is not int or classes < 1):
        raise InputError(f"{classes!r} classes cannot be told apart: it must be a whole number of at least 1.")
    spec, wanted = spec.strip(), _parsed(shapes)
    if spec.lower().startswith(_TORCHVISION):
        return _torchvision(spec.lower().removeprefix(_TORCHVISION), classes, real, wanted)
    if ":" in spec:
        module, declared = imported.load(spec, classes, real)
        return Network(spec, spec, module, wanted or declared)
    return _own(spec, classes, real, wanted)


def list_names() -> list[NetworkInfo]:
    """What `names` gives, from the networks themselves."""
    listed = []
    for name in (*own.NAMES, *own.VARIANTS):
        base, kind = own.split(name) or (name, "")
        group = "variants" if kind else "book"
        listed.append(
            NetworkInfo(name, own.title(base, kind), group, _text(own.input_shapes(base)), own.class_count(base))
        )
    for name in (*zoo.names(), *zoo.VARIANTS):
        base, kind = zoo.split(name)
        group = "torchvision variants" if kind else f"torchvision {zoo.purpose(base)}"
        shapes = _text(zoo.input_shapes(base))
        listed.append(NetworkInfo(_TORCHVISION + name, zoo.title(base, kind), group, shapes, zoo.class_count(base)))
    return listed


def _own(spec: str, classes: int | None, real: bool, wanted: tuple[Shape, ...]) -> Network:
    name = spec.lower().replace("_", "-")
    parts = own.split(name)
    if parts is None:
        raise InputError(_unknown(spec))
    base, kind = parts
    shapes = _fitting(wanted, own.input_shapes(base), name)
    return Network(name, own.title(base, kind), own.make(base, kind, classes, real, shapes), shapes)


def _torchvision(name: str, classes: int | None, real: bool, wanted: tuple[Shape, ...]) -> Network:
    base, kind = zoo.split(name)
    if base.startswith("quantized_"):
        raise InputError(
            f"{_TORCHVISION}{name} runs integer kernels that cannot be traced: "
            f"take {_TORCHVISION}{base.removeprefix('quantized_')}."
        )
    if base not in zoo.names():
        raise InputError(_unknown(_TORCHVISION + name))
    shapes = _fitting(wanted, zoo.input_shapes(base), _TORCHVISION + name)
    module = zoo.make(base, kind, classes, real, shapes)
    return Network(_TORCHVISION + name, zoo.title(base, kind), module, shapes, zoo.purpose(base) == zoo.DETECTION)


def _fitting(wanted: tuple[Shape, ...], usual: tuple[Shape, ...], name: str) -> tuple[Shape, ...]:
    """The shapes that were asked for, if any, with as many sizes as the network's own.

    With a size too few an image would be taken for a batch of its rows, and another network be counted.
    """
    if wanted and [len(shape.sizes) for shape in wanted] != [len(shape.sizes) for shape in usual]:
        raise InputError(
            f"{name} does not take {_text(wanted)}: give --input (without the batch) in the form of {_text(usual)}."
        )
    return wanted or usual


def _unknown(spec: str) -> str:
    """What to say to a name that nobody has: the nearest ones, torchvision's also where its prefix is missing."""
    word = spec.lower().removeprefix(_TORCHVISION)
    if word.endswith(".py") or "/" in word or "." in word:
        return f"{spec!r} does not say what to take from there: write {spec}:NAME, NAME a network or what makes one."
    full = {name: _TORCHVISION + name for name in (*zoo.names(), *zoo.VARIANTS)}
    if word == spec.lower():
        full |= {name: name for name in (*own.NAMES, *own.VARIANTS)}
    near = [full[name] for name in difflib.get_close_matches(word, full, n=3, cutoff=0.6)]
    hint = f"did you mean {', '.join(near)}?" if near else "`costmodel models` lists those with a name."
    return f"there is no network {spec!r}: {hint}"


def _parsed(shapes: Sequence[Shape | str] | None) -> tuple[Shape, ...]:
    return tuple(parse_shape(shape) if isinstance(shape, str) else shape for shape in shapes or ())


def _text(shapes: Sequence[Shape]) -> str:
    return ", ".join("x".join(map(str, shape.sizes)) for shape in shapes)
