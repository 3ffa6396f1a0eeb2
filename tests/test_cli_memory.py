"""costmodel memory: the document, the tables, files that are whole or not there, and a clear word for bad input."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from costmodel.cli import run

NETWORKS = """
import torch
from torch import nn

class Looks(nn.Module):
    def __init__(self):
        super().__init__()
        self.add_module("<b>|a", nn.Linear(256, 256))

    def forward(self, x):
        y = next(self.children())(x)
        return y + torch.cat([x, x, x]).sum() if x.shape[0] > 100 else y

class Frozen(nn.Module):
    def forward(self, x):
        return x.relu()
"""

SMALL = """
title = "Small"
kind = "{kind}"
memory_bandwidth = {{ value = 1e11, source = "mine" }}
{memory}
[peaks]
fp32 = {{ value = 1e12, source = "mine" }}
[sources.mine]
title = "a test"
date = "2026"
"""


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Outcome]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NETWORKS)
    (tmp_path / "unknown.toml").write_text(SMALL.format(kind="gpu", memory=""))
    for name, kind, size in (("tiny", "gpu", 1 << 28), ("small", "gpu", 1 << 30), ("cpu", "cpu", 1 << 30)):
        memory = f'memory_bytes = {{ value = {size}, source = "mine" }}'
        (tmp_path / f"{name}.toml").write_text(SMALL.format(kind=kind, memory=memory))

    def call(*arguments: object) -> Outcome:
        code = run(["memory", *map(str, arguments)])
        return Outcome(code, *capsys.readouterr())

    return call


def document(outcome: Outcome) -> dict[str, Any]:
    assert outcome.code == 0, outcome.err
    found: dict[str, Any] = json.loads(outcome.out)
    return found


def test_the_document(cli: Cli) -> None:
    found = document(cli("lenet", "--train", "--momentum", 0.9, "--batch", 2, "-f", "json"))
    assert found["schema"] == "costmodel/memory/1"
    assert found["peak_bytes"] == sum(held["bytes"] for held in found["holders"]) == sum(found["by_role"].values())
    assert set(found["peak"]) == {"operation", "layer", "phase"}
    assert found["saved_bytes"] > 0
    assert [level["name"] for level in found["levels"]] == ["requested", "allocated", "reserved", "process"]
    assert found["levels"][0]["bytes"] == found["peak_bytes"]
    assert [level["assumed"] for level in found["levels"]] == [False, False, False, True]
    assert found["levels"][3]["added_bytes"] == sum(each["bytes"] for each in found["assumptions"])
    assert all(each["source"] for each in found["assumptions"])
    assert not {"sweep", "fit", "what_ifs"} & set(found)


def test_on_a_cpu_only_the_tensors_are_known(cli: Cli) -> None:
    found = document(cli("lenet", "--target", "cpu", "-f", "json"))
    assert [level["name"] for level in found["levels"]] == ["requested"]
    assert found["assumptions"] == []
    assert "process" not in cli("lenet", "--target", "cpu").out


def test_for_people(cli: Cli) -> None:
    out = cli("alexnet", "--train", "--batch", 64, "--momentum", 0.9).out
    assert "Peak of 788 MiB in aten.threshold_backward of net.4 (backward)." in out
    assert "Autograd saves 243 MiB in the forward for the backward." in out
    assert "From tensors to process: requested 788 MiB, allocated " in " ".join(out.split())
    assert "net.14.weight" in out


def test_a_sweep(cli: Cli) -> None:
    found = document(cli("lenet", "--sweep", "4,1,2,2", "-f", "json"))
    assert [row["batch"] for row in found["sweep"]] == [1, 2, 4]
    peaks = [row["requested_bytes"] for row in found["sweep"]]
    # a batch of two is one image more than a batch of one, a batch of four two more
    assert peaks[2] - peaks[1] == 2 * (peaks[1] - peaks[0])
    assert peaks[0] == found["peak_bytes"]
    rows = list(csv.DictReader(io.StringIO(cli("lenet", "--sweep", "1,2", "-f", "csv").out)))
    assert [int(row["requested_bytes"]) for row in rows] == peaks[:2]


def test_the_largest_batch(cli: Cli) -> None:
    found = document(cli("lenet", "--train", "-d", "small.toml", "--fit", "-f", "json"))["fit"]
    assert found["exhaustive"]
    assert found["extrapolated"]
    assert found["batch_without_retries"] <= found["largest_batch"] <= found["bound_batch"]
    assert found["process_bytes"] <= found["available_bytes"] == 1 << 30
    out = cli("lenet", "--train", "-d", "small.toml", "--fit").out
    assert f"The Small (1.00 GiB) runs a training step of up to {found['largest_batch']:,} samples." in out
    assert "Assumed for the process" in out
    looked = cli("net.py:Looks", "--input", "256", "-d", "cpu.toml", "--fit").out
    assert "batches were traced one by one" in " ".join(looked.split())


def test_the_holders_summed(cli: Cli) -> None:
    # LeNet's first fully connected layer: 400 · 120 weights and 120 biases, as a parameter and Adam's two states
    found = document(cli("lenet", "--train", "--optimizer", "adam", "--by", "layer", "-f", "json"))
    assert found["groups"]["by"] == "layer"
    rows = {row["layer"]: row["held_bytes"] for row in found["groups"]["rows"]}
    assert sum(rows.values()) == found["peak_bytes"]
    assert rows["net.7"] == 4 * 4 * (400 * 120 + 120)  # and its gradient
    roles = document(cli("lenet", "--train", "--by", "role", "-f", "json"))
    assert {row["role"]: row["held_bytes"] for row in roles["groups"]["rows"]} == {
        role: held for role, held in roles["by_role"].items() if held
    }
    lines = cli("torchvision:resnet18", "--by", "block", "--depth", 1, "-f", "csv").out.splitlines()
    assert lines[0] == "block,held_bytes,held_share"
    assert {"layer1", "layer4", "fc"} < {line.split(",")[0] for line in lines}
    assert "--by layer, --by block and --by role sum them" in cli("lenet").out
    out = cli("vgg16", "--by", "block").out
    assert "A block's row is what stands directly in it" in out
    assert "total" in out
    assert "groups" not in document(cli("lenet", "-f", "json"))


def test_a_cpu_has_a_cpus_operators(cli: Cli) -> None:
    found = document(cli("alexnet", "--train", "-d", "cpu.toml", "-f", "json"))
    assert found["target"] == "cpu"
    assert found["assumptions"] == []
    assert document(cli("alexnet", "--train", "-d", "small.toml", "-f", "json"))["target"] == "cuda"
    out = cli("lenet", "-d", "cpu.toml", "--fit").out
    assert "operators of the CPU" in out
    assert "CUDA" not in out
    # a fit of a CPU is by its tensors alone
    out = cli("lenet", "-d", "cpu.toml", "--sweep", "1,100000").out
    assert "reserved" not in out
    assert [line.split()[-1] for line in out.splitlines()[-2:]] == ["yes", "no"]


def test_a_sweep_on_a_device_says_what_fits(cli: Cli) -> None:
    rows = document(cli("lenet", "--train", "--sweep", "1,1000000", "-d", "small.toml", "-f", "json"))["sweep"]
    assert [row["fits"] for row in rows] == [True, False]
    assert "Fits: whether the Small (1.00 GiB) runs the batch" in cli("lenet", "--sweep", "1", "-d", "small.toml").out
    assert "fits" not in document(cli("lenet", "--sweep", "1", "-f", "json"))["sweep"][0]


def test_what_fits_only_with_retries_says_so(cli: Cli) -> None:
    found = document(cli("alexnet", "--train", "-d", "small.toml", "--fit", "-f", "json"))["fit"]
    easy, largest = found["batch_without_retries"], found["largest_batch"]
    assert easy < largest
    assert "It fits the Small: " in cli("alexnet", "--train", "-d", "small.toml", "--batch", easy).out
    out = " ".join(cli("alexnet", "--train", "-d", "small.toml", "--batch", largest).out.split())
    assert "It fits the Small (1.00 GiB) in less than these" in out
    assert "give segments back" in " ".join(
        cli("alexnet", "--train", "-d", "small.toml", "--sweep", f"{easy},{largest}").out.split()
    )


def test_levers(cli: Cli) -> None:
    found = document(cli("lenet", "--train", "--batch", 8, "--momentum", 0.9, "--what-ifs", "-f", "json"))
    what_ifs = {row["what_if"]: row for row in found["what_ifs"]}
    assert what_ifs["no momentum"]["saving_bytes"] == found["by_role"]["parameter"]
    assert what_ifs["no momentum"]["peak_bytes"] == found["peak_bytes"] - found["by_role"]["parameter"]
    assert all(row["why"] for row in found["what_ifs"])
    assert what_ifs["no momentum"]["how"] == "optim.SGD(..., momentum=0)"
    out = cli("lenet", "--train", "--momentum", 0.9, "--what-ifs").out
    for how in ("optim.SGD(..., momentum=0)", "optim.SGD(..., foreach=False)", "checkpoint(block, x) of net"):
        assert how in out
    assert "set_to_none=False" not in out  # keeps gradients: no what-if


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_plots(cli: Cli, tmp_path: Path, suffix: str, start: bytes) -> None:
    for name, more in (("timeline", ()), ("batches", ("--sweep", "1,8,64", "-d", "small.toml"))):
        file = tmp_path / f"{name}.{suffix}"
        assert cli("lenet", "--train", "--plot", file, *more).code == 0
        assert file.read_bytes().startswith(start)


def test_exports(cli: Cli, tmp_path: Path) -> None:
    assert cli("lenet", "--train", "--export", "out.json").code == 0
    events = json.loads((tmp_path / "out.json").read_text())["traceEvents"]
    assert {event["ph"] for event in events} == {"M", "X", "C", "i"}
    assert cli("lenet", "--train", "--export", "out.csv").code == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert {row["phase"] for row in rows} == {"forward", "backward", "optimizer"}
    peak = max(
        sum(int(row[role]) for role in ("parameter", "gradient", "activation", "input", "temporary")) for row in rows
    )
    assert peak == document(cli("lenet", "--train", "-f", "json"))["peak_bytes"]


def test_hostile_names(cli: Cli) -> None:
    for form in ("table", "md", "csv", "json"):
        assert cli("net.py:Looks", "--input", "256", "--train", "--what-ifs", "-f", form).code == 0
    assert r"<b>\|a" in cli("net.py:Looks", "--input", "256", "-f", "md").out.replace("&lt;", "<").replace("&gt;", ">")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lenet", "--fit"), "--fit asks what fits a device: name it with -d"),
        (("lenet", "--fit", "-d", "unknown.toml"), "Small has no memory size"),
        (("vgg16", "--fit", "-d", "tiny.toml"), "nothing fits the Small: an inference of one sample takes"),
        (("lenet", "--fit", "-d", "cpu.toml", "--run"), "--run would really run them"),
        (("lenet", "--what-ifs"), "give --train"),
        (("lenet", "--sweep", "1,two"), "cannot read batches from '1,two'"),
        (("lenet", "--sweep", "0"), "whole numbers from 1"),
        (("lenet", "--batch", "0"), "batch"),
        (("lenet", "--train", "--optimizer", "adm"), "unknown optimizer 'adm'"),
        (("net.py:Frozen", "--input", "4", "--train"), "nothing to train"),
        (("lenet", "--train", "--momentum", "nan"), "--momentum nan is not a number from 0"),
        (("lenet", "--train", "--momentum", "-0.1"), "--momentum -0.1 is not"),
        (("lenet", "--train", "--weight-decay", "inf"), "--weight-decay inf is not"),
        (("lenet", "--plot", "x.jpg"), "ends in .png or .svg"),
        (("lenet", "--plot", "nowhere/x.png"), "there is no folder"),
        (("lenet", "--export", "x.txt"), "ends in .json"),
        (("lenet", "--export", "nowhere/x.json"), "there is no folder"),
        (("lenet", "--export", "net.toml.json/x.json"), "there is no folder"),
        (("lenet", "--fit", "-d", "no-such"), "unknown device"),
        (("lenet", "--fit", "-d", "small.toml", "--target", "cpu"), "leave --target out, and cuda is taken"),
        (("lenet", "--fit", "-d", "cpu.toml", "--target", "cuda"), "leave --target out, and cpu is taken"),
        (("lenet", "-d", "small.toml", "--run"), "the Small is a GPU: leave one of them out"),
        (("lenet", "--depth", "1"), "give --by block with it"),
        (("lenet", "--by", "role", "--sweep", "1,2"), "leave out --sweep, --fit and --what-ifs with it"),
        (("lenet", "--batch", "99999999999999999999"), "is too large for a tensor's size: give at most"),
        (("lenet", "--sweep", "1,99999999999999999999"), "is too large for a tensor's size: give at most"),
        (("lenet", "--batch", "999999999999999"), "is too large for a tensor's size: give at most"),
    ],
)
def test_bad_input(cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 3


def test_nothing_is_overwritten_unasked(cli: Cli, tmp_path: Path) -> None:
    for option, name in (("--plot", "mine.png"), ("--export", "mine.json")):
        (tmp_path / name).write_text("mine")
        code, _, err = cli("lenet", option, name)
        assert (code, (tmp_path / name).read_text()) == (2, "mine")
        assert "exists already" in err
        assert cli("lenet", option, name, "--force").code == 0
        assert (tmp_path / name).read_bytes() != b"mine"


def test_whether_it_fits_the_device(cli: Cli) -> None:
    assert "It fits the NVIDIA T4: " in cli("lenet", "-d", "t4").out
    out = cli("lenet", "-d", "t4", "--batch", 100_000_000).out
    assert "It does not fit the NVIDIA T4: it takes 3.71 TiB, and there are 15.0 GiB." in out


def test_holders_can_be_told_apart(cli: Cli) -> None:
    held = document(cli("lenet", "--train", "--optimizer", "adam", "-f", "json"))["holders"]
    names = {each["name"] for each in held if each["role"] == "optimizer state"}
    assert {"exp_avg of net.0.weight", "exp_avg_sq of net.0.weight"} <= names
    assert next(each["shape"] for each in held if each["name"] == "net.0.weight") == [6, 1, 5, 5]
