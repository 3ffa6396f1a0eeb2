"""The roofline plot: a point a layer, under the roof that holds it down.

Both axes are logarithmic: across, the layer's arithmetic intensity (FLOPs a byte); up, the rate at which it computes if
it takes no longer than its bound. The slanted line is the memory, each flat one a precision path that layers take.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D

from costmodel.errors import InputError, type_of
from costmodel.plots.callouts import Callout, call_out
from costmodel.plots.labels import Box
from costmodel.plots.pixels import around, frame, in_pixels, pixels
from costmodel.plots.roofs import CONTRACTIONS, Roof, draw_roofs, label_roofs, lines_of, roofs_of
from costmodel.plots.style import KINDS, SOFT, dress_roofline, layer_name, new_axes, shortened, styled
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

_ROOM = {False: (5, 3), True: (20, 6)}
"""How far the axes go on beyond the last point and the highest roof, for labels."""

_AHEAD = 0.05
"""By so much of the time contractions come before others where there are more labels than room."""

_FILLS = ((1.0, "white", 0.8), (0.0, None, 1.6), (0.3, None, 1.0))
"""Opacity of the face, colour of the edge (None: the kind's) and its width: of the first, second, third prediction."""


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
    if strange := next((each for each in several if not isinstance(each, Prediction)), None):
        raise InputError(f"a roofline shows predictions, not {type_of(strange)}: cm.predict(costs, device) makes one.")
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
    _label_points(ax, points, _short_names(several), markers, taken, lines_of(ax, roofs), limit)
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
    right, above = _ROOM[any(point.series for point in points)]
    ax.set_xlim(*_widened(min(intensities) / 2.5, max(intensities) * right, decades=2.5))
    ax.set_ylim(*_widened(min(rates) / 2.5, max(rates) * above, decades=1.8))


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
    ax: Axes,
    points: Sequence[_Point],
    names: Sequence[str],
    markers: Sequence[Box],
    taken: Sequence[Box],
    lines: Sequence[Box],
    limit: int,
) -> None:
    """Name the layers that matter, those that lie on top of one another in one label; `names` are the predictions'.

    Where several predictions share the axes only contractions are named: the others sit in one place in all of them.
    """
    groups = [group for group in _groups(ax, points) if _share(group) >= _NAMED[group[0].kind in CONTRACTIONS]]
    if any(point.series for point in points):
        groups = [group for group in groups if group[0].kind in CONTRACTIONS]
    groups.sort(key=lambda group: -(_share(group) + _AHEAD * (group[0].kind in CONTRACTIONS)))
    callouts = [
        Callout(_text(group, names), group[0].intensity, group[0].rate, group[0].area, 80 + 8000 * _share(group))
        for group in groups[:limit]
    ]
    call_out(ax, callouts, taken, markers, lines)


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


def _text(group: Sequence[_Point], names: Sequence[str]) -> str:
    """Layers with their shares, at most four; of several predictions, after the name of their own.

    Neighbours in one block with the same share take one line: "net.2.2, .4, .6  3.5 % each".
    """
    shown = group if len(group) <= 4 else group[:3]
    own = f"{names[group[0].series]}: " if len(names) > 1 else ""
    rows = []
    for (block, share), alike in itertools.groupby(shown, lambda point: (_block(point), _percent(point.share))):
        first, *others = [layer_name(point.name) for point in alike]
        rows.append(", ".join([first, *(name.removeprefix(block) for name in others)]) + f"  {share}")
        rows[-1] += " each" if others else ""
    if len(shown) < len(group):
        rows.append(f"{len(group) - len(shown)} more, together {_percent(_share(group[len(shown) :]))}")
    return "\n".join(f"{own}{row}" for row in rows)


def _block(point: _Point) -> str:
    """The path of the module around a layer: "net.2" of "net.2.4"."""
    return point.name.rpartition(".")[0]


def _percent(share: float) -> str:
    return percent(share, 0 if share >= 0.1 else 1)


def _draw_frame(
    ax: Axes, predictions: Sequence[Prediction], points: Sequence[_Point], title: str | None, note: bool
) -> None:
    """Title, legend and the convention underneath."""
    common, own = _names(predictions)
    kinds = [kind for kind in KINDS if any(point.kind == kind for point in points)]
    rows = (
        [[_handle(name, "conv", series) for series, name in enumerate(_legend_names(predictions, own))]]
        if len(own) > 1
        else []
    )
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


def _legend_names(predictions: Sequence[Prediction], own: Sequence[str]) -> list[str]:
    """The names with what labels call them before: "b64: 64 × 1 × 224 × 224"."""
    pairs = zip(_short_names(predictions), own, strict=True)
    return [name if name.startswith(short) else f"{short}: {name}" for short, name in pairs]


def _short_names(predictions: Sequence[Prediction]) -> list[str]:
    """What tells predictions apart, in few letters: "b64", "AlexNet (book)", "h200", "float16", "training"."""
    facts = [_short_facts(prediction) for prediction in predictions]
    differs = [len(set(column)) > 1 for column in zip(*facts, strict=True)]
    names = [" ".join(fact for fact, own in zip(row, differs, strict=True) if own) for row in facts]
    return [name or f"{index}" for index, name in enumerate(names, 1)]


def _short_facts(prediction: Prediction) -> tuple[str, ...]:
    trace = prediction.costs.trace
    shape = trace.inputs[0].shape if trace.inputs else ()
    names = shortened(trace.model, 20), shortened(prediction.device.name, 16)
    return (*names, f"b{shape[0]}" if shape else "", trace.dtype, "training" if trace.train else "inference")


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
