"""Chip design: equal frame rates over compute and bandwidth, Pareto fronts, and where time and energy go by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from costmodel.chip.accelerator import Accelerator
from costmodel.chip.balance import Balance, Networks, frame_seconds
from costmodel.chip.evaluation import Evaluation
from costmodel.errors import InputError
from costmodel.plots.roofs import BACKING
from costmodel.plots.style import dress, layer_name, new_axes, shortened, styled
from costmodel.units import iec, joules, seconds, si

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")

_TIMES = {"array": ("#0072B2", "array"), "dram": ("#D55E00", "DRAM")}
_ENERGIES = {
    "mac": ("#0072B2", "multiplying"),
    "pe": ("#56B4E9", "registers"),
    "buffer": ("#E69F00", "buffer"),
    "dram": ("#D55E00", "DRAM"),
}


@styled
def iso_throughput(
    networks: Networks,
    base: Accelerator,
    balances: Sequence[Balance],
    ax: Axes | None = None,
    *,
    title: str | None = None,
) -> Axes:
    """Lines of equal frame rate over compute and bandwidth, behind the buffer of the middle one of some balances.

    Along a line a design trades one for the other: where it runs up, bandwidth binds every layer, where it runs to the
    right, arithmetic does. Rings are the balances, of growing area: through them runs the cheapest way to be faster.
    Returns the axes.
    """
    if not balances:
        raise InputError("lines of equal frame rate need at least one balanced design.")
    ax = new_axes(7.2, 5.2, left=0.9, bottom=0.85, right=0.35, top=0.6) if ax is None else ax
    rates = [each.pes * each.clock_hertz for each in balances]
    widths = [each.dram_bandwidth for each in balances]
    across = np.geomspace(min(rates) / 6, max(rates) * 6, 120)
    up = np.geomspace(min(widths) / 6, max(widths) * 6, 120)
    middle = balances[len(balances) // 2]
    pes = across / base.clock_hertz
    frames = 1 / frame_seconds(networks, base, pes[None, :], middle.buffer_bytes, up[:, None])
    levels = sorted({each.frames_per_second for each in balances})
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.contour(across, up, frames, levels=levels, colors=COLOURS[0], linewidths=1.3)
    ax.plot(rates, widths, color=COLOURS[1], linewidth=1.2, dashes=(4, 2), zorder=3)
    for each, rate, width in zip(balances, rates, widths, strict=True):
        ax.plot([rate], [width], "o", color=COLOURS[1], markerfacecolor="white", markersize=7, zorder=4)
        ax.annotate(
            f"{each.area_mm2:.3g} mm²: {si(each.frames_per_second)} frames/s\n"
            f"{each.pes:,.0f} PEs, {iec(each.buffer_bytes)}",
            (rate, width), (9, -12), textcoords="offset points", ha="left", va="top", fontsize=7.5, linespacing=1.25,
            bbox=BACKING, zorder=5,
        )  # fmt: skip
    ax.set_xlim(across[0], across[-1])
    ax.set_ylim(up[0], up[-1])
    ax.set_xlabel("compute, multiply-accumulates a second")
    ax.set_ylabel("bandwidth between chip and memory")
    _log_axis(ax.xaxis, lambda value: si(value, digits=1))
    _log_axis(ax.yaxis, lambda value: si(value, "B/s", digits=1))
    dress(ax, grid="both")
    handles = [
        ax.plot([], [], color=COLOURS[0], linewidth=1.3,
                label=f"equal frame rate, {iec(middle.buffer_bytes)} of buffer")[0],
        ax.plot([], [], color=COLOURS[1], linewidth=1.2, dashes=(4, 2), marker="o", markerfacecolor="white",
                label="best division of an area")[0],
    ]  # fmt: skip
    ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncol=2, fontsize=8, borderaxespad=0.2)
    ax.set_title(title or "Compute against bandwidth", loc="left", fontsize=11, pad=22)
    return ax


@styled
def fronts(
    designs: Mapping[str, pd.DataFrame],
    every: Mapping[str, pd.DataFrame] | None = None,
    ax: Axes | None = None,
    *,
    title: str | None = None,
) -> Axes:
    """Pareto fronts, a network each: frames a second against the chip's area; behind them, other designs as dots.

    Takes the frames of `Exploration.pareto` and `Exploration.of` by the names to show. Returns the axes.
    """
    if not designs or any(front.empty for front in designs.values()):
        raise InputError("there is no front to draw: give at least one that has designs.")
    ax = new_axes(7.2, 5.0, left=0.85, bottom=0.8, right=0.35, top=0.6) if ax is None else ax
    ax.set_xscale("log")
    ax.set_yscale("log")
    for index, (name, front) in enumerate(designs.items()):
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        others = (every or {}).get(name)
        if others is not None:
            some = others.iloc[:: max(1, len(others) // 2500)]
            ax.plot(
                some["area_mm2"], some["frames_per_second"], ".", color=colour, markersize=2, alpha=0.18,
                markeredgewidth=0, zorder=1,
            )  # fmt: skip
        ax.step(
            front["area_mm2"], front["frames_per_second"], where="post", color=colour, linewidth=1.6, zorder=3,
            marker=marker, markersize=5, markevery=max(1, len(front) // 8), label=shortened(name),
        )  # fmt: skip
    fastest = [front["frames_per_second"] for front in designs.values()]
    ax.set_ylim(min(each.min() for each in fastest) / 3, max(each.max() for each in fastest) * 1.6)
    ax.set_xlabel("area of the chip, mm²")
    ax.set_ylabel("frames a second")
    _log_axis(ax.xaxis, lambda value: f"{value:g}")
    _log_axis(ax.yaxis, lambda value: si(value, digits=1))
    dress(ax, grid="both")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncol=4, fontsize=8, borderaxespad=0.2)
    ax.set_title(title or "The best designs of each area", loc="left", fontsize=11, pad=22)
    return ax


@styled
def chip_layers(evaluation: Evaluation, *, title: str | None = None, most: int = 30) -> tuple[Axes, ...]:
    """Where a network's time and energy go on an accelerator, layer by layer, in a figure of its own.

    At the left a layer's array and DRAM times; the longer of the two is what it takes where they overlap. At the right
    its energy by component, if the accelerator has a technology. Of more than `most` layers those that take longest.
    Returns the axes.
    """
    layers = list(evaluation.layers)
    if len(layers) > most:
        longest = sorted(layers, key=lambda layer: -layer.overlapped_seconds)[:most]
        layers = [layer for layer in layers if any(layer is each for each in longest)]
    energised = all(layer.energy is not None for layer in layers)
    panels = 2 if energised else 1
    width, height = 1.4 + 3.9 * panels, 1.35 + 0.26 * len(layers)
    figure = Figure(figsize=(width, height), dpi=100)
    axes = [
        figure.add_axes(((1.6 + 3.7 * index) / width, 0.55 / height, 3.35 / width, (height - 1.35) / height))
        for index in range(panels)
    ]
    places = -np.arange(len(layers))
    for offset, (name, (colour, label)) in zip((0.2, -0.2), _TIMES.items(), strict=True):
        values = [
            layer.dram_seconds if name == "dram" else max(layer.array_seconds, layer.buffer_seconds) for layer in layers
        ]
        axes[0].barh(places + offset, values, 0.36, color=colour, label=label)
    axes[0].set_xlabel("time of a run")
    axes[0].xaxis.set_major_formatter(FuncFormatter(lambda value, _: seconds(value) if value else "0"))
    if energised:
        left = np.zeros(len(layers))
        for name, (colour, label) in _ENERGIES.items():
            parts = np.array([getattr(layer.energy, name) for layer in layers])
            axes[1].barh(places, parts, 0.66, left, color=colour, label=label)
            left += parts
        axes[1].set_xlabel("energy of a run")
        axes[1].xaxis.set_major_formatter(FuncFormatter(lambda value, _: joules(value) if value else "0"))
    for index, ax in enumerate(axes):
        names = [f"{layer_name(layer.nest.layer)}  {layer.nest.kind}" if index == 0 else "" for layer in layers]
        ax.set_yticks(places, names, fontsize=8)
        ax.set_ylim(-len(layers) + 0.4, 0.6)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        dress(ax, grid="x")
        ax.tick_params(axis="y", length=0)
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncol=4, fontsize=7.5, borderaxespad=0.2,
                  handlelength=1.0, handletextpad=0.4, columnspacing=1.0)  # fmt: skip
    heading = title or f"{shortened(evaluation.model)} on {evaluation.accelerator.title}"
    figure.text(0.15 / width, 1 - 0.3 / height, heading, fontsize=11)
    return tuple(axes)


def _log_axis(axis, write) -> None:  # type: ignore[no-untyped-def]  # matplotlib's axes of either direction
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if high < 300 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))
    axis.set_minor_locator(NullLocator())
