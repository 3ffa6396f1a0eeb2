"""DRAM traffic against the size of the on-chip buffer: what the best schedule moves, and what none can beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from costmodel.chip.dram import Curves
from costmodel.plots.roofs import BACKING
from costmodel.plots.style import KINDS, SOFT, dress, new_axes, shortened, styled
from costmodel.units import iec

LEAST_BUFFER = 1024
"""Where a plot begins, in bytes, if all layers have a tile that fits: smaller buffers are nobody's choice."""


@styled
def traffic(curves: Curves, ax: Axes | None = None, *, buffers: Sequence[int] = (), title: str | None = None) -> Axes:
    """A network's DRAM traffic against its on-chip buffer, each kind of layer by itself.

    A solid staircase is the least traffic of the five schedules, a dashed line what no schedule of each layer by itself
    moves less than, a dotted one compulsory traffic: each word once. A ring marks the knee, from which on no doubling
    of the buffer saves a tenth of the traffic. Sizes in `buffers` get a line. Returns the axes.
    """
    ax = new_axes(8.0, 5.2, left=0.9, bottom=0.85, right=0.3, top=0.5) if ax is None else ax
    kinds = list(dict.fromkeys(nest.kind for nest in curves.nests))
    parts = {kind: curves.only(kind) for kind in kinds}
    low = max(curves.smallest_buffer_bytes, min([LEAST_BUFFER, *buffers]))
    high = max([4 * curves.sufficient_buffer_bytes, 4 * low, *(2 * size for size in buffers)])
    floor, ceiling = np.inf, 0.0
    for kind, part in parts.items():
        bottom, top = _part(ax, part, kind, low, high)
        floor, ceiling = min(floor, bottom), max(ceiling, top)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    ax.set_xlim(low, high)
    ax.set_ylim(floor / 1.6, ceiling * 2.2)
    for size in dict.fromkeys(buffers):
        ax.axvline(size, color=SOFT, linewidth=0.7, zorder=1)
        ax.annotate(
            iec(size), (size, 0), (3, 4), xycoords=("data", "axes fraction"), textcoords="offset points",
            ha="left", va="bottom", fontsize=7, color=SOFT,
        )  # fmt: skip
    _axes(ax, 2 if ceiling < 256 * floor else 4)
    words = f"{curves.widths.input_bits}-bit words"
    ax.set_title(title or f"{shortened(curves.nests.model)}, {words}", loc="left", fontsize=11, pad=10)
    return ax


def _part(ax: Axes, part: Curves, kind: str, low: int, high: int) -> tuple[float, float]:
    """Draw one kind of layer; returns the least and the most that it moves."""
    style = KINDS.get(kind, KINDS["other"])
    buffers, moved = part.steps
    inside = buffers > low
    across = np.concatenate([[low], buffers[inside], [high]])
    up = np.concatenate([[part.dram_bytes(low)], moved[inside], [moved[-1]]])
    ax.step(across, up, where="post", color=style.colour, linewidth=1.6, zorder=3, label=style.title)
    points = np.geomspace(low, high, 200).astype(np.int64)
    ax.plot(points, part.bound_bytes(points), color=style.colour, linewidth=1.0, dashes=(4, 2), zorder=2)
    ax.axhline(part.compulsory_bytes, color=style.colour, linewidth=0.9, linestyle=":", zorder=2)
    buffer, there = part.knee()
    if low < buffer < high and there > 1.001 * part.compulsory_bytes:
        ax.plot([buffer], [there], marker="o", markersize=7, markerfacecolor="white", color=style.colour, zorder=4)
        ax.annotate(
            f"knee: {iec(buffer)}, {iec(there)}", (buffer, there), (7, 7), textcoords="offset points",
            fontsize=8, zorder=5, bbox=BACKING,
        )  # fmt: skip
    return float(part.compulsory_bytes), float(up[0])


def _axes(ax: Axes, step: int) -> None:
    """Labels, ticks at powers of `step`, and what the lines are."""
    ax.set_xlabel("on-chip buffer")
    ax.set_ylabel("DRAM traffic of one pass")
    ax.xaxis.set_major_locator(LogLocator(4))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: iec(value, digits=1)))
    ax.yaxis.set_major_locator(LogLocator(step))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: iec(value, digits=1)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_minor_locator(NullLocator())
    dress(ax, grid="both")
    handles, labels = ax.get_legend_handles_labels()
    for dashes, text in (("--", "bound: no layer by itself is below"), (":", "compulsory: each word once")):
        handles.append(ax.plot([], [], color=SOFT, linewidth=1.0, linestyle=dashes)[0])
        labels.append(text)
    ax.legend(
        handles, labels, loc="upper right", fontsize=8, handlelength=2.4, frameon=True, facecolor="white",
        edgecolor="none", framealpha=0.9,
    )  # fmt: skip
