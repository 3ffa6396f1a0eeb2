"""The Pareto front: points that no other dominates, which is no worse in all coordinates and better in one."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Any

import numpy as np
import numpy.typing as npt


def pareto(costs: Any) -> npt.NDArray[np.bool_]:
    """Which rows of an (n, d) array of costs no other row dominates, less being better in every column.

    Equal rows do not dominate one another, so all of them stay. A row with a NaN is never chosen and dominates none.
    Two columns take one sort, three a sort and a staircase; with more, each point kept removes all it dominates.
    """
    points = np.asarray(costs, dtype=float)
    if points.ndim != 2:
        raise ValueError("costs are an array of rows and columns")
    chosen = np.zeros(len(points), dtype=bool)
    valid = np.flatnonzero(~np.isnan(points).any(axis=1))
    if len(valid):
        distinct, place = np.unique(points[valid], axis=0, return_inverse=True)
        front = {2: _two, 3: _three}.get(points.shape[1], _many)(distinct)
        chosen[valid] = front[place.ravel()]
    return chosen


def _two(points: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Distinct rows in ascending order: one stays if its second column is less than that of all before it."""
    least_before = np.minimum.accumulate(np.concatenate(([np.inf], points[:-1, 1])))
    kept = points[:, 1] < least_before
    kept[0] = True  # even if its second column is infinite
    return kept


def _three(points: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Distinct rows in ascending order: one is dominated if one before it is no worse in the other two columns.

    Of those before it a staircase is enough: second columns ascend while third columns descend.
    """
    seconds: list[float] = []
    thirds: list[float] = []
    kept = np.zeros(len(points), dtype=bool)
    for index, (_, second, third) in enumerate(points.tolist()):
        step = bisect_right(seconds, second)
        if step and thirds[step - 1] <= third:
            continue
        kept[index] = True
        first = bisect_left(seconds, second)  # the new step replaces those that it dominates
        last = first
        while last < len(thirds) and thirds[last] >= third:
            last += 1
        seconds[first:last], thirds[first:last] = [second], [third]
    return kept


def _many(points: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Distinct rows; only a row with a smaller sum of ranks dominates another: in that order each is decided once."""
    ranks = np.stack([np.unique(column, return_inverse=True)[1].ravel() for column in points.T], axis=1)
    order = np.argsort(ranks.sum(axis=1), kind="stable")
    ranks = ranks[order]
    remaining, kept = np.arange(len(ranks)), []
    while len(remaining):
        first = remaining[0]
        kept.append(first)
        better_somewhere = (ranks[remaining] < ranks[first]).any(axis=1)
        remaining = remaining[better_somewhere]  # drops `first` itself too
    chosen = np.zeros(len(points), dtype=bool)
    chosen[order[kept]] = True
    return chosen
