"""A prediction beside a measurement: how far off it is in total and layer by layer, and why.

    error             predicted / measured - 1, signed
    weighted error    sum of |predicted - measured| / sum of measured, over the layers
    rank correlation  Spearman's: whether the layers that are predicted to take long do
    coverage          the share of layers, and of their time, that lie in the estimate's interval

Predicted is the estimate where the device is calibrated, else the bound. A layer's measured time is the sum of its
kernels. A bound that a measurement beats fails the check, unless `reasons` knows the bound that holds instead. Of a
layer whose repetitions lie too far apart there is no verdict: noise only
ever adds to a time, so that a bound is beaten all the same.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from costmodel.cost import Costs, count
from costmodel.devices import Device, device
from costmodel.errors import InputError
from costmodel.estimate import total
from costmodel.graph import Trace
from costmodel.hardware.record import LayerTime, Measurement, Run
from costmodel.roofline import OperationPrediction, Prediction, interval, predict
from costmodel.units import percent, seconds
from costmodel.validation.reasons import BEATEN, TOO_NOISY, UNMEASURED, WIDE, MeasuredLayer, executed_bound, reason
from costmodel.view import Table, column

if TYPE_CHECKING:
    import pandas as pd

_NEGLIGIBLE = 0.005
"""A layer with less than this share of the bound may stay without a kernel of its own."""

_ROUNDING = 1e-9

NOISY = 0.5
"""Nothing is said of a layer whose repetitions' quartiles, or whose run's rounds, lie farther apart than this share.

Estimates are some 10 to 30 % off, which such a median does not resolve. Of the records of a quiet machine layers like
that hold 1 % of the time; of those that were made while others used the machine, a quarter.
"""

_WIDE = 0.5
"""An error above this is reported even if the interval holds the measurement."""


class LayerRow(NamedTuple):
    """A layer in one phase."""

    layer: str
    phase: str
    kind: str
    path: str
    bound_seconds: float
    predicted_seconds: float
    """The estimate, or the bound where there is none."""

    low_seconds: float | None
    high_seconds: float | None
    """The estimate's interval."""

    measured_seconds: float | None
    """None if nothing ran for it."""

    noise: float
    """The spread of its repetitions, as a share of its time."""

    error: float | None
    executed_bound_seconds: float | None
    """The bound of the algorithm that ran, where it beat that of the definition."""

    explanation: str
    """Empty where the prediction is as near as the noise allows, or a narrow interval holds it."""

    ok: bool | None
    """Whether no bound is beaten without a reason, and it was measured if it counts; None if noise leaves that open."""

    @property
    def covered(self) -> bool | None:
        """Whether the interval holds what was measured; None if either is missing, or there is too much noise."""
        if self.ok is None or self.low_seconds is None or self.high_seconds is None or self.measured_seconds is None:
            return None
        return self.low_seconds <= self.measured_seconds <= self.high_seconds


class TotalRow(NamedTuple):
    """A program's time for the whole network, against the three measured totals."""

    source: str
    seconds: float | None
    work_error: float | None
    graph_error: float | None
    eager_error: float | None
    explanation: str = ""
    """Why it has no answer."""


@dataclass(frozen=True, repr=False)
class Comparison:
    """A prediction and a run, joined."""

    prediction: Prediction
    run: Run
    device_name: str
    """What the device that ran calls itself."""

    rows: tuple[LayerRow, ...]
    totals: tuple[TotalRow, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no bound was beaten without a reason, and everything predicted was measured."""
        return all(row.ok is not False for row in self.rows)

    @property
    def noisy(self) -> int:
        """The number of layers without a verdict."""
        return sum(row.ok is None for row in self.rows)

    @property
    def measured_seconds(self) -> float:
        """The sum of kernels."""
        return self.run.kernel_time.median if self.run.kernel_time else math.nan

    @property
    def error(self) -> float:
        """The whole's: against the sum of kernels."""
        return self.prediction.seconds / self.measured_seconds - 1

    @cached_property
    def weighted_error(self) -> float | None:
        """Sum of the layers' absolute errors in seconds, as a share of their time; None if no layer was measured."""
        pairs = self._pairs
        whole = sum(measured for _, measured in pairs)
        return sum(abs(predicted - measured) for predicted, measured in pairs) / whole if pairs else None

    @cached_property
    def rank_correlation(self) -> float | None:
        """Spearman's, between predicted and measured times of layers; None where one of them does not vary."""
        pairs = self._pairs
        try:
            return statistics.correlation(*(_ranks(each) for each in zip(*pairs, strict=True)))
        except (statistics.StatisticsError, TypeError):
            return None

    @cached_property
    def coverage(self) -> float | None:
        """The share of layers whose measured time the interval holds; None without intervals."""
        known = [row.covered for row in self.rows if row.covered is not None]
        return sum(known) / len(known) if known else None

    @cached_property
    def weighted_coverage(self) -> float | None:
        """The share of the measured time that lies in layers which the interval holds."""
        known = [(row.covered, row.measured_seconds or 0.0) for row in self.rows if row.covered is not None]
        whole = sum(measured for _, measured in known)
        return sum(measured for covered, measured in known if covered) / whole if whole else None

    @property
    def _pairs(self) -> list[tuple[float, float]]:
        return [(row.predicted_seconds, row.measured_seconds) for row in self.rows if row.measured_seconds]

    def table(self) -> Table:
        """One row a layer and phase: bound, prediction, measured time, and why they differ; and their sum."""
        names = (
            "layer", "phase", "kind", "path", "bound_seconds", "executed_bound_seconds", "predicted_seconds",
            "low_seconds", "high_seconds", "measured_seconds", "error", "noise", "ok", "explanation",
        )  # fmt: skip
        columns = [column(name, rank=9) if name == "path" else column(name) for name in names]
        rows = [[getattr(row, name) for name in names] for row in self.rows]
        return Table.of(columns, rows, title=self.title, notes=self.notes).summed()

    def totals_table(self) -> Table:
        """One row for each who says what the whole takes, and how far that is off the three measured totals."""
        measured = (
            ("measured: sum of kernels", self.run.kernel_time),
            ("measured: CUDA graph", self.run.graph),
            ("measured: eager", self.run.eager),
        )
        spreads = [TotalRow(name, spread.median, None, None, None) for name, spread in measured if spread is not None]
        columns = (column("source", title="total", kind="text"), *TotalRow._fields[1:])
        return Table.of(columns, [*spreads, *self.totals], title=self.title, notes=self.notes)

    def to_frame(self) -> pd.DataFrame:
        """The table as a data frame."""
        return self.table().to_frame()

    @property
    def title(self) -> str:
        """What is compared, and how it went."""
        beaten = sum(row.ok is False for row in self.rows)
        failed = f"{beaten} of {len(self.rows)} bounds fail: " if beaten else ""
        return f"{self.run.name}, on {self.device_name}: {failed}{self.verdict}"

    @property
    def verdict(self) -> str:
        """The result in a sentence."""
        estimate = self.prediction.estimate
        said = f"estimate {interval(estimate)}" if estimate else f"bound {seconds(self.prediction.bound_seconds)}"
        measured, sign = seconds(self.measured_seconds), "−" if self.error < 0 else "+"
        layers = "" if self.weighted_error is None else f"; layers {percent(self.weighted_error)} off, weighted by time"
        correlation = "" if self.rank_correlation is None else f", rank correlation {self.rank_correlation:.2f}"
        covered = "" if self.coverage is None else f", intervals hold {percent(self.coverage, 0)} of the layers"
        noisy = f"; {self.noisy} of {len(self.rows)} layers too noisy to say" if self.noisy else ""
        off = f"{sign}{percent(abs(self.error))}"
        return f"{said} against {measured} measured ({off}){layers}{correlation}{covered}{noisy}"

    def __repr__(self) -> str:
        return f"<Comparison of {self.run.name} on {self.device_name}: {self.verdict}>"

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def against(measurement: Measurement, trace: Trace, machine: Device) -> Comparison:
    """What is predicted of a trace on a device, beside what was measured of the same run.

    The precision settings are those of the record. Raises InputError if the record has no such run (another network,
    batch, dtype or optimizer), if the run failed, or if the device is of another kind than the one that ran.
    """
    kind = "gpu" if measurement.target == "cuda" else "cpu"
    if machine.kind != kind:
        raise InputError(
            f"this record was made on {measurement.device_name}, a {kind.upper()}, and {machine.title} is none: "
            "give -d a device of that kind."
        )
    if trace.target != measurement.target:
        raise InputError(f"this record ran {measurement.target} operators and the trace {trace.target}'s: trace those.")
    run = measurement.run(trace.model, [spec.shape for spec in trace.inputs], trace.dtype, trace.train, trace.settings)
    return compare(predicted(count(trace), machine, measurement), run, measurement.device_name)


def device_of(measurement: Measurement) -> Device:
    """Our description of the device that a record was made on; a CPU's for as many threads, if there is one.

    Raises InputError if there is none.
    """
    name = measurement.device_name
    for known in (f"{name} {measurement.threads}thread", name) if measurement.target == "cpu" else (name,):
        with suppress(InputError):
            return device(known)
    raise InputError(
        f"there is no description of {name}: give -d DEVICE, a name or a TOML file (`costmodel calibrate` writes one)."
    )


def predicted(costs: Costs, machine: Device, measurement: Measurement) -> Prediction:
    """What is predicted under the precision settings of a record."""
    settings = measurement.precision_settings
    return predict(
        costs,
        machine,
        allow_tf32_conv=settings.cudnn_allow_tf32,
        allow_tf32_matmul=settings.matmul_allow_tf32,
    )


def compare(prediction: Prediction, run: Run, device_name: str) -> Comparison:
    """A prediction beside a run of the same thing. Raises InputError if the run has no times."""
    if run.failure or run.kernel_time is None:
        raise InputError(f"there is nothing to compare with: {run.name} failed ({run.failure or 'no times'}).")
    rows = tuple(_rows(prediction, run))
    rounds = f"Noise floor of the run: {percent(run.noise)}, between rounds of eager wall time."
    notes = [rounds if run.rounds else "No run without the profiler is known, nor how far such runs lie apart."]
    if run.profiler_ratio:
        notes.append(
            f"Under the profiler a run takes {run.profiler_ratio:.2f} times as long in wall time; layers' times are "
            "those under the profiler, not scaled."
        )
    lost = math.fsum(kernel.seconds for kernel in run.unattributed)
    if lost:
        notes.append(
            f"{seconds(lost)} of work belong to no layer: {', '.join(k.name[:40] for k in run.unattributed[:3])}."
        )
    return Comparison(prediction, run, device_name, rows, tuple(_totals(prediction, run)), tuple(notes))


def _rows(prediction: Prediction, run: Run) -> Iterator[LayerRow]:
    predicted: dict[tuple[str, str], list[OperationPrediction]] = {}
    for row in prediction.operations:
        predicted.setdefault((row.operation.layer, row.operation.phase), []).append(row)
    measured = {(layer.layer, layer.phase): layer for layer in run.layers}
    unknown = {
        (entry.operation.layer, entry.operation.phase) for entry in prediction.costs.operations if not entry.modelled
    }
    for key in dict.fromkeys([*measured, *predicted]):
        operations = predicted.get(key, [])
        if key not in measured and not any(row.bound_seconds for row in operations):
            continue  # only looks at memory in another way
        yield _row(key, operations, measured.get(key), prediction, run.noise, key not in unknown)


def _row(
    key: tuple[str, str],
    operations: Sequence[OperationPrediction],
    measured: LayerTime | None,
    prediction: Prediction,
    floor: float,
    modelled: bool,
) -> LayerRow:
    largest = max(operations, key=lambda row: (row.cost.macs, row.cost.flops, row.cost.moved_bytes), default=None)
    bound = math.fsum(row.bound_seconds for row in operations)
    expected, low, high = _expected(operations, bound)
    row = LayerRow(
        *key, largest.kind if largest else "other", largest.path if largest else "", bound, expected, low, high,
        None, 0.0, None, None, "", True,
    )  # fmt: skip
    if measured is None:
        fine = bound <= _NEGLIGIBLE * prediction.bound_seconds
        return row._replace(explanation=UNMEASURED, ok=fine)
    error = expected / measured.seconds - 1 if measured.seconds else None
    row = row._replace(measured_seconds=measured.seconds, noise=measured.noise, error=error)
    case = MeasuredLayer(operations, measured, prediction.device, bound, expected, modelled)
    if measured.high < bound * (1 - _ROUNDING):
        found = executed_bound(case)
        if found is None:
            return row._replace(explanation=BEATEN, ok=False)
        return row._replace(executed_bound_seconds=found[0], explanation=found[1])
    noise = max(floor, measured.noise, _ROUNDING)
    if noise > NOISY:
        return row._replace(explanation=f"{TOO_NOISY}: repetitions lie {percent(noise, 0)} apart", ok=None)
    if low is not None and high is not None and row.covered and error is not None and abs(error) > max(noise, _WIDE):
        return row._replace(explanation=f"{WIDE}: {low / expected:.2g} to {high / expected:.2g} times the estimate")
    if row.covered or (error is not None and abs(error) <= noise):
        return row
    return row._replace(explanation=reason(case))


def _expected(operations: Sequence[OperationPrediction], bound: float) -> tuple[float, float | None, float | None]:
    """What is predicted, and its interval where there is one."""
    found = total(row.estimate for row in operations)
    return (found.seconds, found.low_seconds, found.high_seconds) if found else (bound, None, None)


def _totals(prediction: Prediction, run: Run) -> Iterator[TotalRow]:
    """Ours, and what other programs said when the run was made."""
    measured = [spread.median if spread else None for spread in (run.kernel_time, run.graph, run.eager)]

    def row(source: str, said: float | None, problem: str = "") -> TotalRow:
        work, graph, eager = (said / each - 1 if said is not None and each else None for each in measured)
        return TotalRow(source, said, work, graph, eager, problem)

    if prediction.estimate_seconds is not None:
        yield row("our estimate", prediction.estimate_seconds)
    yield row("our bound", prediction.bound_seconds)
    for name, said in run.peers.items():
        yield row(name, said.seconds, f"says nothing: {said.problem}" if said.problem else "")


def _ranks(values: Sequence[float]) -> list[float]:
    """Each value's rank, equal ones sharing theirs."""
    ordered = sorted(values)
    first: Mapping[float, int] = {value: index for index, value in reversed(list(enumerate(ordered)))}
    counts: dict[float, int] = {}
    for value in ordered:
        counts[value] = counts.get(value, 0) + 1
    return [first[value] + (counts[value] + 1) / 2 for value in values]
