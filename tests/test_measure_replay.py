"""The committed records, replayed: read whole, joined with today's predictions, and as near as they must be.

They are real runs of `costmodel suite`; the device files beside the predictions are real calibrations, on generated
shapes, of which none is a network that was measured.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from costmodel.book.benches import Bench, benches
from costmodel.hardware.record import read

FOLDER = Path(__file__).parents[1] / "reports" / "measurements"
BENCHES = benches(FOLDER)
CPU = [bench for bench in BENCHES if bench.records[0].target == "cpu"]


def test_there_are_records() -> None:
    assert CPU and sum(path.stat().st_size for path in FOLDER.rglob("*.json")) < 1_000_000


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*-*.json")), ids=lambda path: path.stem)
def test_a_record_says_in_what_circumstances_it_was_made(path: Path) -> None:
    record = read(path)
    assert record.runs and record.environment["command"].startswith("costmodel ")
    assert " /" not in record.environment["command"], "no path of the machine is in it"
    for run in record.runs:
        assert run.failure or run.rounds, "the noise floor of every run is known"


@pytest.mark.parametrize("bench", CPU, ids=lambda bench: bench.name)
def test_what_was_to_be_measured_on_a_cpu(bench: Bench) -> None:
    runs = {(run.model.rpartition(":")[2], run.batch, run.train) for record in bench.records for run in record.runs}
    networks = ("alexnet", "vgg11", "vgg16", "resnet18", "resnet50", "mobilenet_v2", "googlenet", "squeezenet1_1")
    assert runs >= {(name, batch, False) for name in networks for batch in (1, 8)} | {("alexnet", 8, True)}
    assert all(record.threads == 1 for record in bench.records)


@pytest.mark.parametrize("bench", CPU, ids=lambda bench: bench.name)
def test_the_estimates_are_as_near_as_they_must_be(bench: Bench) -> None:
    """Whole networks: 10 % on average and 30 % at worst; layers: 20 %, weighted by time. The bound alone is worse."""
    forward = [each for _, each, _ in bench.compared if not each.run.train and each.run.batch in (1, 8)]
    assert len(forward) == 16 and all(each.prediction.estimate for each in forward)
    errors = [abs(each.error) for each in forward]
    assert sum(errors) / len(errors) <= 0.10
    assert max(errors) <= 0.30
    assert sum(each.weighted_error for each in forward) / len(forward) <= 0.20
    bounds = [abs(each.prediction.bound_seconds / each.measured_seconds - 1) for each in forward]
    assert sum(bounds) / len(bounds) > 2 * sum(errors) / len(errors)


@pytest.mark.parametrize("bench", BENCHES, ids=lambda bench: bench.name)
def test_no_bound_is_beaten_without_a_reason(bench: Bench) -> None:
    rows = [(each.run.name, row) for _, each, _ in bench.compared for row in each.rows]
    assert sum(row.ok is not None for _, row in rows) >= len(bench.compared) > 0
    assert not [(name, row.layer, row.phase) for name, row in rows if row.ok is False]


@pytest.mark.parametrize("bench", BENCHES, ids=lambda bench: bench.name)
def test_every_gap_beyond_the_noise_has_a_reason(bench: Bench) -> None:
    assert bench.compared
    for _, comparison, _ in bench.compared:
        assert any(row.error is not None for row in comparison.rows)
        for row in comparison.rows:
            beyond = row.error is not None and abs(row.error) > max(comparison.run.noise, row.noise)
            assert row.explanation or row.covered or not beyond
            assert not row.explanation.startswith("unmodelled")
