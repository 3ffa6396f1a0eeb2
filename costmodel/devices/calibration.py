"""Measured rates of a device: fitted rates for each class of operation, with their error.

    [calibration]
    source = "run"                  # one of [sources]: what ran, with its date and command
    cache_bytes = 33554432          # up to this working set bytes count as near
    fresh_from_bytes = 33554432     # new tensors of this size lie in memory newly taken
    confidence = 0.9                # share of held-out shapes that lie within an interval
    noise = 0.04                    # how far a reference operation's times lay apart meanwhile; may be missing

    [calibration.classes.conv_3x3.fp32]
    fixed_seconds = 2.9e-5
    cold_seconds = 4.0e-5           # on top, where nothing is in the cache, not even the program
    flops_per_second = 1.1e11
    near_bytes_per_second = 7.1e9   # found in the last-level cache
    far_bytes_per_second = 7.8e9    # in memory
    fresh_bytes_per_second = 9.1e8  # written to memory newly taken
    overlap = 1.0
    low = 0.85                      # measured / estimated, of held-out shapes
    high = 1.20
    error = 0.07                    # median of |estimated / measured - 1|, of held-out shapes
    shapes = 36

    [calibration.products.fp32]     # FLOP/s of n x n matrix products
    1024 = 1.0e11

    [calibration.bandwidth]         # bytes/s, read and written, by working set in bytes
    1048576 = 9.1e10

`costmodel.estimate` says what the numbers mean and how they make a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from costmodel.errors import InputError
from costmodel.view import Table, column


@dataclass(frozen=True, slots=True)
class FittedRates:
    """What operations of one class reach by one precision path. Raises InputError for numbers that cannot be."""

    fixed_seconds: float
    """What each costs, however small."""

    cold_seconds: float
    """Its extra cost where not even the program is in the cache."""

    flops_per_second: float
    near_bytes_per_second: float
    """Of bytes found in the last-level cache, or written there."""

    far_bytes_per_second: float
    """Of bytes in memory."""

    fresh_bytes_per_second: float
    """Of bytes written to memory newly taken."""

    overlap: float
    """The p of the norm by which arithmetic and traffic add up: 1 is one after the other, infinity at the same time."""

    low: float
    """The interval's lower end, as a multiple of the estimate."""

    high: float
    """Its upper end."""

    error: float
    """Median relative error of held-out shapes."""

    shapes: int
    """How many shapes they were fitted on."""

    def __post_init__(self) -> None:
        for f in fields(self):
            problem = _problem(f.name, getattr(self, f.name))
            if problem:
                raise InputError(f"{f.name}: {problem}")
        if not self.low <= 1 <= self.high:
            raise InputError(f"low, high: {self.low:g} to {self.high:g} does not hold the estimate, which is 1")


@dataclass(frozen=True)
class Calibration:
    """The measured rates of a device."""

    cache_bytes: int
    """The largest working set that the last-level cache serves."""

    fresh_from_bytes: int
    """The size from which on a new tensor lies in memory newly taken."""

    confidence: float
    """The share of held-out shapes that lie within their intervals."""

    classes: Mapping[str, Mapping[str, FittedRates]]
    """Fitted rates by class of operation (`costmodel.estimate.CLASSES`) and precision path."""

    products: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    """FLOP/s of square matrix products by precision path and size."""

    bandwidth: Mapping[int, float] = field(default_factory=dict)
    """Bytes/s, read and written, by bytes of the working set."""

    noise: float | None = None
    """Spread of a reference operation's times during it, as a share of the shortest; None if not recorded."""

    def fitted_rates(self, name: str | None, path: str) -> FittedRates | None:
        """The fitted rates of a class for a precision path ("" computes nothing); None if it was not measured."""
        paths = self.classes.get(name or "", {})
        return paths.get(path or "fp32")

    def table(self) -> Table:
        """One row a class of operations and precision path."""
        names = [field.name for field in fields(FittedRates)]
        columns = [column(name, **_SHOWN.get(name, {})) for name in ("class", "path", *names)]
        rows = [
            (name, path, *(getattr(rates, each) for each in names))
            for name, paths in self.classes.items()
            for path, rates in paths.items()
        ]
        return Table.of(columns, rows, title="Calibration")


_SHOWN: Mapping[str, Mapping[str, Any]] = {
    "flops_per_second": {"title": "FLOP/s", "rank": 0, "of": None},
    "error": {"meaning": "median relative error of shapes held out"},
    "overlap": {"rank": 9},
}
"""What of the columns is shown otherwise here."""

_RANGES: Mapping[str, tuple[float, float]] = {
    "fixed_seconds": (0.0, 1.0),
    "cold_seconds": (0.0, 1.0),
    "flops_per_second": (1e5, 1e19),
    "near_bytes_per_second": (1e5, 1e17),
    "far_bytes_per_second": (1e5, 1e17),
    "fresh_bytes_per_second": (1e5, 1e17),
    "overlap": (1.0, math.inf),
    "low": (0.0, 1.0),
    "high": (1.0, 1e4),
    "error": (0.0, 1e4),
    "shapes": (1, 1e9),
}


def _problem(name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        return f"{value!r} is not a number"
    low, high = _RANGES[name]
    return "" if low <= value <= high else f"{value:g} cannot be: it lies between {low:g} and {high:g}"
