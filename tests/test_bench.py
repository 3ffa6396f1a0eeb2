"""The benchmark measures what it says, never mistakes a wrong answer for a fast one, and writes whole files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from costmodel import bench
from costmodel.errors import InputError
from costmodel.peers import contenders
from costmodel.peers.contenders import CONTENDERS, Contender, contender, network_for, ready

# LeNet at 28 x 28: 6 x 784 outputs of 25 MACs, 16 x 100 of 150, then 400 x 120, 120 x 84 and 84 x 10
LENET_MACS = 6 * 784 * 25 + 16 * 100 * 150 + 400 * 120 + 120 * 84 + 84 * 10


def measured(peers: list[str], models: tuple[str, ...] = ("lenet",)) -> pd.DataFrame:
    return bench.run(models, peers, repeat=2, memory=False, startup=False)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return measured(["torch flop counter"])


def add(monkeypatch: pytest.MonkeyPatch, entry: Contender) -> None:
    monkeypatch.setattr(contenders, "CONTENDERS", {**CONTENDERS, entry.name: entry})


def test_a_row_for_each_network_program_and_way(frame):
    assert list(frame.columns) == list(bench.COLUMNS)
    assert list(zip(frame["way"], frame["program"], strict=True)) == [
        ("readme", "costmodel"),
        ("readme", "torch flop counter"),
        ("expert", "costmodel"),
        ("expert", "bare forward"),
        ("expert", "torch flop counter"),
    ]
    counted = frame[frame["program"] != "bare forward"]
    assert (counted["macs"] == LENET_MACS).all() and counted["agrees"].all()
    floor = frame[frame["program"] == "bare forward"].iloc[0]
    assert pd.isna(floor["macs"]) and pd.isna(floor["agrees"])
    assert (frame.loc[frame["program"] == "costmodel", "times_ours"] == 1).all()
    assert (frame["best_seconds"] > 0).all() and (frame["best_seconds"] <= frame["median_seconds"]).all()
    ours = frame[(frame["program"] == "costmodel") & (frame["way"] == "readme")].iloc[0]
    theirs = frame[(frame["program"] == "torch flop counter") & (frame["way"] == "readme")].iloc[0]
    assert theirs["times_ours"] == theirs["best_seconds"] / ours["best_seconds"]
    assert set(frame.attrs) == {"date", "command", "rounds", "machine", "python"}


def test_rounds_are_interleaved_after_a_call_to_warm_up(monkeypatch):
    calls: list[str] = []

    def program(name: str) -> Contender:
        return Contender(name, "torch", lambda *_: calls.append(name) or LENET_MACS, ("expert",))

    for name in ("a", "b"):
        monkeypatch.setattr(contenders, "CONTENDERS", {**contenders.CONTENDERS, name: program(name)})
    measured(["a", "b"])
    assert calls == ["a", "b"] + ["a"] * 3 + ["b"] * 3 + ["a"] * 3 + ["b"] * 3


def test_a_fast_wrong_answer_is_marked(monkeypatch, tmp_path):
    add(monkeypatch, Contender("hasty", "torch", lambda *_: LENET_MACS - 1, ("expert",)))
    frame = measured(["hasty"])
    row = frame[frame["program"] == "hasty"].iloc[0]
    assert row["macs"] == LENET_MACS - 1 and not row["agrees"]
    text = bench.write(frame, tmp_path / "benchmark.md").read_text()
    assert f"{LENET_MACS - 1:,} MACs (differs)" in text
    assert f"{LENET_MACS:,} MACs |" in text


def test_programs_that_raise_or_are_not_there_are_rows_that_say_so(monkeypatch, tmp_path):
    def fails(*_: object) -> int:
        raise ValueError("cannot | do\nthis")

    monkeypatch.setattr(
        contenders,
        "CONTENDERS",
        {**CONTENDERS, "broken": Contender("broken", "torch", fails), "absent": Contender("absent", "no-such", fails)},
    )
    frame = measured(["broken", "absent"])
    problems = frame.set_index(["program", "way"])["problem"]
    assert problems["broken", "readme"] == problems["broken", "expert"] == "ValueError: cannot | do"
    assert problems["absent", "readme"] == "no-such is not installed"
    assert frame.loc[frame["program"].isin(["broken", "absent"]), "best_seconds"].isna().all()
    text = bench.write(frame, tmp_path / "benchmark.md").read_text()
    assert "ValueError: cannot \\| do" in text and "none ran" in text


def test_bad_input_is_told_before_anything_is_measured():
    with pytest.raises(InputError, match="at least 1"):
        bench.run(["lenet"], [], repeat=0)
    with pytest.raises(InputError, match="Did you mean torchinfo"):
        bench.run(["lenet"], ["torchinf"])
    with pytest.raises(InputError, match="lenet"):
        bench.run(["lenett"], [])
    with pytest.raises(InputError, match="cannot be compared"):
        bench.run(["torchvision:raft_small"], [])


def test_programs_do_not_share_modules_but_weights():
    network = network_for("lenet", "expert")
    mine = ready("costmodel", network)
    attributes = {path: set(vars(module)) for path, module in network.module.named_modules()}
    assert mine() == ready("torch flop counter", network)() == LENET_MACS
    assert {path: set(vars(module)) for path, module in network.module.named_modules()} == attributes


@pytest.mark.parametrize("name", ["torch flop counter", "fvcore", "torchinfo", "ptflops", "ptflops (aten)"])
def test_each_program_is_called_the_way_it_wants(name):
    entry = contender(name)
    if entry.version is None:
        pytest.skip(f"{entry.package} is not installed")
    reported = ready(name, network_for("lenet", "readme"))()
    # torchinfo and ptflops add biases, activations and pools to the MACs: at most 3 of each output's elements here
    assert LENET_MACS <= reported <= LENET_MACS + 5 * (6 * 784 + 16 * 100 + 120 + 84 + 10)


def test_analysing_vgg19_allocates_no_weights():
    code = "from costmodel.peers.contenders import peak_memory as peak; print(peak(*__import__('sys').argv[1:]))"
    command = [sys.executable, "-c", code, "costmodel", "torchvision:vgg19", "expert"]
    added = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert added < 50e6  # its weights are 575 MB


def test_startup_rows(tmp_path):
    frame = bench.run([], [], repeat=1, memory=False)
    assert set(frame["way"]) == {bench.STARTUP}
    assert frame["best_seconds"].notna().all()
    best = dict(zip(frame["program"], frame["best_seconds"], strict=True))
    predict = "costmodel predict vgg16 -d h200"
    assert list(best) == [
        "python -c pass",
        "import costmodel",
        "costmodel --help",
        f"{predict} --no-cache",
        f"{predict}, not for the first time",
        "costmodel models, not for the first time",
    ]
    page = bench.write(frame, tmp_path / "benchmark.md").read_text()
    again = best[f"{predict}, not for the first time"] / best["python -c pass"]
    assert f"| {again:.1f} |  |\n| costmodel models, not for the first time |" in page


def test_the_report_is_replaced_as_a_whole_or_not_at_all(frame, tmp_path, monkeypatch):
    target = tmp_path / "deeper" / "benchmark.md"
    assert bench.write(frame, target) == target
    first = target.read_text()
    for name in ("date", "command", "machine"):
        assert frame.attrs[name] in first
    bench.write(frame.iloc[:1], target)
    assert target.read_text() != first

    def refuse(self: Path, other: Path) -> Path:
        raise OSError(28, "No space left on device")

    second = target.read_text()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        with pytest.raises(InputError, match="No space left"):
            bench.write(frame, target)
    assert target.read_text() == second
    assert list(target.parent.iterdir()) == [target]


def test_a_file_that_is_not_ours_stays(frame, tmp_path):
    target = tmp_path / "benchmark.md"
    target.write_text("# My notes\n")
    with pytest.raises(InputError, match="not a benchmark of ours"):
        bench.write(frame, target)
    assert target.read_text() == "# My notes\n"
    bench.write(frame, target, force=True)
    assert target.read_text().startswith("# Benchmark")


def test_a_folder_that_cannot_be_made_is_said(frame, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        bench.write(frame, tmp_path / "file" / "benchmark.md")
