"""What is said of published chips, from rows of our own making; and the record of other programs' times."""

from __future__ import annotations

from holding import hold

from costmodel.book.chapters.chip_trust import numbers, trust
from costmodel.validation.chips.anchors import ChipComparison
from costmodel.validation.chips.programs import program_runs


def row(chip: str, quantity: str, unit: str, published: float, low: float, high: float | None = None) -> ChipComparison:
    return ChipComparison(chip, quantity, published, low, low if high is None else high, unit, "a paper", "")


ROWS = (
    row("Eyeriss", "conv1: processing", "ms", 10, 9),  # 10 % too fast
    row("Eyeriss", "conv2: processing", "ms", 10, 12),  # 20 % too slow, the furthest off
    row("Eyeriss", "VGG-16's conv1: processing", "ms", 10, 1),  # not AlexNet's
    row("Eyeriss", "VGG-16's convolutions", "frames/s", 4, 6, 8),
    row("Eyeriss", "AlexNet's energy", "mJ", 8, 2),
    row("Eyeriss", "VGG-16's energy", "mJ", 10, 3),
    row("Eyeriss", "area", "mm²", 10, 4),
    row("NVDLA, 64 MACs", "area, 28 nm", "mm²", 1.0, 0.9),
    row("NVDLA, 256 MACs", "area, 28 nm", "mm²", 2.0, 2.1),
    row("NVDLA, 64 MACs", "ResNet-50", "frames/s", 7, 6, 9),  # in the band
    row("NVDLA, 256 MACs", "ResNet-50", "frames/s", 900, 6, 9),  # far from it
    row("TPU v1", "ridge point", "MACs a weight byte", 1000, 999.5),  # 0.05 % off
    row("SCALE-Sim", "a layer", "cycles", 100, 100),
    row("SCALE-Sim", "another", "cycles", 100, 102),
)


def test_verdicts_on_published_chips_are_counted() -> None:
    hold(
        numbers(ROWS),
        {
            "eyeriss_time_share": 0.2,
            "eyeriss_low_ratio": 1.5,
            "eyeriss_high_ratio": 2.0,
            "eyeriss_energy_shares": [0.25, 0.3],
            "eyeriss_area_share": 0.4,
            "nvdla_area_share": 0.1,
            "nvdla_rates": {"met": 1, "compared": 2},
            "tpu_ridge": {"met": 1, "compared": 1},
            "scale_sim_cycles": {"met": 1, "compared": 2},
        },
    )


def test_what_the_published_chips_say_today() -> None:
    """The bands of the three NVDLAs hold their 7.3, 46 and 269 frames a second; SCALE-Sim's eight runs are equal."""
    found = trust().numbers
    assert (found.nvdla_rates.met, found.nvdla_rates.compared) == (3, 3)
    assert (found.tpu_ridge.met, found.scale_sim_cycles.met, found.scale_sim_cycles.compared) == (1, 8, 8)
    assert abs(found.eyeriss_time_share - (10.93632 / 10.0 - 1)) < 1e-6  # conv5: 10.936 ms of the model, 10.0 measured


def test_times_of_programs_are_a_record() -> None:
    runs = program_runs()
    assert [run.program for run in runs] == ["costmodel", "SCALE-Sim", "ZigZag", "AccelForge", "Timeloop"]
    assert runs[0].command.startswith("costmodel explore")
    for run in runs:
        assert run.low_seconds is None or run.high_seconds is None or run.low_seconds <= run.high_seconds
    assert runs[0].date == "2026-11-24"
