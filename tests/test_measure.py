"""Measuring small networks on the CPU, end to end. Times are only asserted to be there, never how long they are."""

from __future__ import annotations

import importlib
import inspect
import json
from contextlib import nullcontext

import pytest
import torch
from msgspec.structs import replace
from torch import nn
from torch.nn import functional

import costmodel as cm
from costmodel.cli import run
from costmodel.errors import HardwareError, InputError
from costmodel.hardware import measure as measuring
from costmodel.hardware.clock import Clock, Timing
from costmodel.hardware.estimator import _estimated, torch_estimate
from costmodel.hardware.measure import measure, measurement
from costmodel.hardware.record import MemoryPeaks, PeerEstimate, PrecisionSettings, Run, read
from costmodel.hardware.workload import Workload, applied
from costmodel.tracer import Training
from costmodel.tracer.meta_copy import copy_to_meta
from costmodel.validation.measurement import against

CUDA = torch.cuda.is_available()

NETWORK = """
from torch import nn
from torch.nn import functional

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.block = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))
        self.fc = nn.Linear(8 * 8 * 8, 5)

    def forward(self, x):
        x = self.block(self.norm(self.conv(x)))
        return self.fc(functional.dropout(x.flatten(1), 0.5, self.training))
"""


class Net(nn.Module):
    """The same, and a functional call of the network itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.block = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))
        self.fc = nn.Linear(8 * 8 * 8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.block(self.norm(self.conv(x)))
        return self.fc(functional.relu(x.flatten(1)))


@pytest.fixture(scope="module")
def step():
    return measure(Net(), (4, 3, 16, 16), device="cpu", batch=4, train=True, seconds=0.0, name="net", thread_count=1)


def test_every_layer_and_phase_of_the_trace_is_found(step) -> None:
    trace = cm.trace(Net(), (4, 3, 16, 16), train=True, target="cpu", name="net")
    worked = {
        (entry.operation.layer, entry.operation.phase) for entry in cm.count(trace).operations if entry.cost.moved_bytes
    }
    found = {(layer.layer, layer.phase) for layer in step.layers}
    assert worked <= found
    assert {layer for layer, _ in found} <= {layer for layer, _ in worked}
    assert {("conv", "backward"), ("", "forward"), ("", "backward"), ("(optimizer)", "optimizer")} <= found


def test_what_a_run_says(step) -> None:
    assert (step.model, step.batch, step.dtype, step.train) == ("net", 4, "float32", True)
    assert step.inputs == ((4, 3, 16, 16),)
    assert step.settings == {"loss": "cross_entropy", "optimizer": "sgd"}
    assert len(step.rounds) == measuring.ROUNDS and all(each > 0 for each in step.rounds)
    assert step.kernel_time.count == step.profiled.count >= 3
    assert sum(layer.seconds for layer in step.layers) == pytest.approx(step.kernel_time.median, rel=0.5)
    assert step.graph is None and step.memory.requested_bytes is None, "unknown is not zero"
    names = {kernel.name for layer in step.layers for kernel in layer.kernels}
    assert any("convolution_backward" in name for name in names)
    assert step.peers["torch runtime estimator"].seconds is None


def test_a_record_of_it_compares_with_a_prediction(step, tmp_path) -> None:
    path = measurement([step], device="cpu", thread_count=1, command="costmodel measure net").save(tmp_path / "r.json")
    record = read(path)
    assert record.runs == (step,) and record.threads == 1 and record.target == "cpu"
    trace = cm.trace(Net(), (4, 3, 16, 16), train=True, target="cpu", name="net")
    found = against(record, trace, cm.device("xeon-icelake-1core"))
    assert found.error < 0 and {row.phase for row in found.rows} == {"forward", "backward", "optimizer"}


def test_the_network_is_only_read() -> None:
    network = Net()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    measure(network, (2, 3, 16, 16), device="cpu", train=True, seconds=0.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all("forward" not in module.__dict__ for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_switches_and_threads_are_put_back() -> None:
    before = (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark, torch.get_num_threads())
    with applied(PrecisionSettings(not before[0], True, not before[1])):
        assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark) == (not before[0], not before[1])
        assert torch.backends.cuda.matmul.allow_tf32
    measure(nn.Linear(3, 2), (1, 3), device="cpu", thread_count=1, seconds=0.0)
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark, torch.get_num_threads()) == before


def test_data_are_random_and_so_are_labels() -> None:
    stage = Workload(nn.Linear(64, 10), (8, 64), torch.device("cpu"), training=Training())
    assert stage.args[0].unique().numel() > 100
    stage.run()
    (labels,) = stage.loss.labels
    assert labels.shape == (8,) and labels.unique().numel() > 1
    stage.run()
    assert stage.loss.labels[0] is labels, "they are made once"


def test_how_it_trains() -> None:
    adam = Training(optimizer="adam", optimizer_options={"lr": 1e-4})
    found = measure(nn.Linear(8, 8), (2, 8), device="cpu", train=adam, seconds=0.0)
    assert found.train and found.settings == {"loss": "cross_entropy", "optimizer": "adam", "lr": 1e-4}
    with pytest.raises(InputError, match="plain step"):
        measure(nn.Linear(8, 8), (2, 8), device="cpu", train=Training(accumulate=2), seconds=0.0)


def test_bfloat16_runs_in_bfloat16() -> None:
    found = measure(nn.Linear(8, 8), (2, 8), device="cpu", dtype="bf16", seconds=0.0)
    assert found.dtype == "bfloat16"


def test_out_of_memory_is_recorded(monkeypatch) -> None:
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 200.00 GiB.")

    monkeypatch.setattr(measuring, "Workload", full)
    found = measure(nn.Linear(3, 2), (7, 3), device="cpu", batch=7, seconds=0.0)
    assert found.failure == "out of memory: CUDA out of memory. Tried to allocate 200.00 GiB."
    assert (found.inputs, found.dtype, found.eager) == (((7, 3),), "float32", None)
    again = measurement([found], device="cpu")
    assert type(again).from_json(again.to_json()).runs[0] == found
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        monkeypatch.undo()
        measure(nn.Linear(3, 2), (7, 4), device="cpu", seconds=0.0)


@pytest.mark.parametrize("said", ["CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"])
def test_libraries_run_out_of_memory_in_other_words(monkeypatch, said) -> None:
    def full(*args, **kwargs):
        raise RuntimeError(said)

    monkeypatch.setattr(measuring, "Workload", full)
    assert measure(nn.Linear(3, 2), (7, 3), device="cpu").failure == f"out of memory: {said}"


def test_wrong_use_is_refused() -> None:
    with pytest.raises(InputError, match="no weights"):
        measure(nn.Linear(3, 2, device="meta"), (1, 3), device="cpu")
    with pytest.raises(InputError, match="unknown device"):
        measure(nn.Linear(3, 2), (1, 3), device="tpu")
    with pytest.raises(InputError, match="unknown memory format"):
        measure(nn.Linear(3, 2), (1, 3), device="cpu", precision_settings=PrecisionSettings(memory_format="diagonal"))
    with pytest.raises(InputError, match="nothing to train"):
        measure(nn.ReLU(), (1, 3), device="cpu", train=True)


@pytest.mark.skipif(CUDA, reason="there is a CUDA device")
def test_without_cuda_it_says_what_to_do(capsys) -> None:
    with pytest.raises(HardwareError, match="nvidia-smi"):
        measure(nn.Linear(3, 2), (1, 3), device="cuda")
    assert run(["measure", "lenet"]) == 4
    assert "--device cpu" in capsys.readouterr().err


def test_torchs_estimator_says_nothing_of_a_cpu(step) -> None:
    said = torch_estimate(Net(), step, None, torch.device("cpu"))
    assert said.seconds is None and "accelerator" in said.problem


@pytest.mark.skipif(CUDA, reason="there is a CUDA device")
def test_torchs_estimator_without_an_accelerator_is_no_error(step) -> None:
    assert torch_estimate(Net(), replace(step, train=False), None, torch.device("cuda")).problem


def test_what_torchs_estimator_would_say_of_an_h100(monkeypatch) -> None:
    """It takes every float32 operator for one without tensor cores: 42.5 ms for VGG-16, where our bound is 7.3 ms."""
    tool = importlib.import_module("torch.distributed._tools.runtime_estimator").RuntimeEstimator
    if "gpu_type" not in inspect.signature(tool).parameters:
        pytest.skip("this version of torch cannot be told a GPU")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    network = cm.networks.find("torchvision:vgg16")
    run = Run(network.name, ((64, 3, 224, 224),), 64, "float32", False)
    fake = importlib.import_module("torch._subclasses.fake_tensor").FakeTensorMode
    copied = copy_to_meta(network.module).eval()
    with fake():
        seconds = _estimated(tool(gpu_type="NVIDIA H100"), copied, run, None, torch.device("cpu"))
    assert seconds == pytest.approx(42.5e-3, rel=0.005)
    ours = cm.predict(cm.count(cm.trace(network.module, network.inputs(64))), cm.device("h100"))
    assert ours.bound_seconds == pytest.approx(7.3e-3, rel=0.01), "convolutions at TF32's peak"


def test_measure_and_validate_from_the_command_line(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(NETWORK)
    model = ["mine.py:Net", "--input", "3x16x16"]
    cpu = ["--device", "cpu", "--threads", "1", "--seconds", "0"]
    assert run(["measure", *model, *cpu, "--batch", "1", "--batch", "2", "-o", "r.json", "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "costmodel/measurement/1" and [r["batch"] for r in document["runs"]] == [1, 2]
    assert run(["measure", *model, *cpu, "--batch", "1", "--batch", "1", "--format", "csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2, "what is asked for twice is measured once"
    assert run(["measure", *model, "--device", "cpu", "--threads", "9999"]) == 2
    assert "logical cores" in capsys.readouterr().err
    assert run(["measure", *model, *cpu, "-o", "r.json"]) == 2
    assert "exists already" in capsys.readouterr().err

    against = ["validate", *model, "--measurement", "r.json"]
    on = ["-d", "xeon-icelake-1core"]
    assert run([*against, *on, "--batch", "2", "--format", "json"]) in (0, 1)
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "costmodel/measured/1"
    assert found["comparisons"][0]["inputs"] == [[2, 3, 16, 16]]
    assert run([*against, *on]) in (0, 1)
    assert "Layer by layer" in capsys.readouterr().out
    for wrong, said in (
        ([*on, "--batch", "3"], "no run of mine.py:Net on 3x3x16x16"),
        ([*on, "--dtype", "bf16"], "in bfloat16"),
        ([*on, "--train"], "training step"),
        (["-d", "h100"], "give -d a device of that kind"),
        ([*on, "--peer", "fvcore"], "one of the two"),
    ):
        assert run([*against, *wrong]) == 2
        assert said in capsys.readouterr().err
    (tmp_path / "r.json").write_text((tmp_path / "r.json").read_text().replace('"batch": 1', '"batch": 7'))
    assert run([*against, *on]) == 2
    assert "changed after it was written" in capsys.readouterr().err
    assert run(["validate", "lenet", "--dtype", "bf16"]) == 2


def test_what_does_not_fit_is_told(monkeypatch, capsys, tmp_path) -> None:
    def full(*args, **kwargs):
        raise MemoryError("out of memory")

    monkeypatch.setattr(measuring, "Workload", full)
    path = tmp_path / "r.json"
    assert run(["measure", "lenet", "--device", "cpu", "-o", str(path)]) == 4
    assert "smaller --batch" in capsys.readouterr().err
    assert read(path).runs[0].failure == "out of memory: out of memory"


class OnlyCalledCuda(Clock):
    """A clock that says it is CUDA's, on the CPU: the branch for CUDA is run through, and nothing of it measured."""

    on_cuda = True

    def __init__(self, device: str) -> None:
        self.device = torch.device("cpu")

    def synchronize(self) -> None:
        pass

    def time(self, calls, **options) -> Timing:
        calls()
        return Timing((1e-3, 1e-3), "warm")


@pytest.fixture
def stand_in(monkeypatch):
    """torch.cuda with what `measure` calls of it, which does nothing."""

    class Graph:
        def replay(self) -> None:
            pass

    class Stream:
        device_index = 0

        def wait_stream(self, other) -> None:
            pass

    class Generator:
        def clone_state(self):
            return self

        def graphsafe_set_state(self, state) -> None:
            pass

    stats = {f"{level}_bytes.all.peak": size for level, size in (("requested", 5), ("allocated", 6), ("reserved", 7))}
    monkeypatch.setattr(measuring, "Clock", OnlyCalledCuda)
    monkeypatch.setattr(measuring, "ON_DEVICE", ("cpu_op",))
    for name, value in {
        "empty_cache": lambda: None,
        "reset_peak_memory_stats": lambda device: None,
        "memory_stats": lambda device: stats,
        "mem_get_info": lambda device: (30, 100),
        "device": lambda device: nullcontext(),
        "Stream": Stream,
        "current_stream": lambda device=None: Stream(),
        "set_stream": lambda stream: None,
        "stream": lambda stream: nullcontext(),
        "CUDAGraph": Graph,
        "default_generators": (Generator(),),
        "graph": lambda graph: nullcontext(),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)


@pytest.mark.parametrize("train", [False, True])
def test_the_branch_for_cuda_runs_through(stand_in, train) -> None:
    found = measure(Net(), (2, 3, 16, 16), device="cuda", batch=2, train=train, seconds=0.0, name="net")
    assert found.memory == MemoryPeaks(5, 6, 7, 70, 70)
    assert (found.graph.median, found.graph_problem) == (1e-3, "")
    assert found.layers and found.eager.median > 0


def test_a_graph_that_cannot_be_captured_says_why(stand_in, monkeypatch) -> None:
    def refuses(graph):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", refuses)
    found = measure(nn.Linear(3, 2), (1, 3), device="cuda", seconds=0.0)
    assert found.graph is None and found.failure == ""
    assert found.graph_problem == "RuntimeError: operation not permitted when stream is capturing"


@pytest.mark.cuda
@pytest.mark.skipif(not CUDA, reason="no CUDA device")
@pytest.mark.parametrize("train", [False, True])
def test_on_cuda_kernels_reach_their_layers(train) -> None:
    found = measure(Net(), (4, 3, 16, 16), device="cuda", batch=4, train=train, seconds=0.1, name="net")
    trace = cm.trace(Net(), (4, 3, 16, 16), train=train, name="net")
    worked = {
        (entry.operation.layer, entry.operation.phase) for entry in cm.count(trace).operations if entry.cost.moved_bytes
    }
    assert {(layer.layer, layer.phase) for layer in found.layers} == worked
    assert found.graph is not None, found.graph_problem
    peaks = found.memory
    assert 0 < peaks.requested_bytes <= peaks.allocated_bytes <= peaks.reserved_bytes <= peaks.device_bytes


@pytest.mark.cuda
@pytest.mark.skipif(not CUDA, reason="no CUDA device")
def test_on_cuda_what_does_not_fit_is_recorded() -> None:
    bytes_there = torch.cuda.get_device_properties(0).total_memory
    found = measure(nn.Linear(1024, 1024), (bytes_there // 4096, 1024), device="cuda", seconds=0.0)
    assert found.failure.startswith("out of memory")


@pytest.mark.cuda
@pytest.mark.skipif(not CUDA, reason="no CUDA device")
def test_torchs_estimator_speaks_of_an_accelerator() -> None:
    found = measure(Net(), (4, 3, 16, 16), device="cuda", seconds=0.0)
    said = found.peers["torch runtime estimator"]
    if "No module named" in said.problem:
        pytest.skip(said.problem)
    assert said.seconds, said.problem


def test_torchs_estimator_fails_before_autograd_runs(monkeypatch) -> None:
    """An exception inside of autograd's C++ would end the process: peaks are looked up before."""

    def unknown(dtype):
        raise ModuleNotFoundError("No module named 'pynvml'")

    monkeypatch.setattr("torch._inductor.utils.get_device_tflops", unknown)
    run = Run("net", ((2, 3, 16, 16),), 2, "float32", True)
    said = torch_estimate(Net(), run, Training.asked(True, {}), torch.device("cuda", 0))
    assert said == PeerEstimate(problem="ModuleNotFoundError: No module named 'pynvml'")


def test_torchs_estimator_says_no_number_that_is_none(monkeypatch) -> None:
    """No record could hold it."""
    monkeypatch.setattr("costmodel.hardware.estimator._look_up_peaks", lambda dtype: None)
    monkeypatch.setattr("costmodel.hardware.estimator._estimated", lambda *args: float("inf"))
    run = Run("net", ((2, 3, 16, 16),), 2, "float32", False)
    assert torch_estimate(Net(), run, None, torch.device("cuda", 0)) == PeerEstimate(problem="it says inf seconds")
