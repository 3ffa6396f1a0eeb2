"""The commands of chip design: tables and documents, and what is refused with which exit code."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from costmodel.cli import run

HOSTILE = """
from torch import nn

class Hostile(nn.Module):
    def __init__(self):
        super().__init__()
        for name in ("<b>x</b>", "a|b", "</script>", "very_" * 60):
            self.add_module(name, nn.Linear(8, 8))

    def forward(self, x):
        for layer in self.children():
            x = layer(x)
        return x

def relu():
    return nn.ReLU()
"""

CHIP = """
title = "Toy"
dataflow = "ideal"
rows = 8
columns = 8
clock_hertz = 1e9
operand = "int8"
accumulator = "int32"
buffer_bytes = 65536
dram_bandwidth = 1e9
"""


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    for name in ("COLUMNS", "COSTMODEL_DEBUG"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: object) -> Outcome:
        code = run([str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return call


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "networks.py"
    path.write_text(HOSTILE)
    (tmp_path / "toy.toml").write_text(CHIP)
    return path


class TestChip:
    def test_the_table_says_what_it_is(self, cli) -> None:
        code, out, err = cli("chip", "lenet", "-a", "nvdla-64", "--batch", 2)
        assert (code, err) == (0, "")
        lines = out.splitlines()
        assert lines[0].startswith("LeNet-5 (book): input 2x1x28x28") and lines[0].endswith("on NVDLA, 64 MACs")
        assert "frames a second" in lines[1] and "mm²" in out and "28nm+derived" in out
        assert max(map(len, lines)) <= 120
        # 416,520 MACs an image
        assert "833 k" in next(line for line in lines if line.startswith("total"))

    def test_the_document(self, cli) -> None:
        code, out, err = cli("chip", "lenet", "-a", "edge-npu", "-f", "json", "--what-if")
        document = json.loads(out)
        assert (code, err, document["schema"]) == (0, "", "costmodel/chip/1")
        totals, layers = document["totals"], document["layers"]
        assert totals["macs"] == sum(layer["macs"] for layer in layers) == 416_520
        assert totals["overlapped_seconds"] == pytest.approx(sum(layer["overlapped_seconds"] for layer in layers))
        assert totals["frames_per_second"] == pytest.approx(1 / totals["overlapped_seconds"])
        assert totals["area_mm2"]["total"] == pytest.approx(
            sum(value for name, value in totals["area_mm2"].items() if name != "total")
        )
        assert document["accelerator"]["rows"] == 32 and document["what_ifs"][0]["change"] == "as it is"

    def test_csv_and_markdown(self, cli) -> None:
        rows = list(csv.DictReader(io.StringIO(cli("chip", "lenet", "-a", "h200", "-f", "csv").out)))
        assert sum(int(row["macs"]) for row in rows) == 416_520 and "joules" not in rows[0]
        assert "| what if |" in cli("chip", "lenet", "-a", "edge-npu", "--what-if", "-f", "md").out

    def test_eyeriss_as_the_readme_says(self, cli) -> None:
        arguments = ("chip", "alexnet-grouped", "-a", "eyeriss", "--batch", 4, "--kind", "conv", "-f", "json")
        document = json.loads(cli(*arguments).out)
        assert document["images"] == 4 and len(document["layers"]) == 5
        assert document["totals"]["dram_bytes"] <= 17.7e6

    def test_another_technology(self, cli) -> None:
        old, new = (
            json.loads(cli("chip", "lenet", "-a", "edge-npu", "--technology", name, "-f", "json").out)["totals"]
            for name in ("28nm+derived", "7nm+derived")
        )
        assert new["watts"] < old["watts"] and new["area_mm2"]["elements"] < old["area_mm2"]["elements"]

    def test_hostile_names_and_a_file_of_ones_own(self, cli, file: Path) -> None:
        network, chip = f"{file}:Hostile", file.with_name("toy.toml")
        for form in ("table", "md", "csv", "json"):
            code, out, err = cli("chip", network, "--input", "8", "-a", chip, "-f", form)
            assert (code, err) == (0, "") and "very" in out and "<script>" not in out
            assert form != "csv" or "<b>x</b>" in out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("lenet", "-a", "eyeris"), "Did you mean eyeriss"),
            (("lenet", "-a", "missing.toml"), "no such file"),
            (("lenet", "-a", "edge-npu", "--technology", "22nm"), "unknown technology '22nm'"),
            (("lenet", "-a", "edge-npu", "--technology", "28nm"), "no number for the energy of int8 multiply"),
            (("lenet", "-a", "edge-npu", "--kind", "attention"), "no contraction of kind attention"),
            (("lenet",), "--accelerator"),
        ],
    )
    def test_what_is_refused(self, cli, arguments: tuple[str, ...], message: str) -> None:
        code, out, err = cli("chip", *arguments)
        assert (code, out) == (2, "") and message in err and "Traceback" not in err

    def test_energy_can_be_left_out(self, cli) -> None:
        code, out, _ = cli("chip", "lenet", "-a", "edge-npu", "--technology", "28nm", "--no-energy", "-f", "json")
        document = json.loads(out)
        assert code == 0 and document["totals"]["watts"] is None and document["totals"]["area_mm2"]["sram"] > 0

    def test_a_network_without_contractions(self, cli, file: Path) -> None:
        code, out, err = cli("chip", f"{file}:relu", "--input", "8", "-a", "edge-npu")
        assert (code, out) == (2, "") and "no contraction" in err

    def test_a_buffer_too_small_for_any_tile(self, cli, file: Path) -> None:
        small = file.with_name("small.toml")
        small.write_text(CHIP.replace("65536", "4"))
        code, out, err = cli("chip", "lenet", "-a", small)
        assert (code, out) == (2, "") and "holds no tile of layer" in err


class TestExplore:
    def test_the_table_answers(self, cli) -> None:
        code, out, err = cli("explore", "lenet", "alexnet28", "--budget-area", 8, "--front", 3, "--dataflow", "ideal")
        assert (code, err) == (0, "")
        for text in ("Fastest:", "A further mm²", "ridge", "lenet", "The average frame"):
            assert text in out
        assert max(map(len, out.splitlines())) <= 120

    def test_the_document(self, cli) -> None:
        arguments = ("lenet", "--budget-area", 8, "--budget-power", 2, "--dataflow", "ideal", "-f", "json")
        code, out, err = cli("explore", *arguments)
        document = json.loads(out)
        assert (code, err, document["schema"]) == (0, "", "costmodel/designs/1")
        answer = document["networks"]["lenet"]
        assert answer["fastest"]["area_mm2"] <= 8 and answer["fastest"]["watts"] <= 2
        assert document["within"] < document["tried"] and document["budgets"] == {"area_mm2": 8.0, "watts": 2.0}
        assert answer["elasticities"]["elements"] + answer["elasticities"]["bandwidth"] == pytest.approx(-1)
        rates = [row["frames_per_second"] for row in answer["front"]]
        assert rates == sorted(rates) and answer["knee"]["buffer_bytes"] > 0

    def test_axes_of_ones_own(self, cli) -> None:
        arguments = ("--array", "8x16", "--array", "16x16", "--buffer-bytes", "64KiB", "--bandwidth", "2GB")
        out = cli("explore", "lenet", *arguments, "--clock", "1e9", "--operand", "int16", "-f", "json").out
        space = json.loads(out)["space"]
        assert (space["arrays"], space["buffers"], space["operands"]) == ([[8, 16], [16, 16]], [65536], ["int16"])
        assert (space["bandwidths"], space["clocks"]) == ([2e9], [1e9])

    def test_every_design_as_csv(self, cli) -> None:
        rows = list(csv.DictReader(io.StringIO(cli(
            "explore", "lenet", "--budget-area", 1, "--dataflow", "ideal", "--every", "-f", "csv"
        ).out)))  # fmt: skip
        assert len(rows) > 100 and all(float(row["area_mm2"]) <= 1 for row in rows)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("lenet", "--budget-area", 0.01), "Nearest comes"),
            (("lenet", "--budget-area", -1), "is not positive"),
            (("lenet", "--every"), "--format csv"),
            (("lenet", "--operand", "int4"), "unknown operand 'int4'"),
            (("lenet", "--operand", "bf16"), "bf16"),
            (("lenet", "--dataflow", "magic"), "unknown dataflow"),
            (("lenet", "--array", "8"), "rows x columns"),
            (("lenet", "--array", "0x8"), "not a positive, finite number"),
            (("lenet", "--buffer-bytes", "many"), "cannot read a size"),
            (("lenet", "--clock", "-1"), "not a positive, finite number"),
            (("lenet", "--weight", "lenet"), "MODEL=W"),
            (("lenet", "--weight", "vgg16=2"), "a weight for 'vgg16'"),
            (("lenet", "-a", "h200", "--budget-area", 5), "names no technology"),
        ],
    )
    def test_what_is_refused(self, cli, arguments: tuple[object, ...], message: str) -> None:
        code, out, err = cli("explore", *arguments)
        assert (code, out) == (2, "") and message in err and "Traceback" not in err


def test_accelerators(cli) -> None:
    code, out, err = cli("accelerators")
    assert (code, err) == (0, "") and "nvdla-2048" in out and "tpu-v1" in out
    document = json.loads(cli("accelerators", "-f", "json").out)
    assert document["schema"] == "costmodel/accelerators/1"
    eyeriss = next(chip for chip in document["accelerators"] if chip["name"] == "eyeriss")
    assert eyeriss["scratchpads"]["weight_words"] == 224 and "JSSC" in eyeriss["sources"]["rows"]["title"]
