"""Technologies: published numbers as published, derived ones as their notes say, and gaps named."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from costmodel.chip.technology import Technology, names, technology
from costmodel.errors import InputError

DATA = Path(__file__).with_name("data")

GOOD = """
title = "Toy"
node_nanometres = { value = 28, source = "sheet" }

[energy]
int8_multiply = { value = 0.2e-12, source = "sheet" }
int32_add = { value = 0.1e-12, source = "sheet" }

[sram]
8KiB = { value = 10e-12, source = "sheet" }
32KiB = { value = 20e-12, source = "sheet" }

[dram]
ddr3 = { value = 1.3e-9, source = "sheet" }

[area]
int8_element = { value = 400e-12, source = "sheet" }
sram_bit = { value = 0.5e-12, source = "sheet" }

[derived.energy]
int16_multiply = { value = 0.8e-12, source = "sheet", note = "derived: a guess" }

[sources.sheet]
title = "Toy, datasheet"
date = "2026-11"
"""


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str) -> str:
        path = tmp_path / "toy.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def refusal(name: str) -> str:
    with pytest.raises(InputError) as caught:
        technology(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_published_numbers_are_the_published_ones() -> None:
    rows = list(csv.DictReader(line for line in (DATA / "technology.csv").open() if not line.startswith("#")))
    compared = 0
    for name in ("45nm", "7nm"):
        found = technology(name)
        for row in rows:
            text = row[f"picojoules_{name}"]
            if not text:
                continue
            low, _, high = text.partition("-")
            expected = (float(low) + float(high or low)) / 2 * 1e-12  # the middle of a range
            kind, _, what = row["operation"].partition("_")
            size = {"8KiB": 8192, "32KiB": 32768, "1MiB": 1 << 20}.get(what, 0)
            table, key = {"sram": (found.sram, size), "dram": (found.dram, what)}.get(
                kind, (found.energy, row["operation"])
            )
            assert table[key].value == pytest.approx(expected), row["operation"]
            compared += 1
    assert compared == 13 + 16


@pytest.mark.parametrize("name", names())
def test_every_number_has_a_source_and_every_derived_one_says_how(name: str) -> None:
    frame = technology(f"{name}+derived").to_frame()
    assert frame["source"].str.len().gt(10).all() and frame["date"].str.match(r"\d{4}").all()
    assert frame[frame["derived"]]["note"].str.startswith("derived: ").all()
    assert not technology(name).derived
    assert "pJ" in technology(f"{name}+derived")._repr_html_()


def test_a_mac_is_a_multiply_and_an_add() -> None:
    assert technology("45nm").mac_joules("int8", "int32") == pytest.approx(0.3e-12)  # 0.2 + 0.1 pJ
    assert technology("7nm").mac_joules("bf16", "fp32") == pytest.approx(0.59e-12)  # 0.21 + 0.38 pJ


def test_sram_between_outside_and_at_the_published_sizes() -> None:
    found = technology("45nm")
    assert found.sram_joules(8192) == pytest.approx(10e-12)
    assert found.sram_joules(32768) == pytest.approx(20e-12)
    # log-log between 10 and 20 pJ: 16 KiB lies halfway, sqrt(10 x 20)
    assert found.sram_joules(16384) == pytest.approx(math.sqrt(200) * 1e-12)
    assert found.sram_joules(2048) == pytest.approx(5e-12)  # a quarter of the smallest: half the energy
    assert found.sram_joules(4 << 20) == pytest.approx(200e-12)  # four times the largest: twice
    assert found.sram_joules(8192, 2) == pytest.approx(10e-12 / 4)  # 16 of 64 bits
    # No array is smaller than an access of 8 bytes: 10 pJ x sqrt(8 / 8192)
    assert found.sram_joules(1) == found.sram_joules(8) == pytest.approx(10e-12 / 32)


def test_a_scratchpad_takes_about_a_mac_as_eyeriss_was_measured() -> None:
    """ISCA 2016, table IV, 65 nm: a 16-bit word from a register file of 0.5 KiB takes the energy of one MAC."""
    found = technology("65nm+derived")
    mac = found.mac_joules("int16", "int16")
    assert 0.5 < found.sram_joules(512, 2) / mac < 1.5
    assert found.sram_joules(8192, 2) / mac > 2.5  # what a floor at the smallest published array would make of it


def test_memories_are_priced_alike_wherever_they_do_not_shrink() -> None:
    newest = technology("7nm")
    for node in ("28nm", "16nm"):
        for kind in ("hbm2", "gddr6"):
            assert technology(f"{node}+derived").dram_joules(kind) == newest.dram_joules(kind)


def test_areas() -> None:
    found = technology("28nm")
    # 30 % of 331 mm² for 65,536 MACs; 37 % for 24 MiB + 4 MiB + 256 KiB; 6 % for 34 GB/s
    assert found.pe_mm2("int8") == pytest.approx(0.30 * 331 / 65_536, rel=1e-3)
    assert found.sram_mm2(1) == pytest.approx(0.37 * 331 / (28.25 * 2**20), rel=2e-3)
    assert found.interface_mm2(34e9) == pytest.approx(0.06 * 331, rel=1e-3)


def test_derived_numbers_follow_their_notes() -> None:
    old, new = technology("45nm+derived"), technology("7nm+derived")
    assert old.energy["int16_multiply"].value == pytest.approx(math.sqrt(0.2 * 3.1) * 1e-12, rel=5e-3)
    for node in (28, 16):
        share = math.log(45 / node) / math.log(45 / 7)
        between = technology(f"{node}nm+derived")
        for name, fact in between.energy.items():
            a, b = old.energy[name].value, new.energy[name].value
            assert fact.value == pytest.approx(a * (b / a) ** share, rel=5e-3), name
        for size, fact in between.sram.items():
            a, b = old.sram[size].value, new.sram[size].value
            assert fact.value == pytest.approx(a * (b / a) ** share, rel=5e-3)
    for name, fact in technology("65nm+derived").energy.items():
        assert fact.value == pytest.approx(old.energy[name].value * 65 / 45 / 0.81, rel=6e-3), name
    cells = {65: 0.525, 45: 0.299, 16: 0.07, 7: 0.027}  # µm² a bit, TSMC's; 0.127 at 28 nm
    for node, cell in cells.items():
        for name, fact in technology(f"{node}nm+derived").area.items():
            if name != "memory_interface":
                at_28 = technology("28nm+derived").area[name].value
                assert fact.value == pytest.approx(at_28 * cell / 0.127, rel=6e-3), name


def test_gaps_are_named_and_never_filled_in_silence() -> None:
    with pytest.raises(InputError, match=r"int16 multiply \(it has int8, int32, fp16, fp32\).*45nm\+derived"):
        technology("45nm").mac_joules("int16", "int32")
    assert technology("45nm+derived").mac_joules("int16", "int32") == pytest.approx(0.887e-12)
    with pytest.raises(InputError, match="bf16 multiply"):
        technology("45nm+derived").mac_joules("bf16", "fp32")
    with pytest.raises(InputError, match=r"hbm2 memory \(it has ddr3\)"):
        technology("45nm").dram_joules("hbm2")
    with pytest.raises(InputError, match=r"lpddr4 memory \(it has ddr3, hbm2, gddr6\)"):
        technology("16nm+derived").dram_joules("lpddr4")
    with pytest.raises(InputError, match=r'SRAM.*"28nm\+derived" has a derived one'):
        technology("28nm").sram_joules(1024)
    with pytest.raises(InputError, match="processing element for bf16"):
        technology("7nm+derived").pe_mm2("bf16")
    with pytest.raises(InputError, match="area of SRAM"):
        technology("45nm").sram_mm2(1)


def test_a_file_of_ones_own(write) -> None:
    toy = technology(write(GOOD))
    assert isinstance(toy, Technology) and toy.node_nanometres == 28
    assert toy.pe_mm2("int8") == pytest.approx(400e-6) and toy.sram_mm2(1 << 20) == pytest.approx(4.194304)
    with pytest.raises(InputError, match="int16 multiply"):
        toy.mac_joules("int16", "int32")
    assert technology(write(GOOD) + "+derived").mac_joules("int16", "int32") == pytest.approx(0.9e-12)
    bare = technology(write(GOOD.replace('sram_bit = { value = 0.5e-12, source = "sheet" }', "")))
    with pytest.raises(InputError, match=r"the area of SRAM \(it has int8_element\)"):
        bare.sram_mm2(1)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("[energy]", "[enrgy]"), ["enrgy: unknown field", "Did you mean energy"]),
        (("int8_multiply =", "int8_multply ="), ["energy.int8_multply: unknown field", "int8_multiply"]),
        (("ddr3 =", "ddr9 ="), ["dram.ddr9: unknown field", "ddr3"]),
        (("8KiB =", "many ="), ["sram.many: not a size"]),
        (('title = "Toy"\n', ""), ["title: missing: a technology needs it"]),
        (('node_nanometres = { value = 28, source = "sheet" }', ""), ["node_nanometres: missing"]),
        (("value = 0.2e-12", "value = -0.2e-12"), ["energy.int8_multiply", "positive"]),
        (("value = 0.2e-12", "value = 0.2"), ["energy.int8_multiply", "cannot be in joules"]),
        (("value = 0.2e-12", "value = nan"), ["energy.int8_multiply", "finite"]),
        (("value = 0.2e-12", 'value = "0.2"'), ["energy.int8_multiply", "not a number"]),
        (("value = 20e-12", "value = 5e-12"), ["sram.8KiB", "more than a larger array"]),
        (('{ value = 1.3e-9, source = "sheet" }', "1.3e-9"), ["dram.ddr3", "without a source"]),
        (('1.3e-9, source = "sheet"', '1.3e-9, source = "shet"'), ["dram.ddr3.source", "Did you mean sheet"]),
        ((', note = "derived: a guess"', ""), ["derived.energy.int16_multiply", "how it was derived"]),
        (("int16_multiply = {", "int8_multiply = {"), ["derived.energy.int8_multiply", "published as well"]),
        (('date = "2026-11"', ""), ["sources.sheet.date: missing"]),
        (('date = "2026-11"', 'date = "soon"'), ["sources.sheet.date", "2022-11"]),
        (("[sources.sheet]", '[sources.x]\ntitle = "Old"\ndate = "2020"\n[sources.sheet]'), ["sources.x", "number"]),
        (("[area]", "area = 3\n[other]"), ["other: unknown"]),
        (("title =", "title = {"), ["not a TOML file"]),
    ],
)
def test_bad_files_are_refused_in_one_line(write, change: tuple[str, str], expected: list[str]) -> None:
    assert change[0] in GOOD
    path = write(GOOD.replace(*change, 1))
    message = refusal(path)
    assert message.startswith(path)
    for text in expected:
        assert text in message


def test_unknown_names_and_unreadable_files(tmp_path: Path) -> None:
    assert "Did you mean 28nm" in refusal("22nm")
    assert "no such file" in refusal(str(tmp_path / "missing.toml"))
    (tmp_path / "folder.toml").mkdir()
    assert "cannot be read" in refusal(str(tmp_path / "folder.toml"))
