"""Memory on the CPU target, byte for byte against two programs of torch's own.

Peaks against `MemTracker` on fake tensors, which runs a training loop as a person would write it; saved bytes against
`saved_tensors_hooks` on real tensors. Both see what torch does on a CPU; neither shares code with ours.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from costmodel.memory import remember
from costmodel.tracer import OPTIMIZERS, trace

fake_tensor = pytest.importorskip("torch._subclasses.fake_tensor")
mem_tracker = pytest.importorskip("torch.distributed._tools.mem_tracker")

STEPS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("sgd", {}),
    "sgd with momentum": ("sgd", {"momentum": 0.9}),
    "sgd with weight decay": ("sgd", {"weight_decay": 1e-4}),
    "adam": ("adam", {}),
    "adamw": ("adamw", {}),
}


def torchvisions(name: str) -> nn.Module:
    """The network on the meta device."""
    with torch.device("meta"):
        return torchvision.models.get_model(name, weights=None)


@contextmanager
def on_cpu(model: nn.Module, layout: torch.memory_format, fake: bool) -> Iterator[nn.Module]:
    """A network on the meta device as CPU tensors, fake or real."""
    twin = copy.deepcopy(model).train().to(memory_format=layout)
    with fake_tensor.FakeTensorMode() if fake else nullcontext():
        yield twin._apply(lambda tensor: torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype).zero_())


def tracked_peak(
    model: nn.Module,
    shape: tuple[int, ...],
    optimizer: str = "sgd",
    options: dict[str, Any] | None = None,
    *,
    first_step: bool = False,
    set_to_none: bool = True,
    accumulate: int = 1,
    checkpointed: tuple[str, ...] = (),
    autocast: torch.dtype | None = None,
    channels_last: bool = False,
    fake: bool = True,
) -> int:
    """MemTracker's peak over one step: the first, or one of the steady state. `model` is on the meta device."""
    layout = torch.channels_last if channels_last else torch.preserve_format
    with on_cpu(model, layout, fake) as network:
        for name in checkpointed:
            under_checkpoint(network.get_submodule(name))
        step = OPTIMIZERS[optimizer](network.parameters(), lr=1e-3, **(options or {}))
        images, labels = torch.randn(shape).to(memory_format=layout), torch.zeros(shape[0], dtype=torch.int64)
        region = torch.autocast("cpu", autocast) if autocast else nullcontext()

        tracker = mem_tracker.MemTracker()

        def take_a_step() -> None:
            for _ in range(accumulate):
                tracker.reset_mod_stats()
                with region:
                    loss = functional.cross_entropy(network(images), labels)
                    if accumulate > 1:
                        loss = loss / accumulate
                loss.backward()
            step.step()
            step.zero_grad(set_to_none=set_to_none)

        if not first_step:  # the optimizer's state, and gradients of zero where they stay
            for parameter in network.parameters():
                parameter.grad = torch.zeros_like(parameter)
            step.step()
            step.zero_grad(set_to_none=set_to_none)
        tracker.track_external(network, step, images, labels)
        with tracker:
            take_a_step()
        return tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]


def under_checkpoint(module: nn.Module) -> None:
    forward = module.forward
    module.forward = lambda *args: checkpoint(forward, *args, use_reentrant=False)  # type: ignore[method-assign]


def saved_bytes(
    model: nn.Module, images: torch.Tensor, autocast: torch.dtype | None = None, checkpointed: tuple[str, ...] = ()
) -> int:
    """Bytes of the distinct storages, apart from parameters and buffers, that autograd hands to its hooks."""
    for name in checkpointed:
        under_checkpoint(model.get_submodule(name))
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


@pytest.mark.parametrize("name", NETWORKS)
def test_the_peak_is_the_trackers(name: str) -> None:
    cases = [(NETWORKS[name], step) for step in STEPS] + [(1, "sgd with momentum")]
    for batch, step in cases:
        batch += batch == 1 and name in ("resnet18", "mobilenet_v2")  # a batch norm wants more than one
        optimizer, options = STEPS[step]
        model, shape = torchvisions(name), (batch, 3, 224, 224)
        traced = trace(model, shape, train=True, target="cpu", optimizer=optimizer, optimizer_options=options)
        assert remember(traced).peak_bytes == tracked_peak(model, shape, optimizer, options), (batch, step)


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
        memory = remember(trace(model, shape, train=True, target="cpu", optimizer=None))
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
    memory = remember(traced)
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
    asked = WAYS[way]
    optimizer, options = STEPS[step]
    model, shape = torchvisions(name), (4, 3, size, size)
    traced = trace(model, shape, train=True, target="cpu", optimizer=optimizer, optimizer_options=options, **asked)
    theirs = asked
    if "autocast" in asked:
        # Fake tensors are wrong about batch norm in mixed precision: a real CPU keeps its statistics in float32.
        theirs = asked | {"autocast": getattr(torch, asked["autocast"]), "fake": name != "resnet18"}
    assert remember(traced).peak_bytes == tracked_peak(model, shape, optimizer, options, **theirs)


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
    model, shape = torchvisions("alexnet"), (1, 3, 224, 224)
    traced = trace(
        model,
        shape,
        train=True,
        target="cpu",
        optimizer=optimizer,
        optimizer_options=options,
        first_step=first_step,
    )
    assert remember(traced).peak_bytes == tracked_peak(model, shape, optimizer, options, first_step=first_step)


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
    memory = remember(trace(model, shape, train=True, target="cpu", autocast=autocast))
    assert memory.peak_bytes == tracked_peak(model.to("meta"), shape, autocast=dtype, fake=False)
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
    memory = remember(trace(model, shape, train=True, target="cpu", checkpoint=blocks, autocast=autocast))
    fake = not (name == "resnet18" and autocast)
    assert memory.peak_bytes == tracked_peak(model, shape, checkpointed=blocks, autocast=dtype, fake=fake)
    real = torchvision.models.get_model(name, weights=None)
    assert memory.saved_bytes == saved_bytes(real, torch.rand(shape), dtype, blocks)
    assert memory.saved_bytes < remember(trace(model, shape, train=True, target="cpu", autocast=autocast)).saved_bytes


@pytest.mark.parametrize("autocast", ["bfloat16", "float16"])
@pytest.mark.parametrize(
    ("name", "size"), [("alexnet", 224), ("resnet18", 64), ("vit_b_16", 224), ("efficientnet_b0", 64)]
)
def test_saved_bytes_of_mixed_precision(name: str, size: int, autocast: str) -> None:
    model, shape = torchvision.models.get_model(name, weights=None), (2, 3, size, size)
    memory = remember(trace(model, shape, train=True, target="cpu", autocast=autocast))
    assert memory.saved_bytes == saved_bytes(model, torch.rand(shape), getattr(torch, autocast))


@pytest.mark.parametrize(("name", "size"), [("alexnet", 224), ("resnet18", 64), ("mobilenet_v2", 64)])
def test_saved_bytes_with_channels_last(name: str, size: int) -> None:
    model, shape = torchvision.models.get_model(name, weights=None), (2, 3, size, size)
    memory = remember(trace(model, shape, train=True, target="cpu", channels_last=True))
    images = torch.rand(shape).to(memory_format=torch.channels_last)
    assert memory.saved_bytes == saved_bytes(model.to(memory_format=torch.channels_last), images)
