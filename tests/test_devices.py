"""Device files: what ships is complete and sourced, names are found, and bad files are refused in one line."""

from __future__ import annotations

import pickle
import re
from itertools import combinations
from pathlib import Path

import pytest

from costmodel.devices import PATHS, Device, device, names
from costmodel.errors import InputError

GOOD = """
title = "Toy"
kind = "gpu"
memory_bandwidth = { value = 1e12, source = "sheet" }
memory_bytes = { value = 1073741824, source = "sheet", note = "1 GiB" }

[peaks]
fp32 = { value = 10e12, source = "sheet" }
fp16 = { value = 40e12, source = "sheet" }

[sources.sheet]
title = "Toy, datasheet"
date = "2026-11"
"""


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str, name: str = "toy.toml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refusal(path: str | Path) -> str:
    with pytest.raises(InputError) as caught:
        device(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_devices_that_were_asked_for_are_there() -> None:
    assert {
        "h200", "h100", "h100-pcie", "a100-40gb", "a100-80gb", "v100", "v100-32gb", "t4", "rtx2080ti", "rtx3090",
        "rtx4090", "p100-sxm2", "p100-pcie", "p4", "l4", "l40s", "amd-epyc-1thread",
        "gtx1080", "gtx1080ti", "titan-x-maxwell", "titan-x-pascal", "xeon-icelake", "xeon-icelake-1core",
    } == set(names())  # fmt: skip


CORES = {"rtx2080ti": 64, "p100-sxm2": 64, "p100-pcie": 64, "p4": 128, "l4": 128, "l40s": 128}
"""FP32 units of a multiprocessor: 64 on GP100 and Turing, 128 on other Pascals and on Ada."""


@pytest.mark.parametrize("name", CORES)
def test_peaks_are_those_of_the_units_and_the_clock(name: str) -> None:
    found = device(name)
    assert found.units and found.clock_hertz
    assert found.peaks["fp32"] == pytest.approx(2 * found.units * CORES[name] * found.clock_hertz, rel=0.015)


@pytest.mark.parametrize("name", names())
def test_every_number_has_a_source_with_a_date(name: str) -> None:
    found = device(name)
    numbers = {"memory_bandwidth", "memory_bytes", "units", "clock_hertz"}
    numbers |= {"l2_bytes"} if found.l2_bytes else set()
    numbers |= {f"peaks.{path}" for path in found.peaks}
    assert numbers <= set(found.facts)
    for fact in found.facts.values():
        assert fact.source.title and re.match(r"20\d\d", fact.source.date)
    assert found.source and found.date


@pytest.mark.parametrize(
    ("name", "peaks", "bandwidth", "memory_gib"),
    [  # NVIDIA's whitepapers and datasheets, dense, in TFLOP/s and GB/s
        ("h200", {"fp32": 66.9, "tf32": 494.7, "fp16": 989.4, "bf16": 989.4, "int8": 1978.9}, 4800, 141),
        ("h100", {"fp32": 66.9, "tf32": 494.7, "fp16": 989.4, "bf16": 989.4}, 3350, 80),
        (
            "a100-40gb",
            {"fp32": 19.5, "tf32": 156, "fp16": 312, "bf16": 312, "int8": 624, "fp64_tensor": 19.5},
            1555,
            40,
        ),
        ("a100-80gb", {"fp32": 19.5, "tf32": 156, "fp16": 312}, 2039, 80),
        ("v100", {"fp32": 15.7, "fp64": 7.8, "fp16": 125}, 900, 16),
        ("v100-32gb", {"fp32": 15.7, "fp64": 7.8, "fp16": 125}, 900, 32),
        ("rtx2080ti", {"fp32": 13.45, "fp16": 53.8, "int8": 215.2}, 616, 11),
        ("t4", {"fp32": 8.1, "fp16": 65, "int8": 130}, 320, 15),
        ("rtx3090", {"fp32": 35.6, "tf32": 35.6, "fp16": 71, "bf16": 71}, 936, 24),
        ("rtx4090", {"fp32": 82.6, "tf32": 82.6, "fp16": 165.2}, 1008, 24),
        ("gtx1080", {"fp32": 8.873}, 320, 8),
        ("gtx1080ti", {"fp32": 11.34}, 484, 11),
        ("titan-x-pascal", {"fp32": 10.97}, 480, 12),
    ],
)
def test_published_figures(name: str, peaks: dict[str, float], bandwidth: float, memory_gib: int) -> None:
    found = device(name)
    assert {path: found.peaks[path] / 1e12 for path in peaks} == pytest.approx(peaks)
    assert found.memory_bandwidth == bandwidth * 1e9
    assert found.memory_bytes == memory_gib * 2**30


@pytest.mark.parametrize(
    ("name", "lanes"),
    [  # fp32 units in a multiprocessor: 64 in Volta, Turing, A100; 128 in the others. AVX-512: 2 x 16 in a core
        ("h200", 128), ("h100-pcie", 128), ("a100-80gb", 64), ("v100", 64), ("t4", 64), ("rtx2080ti", 64),
        ("rtx3090", 128),
        ("rtx4090", 128), ("gtx1080", 128), ("gtx1080ti", 128), ("titan-x-pascal", 128), ("titan-x-maxwell", 128),
        ("xeon-icelake", 32), ("xeon-icelake-1core", 32),
    ],
)  # fmt: skip
def test_fp32_peak_is_units_times_lanes_times_two_times_clock(name: str, lanes: int) -> None:
    found = device(name)
    assert found.peaks["fp32"] == pytest.approx(found.units * lanes * 2 * found.clock_hertz, rel=0.01)


def test_two_cores_reach_twice_what_one_reaches() -> None:
    one, two = device("xeon-icelake-1core"), device("xeon-icelake")
    assert two.peaks == pytest.approx({path: 2 * peak for path, peak in one.peaks.items()})
    assert two.memory_bandwidth == one.memory_bandwidth  # the socket's


def test_ridge_points() -> None:
    # H200: 494.7e12 / 4.8e12 = 103.0625; 66.9e12 / 4.8e12 = 13.9375
    ridges = device("h200").ridge_points
    assert ridges["tf32"] == pytest.approx(103.0625)
    assert ridges["fp32"] == pytest.approx(13.9375)
    assert list(ridges) == [path for path in PATHS if path in ridges]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("h200", "h200"), ("H200 SXM", "h200"), ("NVIDIA H200", "h200"), ("H100_PCIe", "h100-pcie"),
        ("NVIDIA H100 80GB HBM3", "h100"), ("Tesla V100-SXM2-16GB", "v100"), ("a100", "a100-80gb"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"), ("NVIDIA GeForce RTX 3090", "rtx3090"), ("gtx 1080 ti", "gtx1080ti"),
        ("NVIDIA A100-PG509-200", "a100-40gb"), ("Tesla V100-DGXS-32GB", "v100-32gb"),
        ("NVIDIA GeForce RTX 2080 Ti", "rtx2080ti"), ("NVIDIA TITAN X (Pascal)", "titan-x-pascal"),
        ("Tesla T4", "t4"), ("xeon", "xeon-icelake"),
    ],
)  # fmt: skip
def test_names_ignore_case_spaces_and_vendor(given: str, expected: str) -> None:
    assert device(given).name == expected


def test_no_two_devices_answer_to_one_name() -> None:
    from costmodel.devices import _key

    answers = {
        name: {_key(text) for text in (name, found.title, *found.aliases)}
        for name in names()
        for found in [device(name)]
    }
    for (one, mine), (two, theirs) in combinations(answers.items(), 2):
        assert not mine & theirs, f"{one} and {two}"


def test_an_unknown_name_answers_with_the_nearest() -> None:
    assert "h200, h100" in refusal("h2000")
    assert "titan-x-pascal" in refusal("titan-x")
    assert "costmodel devices" in refusal("abacus")
    assert refusal("")


def test_a_file_of_ones_own(write) -> None:
    toy = device(write(GOOD))
    assert (toy.name, toy.title, toy.kind) == ("toy", "Toy", "gpu")
    assert toy.peaks == {"fp32": 10e12, "fp16": 40e12}
    assert toy.ridge_points == {"fp32": 10.0, "fp16": 40.0}
    assert toy.memory_bytes == 2**30 and toy.l2_bytes is None and toy.launch_seconds is None
    assert toy.facts["memory_bytes"].note == "1 GiB"
    assert toy.source == "Toy, datasheet (2026-11)" and toy.date == "2026-11"
    assert device(str(write(GOOD))) == toy


@pytest.mark.parametrize(
    ("change", "expected"),
    [  # (what is replaced, by what), what the message must hold: the field and what to do
        (("[peaks]", "[peeks]"), ["peeks: unknown field", "peaks"]),
        (("memory_bandwidth", "memory_bandwith"), ["memory_bandwith: unknown field", "Did you mean memory_bandwidth"]),
        (("fp16 =", "fp61 ="), ["peaks.fp61: unknown field", "fp16"]),
        (("note =", "nota ="), ["memory_bytes.nota: unknown field", "note"]),
        (("date =", "dat ="), ["sources.sheet.dat: unknown field", "date"]),
        (("[peaks]", "[calibration]\nconv = 1\n[peaks]"), ["calibration.conv: unknown field"]),
        (('title = "Toy"\n', ""), ["title: missing"]),
        (('kind = "gpu"', ""), ["kind: missing"]),
        (('kind = "gpu"', 'kind = "tpu"'), ["kind: 'tpu'", "gpu"]),
        (("fp32 = { value = 10e12, source = \"sheet\" }", ""), ["peaks.fp32: missing"]),
        (('date = "2026-11"', ""), ["sources.sheet.date: missing"]),
        (('date = "2026-11"', 'date = "November"'), ["sources.sheet.date", "2022-11"]),
        (('date = "2026-11"', "date = 2026"), ["sources.sheet.date", "quotes"]),
        (("value = 1e12", "value = -1e12"), ["memory_bandwidth", "positive"]),
        (("value = 10e12", "value = 0"), ["peaks.fp32", "positive"]),
        (("value = 10e12", "value = nan"), ["peaks.fp32", "finite"]),
        (("value = 10e12", "value = inf"), ["peaks.fp32", "finite"]),
        (("value = 10e12", "value = true"), ["peaks.fp32", "not a number"]),
        (("value = 10e12", 'value = "10e12"'), ["peaks.fp32", "not a number"]),
        (("value = 1e12", "value = 1000"), ["memory_bandwidth", "bytes/s"]),
        (("value = 10e12", "value = 10"), ["peaks.fp32", "FLOP/s"]),
        (("value = 1073741824", "value = 1073741824.5"), ["memory_bytes", "whole"]),
        (('source = "sheet" }\nfp16', 'source = "shet" }\nfp16'), ["peaks.fp32.source", "Did you mean sheet"]),
        (('{ value = 10e12, source = "sheet" }', "10e12"), ["peaks.fp32", "source"]),
        (('value = 10e12, source = "sheet"', 'source = "sheet"'), ["peaks.fp32.value: missing"]),
        (("[sources.sheet]", '[sources.x]\ntitle = "Old"\ndate = "2020"\n[sources.sheet]'), ["sources.x", "number"]),
        (("fp16 = {", 'tf32 = { value = 80e12, source = "sheet" }\nfp16 = {'), ["peaks.tf32", "peaks.fp16"]),
        (("[peaks]", "l2_bytes = { value = 2147483648, source = \"sheet\" }\n[peaks]"), ["l2_bytes", "memory_bytes"]),
        (("[peaks]", 'aliases = "toy"\n[peaks]'), ["aliases", "list"]),
        (('title = "Toy"\n', "title = 3\n"), ["title", "quotes"]),
        (("[peaks]", "peaks = 3\n[other]"), ["other: unknown"]),
        (("fp32 = {", "fp32 = {{"), ["not a TOML file"]),
    ],
)  # fmt: skip
def test_bad_files_are_refused_in_one_line(write, change: tuple[str, str], expected: list[str]) -> None:
    assert change[0] in GOOD
    path = write(GOOD.replace(*change, 1))
    message = refusal(path)
    assert message.startswith(str(path))
    for text in expected:
        assert text in message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "missing.toml")
    assert "cannot be read" in refusal(tmp_path)
    damaged = tmp_path / "damaged.toml"
    damaged.write_bytes(b"title = \xff\xfe")
    assert "not a TOML file" in refusal(damaged)
    empty = tmp_path / "empty.toml"
    empty.write_text("")
    assert "title: missing" in refusal(empty)


def test_replace_changes_numbers_and_says_so() -> None:
    h200 = device("h200")
    faster = h200.replace(memory_bandwidth=6.0e12)
    assert faster.ridge_points["tf32"] == pytest.approx(494.7 / 6.0)
    assert "memory_bandwidth" in faster.title
    assert "memory_bandwidth" not in faster.facts and "peaks.tf32" in faster.facts
    assert h200.memory_bandwidth == 4.8e12
    assert h200.replace() == h200
    with pytest.raises(InputError, match="Did you mean memory_bandwidth"):
        h200.replace(memory_bandwith=1.0)
    with pytest.raises(InputError, match="positive"):
        h200.replace(memory_bandwidth=-1.0)
    with pytest.raises(InputError, match="sparsity"):
        h200.replace(peaks={**h200.peaks, "tf32": 2000e12})


def test_a_device_travels_to_another_process() -> None:
    found = device("v100")
    again = pickle.loads(pickle.dumps(found))
    assert isinstance(again, Device) and again == found and again.facts == found.facts


def test_a_notebook_shows_the_numbers_with_their_sources() -> None:
    html = device("h200")._repr_html_()
    assert "FP16 tensor, dense" in html and "989 TFLOP/s" in html and "4.80 TB/s" in html
    assert "NVIDIA H200 Tensor Core GPU, datasheet (2023-11)" in html
    assert "without" not in device("h200").replace(memory_bandwidth=6e12)._repr_html_()
