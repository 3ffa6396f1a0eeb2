"""Peaks measured on GPUs beside the predicted ones, rung by rung."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from costmodel.errors import CostModelError
from costmodel.hardware.record import Measurement, Run
from costmodel.memory import Memory, remember
from costmodel.report.model import Paragraph, Section, Table

_WAYS = ("autocast", "channels_last", "accumulate", "checkpoint", "first_step", "set_to_none")
"""Settings of a run that are no options of its optimizer."""


def measured_section(records: Sequence[Measurement]) -> Section:
    """Predicted against measured, or one sentence where nothing was measured."""
    title, anchor = "Predicted against measured, rung by rung", "memory-measured"
    rows = [row for record in records if record.target == "cuda" for run in record.runs for row in _rows(record, run)]
    if not rows:
        return Section(title, (Paragraph("No GPU's memory has been measured yet."),), anchor=anchor)
    return Section(
        title,
        (
            Table(
                "memory-measured",
                "Peaks of memory on GPUs",
                pd.DataFrame(rows),
                note="Measured by torch.cuda.memory_stats in one run of the steady state. The difference is what "
                "libraries ask of the allocator beside the tensors: cuBLAS's and cuDNN's workspaces.",
                labels={"predicted_bytes": "predicted", "measured_bytes": "measured", "more_bytes": "more"},
            ),
        ),
        anchor=anchor,
    )


def _rows(record: Measurement, run: Run) -> Iterator[dict[str, Any]]:
    """A row a rung; nothing for a run whose memory is not in the record, or that cannot be traced here."""
    peaks = {"requested": run.memory.requested_bytes, "allocated": run.memory.allocated_bytes}
    peaks["reserved"] = run.memory.reserved_bytes
    if run.failure or not any(peaks.values()):
        return
    try:
        predicted = {rung.name: rung.nbytes for rung in _predicted(run).ladder()}
    except CostModelError:
        return
    for rung, peak in peaks.items():
        if peak is not None:
            yield {
                "device": record.device_name,
                "network": run.model,
                "run": run.phase_text,
                "batch": run.batch,
                "dtype": run.dtype,
                "rung": rung,
                "predicted_bytes": predicted[rung],
                "measured_bytes": peak,
                "more_bytes": peak - predicted[rung],
            }


def _predicted(run: Run) -> Memory:
    """The memory of the same run, from a trace."""
    from costmodel import networks
    from costmodel.tracer import trace

    settings = dict(run.settings)
    ways: dict[str, Any] = {name: settings.pop(name) for name in _WAYS if name in settings}
    if run.train:
        ways |= {name: settings.pop(name) for name in ("loss", "optimizer") if name in settings}
        ways |= {"optimizer_options": settings}
    network = networks.find(run.model)
    inputs = network.inputs(run.batch)
    return remember(trace(network.module, inputs, train=run.train, dtype=run.dtype, name=run.model, **ways))
