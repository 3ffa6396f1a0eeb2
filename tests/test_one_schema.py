"""One schema of columns: whatever a result is shown as, it has the same names. A result without a row here fails."""

from __future__ import annotations

import csv
import importlib
import inspect
import io
import json
import pkgutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import costmodel
import costmodel as cm
from costmodel.chip.tiling import least_traffic
from costmodel.cli import documents
from costmodel.hardware.record import read
from costmodel.memory import scaling
from costmodel.validation.measurement import against
from costmodel.validation.sweep import BatchPoint, Sweep
from costmodel.view import COLUMNS, Table, grid
from costmodel.view.markdown import to_markdown

RECORD = next(Path(costmodel.__file__).parent.glob("hardware/measurements/*/alexnet-fp32.json"))


@cache
def step() -> cm.Trace:
    return cm.trace(cm.networks.lenet(), (2, 1, 28, 28), train=True)


@cache
def forward() -> cm.Trace:
    return cm.trace(cm.networks.lenet(), (2, 1, 28, 28))


@cache
def timeline() -> cm.MemoryTimeline:
    return cm.memory_timeline(step())


@cache
def at_any_batch() -> Any:
    return scaling(lambda batch: cm.trace(nn.Linear(64, 64), (batch, 64), train=True))


def compared() -> Any:
    record = read(RECORD)
    run = record.runs[0]
    found = cm.networks.find(run.model)
    trace = cm.trace(found.module, found.inputs(run.batch), dtype=run.dtype, target=record.target, name=run.model)
    return against(record, trace, cm.device("xeon-icelake"))


RESULTS: dict[str, Callable[[], Any]] = {
    "cost.Costs": lambda: cm.count(step()),
    "roofline.Prediction": lambda: cm.predict(cm.count(step()), cm.device("h200")),
    "memory.timeline.MemoryTimeline": timeline,
    "memory.runs.Replay": lambda: _replay(),
    "memory.capacity.Fit": lambda: at_any_batch().fit(cm.device("t4")),
    "memory.what_ifs.MemoryWhatIfs": lambda: _memory_what_ifs(),
    "devices.calibration.Calibration": lambda: cm.device("amd-epyc-1thread").calibration,
    "chip.evaluation.Evaluation": lambda: cm.evaluate(forward(), "eyeriss"),
    "chip.fusion.Fusion": lambda: cm.fuse(forward(), 2**18),
    "chip.balance.Balance": lambda: cm.balance(cm.lower(forward()), "edge-npu", 5.0),
    "chip.whatif.WhatIfs": lambda: cm.what_ifs(forward(), "edge-npu"),
    "chip.nests.Nests": lambda: cm.lower(forward()),
    "chip.technology.Technology": lambda: cm.accelerator("edge-npu").find_technology(),
    "chip.dram.Traffic": lambda: cm.traffic(forward(), [2**15, 2**18]),
    "chip.dram.Curves": lambda: cm.traffic_curves(forward()),
    "chip.tiling.Curve": lambda: least_traffic(next(iter(cm.lower(forward())))),
    "chip.explore.Exploration": lambda: cm.explore(cm.lower(forward()), cm.Space("edge-npu", arrays=((8, 8),))),
    "validation.Validation": lambda: cm.validate(cm.networks.find("lenet")),
    "validation.measurement.Comparison": compared,
    "validation.sweep.Sweep": lambda: Sweep("m", "d", "bound", False, (BatchPoint(1, 1e-3, 2e-3), BatchPoint(2, 2e-3))),
    "hardware.record.Measurement": lambda: read(RECORD),
}


def _replay() -> Any:
    from costmodel.memory import replay

    return replay(step())


def _memory_what_ifs() -> Any:
    return cm.memory_what_ifs(lambda batch, **options: cm.trace(nn.Linear(8, 8), (batch, 8), **options), 2, train=True)


def with_tables() -> set[str]:
    """The public classes of the library that have a method `table`, apart from TOML readers."""
    found = set()
    for module in pkgutil.walk_packages(costmodel.__path__, "costmodel."):
        if ".cli" in module.name or ".book" in module.name or module.name.endswith("__main__"):
            continue
        for name, cls in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            own = vars(cls).get("table")
            if (
                own is not None
                and cls.__module__ == module.name
                and inspect.signature(own).return_annotation == "Table"
            ):
                found.add(f"{module.name.removeprefix('costmodel.')}.{name}")
    return found


def test_every_result_is_here() -> None:
    assert with_tables() == set(RESULTS)


@pytest.mark.parametrize("result", sorted(RESULTS))
def test_names_are_the_same_everywhere(result: str) -> None:
    found = RESULTS[result]()
    table: Table = found.table()
    names = list(table.names)
    assert len(table) and len(set(names)) == len(names)
    frame = found.to_frame() if hasattr(found, "to_frame") else table.to_frame()
    assert [str(name) for name in frame.columns] == names
    assert next(csv.reader(io.StringIO(table.csv()))) == names
    records = json.loads(documents.to_text({"rows": table.records()}))["rows"]
    assert all(list(row) == names for row in records)
    assert len(frame) == len(records) == len(table) == table.csv().count("\n") - 1
    described = {column.name: column for column in table.columns}
    for name in names:
        column = described[name]
        assert column.kind and column.meaning
        assert name not in COLUMNS or COLUMNS[name].kind == column.kind, f"{name} is of another kind than the schema's"
    # people see the titles of the columns that hold something, on a page and in a notebook alike
    shown = [heading.label for heading in grid(table).columns]
    assert shown and set(shown) <= {column.title for column in table.columns}
    head = to_markdown(table.around(title="", notes=(), warnings=())).splitlines()[0]
    assert all(label.replace("_", "\\_") in head for label in shown if "|" not in label and "*" not in label)
    html = table._repr_html_()
    assert all(label.replace("&", "&amp;") in html for label in shown)


@pytest.mark.parametrize("by", ["layer", "block", "kind", "operator", "phase"])
def test_documents_have_the_rows_of_the_tables(by: str) -> None:
    """What `costmodel analyze` and `predict` print as JSON, for each grouping."""
    costs = cm.count(step())
    prediction = cm.predict(costs, cm.device("h200"))
    for document, result in (
        (documents.analysis(costs, timeline(), by), costs),
        (documents.prediction(prediction, by), prediction),
    ):
        rows = document["layers"] if by == "layer" else document["groups"]["rows"]
        assert rows == result.table(by).records()
        assert list(rows[0]) == list(result.table(by).to_frame().columns)
