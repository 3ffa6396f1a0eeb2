"""Traces that others published, read as anybody's: their layers, times and kernels.

The files lie outside of the repository: in the folder that COSTMODEL_MEASURED names, or beside the checkout. Distilled
records of three of them come with costmodel.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from pathlib import Path

import pytest
from torch import nn

import costmodel as cm
from costmodel import networks
from costmodel.errors import InputError
from costmodel.hardware import records
from costmodel.hardware.profiles import chrome
from costmodel.hardware.profiles.foreign import Foreign, attribute, digest_of
from costmodel.hardware.record import read
from costmodel.validation.measurement import device_of

FOLDER = Path(os.environ.get("COSTMODEL_MEASURED") or Path(__file__).parents[2] / "shared" / "reference" / "measured")
TRACES = FOLDER / "traces"
given = pytest.mark.skipif(
    not TRACES.is_dir(), reason=f"no published traces in {TRACES}: COSTMODEL_MEASURED names their folder"
)

ALEXNET = "alexnet-b128-forward-a100.json.gz"
RESNET18, RESNET50 = "resnet-training-rtx2080ti.json.gz", "resnet50-b32-training-v100.json.gz"
VGG = "vgg16-b64-32x32-t4.json.gz"


def vgg16_for_32() -> nn.Module:
    """VGG-16 as the trace has it: without adaptive pooling, with a softmax at its end."""
    layers: list[nn.Module] = []
    channels = 3
    for count, width in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    head = (nn.Linear(512, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout())
    return nn.Sequential(*layers, nn.Flatten(), *head, nn.Linear(4096, 10), nn.Softmax(1))


@functools.cache
def ours(name: str, batch: int, **options) -> cm.Trace:
    if name == "vgg16":
        return cm.trace(vgg16_for_32(), (batch, 3, 32, 32), train=True, name=name)
    network = networks.find(f"torchvision:{name}")
    return cm.trace(network.module, (batch, 3, 224, 224), name=network.name, **options)


@functools.cache
def found(file: str) -> Foreign:
    network = {
        ALEXNET: lambda: ours("alexnet", 128),
        RESNET18: lambda: ours("resnet18", 128, train=True),
        RESNET50: lambda: ours("resnet50", 32, train=True),
        VGG: lambda: ours("vgg16", 64),
    }
    return attribute(chrome.read(TRACES / file), network[file]())


def microseconds(joined) -> dict[tuple[str, str], float]:
    return {(row.layer, row.phase): round(row.seconds * 1e6, 1) for row in joined.layers}


def of_type(trace: cm.Trace, joined, kind: str, phase: str) -> list[float]:
    """Milliseconds of each layer of a class."""
    modules = trace.module_by_path
    return [
        r.seconds * 1e3
        for r in joined.layers
        if r.phase == phase and r.layer in modules and modules[r.layer].type == kind
    ]


@given
@pytest.mark.parametrize("file", [ALEXNET, RESNET18, RESNET50, VGG])
def test_every_kernel_is_in_a_layer_or_named(file) -> None:
    profile = chrome.read(TRACES / file)
    result = found(file)
    for repetition, work in zip(result.repetitions.warm, result.joined.kernel_time, strict=True):
        begin, end = repetition
        inside = [
            kernel.seconds
            for kernel in profile.kernels
            if (index := result.host.operator_of(kernel)) is not None
            and begin <= result.host.events[index].start <= end
        ]
        assert work == pytest.approx(sum(inside), rel=0.01)  # streams overlap a little
    whole = sum(row.seconds for row in result.joined.layers) + sum(each.seconds for each in result.joined.unattributed)
    median = sorted(result.joined.kernel_time)[len(result.joined.kernel_time) // 2]
    assert whole == pytest.approx(median, rel=0.01)
    assert all(": " in each.name or each.name == "(others)" for each in result.joined.unattributed)


@given
def test_alexnet_layer_by_layer() -> None:
    """As a reader found them by hand, in microseconds; conv2's kernels add up to 745 on two streams."""
    expected = {
        "features.0": 1225, "features.1": 144, "features.2": 163, "features.3": 710, "features.4": 106,
        "features.5": 123, "features.6": 365, "features.7": 51, "features.8": 495, "features.9": 15,
        "features.10": 347, "features.11": 15, "features.12": 36, "avgpool": 136, "classifier.1": 820,
        "classifier.2": 5, "classifier.4": 400, "classifier.5": 5, "classifier.6": 104,
    }  # fmt: skip
    result = found(ALEXNET)
    assert microseconds(result.joined) == {(layer, "forward"): each for layer, each in expected.items()}
    assert len(result.located.layers) == 2 * 19
    conv2 = next(row for row in result.joined.layers if row.layer == "features.3")
    assert sum(each.seconds for each in conv2.kernels) == pytest.approx(745e-6)
    # 5,265 in layers, and 17 of dropout, which no inference has.
    assert sum(expected.values()) == 5265
    assert [round(each * 1e6) for each in result.joined.kernel_time] == [5282]
    assert [(each.name[:13], each.count) for each in result.joined.unattributed] == [("aten::dropout", 2)]


@given
def test_vgg16_forward_and_backward() -> None:
    result, trace = found(VGG), ours("vgg16", 64)
    for phase in ("forward", "backward"):
        assert len(of_type(trace, result.joined, "Conv2d", phase)) == 13
        assert len(of_type(trace, result.joined, "Linear", phase)) == 3
    assert sum(result.joined.kernel_time) == pytest.approx(41.9e-3, abs=0.05e-3)
    assert sum(of_type(trace, result.joined, "MaxPool2d", "backward")) == pytest.approx(2.39, abs=0.005)
    assert microseconds(result.joined)["0", "forward"] == 332, "conv1_1, half of it its bias"
    assert not any(row.phase == "optimizer" for row in result.joined.layers)


def convolutions_alone(result: Foreign) -> float:
    """Milliseconds of what runs inside of convolutions' backward operators, in all steps."""
    events, above, total = result.host.events, result.host.above, 0.0
    for kernel in chrome.read(TRACES / RESNET50).kernels:
        index = result.host.operator_of(kernel)
        while index is not None and not events[index].name.startswith("aten::cudnn_convolution_backward"):
            index = above[index]
        total += kernel.seconds * 1e3 if index is not None else 0.0
    return total


@given
def test_resnet50_in_training() -> None:
    """By kind, in milliseconds, as a reader found them. To the convolutions' backward, 45.8, come the additions of
    gradients (zero_grad keeps them), which autograd makes right behind."""
    result, trace = found(RESNET50), ours("resnet50", 32, train=True)
    assert len(of_type(trace, result.joined, "Conv2d", "forward")) == 53
    assert len(of_type(trace, result.joined, "Conv2d", "backward")) == 53
    assert sum(of_type(trace, result.joined, "Conv2d", "forward")) == pytest.approx(21.3, abs=0.05)
    assert sum(of_type(trace, result.joined, "BatchNorm2d", "forward")) == pytest.approx(5.7, abs=0.1)
    assert sum(of_type(trace, result.joined, "ReLU", "backward")) == pytest.approx(4.55, abs=0.01)
    assert convolutions_alone(result) / 6 == pytest.approx(45.8, abs=0.1)
    assert sum(of_type(trace, result.joined, "Conv2d", "backward")) == pytest.approx(48.8, abs=0.1)
    assert (len(result.repetitions.warm), result.repetitions.found_by) == (6, "ProfilerStep")
    named = {each.name.partition(":")[0]: each for each in result.joined.unattributed}
    assert named["Optimizer.zero_grad"].count == 161  # 161 parameters: 53 convolutions, 2 x 53 of batch norm, 2 of fc
    assert sum(result.joined.kernel_time) / 6 - 2.87e-3 == pytest.approx(
        99.1e-3, abs=0.2e-3
    )  # the copy of images apart


@given
def test_resnet18_and_its_batch() -> None:
    result, trace = found(RESNET18), ours("resnet18", 128, train=True)
    assert len(of_type(trace, result.joined, "Conv2d", "forward")) == 20
    assert len(of_type(trace, result.joined, "BatchNorm2d", "backward")) == 20
    assert (len(result.repetitions.warm), len(result.repetitions.cold)) == (29, 1)
    # Each step copies 77,070,336 bytes: 128 x 3 x 224 x 224 floats; and 1,024: 128 labels.
    with pytest.raises(
        InputError, match="copies 128 inputs of torchvision:resnet18 to the GPU, not 64: give --batch 128"
    ):
        attribute(chrome.read(TRACES / RESNET18), ours("resnet18", 64, train=True))


@given
@pytest.mark.parametrize(
    ("file", "network", "batch", "says"),
    [
        (
            ALEXNET,
            "vgg11",
            128,
            r"aten::conv2d runs where the network has aten.max_pool2d_with_indices \(features.10\)",
        ),
        (RESNET50, "resnet50", 64, r"takes 32x3x224x224 in the trace, 64x3x224x224 .* give --batch 32"),
        (RESNET50, "resnet101", 32, r"layer3.6.conv1\) takes 512x1024x1x1 in the trace, 256x1024x1x1 in the network"),
        (RESNET18, "resnet34", 128, r"aten::conv2d runs where the network has aten.add_ \(layer1.2\)"),
    ],
)
def test_what_is_of_another_network_is_refused(file, network, batch, says) -> None:
    train = file != ALEXNET
    with pytest.raises(InputError, match=says):
        attribute(chrome.read(TRACES / file), ours(network, batch, **({"train": True} if train else {})))


RECORDS = {"a100-alexnet": ALEXNET, "v100-resnet50-training": RESNET50, "rtx2080ti-resnet18-training": RESNET18}


@pytest.mark.parametrize("name", RECORDS)
def test_records_that_come_with_costmodel(name) -> None:
    record = read(records.of_traces() / f"{name}.json")
    assert "commit" in record.environment["trace"]["source"]
    assert device_of(record).name == {"a": "a100-40gb", "v": "v100-32gb", "r": "rtx2080ti"}[name[0]]
    text = record.to_json()
    assert not any(word in text for word in ("/home", "user", "hostname"))
    (run,) = record.runs
    assert sum(layer.seconds for layer in run.layers) == pytest.approx(run.kernel_time.median, rel=0.04)


@given
@pytest.mark.parametrize("name", RECORDS)
def test_records_are_those_of_their_traces(name) -> None:
    record = read(records.of_traces() / f"{name}.json")
    assert record.environment["trace"]["sha256"] == digest_of(TRACES / RECORDS[name])
    (run,) = record.runs
    assert run.layers == found(RECORDS[name]).joined.layers


def test_no_record_of_a_trace_is_among_those_of_the_report() -> None:
    assert records.of_traces() != records.packaged()
    names = Counter(path.name for path in records.packaged().rglob("*.json"))
    assert not names.keys() & {f"{name}.json" for name in RECORDS}
