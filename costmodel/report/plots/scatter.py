"""Networks beside one another: parameters against arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from costmodel.cost import Costs
from costmodel.errors import InputError
from costmodel.report.plots.labels import Box, Label, place
from costmodel.report.plots.pixels import around, extent, frame, in_pixels, pieces, pixels
from costmodel.report.plots.roofs import BACKING
from costmodel.report.plots.style import FAINT, KINDS, SOFT, dress, new_axes, shortened, styled
from costmodel.units import si


@styled
def compare(
    networks: Mapping[str, Costs] | Sequence[Costs], ax: Axes | None = None, *, title: str | None = None
) -> Axes:
    """Networks by their parameters and FLOPs, both on logarithmic scales, with lines of equal FLOPs a parameter.

    Takes costs by the name to show, or just costs. Returns the axes.
    """
    named = networks if isinstance(networks, Mapping) else {costs.trace.model: costs for costs in networks}
    if not named or any(not costs.parameters or not costs.total.flops for costs in named.values()):
        raise InputError("a comparison needs at least one network, and each needs parameters and arithmetic.")
    ax = new_axes(8.0, 5.6, left=0.85, bottom=0.85, right=0.3, top=0.5) if ax is None else ax
    spots = {shortened(name): (costs.parameters, costs.total.flops) for name, costs in named.items()}
    across, up = zip(*spots.values(), strict=True)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(min(across) / 2.5, max(across) * 3)
    ax.set_ylim(min(up) / 3, max(up) * 3)
    lines, taken = _reuse_lines(ax)
    ax.scatter(across, up, s=60, color=KINDS["conv"].colour, edgecolor="white", linewidth=0.8, zorder=3)
    _label_networks(ax, spots, lines, taken)
    ax.set_xlabel("parameters")
    ax.set_ylabel("FLOPs of one pass")
    for axis, (low, high) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        axis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if high < 200 * low else (1,)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: si(value, digits=1)))
        axis.set_minor_locator(NullLocator())
    dress(ax, grid="both")
    ax.set_title(title or "Parameters and arithmetic", loc="left", fontsize=11, pad=10)
    return ax


def _reuse_lines(ax: Axes) -> tuple[list[Box], list[Box]]:
    """Diagonals on which each parameter is used equally often; what they and their texts cover."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    lines: list[Box] = []
    taken: list[Box] = []
    for power in range(-1, 7):
        reuse = 10.0**power
        start, end = max(left, bottom / reuse), min(right, top / reuse)
        if start >= end:
            continue
        ax.plot([start, end], [start * reuse, end * reuse], color=FAINT, linewidth=0.8, zorder=1)
        low, high = pixels(ax, start, start * reuse), pixels(ax, end, end * reuse)
        lines += pieces(low, high, in_pixels(ax, 2))
        text = ax.annotate(
            f"{si(reuse, digits=1)} FLOPs a parameter", (end, end * reuse), (-4, -3), textcoords="offset points",
            ha="right", va="top", fontsize=7, color=SOFT, bbox=BACKING,
        )  # fmt: skip
        if extent(text).left < frame(ax).left or any(extent(text).shared(other) for other in taken):
            text.remove()
        else:
            taken.append(extent(text))
    return lines, taken


def _label_networks(ax: Axes, spots: Mapping[str, tuple[int, int]], lines: list[Box], taken: list[Box]) -> None:
    texts = {name: f"{name}\n{si(x)} parameters, {si(y, 'FLOP')}" for name, (x, y) in spots.items()}
    radius = in_pixels(ax, 4)
    labels = []
    for name, text in texts.items():
        sample = ax.text(0, 0, text, fontsize=8, linespacing=1.2)
        size = extent(sample)
        sample.remove()
        labels.append(Label(*pixels(ax, *spots[name]), radius, size.right - size.left, size.top - size.bottom))
    markers = [around((label.x, label.y), radius) for label in labels]
    boxes = place(labels, frame(ax).padded(-3), taken, markers, lines)
    for (name, text), label, box in zip(texts.items(), labels, boxes, strict=True):
        if box is not None:
            point = in_pixels(ax, 1)
            offset = ((box.left + box.right) / 2 - label.x) / point, ((box.bottom + box.top) / 2 - label.y) / point
            ax.annotate(
                text, spots[name], offset, textcoords="offset points", ha="center", va="center", fontsize=8,
                linespacing=1.2, multialignment="left", bbox=BACKING, zorder=5,
            )  # fmt: skip
