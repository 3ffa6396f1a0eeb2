"""Accelerators: the presets say where their numbers come from, files of one's own are checked."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from costmodel.chip.accelerator import Accelerator, accelerator, names
from costmodel.chip.mapping import DATAFLOWS, Scratchpads
from costmodel.devices import device
from costmodel.errors import InputError

GOOD = """
title = "Toy"
dataflow = "weight_stationary"
rows = 32
columns = 16
clock_hertz = 500e6
operand = "int8"
accumulator = "int32"
buffer_bytes = 65536
dram_bandwidth = { value = 8e9, source = "sheet" }
dram = "ddr3"
technology = "28nm+derived"

[sources.sheet]
title = "Toy, datasheet"
date = "2026-11"
"""

PADS = """
[scratchpads]
weight_words = 224
input_words = 12
partial_sum_words = 24
weights_per_cycle = 4
inputs_per_cycle = 1
partial_sums_per_cycle = 4
"""


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "toy.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_presets_that_were_asked_for_are_there() -> None:
    assert {"eyeriss", "tpu-v1", "nvdla-64", "nvdla-256", "nvdla-2048", "edge-npu"} == set(names())


@pytest.mark.parametrize("name", [name for name in names() if name != "edge-npu"])
def test_every_number_of_a_product_has_a_source(name: str) -> None:
    found = accelerator(name)
    numbers = {"rows", "columns", "clock_hertz", "buffer_bytes", "dram_bandwidth", "pe_bytes"}
    assert numbers <= set(found.facts)
    assert all(fact.source.title and fact.source.date for fact in found.facts.values())
    assert found.title in found._repr_html_() and found.facts["rows"].source.date in found._repr_html_()


def test_published_figures() -> None:
    eyeriss, tpu = accelerator("eyeriss"), accelerator("tpu-v1")
    assert (eyeriss.pes, eyeriss.buffer_bytes, eyeriss.clock_hertz) == (168, 108 * 1024, 200e6)
    assert tpu.pes == 65_536
    assert tpu.macs_per_second == pytest.approx(45.9e12, rel=1e-3)  # 92 TOPS, two a MAC
    assert [accelerator(f"nvdla-{macs}").pes for macs in (64, 256, 2048)] == [64, 256, 2048]


def test_the_ridge_of_tpu_v1() -> None:
    # 65,536 MACs x 0.7 GHz / 34 GB/s = 1349: "~1350" in its paper, section 2
    assert accelerator("tpu-v1").ridge_point == pytest.approx(1350, rel=1e-3)


def test_gpus_come_from_their_device_files() -> None:
    gpu, h200 = accelerator("h200"), device("h200")
    assert (gpu.dataflow, gpu.operand, gpu.accumulator, gpu.technology) == ("ideal", "fp16", "fp32", "")
    assert 2 * gpu.macs_per_second == pytest.approx(h200.peaks["fp16"])
    assert (gpu.dram_bandwidth, gpu.buffer_bytes) == (h200.memory_bandwidth, h200.l2_bytes)
    assert 2 * accelerator("h200@int8").macs_per_second == pytest.approx(h200.peaks["int8"])
    assert accelerator("gtx1080").operand == "fp32"
    with pytest.raises(InputError, match=r"has no bf16 arithmetic: take one of .*gtx1080@fp32"):
        accelerator("gtx1080@bf16")
    for known in ("fp8", "tf32", "fp64"):  # the device computes in it, chips are not modelled with it
        with pytest.raises(InputError, match=f"the chip model does not know {known}: take one of h200@") as caught:
            accelerator(f"h200@{known}")
        listed = str(caught.value).removesuffix(".").partition("take one of ")[2].split(", ")
        assert {accelerator(name).operand for name in listed} == {"fp32", "fp16", "bf16", "int8"}
    with pytest.raises(InputError, match="cannot be an accelerator"):
        accelerator("xeon-icelake")


def test_a_gpus_array_has_a_row_for_each_of_its_units() -> None:
    # H200: 989.4e12 FLOP/s of fp16, two a MAC, at 1.98 GHz on 132 units: 1892.8 MACs a cycle and unit; the clock is
    # set so that 132 x 1893 of them do 989.4e12 / 2 a second
    gpu = accelerator("h200")
    assert (gpu.rows, gpu.columns) == (132, 1893)
    assert gpu.clock_hertz == pytest.approx(494.7e12 / (132 * 1893))
    assert not gpu.memory_interface and gpu.facts["dram_bandwidth"].value == gpu.dram_bandwidth


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("rows", 1, 65_536), ("columns", 1, 65_536), ("clock_hertz", 1e5, 1e11), ("buffer_bytes", 1, 2**40),
        ("dram_bandwidth", 1e5, 1e15), ("pe_bytes", 0, 2**30), ("buffer_banks", 1, 65_536),
        ("buffer_bytes_per_cycle", 1e-3, 1e9), ("other_sram_bytes", 0, 2**40), ("other_mm2", 0, 1e5),
    ],
)  # fmt: skip
def test_what_a_number_can_be(name: str, least: float, most: float) -> None:
    chip = accelerator("edge-npu").replace(buffer_banks=1, buffer_bytes=2**30)
    for value in (least, most):
        assert getattr(chip.replace(**{name: value}), name) == value
    step = 1 if isinstance(least, int) else 0.001 * least
    for value in (least - step, most * 1.001 if isinstance(most, float) else most + 1):
        with pytest.raises(InputError, match=name):
            chip.replace(**{name: value})


def test_an_accelerator_is_itself() -> None:
    assert accelerator(accelerator("eyeriss")) is accelerator("eyeriss")
    for wrong in (None, 3):
        with pytest.raises(InputError, match="is not an accelerator: give a name"):
            accelerator(wrong)


def test_unknown_names() -> None:
    with pytest.raises(InputError, match="Did you mean eyeriss"):
        accelerator("eyeris")
    with pytest.raises(InputError, match=r"Did you mean nvdla.*\.toml"):
        accelerator("nvdla-100")
    for path in ("missing.toml", "some/where", "some\\where"):  # what holds a slash is a file, whatever it ends in
        with pytest.raises(InputError, match="no such file"):
            accelerator(path)


def test_a_file_of_ones_own(write) -> None:
    toy = accelerator(write(GOOD))
    assert (toy.name, toy.pes, toy.ridge_point) == ("toy", 512, 32.0)
    assert toy.facts["dram_bandwidth"].source.date == "2026-11" and "rows" not in toy.facts
    assert toy.find_technology().name == "28nm+derived"
    assert toy.widths.partial_bits == 32 and toy.array[4:] == (65_536, 1, 4, False)
    rows = GOOD.replace("weight_stationary", "row_stationary") + PADS
    assert accelerator(write(rows)).scratchpads == Scratchpads(224, 12, 24, 4, 1, 4)
    assert pickle.loads(pickle.dumps(toy)) == toy


def test_a_technology_file_lies_beside_the_file_that_names_it(write, tmp_path: Path) -> None:
    path = write(GOOD.replace("28nm+derived", "mine.toml"))
    assert accelerator(path).technology == str(tmp_path / "mine.toml")
    with pytest.raises(InputError, match=r"mine\.toml: no such file"):
        accelerator(path).find_technology()
    bare = GOOD.replace('technology = "28nm+derived"', "")
    with pytest.raises(InputError, match="names no technology"):
        accelerator(write(bare)).find_technology()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("rows =", "rws ="), ["rws: unknown field", "Did you mean rows"]),
        (("rows = 32\n", ""), ["rows: missing: an accelerator needs it"]),
        (("rows = 32", "rows = 0"), ["rows", "positive"]),
        (("rows = 32", "rows = -1"), ["rows", "positive"]),
        (("rows = 32", "rows = 3.5"), ["rows", "whole"]),
        (("rows = 32", 'rows = "32"'), ["rows", "not a number"]),
        (
            ("clock_hertz = 500e6", "clock_hertz = 500"),
            ["clock_hertz", "cannot be in Hz: give 100e3 to 100e9; was 500e6 meant?"],
        ),
        (("rows = 32", "rows = 100000"), ["rows: 100,000 PEs cannot be: give 1 to 65,536"]),
        (("rows = 32", "rows = 32\nother_mm2 = -1"), ["other_mm2: -1 is negative or not finite: give mm², 0 or more"]),
        (
            ("rows = 32", "rows = 32\nbuffer_banks = 60000"),
            ["buffer_banks: a bank holds at least 1.00 KiB", "64.0 KiB are at most 64"],
        ),
        (("buffer_bytes = 65536", "buffer_bytes = 100\nbuffer_banks = 2"), ["100 B are at most 1"]),
        (("value = 8e9", "value = -8e9"), ["dram_bandwidth", "positive"]),
        (("value = 8e9", "value = inf"), ["dram_bandwidth", "finite"]),
        (("value = 8e9", "value = 8"), ["dram_bandwidth", "bytes/s", "was 8e9 meant?"]),
        (('"weight_stationary"', '"weightstationary"'), ["dataflow", "Did you mean weight_stationary"]),
        (('"weight_stationary"', '"row_stationary"'), ["scratchpads", "row_stationary needs them"]),
        (("[sources", PADS + "[sources"), ["scratchpads", "no other dataflow"]),
        (("[sources", "[scratchpads]\nweight_words = 3\n[sources"), ["scratchpads.input_words: missing"]),
        (('operand = "int8"', 'operand = "int4"'), ["operand", "int8"]),
        (('accumulator = "int32"', 'accumulator = "fp32"'), ["accumulator", "both integer, or neither"]),
        (
            ('operand = "int8"\naccumulator = "int32"', 'operand = "int16"\naccumulator = "int8"'),
            ["accumulator", "narrower"],
        ),
        (('dram = "ddr3"\n', ""), ["dram: missing"]),
        (('dram = "ddr3"', 'dram = "ddr"'), ["dram", "ddr3"]),
        (('source = "sheet"', 'source = "shet"'), ["dram_bandwidth.source", "Did you mean sheet"]),
        (('title = "Toy"', "title = 3"), ["title", "quotes"]),
        (("rows = 32", 'rows = 32\nmemory_interface = "no"'), ["memory_interface", "neither true nor false"]),
        (("rows = 32", "rows = 32\nweights_ahead = 1"), ["weights_ahead", "neither true nor false"]),
        (("rows = 32", "rows = {"), ["not a TOML file"]),
    ],
)
def test_bad_files_are_refused_in_one_line(write, change: tuple[str, str], expected: list[str]) -> None:
    assert change[0] in GOOD
    path = write(GOOD.replace(*change, 1))
    with pytest.raises(InputError) as caught:
        accelerator(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    for text in expected:
        assert text in message


def test_scratchpads_fit_in_their_element() -> None:
    with pytest.raises(InputError, match="scratchpads alone hold 520 bytes"):
        accelerator("eyeriss").replace(pe_bytes=519)  # 2 x (224 + 12 + 24)


def test_replace_changes_numbers_and_says_so() -> None:
    eyeriss = accelerator("eyeriss")
    faster = eyeriss.replace(dram_bandwidth=960e6)
    assert faster.ridge_point == pytest.approx(eyeriss.ridge_point / 2)
    assert "dram_bandwidth" in faster.title and "dram_bandwidth" not in faster.facts
    assert eyeriss.replace() == eyeriss
    with pytest.raises(InputError, match="Did you mean rows"):
        eyeriss.replace(row=3)
    with pytest.raises(InputError, match="positive"):
        eyeriss.replace(dram_bandwidth=-1.0)
    with pytest.raises(InputError, match="dataflow"):
        Accelerator("x", "X", "magic", 1, 1, 1e9, "int8", "int32", 1024, 1e9)
    assert len(DATAFLOWS) == 5
