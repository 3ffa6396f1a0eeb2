"""Measurements -> data frames in base units, and what stands above them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from costmodel.display import is_missing
from costmodel.hardware.record import Measurement, Run
from costmodel.validation.measurement import Comparison

if TYPE_CHECKING:
    import pandas as pd

    from costmodel.graph import Trace
    from costmodel.hardware.suite import Outcome
    from costmodel.networks import Network


_WAYS = ("autocast", "channels_last", "accumulate", "checkpoint", "first_step", "set_to_none")
"""Settings of a run that are no options of its optimizer."""


def traced(run: Run, network: Network, target: str = "cuda") -> Trace:
    """The trace of what a run measured."""
    from costmodel.tracer import trace

    settings = dict(run.settings)
    ways: dict[str, Any] = {name: settings.pop(name) for name in _WAYS if name in settings}
    if run.train:
        ways |= {name: settings.pop(name) for name in ("loss", "optimizer") if name in settings}
        ways |= {"train": True, "optimizer_options": settings}
    return trace(network.module, network.inputs(run.batch), dtype=run.dtype, target=target, name=run.model, **ways)


def runs_table(record: Measurement) -> pd.DataFrame:
    """One row a run; columns that no run fills are left out."""
    import pandas as pd

    return _filled(pd.DataFrame([_run_row(run) for run in record.runs]), _ALWAYS)


_ALWAYS = ("model", "batch", "dtype", "run", "eager_seconds", "work_seconds")


def _run_row(run: Run) -> dict[str, Any]:
    return {
        "model": run.model,
        "batch": run.batch,
        "dtype": run.dtype,
        "run": run.phase_text,
        "work_seconds": run.kernel_time.median if run.kernel_time else None,
        "graph_seconds": run.graph.median if run.graph else None,
        "eager_seconds": run.eager.median if run.eager else None,
        "samples_per_second": run.samples_per_second,
        "noise": run.noise if run.rounds else None,
        "profiler_ratio": run.profiler_ratio,
        "requested_bytes": run.memory.requested_bytes,
        "reserved_bytes": run.memory.reserved_bytes,
        "failure": run.failure,
    }


def record_notes(record: Measurement) -> list[str]:
    """In what environment a record was made, and what its numbers are."""
    settings, versions = record.precision_settings, record.environment["versions"]
    allowed = ", ".join(
        f"{name} {'on' if value else 'off'}"
        for name, value in (
            ("TF32 convolutions", settings.cudnn_allow_tf32),
            ("TF32 matrix products", settings.matmul_allow_tf32),
            ("cuDNN's benchmark", settings.cudnn_benchmark),
        )
    )
    where = allowed if record.target == "cuda" else f"{record.threads} thread{'s' if record.threads != 1 else ''}"
    lines = [
        f"torch {versions.get('torch')}, {record.environment['date']}; {where}, {settings.memory_format} layout.",
        "Work is the sum of what the device did (kernels; on the CPU the operators' own time) under the profiler; "
        "eager is wall time without it. Noise: how far eager's rounds lie apart.",
    ]
    problems = {run.graph_problem for run in record.runs if run.graph_problem and record.target == "cuda"}
    return lines + [f"No CUDA graph: {problem}." for problem in sorted(problems)]


def comparison_title(comparison: Comparison) -> str:
    """What is compared, and how it went."""
    beaten = sum(row.ok is False for row in comparison.rows)
    failed = f"{beaten} of {len(comparison.rows)} bounds fail: " if beaten else ""
    return f"{comparison.run.name}, on {comparison.device_name}: {failed}{comparison.verdict}"


def totals_table(comparison: Comparison) -> pd.DataFrame:
    """One row for each who says what the whole takes, and how far that is off the three measured totals."""
    import pandas as pd

    run = comparison.run
    measured = [
        ("measured: sum of kernels", run.kernel_time),
        ("measured: CUDA graph", run.graph),
        ("measured: eager", run.eager),
    ]
    rows: list[dict[str, Any]] = [
        {"says_who": name, "says": spread.median} for name, spread in measured if spread is not None
    ]
    rows += [
        {
            "says_who": row.source,
            "says": row.seconds,
            "work_error": row.work_error,
            "graph_error": row.graph_error,
            "eager_error": row.eager_error,
            "explanation": row.explanation,
        }
        for row in comparison.totals
    ]
    return _filled(pd.DataFrame(rows), ("says_who", "says", "work_error", "eager_error"))


def comparison_table(comparison: Comparison) -> pd.DataFrame:
    """One row a layer and phase: bound, estimate, measured, and why they differ."""
    import pandas as pd

    estimated = comparison.prediction.estimate_seconds is not None
    rows = [
        {
            "layer": row.layer,
            "phase": row.phase,
            "kind": row.kind,
            "bound_seconds": row.bound_seconds,
            "executed_bound_seconds": row.executed_bound_seconds,
            "estimate_seconds": row.predicted_seconds if estimated else None,
            "low_seconds": row.low_seconds,
            "high_seconds": row.high_seconds,
            "measured_seconds": row.measured_seconds,
            "error": row.error,
            "noise": row.noise,
            "ok": row.ok,
            "explanation": row.explanation,
        }
        for row in comparison.rows
    ]
    if not comparison.run.train:
        for row in rows:
            del row["phase"]
    return _filled(pd.DataFrame(rows), ("layer", "kind", "bound_seconds", "measured_seconds", "error", "noise", "ok"))


def suite_table(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """One row a step of a suite."""
    import pandas as pd

    rows = [
        {"step": each.step, "state": each.state, "took_seconds": each.seconds or None, "failure": each.detail}
        for each in outcomes
    ]
    return _filled(pd.DataFrame(rows, columns=["step", "state", "took_seconds", "failure"]), ("step", "state"))


def _filled(frame: pd.DataFrame, always: Sequence[str]) -> pd.DataFrame:
    """The frame without the columns that no row fills, and with None for what is missing."""
    kept = [name for name in frame.columns if name in always or any(map(_is_said, frame[name]))]
    return frame[kept].astype(object).where(frame[kept].notna(), None)


def _is_said(value: Any) -> bool:
    return not is_missing(value) and value != ""
