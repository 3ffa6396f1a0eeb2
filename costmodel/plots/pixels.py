"""From data to pixels: where points, texts and lines lie on the canvas, as boxes that labels can keep away from."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.text import Text

from costmodel.plots.labels import Box

Point = tuple[float, float]


def pixels(ax: Axes, x: float, y: float) -> Point:
    """Where a point of the data lies."""
    across, up = ax.transData.transform((x, y))
    return float(across), float(up)


def in_pixels(ax: Axes, points: float) -> float:
    """A length that is given in points (1/72 inch)."""
    return points * ax.figure.dpi / 72


def around(center: Point, half: float) -> Box:
    """The square around a point."""
    return Box(center[0], center[1], center[0], center[1]).padded(half)


def extent(text: Text) -> Box:
    """The rectangle around a text; for a rotated one, upright all the same."""
    return Box(*(float(value) for value in text.get_window_extent().extents))


def frame(ax: Axes) -> Box:
    """The rectangle inside the axes."""
    return Box(*(float(value) for value in ax.get_window_extent().extents))


def pieces(start: Point, end: Point, half: float) -> list[Box]:
    """A line as a chain of squares, each `half` to every side of its center."""
    count = max(2, round(math.dist(start, end) / (2 * half)))
    across, up = (end[0] - start[0]) / count, (end[1] - start[1]) / count
    return [around((start[0] + across * step, start[1] + up * step), half) for step in range(count + 1)]
