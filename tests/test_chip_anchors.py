"""Published numbers are those of the copied tables, and ours are as near as we promise."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import costmodel as cm
from costmodel.chip.anchors import EYERISS, NVDLA, Comparison, compare
from costmodel.chip.lowering import lower

DATA = Path(__file__).with_name("data")


def published(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(line for line in (DATA / name).open() if not line.startswith("#")))


def test_the_published_numbers_are_those_of_the_copied_tables() -> None:
    rows = published("eyeriss_alexnet.csv")
    assert [tuple(row) for row in EYERISS] == [
        (row["layer"], float(row["processing_milliseconds"]), int(row["active_pes"]), float(row["dram_megabytes"]))
        for row in rows
    ]
    rate = "resnet50_frames_per_second"
    rows = sorted(published("nvdla_three_designs.csv"), key=lambda row: int(row["macs"]))
    assert [tuple(row) for row in NVDLA] == [
        (int(row["macs"]), *(float(row[name]) for name in ("area_28nm_mm2", "area_16nm_mm2", rate))) for row in rows
    ]


@pytest.fixture(scope="module")
def compared() -> tuple[Comparison, ...]:
    alexnet, resnet = (cm.networks.find(name) for name in ("alexnet-grouped", "torchvision:resnet50"))
    return compare(
        lower(cm.trace(alexnet.module, alexnet.inputs(4))).only("conv"), cm.trace(resnet.module, resnet.inputs(1))
    )


def test_ours_are_as_near_as_promised(compared: tuple[Comparison, ...]) -> None:
    allowed = {
        "ms": 0.15,
        "": 0.05,
        "MB": 0.15,
        "mm²": 0.10,
        "frames/s": 0.0,
        "MACs a weight byte": 1e-3,
        "cycles": 0.0,
    }
    for row in compared:
        assert abs(row.difference) <= allowed[row.unit], row
    assert len(compared) == 5 * 2 + 1 + 3 * 3 + 1 + 4 * 2


def test_a_difference_is_to_the_nearer_end() -> None:
    row = Comparison("x", "y", 10.0, 12.0, 15.0, "", "", "")
    assert row.difference == pytest.approx(0.2)
    assert row._replace(low=5.0, high=8.0).difference == pytest.approx(-0.2)
    assert row._replace(low=9.0).difference == 0
