"""Traces of torch.profiler: synthetic ones, with round numbers, in the forms of several versions of torch."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from torch import nn

import costmodel as cm
from costmodel.cli import run
from costmodel.errors import InputError
from costmodel.hardware.profiles import chrome
from costmodel.hardware.profiles.alignment import OtherShapeError
from costmodel.hardware.profiles.foreign import attribute, measurement
from costmodel.hardware.profiles.join import covered, merged
from costmodel.hardware.record import DEFAULTS

A100 = {"id": 0, "name": "NVIDIA A100-PG509-200", "totalGlobalMem": 42297524224, "computeMajor": 8, "computeMinor": 0,
        "numSms": 108}  # fmt: skip
BASE = 1695835542514261
"""When a trace begins: 27 September 2023, in microseconds."""

US = 1e-6


class Net(nn.Module):
    """A convolution with bias, a ReLU and a linear layer."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout()
        self.fc = nn.Linear(8 * 6 * 6, classes)

    def forward(self, x):
        return self.fc(self.drop(self.act(self.conv(x)).flatten(1)))


class Writer:
    """A trace in the making: operators as (name, start, end, what is inside), each kernel behind the one before."""

    def __init__(self, old: bool = False, shapes: bool = True) -> None:
        self.events: list[dict[str, Any]] = []
        self.old, self.shapes = old, shapes
        self.number, self.device_clock = 0, 0.0

    def op(self, name, start, end, sequence=None, thread=1, dims=None, category="cpu_op") -> int:
        self.number += 1
        args: dict[str, Any] = {"External id": self.number}
        if sequence is not None:
            args |= {"Sequence number": sequence, "Fwd thread id": 1 if thread != 1 else 0}
        if dims and self.shapes:
            args |= {"Input Dims": dims}
        old = {"cpu_op": "Operator", "user_annotation": "Operator", "cuda_runtime": "Runtime"}
        self.events.append({"ph": "X", "cat": old[category] if self.old else category, "name": name, "pid": 1,
                            "tid": thread, "ts": BASE + start, "dur": end - start, "args": args})  # fmt: skip
        return self.number

    def kernel(self, name, launched, seconds, external, stream=7, start=None, category="kernel", **args) -> None:
        """A kernel of some microseconds that the host launched at a moment."""
        self.number += 1
        correlation = 100_000 + self.number
        begins = max(self.device_clock, launched) if start is None else start
        self.device_clock = begins + seconds
        key = "external id" if self.old else "External id"
        names = {"kernel": "Kernel", "gpu_memcpy": "Memcpy", "gpu_memset": "Memset"}
        self.events += [
            {"ph": "X", "cat": "Runtime" if self.old else "cuda_runtime", "name": "cudaLaunchKernel", "pid": 1,
             "tid": args.pop("thread", 1), "ts": BASE + launched, "dur": 1, "args": {"correlation": correlation}},
            {"ph": "X", "cat": names[category] if self.old else category, "name": name, "pid": 0,
             "tid": f"stream {stream}", "ts": BASE + begins, "dur": seconds,
             "args": {"device": 0, "stream": stream, "correlation": correlation, key: external, **args}},
            {"ph": "s", "cat": "ac2g", "id": correlation, "pid": 1, "tid": 1, "ts": BASE + launched, "name": "ac2g"},
        ]  # fmt: skip

    def forward(self, at, batch=4, sequence=0, classes=10, dropout=True) -> None:
        """Net's forward: 60 + 20 + 3 us of conv (bias inside), 7 of ReLU, 2 of dropout, 30 of fc."""
        images, hidden = [batch, 3, 8, 8], [batch, 8, 6, 6]
        self.op("aten::conv2d", at + 10, at + 50, sequence, dims=[images, [8, 3, 3, 3], [8]])
        inner = self.op("aten::cudnn_convolution", at + 15, at + 30, dims=[images, [8, 3, 3, 3]])
        self.kernel("nchwToNhwcKernel", at + 17, 20, inner)
        self.kernel("implicit_gemm_tf32f32", at + 20, 60, inner)
        self.kernel("elementwise_add", at + 42, 3, self.op("aten::add_", at + 40, at + 48, dims=[hidden, [1, 8, 1, 1]]))
        self.op("aten::relu_", at + 60, at + 70, sequence + 1, dims=[hidden])
        self.kernel("clamp", at + 63, 7, self.op("aten::clamp_min_", at + 62, at + 68))
        self.op("aten::flatten", at + 71, at + 73, sequence + 2)
        if dropout:
            self.kernel("dropout", at + 76, 2, self.op("aten::dropout", at + 74, at + 79, sequence + 3))
        self.op("aten::linear", at + 80, at + 100, sequence + 4, dims=[[batch, 288], [classes, 288], [classes]])
        inner = self.op(
            "aten::addmm", at + 85, at + 98, sequence + 5, dims=[[classes], [batch, 288], [288, classes], [], []]
        )
        self.kernel("sgemm", at + 90, 30, inner)

    def text(self, **around) -> str:
        document = {
            "schemaVersion": 1,
            "deviceProperties": [A100],
            "traceEvents": self.events,
            "traceName": "/home/bob/x.json",
        }
        return json.dumps(document | around)

    def save(self, path, **around):
        path.write_text(self.text(**around))
        return path


def forwards(count=3, **options) -> Writer:
    """Repeated forwards, a millisecond apart."""
    writer = Writer(**{name: options.pop(name) for name in ("old", "shapes") if name in options})
    for number in range(count):
        writer.forward(1000 * number, sequence=10 * number, **options)
    return writer


def ours(batch=4, train=False, classes=10, **options) -> cm.Trace:
    return cm.trace(Net(classes), (batch, 3, 8, 8), train=train, name="net", **options)


def sequence(*modules: nn.Module) -> cm.Trace:
    return cm.trace(nn.Sequential(*modules), (4, 3, 8, 8), name="net")


def layers(found) -> dict[tuple[str, str], float]:
    return {(row.layer, row.phase): row.seconds / US for row in found.joined.layers}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_operators_are_found_by_their_order(tmp_path, old, packed) -> None:
    path = tmp_path / "trace.json"
    text = forwards(old=old).text().encode()
    path.write_bytes(gzip.compress(text) if packed else text)
    found = attribute(chrome.read(path), ours())
    assert layers(found) == pytest.approx({("conv", "forward"): 83, ("act", "forward"): 7, ("fc", "forward"): 30})
    assert len(found.repetitions.warm) == 2 and len(found.repetitions.cold) == 1, "the first is set apart"
    # Dropout runs in a forward in training mode, and is none of an inference's operations: it is named.
    assert [(each.name, each.seconds / US) for each in found.joined.unattributed] == [
        ("aten::dropout: dropout", pytest.approx(2))
    ]
    assert found.joined.kernel_time == pytest.approx([122 * US] * 2)
    # conv's kernels run from 17 to 100 us, clamp until 107, dropout 109, sgemm 139: nothing is idle.
    assert found.joined.idle == (0, 0)


def test_overlapping_streams_count_once(tmp_path) -> None:
    writer = Writer()
    writer.op("aten::conv2d", 10, 50, 0)
    inner = writer.op("aten::cudnn_convolution", 15, 30)
    writer.kernel("fft", 17, 100, inner, stream=7, start=100)
    writer.kernel("fft", 18, 60, inner, stream=20, start=150)  # 100 to 200 and 150 to 210: 110 of 160
    found = attribute(chrome.read(writer.save(tmp_path / "t.json")), cm.trace(nn.Conv2d(3, 8, 3), (4, 3, 8, 8)))
    (layer,) = found.joined.layers
    assert layer.seconds == pytest.approx(110 * US) == found.joined.kernel_time[0]
    assert [(each.name, each.seconds / US, each.count) for each in layer.kernels] == [("fft", pytest.approx(160), 2)]


def test_intervals() -> None:
    assert merged([(5, 6), (0, 2), (1, 3), (3, 4)]) == [(0, 4), (5, 6)]
    assert covered([(5, 6), (0, 2), (1, 3)]) == 4


def training(old: bool) -> Writer:
    """Two ProfilerSteps after others: data, forward, loss, backward on a thread of its own, SGD."""
    writer = Writer(old=old)
    for number in (7, 8):
        at, sequence = 10_000 * number, 100 * number
        writer.op(f"ProfilerStep#{number}", at, at + 5000, category="user_annotation")
        copy = writer.op("aten::copy_", at + 2, at + 6)
        writer.kernel(
            "Memcpy HtoD (Pageable -> Device)", at + 3, 50, copy, category="gpu_memcpy", bytes=4 * 3 * 8 * 8 * 4
        )
        writer.forward(at, sequence=sequence)
        writer.op("aten::cross_entropy_loss", at + 110, at + 140, sequence + 6)
        writer.kernel("softmax", at + 114, 2, writer.op("aten::_log_softmax", at + 112, at + 120, sequence + 6))
        writer.kernel("nll", at + 126, 3, writer.op("aten::nll_loss_forward", at + 124, at + 135, sequence + 7))
        writer.op("Optimizer.zero_grad#SGD.zero_grad", at + 150, at + 160, category="user_annotation")
        writer.kernel("fill", at + 153, 5, writer.op("aten::zero_", at + 152, at + 156))
        nodes = (
            ("NllLossBackward", 7, 4), ("LogSoftmaxBackward", 6, 5), ("AddmmBackward", 5, 40), ("TBackward", 4, 0),
            ("NativeDropoutBackward", 3, 6), ("ReluBackward", 1, 8), ("CudnnConvolutionBackward", 0, 90),
        )  # fmt: skip
        begin = at + 200
        for name, node, seconds in nodes:
            if not old:
                writer.op(f"autograd::engine::evaluate_function: {name}0", begin, begin + 20, sequence + node, thread=2)
            writer.op(name + "0" * (not old), begin + 1, begin + 15, sequence + node, thread=2)
            if seconds:
                inner = writer.op("aten::whatever_backward", begin + 2, begin + 14, thread=2)
                writer.kernel(name, begin + 4, seconds, inner, thread=2)
            if name == "AddmmBackward":  # the bias's gradient: until torch 1.11 it stands behind its node
                inner = writer.op("aten::sum", begin + 16, begin + 19, thread=2)
                writer.kernel("reduce", begin + 17, 9, inner, thread=2)
            if not old:
                writer.op(
                    "autograd::engine::evaluate_function: torch::autograd::AccumulateGrad",
                    begin + 20,
                    begin + 30,
                    thread=2,
                )
            writer.op("torch::autograd::AccumulateGrad", begin + 21, begin + 29, thread=2)
            if name in ("TBackward", "CudnnConvolutionBackward"):
                inner = writer.op("aten::add_", begin + 22, begin + 28, thread=2)
                writer.kernel("add", begin + 23, 2, inner, thread=2)
            begin += 40
        writer.op("Optimizer.step#SGD.step", at + 600, at + 700, category="user_annotation")
        writer.kernel("multi_tensor_apply", at + 611, 11, writer.op("aten::_foreach_add_", at + 610, at + 690))
    return writer


@pytest.mark.parametrize("old", [False, True])
def test_a_training_step(tmp_path, old) -> None:
    found = attribute(chrome.read(training(old).save(tmp_path / "t.json")), ours(train=True))
    assert layers(found) == pytest.approx({
        ("conv", "forward"): 83, ("act", "forward"): 7, ("drop", "forward"): 2, ("fc", "forward"): 30,
        ("(loss)", "forward"): 2 + 3, ("(loss)", "backward"): 4 + 5,
        ("fc", "backward"): 40 + 9 + 2,  # both products, the bias's gradient, the addition behind the transposition
        ("drop", "backward"): 6, ("act", "backward"): 8, ("conv", "backward"): 90 + 2,
        ("(optimizer)", "optimizer"): 11,
    })  # fmt: skip
    named = {each.name: each.seconds / US for each in found.joined.unattributed}
    assert named == pytest.approx({"aten::copy_: Memcpy HtoD (Pageable -> Device)": 50, "Optimizer.zero_grad: fill": 5})
    assert (len(found.repetitions.warm), found.repetitions.cold) == (2, ()), "the profiler counted seven steps before"
    assert found.repetitions.found_by == "ProfilerStep"


def test_paths_in_record_function_name_layers(tmp_path) -> None:
    """Where the order of operators tells nothing: all are of a kind that ours has not."""
    writer = Writer()
    for number in range(2):
        for layer, at, seconds in (("conv", 0, 5), ("fc", 100, 6)):
            at += 1000 * number
            writer.op(layer, at + 1, at + 50, category="user_annotation")
            writer.kernel("triton", at + 12, seconds, writer.op("my::compiled", at + 10, at + 20))
    found = attribute(chrome.read(writer.save(tmp_path / "t.json")), ours())
    assert layers(found) == pytest.approx({("conv", "forward"): 5, ("fc", "forward"): 6})
    assert found.located.found_by == "annotations with modules' paths"


def test_module_events_name_layers(tmp_path) -> None:
    writer = Writer()
    for number in range(2):
        modules = (
            ("Net_0", 0, 400), ("Conv2d_0", 1, 50), ("ReLU_0", 60, 70), ("Dropout_0", 71, 80), ("Linear_0", 90, 200),
        )  # fmt: skip
        for name, begin, end in modules:
            at = 1000 * number
            writer.op("nn.Module: " + name, at + begin, at + end, category="user_annotation")
            writer.events[-1]["cat"] = "python_function"
            if name in ("Conv2d_0", "Linear_0"):
                writer.kernel(
                    "triton", at + begin + 12, begin + 1, writer.op("my::compiled", at + begin + 10, at + begin + 20)
                )
    found = attribute(chrome.read(writer.save(tmp_path / "t.json")), ours())
    assert layers(found) == pytest.approx({("conv", "forward"): 2, ("fc", "forward"): 91})
    assert found.located.found_by == "module events"


@pytest.mark.parametrize(
    ("writer", "network", "says"),
    [
        (forwards(), ours(batch=8),
         "takes 4x3x8x8 in the trace, 8x3x8x8 in the network. Another batch: give --batch 4?"),
        (forwards(classes=7), ours(),
         "aten::linear (fc) takes 7 in the trace, 10 in the network. Another network, or --classes?"),
        (forwards(), ours(train=True), "no backward: leave out --train"),
        (training(False), ours(), "of training, as its backward shows: add --train"),
        (training(False), ours(train=True, optimizer="adam"), "the trace's optimizer is sgd: give --optimizer sgd"),
        (forwards(shapes=False), sequence(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)),
         "aten::relu_ runs where the network has aten.cudnn_batch_norm (1). Is it another network?"),
        (forwards(shapes=False), sequence(nn.Conv2d(3, 8, 3), nn.ReLU()),
         "it goes on with aten::linear where the network ends"),
        (forwards(shapes=False), sequence(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2)),
         "aten::linear runs where the network has aten.max_pool2d_with_indices (2). Is it another head?"),
        (forwards(shapes=False), sequence(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)),
         "aten::linear runs where the network has aten.convolution (2). Is it another network?"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(tmp_path, writer, network, says) -> None:
    with pytest.raises(InputError) as refused:
        attribute(chrome.read(writer.save(tmp_path / "t.json")), network)
    assert says in str(refused.value) and "\n" not in str(refused.value)
    assert isinstance(refused.value, OtherShapeError) == ("takes" in says)


def test_another_batch_shows_in_what_is_copied(tmp_path) -> None:
    """Without shapes: 4 x 3 x 8 x 8 floats are copied in each step."""
    writer = training(False)
    for event in writer.events:
        event["args"] = {key: value for key, value in event.get("args", {}).items() if key != "Input Dims"}
    with pytest.raises(InputError, match="each step copies 4 inputs of net to the GPU, not 2: give --batch 4"):
        attribute(chrome.read(writer.save(tmp_path / "t.json")), ours(batch=2, train=True))


def refused(path) -> str:
    with pytest.raises(InputError) as error:
        attribute(chrome.read(path), ours())
    return str(error.value)


def test_files_that_are_no_trace(tmp_path) -> None:
    path, text = tmp_path / "t.json", forwards().text()
    path.write_text(text[: len(text) // 2])
    assert "cut off" in refused(path)
    path.write_bytes(gzip.compress(text.encode())[:-200])
    assert "cut off" in refused(path)
    others = (
        "", "[]", "{}", "[tool]", '{"traceEvents": []}', '{"traceEvents": [{"ph": "X", "ts": "yesterday"}]}',
        '{"traceEvents": [{"ph": "X", "cat": "v8", "name": "gc", "ts": 1, "dur": 2}]}',
    )  # fmt: skip
    for other in others:
        path.write_text(other)
        assert "no trace of torch.profiler" in refused(path)
    writer = forwards()
    writer.events = [event for event in writer.events if event["cat"] == "cpu_op"]
    assert "nothing that ran on a GPU" in refused(writer.save(path))
    writer = forwards()
    writer.kernel("sgemm", 5000, 10, None, device=1)
    assert "kernels of 2 GPUs" in _device_refused(writer.save(path))


def _device_refused(path) -> str:
    with pytest.raises(InputError) as error:
        measurement(chrome.read(path), ours(), DEFAULTS, "here", "0")
    return str(error.value)


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("head_first", [True, False])
def test_a_trace_is_read_in_pieces_of_any_size(tmp_path, monkeypatch, separators, indent, head_first) -> None:
    """Braces and brackets in names, inf and nan, and text that is no UTF-8 do not matter."""
    writer = forwards()
    hostile = 'f<{lambda()#1}, {lambda()#2}>, {"x": [1]}], "traceEvents": ['
    writer.kernel(
        hostile, 2900, 1, None, **{"est. achieved occupancy %": float("inf"), "queued": float("nan"), "list": [{}, {}]}
    )
    document = {"traceEvents": writer.events, "deviceProperties": [A100]}
    document = dict(reversed(document.items())) if head_first else document
    text = json.dumps(document, separators=separators, indent=indent).replace("Infinity", "inf").replace("NaN", "-nan")
    path = tmp_path / "t.json"
    path.write_bytes(text.encode().replace(b"nchwToNhwcKernel", b"nchw\xff"))
    whole = chrome.read(path)
    assert [each.name for each in whole.kernels if each.name.startswith(("f<", "nchw"))] == ["nchw\ufffd"] * 3 + [
        hostile
    ]
    monkeypatch.setattr(chrome, "_CHUNK", 700)
    assert (
        chrome.read(path) == whole and len(whole.events) == 3 * (9 + 2 * 6) + 2
    )  # operators, kernels and their launches


def test_a_record_from_the_command_line(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    forwards().save(tmp_path / "t.json", distributedInfo={"world_size": 1}, host_name="bobs-machine")
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def net():\n    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))\n"
    )
    command = ["measure", "net.py:net", "--input", "3x8x8", "--batch", "4", "--trace", "t.json"]
    assert run([*command, "-o", "r.json", "--source", "somebody's bench, MIT", "--format", "json"]) == 0
    text = capsys.readouterr().out
    assert text == (tmp_path / "r.json").read_text()
    record = cm.hardware.record.read(tmp_path / "r.json") if hasattr(cm, "hardware") else None
    document = json.loads(text)
    assert document["circumstances"]["device"]["name"] == "NVIDIA A100-PG509-200"
    assert document["circumstances"]["date"] == "2023-09-27" and "bob" not in text
    assert document["circumstances"]["trace"]["source"] == "somebody's bench, MIT"
    (first,) = document["runs"]
    assert first["work"]["median"] == pytest.approx(122 * US) and first["eager"] is None
    assert record is None or record.runs[0].batch == 4
    assert run([*command, "--batch", "8"]) == 2
    assert run(["measure", "lenet", "--source", "x", "--device", "cpu"]) == 2
    capsys.readouterr()
    assert run(["validate", "net.py:net", "--input", "3x8x8", "--batch", "4", "--measurement", "r.json"]) in (0, 1)
    assert "A100" in capsys.readouterr().out
