"""Costs x calibrated device -> estimates: the expected time of each operation, with its interval.

    compute  = FLOPs / flops_per_second
    traffic  = near bytes / near_bytes_per_second + far bytes / far_bytes_per_second
             + fresh bytes / fresh_bytes_per_second
    estimate = fixed_seconds (+ cold_seconds) + (compute^p + traffic^p)^(1/p)

with the numbers that a calibration found for the operation's class and precision path (`classes`, `demand`). The cold
seconds apply to an operation that finds not even the program in the cache, after one with a tensor too large for it. p
says whether arithmetic and traffic run one after the other (p = 1: a CPU's single thread) or overlap (p = infinity).
Rates are fitted by class, not as one factor on the roofline: a convolution by 1x1 filters and one by 3x3 filters differ
more than their intensities say.

**The interval** of an operation is that in which the calibration's held-out shapes of its class lay, as multiples of
the estimate. **The interval of a sum** (layer, phase, network): within a class errors are taken to be common to all
operations and add up; between classes they are taken to be independent and add up as the root of the sum of squares.

An estimate may lie below the bound: the bound's convention is that every operation goes to memory, which one that
finds its tensors in the cache beats, and it counts the multiplications of the definition, of which Winograd's
convolution needs fewer (rates above the peak are then what was measured, and stay).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from costmodel.cost import Costs
from costmodel.devices import Calibration, FittedRates
from costmodel.estimate.classes import CLASSES, class_of
from costmodel.estimate.demand import PROGRAM, Demand, demands

__all__ = ["CLASSES", "PROGRAM", "Demand", "Estimate", "class_of", "demands", "estimate_operations", "seconds", "total"]


class Estimate(NamedTuple):
    """An expected time, with its interval."""

    seconds: float
    low_seconds: float
    high_seconds: float
    name: str
    """The class that it was estimated as; "" for a sum."""


def seconds(rates: FittedRates, demand: Demand) -> float:
    """The time of an operation with this demand, by the formula above."""
    compute = demand.flops / rates.flops_per_second
    traffic = (
        demand.near_bytes / rates.near_bytes_per_second
        + demand.far_bytes / rates.far_bytes_per_second
        + demand.fresh_bytes / rates.fresh_bytes_per_second
    )
    fixed = rates.fixed_seconds + (rates.cold_seconds if demand.cold else 0.0)
    return fixed + norm(compute, traffic, rates.overlap)


def norm(a: float, b: float, p: float) -> float:
    """(a^p + b^p)^(1/p), without overflow; the larger for an infinite p."""
    small, large = sorted((a, b))
    if not small or math.isinf(p):
        return large
    return large * (1 + (small / large) ** p) ** (1 / p)


def estimate_operations(costs: Costs, paths: Sequence[str], calibration: Calibration) -> list[Estimate | None]:
    """The estimate of each operation, by its precision path; None where its class or path was not calibrated."""
    estimates: list[Estimate | None] = []
    each_demand = demands(costs, calibration.cache_bytes, calibration.fresh_from_bytes)
    for entry, path, demand in zip(costs.operations, paths, each_demand, strict=True):
        name = class_of(entry)
        rates = calibration.fitted_rates(name, path)
        if rates is None or name is None:
            estimates.append(None)
            continue
        expected = seconds(rates, demand)
        estimates.append(Estimate(expected, expected * rates.low, expected * rates.high, name))
    return estimates


def total(estimates: Iterable[Estimate | None]) -> Estimate | None:
    """The estimate of operations that run one after another; None if there are none, or one is unknown."""
    below: dict[str, float] = {}
    above: dict[str, float] = {}
    expected = 0.0
    for estimate in estimates:
        if estimate is None:
            return None
        expected += estimate.seconds
        below[estimate.name] = below.get(estimate.name, 0.0) + estimate.seconds - estimate.low_seconds
        above[estimate.name] = above.get(estimate.name, 0.0) + estimate.high_seconds - estimate.seconds
    if not below:
        return None
    return Estimate(expected, expected - math.hypot(*below.values()), expected + math.hypot(*above.values()), "")
