"""The roofs of a roofline plot: the memory's slanted line, a flat one a precision path, and what stands on them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from costmodel.devices import PATHS, Device
from costmodel.plots.labels import Box
from costmodel.plots.pixels import extent, frame, in_pixels, pieces, pixels
from costmodel.plots.style import INK, SOFT
from costmodel.roofline import Prediction
from costmodel.units import si

CONTRACTIONS = {"conv": "convolutions", "linear": "matrix products", "attention": "attention"}
"""The kinds of layer that multiply and accumulate, and what stands under a roof for their sake."""

BACKING = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}
"""What keeps a text legible on a line."""

_DASHES = ("-", "--", ":", "-.")
_TEXT: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8.5, "zorder": 5, "bbox": BACKING}


class Roof(NamedTuple):
    """A flat roof: one peak of a device, the precision paths that share it, and what runs under it."""

    device: Device
    peak: float
    paths: tuple[str, ...]
    uses: tuple[str, ...]

    @property
    def ridge(self) -> float:
        """The intensity where it meets the memory's line."""
        return self.peak / self.device.memory_bandwidth

    @property
    def text(self) -> str:
        """What stands on the line."""
        names = ", ".join(PATHS[path] for path in self.paths)
        return f"{names} {si(self.peak, 'FLOP/s')} ({', '.join(self.uses)})"


def roofs_of(predictions: Iterable[Prediction]) -> list[Roof]:
    """The roofs that some operation stands under, highest first."""
    found: dict[tuple[str, float], Roof] = {}
    for prediction in predictions:
        for row in prediction.operations:
            if row.path:
                use = CONTRACTIONS.get(row.kind, "other contractions") if row.cost.macs else "vector work"
                peak = prediction.device.peaks[row.path]
                key = prediction.device.title, peak
                roof = found.get(key, Roof(prediction.device, peak, (), ()))
                found[key] = roof._replace(paths=_with(roof.paths, row.path), uses=_with(roof.uses, use))
    return sorted(found.values(), key=lambda roof: (-roof.peak, roof.device.title))


def _with(items: tuple[str, ...], item: str) -> tuple[str, ...]:
    """The items and one more, "vector work" at the end."""
    return tuple(sorted({*items, item}, key=lambda text: (text == "vector work", text)))


def _highest(roofs: Sequence[Roof]) -> list[Roof]:
    """Each device's highest roof, at which its memory's line ends."""
    return [next(roof for roof in roofs if roof.device.title == title) for title in _titles(roofs)]


def _titles(roofs: Sequence[Roof]) -> list[str]:
    return list(dict.fromkeys(roof.device.title for roof in roofs))


def draw_roofs(ax: Axes, roofs: Sequence[Roof]) -> None:
    """Draw the lines, a ring at each ridge, and a dotted line down from it. A second device's lines are dashed."""
    left, right = ax.get_xlim()
    bottom = ax.get_ylim()[0]
    titles = _titles(roofs)
    for roof in _highest(roofs):
        dash = _DASHES[titles.index(roof.device.title) % len(_DASHES)]
        memory = [left * roof.device.memory_bandwidth, roof.peak]
        ax.plot([left, roof.ridge], memory, dash, color=INK, linewidth=1.4, zorder=2)
    for roof in roofs:
        dash = _DASHES[titles.index(roof.device.title) % len(_DASHES)]
        ax.plot([roof.ridge, right], [roof.peak, roof.peak], dash, color=INK, linewidth=1.4, zorder=2)
        ax.plot([roof.ridge, roof.ridge], [bottom, roof.peak], ":", color=SOFT, linewidth=0.8, zorder=1.5)
        ax.plot([roof.ridge], [roof.peak], "o", color="white", markeredgecolor=INK, markersize=4, zorder=2.5)


def lines_of(ax: Axes, roofs: Sequence[Roof]) -> list[Box]:
    """What the lines cover, in pixels."""
    left, right = ax.get_xlim()
    bottom = ax.get_ylim()[0]
    half = in_pixels(ax, 2)
    covered = []
    for roof in _highest(roofs):
        start = pixels(ax, left, left * roof.device.memory_bandwidth)
        covered += pieces(start, pixels(ax, roof.ridge, roof.peak), half)
    for roof in roofs:
        covered += pieces(pixels(ax, roof.ridge, roof.peak), pixels(ax, right, roof.peak), half)
        covered += pieces(pixels(ax, roof.ridge, bottom), pixels(ax, roof.ridge, roof.peak), half)
    return covered


def label_roofs(ax: Axes, roofs: Sequence[Roof], markers: Sequence[Box]) -> list[Box]:
    """Write on each line what it is and at the foot of each ridge where it is, away from the markers.

    Returns what the texts cover, in pixels.
    """
    taken: list[Box] = []
    named = len(_titles(roofs)) > 1
    for roof in roofs:
        taken += _label_flat(ax, roof, [*markers, *taken], named)
    for roof in _highest(roofs):
        taken += _label_slanted(ax, roof, [*markers, *taken], named)
    for roof in roofs:
        taken += _label_ridge(ax, roof, [*markers, *taken])
    return taken


def _hidden(boxes: Iterable[Box], others: Sequence[Box]) -> float:
    """The area that boxes and others share."""
    return sum(box.shared(other) for box in boxes for other in others)


def _label_flat(ax: Axes, roof: Roof, avoid: Sequence[Box], named: bool) -> list[Box]:
    """Above the line, rather at its right end, or before its ridge, or below the line: where it hides least."""
    words = f"{roof.device.name}: {roof.text}" if named else roof.text
    text = ax.annotate(words, (roof.ridge, roof.peak), (0, 0), ha="right", **_TEXT)
    inside = frame(ax)
    if extent(text).right - extent(text).left > 0.6 * (inside.right - inside.left):
        text.set_text(words.partition(" (")[0])
    right = ax.get_xlim()[1]
    ends = [right * (roof.ridge / right) ** (share / 8) for share in range(9)]

    def cost(spot: tuple[float, str, int]) -> float:
        x, side, up = spot
        text.xy = x, roof.peak
        text.set(position=(-5, up), va=side)
        box = extent(text)
        return _hidden([box], avoid) + 1e6 * (box.left < inside.left or box.top > inside.top)

    cost(min([(x, "bottom", 3) for x in ends] + [(x, "top", -4) for x in ends[:-1]], key=cost))
    return [extent(text)]


def _label_slanted(ax: Axes, roof: Roof, avoid: Sequence[Box], named: bool) -> list[Box]:
    """Along the memory's line, above it, where it hides least."""
    bandwidth = roof.device.memory_bandwidth
    start = max(ax.get_xlim()[0], ax.get_ylim()[0] / bandwidth)
    low, high = pixels(ax, start, start * bandwidth), pixels(ax, roof.ridge, roof.peak)
    angle = math.atan2(high[1] - low[1], high[0] - low[0])
    words = f"{roof.device.name}: memory" if named else "memory"
    text = ax.annotate(f"{words} {si(bandwidth, 'B/s')}", (start, bandwidth), (0, 0), ha="center", va="center", **_TEXT)
    size = extent(text)
    width, height = size.right - size.left, size.top - size.bottom
    off = -math.sin(angle) * (height / 2 + in_pixels(ax, 4)), math.cos(angle) * (height / 2 + in_pixels(ax, 4))

    def covered(share: float) -> list[Box]:
        x, y = (a + share * (b - a) + away for a, b, away in zip(low, high, off, strict=True))
        across, up = width / 2 * math.cos(angle), width / 2 * math.sin(angle)
        return pieces((x - across, y - up), (x + across, y + up), height / 2)

    margin = width / 2 / max(math.dist(low, high), 1.0)
    shares = [step / 40 for step in range(41) if margin <= step / 40 <= 1 - margin] or [0.5]
    best = min(shares, key=lambda share: (_hidden(covered(share), avoid), abs(share - 0.6)))
    x = start * (roof.ridge / start) ** best
    text.xy = x, x * bandwidth
    text.set(
        position=tuple(away / in_pixels(ax, 1) for away in off), rotation=math.degrees(angle), rotation_mode="anchor"
    )
    return covered(best)


def _label_ridge(ax: Axes, roof: Roof, avoid: Sequence[Box]) -> list[Box]:
    """At the foot of the dotted line; a row higher as long as another text or a marker is there."""
    foot = roof.ridge, ax.get_ylim()[0]
    text = ax.annotate(f"ridge {roof.ridge:.3g} FLOP/byte", foot, (3, 4), **_TEXT | {"fontsize": 7.5}, color=SOFT)
    if extent(text).right > frame(ax).right:
        text.set(position=(-3, 4), ha="right")
    across, up = text.get_position()
    while _hidden([extent(text)], avoid) and up < 100:
        up += 11
        text.set_position((across, up))
    return [extent(text)]
