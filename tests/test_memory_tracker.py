"""Memory on the CPU target, byte for byte against two programs of torch's own.

Peaks against `MemTracker` on fake tensors, which runs a training loop as a person would write it; saved bytes against
`saved_tensors_hooks` on real tensors. Both see what torch does on a CPU; neither shares code with ours.
"""

from __future__ import annotations

import itertools
import sys
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from costmodel.errors import InputError, TraceError
from costmodel.memory import memory_timeline
from costmodel.peers.mem_tracker import tracked_peak
from costmodel.tracer import trace

STEPS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd"},
    "sgd with momentum": {"optimizer": "sgd", "optimizer_options": {"momentum": 0.9}},
    "sgd with weight decay": {"optimizer": "sgd", "optimizer_options": {"weight_decay": 1e-4}},
    "adam": {"optimizer": "adam"},
    "adamw": {"optimizer": "adamw"},
}


@pytest.fixture(autouse=True)
def as_under_a_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """MemTracker is a dispatch mode, under which autograd makes a new tensor of every sum of two gradients.

    Without one it adds in place (test_tracer_accumulation), so that a network with residual connections takes less.
    """
    monkeypatch.setattr("costmodel.tracer.recorder.adds_in_place", lambda first, second: False)


def torchvisions(name: str) -> nn.Module:
    """The network on the meta device."""
    with torch.device("meta"):
        return torchvision.models.get_model(name, weights=None)


class Checkpointed(nn.Module):
    """A block that runs under a checkpoint."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, *args: Any) -> Any:
        return checkpoint(self.block, *args, use_reentrant=False)


def under_checkpoint(model: nn.Module, blocks: tuple[str, ...]) -> nn.Module:
    for name in blocks:
        model.set_submodule(name, Checkpointed(model.get_submodule(name)))
    return model


def saved_bytes(model: nn.Module, images: torch.Tensor, autocast: torch.dtype | None = None) -> int:
    """Bytes of the distinct storages, apart from parameters and buffers, that autograd hands to its hooks."""
    there = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    seen: dict[int, int] = {}
    held = []  # so that no address is given twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        held.append(storage)
        if storage.data_ptr() not in there and storage.nbytes():
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()

    region = torch.autocast("cpu", autocast) if autocast else nullcontext()
    labels = torch.zeros(images.shape[0], dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), region:
        functional.cross_entropy(model.train()(images), labels)
    return sum(seen.values())


NETWORKS = {"alexnet": 8, "vgg11": 2, "vgg16": 2, "resnet18": 4, "mobilenet_v2": 16, "vit_b_16": 2}
"""Networks with a batch; the other batch is 1."""


LONG = ("resnet18", "mobilenet_v2", "vit_b_16")
"""Networks of which the tracker takes seconds for a step."""


@pytest.mark.parametrize("name", NETWORKS)
def test_the_peak_is_the_trackers(name: str) -> None:
    model = torchvisions(name)
    steps = [STEPS["sgd with momentum"], STEPS["adam"]] if name in LONG else list(STEPS.values())
    cases = (
        zip((1, NETWORKS[name]), steps, strict=True) if name in LONG else itertools.product((1, NETWORKS[name]), steps)
    )
    for batch, step in cases:
        shape = (batch, 3, 224, 224)
        memory = memory_timeline(trace(model, shape, train=True, target="cpu", **step))
        assert memory.peak_bytes == tracked_peak(model, shape, **step), (batch, step)


@pytest.mark.parametrize(
    ("name", "size", "batches"),
    [
        ("alexnet", 224, (1, 2)),
        ("vgg11", 64, (1, 2)),
        ("vgg16", 32, (1, 2)),
        ("resnet18", 64, (2, 3)),
        ("mobilenet_v2", 64, (2, 3)),
        ("vit_b_16", 224, (1, 2)),
        ("swin_t", 64, (1, 2)),
    ],
)
def test_saved_bytes_are_those_of_the_hooks(name: str, size: int, batches: tuple[int, ...]) -> None:
    model = torchvision.models.get_model(name, weights=None)
    for batch in batches:
        shape = (batch, 3, size, size)
        memory = memory_timeline(trace(model, shape, train=True, target="cpu", optimizer=None))
        assert memory.saved_bytes == saved_bytes(model, torch.rand(shape))
        assert memory.saved_bytes == sum(memory.saved_by_layer.values())


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
    traced = trace(
        torchvisions(name), (batch, 3, 224, 224), train=True, target="cpu", optimizer_options={"momentum": 0.9}
    )
    memory = memory_timeline(traced)
    assert memory.peak_bytes == peak
    assert memory.peak_operation.phase == "backward"


WAYS: dict[str, dict[str, Any]] = {
    "first step": {"first_step": True},
    "gradients kept": {"set_to_none": False},
    "gradients kept, first step": {"set_to_none": False, "first_step": True},
    "three micro-batches": {"accumulate": 3},
    "three micro-batches, gradients kept": {"accumulate": 3, "set_to_none": False},
    "channels last": {"channels_last": True},
    "mixed precision": {"autocast": "bfloat16"},
    "mixed precision, three micro-batches": {"autocast": "bfloat16", "accumulate": 3},
    "mixed precision, channels last": {"autocast": "float16", "channels_last": True},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "size"), [("alexnet", 224), ("resnet18", 64)])
@pytest.mark.parametrize("step", ["sgd with momentum", "adam"])
def test_every_way_of_training(name: str, size: int, step: str, way: str) -> None:
    asked = STEPS[step] | WAYS[way]
    model, shape = torchvisions(name), (4, 3, size, size)
    traced = trace(model, shape, train=True, target="cpu", **asked)
    # Fake tensors are wrong about batch norm in mixed precision: a real CPU keeps its statistics in float32.
    fake = not ("autocast" in asked and name == "resnet18")
    assert memory_timeline(traced).peak_bytes == tracked_peak(model, shape, fake=fake, **asked)


KERNELS: dict[str, tuple[str, dict[str, Any]]] = {
    "lists, sgd": ("sgd", {"foreach": True}),
    "lists, sgd with weight decay": ("sgd", {"foreach": True, "weight_decay": 1e-4}),
    "lists, sgd with nesterov": ("sgd", {"foreach": True, "momentum": 0.9, "nesterov": True}),
    "lists, adam": ("adam", {"foreach": True}),
    "lists, adam with weight decay": ("adam", {"foreach": True, "weight_decay": 0.1}),
    "lists, adamw with amsgrad": ("adamw", {"foreach": True, "amsgrad": True}),
    "fused, sgd": ("sgd", {"fused": True, "momentum": 0.9}),
    "fused, adam": ("adam", {"fused": True}),
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("first_step", [False, True])
def test_every_kernel_of_an_optimizer(kernel: str, first_step: bool) -> None:
    optimizer, options = KERNELS[kernel]
    asked = {"optimizer": optimizer, "optimizer_options": options, "first_step": first_step}
    model, shape = torchvisions("alexnet"), (1, 3, 224, 224)
    traced = trace(model, shape, train=True, target="cpu", **asked)
    assert memory_timeline(traced).peak_bytes == tracked_peak(model, shape, **asked)


class Checkpoints(nn.Module):
    """A network that calls torch.utils.checkpoint itself, on a module and on a function."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.block = nn.Sequential(
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(inplace=True), nn.Dropout(0.2), nn.Conv2d(16, 8, 3, padding=1)
        )
        self.head = nn.Linear(8 * 64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        x = checkpoint(self.block, x, use_reentrant=self.reentrant)
        x = checkpoint(lambda y: torch.sigmoid(y * 2).exp(), x, use_reentrant=self.reentrant)
        return self.head(x.flatten(1))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("autocast", [None, "bfloat16"])
def test_a_network_that_checkpoints_itself(reentrant: bool, autocast: str | None) -> None:
    shape, dtype = (4, 3, 8, 8), getattr(torch, autocast) if autocast else None
    model = Checkpoints(reentrant)
    memory = memory_timeline(trace(model, shape, train=True, target="cpu", autocast=autocast))
    assert memory.peak_bytes == tracked_peak(model, shape, autocast=autocast, fake=False)
    assert memory.saved_bytes == saved_bytes(Checkpoints(reentrant), torch.rand(shape), dtype)
    recomputed = [o for o in memory.trace.of_phase("backward") if o.layer == "block.0"]
    # reentrant runs the whole block again; the other stops before the last convolution, whose output nobody needs
    convolutions = [o.layer for o in memory.trace.of_phase("backward") if o.operator == "aten.convolution"]
    assert convolutions == (["block.0", "block.3"] if reentrant else ["block.0"])
    assert recomputed[-1].operator == ("aten._to_copy" if autocast else "aten.convolution_backward")


@pytest.mark.parametrize("autocast", [None, "bfloat16"])
@pytest.mark.parametrize(
    ("name", "size", "blocks"),
    [
        ("alexnet", 224, ("features",)),
        ("resnet18", 64, ("layer1", "layer2.0")),
        ("vgg11", 64, ("features", "classifier")),
    ],
)
def test_checkpointed_blocks(name: str, size: int, blocks: tuple[str, ...], autocast: str | None) -> None:
    model, shape = torchvisions(name), (4, 3, size, size)
    dtype = getattr(torch, autocast) if autocast else None
    memory = memory_timeline(trace(model, shape, train=True, target="cpu", checkpoint=blocks, autocast=autocast))
    plain = memory_timeline(trace(model, shape, train=True, target="cpu", autocast=autocast))
    assert memory.saved_bytes < plain.saved_bytes
    fake = not (name == "resnet18" and autocast)
    assert memory.peak_bytes == tracked_peak(under_checkpoint(model, blocks), shape, autocast=autocast, fake=fake)
    real = under_checkpoint(torchvision.models.get_model(name, weights=None), blocks)
    assert memory.saved_bytes == saved_bytes(real, torch.rand(shape), dtype)


@pytest.mark.parametrize("autocast", ["bfloat16", "float16"])
@pytest.mark.parametrize(
    ("name", "size"), [("alexnet", 224), ("resnet18", 64), ("vit_b_16", 224), ("efficientnet_b0", 64)]
)
def test_saved_bytes_of_mixed_precision(name: str, size: int, autocast: str) -> None:
    model, shape = torchvision.models.get_model(name, weights=None), (2, 3, size, size)
    memory = memory_timeline(trace(model, shape, train=True, target="cpu", autocast=autocast))
    assert memory.saved_bytes == saved_bytes(model, torch.rand(shape), getattr(torch, autocast))


@pytest.mark.parametrize(("name", "size"), [("alexnet", 224), ("resnet18", 64), ("mobilenet_v2", 64)])
def test_saved_bytes_with_channels_last(name: str, size: int) -> None:
    model, shape = torchvision.models.get_model(name, weights=None), (2, 3, size, size)
    memory = memory_timeline(trace(model, shape, train=True, target="cpu", channels_last=True))
    images = torch.rand(shape).to(memory_format=torch.channels_last)
    assert memory.saved_bytes == saved_bytes(model.to(memory_format=torch.channels_last), images)


def test_the_tracker_sees_a_tied_weight_once_and_leaves_the_module_alone() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)
            self.second.weight = self.first.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x).relu())

    model = Tied().eval()
    before = {name: (id(p), p.clone()) for name, p in model.named_parameters()}
    for asked in STEPS.values():
        memory = memory_timeline(trace(model, (4, 64), train=True, target="cpu", **asked))
        assert memory.peak_bytes == tracked_peak(model, (4, 64), **asked)
    assert not model.training
    for name, parameter in model.named_parameters():
        assert id(parameter) == before[name][0]
        assert torch.equal(parameter, before[name][1])
        assert parameter.grad is None


@pytest.mark.parametrize(
    ("asked", "error", "says"),
    [
        ({"optimizer": "adma"}, InputError, "Did you mean adam"),
        ({"optimizer": None}, InputError, "a named optimizer"),
        ({"loss": "sum"}, InputError, "about cross entropy"),
        ({"checkpoint": "0"}, InputError, "no checkpoints"),
        ({"momentum": 0.9}, InputError, "no option 'momentum'"),
        ({"autocast": "int8"}, InputError, "autocast runs in"),
        ({"optimizer_options": {"lr": -1}}, TraceError, "Invalid learning rate"),
    ],
)
def test_what_the_tracker_cannot_be_asked(asked: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        tracked_peak(nn.Sequential(nn.Linear(4, 2)), (1, 4), **asked)


def test_a_network_that_the_tracker_cannot_run() -> None:
    with pytest.raises(TraceError, match="MemTracker cannot run this network: RuntimeError"):
        tracked_peak(nn.Linear(4, 2), (1, 5))
    frozen = nn.Linear(4, 2)
    frozen.bias.requires_grad_(False)
    with pytest.raises(TraceError, match="cannot register a hook"):  # the tracker's own limit
        tracked_peak(frozen, (1, 4))
    with pytest.raises(InputError, match="nothing to train"):
        tracked_peak(nn.ReLU(), (1, 5))


def test_a_torch_without_the_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.distributed._tools.mem_tracker", None)
    with pytest.raises(TraceError, match=r"has no torch\.distributed\._tools\.mem_tracker\.MemTracker"):
        tracked_peak(nn.Linear(4, 2), (1, 4))
