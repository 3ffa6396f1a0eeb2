"""The roofline plot: a point a layer, under the roof that holds it down.

Both axes are logarithmic: across, the layer's arithmetic intensity (FLOPs a byte); up, the rate at which it computes if
it takes no longer than its bound. The slanted line is the memory, each flat one a precision path that layers take.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D

from costmodel.errors import InputError
from costmodel.report.plots.labels import Box, Label, place
from costmodel.report.plots.pixels import around, extent, frame, in_pixels, pixels
from costmodel.report.plots.roofs import BACKING, CONTRACTIONS, Roof, draw_roofs, label_roofs, lines_of, roofs_of
from costmodel.report.plots.style import KINDS, SOFT, dress_roofline, layer_name, new_axes, shortened, styled
from costmodel.roofline import CONVENTION, GroupPrediction, Prediction
from costmodel.units import percent, seconds

_LARGEST = 2200.0
"""Area in square points of a layer that takes all the time."""

_SMALLEST = 22.0
_NEGLIGIBLE = 0.001
"""A layer with less than this share of the time is left out: one of ten thousand would stretch the axes for nothing."""

_NAMED = {True: 0.004, False: 0.02}
"""From which share of the time on layers are named: contractions, and others."""

_LABELS = {False: 14, True: 8}
"""Labels on a plot of one prediction, and of several."""

_AHEAD = 0.05
"""By so much of the time contractions come before others where there are more labels than room."""

_FILLS = ((1.0, "white", 0.8), (0.0, None, 1.6), (0.3, None, 1.0))
"""Opacity of the face, colour of the edge (None: the kind's) and its width: of the first, second, third prediction."""

_LABEL: dict[str, Any] = {
    "ha": "center", "va": "center", "multialignment": "left", "fontsize": 8, "linespacing": 1.15, "zorder": 6,
    "bbox": BACKING,
}  # fmt: skip


class _Point(NamedTuple):
    """A layer where it is drawn."""

    name: str
    kind: str
    intensity: float
    rate: float
    share: float
    series: int
    """Which of several predictions it belongs to."""

    @property
    def area(self) -> float:
        return max(_SMALLEST, _LARGEST * self.share)


@styled
def roofline(
    predictions: Prediction | Sequence[Prediction],
    ax: Axes | None = None,
    *,
    title: str | None = None,
    labels: int | None = None,
    note: bool = True,
) -> Axes:
    """Draw the layers of one prediction, or of two or three, under the roofs of their devices. Returns the axes.

    Args:
        predictions: of any networks on any devices; the second's markers are hollow, the third's tinted.
        ax: axes to draw onto, which should have their final size; a figure of its own if None.
        title: what stands above; if None, what the predictions have in common: network, device, input ...
        labels: how many labels at most: of the layers that take most of the time, rather of contractions (and of those
            alone where there are several predictions). If None, as many as leave the plot readable.
        note: whether to write the convention under the plot.

    Raises InputError for none or more than three predictions.
    """
    several = [predictions] if isinstance(predictions, Prediction) else list(predictions)
    if not 1 <= len(several) <= len(_FILLS):
        raise InputError(f"a roofline shows one to {len(_FILLS)} predictions, not {len(several)}.")
    ax = new_axes(10.4, 6.8, left=0.8, bottom=1.15, right=0.2, top=0.8) if ax is None else ax
    points = [point for series, prediction in enumerate(several) for point in _points(prediction, series)]
    roofs = roofs_of(several)
    _set_axes(ax, points, roofs)
    draw_roofs(ax, roofs)
    _draw_points(ax, points)
    markers = [_marker(ax, point) for point in points]
    taken = label_roofs(ax, roofs, markers)
    limit = _LABELS[len(several) > 1] if labels is None else labels
    _label_points(ax, points, markers, taken, lines_of(ax, roofs), limit)
    _draw_frame(ax, several, points, title, note)
    return ax


def _points(prediction: Prediction, series: int) -> list[_Point]:
    whole = prediction.bound_seconds
    return [
        _Point(
            layer.name,
            layer.kind,
            layer.cost.arithmetic_intensity,
            layer.flops_per_second,
            layer.bound_seconds / whole,
            series,
        )
        for layer in prediction.layers
        if _is_drawn(layer) and layer.bound_seconds > _NEGLIGIBLE * whole
    ]


def _is_drawn(layer: GroupPrediction) -> bool:
    return layer.cost.flops > 0 and layer.cost.moved_bytes > 0


def _set_axes(ax: Axes, points: Sequence[_Point], roofs: Sequence[Roof]) -> None:
    intensities = [point.intensity for point in points] + [roof.ridge for roof in roofs] or [1.0, 100.0]
    rates = [point.rate for point in points] + [roof.peak for roof in roofs] or [1e9, 1e12]
    dress_roofline(ax, "attainable rate (FLOP/s)")
    ax.set_xlim(*_widened(min(intensities) / 2.5, max(intensities) * 5, decades=2.5))
    ax.set_ylim(*_widened(min(rates) / 2.5, max(rates) * 3, decades=1.8))


def _widened(low: float, high: float, decades: float) -> tuple[float, float]:
    """Limits that span at least so many decades, with the room added below."""
    return min(low, high / 10**decades), high


def _draw_points(ax: Axes, points: Sequence[_Point]) -> None:
    """Large ones first, so that small ones lie on top of them."""
    for point in sorted(points, key=lambda point: -point.area):
        ax.scatter([point.intensity], [point.rate], s=point.area, zorder=3, **_look(point))


def _look(point: _Point) -> dict[str, Any]:
    """Marker and colours of a point; a small one has a thin edge."""
    style = KINDS.get(point.kind, KINDS["other"])
    face, edge, width = _FILLS[point.series]
    return {
        "marker": style.marker,
        "facecolor": to_rgba(style.colour, face),
        "edgecolor": edge or style.colour,
        "linewidth": width * min(1.0, point.area / 100),
    }


def _marker(ax: Axes, point: _Point) -> Box:
    """The square that a marker fills, in pixels."""
    return around(pixels(ax, point.intensity, point.rate), in_pixels(ax, math.sqrt(point.area) / 2))


def _label_points(
    ax: Axes, points: Sequence[_Point], markers: Sequence[Box], taken: Sequence[Box], lines: Sequence[Box], limit: int
) -> None:
    """Name the layers that matter, those that lie on top of one another in one label.

    Where several predictions share the axes only contractions are named: the others sit in one place in all of them.
    """
    groups = [group for group in _groups(ax, points) if _share(group) >= _NAMED[group[0].kind in CONTRACTIONS]]
    if any(point.series for point in points):
        groups = [group for group in groups if group[0].kind in CONTRACTIONS]
    groups.sort(key=lambda group: -(_share(group) + _AHEAD * (group[0].kind in CONTRACTIONS)))
    groups = groups[:limit]
    labels = [_measured(ax, group) for group in groups]
    boxes = place(labels, frame(ax).padded(-3), taken, markers, lines)
    for group, label, box in zip(groups, labels, boxes, strict=True):
        if box is not None:
            _write(ax, group, label, box, markers)


def _groups(ax: Axes, points: Sequence[_Point]) -> list[list[_Point]]:
    """Points of one kind and prediction that lie within a few pixels of one another, the largest first."""
    groups: list[list[_Point]] = []
    for point in sorted(points, key=lambda point: -point.share):
        here = pixels(ax, point.intensity, point.rate)
        for group in groups:
            first = group[0]
            same = (first.kind, first.series) == (point.kind, point.series)
            if same and math.dist(pixels(ax, first.intensity, first.rate), here) < in_pixels(ax, 3.5):
                group.append(point)
                break
        else:
            groups.append([point])
    return groups


def _share(group: Sequence[_Point]) -> float:
    return sum(point.share for point in group)


def _text(group: Sequence[_Point]) -> str:
    """A line a layer with its share, at most four."""
    shown = group if len(group) <= 4 else group[:3]
    rows = [f"{layer_name(point.name)}  {_percent(point.share)}" for point in shown]
    if len(shown) < len(group):
        rows.append(f"and {len(group) - len(shown)} more  {_percent(_share(group[len(shown) :]))}")
    return "\n".join(rows)


def _percent(share: float) -> str:
    return percent(share, 0 if share >= 0.1 else 1)


def _measured(ax: Axes, group: Sequence[_Point]) -> Label:
    """The label of a group, as large as its text will be."""
    sample = ax.text(0, 0, _text(group), **_LABEL)
    size = extent(sample)
    sample.remove()
    radius = in_pixels(ax, math.sqrt(group[0].area) / 2)
    x, y = pixels(ax, group[0].intensity, group[0].rate)
    return Label(x, y, radius, size.right - size.left, size.top - size.bottom, worth=80 + 8000 * _share(group))


def _write(ax: Axes, group: Sequence[_Point], label: Label, box: Box, markers: Sequence[Box]) -> None:
    """Write a label into its box, with a leader where it is off its point or nearer to another."""
    own = around((label.x, label.y), label.radius)
    away = box.distance(own)
    led = away > in_pixels(ax, 3.5) or any(box.distance(other) <= away for other in markers if not other.shared(own))
    x, y = box.nearest(label.x, label.y)
    leader = {
        "arrowstyle": "-", "color": SOFT, "linewidth": 0.6, "shrinkA": 1,
        "shrinkB": max(0.0, math.sqrt(group[0].area) / 2 - 1),
        "relpos": ((x - box.left) / label.width, (y - box.bottom) / label.height),
    }  # fmt: skip
    point = in_pixels(ax, 1)
    offset = ((box.left + box.right) / 2 - label.x) / point, ((box.bottom + box.top) / 2 - label.y) / point
    ax.annotate(
        _text(group),
        (group[0].intensity, group[0].rate),
        offset,
        textcoords="offset points",
        arrowprops=leader if led else None,
        **_LABEL,
    )


def _draw_frame(
    ax: Axes, predictions: Sequence[Prediction], points: Sequence[_Point], title: str | None, note: bool
) -> None:
    """Title, legend and the convention underneath."""
    common, own = _names(predictions)
    kinds = [kind for kind in KINDS if any(point.kind == kind for point in points)]
    rows = [[_handle(name, "conv", series) for series, name in enumerate(own)]] if len(own) > 1 else []
    if len(own) > 1:
        rows.append([_handle(KINDS[kind].title, kind, 0) for kind in kinds])
    else:
        shares = [_percent(_share_of(predictions[0], kind)) for kind in kinds]
        rows.append([_handle(f"{KINDS[k].title} {share}", k, 0) for k, share in zip(kinds, shares, strict=True)])
    rows = [row for row in rows if row]
    for up, handles in reversed(list(enumerate(reversed(rows)))):
        legend = ax.legend(
            handles=handles, loc="lower left", bbox_to_anchor=(0, 1 + 0.032 * up), ncol=7, fontsize=8,
            borderaxespad=0.2, handletextpad=0.2, columnspacing=1.2, borderpad=0.2, frameon=False,
        )  # fmt: skip
        if up:
            ax.add_artist(legend)  # the next legend would take its place
    ax.set_title(title or common or "Rooflines", loc="left", fontsize=11, pad=10 + 14 * len(rows))
    if note:
        inside = frame(ax)
        letters = (inside.right - inside.left) / in_pixels(ax, 3.55)
        ax.annotate(
            textwrap.fill(_convention(predictions, own), max(40, int(letters))), (0, 0), (-40, -40),
            xycoords="axes fraction", textcoords="offset points", va="top", fontsize=7, color=SOFT,
            annotation_clip=False,
        )  # fmt: skip


def _names(predictions: Sequence[Prediction]) -> tuple[str, list[str]]:
    """What predictions have in common (network, device, input, type, mode), and what tells each from the others."""
    facts = [_facts(prediction) for prediction in predictions]
    shared = [len(set(column)) == 1 for column in zip(*facts, strict=True)]
    common = [fact for fact, same in zip(facts[0], shared, strict=True) if same and fact]
    own = [[fact for fact, same in zip(row, shared, strict=True) if not same and fact] for row in facts]
    names = [" · ".join(mine) or every[0] for mine, every in zip(own, facts, strict=True)]
    return " · ".join(common), names


def _facts(prediction: Prediction) -> tuple[str, ...]:
    trace = prediction.costs.trace
    shape = " × ".join(str(size) for size in trace.inputs[0].shape) if trace.inputs else ""
    mode = "training step" if trace.train else "inference"
    return tuple(shortened(text, 48) for text in (trace.model, prediction.device.title, shape, trace.dtype, mode))


def _share_of(prediction: Prediction, kind: str) -> float:
    """The share of the time that a kind of layer takes."""
    return sum(layer.bound_seconds for layer in prediction.layers if layer.kind == kind) / prediction.bound_seconds


def _handle(text: str, kind: str, series: int) -> Line2D:
    look = _look(_Point("", kind, 0, 0, 1, series))
    return Line2D(
        [], [], linestyle="none", marker=look["marker"], markersize=7, markerfacecolor=look["facecolor"],
        markeredgecolor=look["edgecolor"], markeredgewidth=look["linewidth"], label=shortened(text, 80),
    )  # fmt: skip


def _convention(predictions: Sequence[Prediction], names: Sequence[str]) -> str:
    times = "; ".join(f"{name}: {_time(prediction)}" for name, prediction in zip(names, predictions, strict=True))
    return (
        f"{times}. A point is a layer: FLOPs (2 x MACs + vector FLOPs) for a byte moved, and FLOPs over the time that "
        "bounds it; area and percentage are its share of that time. Time is the "
        f"{CONVENTION}. Roofs are dense peaks and memory bandwidth as published; each layer stands under the roof of "
        "the precision that it runs in."
    )


def _time(prediction: Prediction) -> str:
    idle = sum(layer.bound_seconds for layer in prediction.layers if not _is_drawn(layer))
    text = f"bound {seconds(prediction.bound_seconds)}"
    if idle < _NEGLIGIBLE * prediction.bound_seconds or not idle:
        return text
    return f"{text}, {percent(idle / prediction.bound_seconds)} of it in layers that only move bytes and are not drawn"
