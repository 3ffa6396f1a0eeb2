"""The hardware suite on the CPU with tiny networks: kept when cut off, resumed, and not stopped by what fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import costmodel as cm
from costmodel.cli import run
from costmodel.devices import Calibration, Device, Fact, FittedRates, Source, to_toml
from costmodel.errors import HardwareError, InputError
from costmodel.hardware import suite as suites
from costmodel.hardware.clock import device_title, environment, threads
from costmodel.hardware.record import DEFAULTS, read
from costmodel.hardware.suite import (
    BF16,
    DONE,
    FAILED,
    GIVEN_UP,
    NO_TIME,
    PLAIN,
    STRICT,
    TF32,
    THERE,
    Suite,
    Task,
    plan,
)

TINY = (
    Task("lenet", PLAIN, 1, False),
    Task("lenet-relu", PLAIN, 2, False),
    Task("lenet", PLAIN, 2, True),
)


def tiny(folder: Path, tasks=TINY, **options) -> Suite:
    return Suite("cpu", folder, tasks, run_seconds=0.0, **{"threads": 1, "effort": None} | options)


def test_records_are_written_and_skipped_when_there(tmp_path) -> None:
    outcomes = tiny(tmp_path).run()
    assert [outcome.state for outcome in outcomes] == [DONE] * 3
    lenet = read(tmp_path / "lenet-fp32.json")
    assert [(each.batch, each.train) for each in lenet.runs] == [(1, False), (2, True)]
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != "suite.json"}
    assert [outcome.state for outcome in tiny(tmp_path).run()] == [THERE] * 3
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != "suite.json"}
    log = json.loads((tmp_path / "suite.json").read_text())
    assert log["schema"] == "costmodel/suite/1" and len(log["steps"]) == 3


def test_what_fails_is_told_and_the_rest_goes_on(tmp_path, monkeypatch) -> None:
    find = suites.measure

    def missing(network, *args, **kwargs):
        if kwargs["name"] == "lenet-relu":
            raise ModuleNotFoundError("No module named 'something'")
        return find(network, *args, **kwargs)

    monkeypatch.setattr(suites, "measure", missing)
    unknown = Task("no-such-network", PLAIN, 1, False)
    outcomes = tiny(tmp_path, (unknown, *TINY)).run()
    assert [outcome.state for outcome in outcomes] == [FAILED, DONE, FAILED, DONE]
    assert "there is no network 'no-such-network'" in outcomes[0].detail
    assert outcomes[2].detail == "ModuleNotFoundError: No module named 'something'"


def test_the_budget_ends_it(tmp_path) -> None:
    assert [outcome.state for outcome in tiny(tmp_path, budget_seconds=-1.0).run()] == [NO_TIME] * 3
    assert [path.name for path in tmp_path.iterdir()] == ["suite.json"]


def test_a_damaged_or_foreign_file_is_not_overwritten(tmp_path) -> None:
    (tmp_path / "lenet-fp32.json").write_text("{")
    first, *_ = tiny(tmp_path, TINY[:1]).run()
    assert first.state == FAILED and "not a JSON document" in first.detail
    assert (tmp_path / "lenet-fp32.json").read_text() == "{"


def test_a_folder_of_other_circumstances_is_refused_before_anything_runs(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    tiny(tmp_path, TINY[:1]).run()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=r"lenet-fp32.json was made on .*, 1 thread, .* this is .*, 2 threads, "):
        tiny(tmp_path, TINY, threads=2).run()
    monkeypatch.setattr(suites, "environment", another_torch)
    with pytest.raises(InputError, match=r"with torch .*, and this is .* with torch 99: give another folder"):
        tiny(tmp_path).run()
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def another_torch(device):
    found = environment(device)
    return found | {"versions": found["versions"] | {"torch": "99"}}


def test_a_calibration_of_other_circumstances_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    calibrated(tmp_path / "device.toml", threads_=1)
    assert tiny(tmp_path, (), effort=suites.FULL).run()[0].state == THERE
    with pytest.raises(InputError, match=r"device.toml was made on .*, 1 thread, .* 2 threads"):
        tiny(tmp_path, (), threads=2, effort=suites.FULL).run()
    (tmp_path / "device.toml").write_text(to_toml(cm.device("xeon-icelake-1core")))
    with pytest.raises(InputError, match=r"holds device.toml, which no suite wrote"):
        tiny(tmp_path, (), effort=suites.FULL).run()


def calibrated(path: Path, threads_: int) -> Device:
    """A made-up calibration of this machine, written to a file."""
    with threads(threads_):
        now = environment("cpu")
    run = Source("A test", "2026-11-26", via=f"python 3, torch {now['versions']['torch']}, AVX512")
    view = FittedRates(0.0, 0.0, 1e9, 1e9, 1e9, 1e9, 1.0, 1.0, 1.0, 0.0, 2)
    made = Device(
        "device", f"{device_title(now)}, calibrated", "cpu", {"fp32": 1e11}, 1e10,
        calibration=Calibration(2**25, 2**25, 0.9, {"view": {"fp32": view}}),
        facts={name: Fact(1e11, run) for name in ("peaks.fp32", "calibration")} | {"memory_bandwidth": Fact(1e10, run)},
    )  # fmt: skip
    path.write_text(to_toml(made))
    return made


@pytest.mark.parametrize("name", ["notes.txt", "thesis.json", "data"])
def test_a_folder_of_somebody_elses_is_refused(tmp_path, name) -> None:
    (tmp_path / name).mkdir() if name == "data" else (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match=f"holds {name}, which no suite wrote"):
        tiny(tmp_path).run()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_killed_half_way_it_keeps_what_it_measured(tmp_path) -> None:
    code = (
        "import pathlib, sys, time\n"
        "from costmodel.hardware import suite\n"
        "from tests.test_measure_suite import TINY, tiny\n"
        "measure = suite.measure\n"
        "def slow(*args, **kwargs):\n"
        "    if kwargs['train']: time.sleep(60)\n"
        "    return measure(*args, **kwargs)\n"
        "suite.measure = slow\n"
        "tiny(pathlib.Path(sys.argv[1])).run()\n"
    )
    root = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=root, env=environment)
    deadline = time.monotonic() + 120
    while not (tmp_path / "lenet-relu-fp32.json").exists() and time.monotonic() < deadline:
        assert process.poll() is None, "it ended by itself"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [(each.batch, each.train) for each in read(tmp_path / "lenet-fp32.json").runs] == [(1, False)]
    kept = read(tmp_path / "lenet-relu-fp32.json")
    assert [outcome.state for outcome in tiny(tmp_path).run()] == [THERE, THERE, DONE]
    assert read(tmp_path / "lenet-relu-fp32.json") == kept
    assert len(read(tmp_path / "lenet-fp32.json").runs) == 2


def test_what_ended_the_suite_twice_is_not_tried_again(tmp_path, monkeypatch) -> None:
    class Ended(BaseException):
        """As a process that is killed: nothing is written after it."""

    def ends(*args, **kwargs):
        raise Ended

    monkeypatch.setattr(suites, "measure", ends)
    for state in ("begun", "begun again"):
        with pytest.raises(Ended):
            tiny(tmp_path, TINY[:1]).run()
        assert [each["state"] for each in json.loads((tmp_path / "suite.json").read_text())["steps"]] == [state]
    for _ in range(2):  # now and ever after
        first, second = tiny(tmp_path, (TINY[0], Task("no-such-network", PLAIN, 1, False))).run()
        assert (first.state, first.detail) == (GIVEN_UP, "it ended the suite twice, and was not tried again")
        assert "no-such-network" in second.detail
    (tmp_path / "suite.json").write_text("{")  # a damaged log is no log
    with pytest.raises(Ended):
        tiny(tmp_path, TINY[:1]).run()


@pytest.fixture
def interruptible():
    """SIGINT interrupts, as in a terminal: what a shell runs in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_is_interrupted_again_and_again_still_measures(tmp_path, monkeypatch, interruptible, number) -> None:
    before = signal.getsignal(signal.SIGTERM)
    for _ in range(3):
        monkeypatch.setattr(suites, "measure", lambda *args, **kwargs: signal.raise_signal(number))
        with pytest.raises(KeyboardInterrupt):
            tiny(tmp_path, TINY[:1]).run()
        assert json.loads((tmp_path / "suite.json").read_text())["steps"] == []
    assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.undo()
    assert [outcome.state for outcome in tiny(tmp_path, TINY[:1]).run()] == [DONE]


def test_an_interruption_forgets_nothing_of_other_steps(tmp_path, monkeypatch, interruptible) -> None:
    """The mark of a step behind the one that was interrupted stays, and that of the interrupted one itself."""
    marks = {TINY[0].text: "begun", TINY[1].text: "begun again"}
    steps = [{"step": name, "state": state, "seconds": 0.0, "detail": ""} for name, state in marks.items()]
    (tmp_path / "suite.json").write_text(json.dumps({"steps": steps}))
    monkeypatch.setattr(suites, "measure", lambda *args, **kwargs: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        tiny(tmp_path, TINY[:2]).run()
    assert {each["step"]: each["state"] for each in json.loads((tmp_path / "suite.json").read_text())["steps"]} == marks


def test_a_device_that_answers_nothing_any_more_ends_the_suite(tmp_path, monkeypatch) -> None:
    def breaks(*args, **kwargs):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(suites, "measure", breaks)
    monkeypatch.setattr(suites, "answers", lambda device: False)
    with pytest.raises(HardwareError, match=r"no longer responds since lenet.*illegal.*same command again"):
        tiny(tmp_path).run()
    assert json.loads((tmp_path / "suite.json").read_text())["steps"][-1]["state"] == "begun"
    monkeypatch.undo()
    assert suites.answers("cpu")


def test_a_calibration_is_written_beside_the_records(tmp_path, monkeypatch) -> None:
    """What is calibrated is another test's business: here the device file is made up."""
    other = tmp_path.parent / "made-up.toml"
    monkeypatch.setattr(suites, "calibrate", lambda *args, **kwargs: calibrated(other, 1))
    first, *_ = tiny(tmp_path, effort=suites.FULL).run()
    assert first == ("calibration", DONE, first.seconds, "")
    assert cm.device(tmp_path / "device.toml").peaks == {"fp32": 1e11}
    assert tiny(tmp_path, (), effort=suites.FULL).run()[0].state == THERE
    (tmp_path / "device.toml").write_text("title = 3")
    assert tiny(tmp_path, (), effort=suites.FULL).run()[0].state == FAILED
    assert (tmp_path / "device.toml").read_text() == "title = 3"


def test_the_plans() -> None:
    cuda = plan("cuda")
    assert len(set(cuda)) == len(cuda)
    assert {task.precision for task in cuda} == {TF32, STRICT, BF16}
    for model in ("alexnet", "vgg11", "vgg16", "vgg19", "torchvision:resnet50", "torchvision:mobilenet_v2"):
        assert {task.train for task in cuda if task.model == model} == {False, True}
    assert {task.batch for task in cuda if task.model == "vgg16" and not task.train} >= {1, 2, 4, 8, 16, 32, 64, 128}
    cpu = plan("cpu")
    alexnet = {(task.batch, task.train) for task in cpu if task.model == "alexnet"}
    assert alexnet == {(1, False), (2, False), (4, False), (8, False), (16, False), (8, True)}
    assert STRICT.settings.cudnn_allow_tf32 is False and TF32.settings == DEFAULTS
    assert TF32.dtype == "float32" and BF16.dtype == "bfloat16"


def test_from_the_command_line(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(suites, "plan", lambda device: TINY[:1])
    folder = tmp_path / "records"
    line = ["suite", "--device", "cpu", "--threads", "1", "--run-seconds", "0", "--no-calibrate", "-o", str(folder)]
    assert run(line) == 0
    assert "lenet fp32 batch 1 forward" in capsys.readouterr().out
    assert run([*line, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"][0]["state"] == THERE
    monkeypatch.setattr(suites, "plan", lambda device: (Task("no-such", PLAIN, 1, False),))
    assert run(line) == 1


def test_a_folder_that_cannot_be_made(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write into"):
        tiny(tmp_path / "file").run()


def test_without_cuda_it_does_not_begin(tmp_path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(HardwareError):
        Suite("cuda", tmp_path / "new", TINY).run()
    assert not (tmp_path / "new").exists()
