"""Throughput and memory against the batch: what a larger one buys, and what it takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from costmodel.errors import InputError
from costmodel.plots.style import KINDS, dress, shortened, styled
from costmodel.units import iec, si

if TYPE_CHECKING:
    import pandas as pd

_COLOURS = tuple(KINDS[kind].colour for kind in ("conv", "linear", "norm", "attention", "pool", "optimizer"))
_LINE = 11.0
"""Points from one name to the next where lines end together."""


@styled
def batches(curves: Mapping[str, pd.DataFrame], device: str, *, title: str | None = None) -> tuple[Axes, ...]:
    """The bound on images a second, and a training step's memory, against the batch; all axes are logarithmic.

    A figure of its own, two panels. Returns its axes. Raises InputError if there is nothing to draw.

    Args:
        curves: by the network's name, frames with the columns `batch`, `images_per_second` and `training_peak_bytes`.
        device: what the bound is for.
    """
    if not curves or any(frame.empty for frame in curves.values()):
        raise InputError("there is nothing to draw: give at least one network with some batches.")
    width, height, panel = 10.4, 4.4, 3.5
    figure = Figure(figsize=(width, height), dpi=100)
    lefts = 0.8, 0.8 + panel + 1.75
    axes = tuple(figure.add_axes((x / width, 0.6 / height, panel / width, (height - 1.5) / height)) for x in lefts)
    for ax, column, heading, base in (
        (axes[0], "images_per_second", "images/s, bound", 10),
        (axes[1], "training_peak_bytes", "peak of requested memory, training step", 2),
    ):
        ax.set_xscale("log", base=2)
        ax.set_yscale("log", base=base)
        for colour, frame in zip(_COLOURS * len(curves), curves.values(), strict=False):
            ax.plot(frame["batch"].tolist(), frame[column].tolist(), "o-", color=colour, markersize=3.5, linewidth=1.5)
        ends = [float(frame[column].iloc[-1]) for frame in curves.values()]
        _name_lines(ax, list(curves), max(int(frame["batch"].iloc[-1]) for frame in curves.values()), ends)
        ax.set_title(heading, loc="left", fontsize=9)
        ax.set_xlabel("batch")
        ax.xaxis.set_major_locator(LogLocator(2, numticks=16))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        ax.yaxis.set_major_locator(LogLocator(base, subs=(1, 2, 5) if base == 10 else (1,), numticks=16))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_minor_locator(NullLocator())
        dress(ax, grid="both")
    axes[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: si(value, digits=1)))
    axes[1].yaxis.set_major_formatter(FuncFormatter(lambda value, _: iec(value, digits=1)))
    heading = title or f"Batch against throughput and memory on the {device}"
    figure.text(0.15 / width, 1 - 0.35 / height, shortened(heading, 90), fontsize=11)
    return axes


def _name_lines(ax: Axes, names: Sequence[str], right: int, ends: Sequence[float]) -> None:
    """Each line's name beside its right end, in its colour; names that would touch are moved up."""
    height = ax.get_window_extent().height * 72 / ax.figure.dpi
    low, high = (math.log(limit) for limit in ax.get_ylim())
    last = -math.inf
    for index in sorted(range(len(names)), key=lambda index: ends[index]):
        place = (math.log(ends[index]) - low) / (high - low) * height
        last = max(place, last + _LINE)
        ax.annotate(
            shortened(names[index], 22), (right, ends[index]), (8, last - place), textcoords="offset points",
            fontsize=8, va="center", color=_COLOURS[index % len(_COLOURS)], annotation_clip=False,
        )  # fmt: skip
