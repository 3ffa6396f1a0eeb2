"""Sweeps: every point is what `evaluate` says, budgets, mixes, executors."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import costmodel as cm
from costmodel.chip.accelerator import accelerator
from costmodel.chip.evaluation import area_of, energy_of, evaluate
from costmodel.chip.explore import MIX, Exploration, explore
from costmodel.chip.lowering import lower
from costmodel.chip.nests import Nest, Nests
from costmodel.chip.space import Space, variant, with_buffer
from costmodel.chip.sweep import _mapping, _mappings
from costmodel.errors import InputError

CONV = Nest(
    "conv", "aten.convolution", "conv", batch=2, in_channels=24, out_channels=40, out_rows=14, out_columns=14,
    filter_rows=3, filter_columns=3, padding=((1, 1), (1, 1)), in_rows=14, in_columns=14,
)  # fmt: skip
FC = Nest("fc", "aten.addmm", "linear", batch=2, in_channels=600, out_channels=100)
WIDE = Nests("wide", (CONV, replace(CONV, layer="again"), FC), images=2)
FLAT = Nests("flat", (FC,), images=2)
BASE = accelerator("edge-npu")
SPACE = Space(
    BASE,
    arrays=((8, 8), (8, 32), (64, 16)),
    dataflows=("weight_stationary", "output_stationary", "channel_parallel", "ideal"),
    buffers=(4096, 16384, 1 << 20),
    bandwidths=(1e9, 8e9),
    operands=("int8", "int16"),
    clocks=(0.5e9, 1e9),
)


@pytest.fixture(scope="module")
def swept() -> Exploration:
    return explore({"wide": WIDE, "flat": FLAT}, SPACE, weights={"wide": 1, "flat": 3})


def test_there_is_a_row_for_every_combination(swept: Exploration) -> None:
    assert len(SPACE) == 3 * 4 * 3 * 2 * 2 * 2
    assert (swept.tried, len(swept.frame)) == (3 * len(SPACE), 3 * len(SPACE))
    assert swept.networks == ("wide", "flat", MIX)
    axes = ["network", "operand", "dataflow", "rows", "columns", "buffer_bytes", "dram_bandwidth", "clock_hertz"]
    assert not swept.frame.duplicated(axes).any()


def test_every_point_is_what_the_evaluation_says(swept: Exploration) -> None:
    for network, nests in (("wide", WIDE), ("flat", FLAT)):
        for _, row in swept.of(network).iloc[::7].iterrows():
            found = evaluate(nests, SPACE.design(row))
            assert row["overlapped_seconds"] == pytest.approx(found.overlapped_seconds / 2)
            assert row["serial_seconds"] == pytest.approx(found.serial_seconds / 2)
            assert row["dram_bytes"] == pytest.approx(found.dram_bytes / 2)
            assert row["joules_per_frame"] == pytest.approx(found.joules_per_frame)
            assert row["watts"] == pytest.approx(found.watts)
            assert row["area_mm2"] == pytest.approx(found.area.total)


def test_a_mix_is_the_average_frame(swept: Exploration) -> None:
    wide, flat, mix = (swept.of(name).reset_index(drop=True) for name in swept.networks)
    for name in ("overlapped_seconds", "joules_per_frame", "dram_bytes"):
        assert np.allclose(mix[name], 0.25 * wide[name] + 0.75 * flat[name])
    assert np.allclose(mix["area_mm2"], wide["area_mm2"])


def test_arrays_whose_weights_come_ahead_too() -> None:
    space = Space(
        accelerator("tpu-v1"), arrays=((16, 16), (64, 8)), dataflows=("weight_stationary",), buffers=(65536,),
        bandwidths=(1e12,), operands=("int8",), clocks=(7e8,),
    )  # fmt: skip
    for _, row in explore(WIDE, space).frame.iterrows():
        one = evaluate(WIDE, space.design(row))
        assert space.design(row).weights_ahead
        assert row["serial_frames_per_second"] == pytest.approx(one.serial_frames_per_second)


def test_row_stationary_arrays_too() -> None:
    base = accelerator("eyeriss")
    space = Space(
        base, arrays=((12, 14), (3, 5)), dataflows=("row_stationary",), buffers=(1024, 65536), bandwidths=(1e9,),
        operands=("int16",), clocks=(2e8,),
    )  # fmt: skip
    found = explore(WIDE, space)
    for _, row in found.frame.iterrows():
        one = evaluate(WIDE, space.design(row))
        assert row["overlapped_seconds"] == pytest.approx(one.overlapped_seconds / 2)
        assert row["area_mm2"] == pytest.approx(one.area.total)
        assert row["joules_per_frame"] == pytest.approx(one.joules_per_frame)


def test_where_a_row_stationary_mapping_is_the_same_nothing_between_is_mapped() -> None:
    chip, buffers = accelerator("eyeriss"), [round(2**exponent) for exponent in np.arange(9, 22, 0.5)]
    for nest in (CONV, replace(CONV, batch=1, in_channels=96, out_channels=128), FC):
        alone = [_mapping(nest, chip.replace(buffer_bytes=size, buffer_banks=1)) for size in buffers]
        assert len({found and found.cycles for found in alone}) > 1
        assert _mappings(nest, chip, buffers) == alone


def test_a_space_tries_its_base_too() -> None:
    for name in ("edge-npu", "nvdla-64", "tpu-v1", "h200"):
        chip = accelerator(name)
        found = explore(FLAT, Space(chip))
        own = found.frame
        for axis, value in (
            ("dataflow", chip.dataflow), ("rows", chip.rows), ("columns", chip.columns),
            ("buffer_bytes", chip.buffer_bytes), ("dram_bandwidth", chip.dram_bandwidth),
            ("clock_hertz", chip.clock_hertz), ("operand", chip.operand),
        ):  # fmt: skip
            own = own[own[axis] == value]
        assert len(own) == 1 and len(found.frame) == len(found.space)
        assert own.iloc[0]["overlapped_seconds"] == pytest.approx(evaluate(FLAT, chip).overlapped_seconds / 2)
    assert Space(BASE, buffers=tuple(2 ** np.arange(15, 18))).buffers == (32768, 65536, 131072)
    assert Space("eyeriss") == Space(accelerator("eyeriss")) and "row_stationary" in Space("eyeriss").dataflows


def test_bandwidth_that_costs_nothing_is_not_varied_unasked() -> None:
    chip = accelerator("nvdla-64")
    assert Space(chip).bandwidths == (1e9,)
    assert len(Space(chip.replace(memory_interface=True)).bandwidths) == 25  # 1 GB/s is one of them
    assert Space(chip, bandwidths=(1e9, 4e9)).bandwidths == (1e9, 4e9)


def test_without_scratchpads_an_element_has_registers() -> None:
    """Area and energy of the element both follow: a weight, an input and a partial sum of 16 bits each."""
    base = accelerator("eyeriss")
    technology = base.find_technology()
    own, other = variant(base, "int16", "row_stationary"), variant(base, "int16", "output_stationary")
    assert own == base
    assert (other.scratchpads, other.pe_bytes) == (None, 6)
    assert area_of(own, technology).pes - area_of(other, technology).pes == pytest.approx(
        168 * technology.sram_mm2(520)
    )
    pads, registers = (energy_of(chip, technology)(1, 0, 0).pe for chip in (own, other))
    # 8 bytes move for a MAC; an access takes the square root of the size below the smallest array that has a number
    assert registers == pytest.approx(pads * (6 / 520) ** 0.5)
    assert variant(base, "int8", "row_stationary").pe_bytes == 224 + 12 + 2 * 24
    assert variant(BASE, "int16", "output_stationary").pe_bytes == BASE.pe_bytes


def test_small_buffers_have_fewer_banks() -> None:
    assert [with_buffer(BASE, size).buffer_banks for size in (1 << 20, 1 << 14, 1 << 13, 4096, 100)] == [
        16,
        16,
        8,
        4,
        1,
    ]


def test_the_front_and_the_best(swept: Exploration) -> None:
    front = swept.pareto("wide")
    rows = swept.of("wide")
    for _, row in front.iterrows():
        better = rows[(rows["frames_per_second"] > row["frames_per_second"]) & (rows["area_mm2"] <= row["area_mm2"])]
        assert better.empty
    assert front["area_mm2"].is_monotonic_increasing
    best = swept.best("wide")
    assert best["frames_per_second"] == rows["frames_per_second"].max() == front["frames_per_second"].max()
    assert len(swept.pareto("wide", minimise=("area_mm2", "watts"))) >= len(front)
    with pytest.raises(InputError, match="Did you mean area_mm2"):
        swept.pareto("wide", minimise=("area_mm",))
    with pytest.raises(InputError, match="was not explored"):
        swept.of("narrow")


def test_budgets(swept: Exploration) -> None:
    found = explore(WIDE, SPACE, area_mm2=3.0, watts=0.5)
    assert 0 < len(found.frame) < found.tried
    assert found.frame["area_mm2"].max() <= 3.0 and found.frame["watts"].max() <= 0.5
    everything = swept.of("wide")
    assert len(found.frame) == ((everything["area_mm2"] <= 3.0) & (everything["watts"] <= 0.5)).sum()


def test_a_budget_that_nothing_meets_says_what_comes_nearest(swept: Exploration) -> None:
    least = swept.of("wide")["area_mm2"].min()
    with pytest.raises(InputError, match=rf"no design of 288 is within 0\.1 mm².*Nearest comes {least:.3g} mm²: 8 x 8"):
        explore(WIDE, SPACE, area_mm2=0.1)
    with pytest.raises(InputError, match="and 1e-06 W"):
        explore(WIDE, SPACE, area_mm2=0.1, watts=1e-6)


def test_a_space_computes_in_its_bases_type_unless_told_otherwise() -> None:
    assert Space(accelerator("h200")).operands == ("fp16",)
    found = explore(FLAT, Space(accelerator("h200"), arrays=((8, 8),)))
    assert set(found.frame["operand"]) == {"fp16"} and "watts" not in found.frame


def test_any_executor_gives_the_same(swept: Exploration) -> None:
    networks = {"wide": WIDE, "flat": FLAT}
    with ThreadPoolExecutor(2) as threads:
        found = explore(networks, SPACE, weights={"wide": 1, "flat": 3}, executor=threads)
    pd.testing.assert_frame_equal(found.frame, swept.frame)
    with ProcessPoolExecutor(1) as processes:
        found = explore(networks, SPACE, weights={"wide": 1, "flat": 3}, executor=processes)
    pd.testing.assert_frame_equal(found.frame, swept.frame)


def test_a_dask_cluster_gives_the_same(swept: Exploration) -> None:
    distributed = pytest.importorskip("distributed", reason="dask[distributed] is not installed")
    with distributed.Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None) as client:
        found = explore(
            {"wide": WIDE, "flat": FLAT}, SPACE, weights={"wide": 1, "flat": 3}, executor=client.get_executor()
        )
    pd.testing.assert_frame_equal(found.frame, swept.frame)


def test_designs_without_a_technology_have_no_area() -> None:
    bare = Space(BASE.replace(technology="", dram=""), arrays=((8, 8),))
    found = explore(FLAT, bare)
    assert "area_mm2" not in found.frame
    with pytest.raises(InputError, match="budgets of area and power need one"):
        explore(FLAT, bare, area_mm2=5)


def test_buffers_that_are_too_small_are_left_out() -> None:
    small = replace(SPACE, buffers=(8, 4096))
    found = explore(WIDE, small)
    assert set(found.frame["buffer_bytes"]) == {4096}
    with pytest.raises(
        InputError, match="no buffer of this space holds a tile of every layer: the largest has 8 bytes"
    ):
        explore(WIDE, replace(SPACE, buffers=(4, 8)))


def test_what_cannot_be_explored() -> None:
    with pytest.raises(InputError, match="at least one of its buffers"):
        replace(SPACE, buffers=())
    with pytest.raises(InputError, match="Did you mean weight_stationary"):
        replace(SPACE, dataflows=("weightstationary",))
    with pytest.raises(InputError, match="not a positive, finite number"):
        replace(SPACE, bandwidths=(-1.0,))
    with pytest.raises(InputError, match="at least one network"):
        explore({}, SPACE)
    for wrong in (3, {"wide": 3}, [WIDE]):
        with pytest.raises(InputError, match=r"costmodel\.lower\(trace\) makes them"):
            explore(wrong, SPACE)
    with pytest.raises(InputError, match="a weight for 'narrow'"):
        explore(WIDE, SPACE, weights={"narrow": 1})
    with pytest.raises(InputError, match="give a positive number"):
        explore(WIDE, SPACE, weights={"wide": 0})
    with pytest.raises(InputError, match="is not positive"):
        explore(WIDE, SPACE, area_mm2=-1)
    with pytest.raises(InputError, match="bf16"):
        replace(SPACE, operands=("bf16",))
    with pytest.raises(InputError, match="unknown operand 'fp8'"):
        replace(SPACE, operands=("fp8",))
    with pytest.raises(InputError, match="scratchpads"):
        replace(SPACE, dataflows=("row_stationary",))


def test_how_it_shows_itself(swept: Exploration) -> None:
    assert "864 of 864 points" in repr(swept)
    assert swept.table().title == "864 of 864 points" and len(swept.table()) == 864
    assert swept.table(swept.pareto("wide")).title == "864 of 864 points"
    assert "mix" in swept._repr_html_() and swept.to_frame() is swept.frame


def test_the_slow_end_of_the_band_is_the_evaluations() -> None:
    """What passes through DRAM between contractions counts in both: resnet18's additions and poolings."""
    network = cm.networks.find("torchvision:resnet18")
    trace = cm.trace(network.module, network.inputs(2))
    chip = accelerator("edge-npu")
    for operand in ("int8", "int16"):
        space = Space(
            chip, arrays=((32, 32),), dataflows=(chip.dataflow,), buffers=(chip.buffer_bytes,),
            bandwidths=(chip.dram_bandwidth,), operands=(operand,), clocks=(chip.clock_hertz,),
        )  # fmt: skip
        found, (_, row) = (
            evaluate(trace, chip.replace(operand=operand)),
            next(explore(lower(trace), space).frame.iterrows()),
        )
        assert found.unfused_bytes > 0
        assert row["serial_frames_per_second"] == pytest.approx(found.serial_frames_per_second)


def test_of_designs_of_least_energy_the_smallest_then_the_fastest_is_the_best() -> None:
    """Energy depends on neither bandwidth nor clock, and area not on the clock."""
    found = explore(WIDE, replace(SPACE, bandwidths=(64e9, 128e9)))
    rows = found.of("wide")
    best = found.best("wide", "joules_per_frame", least=True)
    equals = rows[rows["joules_per_frame"] == rows["joules_per_frame"].min()]
    smallest = equals[equals["area_mm2"] == equals["area_mm2"].min()]
    assert len(equals) > len(smallest) > 1
    assert best["frames_per_second"] == smallest["frames_per_second"].max() > smallest["frames_per_second"].min()
    product = found.best("wide", "joule_seconds", least=True)
    assert product["joule_seconds"] == (rows["joules_per_frame"] * rows["overlapped_seconds"]).min()


def test_a_design_at_an_end_of_an_axis(swept: Exploration) -> None:
    design = {"rows": 8, "columns": 16, "buffer_bytes": 16384, "dram_bandwidth": 1e9, "clock_hertz": 1e9}
    assert swept.at_an_end(pd.Series(design)) == ("rows", "dram_bandwidth", "clock_hertz")
    one_clock = replace(swept, space=replace(SPACE, clocks=(1e9,)))
    assert one_clock.at_an_end(pd.Series(design)) == ("rows", "dram_bandwidth")
