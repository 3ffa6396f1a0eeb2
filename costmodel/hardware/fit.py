"""Measured times -> the fitted rates of a class, and the error that they leave.

The rates are those that make the logarithm of estimated / measured small over all shapes: relative errors count, so
that a shape of microseconds says as much as one of seconds, and beyond a tenth only their size and not its square
(soft L1), so that a shape whose kernel is odd does not bend the rest. Each number is held, weakly, to a first guess:
what the shapes say nothing about stays there. How arithmetic and traffic overlap is chosen by the error of held-out
shapes, and so is the interval: of five parts of the shapes, each is estimated from the other four.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from costmodel.devices import FittedRates
from costmodel.errors import InputError, missing_extra
from costmodel.estimate import Demand

if TYPE_CHECKING:
    import numpy as np

OVERLAPS = (1.0, 2.0, float("inf"))
CONFIDENCE = 0.9
_FOLDS = 5
_HELD = 0.05
"""How strongly a number is held to its first guess: a factor of e counts as this much relative error."""


class Sample(NamedTuple):
    """One operation that was timed."""

    demand: Demand
    seconds: float


class Guess(NamedTuple):
    """What fitted rates are near before anything was fitted."""

    flops_per_second: float
    near_bytes_per_second: float
    far_bytes_per_second: float


def fit(samples: Sequence[Sample], guess: Guess) -> FittedRates:
    """The fitted rates of a class. Raises InputError for fewer than two samples, or times that are not positive."""
    import numpy as np

    if len(samples) < 2 or not all(sample.seconds > 0 for sample in samples):
        raise InputError("fitted rates are fitted on two or more shapes, each with the time that it took.")
    demands = np.array([sample.demand for sample in samples], dtype=float)
    measured = np.array([sample.seconds for sample in samples])
    start = np.log([
        max(min(measured) / 2, 1e-8),
        max(min(measured) / 2, 1e-8),
        guess.flops_per_second,
        guess.near_bytes_per_second,
        guess.far_bytes_per_second,
        guess.far_bytes_per_second / 2,
    ])  # fmt: skip
    errors = {overlap: _held_out(demands, measured, start, overlap) for overlap in OVERLAPS}
    overlap = min(OVERLAPS, key=lambda each: float(np.mean(np.abs(errors[each]))))
    ratios = np.exp(-errors[overlap])  # measured / estimated
    low, high = np.quantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    fixed, cold, flops, near_bytes, far_bytes, fresh_bytes = np.exp(_fitted(demands, measured, start, overlap))
    return FittedRates(
        rounded(fixed),
        rounded(cold),
        rounded(flops),
        rounded(near_bytes),
        rounded(far_bytes),
        rounded(fresh_bytes),
        overlap=overlap,
        low=rounded(min(low, 1.0)),
        high=rounded(max(high, 1.0)),
        error=rounded(np.median(np.abs(1 / ratios - 1))),
        shapes=len(samples),
    )


def least_squares() -> Callable[..., Any]:
    """scipy's solver. Raises InputError where scipy, an extra, is not installed."""
    try:
        from scipy.optimize import least_squares as solver
    except ImportError:
        raise InputError(f"{missing_extra('scipy', 'calibrate')}, and rates are fitted with it.") from None
    return solver


def rounded(value: float) -> float:
    """Four significant digits: more than a measurement has."""
    return float(f"{value:.4g}")


def estimated(numbers: np.ndarray, demands: np.ndarray, overlap: float) -> np.ndarray:
    """`costmodel.estimate.seconds` for many demands at once; `numbers` are the logarithms of the fitted rates."""
    import numpy as np

    fixed, cold, flops, near, far, fresh = np.exp(numbers)
    compute = demands[:, 0] / flops
    traffic = demands[:, 1] / near + demands[:, 2] / far + demands[:, 3] / fresh
    fixed = fixed + cold * demands[:, 4]
    larger = np.maximum(compute, traffic)
    if np.isinf(overlap):
        return fixed + larger
    share = np.minimum(compute, traffic) / np.where(larger > 0, larger, 1.0)
    return fixed + larger * (1 + share**overlap) ** (1 / overlap)


def _fitted(demands: np.ndarray, measured: np.ndarray, start: np.ndarray, overlap: float) -> np.ndarray:
    import numpy as np

    def residuals(numbers: np.ndarray) -> np.ndarray:
        errors = np.log(estimated(numbers, demands, overlap) / measured)
        return np.concatenate([errors, _HELD * (numbers - start)])

    return least_squares()(residuals, start, loss="soft_l1", f_scale=0.1).x


def _held_out(demands: np.ndarray, measured: np.ndarray, start: np.ndarray, overlap: float) -> np.ndarray:
    """log(estimated / measured) of each shape, from rates fitted without it."""
    import numpy as np

    folds = min(_FOLDS, len(measured))
    part = np.arange(len(measured)) * folds // len(measured)
    order = np.argsort(np.random.default_rng(0).random(len(measured)))
    part = part[np.argsort(order)]
    errors = np.empty(len(measured))
    for fold in range(folds):
        out = part == fold
        numbers = _fitted(demands[~out], measured[~out], start, overlap)
        errors[out] = np.log(estimated(numbers, demands[out], overlap) / measured[out])
    return errors
