"""Searches for the largest number that fits, where what fits is known to be monotone and where it is not."""

from __future__ import annotations

from collections.abc import Callable

_MOST = 1 << 40
"""No search goes further."""


def last(holds: Callable[[int], bool]) -> int:
    """The last number from 1 on for which a condition holds that never holds again once it fails; 0 if none."""
    low, high = 0, 1
    while high <= _MOST and holds(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def largest(fits: Callable[[int], bool], top: int, tries: int) -> tuple[int, bool]:
    """The largest number up to `top` that fits (0 if none does), and whether every larger one was tried.

    What fits need not be monotone: after a bisection the numbers above are tried one by one, from the top, unless they
    are more than `tries`.
    """
    known: dict[int, bool] = {}

    def tried(number: int) -> bool:
        if number not in known:
            known[number] = fits(number)
        return known[number]

    low, high, stride = top, top + 1, 1
    while low > 0 and not tried(low):
        low, high, stride = max(0, low - stride), low, 2 * stride
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if tried(middle) else (low, middle)
    above = range(top, low, -1)
    if len(above) > tries:
        return low, all(number in known for number in above)
    return next((number for number in above if tried(number)), low), True
