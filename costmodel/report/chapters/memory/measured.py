"""Peaks measured on GPUs beside the predicted ones, rung by rung."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from costmodel.errors import CostModelError
from costmodel.report.model import Paragraph, Section, Table

_RUNGS = ("requested", "allocated", "reserved")


_WAYS = ("autocast", "channels_last", "accumulate", "checkpoint", "first_step", "set_to_none")
"""Settings of a run that are no options of its optimizer."""


class Peaks(NamedTuple):
    """One run's peaks as `torch.cuda.memory_stats` told them, from a `costmodel/measurement/1` document."""

    device: str
    model: str
    batch: int
    dtype: str
    train: bool
    settings: Mapping[str, Any]
    nbytes: Mapping[str, int]
    """By rung: requested, allocated, reserved."""


def measured_peaks(folder: Path) -> list[Peaks]:
    """The peaks in the measurements of a folder, in the order of the files' names; other files are left alone."""
    found = []
    for path in sorted(folder.rglob("*.json")):
        try:
            document = json.loads(path.read_bytes())
            found += _peaks(document) if document.get("schema") == "costmodel/measurement/1" else []
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # what is damaged is for those to say who read all of it
    return found


def _peaks(document: Mapping[str, Any]) -> list[Peaks]:
    device = document["circumstances"]["device"]
    if device["type"] != "cuda":
        return []
    found = []
    for run in document["runs"]:
        memory = {rung: run["memory"].get(f"{rung}_bytes") for rung in _RUNGS}
        if all(isinstance(nbytes, int) for nbytes in memory.values()):
            about = (run["model"], run["batch"], run["dtype"], run["train"], run["settings"])
            found.append(Peaks(device["name"], *about, memory))
    return found


def measured_section(records: Sequence[Peaks]) -> Section:
    """Predicted against measured, or one sentence where nothing was measured."""
    title, anchor = "Predicted against measured, rung by rung", "memory-measured"
    rows = [row for record in records for row in _rows(record)]
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


def _rows(record: Peaks) -> list[dict[str, Any]]:
    """A row a rung; nothing for a run that cannot be traced here."""
    from costmodel import networks
    from costmodel.memory import remember
    from costmodel.tracer import trace

    settings = dict(record.settings)
    ways: dict[str, Any] = {name: settings.pop(name) for name in _WAYS if name in settings}
    if record.train:
        settings.pop("loss", None)
        ways |= {"optimizer": settings.pop("optimizer", None), "optimizer_options": settings}
    try:
        network = networks.find(record.model)
        inputs = network.inputs(record.batch)
        memory = remember(trace(network.module, inputs, train=record.train, dtype=record.dtype, **ways))
    except CostModelError:
        return []
    predicted = {rung.name: rung.nbytes for rung in memory.ladder()}
    return [
        {
            "device": record.device,
            "network": record.model,
            "run": "training step" if record.train else "inference",
            "batch": record.batch,
            "dtype": record.dtype,
            "rung": rung,
            "predicted_bytes": predicted[rung],
            "measured_bytes": record.nbytes[rung],
            "more_bytes": record.nbytes[rung] - predicted[rung],
        }
        for rung in _RUNGS
    ]
