"""Networks beside one another: parameters against arithmetic."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from costmodel.cost import Costs
from costmodel.errors import InputError
from costmodel.plots.callouts import Callout, call_out
from costmodel.plots.labels import Box
from costmodel.plots.pixels import around, extent, frame, in_pixels, pieces, pixels
from costmodel.plots.roofs import BACKING
from costmodel.plots.style import FAINT, KINDS, SOFT, dress, new_axes, shortened, styled
from costmodel.units import si

_AREA = 60.0
"""Of a marker, in square points."""

_LOOKS = tuple(KINDS[kind] for kind in ("conv", "linear", "norm", "attention"))


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
    _draw_networks(ax, spots)
    lines, taken = _reuse_lines(ax)
    if (legend := ax.get_legend()) is not None:
        taken.append(Box(*(float(value) for value in legend.get_window_extent().extents)))
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


def _draw_networks(ax: Axes, spots: Mapping[str, tuple[int, int]]) -> None:
    """A point a network, with a colour and marker for what stands in parentheses after its name: who wrote it."""
    forms = list(dict.fromkeys(map(_form, spots)))
    looks = dict(zip(forms, itertools.cycle(_LOOKS)))
    for form in forms:
        across, up = zip(*(spot for name, spot in spots.items() if _form(name) == form), strict=True)
        ax.scatter(
            across, up, s=_AREA, color=looks[form].colour, marker=looks[form].marker, edgecolor="white", linewidth=0.8,
            zorder=3, label=form or "others",
        )  # fmt: skip
    if len(forms) > 1:
        ax.legend(loc="upper left", fontsize=8, borderaxespad=0.4, handletextpad=0.2)


def _form(name: str) -> str:
    """ "VGG-16 (book)" is of the form "book"."""
    return name.rpartition(" (")[2].rstrip(")") if name.endswith(")") else ""


def _label_networks(ax: Axes, spots: Mapping[str, tuple[int, int]], lines: list[Box], taken: list[Box]) -> None:
    callouts = [
        Callout(f"{name}\n{si(x)} parameters, {si(y, 'FLOP')}", x, y, _AREA, worth=1000)
        for name, (x, y) in spots.items()
    ]
    markers = [around(pixels(ax, *spot), in_pixels(ax, math.sqrt(_AREA) / 2)) for spot in spots.values()]
    call_out(ax, callouts, taken, markers, lines)
