"""Predicted and measured on the same axes: layers under the roofs, networks over batches. The gap is the finding."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from costmodel.errors import InputError
from costmodel.plots.callouts import Callout, call_out
from costmodel.plots.labels import Box
from costmodel.plots.pixels import around, frame, in_pixels, pieces, pixels
from costmodel.plots.roofs import draw_roofs, label_roofs, lines_of, roofs_of
from costmodel.plots.style import (
    INK,
    KINDS,
    SOFT,
    dress,
    dress_roofline,
    layer_name,
    new_axes,
    shortened,
    styled,
)
from costmodel.units import iec, percent, si
from costmodel.validation.measurement import Comparison
from costmodel.validation.sweep import Sweep

_LEAST_SHARE = 0.004
"""A layer with less of the measured time is left out."""

_LABELS = 12
_SIZES = (18.0, 500.0)
"""Areas in square points of the smallest marker, and of a layer that takes all the time."""

_COLOURS = tuple(KINDS[kind].colour for kind in ("conv", "linear", "norm", "pool", "attention"))


class _Pair(NamedTuple):
    """A layer as predicted and as measured."""

    name: str
    kind: str
    intensity: float
    predicted: float
    measured: float
    """FLOP/s."""

    share: float
    """Of the measured time."""

    @property
    def area(self) -> float:
        return max(_SIZES[0], _SIZES[1] * self.share)


@styled
def gaps(comparison: Comparison, ax: Axes | None = None, *, title: str | None = None) -> Axes:
    """Draw each layer twice under its device's roofs, predicted (open) and measured (filled), and join the two.

    A label says how fast the layer ran, as a share of what was predicted. Returns the axes. Raises InputError if
    nothing that computes was measured.
    """
    pairs = _pairs(comparison)
    if not pairs:
        raise InputError("there is nothing to draw: no layer that computes was measured.")
    ax = new_axes(10.4, 6.8, left=0.8, bottom=1.0, right=0.2, top=0.8) if ax is None else ax
    roofs = roofs_of([comparison.prediction])
    _set_axes(ax, pairs, [roof.peak for roof in roofs], [roof.ridge for roof in roofs])
    draw_roofs(ax, roofs)
    for pair in sorted(pairs, key=lambda pair: -pair.area):
        colour, marker = KINDS[pair.kind].colour, KINDS[pair.kind].marker
        ax.plot([pair.intensity] * 2, [pair.predicted, pair.measured], "-", color=colour, linewidth=0.9, zorder=2.8)
        common: dict[str, Any] = {"s": pair.area, "marker": marker, "edgecolor": colour, "linewidth": 1.0}
        ax.scatter([pair.intensity], [pair.predicted], facecolor="white", zorder=3, **common)
        ax.scatter([pair.intensity], [pair.measured], facecolor=colour, zorder=3.2, **common)
    spots = [(pair, rate) for pair in pairs for rate in (pair.measured, pair.predicted)]
    markers = [
        around(pixels(ax, pair.intensity, rate), in_pixels(ax, math.sqrt(pair.area) / 2)) for pair, rate in spots
    ]
    taken = label_roofs(ax, roofs, markers)
    _label(ax, pairs, markers, taken, lines_of(ax, roofs))
    _draw_frame(ax, comparison, pairs, title)
    return ax


def _pairs(comparison: Comparison) -> list[_Pair]:
    """The layers that compute and take a share of the time, forward and backward apart."""
    costs: dict[tuple[str, str], tuple[int, int]] = {}
    for each in comparison.prediction.operations:
        key = each.operation.layer, each.operation.phase
        flops, moved = costs.get(key, (0, 0))
        costs[key] = flops + each.cost.flops, moved + each.cost.moved_bytes
    whole = math.fsum(row.measured_seconds or 0.0 for row in comparison.rows)
    found = []
    for row in comparison.rows:
        flops, moved = costs.get((row.layer, row.phase), (0, 0))
        seconds = row.measured_seconds or 0.0
        if flops and moved and row.predicted_seconds and seconds > _LEAST_SHARE * whole:
            name = layer_name(row.layer) + ("" if row.phase == "forward" else f" ({row.phase})")
            rates = flops / row.predicted_seconds, flops / seconds
            found.append(_Pair(name, row.kind, flops / moved, *rates, seconds / whole))
    return found


def _set_axes(ax: Axes, pairs: Sequence[_Pair], peaks: Sequence[float], ridges: Sequence[float]) -> None:
    across = [pair.intensity for pair in pairs] + list(ridges)
    up = [rate for pair in pairs for rate in (pair.predicted, pair.measured)] + list(peaks)
    dress_roofline(ax, "rate (FLOP/s)")
    ax.set_xlim(min(across) / 2.5, max(across) * 10)
    ax.set_ylim(min(up) / 2, max(up) * 3)


def _label(ax: Axes, pairs: Sequence[_Pair], markers: list[Box], taken: list[Box], roofs: list[Box]) -> None:
    """Name the layers that take most of the time, at the measured point."""
    chosen = sorted(pairs, key=lambda pair: -pair.share)[:_LABELS]
    callouts = [
        Callout(
            f"{pair.name}  {percent(pair.measured / pair.predicted, 0)}",
            pair.intensity,
            pair.measured,
            pair.area,
            80 + 8000 * pair.share,
        )
        for pair in chosen
    ]
    joints = [
        box
        for pair in pairs
        for box in pieces(
            pixels(ax, pair.intensity, pair.predicted), pixels(ax, pair.intensity, pair.measured), in_pixels(ax, 1.5)
        )
    ]
    call_out(ax, callouts, taken, markers, [*roofs, *joints])


def _draw_frame(ax: Axes, comparison: Comparison, pairs: Sequence[_Pair], title: str | None) -> None:
    basis = comparison.prediction.basis
    kinds = [kind for kind in KINDS if any(pair.kind == kind for pair in pairs)]
    handles = [
        Line2D([], [], linestyle="none", marker="o", markersize=7, markerfacecolor="white", markeredgecolor=INK,
               label=f"predicted ({basis})"),
        Line2D([], [], linestyle="none", marker="o", markersize=7, markerfacecolor=INK, markeredgecolor=INK,
               label="measured"),
        *(
            Line2D([], [], linestyle="none", marker=KINDS[kind].marker, markersize=7, color=KINDS[kind].colour,
                   label=KINDS[kind].title)
            for kind in kinds
        ),
    ]  # fmt: skip
    ax.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncol=8, fontsize=8, borderaxespad=0.2,
        handletextpad=0.2, columnspacing=1.2, borderpad=0.2, frameon=False,
    )  # fmt: skip
    run = comparison.run
    default = f"{shortened(run.name, 70)}, on {shortened(comparison.device_name, 40)}"
    ax.set_title(title or default, loc="left", fontsize=11, pad=24)
    note = (
        "Percentages: measured rate as a share of the predicted. Area: share of the measured time. The whole: "
        f"{comparison.verdict}."
    )
    inside = frame(ax)
    letters = (inside.right - inside.left) / in_pixels(ax, 3.55)
    ax.annotate(
        textwrap.fill(note, max(40, int(letters))),
        (0, 0), (-40, -40), xycoords="axes fraction", textcoords="offset points", va="top", fontsize=7, color=SOFT,
        annotation_clip=False,
    )  # fmt: skip


@styled
def sweeps(several: Sequence[Sweep], *, title: str | None = None) -> tuple[Axes, ...]:
    """Throughput over batches, and memory where it was measured: predicted (open), measured (filled), bends marked.

    A figure of its own. Returns its axes. Raises InputError for no sweep.
    """
    if not several:
        raise InputError("there is nothing to draw: give at least one sweep.")
    with_memory = any(point.measured_bytes for sweep in several for point in sweep.points)
    width, height, panel = (10.4, 4.8, 4.3) if with_memory else (6.8, 4.8, 5.7)
    figure = Figure(figsize=(width, height), dpi=100)
    axes = [
        figure.add_axes(((0.8 + index * (panel + 0.75)) / width, 0.95 / height, panel / width, (height - 2.0) / height))
        for index in range(1 + with_memory)
    ]
    for index, sweep in enumerate(several):
        colour = _COLOURS[index % len(_COLOURS)]
        _draw_throughput(axes[0], sweep, colour)
        if with_memory:
            _draw_memory(axes[1], sweep, colour)
    batches = sorted({point.batch for sweep in several for point in sweep.points})
    for ax, text in zip(axes, ("samples / s", "peak of requested memory"), strict=False):
        _dress_batches(ax, batches, 2 if ax is not axes[0] else 10)
        ax.set_title(text, loc="left", fontsize=9)
    axes[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: si(value, digits=1)))
    if with_memory:
        axes[1].yaxis.set_major_formatter(FuncFormatter(lambda value, _: iec(value, digits=1)))
    figure.text(0.15 / width, 1 - 0.3 / height, title or _sweeps_title(several, with_memory), fontsize=11)
    _sweeps_legend(axes[0], several)
    if any(line.get_marker() == "D" for line in axes[0].lines):
        note = "Diamonds: the bend of the predicted (open) and the measured (filled) curve, up to which launches and "
        note += "weights take more time than the samples."
        figure.text(0.15 / width, 0.3 / height, note, fontsize=7, color=SOFT)
    return tuple(axes)


def _draw_throughput(ax: Axes, sweep: Sweep, colour: str) -> None:
    predicted = [(point.batch, point.batch / point.predicted_seconds) for point in sweep.points]
    seen = [(p.batch, p.batch / p.measured_seconds) for p in sweep.points if p.measured_seconds]
    ax.plot(*zip(*predicted, strict=True), "o--", color=colour, markerfacecolor="white", markersize=5, linewidth=1)
    if seen:
        ax.plot(*zip(*seen, strict=True), "o-", color=colour, markersize=5, linewidth=1.4)
    for points, at, face in ((predicted, sweep.predicted_bend, "white"), (seen, sweep.measured_bend, colour)):
        if at is not None and points and points[0][0] <= at <= points[-1][0]:
            rate = _between(points, at)
            ax.plot([at, at], [points[0][1] / 4, rate], ":", color=colour, linewidth=1)
            ax.plot([at], [rate], "D", color=colour, markerfacecolor=face, markersize=6, zorder=4)


def _between(points: Sequence[tuple[int, float]], at: float) -> float:
    """The curve's height at a batch, on a straight line between its neighbours on logarithmic axes."""
    for (left, low), (right, high) in itertools.pairwise(points):
        if left <= at <= right:
            return low * (high / low) ** (math.log(at / left) / math.log(right / left))
    return points[-1][1]


def _draw_memory(ax: Axes, sweep: Sweep, colour: str) -> None:
    predicted = [(point.batch, point.predicted_bytes) for point in sweep.points if point.predicted_bytes]
    seen = [(point.batch, point.measured_bytes) for point in sweep.points if point.measured_bytes]
    if predicted:
        ax.plot(*zip(*predicted, strict=True), "o--", color=colour, markerfacecolor="white", markersize=5, linewidth=1)
    if seen:
        ax.plot(*zip(*seen, strict=True), "o-", color=colour, markersize=5, linewidth=1.4)


def _dress_batches(ax: Axes, batches: Sequence[int], base: int) -> None:
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=base)
    ax.set_xlim(batches[0] / 1.3, batches[-1] * 1.3)
    ax.set_xticks(batches, [str(batch) for batch in batches])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_locator(LogLocator(base, subs=(1, 2, 5) if base == 10 else (1,), numticks=16))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.tick_params(which="minor", length=0)
    ax.set_xlabel("batch")
    dress(ax, grid="both")


def _sweeps_title(several: Sequence[Sweep], with_memory: bool) -> str:
    what = "training step" if several[0].train else "forward"
    shown = "throughput and memory" if with_memory else "throughput"
    return f"Batch against {shown}, {what}, on {shortened(several[0].device_name, 50)}"


def _sweeps_legend(ax: Axes, several: Sequence[Sweep]) -> None:
    handles = [
        Line2D([], [], color=_COLOURS[index % len(_COLOURS)], linewidth=1.6, label=shortened(sweep.model, 30))
        for index, sweep in enumerate(several)
    ]
    handles += [
        Line2D([], [], linestyle="--", marker="o", markersize=5, color=INK, markerfacecolor="white",
               label=f"predicted ({several[0].basis})"),
        Line2D([], [], linestyle="-", marker="o", markersize=5, color=INK, label="measured"),
    ]  # fmt: skip
    ax.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1.07), ncol=8, fontsize=8, borderaxespad=0.2,
        handletextpad=0.4, columnspacing=1.4, borderpad=0.2, frameon=False,
    )  # fmt: skip
