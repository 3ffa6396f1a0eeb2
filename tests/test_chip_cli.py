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

ENCODER = """
def encoder():
    return nn.TransformerEncoderLayer(32, 4, 64, batch_first=True).eval()
"""

VOXELS = """
def voxels():
    return nn.Sequential(
        nn.Conv3d(2, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(6, 10)
    )
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
        rows = list(csv.DictReader(io.StringIO(cli("chip", "lenet", "-a", "edge-npu", "-f", "csv").out)))
        layers = json.loads(cli("chip", "lenet", "-a", "edge-npu", "-f", "json").out)["layers"]
        assert [float(row["joules"]) for row in rows] == [own["joules"] for own in layers]
        assert "buffer_bytes" not in rows[0] and int(rows[0]["delivered_bytes"]) == layers[0]["delivered_bytes"]
        for row in rows:  # energy by part and traffic by what moves are there, and add up
            parts = [float(row[f"{part}_joules"]) for part in ("mac", "pe", "buffer", "dram")]
            assert sum(parts) == pytest.approx(float(row["joules"]))
            moved = [int(row[f"{what}_dram_bytes"]) for what in ("input", "weight", "output", "partial")]
            assert sum(moved) == int(row["dram_bytes"])
        # 84 x 10 weights of the last layer, its 84 inputs and 10 outputs: each once
        last = [int(rows[-1][f"{what}_dram_bytes"]) for what in ("input", "weight", "output", "partial")]
        assert last == [84, 840, 10, 0]
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
        assert new["watts"] < old["watts"] and new["area_mm2"]["pes"] < old["area_mm2"]["pes"]

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
            (("lenet", "-a", "h200", "--technology", "7nm+derived"), "give --dram, one of ddr3"),
            (("lenet", "-a", "h200@fp8"), "the chip model does not know fp8: take one of h200@"),
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
        assert answer["best"]["area_mm2"] <= 8 and answer["best"]["watts"] <= 2
        assert document["within"] < document["tried"] and document["budgets"] == {"area_mm2": 8.0, "watts": 2.0}
        assert answer["elasticities"]["pes"] + answer["elasticities"]["bandwidth"] == pytest.approx(-1)
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

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--budget-area", "nan"), "a budget of nan mm² is not positive and finite"),
            (("--budget-area", 0), "a budget of 0.0 mm² is not positive"),
            (("--budget-power", "inf"), "a budget of inf W is not positive and finite"),
            (("--array", "0x32"), "a design's rows: 0 is not a positive"),
            (("--array", "100000x8"), "a design's rows: 100,000 PEs cannot be: give 1 to 65,536"),
            (("--clock", 800), "a design's clock_hertz: 800 cannot be in Hz: give 100e3 to 100e9; was 800e6 meant?"),
            (("--operand", "fp8"), "unknown operand 'fp8'"),
            (("--operand", "fp32", "--technology", "28nm"), "no number for"),
            (("--weight", "vgg16=2"), "a weight for 'vgg16', which is not among the networks: lenet"),
            (("--weight", "lenet=0"), "give a positive number"),
            (("--dataflow", "row_stationary"), "row_stationary needs them"),
            (("-a", "h200", "--objective", "edp"), "the least energy needs one"),
            (("-a", "h200", "--technology", "7nm+derived"), "give --dram, one of ddr3"),
            (("--dram", "ddr9"), "'ddr9' is unknown"),
            (("--objective", "area"), "'speed', 'energy', 'edp'"),
        ],
    )
    def test_what_can_be_is_refused_before_the_network_is_traced(
        self, cli, monkeypatch: pytest.MonkeyPatch, arguments: tuple[object, ...], message: str
    ) -> None:
        monkeypatch.setattr("costmodel.cli.chip.traced", None)  # calling it would be a TypeError
        code, out, err = cli("explore", "lenet", *arguments)
        assert (code, out) == (2, "") and message in " ".join(err.split()).replace("│ ", "")

    def test_the_least_energy_and_the_least_energy_times_time(self, cli) -> None:
        axes = ("--array", "8x8", "--array", "32x32", "--bandwidth", "1GB", "--bandwidth", "8GB", "--dataflow", "ideal")
        every = list(csv.DictReader(io.StringIO(cli("explore", "lenet", *axes, "--every", "-f", "csv").out)))
        products = [float(row["joules_per_frame"]) / float(row["frames_per_second"]) for row in every]
        for objective, column, least in (
            ("energy", "joules_per_frame", min(float(row["joules_per_frame"]) for row in every)),
            ("edp", "joule_seconds", min(products)),
        ):
            out = cli("explore", "lenet", *axes, "--objective", objective, "-f", "json").out
            document = json.loads(out)
            answer = document["networks"]["lenet"]
            assert document["objective"] == objective and answer["best"][column] == pytest.approx(least)
            areas, costs = ([row[name] for row in answer["front"]] for name in ("area_mm2", column))
            assert areas == sorted(set(areas)) and costs == sorted(set(costs), reverse=True)
            assert costs[-1] == pytest.approx(least)
        assert "Least energy x time a frame: " in cli("explore", "lenet", *axes, "--objective", "edp").out

    def test_a_best_design_at_an_end_of_what_was_tried_is_said_to_be_one(self, cli) -> None:
        axes = ("--array", "8x8", "--array", "16x16", "--bandwidth", "1GB", "--clock", "1e9", "--dataflow", "ideal")
        out = cli("explore", "lenet", *axes, "--buffer-bytes", "64KiB").out
        assert "At an end of what was tried, beyond which there may be better ones: its rows, columns." in out
        assert "At an end" not in cli("explore", "lenet", *axes[2:], "--buffer-bytes", "64KiB").out

    def test_the_notes_of_a_chip_without_a_memory_interface(self, cli) -> None:
        out = cli("explore", "lenet", "-a", "nvdla-64", "--front", 1).out
        assert "Bandwidth takes no area here" in out and "as memory interface" not in out
        assert "Bandwidth takes" not in cli("explore", "lenet", "--dataflow", "ideal", "--front", 1).out
        for name, budget in (("nvdla-64", 1), ("eyeriss", 10)):
            answer = json.loads(cli("explore", "lenet", "-a", name, "--budget-area", budget, "-f", "json").out)
            answer = answer["networks"]["lenet"]
            assert answer["marginal_frames_per_second"]["interface_mm2"] is None
            # what wastes nothing is no slower than what was found, on the same area
            assert answer["balanced"]["frames_per_second"] >= answer["best"]["frames_per_second"] * 0.999

    def test_the_elasticities_of_a_batch_add_up(self, cli) -> None:
        axes = ("--array", "32x32", "--buffer-bytes", 524288, "--bandwidth", "8.5e9", "--clock", "800e6")
        out = cli("explore", "alexnet", "--batch", 4, *axes, "--dataflow", "output_stationary").out
        # by finite differences of `costmodel chip`: 0.48 and 0.52
        assert "1 % more PEs saves 0.48 % of the time, 1 % more bandwidth 0.52 %, 1 % more buffer 0.00 %" in out
        assert "the front of 1 point\n" in out

    def test_one_design_is_what_chip_says(self, cli, file: Path) -> None:
        file.write_text(HOSTILE + ENCODER)
        axes = ("--array", "32x32", "--buffer-bytes", 524288, "--bandwidth", "8.5e9", "--clock", "800e6")
        network = (f"{file}:encoder", "--input", "128x32")
        chip = json.loads(cli("chip", *network, "-a", "edge-npu", "-f", "json").out)["totals"]
        found = cli("explore", *network, *axes, "--dataflow", "output_stationary", "-f", "json").out
        best = next(iter(json.loads(found)["networks"].values()))["best"]
        for name in ("frames_per_second", "serial_frames_per_second", "frames_per_joule", "watts"):
            assert best[name] == pytest.approx(chip[name])
        assert best["area_mm2"] == pytest.approx(chip["area_mm2"]["total"])

    def test_numbers_of_a_part_of_the_macs_say_so(self, cli, file: Path) -> None:
        file.write_text(HOSTILE + VOXELS)
        network = (f"{file}:voxels", "--input", "2x4x4x4")
        # 64 x 2 x 6 x 27 MACs of the convolution over 3 dimensions, and 60 that count
        for command in (("chip", "-a", "edge-npu"), ("explore", "--dataflow", "ideal")):
            code, out, err = cli(command[0], *network, *command[1:])
            assert code == 3 and "not counted" in err
            headline = " ".join(out.split()).partition("frames a second")[2].partition(". ")[0]
            assert headline.endswith("counting only 0.3 % of the MACs")


def test_accelerators(cli) -> None:
    code, out, err = cli("accelerators")
    assert (code, err) == (0, "") and "nvdla-2048" in out and "tpu-v1" in out
    document = json.loads(cli("accelerators", "-f", "json").out)
    assert document["schema"] == "costmodel/accelerators/1"
    eyeriss = next(chip for chip in document["accelerators"] if chip["name"] == "eyeriss")
    assert eyeriss["scratchpads"]["weight_words"] == 224 and "JSSC" in eyeriss["sources"]["rows"]["title"]
