"""The predicted peaks beside another program's and beside those measured on GPUs, level by level."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from costmodel.book.engine import Chapter
from costmodel.book.model import Table
from costmodel.book.study import TRAINING, Study
from costmodel.devices import Device, device
from costmodel.errors import CostModelError, InputError
from costmodel.hardware.record import Measurement, Run
from costmodel.hardware.retrace import traced
from costmodel.memory import memory_timeline
from costmodel.memory.levels import workspaces_by_level
from costmodel.view import Column
from costmodel.view import Table as Data

_BATCHES = (1, 8)
"""Those of the steps that MemTracker takes."""

_PREDICTED = Column("predicted_bytes", "predicted", "bytes", "the peak that follows from a trace")


@dataclass(frozen=True)
class NotTracked:
    """A network that MemTracker could not take a step of."""

    network: str
    reason: str


@dataclass(frozen=True)
class Numbers:
    """What is compared."""

    steps: int
    """Training steps that MemTracker took."""

    most_bytes: int
    """How far it is from the predicted peaks at most."""

    not_tracked: tuple[NotTracked, ...]
    measured: int
    """Peaks that were measured on GPUs."""

    left_out: tuple[str, ...]
    """Runs on GPUs that are not compared: without a peak in the record, or not traced here."""


def memory_measured(records: Sequence[Measurement], studies: Sequence[Study] = ()) -> Chapter:
    """Predicted against torch's MemTracker on the CPU, and against measured on GPUs where there are records."""
    tracked, not_tracked = [], []
    for study in studies:
        try:
            tracked += [_tracked(study, batch) for batch in _BATCHES if study.network is not None]
        except CostModelError as error:
            not_tracked.append(NotTracked(study.title, str(error)))
    runs = [(record, run) for record in records if record.target == "cuda" for run in record.runs]
    rows = [(run.name, list(_levels(record, run))) for record, run in runs]
    measured = [row for _, found in rows for row in found]
    most = max((abs(row[-1]) for row in tracked), default=0)
    left_out = tuple(name for name, found in rows if not found)
    return Chapter(
        "memory_measured",
        Numbers(len(tracked), most, tuple(not_tracked), len(measured), left_out),
        ({"tracked": Table("memory-tracked", Data.of(_TRACKED, tracked))} if tracked else {})
        | ({"measured": Table("memory-measured", Data.of(_MEASURED, measured))} if measured else {}),
    )


_TRACKED = (
    "network",
    "batch",
    _PREDICTED,
    Column("tracked_bytes", "MemTracker", "bytes", "the peak that torch's MemTracker sees"),
    Column("difference_bytes", "difference", "bytes", "its peak less ours"),
)
_MEASURED = (
    *("device", "network", "run", "batch", "dtype", "level"),
    _PREDICTED,
    Column("workspace_bytes", "of it cuBLAS", "bytes", "workspaces that PyTorch takes for cuBLAS"),
    Column("measured_bytes", "measured", "bytes", "by torch.cuda.memory_stats"),
    Column("more_bytes", "more", "bytes", "measured less predicted"),
)


def _tracked(study: Study, batch: int) -> tuple[str, int, int, int, int]:
    from costmodel.peers.mem_tracker import tracked_peak
    from costmodel.tracer import trace

    module, inputs = study.network.module, study.network.inputs(batch)  # type: ignore[union-attr]
    predicted = memory_timeline(trace(module, inputs, train=True, target="cpu", **TRAINING)).peak_bytes
    tracked = tracked_peak(module, inputs, **TRAINING)
    return study.title, batch, predicted, tracked, tracked - predicted


def _levels(record: Measurement, run: Run) -> Iterator[tuple[str | int, ...]]:
    """A row a level; none for a run whose memory is not in the record, or that cannot be traced here."""
    from costmodel import networks

    peaks = {
        "requested": run.memory.requested_bytes,
        "allocated": run.memory.allocated_bytes,
        "reserved": run.memory.reserved_bytes,
    }
    if run.failure or not any(peaks.values()):
        return
    try:
        step = memory_timeline(traced(run, networks.find(run.model)))
    except CostModelError:
        return
    predicted = {level.name: level.nbytes for level in step.levels()}
    workspaces = workspaces_by_level(step.trace, _device(record))
    for level, peak in peaks.items():
        if peak is not None:
            ours = predicted[level] + workspaces[level]
            what = (record.device_name, run.model, run.phase_text, run.batch, run.dtype, level)
            yield (*what, ours, workspaces[level], peak, peak - ours)


def _device(record: Measurement) -> Device | None:
    try:
        return device(record.device_name)
    except InputError:
        return None
