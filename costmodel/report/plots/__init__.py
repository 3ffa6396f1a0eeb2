"""Plots of results onto matplotlib axes: pass `ax=` to draw onto yours, or get axes in a figure of their own.

Every function returns the axes that it drew on; nothing opens a window or changes matplotlib's settings. `save` writes
a figure as SVG and PNG.
"""

from costmodel.report.plots.bars import layer_panels, layers, shares
from costmodel.report.plots.batches import batches
from costmodel.report.plots.buffers import traffic
from costmodel.report.plots.chip import chip_layers, fronts, iso_throughput
from costmodel.report.plots.measured import gaps, sweeps
from costmodel.report.plots.memory import memory, memory_against_batch
from costmodel.report.plots.rooflines import roofline
from costmodel.report.plots.scatter import compare
from costmodel.report.plots.style import save

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
