"""What the chapters on chips say, derived again: from facts of the technologies' files, and by trying neighbours."""

from __future__ import annotations

import math

import pytest
from holding import hold

from costmodel import networks
from costmodel.book.chapters import chip, chip_changes, chip_designs, chip_layers
from costmodel.book.chapters.chip_study import BASE, Designed, design
from costmodel.book.engine import section
from costmodel.book.study import Study
from costmodel.chip.accelerator import Accelerator, accelerator
from costmodel.chip.evaluation import evaluate
from costmodel.chip.tiling import least_traffic

NAMES = ("lenet", "alexnet28")
TITLES = ("LeNet-5 (book)", "AlexNet for 28x28")


@pytest.fixture(scope="module")
def base() -> Accelerator:
    return accelerator(BASE)


@pytest.fixture(scope="module")
def designed(base: Accelerator) -> list[Designed]:
    found = [design(Study.of(networks.find(name)), base) for name in NAMES]
    return [each for each in found if each is not None]


@pytest.fixture(scope="module")
def said(designed: list[Designed], base: Accelerator) -> chip.Numbers:
    return chip.chip(designed, base).numbers


def test_prices_are_those_of_the_files(said: chip.Numbers) -> None:
    """28 nm: int8_multiply 0.153 pJ, int32_add 0.0736 pJ, 64 bits from DDR3 1.95 nJ; a PE 1515 µm², an interface
    5.84e-16 m² for a byte/s. 7 nm: a PE 322 µm², a bit of SRAM 0.11 µm² for 0.517, and the same interface."""
    hold(
        said.prices,
        {
            "oldest_nanometres": 28,
            "newest_nanometres": 7,
            "byte_macs": (1.95e-9 / 8) / (0.153e-12 + 0.0736e-12),
            "gigabyte_pes": 1e9 * 5.84e-16 / 1515e-12,
            "pes_ratio": 1515 / 322,
            "sram_ratio": 0.517 / 0.11,
            "bandwidth_ratio": 1.0,
        },
    )
    assert (round(said.prices.byte_macs), round(said.prices.gigabyte_pes)) == (1076, 385)


def test_the_table_of_prices(designed: list[Designed], base: Accelerator) -> None:
    table = chip.chip(designed, base).tables["prices"].data
    first = table.records()[0]
    assert first["technology"] == "28nm"
    assert first["pes"] == round(1e-6 / 1515e-12)
    assert first["macs_per_second"] == pytest.approx(800e6 * 1e-6 / 1515e-12)
    assert first["buffer_bytes"] == int(1e-6 / (8 * 0.517e-12))
    assert first["dram_bandwidth"] == pytest.approx(1e-6 / 5.84e-16)
    assert first["mac_joules"] == pytest.approx(0.2266e-12)
    assert first["dram_joules"] == pytest.approx(1.95e-9 / 8)
    # a bank of 32 KiB: 16.1 pJ for 64 bits
    assert base.buffer_bytes / base.buffer_banks == 32768
    assert first["buffer_joules"] == pytest.approx(16.1e-12 / 8)


def test_the_base(said: chip.Numbers) -> None:
    """32 x 32 PEs, 512 KiB and LPDDR of 8.5 GB/s at 800 MHz: 819.2 GMAC/s over that are 96.4 MACs a byte."""
    hold(
        said.base,
        {
            "name": "a small edge NPU",
            "rows": 32,
            "columns": 32,
            "buffer_bytes": 2**19,
            "bytes_per_second": 8.5e9,
            "ridge_macs_per_byte": 32 * 32 * 0.8e9 / 8.5e9,
        },
    )
    whole = (said.budget_mm2, said.smallest_mm2, said.largest_mm2, said.node_nanometres, said.operand, said.clock_hertz)
    assert whole == (10.0, 3.0, 100.0, 16, "int8", 800e6)
    assert (said.technology, said.derived) == ("16nm+derived", True)


def rate(each: Designed, base: Accelerator, pes: float, buffer_bytes: float, bytes_per_second: float) -> float:
    """Frames a second of an ideal array: each layer takes the longer of its MACs, of which the base's array does 1,024
    at once, and of its best traffic."""
    seconds = 0.0
    for nest in each.nests:
        rounds = math.ceil(nest.macs / 1024)
        moved = float(least_traffic(nest, base.widths).dram_bytes(int(buffer_bytes)))
        seconds += max(rounds * 1024 / (pes * base.clock_hertz), moved / bytes_per_second)
    return 1 / seconds


@pytest.mark.parametrize("index", range(len(NAMES)))
def test_divisions(said: chip.Numbers, designed: list[Designed], base: Accelerator, index: int) -> None:
    each, found = designed[index], said.divisions[index]
    best = each.at_budget
    assert best.pes_mm2 + best.sram_mm2 + best.interface_mm2 + best.other_mm2 == pytest.approx(10.0, rel=1e-6)
    assert found.network == TITLES[index]
    assert found.interface_share == pytest.approx(best.dram_bandwidth * 5.84e-10 / 10, rel=1e-6)
    assert found.pes_share == pytest.approx(best.pes * 835e-6 / 10, rel=1e-6)
    assert found.frames_per_second == pytest.approx(
        rate(each, base, best.pes, best.buffer_bytes, best.dram_bandwidth), rel=1e-9
    )
    step = 1 + 1e-4  # of either, as many PEs or as much bandwidth more
    more = rate(each, base, best.pes * step, best.buffer_bytes, best.dram_bandwidth) - found.frames_per_second
    assert found.pes_marginal == pytest.approx(more / (best.pes * (step - 1) * 835e-6), rel=1e-6)
    more = rate(each, base, best.pes, best.buffer_bytes, best.dram_bandwidth * step) - found.frames_per_second
    assert found.interface_marginal == pytest.approx(more / (best.dram_bandwidth * (step - 1) * 5.84e-10), rel=1e-6)
    small, large = each.balances[0], each.balances[-1]
    assert found.speedup == pytest.approx(
        rate(each, base, large.pes, large.buffer_bytes, large.dram_bandwidth)
        / rate(each, base, small.pes, small.buffer_bytes, small.dram_bandwidth),
        rel=1e-9,
    )
    assert (found.pes_ratio, found.bandwidth_ratio, found.buffer_ratio) == (
        large.pes / small.pes,
        large.dram_bandwidth / small.dram_bandwidth,
        large.buffer_bytes / small.buffer_bytes,
    )


def test_elasticities_are_those_of_a_percent(said: chip.Numbers, designed: list[Designed], base: Accelerator) -> None:
    """More PEs are a faster clock to the array's time; so both are tried with one ten-thousandth more."""
    for each, found in zip(designed, said.divisions, strict=True):
        before = evaluate(each.study.trace(), base).overlapped_seconds
        faster = evaluate(each.study.trace(), base.replace(clock_hertz=base.clock_hertz * 1.0001)).overlapped_seconds
        wider = evaluate(
            each.study.trace(), base.replace(dram_bandwidth=base.dram_bandwidth * 1.0001)
        ).overlapped_seconds
        assert found.elasticity.pes == pytest.approx((faster / before - 1) / 0.0001, abs=0.001)
        assert found.elasticity.bandwidth == pytest.approx((wider / before - 1) / 0.0001, abs=0.001)
        assert found.elasticity.buffer == 0.0  # 512 KiB hold all that these networks use twice


def test_layers_below_the_ridge(said: chip.Numbers, designed: list[Designed], base: Accelerator) -> None:
    for each, found in zip(designed, said.divisions, strict=True):
        moved = [float(least_traffic(nest, base.widths).dram_bytes(base.buffer_bytes)) for nest in each.nests]
        macs = [nest.macs for nest in each.nests]
        below = [i for i, nest in enumerate(each.nests) if nest.macs / moved[i] < 96.37]
        assert found.macs_per_byte == pytest.approx(sum(macs) / sum(moved))
        assert found.macs_below_share == pytest.approx(sum(macs[i] for i in below) / sum(macs))
        assert found.bytes_below_share == pytest.approx(sum(moved[i] for i in below) / sum(moved))


def test_a_larger_batch(said: chip.Numbers, designed: list[Designed], base: Accelerator) -> None:
    """Bytes of int8 that no buffer saves LeNet: each input, weight and output of its five layers once."""
    dense = (400 * 120 + 400 + 120) + (120 * 84 + 120 + 84) + (84 * 10 + 84 + 10)
    convolutions = (28 * 28 + 6 * 25 + 6 * 28 * 28) + (6 * 14 * 14 + 6 * 16 * 25 + 16 * 10 * 10)
    assert said.larger is not None
    assert said.larger.fc_share == pytest.approx(dense / (dense + convolutions))
    assert (said.larger.network, said.larger.change) == (TITLES[0], "16 times the batch")
    alone, many = (evaluate(designed[0].study.trace(batch), base).overlapped_seconds for batch in (1, 16))
    assert said.larger.speedup == pytest.approx(alone / (many / 16))


def test_one_chip_for_both(said: chip.Numbers, designed: list[Designed], base: Accelerator) -> None:
    assert said.mix is not None
    alone = [round(each.at_budget.pes) for each in designed]
    assert said.mix.own_pes == tuple(alone)
    assert said.mix.between == (min(alone) < said.mix.pes < max(alone))

    def average(pes: float, bytes_per_second: float) -> float:
        rates = [rate(each, base, pes, said.mix.buffer_bytes, bytes_per_second) for each in designed]  # type: ignore[union-attr]
        return 1 / sum(1 / each for each in rates)

    best = average(said.mix.pes, said.mix.bytes_per_second)
    for step in (0.9, 0.99, 1.01, 1.1):  # another division of the same area is slower
        moved = said.mix.pes * (step - 1) * 835e-6 / 5.84e-10
        assert average(said.mix.pes * step, said.mix.bytes_per_second - moved) < best * (1 + 1e-6)


def test_where_time_and_energy_go(designed: list[Designed], base: Accelerator) -> None:
    found = chip_layers.numbers(designed, base)
    assert (found.chip, found.rows, found.columns) == ("a small edge NPU", 32, 32)
    assert (found.clock_hertz, found.buffer_bytes, found.bytes_per_second) == (800e6, 2**19, 8.5e9)
    # bytes of int8 that poolings read and write, one by one
    pooled = {"lenet": (6 * 28**2 + 6 * 14**2) + (16 * 10**2 + 16 * 5**2), "alexnet28": 77104}
    for each, row in zip(designed, found.networks, strict=True):
        table = evaluate(each.study.trace(), base).to_frame()
        slower = table[["array_seconds", "buffer_seconds", "dram_seconds"]].max(axis="columns")
        assert row.overlapped_seconds == pytest.approx(slower.sum())
        assert row.serial_seconds == pytest.approx(table["serial_seconds"].sum() + pooled[each.study.name] / 8.5e9)
        by = table.groupby("binding")["overlapped_seconds"].sum()
        assert row.binding == by.idxmax()
        assert row.binding_share == pytest.approx(by.max() / by.sum())
        assert row.dram_energy_share == pytest.approx(table["dram_bytes"].sum() * 1.95e-9 / 8 / table["joules"].sum())
        mac = table["macs"].sum() * (0.112e-12 + 0.0512e-12)  # 16 nm: int8_multiply, int32_add
        assert row.mac_energy_share == pytest.approx(mac / table["joules"].sum())
        assert (row.network, row.key) == (each.study.title, each.study.name)


def test_what_helps_most(designed: list[Designed]) -> None:
    found = chip_changes.changes(designed).numbers
    for each, row in zip(designed, found.networks, strict=True):
        table = each.what_ifs.to_frame().iloc[1:]
        same = table[~table["change"].str.contains("resolution")]
        first = each.what_ifs.outcomes[0].overlapped_seconds
        assert row.speedup == pytest.approx(first / same["overlapped_seconds"].min())
        assert row.change == same.loc[same["overlapped_seconds"].idxmin(), "change"]
        assert (row.network, row.key) == (each.study.title, each.study.name)


def test_designs(base: Accelerator, designed: list[Designed]) -> None:
    """36 arrays, three dataflows, as many buffers and bandwidths as every second of the usual ones: all hold a tile."""
    found = chip_designs.designs(designed[:1], base)
    space = chip_designs.space(base)
    assert found.numbers.designs == 36 * len(space.dataflows) * len(space.buffers) * len(space.bandwidths)
    assert (len(space.dataflows), len(space.buffers), len(space.bandwidths)) == (3, 9, 13)
    table = found.tables["fastest"].data
    for row, area in zip(table.records(), (3.0, 10.0, 30.0, 100.0), strict=False):
        assert row["area_mm2"] <= area


def test_another_number_makes_another_sentence(designed: list[Designed], base: Accelerator) -> None:
    words = section(chip.chip(designed, base))
    assert "92 % on the memory's interface and 7 % on PEs for LeNet-5" in words.answer
    assert "At 28 nm a byte from DRAM takes the energy of 1,076 MACs" in str(words.sections[0].blocks)
    alone = section(chip.chip(designed[1:], base))
    assert not any(each.title.startswith("One chip") for each in alone.sections)
