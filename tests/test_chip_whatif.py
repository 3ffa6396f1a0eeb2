"""What-ifs: each change's numbers by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

import costmodel as cm
from costmodel.chip.accelerator import accelerator
from costmodel.chip.changes import INDEX_BITS, head, separated, with_operand
from costmodel.chip.lowering import lower
from costmodel.chip.nests import Nest, Nests
from costmodel.chip.tiling import least_traffic
from costmodel.chip.whatif import what_ifs
from costmodel.chip.winograd import has_winograd, winograd
from costmodel.errors import InputError
from costmodel.networks import find
from costmodel.networks.resolutions import other_resolutions

CONV = Nest(
    "conv", "aten.convolution", "conv", in_channels=64, out_channels=96, out_rows=28, out_columns=28,
    filter_rows=3, filter_columns=3, padding=((1, 1), (1, 1)), in_rows=28, in_columns=28,
)  # fmt: skip
FC = Nest("fc", "aten.addmm", "linear", in_channels=4096, out_channels=1000)
NET = Nests("net", (CONV, FC))
CHIP = accelerator("edge-npu").replace(dataflow="ideal", buffer_bytes=1 << 20)


@pytest.fixture(scope="module")
def found():
    return what_ifs(NET, CHIP)


def test_as_it_is(found) -> None:
    first = found.outcomes[0]
    assert first.macs == CONV.macs + FC.macs and first.speedup == 1
    # everything fits: 28² (64 + 96) + 9 x 64 x 96, and 4096 + 1000 + 4,096,000 words of a byte
    assert first.dram_bytes == 784 * 160 + 9 * 64 * 96 + 4096 + 1000 + 4_096_000


def traced(name: str, batch: int = 1) -> cm.Trace:
    network = find(name)
    return cm.trace(network.module, network.inputs(batch), name=name)


@pytest.mark.parametrize("chip", ["edge-npu", "eyeriss", "tpu-v1"])
def test_as_it_is_is_what_evaluate_says(chip: str) -> None:
    trace = traced("alexnet28", 2)
    hardware = accelerator(chip).replace(buffer_bytes_per_cycle=50.0)
    first, run = what_ifs(trace, hardware).outcomes[0], cm.evaluate(trace, hardware)
    assert run.unfused_bytes > 0 and run.area
    assert first[1:7] == pytest.approx((
        run.overlapped_seconds / 2, run.serial_seconds / 2, run.macs / 2, run.dram_bytes / 2, run.joules_per_frame,
        run.area.total,
    ))  # fmt: skip


class Attention(nn.Module):
    """Self-attention of one head or several, with PyTorch's one operator or written out."""

    def __init__(self, heads: int, written_out: bool) -> None:
        super().__init__()
        self.project, self.heads, self.written_out = nn.Linear(24, 72), heads, written_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.project(x).chunk(3, -1)
        )
        if not self.written_out:
            return functional.scaled_dot_product_attention(query, key, value)
        return torch.softmax(query @ key.transpose(-1, -2), -1) @ value


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.fc = nn.LSTM(24, 16, batch_first=True), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.lstm(x)[0][:, -1])


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (nn.Sequential(nn.Conv2d(8, 16, 3, groups=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(400, 9)),
         (8, 12, 12)),
        (Attention(3, False), (20, 24)),
        (Attention(3, True), (20, 24)),
        (Attention(1, True), (20, 24)),
        (Recurrent(), (7, 24)),
    ],
    ids=["cnn", "sdpa", "matmul", "one head", "lstm"],
)  # fmt: skip
@pytest.mark.parametrize("chip", ["edge-npu", "eyeriss"])
def test_a_batch_is_what_tracing_it_says(network: nn.Module, shape: tuple[int, ...], chip: str) -> None:
    hardware = accelerator(chip)
    changed = what_ifs(cm.trace(network, (1, *shape)), hardware)["16 times the batch"]
    really = what_ifs(cm.trace(network, (16, *shape)), hardware).outcomes[0]
    assert changed._replace(serial_seconds=0.0)[1:7] == pytest.approx(really._replace(serial_seconds=0.0)[1:7])
    if not (isinstance(network, Attention) and network.heads > 1 and network.written_out):
        assert changed.serial_seconds == pytest.approx(really.serial_seconds)  # there, PyTorch copies before products


def test_a_batch_moves_the_weights_once(found) -> None:
    many = found["16 times the batch"]
    assert many.macs == found.outcomes[0].macs  # a frame
    weights = 9 * 64 * 96 + 4_096_000
    assert many.dram_bytes == pytest.approx(found.outcomes[0].dram_bytes - weights * 15 / 16)
    assert many.speedup > 4


def test_types(found) -> None:
    wide = found["int16 in place of int8"]
    assert wide.dram_bytes == 2 * found.outcomes[0].dram_bytes
    assert found["bf16/fp32 in place of int8"].joules is None  # 16 nm has no number for it
    assert wide.joules > found.outcomes[0].joules


def test_sums_keep_their_type_where_they_can() -> None:
    eyeriss = accelerator("eyeriss")
    narrow = with_operand(eyeriss, "int8")
    # 224 weights, 12 inputs of a byte less each, 24 sums as wide as before
    assert narrow and (narrow.accumulator, narrow.pe_bytes) == ("int16", 520 - 236)
    floating = with_operand(eyeriss, "bf16")
    assert floating and (floating.accumulator, floating.pe_bytes) == ("fp32", 520 + 24 * 2)
    changes = [outcome.change for outcome in what_ifs(Nests("conv", (CONV,)), eyeriss).outcomes]
    assert "int8 in place of int16" in changes and "bf16/fp32 in place of int16" in changes


def test_another_types_elements_take_another_area(found) -> None:
    assert found["int16 in place of int8"].area_mm2 == pytest.approx(cm.evaluate(NET, CHIP.replace(
        operand="int16"), energy=False).area.total)  # fmt: skip
    assert found["int16 in place of int8"].area_mm2 > found.outcomes[0].area_mm2
    assert found["16 times the batch"].area_mm2 == found.outcomes[0].area_mm2


def test_a_gpu_has_the_types_of_its_datasheet() -> None:
    """Of an H200 int8 is twice as fast as fp16, bf16 as fast, and there is no int16."""
    trace = traced("alexnet", 64)
    found = what_ifs(trace, accelerator("h200"))
    assert [outcome.change for outcome in found.outcomes if "in place of" in outcome.change] == [
        "bf16 in place of fp16", "int8/int32 in place of fp16",
    ]  # fmt: skip
    narrow, really = found["int8/int32 in place of fp16"], cm.evaluate(trace, accelerator("h200@int8"))
    assert narrow.overlapped_seconds == pytest.approx(really.overlapped_seconds / 64, rel=1e-3)
    assert found["bf16 in place of fp16"].speedup == pytest.approx(1)
    unknown = accelerator("h200").replace(title="of my own")
    assert with_operand(replace(unknown, name="mine"), "int8") is None


def test_the_head_of_a_network() -> None:
    layers = {name: [nest.layer for nest in head(lower(traced(f"torchvision:{name}")))] for name in (
        "alexnet", "resnet50", "vit_b_32", "squeezenet1_1"
    )}  # fmt: skip
    assert layers == {
        "alexnet": ["classifier.1", "classifier.4", "classifier.6"],
        "resnet50": ["fc"],
        "vit_b_32": ["heads.head"],  # not what its blocks are made of
        "squeezenet1_1": [],
    }
    assert [nest.layer for nest in head(lower(cm.trace(Recurrent(), (2, 7, 24))))] == ["fc"]  # nor an LSTM's gates


def test_a_layer_that_runs_twice_ends_no_network() -> None:
    assert head(Nests("net", (CONV, FC))) == (FC,)
    assert head(Nests("net", (CONV, FC, FC))) == ()


@pytest.mark.parametrize(("inputs", "outputs"), [(512, 512), (100, 1000), (1000, 100)])
def test_a_rank_that_saves_no_weights_changes_nothing(inputs: int, outputs: int) -> None:
    # 256 (512 + 512) = 512 x 512, and 256 (100 + 1000) > 100 x 1000
    kept = Nest("fc", "aten.addmm", "linear", in_channels=inputs, out_channels=outputs)
    changes = [outcome.change for outcome in what_ifs(Nests("net", (CONV, kept)), CHIP).outcomes]
    assert "FC layers of rank 256" not in changes


def test_low_rank(found) -> None:
    # 256 x (4096 + 1000) weights in place of 4,096,000
    low = found["FC layers of rank 256"]
    assert low.macs == CONV.macs + 256 * 5096
    assert low.dram_bytes == found.outcomes[0].dram_bytes - 4_096_000 + 256 * 5096 + 2 * 256


def test_pruning_saves_traffic_and_no_cycles(found) -> None:
    pruned = found["FC layers pruned to 10%"]
    assert pruned.macs == found.outcomes[0].macs
    kept = round(4_096_000 * 0.1 * (8 + INDEX_BITS) / 8)
    assert pruned.dram_bytes == found.outcomes[0].dram_bytes - 4_096_000 + kept


def test_pruning_that_saves_nothing_costs_nothing() -> None:
    # nine tenths of the weights with 4 bits of index each are 0.9 x 12 / 8 = 1.35 of what all take without: kept whole
    outcomes = what_ifs(NET, CHIP, density=0.9)
    assert outcomes["FC layers pruned to 90%"].dram_bytes == outcomes.outcomes[0].dram_bytes
    # two thirds take 0.667 x 1.5 = 1.0 of it, so a weight in a thousand less pays
    assert what_ifs(NET, CHIP, density=0.666)["FC layers pruned to 67%"].dram_bytes == (
        outcomes.outcomes[0].dram_bytes - 4_096_000 + 4_091_904  # 4,096,000 x 0.999
    )


def test_pooling_in_place_of_fc_layers() -> None:
    name = "global average pooling for FC"
    trace = traced("torchvision:alexnet")
    nests, found = lower(trace), what_ifs(trace, CHIP)
    # 256 channels of 6 x 6 pixels go into the first FC layer: 256 scores a class in place of three layers
    assert found[name].macs == nests.only("conv").macs + 256 * 1000
    for pools_already in ("torchvision:resnet18", "torchvision:densenet121", "torchvision:vit_b_32"):
        outcomes = what_ifs(traced(pools_already), CHIP, operands=()).outcomes
        assert name not in [outcome.change for outcome in outcomes]


@pytest.mark.parametrize(("m", "fewer", "inputs", "outputs"), [(2, 2.25, 32, 24), (4, 4, 144, 100)])
def test_winograd(m: int, fewer: float, inputs: int, outputs: int) -> None:
    # 28 is a multiple of 2 and 4, so multiplications are 2.25 and 4 times fewer, exactly (Lavin and Gray)
    layer = winograd(CONV, CHIP, m)
    assert layer.macs * fewer == CONV.macs
    tiles = (28 // m) ** 2
    assert layer.additions == tiles * (64 * inputs + 96 * outputs)
    weights = 9 * 64 * 96
    assert layer.dram_bytes == 784 * 160 + weights * (m + 2) ** 2 // 9
    # at the border of an image that tiles do not divide, they hang over: 27 rows take 14 tiles of 2
    odd = winograd(replace(CONV, out_rows=27, out_columns=27), CHIP, 2)
    assert odd.macs == 14**2 * 16 * 64 * 96


def test_winograd_fits_the_buffer() -> None:
    """One channel in and out: 4 x 4 inputs and filters of a byte, 4 x 4 sums of four bytes, at least."""
    assert has_winograd(CONV, CHIP.replace(buffer_bytes=96, buffer_banks=1), 2)
    assert not has_winograd(CONV, CHIP.replace(buffer_bytes=95, buffer_banks=1), 2)
    odd = replace(CONV, out_rows=27, out_columns=27, in_rows=27, in_columns=27)
    assert winograd(odd, CHIP, 2).dram_bytes == 729 * 160 + 16 * 64 * 96  # no more outputs than there are


def test_winograd_is_fed_by_the_same_buffer() -> None:
    """On 32 x 32 output-stationary elements, 8 bytes a cycle: 25 x 3 folds of 784 pixels by 96 filters, or 16 products
    of 7 x 3 folds of 196 tiles. Inputs once a fold across, weights once a fold down, each sum of 4 bytes once."""
    slow = accelerator("edge-npu").replace(buffer_bytes_per_cycle=8.0)
    found = what_ifs(Nests("net", (CONV,)), slow)
    plain = 784 * 576 * 3 + 576 * 96 * 25 + 784 * 96 * 4
    fast = 16 * (196 * 64 * 3 + 64 * 96 * 7 + 196 * 96 * 4)
    assert found.outcomes[0].overlapped_seconds == pytest.approx(plain / 8 / 800e6)
    assert found["Winograd F(2x2, 3x3)"].overlapped_seconds == pytest.approx(fast / 8 / 800e6)


class Functional(nn.Module):
    """Layers as functions, all of them the root's, or as modules."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.fc = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3, padding=1), nn.Linear(16 * 16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool2d(functional.relu(functional.conv2d(x, self.first.weight, self.first.bias)), 2)
        x = functional.max_pool2d(
            functional.relu(functional.conv2d(x, self.second.weight, self.second.bias, padding=1)), 2
        )
        return functional.linear(x.flatten(1), self.fc.weight, self.fc.bias)


def test_fused_layers_do_not_go_by_their_names() -> None:
    functions = Functional()
    modules = nn.Sequential(
        functions.first, nn.ReLU(), nn.MaxPool2d(2), functions.second, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        functions.fc,
    )  # fmt: skip
    chip = CHIP.replace(
        buffer_bytes=1 << 11, buffer_banks=1, dram_bandwidth=1e11
    )  # arithmetic binds: times are the parts' own
    both = [what_ifs(cm.trace(network, (1, 3, 18, 18)), chip)["fused layers"] for network in (functions, modules)]
    assert both[0] == both[1]
    assert both[0].macs >= 256 * 27 * 8 + 64 * 72 * 16 + 256 * 5


def test_what_fused_layers_leave_between_them() -> None:
    """An addition still reads two tensors and writes one; what a chain takes in moves nothing."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool = nn.Conv2d(8, 8, 3, padding=1), nn.MaxPool2d(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.pool(x + self.conv(x))

    chain = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.MaxPool2d(2))
    for network, words in ((Residual(), 3 * 8 * 256), (chain, 0)):
        fused = what_ifs(cm.trace(network, (1, 8, 16, 16)), CHIP)["fused layers"]
        array = 256 * 72 * 8 / CHIP.macs_per_second
        assert fused.serial_seconds == pytest.approx(array + (fused.dram_bytes + words) / CHIP.dram_bandwidth, rel=1e-3)


def test_a_training_step_is_not_fused() -> None:
    changes = [each.change for each in what_ifs(cm.trace(Functional(), (1, 3, 18, 18), train=True), CHIP).outcomes]
    assert "fused layers" not in changes and "16 times the batch" in changes


def test_winograd_does_nothing_elsewhere() -> None:
    strided = Nests("strided", (replace(CONV, stride=(2, 2), out_rows=14, out_columns=14), FC))
    assert not any("Winograd" in each.change for each in what_ifs(strided, CHIP).outcomes)


def test_depthwise_separable() -> None:
    depthwise, pointwise = separated(CONV)
    assert depthwise.macs == 784 * 9 * 64 and pointwise.macs == 784 * 64 * 96
    assert depthwise.depthwise and depthwise.output_numel == 784 * 64
    assert pointwise.input_numel == depthwise.output_numel
    assert separated(FC) == (FC,)
    first = replace(CONV, in_channels=3)
    assert separated(first) == (first,)


def test_resolutions_are_traced() -> None:
    """The book's FC layers follow the image (lazy layers); torchvision's are behind adaptive pooling; a ViT's patches
    have their places."""
    found = what_ifs(traced("alexnet"), CHIP, extra=other_resolutions(find("alexnet")))
    half, net = found["images of half the resolution"], find("alexnet", shapes=["1x112x112"])
    small = cm.evaluate(cm.trace(net.module, net.inputs(1)), CHIP)
    assert half[1:5] == pytest.approx((small.overlapped_seconds, small.serial_seconds, small.macs, small.dram_bytes))
    # its first FC layer takes 256 channels of 2 x 2 pixels in place of 5 x 5
    assert cm.count(cm.trace(net.module, net.inputs(1))).parameters == 46_764_746 - 256 * 21 * 4096
    adaptive = find("torchvision:alexnet")
    parameters = [cm.count(trace).parameters for _, trace, _ in other_resolutions(adaptive)]
    assert parameters == [61_100_840] * 2
    assert other_resolutions(find("torchvision:vit_b_32")) == []


def test_every_outcome_says_when_it_does_nothing(found) -> None:
    assert all(outcome.does_nothing for outcome in found.outcomes[1:])
    frame = found.to_frame()
    assert list(frame["change"]) == [outcome.change for outcome in found.outcomes]
    assert "Winograd F(4x4, 3x3)" in found._repr_html_() and "helps most" in repr(found)


def test_a_network_without_fc_layers_has_no_such_rows() -> None:
    changes = [outcome.change for outcome in what_ifs(Nests("conv", (CONV,)), CHIP).outcomes]
    assert not any("FC" in change for change in changes) and any("Winograd" in change for change in changes)


def test_networks_of_ones_own_stand_beside_it() -> None:
    other = what_ifs(NET, CHIP, extra=[("without its head", Nests("conv", (CONV,)), "never")])["without its head"]
    assert other.dram_bytes == least_traffic(CONV, CHIP.widths).dram_bytes(CHIP.buffer_bytes)


def test_nonsense_is_refused() -> None:
    for options in ({"batch": 0}, {"batch": 2.5}, {"rank": 0}, {"density": 0.0}, {"density": 1.5}):
        with pytest.raises(InputError, match="what-ifs take"):
            what_ifs(NET, CHIP, **options)
    with pytest.raises(InputError, match="unknown type 'int4'"):
        what_ifs(NET, CHIP, operands=("int4",))


def test_words_too_wide_for_the_buffer_are_left_out() -> None:
    """An FC layer's smallest tile is an input, a weight and a sum: 1 + 1 + 4 bytes, or 2 + 2 + 4."""
    for buffer_bytes, fits in ((6, False), (8, True)):
        found = what_ifs(
            Nests("fc", (FC,)), CHIP.replace(buffer_bytes=buffer_bytes, buffer_banks=1), operands=("int16",)
        )
        assert ("int16 in place of int8" in [outcome.change for outcome in found.outcomes]) is fits
