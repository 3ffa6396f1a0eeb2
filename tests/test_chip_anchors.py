"""Published numbers are those of the copied tables, and ours are as near as we promise."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import costmodel as cm
from costmodel.chip.lowering import lower
from costmodel.chip.nests import Nests
from costmodel.validation.chips.anchors import (
    EYERISS,
    EYERISS_VGG16,
    EYERISS_VGG16_RUN,
    NVDLA,
    ChipComparison,
    compare,
    partial_sum_seconds,
)

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
def compared() -> tuple[ChipComparison, ...]:
    resnet = cm.networks.find("torchvision:resnet50")
    return compare(convolutions("alexnet-grouped", 4), vgg16(), cm.trace(resnet.module, resnet.inputs(1)))


def convolutions(name: str, batch: int) -> Nests:
    network = cm.networks.find(name)
    return lower(cm.trace(network.module, network.inputs(batch))).only("conv")


def vgg16() -> Nests:
    return convolutions("torchvision:vgg16", 3)


OPTIMISTIC = ("VGG-16", "energy", "area")
"""What of Eyeriss' the model makes too fast and too small, as it says."""


def test_ours_are_as_near_as_promised(compared: tuple[ChipComparison, ...]) -> None:
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
        if row.chip != "Eyeriss" or not any(word in row.quantity for word in OPTIMISTIC):
            assert abs(row.difference) <= allowed[row.unit], row
    assert len(compared) == (5 * 2 + 1 + 2) + (5 + 1 + 1 + 1) + 3 * 3 + 1 + 4 * 2


def test_how_optimistic_the_model_is_about_eyeriss(compared: tuple[ChipComparison, ...]) -> None:
    """Times of VGG-16's blocks, the larger its maps the further off; rates, energies and area against the published."""
    ours = {row.quantity: row for row in compared if row.chip == "Eyeriss"}
    shares = [ours[f"VGG-16's conv{block}: processing"].low for block in range(1, 6)]
    shares = [low / ours[f"VGG-16's conv{block}: processing"].published for block, low in enumerate(shares, start=1)]
    assert 0.15 < shares[0] < shares[2] < shares[3] < shares[4] + 0.1
    assert 0.85 < shares[4] < 1.15
    assert ours["VGG-16's conv1 to conv4: partial sums' bus"].difference == pytest.approx(-0.06, abs=0.03)
    rate = ours["VGG-16's convolutions"]
    assert rate.published < rate.low < rate.high < 4 * rate.published
    # 278 mW at 115.3 ms for 4 images, 236 mW at 4309.5 ms for 3
    energies = [ours[f"{name}'s convolutions: energy of an image without DRAM"] for name in ("AlexNet", "VGG-16")]
    assert [round(row.published, 1) for row in energies] == [8.0, 339.0]
    assert all(0.2 < row.low / row.published < 0.9 for row in energies)
    assert ours["area"].published == 12.25 and 0.3 < ours["area"].low / 12.25 < 0.6


def test_eyeriss_table_of_vgg16_adds_up_and_says_how_many_channels_a_pass_sums() -> None:
    """An output's partial sums go to the buffer and come back, but for the first: accesses / outputs = 2 C / c - 1.

    What is read besides, inputs and weights, makes up a few hundredths. Of partial sums, four cross in a cycle.
    """
    rows = published("eyeriss_vgg16.csv")
    totals = {"total": 4309.5, "processing": 3755.2}
    for name, total in totals.items():
        assert sum(float(row[f"{name}_milliseconds"]) for row in rows) == pytest.approx(total, rel=2e-4)
    assert sum(float(row["global_buffer_megabytes"]) for row in rows) == pytest.approx(11035.8, rel=2e-4)
    joules = sum(float(row["power_milliwatts"]) * float(row["total_milliseconds"]) for row in rows)
    assert joules / EYERISS_VGG16_RUN.milliseconds == pytest.approx(EYERISS_VGG16_RUN.milliwatts, rel=2e-3)
    assert [each[:2] for each in EYERISS_VGG16] == [
        (row["layer"], float(row["processing_milliseconds"])) for row in rows
    ]
    chip = cm.accelerator("eyeriss")
    for nest, ours, row in zip(vgg16(), EYERISS_VGG16, rows, strict=True):
        accesses = float(row["global_buffer_megabytes"]) * 1e6 / 2 / nest.output_numel
        channels = 2 * nest.in_channels / (accesses + 1)
        if ours.channels:
            assert channels == pytest.approx(ours.channels, rel=0.13), row
            share = partial_sum_seconds(nest, ours.channels, chip) * 1e3 / ours.processing_milliseconds
            assert 0.91 < share < 0.96, row
        else:
            assert channels > 6, row


def test_a_difference_is_to_the_nearer_end() -> None:
    row = ChipComparison("x", "y", 10.0, 12.0, 15.0, "", "", "")
    assert row.difference == pytest.approx(0.2)
    assert row._replace(low=5.0, high=8.0).difference == pytest.approx(-0.2)
    assert row._replace(low=9.0).difference == 0
