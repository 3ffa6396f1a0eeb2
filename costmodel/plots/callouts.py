"""Labels beside points of a plot: measured, placed where none covers another, and led to their point where it is off.

`labels` finds the places; here texts become boxes and boxes become texts again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from costmodel.plots.labels import Box, Label, place
from costmodel.plots.pixels import around, extent, frame, in_pixels, pixels
from costmodel.plots.roofs import BACKING
from costmodel.plots.style import SOFT

_STYLE: dict[str, Any] = {
    "ha": "center", "va": "center", "multialignment": "left", "fontsize": 8, "linespacing": 1.15, "zorder": 6,
    "bbox": BACKING,
}  # fmt: skip
_OFF = 3.5
"""From so many points between marker and label on a leader joins them."""


class Callout(NamedTuple):
    """A text about a point."""

    text: str
    x: float
    """In the data's units."""

    y: float
    area: float
    """Of the point's marker, in square points."""

    worth: float
    """What a place may cost, see `labels.Label`."""


def call_out(
    ax: Axes, callouts: Sequence[Callout], taken: Sequence[Box], markers: Sequence[Box], lines: Sequence[Box]
) -> None:
    """Write texts beside their points, the most important first; one that finds no good place is left out.

    Args:
        ax: the axes.
        callouts: what to write.
        taken: what no text may touch, in pixels, as are the others.
        markers: of every point: what a text should not hide.
        lines: pieces of the lines that a text should rather not stand on.
    """
    labels = [_measured(ax, callout) for callout in callouts]
    for callout, label, box in zip(
        callouts, labels, place(labels, frame(ax).padded(-3), taken, markers, lines), strict=True
    ):
        if box is not None:
            _write(ax, callout, label, box, markers)


def _measured(ax: Axes, callout: Callout) -> Label:
    """The label, as large as its text will be."""
    sample = ax.text(0, 0, callout.text, **_STYLE)
    size = extent(sample)
    sample.remove()
    radius = in_pixels(ax, math.sqrt(callout.area) / 2)
    width, height = size.right - size.left, size.top - size.bottom
    return Label(*pixels(ax, callout.x, callout.y), radius, width, height, callout.worth)


def _write(ax: Axes, callout: Callout, label: Label, box: Box, markers: Sequence[Box]) -> None:
    """Write a text into its box, with a leader where it is off its point or nearer to another."""
    own = around((label.x, label.y), label.radius)
    away = box.distance(own)
    strangers = [marker for marker in markers if not _same(marker, own)]
    led = away > in_pixels(ax, _OFF) or any(box.distance(other) <= away for other in strangers)
    x, y = box.nearest(label.x, label.y)
    leader = {
        "arrowstyle": "-", "color": SOFT, "linewidth": 0.6, "shrinkA": 1,
        "shrinkB": max(0.0, math.sqrt(callout.area) / 2 - 1),
        "relpos": ((x - box.left) / label.width, (y - box.bottom) / label.height),
    }  # fmt: skip
    point = in_pixels(ax, 1)
    offset = ((box.left + box.right) / 2 - label.x) / point, ((box.bottom + box.top) / 2 - label.y) / point
    ax.annotate(
        callout.text,
        (callout.x, callout.y),
        offset,
        textcoords="offset points",
        arrowprops=leader if led else None,
        **_STYLE,
    )


def _same(marker: Box, own: Box) -> bool:
    """Whether two markers lie on one point."""
    middle = (marker.left + marker.right) / 2, (marker.bottom + marker.top) / 2
    return math.dist(middle, ((own.left + own.right) / 2, (own.bottom + own.top) / 2)) < 1
