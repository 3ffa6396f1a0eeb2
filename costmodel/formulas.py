"""The book's formulas of a layer, with the layer's numbers filled in.

A convolution with an FxF window, C input channels in a group and K filters has (F²·C+1)·K parameters and takes
P·Q·F²·C·K MACs for P x Q output pixels; a fully connected layer with I inputs and O outputs has (I+1)·O and takes I·O.
The 1 is the bias. They hold for every number of dimensions, and for transposed convolutions, whose pixels are the
input's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from costmodel.graph import Module, Operation

if TYPE_CHECKING:
    from costmodel.cost import LayerCost

CONV, FC, REST = PARTS = ("convolutions", "fully connected layers", "everything else")
"""What the book tells apart in a network."""

_SUPERSCRIPT = {1: "", 2: "²", 3: "³"}


def parameter_formula(module: Module, parameters: int) -> str:
    """(F²·C+1)·K or (I+1)·O with the layer's numbers, or "" where neither makes its parameters; no 1 without a bias."""
    products, outputs = _products(module), _outputs(module)
    if parameters and parameters == (products + 1) * outputs:
        return f"({_inputs(module)}+1)·{outputs:,}"
    return f"{_inputs(module)}·{outputs:,}" if parameters and parameters == products * outputs else ""


@dataclass(frozen=True, slots=True)
class Weighted:
    """A convolution or fully connected layer that has such a formula."""

    layer: LayerCost
    module: Module
    batch: int
    operations: tuple[Operation, ...] = ()
    """What computes it."""

    @property
    def part(self) -> str:
        """Which of the book's parts it belongs to."""
        return CONV if self.layer.kind == "conv" else FC

    @property
    def short(self) -> str:
        """What people call such a layer: "conv 11×11, 1 → 96" or "FC 6400 → 4096"."""
        settings = self.module.settings
        if "kernel_size" not in settings:
            return f"FC {settings['in_features']} → {settings['out_features']}"
        groups = f", {settings['groups']} groups" if settings.get("groups", 1) > 1 else ""
        window = "×".join(map(str, _window(self.module)))
        return f"conv {window}, {settings['in_channels']} → {settings['out_channels']}{groups}"

    @property
    def image(self) -> str:
        """The size of its output without the batch: "96×54×54"."""
        return "×".join(map(str, (self.layer.output_shape or ())[1:]))

    @property
    def parameter_formula(self) -> str:
        """Its parameters, written out."""
        return parameter_formula(self.module, self.layer.parameters)

    @property
    def filters(self) -> int:
        """Its output channels; 0 for a fully connected layer."""
        return self.module.settings.get("out_channels", 0)

    @property
    def weights(self) -> int:
        """Its parameters without the bias."""
        return _products(self.module) * _outputs(self.module)

    @property
    def mac_formula(self) -> str:
        """One image's MACs, written out."""
        positions = self.layer.cost.macs // (self.weights * self.batch)
        shape = (self.layer.output_shape or ())[2:]
        pixels = shape if math.prod(shape) == positions else (positions,)
        return "·".join((*(f"{size:,}" for size in pixels), _inputs(self.module), f"{_outputs(self.module):,}"))

    @property
    def reuse(self) -> float:
        """How many multiplications each weight takes part in for one image."""
        return self.layer.cost.macs / (self.weights * self.batch)


def _products(module: Module) -> int:
    """The products that make one output element: F²·C or I; 0 for a layer of another sort."""
    settings = module.settings
    if {"kernel_size", "in_channels", "out_channels"} <= settings.keys():
        return math.prod(_window(module)) * _channels(module)
    return settings["in_features"] if {"in_features", "out_features"} <= settings.keys() else 0


def _inputs(module: Module) -> str:
    """The same, written out: "5²·96" or "6,400"."""
    if "kernel_size" not in module.settings:
        return f"{module.settings['in_features']:,}"
    sizes = _window(module)
    square = len(set(sizes)) == 1 and len(sizes) in _SUPERSCRIPT
    window = f"{sizes[0]}{_SUPERSCRIPT[len(sizes)]}" if square else "·".join(map(str, sizes))
    return f"{window}·{_channels(module):,}"


def _outputs(module: Module) -> int:
    """Its filters, or its output features."""
    return module.settings.get("out_channels") or module.settings.get("out_features") or 0


def _window(module: Module) -> tuple[int, ...]:
    size = module.settings["kernel_size"]
    return size if isinstance(size, tuple) else (size,)


def _channels(module: Module) -> int:
    """Input channels in a group."""
    return module.settings["in_channels"] // module.settings.get("groups", 1)
