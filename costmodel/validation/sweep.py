"""A network over batches: predicted and measured throughput and memory, and the bend of the curve.

A run of B samples takes about fixed + B x each seconds: what is fixed are launches and the weights' traffic. Below the
**bend**, B = fixed / each, the fixed part is the larger one, and a larger batch costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from costmodel.validation.measurement import Comparison
from costmodel.view import Table

if TYPE_CHECKING:
    import pandas as pd


class BatchPoint(NamedTuple):
    """One batch."""

    batch: int
    predicted_seconds: float
    measured_seconds: float | None = None
    """Eager wall time."""

    predicted_bytes: int | None = None
    """The peak of requested memory."""

    measured_bytes: int | None = None


@dataclass(frozen=True)
class Sweep:
    """A network on a device over batches, in ascending order."""

    model: str
    device_name: str
    basis: str
    """What the predicted times are: "bound" or "estimate"."""

    train: bool
    points: tuple[BatchPoint, ...]

    @property
    def predicted_bend(self) -> float | None:
        """Where the predicted curve bends; None if it has fewer than three points, or none."""
        return bend([(point.batch, point.predicted_seconds) for point in self.points])

    @property
    def measured_bend(self) -> float | None:
        """Where the measured curve bends."""
        return bend([(point.batch, point.measured_seconds) for point in self.points if point.measured_seconds])

    def table(self) -> Table:
        """One row a batch."""
        return Table.of(BatchPoint._fields, self.points, title=f"{self.model} on {self.device_name}, {self.basis}")

    def to_frame(self) -> pd.DataFrame:
        """The table as a data frame."""
        return self.table().to_frame()

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def bend(times: Sequence[tuple[int, float]]) -> float | None:
    """The batch at which the fixed part of a run's time equals that of its samples.

    What a sample takes is the slope between the last two batches, what is fixed is what the first batch takes beyond
    its samples. None for fewer than three batches, and where the time does not grow or nothing is fixed.
    """
    if len(times) < 3:
        return None
    (first, shortest), *_, (before, shorter), (last, longest) = times
    each = (longest - shorter) / (last - before)
    fixed = shortest - first * each
    return fixed / each if each > 0 and fixed > 0 else None


def sweep(comparisons: Iterable[Comparison], predicted_bytes: Sequence[int | None]) -> Sweep:
    """The sweep of one network's comparisons at several batches, each with the peak that is predicted for it."""
    found = sorted(zip(comparisons, predicted_bytes, strict=True), key=lambda pair: pair[0].run.batch)
    first = found[0][0]
    points = [
        BatchPoint(
            each.run.batch,
            each.prediction.seconds,
            each.run.eager.median if each.run.eager else None,
            nbytes,
            each.run.memory.requested_bytes,
        )
        for each, nbytes in found
    ]
    return Sweep(first.run.model, first.device_name, first.prediction.basis, first.run.train, tuple(points))
