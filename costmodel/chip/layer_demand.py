"""A layer's demand on a chip: arithmetic, and bytes between buffer and array and between chip and memory."""

from __future__ import annotations

from typing import NamedTuple

from costmodel.chip.accelerator import Accelerator
from costmodel.chip.evaluation import moved_in_buffer_bytes
from costmodel.chip.mapping import map_nest
from costmodel.chip.nests import Nest
from costmodel.chip.shapes import curve_of


class LayerDemand(NamedTuple):
    """A layer's demand on a chip."""

    macs: int
    array_seconds: float
    """Time of the array, fed as fast as the buffer delivers."""

    buffer_bytes: int
    """Between buffer and array."""

    dram_bytes: int
    additions: int = 0
    """Beside those of the MACs."""


def layer_demand(nest: Nest, chip: Accelerator) -> LayerDemand:
    """The demand of a nest mapped to the array, with the least DRAM traffic. Raises InputError as those two do."""
    return mapped_layer_demand(nest, chip, int(curve_of(nest, chip.widths).dram_bytes(chip.buffer_bytes)))


def mapped_layer_demand(nest: Nest, chip: Accelerator, dram_bytes: int, additions: int = 0) -> LayerDemand:
    """The same with known DRAM traffic and additions."""
    mapping = map_nest(nest, chip.array)
    moved = int(moved_in_buffer_bytes(mapping, chip))
    delivery = moved / chip.buffer_bytes_per_cycle if chip.buffer_bytes_per_cycle else 0.0
    return LayerDemand(nest.macs, max(int(mapping.cycles), delivery) / chip.clock_hertz, moved, dram_bytes, additions)
