"""The way through CUDA without a GPU: PyTorch's own, on a stand-in for the CUDA runtime, cuBLAS and cuDNN.

`oracles/stand_in_gpu.cpp` says what of it is real: PyTorch's choice of operators for CUDA tensors, its caching
allocator, streams, events, graph capture and the profiler's joining of kernels. No number that a kernel computes is
real, and no time.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from costmodel import devices
from costmodel.cost import count
from costmodel.hardware.record import read
from costmodel.memory import memory_timeline
from costmodel.memory.levels import workspaces_by_level
from costmodel.networks import find
from costmodel.tracer import trace

ROOT = Path(__file__).parents[1]
ORACLES = Path(__file__).parent / "oracles"
H100 = "NVIDIA H100"

SEPARATE_WORKSPACE = 0 if torch.__version__ >= (2, 14) else 2**20
"""Bytes that torch takes for cuBLASLt apart from cuBLAS's workspace, which both share by now."""

Python = Callable[..., subprocess.CompletedProcess[str]]


pytestmark = pytest.mark.xdist_group("stand-in")  # which one process compiles


@pytest.fixture(scope="module")
def on_gpu(tmp_path_factory: pytest.TempPathFactory) -> Python:
    """Runs Python with arguments where PyTorch believes that there is an H100."""
    compiler, packages = shutil.which("g++"), Path(sysconfig.get_path("purelib"))
    headers = [
        packages / each for each in ("nvidia/cu13/include", "nvidia/cudnn/include", "triton/backends/nvidia/include")
    ]
    if compiler is None or not torch.version.cuda or not all(each.is_dir() for each in headers):
        pytest.skip("needs g++ and a PyTorch for CUDA 13, with the headers that it brings")
    library = tmp_path_factory.mktemp("oracle") / "libcuda.so.1"
    sources = [ORACLES / "stand_in_gpu.cpp", ORACLES / "stand_in_libraries.cpp"]
    line = [compiler, "-std=c++17", "-fPIC", "-shared", "-Wl,-soname,libcuda.so.1", *(f"-I{each}" for each in headers)]
    subprocess.run([*line, *sources, "-o", library], check=True)

    def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {"LD_PRELOAD": str(library), "STAND_IN_NAME": H100, "PYTHONPATH": path} | settings
        return subprocess.run(
            [sys.executable, *arguments], env=os.environ | environment, capture_output=True, text=True, check=False
        )

    return run


SGD: dict[str, Any] = {"optimizer_options": {"momentum": 0.9}}
STEPS: dict[str, tuple[str, tuple[int, ...], bool, dict[str, Any], str]] = {
    "alexnet": ("alexnet", (8, 1, 224, 224), False, {}, "contiguous"),
    "alexnet trained": ("alexnet", (8, 1, 224, 224), True, SGD, "contiguous"),
    "resnet18": ("torchvision:resnet18", (8, 3, 224, 224), False, {}, "contiguous"),
    "resnet18 trained": ("torchvision:resnet18", (8, 3, 224, 224), True, SGD, "contiguous"),
    "resnet18 trained by adamw": ("torchvision:resnet18", (2, 3, 64, 64), True, {"optimizer": "adamw"}, "contiguous"),
    "mobilenet_v2 trained": ("torchvision:mobilenet_v2", (8, 3, 224, 224), True, SGD, "contiguous"),
    "densenet121 trained": ("torchvision:densenet121", (4, 3, 64, 64), True, SGD, "contiguous"),
    "LSTM": (f"{ORACLES}/recurrent.py:batch_first", (8, 12, 24), False, {}, "contiguous"),
    "LSTM trained": (f"{ORACLES}/recurrent.py:lstm", (12, 8, 24), True, SGD, "contiguous"),
    "LSTM trained, projected": (f"{ORACLES}/recurrent.py:projected", (12, 8, 24), True, SGD, "contiguous"),
    "GRU trained": (f"{ORACLES}/recurrent.py:gru", (12, 8, 24), True, SGD, "contiguous"),
}

WHILE_IT_RUNS = {
    "LSTM": (4 * 8 * 12 * 24,),  # its input with the steps first
    "LSTM trained": (4 * 4 * 8 * 40,) * 2,  # zeros for the gradients of the last states of four layers
    "LSTM trained, projected": (4 * 2 * 8 * 16, 4 * 2 * 8 * 40),
    "GRU trained": (4 * 8 * 40, 4 * 3 * 40 * (24 + 40 + 2)),  # all gradients in one block, with those of biases
}
"""Bytes of the tensors that an operator takes for itself at the peak, which no trace has."""


@pytest.fixture(scope="module")
def seen(on_gpu: Python) -> dict[str, Any]:
    """What torch did in each step."""
    done = on_gpu(str(ORACLES / "steps_on_cuda.py"), json.dumps(list(STEPS.values())))
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(zip(STEPS, json.loads(done.stdout), strict=True))


def traced(step: str) -> Any:
    name, size, train, ways, layout = STEPS[step]
    return trace(find(name).module, size, train=train, channels_last=layout == "channels_last", **ways)


@pytest.mark.parametrize("step", STEPS)
def test_operators_are_those_of_cuda(seen: dict[str, Any], step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # whoever watches with a mode, as the oracle does, sees autograd add gradients up out of place
    monkeypatch.setattr("costmodel.tracer.recorder.adds_in_place", lambda first, second: False)
    theirs = [(name, shapes) for name, shapes in seen[step]["operators"] if not name.startswith("aten._foreach")]
    ours = [
        (operation.operator, [list(made.shape) for made in operation.outputs])
        for operation in traced(step).operations
        if operation.operator != "aten.detach" and not operation.operator.startswith("aten._foreach")
    ]
    assert ours == theirs


@pytest.mark.parametrize("step", STEPS)
def test_memory_is_what_the_allocator_counts(seen: dict[str, Any], step: str) -> None:
    found = traced(step)
    levels = {level.name: level.nbytes for level in memory_timeline(found).levels()}
    workspaces = workspaces_by_level(found, devices.device("h100"))
    more = {name: seen[step]["peaks"][name] - levels[name] - workspaces[name] for name in workspaces}
    more["requested"] -= sum(WHILE_IT_RUNS.get(step, ()))
    more["allocated"] -= sum(-(-nbytes // 512) * 512 for nbytes in WHILE_IT_RUNS.get(step, ()))
    if SEPARATE_WORKSPACE:
        assert {more["requested"], more["allocated"]} <= {0, SEPARATE_WORKSPACE}
    else:
        assert set(more.values()) == {0}


@pytest.mark.parametrize("step", STEPS)
def test_kernels_reach_their_layers_and_a_graph_is_captured(seen: dict[str, Any], step: str) -> None:
    costs = count(traced(step))
    worked = {(each.operation.layer, each.operation.phase) for each in costs.operations if each.cost.moved_bytes}
    assert {tuple(layer) for layer in seen[step]["layers"]} == worked
    problem = seen[step]["graph_problem"]
    assert "capturable is False" in problem if "adamw" in step else not problem


def test_a_profiler_that_sees_no_kernel_is_told(on_gpu: Python) -> None:
    """What operators take of the host's time would otherwise stand in the record as the device's."""
    code = (
        "from torch import nn; from costmodel.hardware.measure import measure\n"
        "measure(nn.Linear(8, 8), (2, 8), device='cuda', batch=2, seconds=0.0)\n"
    )
    done = on_gpu("-c", code, STAND_IN_FORGETFUL="1")
    assert done.returncode == 1 and "HardwareError: torch.profiler saw no kernel" in done.stderr, done.stderr[-2000:]


def test_a_network_that_asks_for_values_is_measured_without_a_graph(on_gpu: Python) -> None:
    """The failing capture leaves everything as it was: the stream, random numbers, and so whatever runs after it."""
    code = (
        "import torch; from torch import nn; from costmodel.hardware.measure import measure\n"
        "class Asks(nn.Module):\n"
        "    def __init__(self): super().__init__(); self.linear = nn.Linear(8, 8); self.drop = nn.Dropout()\n"
        "    def forward(self, x): return self.drop(self.linear(x)) if x.sum().item() > -1e9 else x\n"
        "for net in (Asks(), Asks(), nn.Linear(8, 8)):\n"
        "    for train in (False, True):\n"
        "        run = measure(net, (2, 8), device='cuda', batch=2, train=train, seconds=0.0)\n"
        "        print(run.failure or 'measured', '|', len(run.rounds), '|', run.graph_problem or 'captured')\n"
        "        assert torch.cuda.current_stream() == torch.cuda.default_stream()\n"
    )
    done = on_gpu("-c", code)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line.split(" | ") for line in done.stdout.splitlines()]
    assert [line[:2] for line in lines] == [["measured", "4"]] * 6
    assert all("capturing" in line[2] for line in lines[:4]), done.stdout
    assert [line[2] for line in lines[4:]] == ["captured"] * 2


AUTOCAST = """
import json, sys
import torch
from steps_on_cuda import Operators
layer, steps = torch.nn.LSTM(24, 40, 2).cuda(), torch.rand(12, 8, 24, device="cuda")
with Operators() as operators:
    with torch.autocast("cuda", torch.bfloat16):
        loss = layer(steps)[0].sum()
    loss.backward()
json.dump(operators.seen, sys.stdout)
"""


def test_recurrent_layers_in_mixed_precision(on_gpu: Python) -> None:
    class Outputs(nn.LSTM):
        def forward(self, x: Any) -> torch.Tensor:  # type: ignore[override]
            return super().forward(x)[0]

    done = on_gpu("-c", AUTOCAST, PYTHONPATH=os.pathsep.join(map(str, (ROOT, ORACLES))))
    assert done.returncode == 0, done.stderr[-2000:]
    options: dict[str, Any] = {"train": True, "loss": "sum", "optimizer": None, "autocast": "bfloat16"}
    ours = [
        [operation.operator, [list(made.shape) for made in operation.outputs]]
        for operation in trace(Outputs(24, 40, 2), (12, 8, 24), **options).operations
        if operation.operator != "aten.detach"
    ]
    assert json.loads(done.stdout) == ours


SUITE = """
import sys
from pathlib import Path
from costmodel.hardware.suite import BF16, STRICT, TF32, Suite, Task
from costmodel.hardware.samples import QUICK
tasks = [Task("lenet", each, 2, train) for each in (TF32, STRICT, BF16) for train in (False, True)]
tasks.append(Task("lenet", TF32, 30_000, False))
effort = QUICK._replace(classes=("conv_3x3", "gemm", "norm", "attention", "attention_backward"))
for outcome in Suite("cuda", Path(sys.argv[1]), tuple(tasks), run_seconds=0.0, effort=effort).run():
    print(outcome.step, "|", outcome.state, "|", outcome.detail)
"""


def test_the_suite_runs_through(on_gpu: Python, tmp_path: Path) -> None:
    """From calibration to records; a batch that does not fit into the stand-in's 1 GB is written down as one."""
    done = on_gpu("-c", SUITE, str(tmp_path), STAND_IN_BYTES="1000000000")
    assert done.returncode == 0, done.stderr[-2000:]
    states = [line.split(" | ")[1] for line in done.stdout.splitlines()]
    assert states == ["done"] * 8, done.stdout
    calibrated = devices.device(tmp_path / "device.toml")
    assert calibrated.calibration is not None and calibrated.peaks["tf32"] == devices.device("h100").peaks["tf32"]
    assert {"conv_3x3", "gemm"} <= set(calibrated.calibration.classes)
    assert set(calibrated.calibration.classes["gemm"]) == {"fp32", "tf32", "fp16", "bf16"}
    # of two bytes a number torch gives attention to cuDNN, whose stand-in has none: it is left out
    assert set(calibrated.calibration.classes["attention_backward"]) == {"fp32", "tf32"}
    for name, runs in (("tf32", 3), ("strict", 2), ("bf16", 2)):
        record = read(tmp_path / f"lenet-{name}.json")
        assert record.device_name == H100 and len(record.runs) == runs
    again = on_gpu("-c", SUITE, str(tmp_path), STAND_IN_BYTES="1000000000")
    assert [line.split(" | ")[1] for line in again.stdout.splitlines()] == ["there already"] * 8, again.stderr[-2000:]
    failures = [run.failure for run in read(tmp_path / "lenet-tf32.json").runs]
    assert failures[:2] == ["", ""] and failures[2].startswith("out of memory")


def test_torchs_estimator_without_what_it_needs_says_so(on_gpu: Python) -> None:
    """Neither its table nor nvidia-smi knows this device; inside of autograd that would end the process."""
    code = (
        "from torch import nn; from costmodel.hardware.measure import measure\n"
        "net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(288, 4))\n"
        "run = measure(net, (2, 3, 8, 8), device='cuda', batch=2, train=True, seconds=0.0)\n"
        "print(run.peers['torch runtime estimator'])\n"
    )
    done = on_gpu("-c", code, STAND_IN_NAME="no such device", PATH="")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "seconds=None" in done.stdout and "problem=''" not in done.stdout
