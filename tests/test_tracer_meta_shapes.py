"""Every shape function of `costmodel.tracer.meta_shapes` against torch's own answer, over many shapes and layouts."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import costmodel as cm
from costmodel.tracer.meta_shapes import IN_PLACE, META_SHAPES
from costmodel.tracer.recorder import Recorder
from costmodel.tracer.schema import read_arguments, schema_of

aten = torch.ops.aten
sizes = st.integers(1, 5)
layouts = st.sampled_from(["contiguous", "channels_last", "transposed"])
dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.int64])


def laid_out(shape: tuple[int, ...], layout: str, dtype: torch.dtype = torch.float32, device: str = "meta") -> Any:
    if layout == "channels_last" and len(shape) == 4:
        return torch.zeros(shape, dtype=dtype, device=device).contiguous(memory_format=torch.channels_last)
    if layout == "transposed" and len(shape) > 1:
        return torch.zeros((*shape[:-2], shape[-1], shape[-2]), dtype=dtype, device=device).transpose(-1, -2)
    return torch.zeros(shape, dtype=dtype, device=device)


def made_by(operator: Any, *args: Any) -> Any:
    """What the operator's shape function says of its results; None where it leaves them to torch."""
    recorder, schema = Recorder(), schema_of(operator)
    tensors, attributes = read_arguments(schema, args, {})
    results = META_SHAPES[operator]({name: recorder.spec(tensor) for name, tensor in tensors.items()}, attributes)
    if results is None:
        return None
    results = (args[0],) if results is IN_PLACE else tuple(recorder.fill(blank)[0] for blank in results)
    return results if schema.several else results[0]


def look(result: Any) -> Any:
    if isinstance(result, (tuple, list)):
        return [look(item) for item in result]
    # where a size is 1 its stride leads nowhere
    steps = tuple(stride if size > 1 else 0 for size, stride in zip(result.shape, result.stride(), strict=True))
    return (tuple(result.shape), steps, result.dtype, result.storage_offset())


def agree(operator: Any, *args: Any) -> bool:
    """Whether a shape function answered; if it did, its answer must be torch's, and torch must have one."""
    made = made_by(operator, *args)
    if made is not None:
        assert look(made) == look(operator(*args))
    return made is not None


POINTWISE = [
    op for op in META_SHAPES if op._schema.name.split("::")[1].rstrip("_") in ("relu", "gelu", "hardtanh", "tanh")
]
BINARY = [op for op in META_SHAPES if op._schema.name.split("::")[1].rstrip("_") in ("add", "mul", "div", "sub")]


def test_the_table_holds_what_networks_run() -> None:
    names = {op._schema.name for op in META_SHAPES}
    assert {"aten::relu_", "aten::addmm", "aten::convolution", "aten::native_batch_norm", "aten::add_"} <= names
    assert len(POINTWISE) >= 6
    assert len(BINARY) >= 12


@settings(max_examples=60, deadline=None)
@given(st.lists(sizes, min_size=0, max_size=4), layouts, st.sampled_from([torch.float32, torch.bfloat16]))
def test_unary(shape: list[int], layout: str, dtype: torch.dtype) -> None:
    for operator in POINTWISE:
        answered = agree(operator, laid_out(tuple(shape), layout, dtype))
        assert answered or layout != "contiguous" or len(shape) == 4


@settings(max_examples=60, deadline=None)
@given(st.lists(sizes, min_size=1, max_size=4), layouts, layouts, dtypes, dtypes, st.booleans())
def test_binary(
    shape: list[int], first: str, second: str, dtype: torch.dtype, other: torch.dtype, broadcast: bool
) -> None:
    a = laid_out(tuple(shape), first, dtype)
    b = laid_out((1, *shape[1:]) if broadcast else tuple(shape), second, other)
    for operator in BINARY:
        fits_in_place = not operator._schema.name.endswith("_") or torch.can_cast(torch.result_type(a, b), a.dtype)
        if (
            operator._overloadname == "Tensor"
            and fits_in_place
            and (dtype.is_floating_point or "div" not in str(operator))
        ):
            agree(operator, a, b)
        elif operator._overloadname == "Scalar" and dtype.is_floating_point:
            agree(operator, a, 2.5)


@settings(max_examples=100, deadline=None)
@given(sizes, sizes, sizes, layouts, layouts, dtypes)
def test_matrix_products(m: int, k: int, n: int, first: str, second: str, dtype: torch.dtype) -> None:
    a, b = laid_out((m, k), first, dtype), laid_out((k, n), second, dtype)
    assert agree(aten.mm.default, a, b)
    assert agree(aten.addmm.default, laid_out((n,), "contiguous", dtype), a, b)
    assert made_by(aten.mm.default, a, laid_out((k + 1, n), second, dtype)) is None
    assert made_by(aten.addmm.default, laid_out((n + 1,), "contiguous", dtype), a, b) is None


VIEWS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "contiguous": lambda maps: maps.permute(0, 3, 1, 2).contiguous(),
    "channels last": lambda maps: maps.permute(0, 3, 1, 2),
    "tokens": lambda maps: maps.flatten(1, 2).transpose(1, 2).reshape(len(maps), -1, *maps.shape[1:3]),
    "tokens behind a class's": lambda maps: maps.flatten(1, 2)[:, 1:].transpose(1, 2)[:, :, None],
    "half of the channels": lambda maps: maps.permute(0, 3, 1, 2).chunk(2, 1)[0],
    "other channels, contiguous": lambda maps: maps.permute(0, 3, 1, 2).contiguous()[:, 1:],
    "a crop": lambda maps: maps.permute(0, 3, 1, 2)[:, :, 1:, 1:],
    "every second pixel": lambda maps: maps.permute(0, 3, 1, 2)[:, :, ::2, ::2],
    "a row for all": lambda maps: maps.permute(0, 3, 1, 2)[:, :, :1].expand(-1, -1, 6, -1),
    "turned": lambda maps: maps.permute(0, 3, 2, 1),
}
"""Of maps of shape (batch, height, width, channels): what a convolution may be given."""


def convolved(x: torch.Tensor, weight: torch.Tensor, transposed: bool, *rest: Any) -> None:
    """The shape function's answer is that of a real convolution on a CPU, strides too."""
    spatial = x.dim() - 2
    stride, padding, dilation, groups, bias = rest or (2, weight.shape[-1] // 2, 1, 1, None)
    more = [int(transposed and max(stride, dilation) > 1)] * spatial
    arguments = ([stride] * spatial, [padding] * spatial, [dilation] * spatial, transposed, more, groups)
    real = aten.convolution.default(x, weight, bias, *arguments)
    twins = [None if t is None else torch.empty_strided(t.shape, t.stride(), device="meta") for t in (x, weight, bias)]
    made = made_by(aten.convolution.default, *twins, *arguments)
    assert look(made) == look(real)


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("transposed", [False, True])
def test_a_convolution_is_laid_out_as_the_real_one(view: Callable[[Any], Any], transposed: bool) -> None:
    grid = itertools.product((1, 2), (2, 8), (2, 6), (1, 3), (False, True), ("contiguous", "channels_last"))
    for batch, channels, side, window, depthwise, layout in grid:
        x = view(torch.zeros(batch, side, side, channels))
        groups = x.shape[1] if depthwise else 1
        weight = laid_out((x.shape[1], x.shape[1] // groups, window, window), layout, device="cpu")
        convolved(x, weight, transposed, 2, window // 2, 1, groups, None)


@settings(max_examples=150, deadline=None)
@given(
    *(sizes, sizes, sizes, st.integers(3, 9), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
    *(st.integers(0, 2), st.integers(1, 2), layouts, layouts, st.booleans(), st.booleans()),
)
def test_convolution_against_the_real_one(
    n: int, channels: int, k: int, side: int, window: int, groups: int, stride: int, padding: int, dilation: int,
    first: str, second: str, with_bias: bool, transposed: bool,
) -> None:  # fmt: skip
    x = laid_out((n, channels * groups, side, side + 1), first, device="cpu")
    shape = (channels * groups, k) if transposed else (k * groups, channels)
    weight = laid_out((*shape, window, window), second, device="cpu")
    bias = torch.zeros(k * groups) if with_bias else None
    if transposed and (side - 1) * stride + dilation * (window - 1) + 1 <= 2 * padding:
        return  # nothing is left
    if not transposed and side + 2 * padding < dilation * (window - 1) + 1:
        with pytest.raises(RuntimeError, match="greater than actual input size"):
            convolved(x, weight, transposed, stride, padding, dilation, groups, bias)
        return
    convolved(x, weight, transposed, stride, padding, dilation, groups, bias)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_signal_is_an_image_of_one_row(transposed: bool) -> None:
    for batch, channels, length, window in itertools.product((1, 2), (1, 8), (1, 6), (1, 3)):
        signals, filters = torch.zeros(batch, length, channels), torch.zeros(channels, window, channels)
        for x in (signals.transpose(1, 2), signals.transpose(1, 2).contiguous(), signals.reshape(batch, channels, -1)):
            for weight in (
                filters.transpose(1, 2),
                filters.transpose(1, 2).clone(memory_format=torch.contiguous_format),
            ):
                convolved(x, weight, transposed)


def test_convolution_refuses_what_does_not_fit() -> None:
    x, weight = torch.empty(1, 3, 8, 8, device="meta"), torch.empty(4, 2, 3, 3, device="meta")
    assert made_by(aten.convolution.default, x, weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1) is None
    assert made_by(aten.convolution.default, x, weight, None, [0, 0], [0, 0], [1, 1], False, [0, 0], 1) is None


@settings(max_examples=100, deadline=None)
@given(sizes, sizes, st.integers(1, 9), st.integers(1, 3), st.integers(0, 2), st.integers(0, 1), layouts, st.booleans())
def test_pooling(n: int, c: int, side: int, window: int, stride: int, padding: int, layout: str, ceil: bool) -> None:
    x = laid_out((n, c, side, side + 2), layout)
    steps = [stride] if stride else []
    made = made_by(aten.max_pool2d_with_indices.default, x, [window], steps, [padding], [1], ceil)
    if made is not None:
        assert look(made) == look(aten.max_pool2d_with_indices.default(x, [window], steps, [padding], [1], ceil))
    agree(aten._adaptive_avg_pool2d.default, x, [window, window])
    average = made_by(aten.avg_pool2d.default, x, [window], steps, [padding], ceil, False)
    if average is not None:
        assert look(average) == look(aten.avg_pool2d.default(x, [window], steps, [padding], ceil, False))
    assert (average is None) == (made is None)


@settings(max_examples=60, deadline=None)
@given(st.lists(sizes, min_size=1, max_size=4), st.sets(st.integers(-4, 3), max_size=3), layouts, st.booleans())
def test_mean(shape: list[int], dims: set[int], layout: str, keepdim: bool) -> None:
    rank = len(shape)
    inside = [d for d in dims if -rank <= d < rank]
    if len({d % rank for d in inside}) == len(inside):  # torch refuses one named twice
        agree(aten.mean.dim, laid_out(tuple(shape), layout), inside, keepdim)
    assert made_by(aten.mean.dim, laid_out(tuple(shape), layout), [rank], keepdim) is None
    assert made_by(aten.mean.dim, laid_out((2, 3), "contiguous"), [1, -1], keepdim) is None


@settings(max_examples=60, deadline=None)
@given(st.lists(sizes, min_size=2, max_size=4), layouts, st.booleans())
def test_normalisation(shape: list[int], layout: str, training: bool) -> None:
    x = laid_out(tuple(shape), layout)
    channel = [torch.empty(shape[1], device="meta") for _ in range(4)]
    if x.numel() > shape[1]:  # torch refuses to normalise one value a channel
        assert (
            agree(aten.native_batch_norm.default, x, *channel, training, 0.1, 1e-5)
            or layout != "contiguous"
            or x.dim() == 4
        )
    last = [torch.empty(shape[-1], device="meta") for _ in range(2)]
    agree(aten.native_layer_norm.default, x, [shape[-1]], *last, 1e-5)
    agree(aten._softmax.default, x, -1, False)


@settings(max_examples=60, deadline=None)
@given(st.lists(sizes, min_size=1, max_size=4), st.lists(sizes, min_size=1, max_size=3), st.integers(0, 3), layouts)
def test_cat(shape: list[int], along: list[int], dim: int, layout: str) -> None:
    dim %= len(shape)
    tensors = [laid_out((*shape[:dim], size, *shape[dim + 1 :]), layout) for size in along]
    agree(aten.cat.default, tensors, dim)
    assert made_by(aten.cat.default, [*tensors, laid_out((*shape, 2), layout)], dim) is None


@pytest.mark.parametrize("operator", [aten.relu.default, aten.relu_.default], ids=str)
def test_whole_numbers_are_left_to_torch(operator: Any) -> None:
    assert made_by(operator, torch.zeros(3, dtype=torch.int64, device="meta")) is None


@pytest.mark.parametrize("transposed", [False, True])
def test_volumes(transposed: bool) -> None:
    """(Of a batch: a CPU has a slow way of its own for a single one, which makes it contiguous.)"""
    volumes, filters = torch.zeros(2, 6, 6, 6, 4), torch.zeros(4, 3, 3, 3, 4)
    for x in (volumes.permute(0, 4, 1, 2, 3), volumes.permute(0, 4, 1, 2, 3)[:, 1:, 2:]):
        weight = filters.permute(0, 4, 1, 2, 3)[: x.shape[1], : x.shape[1]]
        for each in (x, x.contiguous()):
            convolved(each, weight, transposed)
            convolved(each, weight.contiguous(), transposed)


@pytest.mark.skipif(not hasattr(aten, "_grouped_mm"), reason="this torch has no grouped products")
@pytest.mark.parametrize("ranks", [(2, 3), (3, 2), (2, 2)])
def test_grouped_products(ranks: tuple[int, int]) -> None:
    """A meta kernel refuses them, the real one runs them."""
    a = torch.zeros(*([3] if ranks[0] == 3 else []), 12, 16)
    b = torch.zeros(*([3] if ranks[1] == 3 else []), 16, 8)
    offs = torch.tensor([4, 8, {(2, 3): 12, (3, 2): 8, (2, 2): 16}[ranks]], dtype=torch.int32)
    real = aten._grouped_mm.default(a, b, offs)
    assert look(made_by(aten._grouped_mm.default, a.to("meta"), b.to("meta"), offs.to("meta"))) == look(real)
    assert made_by(aten._grouped_mm.default, a.to("meta"), b[..., :7].to("meta"), offs.to("meta")) is None
    ragged = torch.zeros(*a.shape[:-1], 15, device="meta"), torch.zeros(*b.shape[:-2], 15, 8, device="meta")
    assert made_by(aten._grouped_mm.default, *ragged, offs.to("meta")) is None


@pytest.mark.parametrize(
    "layer",
    [
        *(nn.GroupNorm(2, 8), nn.PixelShuffle(2), nn.PixelUnshuffle(2), nn.ReflectionPad2d((1, 2, 0, 3))),
        *(nn.ReplicationPad2d(1), nn.ChannelShuffle(2), nn.BatchNorm2d(8), nn.BatchNorm2d(8, affine=False)),
    ],
    ids=str,
)
@pytest.mark.parametrize("view", ["contiguous", "channels last", "half of the channels", "tokens"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layouts_on_a_cpu(layer: nn.Module, view: str, dtype: torch.dtype) -> None:
    """The same operators as a real run, with the same results."""
    if isinstance(layer, nn.GroupNorm) and torch.__version__ < (2, 14):
        pytest.skip("this torch makes tensors of other devices than a CPU contiguous before a group norm")
    shape = (2, 6, 6, 16 if view.startswith("half") else 8)
    network = Viewed(layer.eval(), VIEWS[view])
    ours, real = (cm.trace(network, shape, target="cpu", run=run, dtype=dtype) for run in (False, True))
    assert [(o.operator, o.outputs) for o in ours.operations] == [(o.operator, o.outputs) for o in real.operations]


class Viewed(nn.Module):
    """A layer that is given a view of what the network is given."""

    def __init__(self, layer: nn.Module, view: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.layer, self.view = layer, view

    def forward(self, maps: torch.Tensor) -> Any:
        return self.layer(self.view(maps))


def test_each_batch_norm_of_a_network_on_a_cpu() -> None:
    """Also those that are written down without being run."""
    network = nn.Sequential(*[nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)) for _ in range(3)]).eval()
    for options in ({}, {"autocast": "bfloat16"}, {"channels_last": True}):
        ours, real = (cm.trace(network, (2, 8, 9, 9), target="cpu", run=run, **options) for run in (False, True))
        assert [(o.operator, o.outputs) for o in ours.operations] == [(o.operator, o.outputs) for o in real.operations]
