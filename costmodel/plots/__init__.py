"""Plots of results onto matplotlib axes: pass `ax=` to draw onto yours, or get axes in a figure of their own.

Every function returns the axes that it drew on; nothing opens a window or changes matplotlib's settings. `save` writes
a figure as SVG and PNG.
"""

from costmodel.plots.bars import layer_panels, layers, shares
from costmodel.plots.batches import batches
from costmodel.plots.buffers import traffic
from costmodel.plots.chip import chip_layers, fronts, iso_throughput
from costmodel.plots.measured import gaps, sweeps
from costmodel.plots.memory import memory, memory_against_batch
from costmodel.plots.rooflines import roofline
from costmodel.plots.scatter import compare
from costmodel.plots.style import save

__all__ = [
    "batches",
    "chip_layers",
    "compare",
    "fronts",
    "gaps",
    "iso_throughput",
    "layer_panels",
    "layers",
    "memory",
    "memory_against_batch",
    "roofline",
    "save",
    "shares",
    "sweeps",
    "traffic",
]
