"""Where to write labels so that none covers another: a small search over boxes, with the same result on every run.

Each label has some hundred places around its point, and each place a cost: how far it is, what it hides, whose point
it seems to name, what its leader (the line from the point to the label) runs over. Labels are placed one after another,
each where it adds least, and moved again until none wants to; that is done from several orders, and the cheapest result
stands. No two labels overlap and none leaves the area; one that finds no good place is left out. Plain geometry in any
one unit of length; y grows upward.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_ROUNDS = 6
_DIRECTIONS = 24
_RINGS = 14

_HIDING_A_POINT = 4.0
_HIDING_A_LINE = 2.5
_CROSSING = 250.0
_ALONG_A_LINE = 2.0
_NEARER_TO_ANOTHER = 12.0
_FAR = 0.3
"""What is bad about a place, and how bad: lengths are multiplied by these, crossings count each."""


class Box(NamedTuple):
    """A rectangle."""

    left: float
    bottom: float
    right: float
    top: float

    def shared(self, other: Box) -> float:
        """The area that both cover."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.top, other.top) - max(self.bottom, other.bottom)
        return wide * high if wide > 0 and high > 0 else 0.0

    def distance(self, other: Box) -> float:
        """How far apart they are; 0 where they touch."""
        return float(_distance(_array([self]), _array([other]))[0, 0])

    def padded(self, by: float) -> Box:
        """The rectangle with a margin around it."""
        return Box(self.left - by, self.bottom - by, self.right + by, self.top + by)

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The point of the rectangle that is nearest to (x, y)."""
        return min(max(x, self.left), self.right), min(max(y, self.bottom), self.top)


class Label(NamedTuple):
    """A label that wants a place."""

    x: float
    """The point that it names."""

    y: float
    radius: float
    """Half the size of the point's marker."""

    width: float
    height: float
    worth: float = 150.0
    """What a place may cost at most: a label that only has worse ones is left out, as it would confuse."""


def place(
    labels: Sequence[Label],
    area: Box,
    taken: Sequence[Box] = (),
    points: Sequence[Box] = (),
    lines: Sequence[Box] = (),
    gap: float = 4.0,
) -> list[Box | None]:
    """A box for each label, or None where there is no good place. No two boxes overlap, and none leaves the area.

    Args:
        labels: the most important first.
        area: where labels may stand.
        taken: what a label may not touch, such as other text.
        points: what it should not hide: the markers.
        lines: what it should rather not stand on: pieces of the lines.
        gap: the distance to keep from markers and other labels.
    """
    choices = [_choices(label, area, taken, points, lines, gap) for label in labels]
    outcomes = [_settled(choices, order, gap) for order in _orders(labels)]
    _, best = min(outcomes, key=lambda outcome: outcome[0], default=(0.0, []))
    best = _exchanged(choices, best, gap)
    return [None if pick is None else choice.box(pick) for choice, pick in zip(choices, best, strict=True)]


@dataclass(frozen=True)
class _Choices:
    """The places that one label may take."""

    point: Array
    """x, y of the point that it names."""

    boxes: Array
    """[place, (left, bottom, right, top)]"""

    ends: Array
    """Where each place's leader ends: [place, (x, y)]."""

    costs: Array
    """What each place costs whatever the other labels do."""

    worth: float

    def box(self, pick: int) -> Box:
        return Box(*(float(value) for value in self.boxes[pick]))


def _orders(labels: Sequence[Label]) -> list[list[int]]:
    """The orders to try: by importance, and along both axes both ways."""
    given = list(range(len(labels)))
    across = sorted(given, key=lambda i: (labels[i].x, labels[i].y))
    up = sorted(given, key=lambda i: (labels[i].y, labels[i].x))
    return [given, given[::-1], across, across[::-1], up, up[::-1], given[::2] + given[1::2]]


def _settled(choices: Sequence[_Choices], order: Iterable[int], gap: float) -> tuple[float, list[int | None]]:
    """Place the labels in an order, then move each again until none wants to: the cost of it all, and the picks."""
    order = list(order)
    picks: list[int | None] = [None] * len(choices)
    for _ in range(_ROUNDS):
        before = list(picks)
        for index in order:
            costs = _costs(choices, picks, index, gap)
            picks[index] = int(np.argmin(costs)) if len(costs) and costs.min() < choices[index].worth else None
        if picks == before:
            break
    return _cost(choices, picks, gap), picks


def _cost(choices: Sequence[_Choices], picks: Sequence[int | None], gap: float) -> float:
    """What all labels cost where they stand."""
    return math.fsum(
        choices[index].worth if pick is None else float(_costs(choices, picks, index, gap)[pick])
        for index, pick in enumerate(picks)
    )


def _exchanged(choices: Sequence[_Choices], picks: Sequence[int | None], gap: float) -> list[int | None]:
    """Two labels at a time may stand in each other's way: lift both and set them down again, the second first."""
    best, lowest = list(picks), _cost(choices, picks, gap)
    for one, two in itertools.permutations(range(len(best)), 2):
        tried = list(best)
        tried[one] = tried[two] = None
        for index in (two, one):
            costs = _costs(choices, tried, index, gap)
            tried[index] = int(np.argmin(costs)) if len(costs) and costs.min() < choices[index].worth else None
        cost = _cost(choices, tried, gap) if tried != best else lowest
        if cost < lowest:
            best, lowest = tried, cost
    return best


def _costs(choices: Sequence[_Choices], picks: Sequence[int | None], index: int, gap: float) -> Array:
    """What each place of one label costs, given where the others stand; infinite where it would touch one."""
    mine = choices[index]
    others = [(other, pick) for i, (other, pick) in enumerate(zip(choices, picks, strict=True)) if i != index]
    placed = [(other, pick) for other, pick in others if pick is not None]
    if not placed or not len(mine.boxes):
        return mine.costs
    boxes = np.array([other.boxes[pick] for other, pick in placed]) + np.array([-gap, -gap, gap, gap]) / 2
    starts = np.array([other.point for other, _ in placed])
    ends = np.array([other.ends[pick] for other, pick in placed])
    crossings = (
        _through(mine.point[None, :], mine.ends, boxes).sum(axis=1)
        + _through(starts, ends, mine.boxes).sum(axis=0)
        + _crossing(mine.point, mine.ends, starts, ends).sum(axis=1)
    )
    touching = _overlap(mine.boxes, boxes).any(axis=1)
    return np.where(touching, np.inf, mine.costs + _CROSSING * crossings)


def _choices(
    label: Label, area: Box, taken: Sequence[Box], points: Sequence[Box], lines: Sequence[Box], gap: float
) -> _Choices:
    boxes, distance = _around(label, gap)
    free = (boxes[:, :2] >= area[:2]).all(axis=1) & (boxes[:, 2:] <= area[2:]).all(axis=1)
    free &= ~_overlap(boxes, _array(taken)).any(axis=1)
    boxes, distance = boxes[free], distance[free]
    point = np.array([label.x, label.y])
    ends = np.clip(point, boxes[:, :2], boxes[:, 2:])
    itself = Box(label.x, label.y, label.x, label.y).padded(1)
    strangers = [box for box in points if not box.shared(itself)]
    costs = (
        _FAR * distance
        + _HIDING_A_POINT * np.sqrt(_overlap(boxes, _array(points))).sum(axis=1)
        + _HIDING_A_LINE * np.sqrt(_overlap(boxes, _array(lines))).sum(axis=1)
        + _CROSSING * _through(point[None, :], ends, _array([*strangers, *taken])).sum(axis=1)
        + _ALONG_A_LINE * _through(point[None, :], ends, _array(lines)).sum(axis=1)
        + _NEARER_TO_ANOTHER * (_distance(boxes, _array(strangers)) < distance[:, None] + gap).any(axis=1)
    )
    return _Choices(point, boxes, ends, costs, label.worth)


def _around(label: Label, gap: float) -> tuple[Array, Array]:
    """Boxes around a point, nearest first, and how far off each is."""
    step = max(label.height, 1.0) * 0.75
    places = []
    for ring in range(_RINGS):
        off = ring * step * (1 + ring / 10)
        reach = label.radius + gap + off
        for turn in range(_DIRECTIONS):
            angle = 2 * math.pi * turn / _DIRECTIONS
            across, up = math.cos(angle), math.sin(angle)
            x = label.x + reach * across + label.width / 2 * max(-1.0, min(1.0, 1.6 * across))
            y = label.y + reach * up + label.height / 2 * max(-1.0, min(1.0, 1.6 * up))
            places.append((x - label.width / 2, y - label.height / 2, x + label.width / 2, y + label.height / 2, off))
    table = np.array(places)
    return table[:, :4], table[:, 4]


def _array(boxes: Sequence[Box]) -> Array:
    return np.array(boxes, dtype=float).reshape(-1, 4)


def _overlap(boxes: Array, obstacles: Array) -> Array:
    """The area that each box shares with each obstacle: [box, obstacle]."""
    sides = np.minimum(boxes[:, None, 2:], obstacles[None, :, 2:]) - np.maximum(
        boxes[:, None, :2], obstacles[None, :, :2]
    )
    return np.prod(np.clip(sides, 0, None), axis=2)


def _distance(boxes: Array, others: Array) -> Array:
    """How far each box is from each other one: [box, other]."""
    apart = np.maximum(boxes[:, None, :2] - others[None, :, 2:], others[None, :, :2] - boxes[:, None, 2:])
    return np.hypot(*np.moveaxis(np.clip(apart, 0, None), 2, 0))


def _through(starts: Array, ends: Array, boxes: Array) -> Mask:
    """Whether each leader passes through each box: [leader, box]. By the slab method."""
    way = (ends - starts + 1e-9)[:, None, :]  # never exactly along an axis
    one = (boxes[None, :, :2] - starts[:, None, :]) / way
    two = (boxes[None, :, 2:] - starts[:, None, :]) / way
    enters = np.minimum(one, two).max(axis=2)
    leaves = np.maximum(one, two).min(axis=2)
    return (leaves > np.maximum(enters, 0)) & (enters < 1)


def _crossing(point: Array, ends: Array, starts: Array, stops: Array) -> Mask:
    """Whether each leader from `point` to `ends` crosses each one from `starts` to `stops`: [end, start]."""

    def side(a: Array, b: Array, c: Array) -> Array:
        return (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])

    origin, end = point[None, None, :], ends[:, None, :]
    one, two = starts[None, :, :], stops[None, :, :]
    return (side(origin, end, one) * side(origin, end, two) < 0) & (side(one, two, origin) * side(one, two, end) < 0)
