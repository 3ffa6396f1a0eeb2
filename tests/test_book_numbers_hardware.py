"""What the chapters on real hardware say, derived by hand from made-up records and published times."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from holding import hold
from msgspec.structs import replace
from test_measure_report import measured as run_of
from test_measure_report import record

import costmodel as cm
from costmodel.book.benches import Bench
from costmodel.book.chapters import hardware, measured, published
from costmodel.book.engine import section
from costmodel.hardware.record import MemoryPeaks, PeerEstimate, Run
from costmodel.validation.published_times import PublishedTime, published_times

PEERS = {"a roofline": PeerEstimate(0.5), "an oracle": PeerEstimate(problem="it is not in")}


def run(model: str, batch: int, times: float, train: bool = False, **changes) -> Run:
    network = cm.networks.find(model)
    trace = cm.trace(network.module, network.inputs(batch), name=model, train=train)
    return run_of(trace, cm.device("h100"), times, **changes)


@pytest.fixture(scope="module")
def bench() -> Bench:
    """Runs that take 1.25 and 2 times their bounds: predictions that are 20 and 50 % too short."""
    memory = MemoryPeaks(requested_bytes=10**6, reserved_bytes=2 * 10**6)
    first = run("alexnet", 1, 1.25, memory=memory, rounds=(0.9, 1.0, 1.1), peers=PEERS)  # 20 % apart
    return Bench(
        "made-up",
        cm.device("h100"),
        (
            record(
                first,
                run("alexnet", 2, 1.25),
                run("alexnet", 4, 1.25),
                run("lenet", 8, 2.0, train=True),
                replace(first, model="nothing", batch=1),
                replace(first, batch=99, inputs=((99, 1, 224, 224),), failure="out of memory"),
                name="NVIDIA H100 80GB HBM3",
            ),
        ),
    )


def accuracy() -> dict[str, object]:
    return {
        "device": "NVIDIA H100 80GB HBM3",
        "basis": "bound",
        "runs": 4,
        "error_share": (3 * 0.2 + 0.5) / 4,
        "bound_error_share": (3 * 0.2 + 0.5) / 4,
        "worst_share": 0.5,
        "worst_network": "LeNet-5 (book)",
        "worst_batch": 8,
        "layers_error_share": (3 * 0.2 + 0.5) / 4,  # each layer is as far off as the whole
        "noise_share": 0.2 / 4,
    }


def test_a_device(bench: Bench) -> None:
    found = measured.measured(bench).numbers
    alexnet = {"network": "AlexNet (book)", "dtype": "float32", "phase": "forward"}
    assert found.bends[0].measured == found.bends[0].predicted  # all batches are as far off
    hold(
        found,
        {
            "device": "NVIDIA H100 80GB HBM3",
            "key": "made-up",
            "described": True,
            "predicted_with": cm.device("h100").title,
            "predicted_source": cm.device("h100").source,
            "recorded": 6,
            "date": "2026-11-24",
            "versions": {"torch": "2.11.0"},
            "accuracy": accuracy(),
            "failed": [alexnet | {"batch": 99, "reason": "", "key": ""}],
            "left_out": [alexnet | {"network": "nothing", "batch": 1, "reason": bench.left_out[0].reason, "key": ""}],
            "beaten": [],
            "more_beaten": 0,
            "silent": [{"program": "an oracle", "reason": "it is not in"}],
            "close": [alexnet | {"batch": 4, "reason": "", "key": "alexnet"}],
            "bends": [
                {
                    "networks": ["AlexNet (book)"],
                    "measured": found.bends[0].measured,
                    "predicted": found.bends[0].predicted,
                }
            ],
        },
    )
    assert "nothing" in bench.left_out[0].reason


def test_the_table_of_whole_networks(bench: Bench) -> None:
    table = measured.measured(bench).tables["whole"].data
    rows = table.records()
    assert [(row["network"], row["batch"]) for row in rows] == [
        ("AlexNet (book)", 1), ("AlexNet (book)", 2), ("AlexNet (book)", 4), ("LeNet-5 (book)", 8),
    ]  # fmt: skip
    assert [row["error"] for row in rows] == pytest.approx([-0.2, -0.2, -0.2, -0.5])
    assert rows[0]["measured_seconds"] == pytest.approx(1.25 * rows[0]["bound_seconds"])
    assert (rows[0]["requested_bytes"], rows[0]["reserved_bytes"], rows[1]["requested_bytes"]) == (
        10**6,
        2 * 10**6,
        None,
    )
    assert rows[0]["predicted_peak_bytes"] is not None and rows[1]["predicted_peak_bytes"] is None
    assert rows[0]["a_roofline_seconds"] == 0.5
    assert "estimate_seconds" not in table.names, "the H100 is not calibrated"
    assert "an_oracle_seconds" not in table.names, "it said nothing"


def test_where_curves_bend() -> None:
    """1 ms and 0.25 ms a sample are equal at batch 4; 2.1 ms and 0.25 ms between 8 and 9."""
    from costmodel.validation.sweep import BatchPoint, Sweep

    def curve(name: str, seen: float) -> Sweep:
        points = [BatchPoint(b, 1e-3 + b * 0.25e-3, seen + b * 0.25e-3) for b in (1, 2, 4, 8, 16)]
        return Sweep(name, "gpu", "bound", False, tuple(points))

    found = list(measured._bends([curve("a", 1e-3), curve("b", 2.1e-3), curve("c", 1e-3)]))
    assert [(each.networks, each.measured, each.predicted) for each in found] == [(("a", "c"), 4, 4), (("b",), 9, 4)]


def test_bounds_that_were_beaten_are_named() -> None:
    """A tenth of the bound in every layer, which nothing explains: five are named, the others counted."""
    beaten = Bench("b", cm.device("h100"), (record(run("alexnet", 64, 0.1), name="NVIDIA H100 80GB HBM3"),))
    found = measured.measured(beaten).numbers
    wrong = [row.layer for row in beaten.compared[0].comparison.rows if row.ok is False]
    assert len(wrong) > 5
    assert [each.layer for each in found.beaten] == wrong[:5]
    assert found.more_beaten == len(wrong) - 5
    assert {each.network for each in found.beaten} == {"AlexNet (book)"}
    words = section(measured.measured(beaten))
    assert f"and {len(wrong) - 5} more" in str(words.blocks[0])


def test_the_chapter(bench: Bench) -> None:
    chapter = hardware.hardware_chapter([bench], ["lenet"])
    hold(chapter.numbers["hardware"], {"devices": [accuracy()], "gpus": 1, "published": None})
    assert "the bound of a whole network is 27.5 % off on average, over 4 runs" in chapter.answer


def time(attained: float, inside: bool, ok: bool) -> PublishedTime:
    return PublishedTime("alexnet", "gpu", "library", "float32", 1, "forward", 1.0, attained, 0.3, inside, "", ok, "")


def test_published_times_are_counted() -> None:
    rows = (
        [time(0.7, True, True)] * 3
        + [time(1.5, False, True)] * 2
        + [time(0.3, False, True)]
        + [time(2.5, False, False)]
    )
    hold(
        published.numbers(rows),
        {
            "times": 7,
            "low_share": 0.6,
            "high_share": 1.0,
            "inside": 3,
            "beaten": 2,
            "most_share": 2.5,
            "untuned": 1,
            "unexplained": 1,
        },
    )


def test_published_times_today() -> None:
    """74 of the table's numbers; those above our bound's rate, counted from their columns."""
    times = published_times()
    found = published.numbers(times)
    path = Path(cm.__file__).parent / "validation" / "data" / "published_gpu_times.csv"
    with path.open(newline="") as file:
        entries = list(csv.DictReader(file))
    assert found.times == sum(bool(entry[f"{phase}_ms"]) for entry in entries for phase in ("forward", "backward"))
    table = published.published(times).tables["times"].data
    frame = table.to_frame()
    rate = frame["bound_seconds"] / frame["published_seconds"]
    assert found.beaten == ((rate > 1) & (frame["winograd_bound_seconds"] <= frame["published_seconds"])).sum() == 30
    assert found.inside == rate.between(0.6, 1).sum() == 28
    assert found.most_share == pytest.approx(rate.max())
    assert (found.untuned, found.unexplained) == (74 - 30 - 28, 0)
