"""Networks on accelerators: time, energy and area, by hand and against published chips."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from torch import nn

import costmodel as cm
from costmodel.chip.accelerator import Accelerator, accelerator
from costmodel.chip.evaluation import area_of, evaluate
from costmodel.chip.explore import explore
from costmodel.chip.lowering import lower
from costmodel.chip.nests import Nest, Nests
from costmodel.chip.space import Space
from costmodel.chip.technology import technology
from costmodel.chip.unfused import unfused_numel
from costmodel.errors import InputError

DATA = Path(__file__).with_name("data")


def published(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(line for line in (DATA / name).open() if not line.startswith("#")))


def nests(*all_nests: Nest) -> Nests:
    return Nests("toy", all_nests)


FC = Nest("fc", "aten.addmm", "linear", batch=1, in_channels=64, out_channels=32)
CONV = Nest(
    "conv", "aten.convolution", "conv", in_channels=16, out_channels=16, out_rows=8, out_columns=8, filter_rows=3,
    filter_columns=3, in_rows=10, in_columns=10,
)  # fmt: skip
TOY = Accelerator("toy", "Toy", "ideal", 8, 8, 1e9, "int8", "int32", 1 << 20, 1e9, "ddr3", "45nm+derived", pe_bytes=8)


@pytest.fixture(scope="module")
def resnet50() -> cm.Trace:
    network = cm.networks.find("torchvision:resnet50")
    return cm.trace(network.module, network.inputs(1))


@pytest.fixture(scope="module")
def eyeriss_run():
    network = cm.networks.find("alexnet-grouped")
    return evaluate(lower(cm.trace(network.module, network.inputs(4))).only("conv"), accelerator("eyeriss"))


def test_two_layers_by_hand() -> None:
    found = evaluate(nests(FC, CONV), TOY)
    fc, conv = found.layers
    # everything fits in 1 MiB: 64 + 32 + 2048 bytes, and 1600 + 1024 + 2304
    assert [layer.dram_bytes for layer in found.layers] == [2144, 4928]
    moved = found.to_frame()[["input_dram_bytes", "weight_dram_bytes", "output_dram_bytes", "partial_dram_bytes"]]
    assert moved.to_numpy().tolist() == [[64, 2048, 32, 0], [1600, 2304, 1024, 0]]
    # 2048 and 147,456 MACs on 64 elements at 1 GHz; 1 GB/s
    assert [layer.array_seconds for layer in found.layers] == pytest.approx([32e-9, 2304e-9])
    assert [layer.dram_seconds for layer in found.layers] == pytest.approx([2144e-9, 4928e-9])
    assert (fc.binding, conv.binding) == ("dram", "dram")
    assert found.overlapped_seconds == pytest.approx(7072e-9)
    assert found.serial_seconds == pytest.approx(7072e-9 + 2336e-9)
    assert found.frames_per_second == pytest.approx(1 / 7072e-9)
    # joules: MACs x 0.3 pJ; 10 bytes in the element, 8 bytes large: 10 pJ x sqrt(8 / 8192) x 10 / 8;
    # the buffer's 100 pJ for 8 bytes, array and DRAM traffic (sums of 4 bytes); DRAM 1.95 nJ for 8 bytes
    macs = 2048 + 147_456
    moved = 2144 + 3 * 32 + 4928 + 3 * 1024
    assert found.energy.mac == pytest.approx(macs * 0.3e-12)
    assert found.energy.pe == pytest.approx(macs * 10e-12 * (8 / 8192) ** 0.5 * 10 / 8)
    assert found.energy.buffer == pytest.approx((moved + 7072) * 100e-12 / 8)
    assert found.energy.dram == pytest.approx(7072 * 1.95e-9 / 8)
    assert found.watts == pytest.approx(found.energy.total / found.overlapped_seconds)
    assert found.frames_per_joule * found.joules_per_frame == pytest.approx(1)


def test_the_tables_sums_by_hand() -> None:
    found = evaluate(nests(FC, CONV), TOY)
    table = found.table()
    assert table.total is not None
    sums = {"macs": 149_504, "cycles": 2336, "dram_bytes": 7072, "delivered_bytes": 2144 + 96 + 4928 + 3072}
    assert {name: table.total[name] for name in sums} == sums
    assert table.total["array_seconds"] == pytest.approx(2336e-9)
    assert table.total["dram_seconds"] == table.total["overlapped_seconds"] == pytest.approx(7072e-9)
    assert table.total["serial_seconds"] == pytest.approx(9408e-9)
    # 149,504 MACs of the 64 that each of 7072 nanoseconds could do
    assert table.total["utilisation"] == pytest.approx(149_504 / (64 * 7072))
    assert table.title == "toy on Toy: 106 k to 141 k frames a second"  # 1 / 9.408 and 1 / 7.072 µs
    assert repr(found) == "<toy on Toy: 7.07 µs to 9.41 µs>"
    assert found.frames_per_second_per_mm2 == pytest.approx(1 / 7072e-9 / found.area.total)


def test_the_notes_by_hand() -> None:
    # 44.9, 58.4, 216.4 and 1723.8 nJ are 2043.5, in 7.072 µs; 64 elements of 0.00356 mm², 8 Mibit of SRAM, 1 GB/s
    notes = evaluate(nests(FC, CONV), TOY).notes
    assert notes[0] == "106 k to 141 k frames a second (9.41 µs to 7.07 µs a run)."
    assert notes[2] == "Bound by dram for 100.0 % of the overlapped time."
    assert notes[3] == (
        "2.04 µJ a frame (mac 2.2 %, pe 2.9 %, buffer 10.6 %, dram 84.4 %), 489 k frames a joule, 0.289 W; without "
        "leakage and clock wires, 45nm+derived."
    )
    two = evaluate(Nests("toy", (FC, CONV), images=2), TOY).notes
    assert two[0].startswith("213 k to 283 k frames a second (9.41 µs to 7.07 µs a run)")


def test_what_binds() -> None:
    fast = TOY.replace(dram_bandwidth=1e12)
    assert evaluate(nests(CONV), fast).layers[0].binding == "compute"
    # 16 filters on 64 columns and 144 products on 64 rows, with filling: far below half
    idle = fast.replace(dataflow="weight_stationary", rows=64, columns=64)
    found = evaluate(nests(CONV), idle)
    assert found.layers[0].binding == "utilisation"
    assert found.layers[0].utilisation == pytest.approx(147_456 / (4096 * 3 * (2 * 64 + 64 + 64 - 2)))
    assert list(found.by_binding()) == ["utilisation"]
    # 1600 + 2304 + 4 x 1024 bytes at half a byte a cycle
    slow = evaluate(nests(CONV), fast.replace(buffer_bytes_per_cycle=0.5)).layers[0]
    assert (slow.binding, slow.buffer_seconds) == ("buffer", pytest.approx(8000 / 0.5 / 1e9))


def test_area_by_part() -> None:
    chip = TOY.replace(technology="28nm+derived", other_sram_bytes=1 << 20, other_mm2=2.0)
    area = area_of(chip, technology("28nm"))
    assert area.pes == pytest.approx(64 * 1515e-6)
    assert area.sram == pytest.approx(2 * 8 * 2**20 * 0.517e-6)
    assert area.interface == pytest.approx(0.584, rel=1e-3) and area.other == 2.0
    assert area_of(chip.replace(memory_interface=False), technology("28nm")).interface == 0
    assert area_of(chip, None) is None


def test_eyeriss_dram_traffic(eyeriss_run) -> None:
    """Ours is uncompressed, least traffic behind 108 KiB; the measured bytes are run-length compressed."""
    measured = sum(float(row["dram_megabytes"]) for row in published("eyeriss_alexnet.csv"))
    assert eyeriss_run.dram_bytes / 1e6 == pytest.approx(measured, rel=0.15)


def test_eyeriss_total_time_lies_in_the_band(eyeriss_run) -> None:
    total = sum(float(row["total_milliseconds"]) for row in published("eyeriss_alexnet.csv")) / 1e3
    assert eyeriss_run.overlapped_seconds <= total <= eyeriss_run.serial_seconds


@pytest.mark.parametrize("row", published("nvdla_three_designs.csv"), ids=lambda row: row["macs"])
def test_nvdla_as_published(resnet50: cm.Trace, row: dict[str, str]) -> None:
    chip = accelerator(f"nvdla-{row['macs']}")
    assert chip.buffer_bytes == int(row["conv_buffer_kilobytes"]) * 1024
    assert chip.dram_bandwidth == float(row["dram_gigabytes_per_second"]) * 1e9
    found = evaluate(resnet50, chip)
    assert found.area.total == pytest.approx(float(row["area_28nm_mm2"]), rel=0.10)
    rate = float(row["resnet50_frames_per_second"])
    assert found.serial_frames_per_second <= rate <= found.frames_per_second
    # at 16 nm everything, the fixed part too, shrinks as the SRAM's bit cell does: 0.127 to 0.07 µm²
    small = chip.replace(technology="16nm+derived", other_mm2=chip.other_mm2 * 0.07 / 0.127)
    assert area_of(small, small.find_technology()).total == pytest.approx(float(row["area_16nm_mm2"]), rel=0.10)


def test_unfused_operations_of_resnet50(resnet50: cm.Trace) -> None:
    # 16 additions read two maps and write one, 5,519,360 elements a time; the activations after them read and write
    # them again; pooling reads 64 x 112², writes 64 x 56²; the average reads 2048 x 7² and writes 2048
    maps = 3 * 256 * 56**2 + 4 * 512 * 28**2 + 6 * 1024 * 14**2 + 3 * 2048 * 7**2
    expected = 5 * maps + 64 * (112**2 + 56**2) + 2048 * (49 + 1)
    assert unfused_numel(cm.count(resnet50)) == lower(resnet50).unfused_numel == expected
    assert evaluate(resnet50, TOY).unfused_bytes == expected
    assert evaluate(lower(resnet50), TOY.replace(operand="int16"), energy=False).unfused_bytes == 2 * expected
    assert evaluate(lower(resnet50).only("conv"), TOY).unfused_bytes == 0


class Positions(nn.Module):
    """Adds a position to each of three tokens, as a vision transformer does."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.positions = nn.Linear(8, 5), nn.Parameter(torch.zeros(1, 3, 5))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.embed(tokens) + self.positions


def test_parameters_between_contractions_are_not_counted() -> None:
    # the addition reads 2 x 3 x 5 elements and writes as many; the 3 x 5 of its parameter are left out
    assert unfused_numel(cm.count(cm.trace(Positions(), (2, 3, 8)))) == 2 * 30


def test_batch_is_the_samples_of_a_run() -> None:
    network = cm.networks.find("lenet-relu")
    one, eight = (evaluate(cm.trace(network.module, network.inputs(batch)), TOY) for batch in (1, 8))
    assert (one.images, eight.images) == (1, 8)
    assert eight.macs == 8 * one.macs
    assert eight.frames_per_second > one.frames_per_second  # the weights move once


def test_a_chip_may_be_named() -> None:
    network = cm.networks.find("lenet-relu")
    trace = cm.trace(network.module, network.inputs(1))
    assert evaluate(trace, "edge-npu").accelerator is accelerator("edge-npu")
    with pytest.raises(InputError, match="Did you mean edge-npu"):
        evaluate(trace, "edge-nup")
    with pytest.raises(InputError, match="is not an accelerator"):
        evaluate(trace, None)
    for wrong in (3, network.module):
        with pytest.raises(InputError, match=r"not from '\w+': costmodel\.trace"):
            evaluate(wrong, "edge-npu")


def test_a_frame_is_a_sample_in_evaluations_and_explorations() -> None:
    """128 tokens of a sample are rows of its linear layers, not samples of their own; 3 samples are 3 frames."""
    from torch import nn

    encoder = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True).eval()
    chip = accelerator("edge-npu")
    for batch in (1, 3):
        trace = cm.trace(encoder, (batch, 128, 32))
        found = evaluate(trace, chip)
        row = explore(lower(trace), own_point(chip)).best(trace.model)
        assert row["frames_per_second"] == pytest.approx(found.frames_per_second)
        assert row["serial_frames_per_second"] == pytest.approx(found.serial_frames_per_second)
        assert row["joules_per_frame"] == pytest.approx(found.joules_per_frame)
        # projections of 32 x 96 and 32 x 32, two layers of 32 x 64, and 128² scores and values of 4 heads of 8
        assert found.macs == batch * (128 * (32 * 96 + 32 * 32 + 2 * 32 * 64) + 2 * 128 * 128 * 32)
        assert found.frames_per_second == pytest.approx(batch / found.overlapped_seconds)
        # the linear layers alone are as many frames
        linear = evaluate(lower(trace).only("linear"), chip)
        assert linear.images == batch and linear.unfused_bytes == 0
        assert linear.joules_per_frame == pytest.approx(linear.energy.total / batch)
        own = explore(lower(trace).only("linear"), own_point(chip)).best(trace.model)
        assert own["serial_frames_per_second"] == pytest.approx(linear.serial_frames_per_second)


def own_point(chip: Accelerator) -> Space:
    """The chip alone."""
    return Space(
        chip, ((chip.rows, chip.columns),), (chip.dataflow,), (chip.buffer_bytes,), (chip.dram_bandwidth,),
        (chip.operand,), (chip.clock_hertz,),
    )  # fmt: skip


def test_what_no_loop_nest_says_is_a_share_of_the_macs() -> None:
    from torch import nn

    # over 4 x 4 x 4 pixels, 2 x 6 channels and 27 taps; then 6 x 10
    network = nn.Sequential(
        nn.Conv3d(2, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(6, 10)
    )
    lost, kept = 64 * 2 * 6 * 27, 60
    for train in (False, True):  # of a training step's three convolutions one is the forward's
        found = evaluate(cm.trace(network, (1, 2, 4, 4, 4), train=train), "edge-npu")
        assert found.counted_share == pytest.approx(kept / (kept + lost))
    assert "counting only 0.3 % of the MACs" in found._repr_html_() and "0.3 % of the MACs" in repr(found)
    assert "counting" not in repr(evaluate(nests(FC), TOY)) and evaluate(nests(FC), TOY).counted_share == 1


def test_how_it_shows_itself(eyeriss_run) -> None:
    frame = eyeriss_run.to_frame()
    assert len(frame) == 5 and frame["macs"].sum() == eyeriss_run.macs
    assert frame["overlapped_seconds"].sum() == pytest.approx(eyeriss_run.overlapped_seconds)
    assert frame[["mac_joules", "dram_joules"]].sum().sum() < eyeriss_run.energy.total
    assert "Eyeriss" in repr(eyeriss_run) and "compute" in eyeriss_run._repr_html_()


def test_what_cannot_be_evaluated() -> None:
    with pytest.raises(InputError, match="holds no tile of layer 'fc'"):
        evaluate(nests(FC), TOY.replace(buffer_bytes=1))
    with pytest.raises(InputError, match="int16 multiply"):
        evaluate(nests(FC), TOY.replace(operand="int16", technology="45nm"))
    with pytest.raises(InputError, match="bf16"):
        evaluate(nests(FC), TOY.replace(operand="bf16", accumulator="fp32"))
    bare = evaluate(nests(FC), TOY.replace(technology="", dram=""))
    assert bare.area is None
    with pytest.raises(InputError, match="energy needs one"):
        _ = bare.energy
    with pytest.raises(InputError, match="area needs one"):
        _ = bare.frames_per_second_per_mm2
    timed = evaluate(nests(FC), TOY.replace(operand="int16"), energy=False)
    assert timed.overlapped_seconds > 0
    with pytest.raises(InputError):
        _ = timed.energy


def test_a_network_without_contractions() -> None:
    from torch import nn

    with pytest.raises(InputError, match="no contraction"):
        evaluate(cm.trace(nn.ReLU(), (1, 4)), TOY)
