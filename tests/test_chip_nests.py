"""Every contraction becomes a nest: MACs to the unit, shapes by hand, and what is left out is named."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

import costmodel as cm
from costmodel.chip.lowering import lower, nests_of
from costmodel.chip.nests import Nest, Nests
from costmodel.chip.windows import Window, met, tiles, tiles_of, touched
from costmodel.errors import InputError
from costmodel.graph import Operation, TensorSpec, Trace
from costmodel.networks import find
from costmodel.rules import rules

NETWORKS = (
    "alexnet", "vgg16", "googlenet", "inception_v3", "resnet50", "resnext50_32x4d", "densenet121", "squeezenet1_1",
    "mobilenet_v3_large", "efficientnet_b0", "shufflenet_v2_x1_0", "mnasnet1_0", "regnet_y_400mf", "convnext_tiny",
    "vit_b_32", "swin_t", "swin_v2_t", "maxvit_t",
)  # fmt: skip
"""One of each family of torchvision's classification networks."""


@pytest.mark.parametrize("name", NETWORKS)
def test_nests_multiply_what_the_count_says(name: str) -> None:
    network = find(f"torchvision:{name}")
    costs = cm.count(cm.trace(network.module, network.inputs(1), name=name))
    nests = lower(costs)
    assert nests.macs == costs.total.macs
    assert not nests.unlowered


@pytest.mark.parametrize("name", ["torchvision:resnet18", "torchvision:vit_b_32", "alexnet-grouped"])
def test_the_backward_pass_too(name: str) -> None:
    network = find(name)
    costs = cm.count(cm.trace(network.module, network.inputs(2), name=name, train=True))
    nests = lower(costs)
    assert nests.macs == costs.total.macs
    for phase in ("forward", "backward"):
        assert nests.of_phase(phase).macs == costs.phase(phase).total.macs
    with pytest.raises(InputError, match="no contraction in its optimizer phase"):
        nests.of_phase("optimizer")


def nests(module: nn.Module, *inputs: torch.Tensor | tuple[int, ...], train: bool = False) -> Nests:
    return lower(cm.trace(module, inputs if len(inputs) > 1 else inputs[0], train=train, name="net"))


def sizes(nest: Nest) -> tuple[int, ...]:
    return nest.batch, nest.groups, nest.out_channels, nest.in_channels


def test_a_grouped_strided_convolution() -> None:
    """2 images, 8 to 12 channels in 4 groups, 10 x 11 pixels, 3 x 2 window, stride 2 x 1, padding 1 x 0: 5 x 10."""
    (nest,) = nests(nn.Conv2d(8, 12, (3, 2), stride=(2, 1), padding=(1, 0), groups=4), (2, 8, 10, 11))
    assert nest == Nest(
        "", "aten.convolution", "conv", 2, 4, 3, 2, 5, 10, 3, 2, (2, 1), (1, 1), ((1, 1), (0, 0)), 10, 11
    )
    assert nest.macs == 2 * 4 * 3 * 2 * 50 * 6
    assert nest.weight_numel == 12 * 2 * 6
    assert nest.output_numel == 2 * 12 * 50
    # The last row's window begins at row 7 = 2 x 4 - 1 and ends at row 9: all 10 rows are touched.
    assert nest.input_numel == 2 * 8 * 110


def test_what_a_stride_skips_is_not_read() -> None:
    """1x1 with stride 2 on 7 x 8 pixels: rows 0, 2, 4, 6 and columns 0, 2, 4, 6."""
    (nest,) = nests(nn.Conv2d(3, 5, 1, stride=2), (1, 3, 7, 8))
    assert nest.input_numel == 3 * 4 * 4


def test_a_depthwise_convolution_has_a_group_for_each_channel() -> None:
    (nest,) = nests(nn.Conv2d(6, 12, 3, padding=2, dilation=2, groups=6), (1, 6, 9, 9))
    assert sizes(nest) == (1, 6, 2, 1)
    assert nest.dilation == (2, 2) and nest.depthwise
    assert nest.macs == 12 * 81 * 9


def test_a_convolution_over_one_dimension_has_one_row() -> None:
    (nest,) = nests(nn.Conv1d(4, 6, 5, stride=2, padding=2), (3, 4, 20))
    assert (nest.out_rows, nest.out_columns, nest.filter_rows, nest.filter_columns) == (1, 10, 1, 5)
    assert nest.stride == (1, 2) and nest.padding == ((0, 0), (2, 2))
    assert nest.macs == 3 * 6 * 4 * 10 * 5


def test_a_transposed_convolution_slides_its_window_over_the_output() -> None:
    """6 x 6 pixels, window 4, stride 2, padding 1: 12 x 12. Each input pixel meets the window: 36 x 16 products."""
    (nest,) = nests(nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1, groups=2), (1, 8, 6, 6))
    assert nest.transposed and sizes(nest) == (1, 2, 2, 4)
    assert (nest.out_rows, nest.in_rows) == (12, 6)
    assert nest.macs == 36 * 16 * 8 * 2
    assert nest.input_numel == 8 * 36


def test_the_backward_pass_of_a_strided_convolution() -> None:
    """3 to 5 channels, 9 x 9 to 5 x 5 pixels: the input's gradient is transposed, the weight's has a 5 x 5 window."""
    forward, second, for_input, for_weight = (
        nest
        for nest in nests(
            nn.Sequential(nn.Conv2d(2, 3, 1), nn.Conv2d(3, 5, 3, stride=2, padding=1)), (4, 2, 9, 9), train=True
        )
        if nest.layer == "1" or nest.phase == "forward"
    )
    assert forward.layer == "0" and second.layer == "1"
    assert for_input.transposed and sizes(for_input) == (4, 1, 3, 5)
    assert (for_input.in_rows, for_input.out_rows) == (5, 9)
    assert sizes(for_weight) == (3, 1, 5, 4)
    assert (for_weight.out_rows, for_weight.filter_rows, for_weight.in_rows) == (3, 5, 9)
    assert (for_weight.stride, for_weight.dilation) == ((1, 1), (2, 2))
    assert for_input.macs == for_weight.macs == second.macs
    # Gradient words: the weight's gradient has as many as the weight; its window is the output's gradient.
    assert for_weight.output_numel == second.weight_numel
    assert for_weight.weight_numel == second.output_numel
    assert for_weight.input_numel == second.input_numel
    assert for_input.output_numel == 4 * 3 * 9 * 9


def test_a_linear_layer_is_a_pixel() -> None:
    (nest,) = nests(nn.Linear(7, 5), (2, 3, 7))
    assert nest == Nest("", nest.operator, "linear", 6, 1, 5, 7)
    assert (nest.input_numel, nest.weight_numel, nest.output_numel, nest.macs) == (42, 35, 30, 210)


class Product(nn.Module):
    """What its text says of two tensors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return eval(self.text, {"torch": torch, "a": a, "b": b})


@pytest.mark.parametrize(
    ("text", "a", "b", "expected"),
    [
        ("a @ b", (2, 3), (3, 4), (2, 1, 4, 3)),
        ("torch.bmm(a, b)", (5, 2, 3), (5, 3, 4), (2, 5, 4, 3)),
        ("torch.bmm(a, b.expand(5, -1, -1))", (5, 2, 3), (1, 3, 4), (10, 1, 4, 3)),  # one matrix for all
        ("torch.bmm(a.expand(5, -1, -1), b)", (1, 2, 3), (5, 3, 4), (2, 1, 20, 3)),
        ("torch.bmm(a, b.expand(2, -1, -1))", (2, 2, 3), (1, 3, 4), (4, 1, 4, 3)),
        ("torch.bmm(a.expand(2, -1, -1), b)", (1, 2, 3), (2, 3, 4), (2, 1, 8, 3)),
        ("torch.mv(a, b)", (2, 3), (3,), (1, 1, 2, 3)),
        ("torch.dot(a, b)", (3,), (3,), (1, 1, 1, 3)),
        ("torch.addmm(a[0, :1], a, b)", (2, 3), (3, 4), (2, 1, 4, 3)),
        ("torch.addmv(a[:, 0], a, b)", (2, 3), (3,), (1, 1, 2, 3)),
        ("torch.baddbmm(a[:, :, :1], a, b)", (5, 2, 3), (5, 3, 4), (2, 5, 4, 3)),
        ("torch.addbmm(a[0, :, :1], a, b)", (5, 2, 3), (5, 3, 4), (2, 1, 4, 15)),  # the batch is summed over
    ],
)
def test_products(text: str, a: tuple[int, ...], b: tuple[int, ...], expected: tuple[int, ...]) -> None:
    trace = cm.trace(Product(text), (torch.empty(a), torch.empty(b)), name="net")
    (nest,) = lower(trace)
    assert sizes(nest) == expected
    assert nest.macs == cm.count(trace).total.macs


class Attention(nn.Module):
    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(q, k, v)


def test_attention_is_scores_and_values() -> None:
    shapes = ((2, 4, 10, 16), (2, 4, 12, 16), (2, 4, 12, 8))
    trace = cm.trace(Attention(), tuple(torch.empty(shape) for shape in shapes), name="net")
    scores, values = made = lower(trace)
    assert made.macs == cm.count(trace).total.macs == 2 * 4 * 10 * 12 * (16 + 8)
    assert scores.kind == "attention" and scores.operator.endswith("(scores)")
    assert sizes(scores) == (10, 8, 12, 16)
    assert sizes(values) == (10, 8, 8, 12)


def test_query_heads_that_share_a_key_are_rows_of_one_product() -> None:
    """8 query heads on 2 keys' heads, 2 images: 4 groups of 4 x 10 rows."""
    shapes = {"query": (2, 8, 10, 16), "key": (2, 2, 12, 16), "value": (2, 2, 12, 8)}
    inputs = {name: TensorSpec(shape, "float32", (1,) * 4, 0) for name, shape in shapes.items()}
    operation = Operation("aten._scaled_dot_product_flash_attention", "a", "forward", inputs, (), {})
    scores, values = nests_of(operation)
    assert sizes(scores) == (40, 4, 12, 16)
    assert sizes(values) == (40, 4, 8, 12)
    assert scores.macs + values.macs == rules()[operation.operator].work(operation).macs


@pytest.mark.parametrize(
    ("module", "shape", "expected"),
    [  # batch, groups, out and in channels; output rows and columns, window, stride, input rows and columns
        # each of 2 x 5 images by itself, then each of 2 x 4 rows' tubes through time
        (nn.Conv3d(3, 8, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)), (2, 3, 5, 8, 6),
         ((10, 1, 8, 3), (4, 3), (3, 3), (2, 2), (8, 6))),
        (nn.Conv3d(8, 4, (3, 1, 1), stride=(2, 1, 1), padding=(1, 0, 0)), (2, 8, 5, 4, 3),
         ((8, 1, 4, 8), (3, 3), (3, 1), (2, 1), (5, 3))),
        # patches of 2 x 4 x 4: two frames' channels beside each other, 3 pairs of frames
        (nn.Conv3d(3, 16, (2, 4, 4), stride=(2, 4, 4)), (1, 3, 6, 8, 12),
         ((3, 1, 16, 6), (2, 3), (4, 4), (4, 4), (8, 12))),
        # 3 frames in, one out, in groups: 3 x 2 channels each
        (nn.Conv3d(4, 6, 3, groups=2, padding=(0, 1, 1)), (1, 4, 3, 5, 5),
         ((1, 2, 3, 6), (5, 5), (3, 3), (1, 1), (5, 5))),
    ],
)  # fmt: skip
def test_convolutions_over_three_dimensions(module: nn.Module, shape: tuple[int, ...], expected: tuple) -> None:
    trace = cm.trace(module, shape, name="net")
    (nest,) = made = lower(trace)
    extents = ("out_rows", "out_columns"), ("filter_rows", "filter_columns"), ("stride",), ("in_rows", "in_columns")
    out, window, (stride,), inside = (tuple(getattr(nest, name) for name in names) for names in extents)
    assert (sizes(nest), out, window, stride, inside) == expected
    assert made.macs == cm.count(trace).total.macs


def test_a_transposed_convolution_over_three_dimensions() -> None:
    """2 x 4 x 4 pixels to 4 x 8 x 8: each of 2 frames makes two, which are channels beside each other."""
    trace = cm.trace(nn.ConvTranspose3d(6, 5, 2, stride=2), (1, 6, 2, 4, 4), name="net")
    (nest,) = made = lower(trace)
    assert nest.transposed and sizes(nest) == (2, 1, 10, 6)
    assert made.macs == cm.count(trace).total.macs == 32 * 8 * 5 * 6
    assert (nest.input_numel, nest.output_numel) == (6 * 32, 5 * 4 * 8 * 8)
    # 2 frames to 6, as 3 frames each would be beside each other; but they begin 2 apart, so that the second's first
    # frame is the first's third, and frames are the rows that a window slides over
    overlapping = nn.ConvTranspose3d(1, 1, (3, 1, 1), stride=(2, 1, 1), output_padding=(1, 0, 0))
    (nest,) = lower(cm.trace(overlapping, (1, 1, 2, 4, 4), name="net"))
    assert (nest.in_rows, nest.filter_rows, nest.out_rows, nest.batch, nest.out_channels) == (2, 3, 6, 4, 1)


@settings(max_examples=60, deadline=None)
@given(
    *(st.tuples(*[numbers] * 3) for numbers in (st.integers(1, 3), st.integers(1, 3), st.integers(0, 1))),
    st.tuples(*[st.integers(3, 6)] * 3), st.booleans(),
)  # fmt: skip
def test_three_dimensions_keep_every_word(taps, stride, padding, inputs, train: bool) -> None:
    """Words and MACs of a lowered convolution are the tensors' own, without what a stride skips."""
    module = nn.Conv3d(2, 4, taps, stride, padding, bias=False)
    trace = cm.trace(nn.Sequential(nn.Identity(), module), (2, 2, *inputs), name="net", train=train)
    overlapping = all(before or size > step for before, size, step in zip(padding, taps, stride, strict=True))
    outputs = [
        (size + 2 * before - tap) // step + 1
        for size, before, tap, step in zip(inputs, padding, taps, stride, strict=True)
    ]
    if overlapping and not any(out == 1 and not before for out, before in zip(outputs, padding, strict=True)):
        with pytest.raises(InputError, match="no contraction"):
            lower(trace)
        return
    made = lower(trace)
    assert not made.unlowered and made.macs == cm.count(trace).total.macs
    nest = made[0]
    read = [
        {p * step + r - before for p in range(out) for r in range(tap)} & set(range(size))
        for size, before, tap, step, out in zip(inputs, padding, taps, stride, outputs, strict=True)
    ]
    assert nest.input_numel == 2 * 2 * len(read[0]) * len(read[1]) * len(read[2])
    assert nest.weight_numel == module.weight.numel()
    assert nest.output_numel == 2 * 4 * outputs[0] * outputs[1] * outputs[2]


@pytest.mark.parametrize("name", ["r2plus1d_18", "swin3d_t", "s3d"])
def test_networks_for_videos(name: str) -> None:
    network = find(f"torchvision:{name}")
    costs = cm.count(cm.trace(network.module, network.inputs(1), name=name))
    made = lower(costs)
    assert made.macs == costs.total.macs and not made.unlowered


def test_what_no_nest_can_say_is_named() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.volume, self.fc = nn.Conv3d(1, 2, 3, padding=1), nn.Linear(108, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.volume(x).flatten(1))

    trace = cm.trace(Both(), (1, 1, 3, 3, 6), name="net")
    made = lower(trace)
    (lost,) = made.unlowered
    assert (lost.operator, lost.layers, lost.count) == ("aten.convolution", ("volume",), 1)
    assert "overlap along 3 dimensions" in lost.reason and lost.macs == 2 * 27 * 54
    assert made.macs + lost.macs == cm.count(trace).total.macs
    assert "3 dimensions" in made._repr_html_()


def test_a_network_without_contractions_is_refused() -> None:
    with pytest.raises(InputError, match="net has no contraction"):
        nests(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), (1, 3, 8, 8))
    with pytest.raises(InputError, match=r"only aten\.convolution"):
        nests(nn.Conv3d(1, 2, 3), (1, 1, 4, 4, 4))


def test_a_trace_read_from_json_gives_the_same_nests() -> None:
    trace = cm.trace(nn.Conv2d(3, 4, 3, padding=1), (1, 3, 8, 8), name="net")
    assert lower(Trace.from_json(trace.to_json())) == lower(trace)


def test_nests_show_themselves() -> None:
    made = nests(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2)), (1, 3, 3, 3))
    assert [nest.kind for nest in made.only("linear")] == ["linear"]
    with pytest.raises(InputError, match="no contraction of kind attention"):
        made.only("attention")
    frame = made.to_frame()
    assert frame["macs"].sum() == made.macs == 3 * 4 * 9 + 8
    assert list(frame["layer"]) == ["0", "2"]
    assert "2 loop nests" in made._repr_html_()
    assert repr(made) == "<Nests of net: 2 contractions, 116 MAC>"


@st.composite
def windows(draw: st.DrawFn) -> Window:
    taps, stride, gap = draw(st.integers(1, 5)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    before, inputs, transposed = draw(st.integers(0, taps)), draw(st.integers(1, 14)), draw(st.booleans())
    if transposed:
        outputs = (inputs - 1) * stride - 2 * before + gap * (taps - 1) + 1
    else:
        outputs = (inputs + 2 * before - gap * (taps - 1) - 1) // stride + 1
    assume(0 < outputs < 30)
    return Window(outputs, inputs, taps, stride, gap, before, transposed)


def rows_of(window: Window, first: int, last: int) -> set[int]:
    """Input rows that the outputs from first to before last touch, by trying all."""
    found = set()
    for y, tap in itertools.product(range(window.inputs), range(window.taps)):
        for p in range(first, last):
            near, far = (y, p) if window.transposed else (p, y)
            if near * window.stride + tap * window.dilation - window.before == far:
                found.add(y)
    return found


@settings(max_examples=200, deadline=None)
@given(windows())
def test_tiles_read_what_their_windows_touch(window: Window) -> None:
    assert touched(window) == len(rows_of(window, 0, window.outputs))
    every = tiles_of(window, np.arange(1, window.outputs + 1))
    for size, trips, largest, read, kept, held, made in zip(*(column.tolist() for column in every), strict=True):
        assert (held, made) == (size, window.outputs)
        own = [rows_of(window, at, min(at + size, window.outputs)) for at in range(0, window.outputs, size)]
        assert trips == len(own)
        assert largest == max(map(len, own))
        assert read == sum(map(len, own))
        assert kept == sum(len(rows - before) for rows, before in zip(own, [set(), *own], strict=False))
    assert met(window).sum() == sum(
        len([1 for y in range(window.inputs) for t in range(window.taps)
             if (y * window.stride + t * window.dilation - window.before == p if window.transposed
                 else p * window.stride + t * window.dilation - window.before == y)])
        for p in range(window.outputs)
    )  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(windows())
def test_a_tile_size_left_out_is_no_better_than_a_smaller_one(window: Window) -> None:
    every, kept = tiles_of(window, np.arange(1, window.outputs + 1)), tiles(window)
    stats = list(zip(*(column.tolist() for column in kept), strict=True))
    for one in zip(*(column.tolist() for column in every), strict=True):
        assert any(all(a <= b for a, b in zip(other, one, strict=True)) for other in stats)


def test_a_long_signal_takes_one_size_for_each_count_of_tiles() -> None:
    long = tiles(Window(16_000, 16_000, 3, before=1))
    assert len(long.sizes) == 252
    assert (long.read == 16_000 + 2 * (long.trips - 1)).all()  # two columns read again at each of the cuts


def test_without_halos_one_size_stays_for_each_count_of_tiles() -> None:
    """10 rows in 1, 2, 3, 4, 5, 10 tiles: sizes 10, 5, 4, 3, 2, 1."""
    assert tiles(Window(10, 10)).sizes.tolist() == [1, 2, 3, 4, 5, 10]


@pytest.mark.parametrize("target", ["cuda", "cpu", "meta"])
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(
    "layer",
    [
        nn.LSTM(8, 16, 2, bidirectional=True, batch_first=True),
        nn.LSTM(8, 16, proj_size=4),
        nn.GRU(8, 16, 2, bias=False),
        nn.RNN(8, 16),
    ],
    ids=["two layers, both directions", "projected", "gru without biases", "plain"],
)
def test_a_recurrent_layer_is_its_products(layer: nn.Module, train: bool, target: str) -> None:
    costs = cm.count(cm.trace(layer, (3, 5, 8), train=train, target=target, **({"loss": "sum"} if train else {})))
    nests = cm.lower(costs)
    assert nests.macs == costs.total.macs
    assert not nests.unlowered


def test_a_step_waits_for_the_one_before_it() -> None:
    """3 sequences of 5 steps: 15 rows of inputs at once, 3 rows of states in each of 5 steps."""
    nests = cm.lower(cm.trace(nn.LSTM(8, 16, batch_first=True), (3, 5, 8)))
    assert [(nest.batch, nest.in_channels, nest.out_channels) for nest in nests] == [(15, 8, 64)] + [(3, 16, 64)] * 5
