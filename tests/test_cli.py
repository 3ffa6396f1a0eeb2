"""The command line: answers on stdout, everything else on stderr, and an exit code that says how it went."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
import typer

import costmodel
from costmodel.bench import COLUMNS
from costmodel.cli import run
from costmodel.errors import HardwareError
from costmodel.validation import TOTAL, ComparisonRow, Validation

ROOT = Path(costmodel.__file__).parents[1]

NETWORKS = '''
import torch, warnings
from torch import nn

print("printed while importing")

class Noisy(nn.Module):
    """Names that a table, a page or a terminal could trip over."""

    def __init__(self):
        super().__init__()
        for name in ("<b>x</b>", "a|b", "[bold]y", "\\x1b[31mred\\nline", "very_" * 60):
            self.add_module(name, nn.Linear(4, 4))

    def forward(self, x):
        print("printed while running")
        warnings.warn("warned while running")
        for layer in self.children():
            x = layer(x)
        return x

class Odd(nn.Module):
    def forward(self, x):
        return torch.special.airy_ai(x)

class Raises(nn.Module):
    def forward(self, x):
        raise KeyError("no such thing")

class Leaves(nn.Module):
    def forward(self, x):
        raise SystemExit(3)

class Interrupted(nn.Module):
    def forward(self, x):
        raise KeyboardInterrupt
'''


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Outcome]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command line in this process."""
    for name in ("COLUMNS", "COSTMODEL_DEBUG"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: object) -> Outcome:
        code = run([str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return call


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "networks.py"
    path.write_text(NETWORKS)
    return path


class TestAnalyze:
    def test_the_table_says_what_it_is(self, cli: Cli) -> None:
        code, out, err = cli("analyze", "lenet", "--batch", 2)
        assert (code, err) == (0, "")
        lines = out.splitlines()
        assert lines[0] == "LeNet-5 (book): input 2x1x28x28, float32, batch 2, forward"
        assert lines[1].startswith("FLOPs = 2 x MACs + vector FLOPs")
        assert "(5²·1+1)·6" in out and "(400+1)·120" in out
        # 156 + 2,416 + 48,120 + 10,164 + 850 parameters: (25+1)6, (25*6+1)16, (400+1)120, (120+1)84, (84+1)10
        assert next(line for line in lines if line.startswith("total")).split()[1] == "61,706"
        assert max(map(len, lines)) <= 120
        assert "\x1b" not in out

    def test_the_document(self, cli: Cli) -> None:
        code, out, err = cli("analyze", "lenet", "--format", "json", "--batch", 3)
        document = json.loads(out)
        assert (code, err, document["schema"]) == (0, "", "costmodel/analysis/1")
        assert document["inputs"] == [[3, 1, 28, 28]]
        assert document["totals"]["parameters"] == 61_706
        # 28² x 6 x 25 + 10² x 16 x 150 + 400 x 120 + 120 x 84 + 84 x 10 = 416,520 MACs an image
        assert document["totals"]["macs"] == 3 * 416_520
        assert sum(layer["macs"] for layer in document["layers"]) == 3 * 416_520

    def test_csv_is_numbers(self, cli: Cli) -> None:
        rows = list(csv.DictReader(io.StringIO(cli("analyze", "lenet", "-f", "csv").out)))
        assert sum(int(row["parameters"]) for row in rows) == 61_706

    def test_markdown(self, cli: Cli) -> None:
        out = cli("analyze", "lenet", "-f", "md", "--by", "phase").out
        assert "| forward | 417 k | 872 k |" in out

    def test_the_terminal_says_how_wide(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        assert max(map(len, cli("analyze", "alexnet").out.splitlines())) <= 80

    def test_inputs_classes_and_types(self, cli: Cli) -> None:
        out = cli(
            "analyze", "alexnet", "--input", "3x224x224", "--classes", 1000, "--dtype", "float16", "-f", "json"
        ).out
        document = json.loads(out)
        assert (document["inputs"], document["dtype"]) == ([[1, 3, 224, 224]], "float16")
        # the book's AlexNet for RGB and 1000 classes: 46,764,746 + 2 x 121 x 96 + 4097 x 990 = 50,844,008
        assert document["totals"]["parameters"] == 50_844_008
        assert document["totals"]["parameter_bytes"] == 2 * 50_844_008

    def test_inputs_by_name(self, cli: Cli, tmp_path: Path) -> None:
        (tmp_path / "named.py").write_text(
            "from torch import nn\n"
            "class Named(nn.Module):\n"
            "    def __init__(self):\n"
            "        super().__init__(); self.words = nn.Embedding(10, 4); self.out = nn.Linear(4, 2)\n"
            "    def forward(self, ids, *, scale):\n"
            "        return self.out(self.words(ids) * scale)\n"
        )
        named = ("analyze", f"{tmp_path / 'named.py'}:Named", "--input", "scale=5x1", "--batch", 3)
        document = json.loads(cli(*named, "--input", "ids=5:int64", "-f", "json").out)
        assert document["totals"]["macs"] == 3 * 5 * 4 * 2
        assert "name every input" in cli(*named, "--input", "5:int64").err

    def test_a_training_step(self, cli: Cli) -> None:
        document = json.loads(cli("analyze", "lenet", "--train", "--optimizer", "adam", "-f", "json").out)
        assert document["phases"] == ["forward", "backward", "optimizer"]
        assert document["settings"] == {"loss": "cross_entropy", "optimizer": "adam"}

    def test_sums_by_block(self, cli: Cli) -> None:
        document = json.loads(cli("analyze", "vgg11-slim", "--by", "block", "--depth", 2, "-f", "json").out)
        rows = document["groups"]["rows"]
        assert sum(row["flops"] for row in rows) == document["totals"]["flops"]
        assert all(row["block"].count(".") <= 1 for row in rows)

    @pytest.mark.filterwarnings("ignore:warned while running")
    def test_running_it_for_real(self, cli: Cli, file: Path) -> None:
        document = json.loads(cli("analyze", f"{file}:Noisy", "--input", 4, "--run", "-f", "json").out)
        assert document["target"] == "cpu"
        assert document["totals"]["macs"] == 5 * 16


class TestStreams:
    @pytest.mark.parametrize("format", ["table", "csv", "md", "json"])
    def test_what_a_network_prints_is_not_in_the_answer(self, cli: Cli, file: Path, format: str) -> None:
        with pytest.warns(UserWarning, match="warned while running"):
            code, out, err = cli("analyze", f"{file}:Noisy", "--input", 4, "-f", format)
        assert code == 0
        assert "printed" not in out
        assert "printed while importing" in err and "printed while running" in err
        if format == "table":
            assert "\ufffd[31mred\ufffdline" in out and "\x1b" not in out
            assert max(map(len, out.splitlines())) <= 120
        if format == "json":
            assert json.loads(out)["layers"][3]["name"] == "\x1b[31mred\nline"
        if format == "csv":
            assert [row["name"] for row in csv.DictReader(io.StringIO(out))][1:3] == ["a|b", "[bold]y"]

    def test_a_file_is_written_whole_or_not_at_all(self, cli: Cli, file: Path, tmp_path: Path) -> None:
        target = tmp_path / "answer.json"
        assert cli("analyze", "lenet", "-f", "json", "-o", target) == (0, "", f"Wrote {target}.\n")
        first = target.read_bytes()
        assert json.loads(first)["model"] == "lenet"

        refused = cli("analyze", "lenet", "-o", target)
        assert (refused.code, refused.out) == (2, "")
        assert "--force" in refused.err
        assert target.read_bytes() == first

        assert cli("analyze", f"{file}:Raises", "--input", 4, "-o", target, "--force").code == 2
        assert target.read_bytes() == first

        assert cli("analyze", "lenet", "-o", target, "--force").code == 0
        assert target.read_text().startswith("LeNet-5 (book)")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["answer.json", "networks.py"]

    def test_where_nothing_can_be_written(self, cli: Cli, tmp_path: Path) -> None:
        assert "is a folder" in cli("devices", "-o", tmp_path).err
        assert "there is no folder" in cli("devices", "-o", tmp_path / "no" / "x.txt").err


class TestExitCodes:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ("analyze", "MODEL"),
            ("analyze vgg1", "did you mean vgg19"),
            ("analyze lenet --batch 0", "batch of 0"),
            ("analyze lenet --batch -3", "batch of -3"),
            ("analyze lenet --batch two", "--batch"),
            ("analyze lenet --classes 0", "0 classes"),
            ("analyze lenet --input 3xx", "3x224x224"),
            ("analyze lenet --input 1x2x2", "raised"),
            ("analyze lenet --dtype float31", "unknown dtype"),
            ("analyze lenet --dtype int8", "cannot run in int8"),
            ("analyze lenet --target tpu", "'cuda' or 'cpu'"),
            ("analyze lenet --format yaml", "'json'"),
            ("analyze lenet --by layers", "'layer'"),
            ("analyze lenet --depth 2", "--by block"),
            ("analyze lenet --by block --depth 0", "--depth"),
            ("analyze lenet --momentum 0.9", "give --train"),
            ("memory lenet --checkpoint net", "give --train"),
            ("memory lenet --train --accumulate 0", "cannot accumulate 0 micro-batches"),
            ("memory lenet --train --checkpoint nosuch", "there is no module 'nosuch' to checkpoint"),
            ("memory lenet --train --fused --foreach", "cannot be `True` together"),
            ("memory lenet --autocast int8", "bfloat16 or float16"),
            ("analyze lenet --train --optimizer sdg", "use sgd, adam, adamw"),
            ("analyze lenet --train --momentum -1", "momentum"),
            ("analyze no.such.module:Net", "no module"),
            ("analyze nowhere.py:Net", "no file"),
            ("analyze lenet --bach 2", "--batch"),
            ("compare lenet", "B"),
            ("predict lenet", "--device"),
            ("predict lenet -d h300", "Did you mean h200"),
            ("predict lenet -d nowhere.toml", "nowhere.toml"),
            ("roofline lenet -d h200 -o picture.pdf", ".png or .svg"),
            ("validate lenet --peer fvcor", "fvcore"),
            ("models nosuchword", "nosuchword"),
            ("report --device h300", "Did you mean h200"),
        ],
    )
    def test_wrong_usage_is_2(self, cli: Cli, arguments: str, message: str) -> None:
        code, out, err = cli(*arguments.split())
        assert (code, out) == (2, "")
        assert message in err
        assert err.startswith("Error: ") and len(err.splitlines()) <= 2
        assert "Traceback" not in err

    def test_an_unknown_command_is_2(self, cli: Cli) -> None:
        code, out, err = cli("analyse", "lenet")
        assert (code, out) == (2, "")
        assert "analyse" in err

    def test_an_unexplained_difference_is_1(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        wrong = Validation(
            "lenet", (ComparisonRow("peer", "forward", TOTAL, "macs", 3, 4, 1, "unexplained (+1)", False),), ()
        )
        monkeypatch.setattr("costmodel.validation.validate", lambda network, **options: wrong)
        code, out, _ = cli("validate", "lenet")
        assert code == 1
        assert "1 of 1 numbers differ" in out and "unexplained (+1)" in out
        assert json.loads(cli("validate", "lenet", "-f", "json").out)["ok"] is False

    def test_agreement_is_0(self, cli: Cli) -> None:
        code, out, _ = cli("validate", "lenet", "--peer", "torch flop counter")
        assert code == 0
        assert "61,706" in out and "833,040" in out  # 2 x 416,520

    @pytest.mark.parametrize("format", ["table", "csv", "md", "json"])
    def test_operators_without_a_rule_are_3(self, cli: Cli, file: Path, format: str) -> None:
        command = ("analyze", f"{file}:Odd", "--input", 4, "-f", format)
        code, out, err = cli(*command)
        assert code == 3
        assert "aten.special_airy_ai" in err and "--allow-unmodelled" in err
        if format == "table":
            assert out.startswith("Not counted, as it has no rule: aten.special_airy_ai")
        if format == "json":
            assert json.loads(out)["unmodelled"][0]["operator"] == "aten.special_airy_ai"
        allowed = cli(*command, "--allow-unmodelled")
        assert (allowed.code, allowed.out) == (0, out)

    def test_missing_hardware_is_4(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        def absent(*_: object, **__: object) -> None:
            raise HardwareError("there is no GPU here.")

        monkeypatch.setattr("costmodel.networks.resolve.find", absent)
        assert cli("analyze", "lenet") == (4, "", "Error: there is no GPU here.\n")

    def test_a_mistake_of_ours_is_70(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: object, **__: object) -> None:
            raise ValueError("half a\nsentence")

        monkeypatch.setattr("costmodel.networks.resolve.find", broken)
        code, out, err = cli("analyze", "lenet")
        assert (code, out) == (70, "")
        assert err.startswith("Error: ValueError: half a sentence\n") and "COSTMODEL_DEBUG=1" in err
        monkeypatch.setenv("COSTMODEL_DEBUG", "1")
        assert "Traceback" in cli("analyze", "lenet").err

    def test_interrupted_is_130(self, cli: Cli, file: Path) -> None:
        code, out, err = cli("analyze", f"{file}:Interrupted", "--input", 4)
        assert (code, out) == (130, "")
        assert err.endswith("Error: interrupted.\n")

    def test_a_network_cannot_choose_the_exit_code(self, cli: Cli, file: Path) -> None:
        code, _, err = cli("analyze", f"{file}:Leaves", "--input", 4)
        assert code == 2
        assert "left the program with exit code 3" in err

    def test_a_forward_that_raises_is_2(self, cli: Cli, file: Path) -> None:
        code, out, err = cli("analyze", f"{file}:Raises", "--input", 4)
        assert (code, out) == (2, "")
        assert "KeyError" in err and "Traceback" not in err


class TestOtherCommands:
    def test_compare(self, cli: Cli) -> None:
        document = json.loads(cli("compare", "lenet", "alexnet", "-d", "h200", "-f", "json").out)
        assert document["schema"] == "costmodel/comparison/1"
        rows = {(row["part"], row["quantity"]): row for row in document["rows"]}
        assert (rows["all", "parameters"]["a"], rows["all", "parameters"]["b"]) == (61_706, 46_764_746)
        assert rows["all", "bound_seconds"]["b"] > rows["all", "bound_seconds"]["a"] > 0
        out = cli("compare", "lenet", "alexnet").out
        assert "758x" in out  # 46,764,746 / 61,706 = 757.9

    def test_a_device_brings_its_operators(self, cli: Cli) -> None:
        # dropout in training is one operator of CUDA's, and several of a CPU's
        def operators(*arguments: str) -> str:
            return cli("predict", "torchvision:alexnet", "--train", "--by", "operator", "-f", "csv", *arguments).out

        assert "aten.native_dropout" in operators("-d", "h200")
        assert "aten.native_dropout" not in operators("-d", "xeon-icelake")
        assert "aten.native_dropout" in operators("-d", "xeon-icelake", "--target", "cuda")
        for command, networks in (("predict", ("lenet",)), ("roofline", ("lenet",)), ("compare", ("lenet", "alexnet"))):
            own = " ".join(cli(command, *networks, "-d", "xeon-icelake").out.split())
            assert "operators of the CPU" in own
            assert "not of the device" not in own
            told = " ".join(cli(command, *networks, "-d", "xeon-icelake", "--target", "cuda").out.split())
            assert "The operators are those of target cuda, not of the device." in told
        swept = cli("predict", "lenet", "-d", "xeon-icelake", "--sweep", "1,2").out
        assert "operators of the CPU" in swept

    def test_memory(self, cli: Cli) -> None:
        document = json.loads(cli("memory", "lenet", "--train", "-f", "json").out)
        assert document["schema"] == "costmodel/memory/1"
        assert document["peak_bytes"] == sum(held["bytes"] for held in document["holders"])
        assert cli("memory", "lenet").out.splitlines()[1].startswith("Peak of ")

    def test_every_way_of_training(self, cli: Cli) -> None:
        options = (
            "--train --optimizer adam --weight-decay 0.1 --no-foreach --first-step --keep-gradients --accumulate 2"
        )
        options += " --checkpoint net.0 --checkpoint net.1* --autocast bf16 --channels-last"
        document = json.loads(cli("memory", "lenet", *options.split(), "-f", "json").out)
        assert document["settings"] == {
            "loss": "cross_entropy",
            "optimizer": "adam",
            "weight_decay": 0.1,
            "foreach": False,
            "first_step": True,
            "set_to_none": False,
            "accumulate": 2,
            "checkpoint": ["net.0", "net.1*"],
            "autocast": "bfloat16",
            "channels_last": True,
        }
        out = cli("memory", "lenet", "--train", "--fused").out
        assert "training step (cross_entropy, sgd, fused)" in out

    def test_predict(self, cli: Cli) -> None:
        out = cli("predict", "alexnet", "-d", "h200", "-f", "json").out
        assert (
            json.loads(out)["bound_seconds"]
            < json.loads(cli("predict", "alexnet", "-d", "t4", "-f", "json").out)["bound_seconds"]
        )
        assert {layer["path"] for layer in json.loads(out)["layers"] if layer["kind"] == "conv"} == {"tf32"}
        slower = cli("predict", "alexnet", "-d", "h200", "--no-tf32-conv", "--by", "kind", "-f", "md").out
        assert "| conv | fp32 |" in slower

    def test_predict_at_several_batches(self, cli: Cli) -> None:
        document = json.loads(cli("predict", "alexnet", "-d", "h200", "--sweep", "16,1", "-f", "json").out)
        alone = json.loads(cli("predict", "alexnet", "-d", "h200", "--batch", 16, "-f", "json").out)
        assert [row["batch"] for row in document["sweep"]] == [1, 16]
        assert document["sweep"][1]["bound_seconds"] == alone["bound_seconds"]
        assert document["sweep"][1]["samples_per_second"] == 16 / alone["bound_seconds"]
        assert "samples/s" in cli("predict", "alexnet", "-d", "h200", "--sweep", "1,2").out
        assert cli("predict", "alexnet", "-d", "h200", "--sweep", "1,x").code == 2

    @pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
    def test_roofline_draws_and_prints(self, cli: Cli, tmp_path: Path, suffix: str, start: bytes) -> None:
        picture = tmp_path / f"roofline.{suffix}"
        code, out, err = cli("roofline", "lenet", "-d", "v100", "-o", picture)
        assert (code, err) == (0, f"Wrote {picture}.\n")
        assert "V100" in out and "bound" in out
        assert picture.read_bytes().startswith(start)
        assert [path.name for path in tmp_path.iterdir()] == [picture.name]
        assert cli("roofline", "lenet", "-d", "v100", "-o", picture).code == 2

    def test_roofline_of_two(self, cli: Cli) -> None:
        document = json.loads(cli("roofline", "lenet", "alexnet", "-d", "h200", "-f", "json").out)
        assert [each["model"] for each in document["predictions"]] == ["lenet", "alexnet"]
        assert document["figure"] is None

    def test_report_hands_its_arguments_on(self, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        asked = {}

        def write(models: list[str], folder: Path, **options: object) -> list[Path]:
            asked.update(options, models=models, folder=folder)
            return [folder / "report.md"]

        monkeypatch.setattr("costmodel.book.write.write_report", write)
        code, out, _ = cli("report", "lenet", "-d", "t4", "-o", tmp_path, "--force")
        assert (code, out) == (0, f"{tmp_path / 'report.md'}\n")
        assert (asked["models"], asked["folder"], asked["force"]) == (["lenet"], tmp_path, True)
        assert [device.name for device in asked["devices"]] == ["t4"]

    def test_bench_writes_and_prints(self, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        asked = {}

        def measure(models: list[str], peers: list[str] | None, repeat: int, **options: object) -> pd.DataFrame:
            asked.update(options, models=models, peers=peers, repeat=repeat)
            row = dict.fromkeys(COLUMNS) | {"model": "lenet", "program": "costmodel", "way": "readme", "macs": 416_520}
            return pd.DataFrame([row, row | {"macs": None}], columns=list(COLUMNS)).astype({"macs": "Int64"})

        monkeypatch.setattr("costmodel.bench.run", measure)
        target = tmp_path / "benchmark.md"
        code, out, _ = cli("bench", "lenet", "--repeat", 2, "--no-memory", "-o", target, "-f", "json")
        assert code == 0
        assert [row["macs"] for row in json.loads(out)["rows"]] == [416_520, None]
        assert (asked["models"], asked["peers"], asked["repeat"], asked["memory"]) == (["lenet"], None, 2, False)
        assert "416,520 MACs" in target.read_text()
        table = cli("bench", "-o", target).out
        assert "417 k" in table and "total" not in table

    def test_models(self, cli: Cli) -> None:
        found = json.loads(cli("models", "alexnet", "-f", "json").out)["networks"]
        assert {"alexnet", "torchvision:alexnet"} <= {each["name"] for each in found}
        assert all("alexnet" in " ".join(map(str, each.values())).lower() for each in found)

    def test_devices(self, cli: Cli) -> None:
        assert "h200" in cli("devices").out
        found = json.loads(cli("devices", "-f", "json").out)["devices"]
        assert all(each["sources"]["peaks.fp32"]["title"] and each["sources"]["peaks.fp32"]["date"] for each in found)

    def test_help_of_every_command(self, cli: Cli) -> None:
        names = set(typer.main.get_command(costmodel.cli.program.app).commands)  # type: ignore[attr-defined]
        assert {
            "analyze",
            "compare",
            "validate",
            "roofline",
            "report",
            "models",
            "devices",
            "predict",
            "memory",
        } <= names
        assert all(name in cli().out for name in names)
        for name in names:
            code, out, err = cli(name, "--help")
            assert (code, err) == (0, "") and out.startswith(f"Usage: costmodel {name}")


def process(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python apart from this process; nothing below imports torch."""
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, env=os.environ | variables, check=False
    )


class TestProcess:
    def test_help_loads_nothing_heavy(self) -> None:
        code = (
            "import sys; from costmodel.cli import run; code = run(['--help']);"
            "heavy = {'torch', 'pandas', 'numpy', 'matplotlib', 'rich'};"
            "print(*heavy & set(sys.modules), file=sys.stderr); sys.exit(code)"
        )
        done = process("-c", code)
        assert (done.returncode, done.stderr.strip()) == (0, "")
        assert "analyze" in done.stdout

    def test_devices_need_no_torch(self) -> None:
        code = "import sys; sys.modules['torch'] = None; from costmodel.cli import run; sys.exit(run(['devices']))"
        done = process("-c", code)
        assert (done.returncode, done.stderr) == (0, "")
        assert "NVIDIA H200" in done.stdout

    def test_python_dash_m(self) -> None:
        done = process("-m", "costmodel", "--version")
        assert (done.returncode, done.stdout, done.stderr) == (0, f"costmodel {costmodel.__version__}\n", "")

    def test_completion(self) -> None:
        words = {
            "COMP_WORDS": "costmodel predict lenet -d h",
            "COMP_CWORD": "4",
            "_COSTMODEL_COMPLETE": "complete_bash",
        }
        assert process("-m", "costmodel", **words).stdout.split() == ["h100", "h100-pcie", "h200"]

    def test_a_reader_that_leaves_is_no_error(self) -> None:
        command = [sys.executable, "-m", "costmodel", "devices"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as done:
            assert done.stdout is not None and done.stderr is not None
            done.stdout.close()  # before anything was written
            assert done.stderr.read() == b""
        assert done.returncode == 0

    def test_a_terminal_without_micro_signs(self) -> None:
        done = process("-m", "costmodel", "devices", PYTHONIOENCODING="ascii")
        assert done.returncode == 0
        assert "??????" in done.stdout  # the rule under the heading
