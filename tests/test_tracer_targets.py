"""What runs on CUDA and on a CPU, against torch itself: fake CUDA tensors (no GPU is needed) and real CPU tensors."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional
from torch.nn.functional import dropout, scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

from costmodel.graph import BACKWARD, FORWARD, Trace
from costmodel.memory import memory_timeline
from costmodel.tracer import autocast, trace
from costmodel.tracer.targets import is_fused_on_cpu

fake_tensor = pytest.importorskip("torch._subclasses.fake_tensor")

Stream = list[tuple[str, tuple[tuple[str, tuple[int, ...]], ...]]]
"""Operators in order, each with the dtypes and shapes of its outputs."""


class Dispatched(TorchDispatchMode):
    """Every operator below autograd."""

    def __init__(self) -> None:
        super().__init__()
        self.stream: Stream = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.replace("::", ".")
        if name not in ("aten.detach", "prim.device"):
            tensors = [t for t in (result if isinstance(result, (tuple, list)) else [result]) if torch.is_tensor(t)]
            self.stream.append((name, tuple((str(t.dtype)[6:], tuple(t.shape)) for t in tensors)))
        return result


def stream_of(traced: Trace, phases: tuple[str, ...] = (FORWARD,)) -> Stream:
    return [
        (o.operator, tuple((t.dtype, t.shape) for t in o.outputs))
        for o in traced.operations
        if o.phase in phases and o.operator != "aten.detach"
    ]


@contextmanager
def autocasting_on_cuda(dtype: torch.dtype | None) -> Iterator[None]:
    """torch.autocast("cuda") without its check that a GPU is there."""
    torch.set_autocast_enabled("cuda", dtype is not None)
    torch.set_autocast_dtype("cuda", dtype or torch.float16)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.set_autocast_dtype("cuda", torch.float16)
        torch.clear_autocast_cache()


def on_cuda(
    model: nn.Module, shape: tuple[int, ...], dtype: torch.dtype | None, layout: torch.memory_format
) -> tuple[Stream, int]:
    """Forward and loss on fake CUDA tensors: what ran, and the bytes that autograd saved (see test_memory_tracker)."""
    twin = copy.deepcopy(model).train().to(memory_format=layout)
    with fake_tensor.FakeTensorMode():
        twin._apply(lambda t: torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="cuda"))
        images = torch.empty(shape, device="cuda").to(memory_format=layout)
        labels = torch.empty(shape[0], dtype=torch.int64, device="cuda")
        there = {id(tensor.untyped_storage()) for tensor in (*twin.parameters(), *twin.buffers())}
        seen: dict[int, int] = {}
        held = []

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            held.append((storage, tensor))
            if id(storage) not in there:
                seen[id(storage)] = storage.nbytes()
            return tensor

        hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        with autocasting_on_cuda(dtype), hooks, Dispatched() as dispatched:
            functional.cross_entropy(twin(images), labels)
    return dispatched.stream, sum(seen.values())


@pytest.mark.parametrize("lower", [None, "float16", "bfloat16"])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("name", "size"), [("alexnet", 224), ("vgg11", 64), ("resnet18", 64), ("mobilenet_v2", 64), ("squeezenet1_1", 64)]
)
def test_the_forward_on_cuda(name: str, size: int, lower: str | None, channels_last: bool) -> None:
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    shape = (2, 3, size, size)
    theirs, saved = on_cuda(model, shape, getattr(torch, lower) if lower else None, layout)
    traced = trace(model, shape, train=True, optimizer=None, autocast=lower, channels_last=channels_last)
    assert memory_timeline(traced).saved_bytes == saved
    if not (
        channels_last and lower == "bfloat16"
    ):  # without a GPU torch believes that it has no bfloat16 channels last
        assert _one_batch_norm(stream_of(traced)) == _one_batch_norm(theirs)


def _one_batch_norm(stream: Stream) -> Stream:
    """cuDNN's batch norm has a name and an empty reserve of its own; the bytes are the same."""
    named = [("batch_norm", made[:3]) if name.endswith("_batch_norm") else (name, made) for name, made in stream]
    return [(name, made) for name, made in named if (name, made) != ("aten.empty", (("uint8", (0,)),))]


class Mixed(nn.Module):
    """Operators of every policy of autocast."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norms = nn.Sequential(nn.BatchNorm2d(8), nn.PReLU())
        self.embed = nn.Linear(8, 16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(32, 5)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(self.norms(self.conv(x)).flatten(2).transpose(1, 2))
        y = self.norm(self.attention(x, x, x, need_weights=False)[0] + x)
        z = torch.cat([y.softmax(-1), x], -1).exp().mean(1)
        z = self.dropout(self.head(z))
        z = z + (z**2).log1p() + self.head(torch.stack([z, z]).sum(0) @ self.head.weight)
        with torch.autocast("cpu", enabled=False):
            z = z + z.float() @ torch.ones(5, 5, device=z.device)
        return z + torch.einsum("bi,bj->bj", z, z)


@pytest.mark.parametrize("lower", [None, "bfloat16", "float16"])
def test_forward_and_backward_on_a_cpu(lower: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    # whoever watches with a mode, as this test does, sees autograd add gradients up out of place
    monkeypatch.setattr("costmodel.tracer.recorder.adds_in_place", lambda first, second: False)
    model, shape = Mixed().train(), (2, 3, 4, 4)
    labels = torch.zeros(2, dtype=torch.int64)
    with Dispatched() as dispatched:
        with torch.autocast("cpu", getattr(torch, lower or "bfloat16"), enabled=lower is not None):
            loss = functional.cross_entropy(model(torch.rand(shape)), labels)
        loss.backward()
    theirs = [entry for entry in dispatched.stream if entry != ("aten.rand", (("float32", shape),))]
    traced = trace(model, shape, train=True, target="cpu", optimizer=None, autocast=lower)
    assert stream_of(traced, (FORWARD, BACKWARD)) == theirs
    assert {parameter.tensor.dtype for parameter in traced.parameters if not parameter.buffer} == {"float32"}


class Inside(nn.Module):
    """A network that runs another in a region of its own."""

    def __init__(self, inner: nn.Module, device: str, *arguments: Any, **options: Any) -> None:
        super().__init__()
        self.inner, self.device, self.arguments, self.options = inner, device, arguments, options

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device or x.device.type, *self.arguments, **self.options):
            return self.inner(x)


@pytest.mark.parametrize("target", ["cuda", "cpu"])
@pytest.mark.parametrize("named", [False, True])
def test_a_region_of_the_forwards_own(target: str, named: bool) -> None:
    model, shape = Mixed(), (2, 3, 4, 4)
    own = trace(Inside(model, target if named else "", torch.bfloat16), shape, target=target)
    assert stream_of(own) == stream_of(trace(model, shape, target=target, autocast="bfloat16"))
    assert stream_of(own) != stream_of(trace(model, shape, target=target))
    off = trace(Inside(model, target if named else "", enabled=False), shape, target=target, autocast="bfloat16")
    assert stream_of(off) == stream_of(trace(model, shape, target=target))
    assert not torch.is_autocast_enabled(target)
    assert torch.autocast.__init__.__module__ == torch.autocast.__enter__.__module__ == "torch.amp.autocast_mode"


def test_a_region_is_that_of_a_real_run() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 8), nn.Softmax(-1))
    model, shape = Inside(layers, "cpu", torch.bfloat16), (2, 3, 4, 4)
    with Dispatched() as dispatched, torch.no_grad():
        model(torch.zeros(shape))
    assert stream_of(trace(model, shape, target="cpu")) == dispatched.stream[1:]  # the first are the zeros


@pytest.mark.parametrize(("target", "other"), [("cuda", "cpu"), ("cpu", "cuda")])
@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
def test_a_region_of_another_device(target: str, other: str) -> None:
    model, shape = Mixed(), (2, 3, 4, 4)
    for options in ({"enabled": True}, {"enabled": False}):
        for autocast_to in (None, "bfloat16"):
            plain = trace(model, shape, target=target, autocast=autocast_to)
            inside = trace(Inside(model, other, **options), shape, target=target, autocast=autocast_to)
            if target == "cpu" or autocast_to is None:  # (Mixed has a region for the CPU itself)
                assert stream_of(inside) == stream_of(plain)


@pytest.mark.parametrize("target", ["cuda", "cpu"])
def test_a_region_runs_again_under_a_checkpoint(target: str) -> None:
    block = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    model = nn.Sequential(nn.Linear(8, 8), Inside(block, "", torch.bfloat16))
    traced = trace(model, (2, 8), train=True, loss="sum", target=target, checkpoint=["1.inner"])
    products = [(o.phase, o.outputs[0].dtype) for o in traced.operations if o.operator == "aten.addmm"]
    assert products[:3] == [(FORWARD, "float32"), (FORWARD, "bfloat16"), (FORWARD, "bfloat16")]
    assert set(products[3:]) == {(BACKWARD, "bfloat16")}


def test_what_torch_answers_about_autocast() -> None:
    """float16 is CUDA's own type of autocast, bfloat16 the CPU's."""

    class Asks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            kind = x.device.type
            assert torch.amp.is_autocast_available(kind)
            x = x * 2 if torch.is_autocast_enabled(kind) else x
            return x.to(torch.get_autocast_dtype(kind))

    for target, lower, found in (
        ("cuda", None, ["aten._to_copy"]),
        ("cpu", None, ["aten._to_copy"]),
        ("cuda", "bf16", ["aten.mul", "aten._to_copy"]),
    ):
        traced = trace(Asks(), (2, 8), target=target, autocast=lower)
        assert [o.operator for o in traced.operations] == found
        assert traced.outputs[0].dtype == ("float16" if target == "cuda" and lower is None else "bfloat16")


def test_autocast_knows_the_operators_that_torch_has() -> None:
    known = {
        name.removeprefix("aten::")
        for key in ("AutocastCUDA", "AutocastCPU")
        for name in torch._C._dispatch_get_registrations_for_dispatch_key(key)
    }
    assert known >= autocast._LOWER | autocast._DTYPE | autocast._PROMOTE | autocast._PROMOTE_ON_CPU | autocast._REFUSED


def test_a_weight_used_twice_is_cast_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(self.linear(x))

    traced = trace(Twice(), (2, 8), autocast="bf16")
    casts = [o.outputs[0].shape for o in traced.operations if o.operator == "aten._to_copy"]
    assert casts == [(8, 8), (2, 8)]  # the last argument first, as GCC does it
    weight = next(s for s in traced.storages if s.nbytes == 2 * 64)
    assert weight.death == len(traced.operations) - 1  # it lives to the end of the region


@pytest.mark.parametrize(
    ("shapes", "options"),
    [
        (((2, 4, 5, 8),) * 3, {}),
        (((4, 5, 8),) * 3, {}),
        (((2, 4, 5, 8), (2, 4, 7, 8), (2, 4, 7, 8)), {"is_causal": True}),
        (((2, 4, 5, 8), (2, 4, 7, 8), (2, 4, 7, 6)), {}),
        (((2, 4, 5, 8),) * 3, {"dropout_p": 0.5}),
        (((2, 4, 5, 8), (2, 2, 5, 8), (2, 2, 5, 8)), {"enable_gqa": True}),
        (((2, 4, 5, 8),) * 3, {"mask": (5, 5)}),
        (((2, 4, 5, 8),) * 3, {"mask": (2, 1, 5, 5)}),
        (((2, 4, 5, 8),) * 3, {"mask": (1, 5, 5)}),
        (((4, 5, 8),) * 3, {"mask": (5, 5)}),
        (((4, 5, 8),) * 3, {"mask": (4, 5, 5)}),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("boolean", [False, True])
def test_attention_on_a_cpu(
    shapes: tuple[tuple[int, ...], ...], options: dict[str, Any], dtype: torch.dtype, boolean: bool
) -> None:
    given = dict(options)
    if "mask" in given:
        size = given.pop("mask")
        given["attn_mask"] = torch.ones(size, dtype=torch.bool) if boolean else torch.ones(size, dtype=dtype)
    elif boolean:
        return

    class Attention(nn.Module):
        def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
            return functional.scaled_dot_product_attention(*tensors, **given)

    tensors = [torch.rand(shape).to(dtype).requires_grad_() for shape in shapes]
    real = trace(Attention(), tensors, run=True)
    assert stream_of(trace(Attention(), tensors, target="cpu")) == stream_of(real)
    fused = any("flash_attention_for_cpu" in o.operator for o in real.operations)
    four = [tensor if tensor.dim() == 4 else tensor[None] for tensor in tensors]
    mask, dropout_p = given.get("attn_mask"), given.get("dropout_p", 0.0)
    if all(tensor.dim() == 4 for tensor in tensors):
        assert is_fused_on_cpu(*four, mask, dropout_p, given.get("enable_gqa", False)) is fused
    assert any("flash" in o.operator for o in trace(Attention(), tensors, target="meta").operations) is False


def test_a_mask_on_cuda_is_padded_to_sixteen() -> None:
    class Masked(nn.Module):
        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return functional.scaled_dot_product_attention(x, x, x, attn_mask=mask)

    def made(tokens: int) -> list[tuple[str, int]]:
        traced = trace(Masked(), [(2, 4, tokens, 8), torch.ones(tokens, tokens, dtype=torch.bool)])
        return [(o.operator, o.outputs[0].numel) for o in traced.operations if not o.view]

    attended = ("aten._scaled_dot_product_efficient_attention", 2 * 4 * 32 * 8)
    assert made(32)[2:] == [("aten.where", 32 * 32), attended]
    assert made(20)[3] == ("aten.constant_pad_nd", 2 * 4 * 20 * 32)


def test_however_a_function_was_imported() -> None:
    class ByName(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return scaled_dot_product_attention(dropout(x), x, super().forward(x))

    traced = trace(ByName(8, 8), (1, 2, 4, 8), train=True, loss="sum", optimizer=None)
    operators = [o.operator for o in traced.operations]
    assert operators[0] == "aten.native_dropout"
    assert "aten._scaled_dot_product_efficient_attention" in operators


def test_no_trace_is_left_of_a_target() -> None:
    x = torch.rand(1, 2, 4, 8, device="meta", requires_grad=True)
    with pytest.raises(Exception, match="on purpose"):
        trace(_Failing(8, 8), x, train=True, autocast="bfloat16")
    assert not torch.is_autocast_enabled("cpu")
    assert not torch.is_autocast_enabled("cuda")
    assert torch.clear_autocast_cache.__module__ == "torch"
    with Dispatched() as dispatched:
        functional.dropout(x)
    assert [name for name, _ in dispatched.stream] == ["aten.empty_like", "aten.bernoulli_", "aten.div_", "aten.mul"]


class _Failing(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("on purpose")


def test_two_targets_at_once() -> None:
    import importlib
    from concurrent.futures import ThreadPoolExecutor

    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout())

    def dropouts(target: str) -> list[str]:
        traced = trace(model, (2, 8), train=True, loss="sum", optimizer="sgd", target=target)
        return [o.operator for o in traced.operations if o.layer == "1" and o.phase == FORWARD]

    def switches() -> tuple[bool, int]:
        lists = importlib.import_module("torch.optim.optimizer")._get_foreach_kernels_supported_devices()
        return torch.backends.mha.get_fastpath_enabled(), lists.count("meta")

    before, targets = switches(), ["cuda", "cpu"] * 20
    with ThreadPoolExecutor(4) as pool:
        for target, found in zip(targets, pool.map(dropouts, targets), strict=True):
            assert ("aten.native_dropout" in found) is (target == "cuda")
    assert switches() == before == (True, 0)


NORMS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "layer": (lambda: nn.LayerNorm(8), (4, 8)),
    "layer without weights": (lambda: nn.LayerNorm(8, elementwise_affine=False), (4, 8)),
    "batch": (lambda: nn.BatchNorm2d(8), (4, 8, 5, 5)),
    "instance": (lambda: nn.InstanceNorm2d(8, affine=True), (4, 8, 5, 5)),
    "group": (lambda: nn.GroupNorm(2, 8), (4, 8, 5)),
}


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
@pytest.mark.parametrize(("make", "shape"), NORMS.values(), ids=NORMS)
def test_statistics_have_the_type_that_a_cpu_keeps(make: Any, shape: tuple[int, ...], dtype: str, train: bool) -> None:
    options: dict[str, Any] = {"dtype": dtype, **({"train": True, "loss": "sum"} if train else {})}
    model = nn.Sequential(nn.Linear(shape[-1], shape[-1]), make())
    ours, real = (trace(model, shape, **how, **options) for how in ({"target": "cpu"}, {"run": True}))
    assert stream_of(ours, (FORWARD, BACKWARD)) == stream_of(real, (FORWARD, BACKWARD))
    assert memory_timeline(ours).peak_bytes == memory_timeline(real).peak_bytes
