"""What-ifs: each change's numbers by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

import costmodel as cm
from costmodel.chip.accelerator import accelerator
from costmodel.chip.nests import Nest, Nests
from costmodel.chip.tiling import least_traffic
from costmodel.chip.whatif import INDEX_BITS, separated, what_ifs, winograd
from costmodel.errors import InputError

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


def test_a_batch_moves_the_weights_once(found) -> None:
    many = found["16 times the batch"]
    assert many.macs == found.outcomes[0].macs  # a frame
    weights = 9 * 64 * 96 + 4_096_000
    assert many.dram_bytes == pytest.approx(found.outcomes[0].dram_bytes - weights * 15 / 16)
    assert many.speedup > 4


def test_types(found) -> None:
    wide = found["int16 in place of int8"]
    assert wide.dram_bytes == 2 * found.outcomes[0].dram_bytes
    assert found["bf16 in place of int8"].joules is None  # 16 nm has no number for it
    assert wide.joules > found.outcomes[0].joules


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


def test_pooling_in_place_of_fc_layers(found) -> None:
    pooled = found["global average pooling in place of FC layers"]
    assert pooled.macs == CONV.macs + 96 * 1000


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


def test_fused_layers_move_what_fusion_says() -> None:
    network = cm.networks.find("lenet-relu")
    trace = cm.trace(network.module, network.inputs(1))
    chip = CHIP.replace(buffer_bytes=1 << 14)
    fused, plain = what_ifs(trace, chip)["fused layers"], what_ifs(trace, chip).outcomes[0]
    fusion = cm.fuse(trace, 1 << 14, word_bits=8, partial_bits=32)
    assert fused.dram_bytes == fusion.dram_bytes < plain.dram_bytes
    assert fused.macs == plain.macs + fusion.extra_macs


def test_winograd_does_nothing_elsewhere() -> None:
    strided = Nests("strided", (replace(CONV, stride=(2, 2), out_rows=14, out_columns=14), FC))
    assert not any("Winograd" in each.change for each in what_ifs(strided, CHIP).outcomes)


def test_depthwise_separable() -> None:
    depthwise, pointwise = separated(CONV)
    assert depthwise.macs == 784 * 9 * 64 and pointwise.macs == 784 * 64 * 96
    assert depthwise.depthwise and depthwise.output_elements == 784 * 64
    assert pointwise.input_elements == depthwise.output_elements
    assert separated(FC) == (FC,)
    first = replace(CONV, in_channels=3)
    assert separated(first) == (first,)


def test_resolution(found) -> None:
    # half: 14 rows, the padding stays: 14² pixels; twice: 56²
    assert found["images of half the resolution"].macs == CONV.macs / 4 + FC.macs
    assert found["images of twice the resolution"].macs == CONV.macs * 4 + FC.macs
    strided = replace(CONV, stride=(2, 2), out_rows=14, out_columns=14)
    half = what_ifs(Nests("strided", (strided,)), CHIP)["images of half the resolution"]
    assert half.macs == 49 * 9 * 64 * 96  # 14 rows + 2 of padding, 3x3, stride 2: 7


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
    for options in ({"batch": 0}, {"rank": 0}, {"density": 0.0}, {"density": 1.5}):
        with pytest.raises(InputError, match="what-ifs take"):
            what_ifs(NET, CHIP, **options)
