"""The predicted peaks beside another program's and beside those measured on GPUs, level by level."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from costmodel.book.model import Block, Paragraph, Section, Table, plain
from costmodel.book.study import TRAINING, Study
from costmodel.devices import Device, device
from costmodel.errors import CostModelError, InputError
from costmodel.hardware.record import Measurement, Run
from costmodel.memory import MemoryTimeline, memory_timeline
from costmodel.memory.levels import workspaces_by_level
from costmodel.report.measured import traced

if TYPE_CHECKING:
    from costmodel.networks import Network

_BATCHES = (1, 8)
"""Those of the steps that MemTracker takes."""


def measured_section(records: Sequence[Measurement], studies: Sequence[Study] = ()) -> Section:
    """Predicted against torch's MemTracker on the CPU, and against measured on GPUs where there are records."""
    rows = [row for record in records if record.target == "cuda" for run in record.runs for row in _rows(record, run)]
    climb = (
        "The next two levels, allocated and reserved, are held request by request to PyTorch's own compiled allocator "
        "by a test, `tests/test_memory_allocator.py`. Another, `tests/test_stand_in_gpu.py`, takes whole steps with "
        "PyTorch's own CUDA code over a stand-in for a GPU, whose kernels compute nothing: with cuBLAS's workspaces "
        "all three levels are met to the byte. What it cannot show is cuDNN's workspaces, which depend on the "
        "algorithms that cuDNN picks."
    )
    blocks: list[Block] = [*_tracked(studies)]
    if not rows:
        blocks.append(Paragraph(f"{climb} No GPU's memory has been measured yet."))
    else:
        blocks += [
            Paragraph(climb),
            Table(
                "memory-measured",
                title="Peaks of memory on GPUs",
                frame=pd.DataFrame(rows),
                note="Measured by torch.cuda.memory_stats in one run of the steady state. Predicted is the level with "
                "the workspaces that PyTorch takes from its allocator for cuBLAS, one a thread. What was measured more "
                "is what else libraries ask of the allocator: cuDNN's workspaces.",
                labels={
                    "predicted_bytes": "predicted",
                    "workspace_bytes": "of it cuBLAS",
                    "measured_bytes": "measured",
                    "more_bytes": "more",
                },
            ),
        ]
    return Section("Predicted against measured, level by level", tuple(blocks), anchor="memory-measured")


def _tracked(studies: Sequence[Study]) -> Iterator[Block]:
    """The first level against torch's MemTracker, which needs no GPU: a table, or why there is none."""
    rows, reasons = [], []
    for study in studies:
        try:
            rows += [_tracked_row(study, study.network, batch) for batch in _BATCHES if study.network is not None]
        except CostModelError as error:
            reasons.append(f"{study.short} is not in the comparison with torch's MemTracker: {plain(str(error), 200)}")
    if rows:
        most = max(abs(row["difference_bytes"]) for row in rows)
        verdict = f"differs by up to {most:,} B from" if most else "is, byte for byte,"
        why = (
            " MemTracker watches as a dispatch mode, under which autograd does not add two gradients in place as it "
            "does otherwise: where a tensor is used twice, that is a tensor more."
        )
        yield Paragraph(
            f"The first level needs no GPU to be checked: the predicted peak of {len(rows)} training steps, with the "
            f"operators of PyTorch's CPU, {verdict} that of torch's MemTracker, which takes the same steps on fake "
            "tensors and watches their storages come and go." + (why if most else "")
        )
        yield Table(
            "memory-tracked",
            title="Peaks of training steps on a CPU, predicted and by torch's MemTracker",
            frame=pd.DataFrame(rows),
            labels={
                "level": "level",
                "predicted_bytes": "predicted",
                "tracked_bytes": "MemTracker",
                "difference_bytes": "difference",
            },
        )
    yield from (Paragraph(reason) for reason in reasons)


def _tracked_row(study: Study, network: Network, batch: int) -> dict[str, Any]:
    from costmodel.peers.mem_tracker import tracked_peak
    from costmodel.tracer import trace

    inputs = network.inputs(batch)
    predicted = memory_timeline(trace(network.module, inputs, train=True, target="cpu", **TRAINING)).peak_bytes
    tracked = tracked_peak(network.module, inputs, **TRAINING)
    return {
        "network": study.title,
        "batch": batch,
        "level": "requested, with the CPU's operators",
        "predicted_bytes": predicted,
        "tracked_bytes": tracked,
        "difference_bytes": tracked - predicted,
    }


def _rows(record: Measurement, run: Run) -> Iterator[dict[str, Any]]:
    """A row a level; nothing for a run whose memory is not in the record, or that cannot be traced here."""
    peaks = {"requested": run.memory.requested_bytes, "allocated": run.memory.allocated_bytes}
    peaks["reserved"] = run.memory.reserved_bytes
    if run.failure or not any(peaks.values()):
        return
    try:
        memory = _predicted(run)
        predicted = {level.name: level.nbytes for level in memory.levels()}
    except CostModelError:
        return
    workspaces = workspaces_by_level(memory.trace, _device(record))
    for level, peak in peaks.items():
        if peak is not None:
            yield {
                "device": record.device_name,
                "network": run.model,
                "run": run.phase_text,
                "batch": run.batch,
                "dtype": run.dtype,
                "level": level,
                "predicted_bytes": predicted[level] + workspaces[level],
                "workspace_bytes": workspaces[level],
                "measured_bytes": peak,
                "more_bytes": peak - predicted[level] - workspaces[level],
            }


def _device(record: Measurement) -> Device | None:
    try:
        return device(record.device_name)
    except InputError:
        return None


def _predicted(run: Run) -> MemoryTimeline:
    """The memory of the same run, from a trace."""
    from costmodel import networks

    return memory_timeline(traced(run, networks.find(run.model)))
