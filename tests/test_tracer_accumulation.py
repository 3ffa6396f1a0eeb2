"""Where autograd adds gradients up in place, against torch without any mode on, as torch.profiler saw it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torch.profiler import ProfilerActivity, profile

from costmodel.graph import BACKWARD
from costmodel.memory import memory_timeline
from costmodel.tracer import trace
from costmodel.tracer.accumulation import _is_dense


class Branches(nn.Module):
    """Gradients that are shared, expanded, views of each other, or summed by a backward that somebody wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.c, self.d = nn.Conv2d(16, 3, 3, padding=1), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.a(x).relu()
        g = self.b(h) + h
        y = self.c(torch.cat([h, g], 1)) + x.exp() * h[:, :3] + h.mean()
        z = self.d(h.flatten(2).transpose(1, 2))
        z = z + Summed.apply(z, z * 2) + z.softmax(-1) * z.std() + torch.logsumexp(z, -1, keepdim=True)
        return y.mean((2, 3)) + z.mean(1)[:, :3]


class Summed(torch.autograd.Function):
    """a b, whose backward adds two tensors of its own and one that it is given."""

    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = ctx.saved_tensors
        return gradient * b + gradient * 0, gradient + a


def small(name: str) -> Callable[[], nn.Module]:
    return lambda: torchvision.models.get_model(name, weights=None)


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (Branches, 8), (small("resnet18"), 64), (small("mobilenet_v2"), 64), (small("densenet121"), 64),
        (small("squeezenet1_1"), 64), (small("convnext_tiny"), 64), (small("maxvit_t"), 224), (small("swin_t"), 64),
    ],
    ids=["branches", "resnet18", "mobilenet_v2", "densenet121", "squeezenet1_1", "convnext_tiny", "maxvit_t", "swin_t"],
)  # fmt: skip
def test_gradients_are_added_as_torch_adds_them(make: Callable[[], nn.Module], size: int) -> None:
    model, shape = make().train(), (2, 3, size, size)
    loss = nn.functional.cross_entropy(model(torch.rand(shape)), torch.zeros(2, dtype=torch.int64))
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        loss.backward()
    theirs = Counter(event.name.replace("::", ".") for event in recorded.events())
    traced = trace(model, shape, train=True, target="cpu", optimizer=None)
    ours = Counter(operation.operator for operation in traced.operations if operation.phase == BACKWARD)
    assert theirs["aten.add_"] > 0
    assert [ours[name] for name in ("aten.add", "aten.add_")] == [theirs[name] for name in ("aten.add", "aten.add_")]


def test_a_residual_connection_takes_a_tensor_less(monkeypatch: pytest.MonkeyPatch) -> None:
    # the peak of ResNet-18 lies in its last block, where the gradients of 512 channels of 7 x 7 meet
    with torch.device("meta"):
        model = small("resnet18")()
    step: dict[str, Any] = {"train": True, "optimizer_options": {"momentum": 0.9}}
    in_place = memory_timeline(trace(model, (8, 3, 224, 224), **step)).peak_bytes
    monkeypatch.setattr("costmodel.tracer.recorder.adds_in_place", lambda first, second: False)
    assert memory_timeline(trace(model, (8, 3, 224, 224), **step)).peak_bytes - in_place == 8 * 512 * 7 * 7 * 4


@pytest.mark.parametrize(
    ("tensor", "dense"),
    [
        (torch.empty(2, 3), True), (torch.empty(2, 3).t(), True), (torch.empty(1).expand(4), False),
        (torch.empty(2, 4, 3, 3).to(memory_format=torch.channels_last), True), (torch.empty(4, 4)[:, :2], False),
        (torch.empty(3, 1, 2), True), (torch.empty(()), True), (torch.empty(4, 4)[::2], False),
    ],
)  # fmt: skip
def test_dense_is_what_torch_calls_dense(tensor: torch.Tensor, dense: bool) -> None:
    assert _is_dense(tensor) is dense
