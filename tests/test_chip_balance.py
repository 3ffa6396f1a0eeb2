"""The designer's answers: elasticities against finite differences and theory, balances against search."""

from __future__ import annotations

from dataclasses import replace
from math import log

import numpy as np
import pytest

from costmodel.chip.accelerator import accelerator
from costmodel.chip.balance import (
    STEP,
    balance,
    elasticities,
    frame_of,
    frame_seconds,
    marginals,
    ridge_and_mix,
)
from costmodel.chip.evaluation import evaluate
from costmodel.chip.nests import Nest, Nests
from costmodel.chip.shapes import curve_of
from costmodel.errors import InputError

CONV = Nest(
    "conv", "aten.convolution", "conv", in_channels=64, out_channels=128, out_rows=28, out_columns=28,
    filter_rows=3, filter_columns=3, padding=((1, 1), (1, 1)), in_rows=28, in_columns=28,
)  # fmt: skip
FC = Nest("fc", "aten.addmm", "linear", in_channels=1024, out_channels=256)
NET = Nests("net", (CONV, replace(CONV, in_channels=128), FC))
CHIP = accelerator("edge-npu").replace(dataflow="ideal", rows=32, columns=32, buffer_bytes=1 << 15)


def seconds(chip, nests: Nests = NET) -> float:
    return evaluate(nests, chip).overlapped_seconds


@pytest.mark.parametrize("bandwidth", [1e9, 4e9, 8.5e9, 100e9])
def test_elasticities_agree_with_finite_differences(bandwidth: float) -> None:
    chip = CHIP.replace(dram_bandwidth=bandwidth)
    found = elasticities(NET, chip)
    # an ideal array's elements and its clock do the same for its time
    faster = chip.replace(clock_hertz=chip.clock_hertz * 1.0001)
    assert found.pes == pytest.approx(log(seconds(faster) / seconds(chip)) / log(1.0001), abs=1e-3)
    wider = chip.replace(dram_bandwidth=bandwidth * 1.0001)
    assert found.bandwidth == pytest.approx(log(seconds(wider) / seconds(chip)) / log(1.0001), abs=1e-3)
    more, less = (chip.replace(buffer_bytes=int(chip.buffer_bytes * step)) for step in (STEP, 1 / STEP))
    assert found.sram == pytest.approx(log(seconds(more) / seconds(less)) / (2 * log(STEP)), abs=1e-6)


@pytest.mark.parametrize("bandwidth", [12e9, 30e9])
@pytest.mark.parametrize(
    ("networks", "weights"),
    [
        (replace(NET, images=4), None),  # a run is four samples
        (Nests("twice", (CONV, CONV, FC)), None),  # a layer that is used twice
        ({"net": NET, "fc": Nests("fc", (FC,), images=2)}, {"net": 1.0, "fc": 5.0}),
    ],
)
def test_they_do_for_batches_mixes_and_repeated_layers(networks, weights, bandwidth: float) -> None:
    def time(chip) -> float:
        """Of the average frame, each network evaluated by itself."""
        if weights is None:
            return seconds(chip, networks) / networks.images
        frames = {name: seconds(chip, nests) / nests.images for name, nests in networks.items()}
        return sum(weights[name] * frames[name] for name in frames) / sum(weights.values())

    chip = CHIP.replace(dram_bandwidth=bandwidth)
    found = elasticities(networks, chip, weights)
    faster = chip.replace(clock_hertz=chip.clock_hertz * 1.0001)
    wider = chip.replace(dram_bandwidth=bandwidth * 1.0001)
    assert found.pes == pytest.approx(log(time(faster) / time(chip)) / log(1.0001), abs=1e-3)
    assert found.bandwidth == pytest.approx(log(time(wider) / time(chip)) / log(1.0001), abs=1e-3)
    assert found.pes + found.bandwidth == pytest.approx(-1)
    assert -1 < found.pes < 0


def test_what_binds_is_told_from_the_buffer_that_there_is() -> None:
    # a sixth more of the buffer would make the array bind; behind this one DRAM still does, all of the time
    chip = CHIP.replace(buffer_bytes=int(CHIP.buffer_bytes / STEP) + 1)
    one = Nests("conv", (CONV,))
    curve = curve_of(CONV, chip.widths)
    here, behind_more = curve.dram_bytes(chip.buffer_bytes), curve.dram_bytes(int(chip.buffer_bytes * STEP))
    assert here > 1.2 * behind_more
    array_seconds = CONV.macs / 1024 / chip.clock_hertz
    between = chip.replace(dram_bandwidth=float(here + behind_more) / 2 / array_seconds)
    assert elasticities(one, between)[:2] == (0.0, -1.0)


@pytest.mark.parametrize("flow", ["ideal", "weight_stationary", "output_stationary", "channel_parallel"])
def test_twice_the_elements_and_the_bandwidth_is_twice_as_fast(flow: str) -> None:
    for bandwidth in (1e9, 3e9, 10e9):
        found = elasticities(NET, CHIP.replace(dataflow=flow, dram_bandwidth=bandwidth))
        assert found.pes + found.bandwidth == pytest.approx(-1)
        assert -1 <= found.pes <= 0 and -1 <= found.bandwidth <= 0 and found.sram <= 0


def test_worth_is_what_the_elasticities_say() -> None:
    chip = CHIP.replace(dram_bandwidth=4e9)
    found, change = marginals(NET, chip), elasticities(NET, chip)
    rate = 1 / seconds(chip)
    technology = chip.find_technology()
    pes_mm2 = chip.pes * technology.pe_mm2("int8")
    assert found.pes_mm2 == pytest.approx(-change.pes * rate / pes_mm2, rel=1e-3)
    assert found.bandwidth == pytest.approx(-change.bandwidth * rate / 4, rel=1e-3)  # 4 GB/s
    assert found.interface_mm2 == pytest.approx(-change.bandwidth * rate / technology.interface_mm2(4e9), rel=1e-3)
    more = chip.replace(buffer_bytes=int(chip.buffer_bytes * STEP))
    gained = 1 / seconds(more) - rate
    assert found.sram_mm2 == pytest.approx(gained / technology.sram_mm2(chip.buffer_bytes * (STEP - 1)), rel=1e-3)
    assert found.sram_mm2 > 0


def test_a_balance_is_no_worse_than_any_division_that_is_tried() -> None:
    area = 6.0
    found = balance(NET, CHIP, area)
    assert found.area_mm2 == pytest.approx(area, rel=1e-3)
    technology = CHIP.find_technology()
    for size in (1 << 13, 1 << 15, 1 << 17, found.buffer_bytes):
        rest = area - technology.sram_mm2(size)
        shares = np.linspace(0.01, 0.99, 99)
        pes = rest * shares / technology.pe_mm2("int8")
        bandwidth = rest * (1 - shares) / technology.interface_mm2(1.0)
        rates = 1 / frame_seconds(NET, CHIP, pes, size, bandwidth)
        assert rates.max() <= found.frames_per_second * 1.001


def test_at_a_balance_no_square_millimetre_does_more_elsewhere() -> None:
    found = balance(NET, CHIP, 20.0)
    technology = CHIP.find_technology()

    def rate(pes_mm2: float, sram_mm2: float, interface_mm2: float) -> float:
        pes = np.array([pes_mm2 / technology.pe_mm2("int8")])
        bandwidth = np.array([interface_mm2 / technology.interface_mm2(1.0)])
        return 1 / float(frame_seconds(NET, CHIP, pes, int(sram_mm2 / technology.sram_mm2(1)), bandwidth)[0])

    parts = [found.pes_mm2, found.sram_mm2 * 1.00001, found.interface_mm2]
    assert rate(*parts) == pytest.approx(found.frames_per_second, rel=1e-3)
    for giver in range(3):
        for taker in range(3):
            for share in (0.02, 0.1):
                moved = list(parts)
                moved[giver] -= share * parts[giver]
                moved[taker] += share * parts[giver]
                assert rate(*moved) <= found.frames_per_second * 1.001


def test_a_balance_of_one_layer_by_hand() -> None:
    # M MACs and T bytes a frame at F frames/s need M F / clock elements and T F bytes/s: their area is F times that of
    # M / clock elements and T bytes/s, and it is what the buffer leaves
    layer = Nests("layer", (FC,))
    found = balance(layer, CHIP, 10.0)
    technology = CHIP.find_technology()
    macs, traffic = FC.macs, 1024 + 256 + FC.macs
    per_rate = technology.pe_mm2("int8") * macs / CHIP.clock_hertz + technology.interface_mm2(traffic)
    rest = 10.0 - technology.sram_mm2(found.buffer_bytes)
    assert found.frames_per_second == pytest.approx(rest / per_rate, rel=2e-3)
    assert found.ridge_point == pytest.approx(macs / traffic, rel=0.05)


def test_a_mix_lies_between_its_networks() -> None:
    conv, fc = Nests("conv", (CONV,)), Nests("fc", (FC,))
    both = {"conv": conv, "fc": fc}
    alone = [balance(nests, CHIP, 10.0).ridge_point for nests in both.values()]
    mixed = balance(both, CHIP, 10.0, weights={"conv": 1, "fc": 1}).ridge_point
    assert min(alone) < mixed < max(alone)
    frame = frame_of(both, {"conv": 1, "fc": 3})
    assert dict(zip(frame.nests, frame.times, strict=True)) == {CONV: 0.25, FC: 0.75}
    with pytest.raises(InputError, match="a weight for 'pool'"):
        balance(both, CHIP, 10.0, weights={"pool": 1})
    with pytest.raises(InputError, match="give a positive number"):
        balance(both, CHIP, 10.0, weights={"fc": -1})
    with pytest.raises(InputError, match="is 0: give a positive number"):
        balance(both, CHIP, 10.0, weights={"conv": 1, "fc": 0})


def test_the_ridge_against_the_layers() -> None:
    found = ridge_and_mix(Nests("both", (CONV, FC)), CHIP.replace(buffer_bytes=1 << 20))
    assert found.ridge_point == CHIP.pes * CHIP.clock_hertz / CHIP.dram_bandwidth
    traffic = 28 * 28 * (64 + 128) + 9 * 64 * 128, 1024 + 256 + 1024 * 256
    assert found.intensity == pytest.approx((CONV.macs + FC.macs) / sum(traffic))
    assert found.macs_below == pytest.approx(FC.macs / (CONV.macs + FC.macs))
    assert found.traffic_below == pytest.approx(traffic[1] / sum(traffic))


def test_a_chip_may_be_named() -> None:
    named, chip = "edge-npu", accelerator("edge-npu")
    assert elasticities(NET, named) == elasticities(NET, chip) and marginals(NET, named) == marginals(NET, chip)
    assert balance(NET, named, 10.0) == balance(NET, chip, 10.0)
    assert ridge_and_mix(NET, named) == ridge_and_mix(NET, chip)
    with pytest.raises(InputError, match="Did you mean edge-npu"):
        balance(NET, "edge-nup", 10.0)


def test_an_area_that_holds_nothing() -> None:
    with pytest.raises(InputError, match=r"0\.0001 mm² hold no design: one PE"):
        balance(NET, CHIP, 0.0001)
    # the smallest design itself leaves nothing to divide
    technology, widths = CHIP.find_technology(), CHIP.widths
    smallest = max(curve_of(nest, widths).smallest_buffer_bytes for nest in NET)
    with pytest.raises(InputError, match="hold no design"):
        balance(NET, CHIP, smallest * technology.sram_mm2(1) + technology.pe_mm2("int8"))
    with pytest.raises(InputError, match="names no technology"):
        balance(NET, CHIP.replace(technology="", dram=""), 5.0)


@pytest.mark.parametrize("area", [3.0, 6.0, 20.0])
def test_a_chip_without_a_memory_interface_divides_no_area_for_bandwidth(area: float) -> None:
    chip = CHIP.replace(memory_interface=False, dram_bandwidth=2e9)
    found = balance(NET, chip, area)
    assert (found.dram_bandwidth, found.interface_mm2, found.marginals.interface_mm2) == (2e9, 0.0, None)
    assert found.pes_mm2 + found.sram_mm2 == pytest.approx(area)
    technology = chip.find_technology()
    for size in (1 << 13, 1 << 15, 1 << 17, 1 << 19, found.buffer_bytes):
        pes = (area - technology.sram_mm2(size)) / technology.pe_mm2("int8")
        rate = 1 / frame_seconds(NET, chip, np.array([pes]), size, np.array([2e9]))
        assert rate[0] <= found.frames_per_second * 1.001
    assert marginals(NET, chip).interface_mm2 is None and marginals(NET, chip).bandwidth > 0
    assert "of the area" in found._repr_html_()


def test_how_it_shows_itself() -> None:
    found = balance(NET, CHIP, 6.0)
    assert "Balance of 6 mm²" in repr(found)
    assert "pes" in found._repr_html_() and "of the area" in found._repr_html_()
