"""The peak of a training step on the CPU target, byte for byte against torch's MemTracker on fake tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch.nn import functional

from costmodel.memory import remember
from costmodel.tracer import OPTIMIZERS, trace

fake_tensor = pytest.importorskip("torch._subclasses.fake_tensor")
mem_tracker = pytest.importorskip("torch.distributed._tools.mem_tracker")

STEPS: dict[str, tuple[str, dict[str, float]]] = {
    "sgd": ("sgd", {}),
    "sgd with momentum": ("sgd", {"momentum": 0.9}),
    "sgd with weight decay": ("sgd", {"weight_decay": 1e-4}),
    "adam": ("adam", {}),
    "adamw": ("adamw", {}),
}


def tracked_peak(name: str, batch: int, optimizer: str, options: dict[str, Any]) -> int:
    """The peak of the second step, when the optimizer's state is there."""
    with fake_tensor.FakeTensorMode():
        model = torchvision.models.get_model(name, weights=None).train()
        step = OPTIMIZERS[optimizer](model.parameters(), lr=1e-3, foreach=False, **options)
        images, labels = torch.randn(batch, 3, 224, 224), torch.zeros(batch, dtype=torch.int64)
        tracker = mem_tracker.MemTracker()
        tracker.track_external(model, step, images, labels)
        with tracker:
            for _ in range(2):
                tracker.reset_mod_stats()
                loss = functional.cross_entropy(model(images), labels)
                loss.backward()
                step.step()
                step.zero_grad()
                del loss
        return tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]


@pytest.mark.parametrize(
    ("name", "batch", "steps"),
    [
        ("alexnet", 2, list(STEPS)),
        ("resnet18", 2, list(STEPS)),
        ("vgg16", 2, ["adam"]),
        ("mobilenet_v2", 16, ["sgd with momentum"]),
    ],
)
def test_the_peak_is_the_trackers(name: str, batch: int, steps: list[str]) -> None:
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None)
    for step in steps:
        optimizer, options = STEPS[step]
        traced = trace(
            model, (batch, 3, 224, 224), train=True, target="cpu", optimizer=optimizer, optimizer_options=options
        )
        assert remember(traced).peak_bytes == tracked_peak(name, batch, optimizer, options), step


@pytest.mark.parametrize(
    ("name", "batch", "peak"),
    [
        ("alexnet", 1, 736_042_224),
        ("alexnet", 8, 760_815_400),
        ("alexnet", 32, 847_599_592),
        ("vgg16", 4, 1_931_925_768),
    ],
)
def test_known_figures(name: str, batch: int, peak: int) -> None:
    # MemTracker's, torchvision's networks, cross entropy, SGD with momentum, steady state
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None)
    traced = trace(
        model, (batch, 3, 224, 224), train=True, target="cpu", optimizer_options={"momentum": 0.9}, optimizer="sgd"
    )
    memory = remember(traced)
    assert memory.peak_bytes == peak
    assert memory.peak_operation.phase == "backward"
