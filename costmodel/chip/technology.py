"""A technology: energy of each operation and access, and area of each part, of chips made in one process.

    energy of a MAC    = one multiply of the operands' type + one add of the accumulator's type
    energy of SRAM     = joules of a 64-bit access to an array of that size, x bits moved / 64
    energy of DRAM     = joules of a 64-bit access, x bits moved / 64
    area of a chip     = processing elements x theirs + bits of SRAM x that of a bit (with its share of the periphery)
                         + bytes/s of DRAM bandwidth x what a byte/s of the memory's interface takes

An array's access energy is interpolated in its size between the sizes that have a number: straight lines in
log(size), log(energy). Outside them it grows with the square root of the size, as its wires do, down to 8 bytes: an
array is no smaller than the 64 bits of the access. The sources end at 8 KiB; below it the rule has one witness. In
Chen, Emer and Sze, "Eyeriss: a spatial architecture for energy-efficient dataflow for convolutional neural networks",
ISCA 2016, table IV, a word from 0.5 KiB of scratchpad takes the energy of one 16-bit MAC; the rule says 0.7 of one,
the energy at 8 KiB would be 3. There is no leakage: none of the sources gives it.

A technology is a TOML file beside this one (`technologies/`), or anybody's own:

    title = "My process"
    node_nanometres = 28

    [energy]                                  # joules; a type's multiply or add: int8_multiply, int32_add, fp16_add ...
    int8_multiply = { value = 0.2e-12, source = "paper" }
    int32_add = { value = 0.1e-12, source = "paper" }

    [sram]                                    # joules of a 64-bit access, by the array's size
    32KiB = { value = 20e-12, source = "paper" }

    [dram]                                    # joules of a 64-bit access, by kind
    ddr3 = { value = 1.95e-9, source = "paper" }

    [area]                                    # square metres: a processing element by its operands' type, a bit of
    int8_element = { value = 1515e-12, source = "paper" }          # SRAM, and the memory's interface for each byte/s
    sram_bit = { value = 0.517e-12, source = "paper" }
    memory_interface = { value = 5.84e-16, source = "paper" }

    [derived.energy]                          # unpublished numbers: each note says how it was derived
    int16_multiply = { value = 0.79e-12, source = "paper", note = "derived: geometric mean of int8 and int32" }

    [sources.paper]
    title = "A paper"
    date = "2014-02"

Derived numbers count only on request, by the name "28nm+derived". Whatever else is missing is an error that
names the gap, and never a guess.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import pairwise
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costmodel.errors import InputError, nearest
from costmodel.facts import Fact, Range, SourcedFile
from costmodel.units import iec, parse_bytes
from costmodel.view import Table, column

if TYPE_CHECKING:
    import pandas as pd

TYPE_BITS: Mapping[str, int] = {"int8": 8, "int16": 16, "int32": 32, "bf16": 16, "fp16": 16, "fp32": 32}
"""The types of operands and accumulators, and the bits of one."""

DRAM_KINDS = ("ddr3", "ddr4", "lpddr3", "lpddr4", "gddr6", "hbm2")
"""The kinds of memory that a file may price; ours have ddr3, and from 28 nm on hbm2 and gddr6."""

DERIVED = "+derived"
"""Suffix of a technology's name with which derived numbers count as well."""

ACCESS_BITS = 64
"""Bits of the accesses that the energies of memories are for."""

_FOLDER = Path(__file__).with_name("technologies")


@dataclass(frozen=True)
class Technology:
    """Energies in joules and areas in square metres, each with its source."""

    name: str
    title: str
    node_nanometres: float
    energy: Mapping[str, Fact] = field(default_factory=dict)
    """Of an arithmetic operation: "int8_multiply", "int32_add"."""

    sram: Mapping[int, Fact] = field(default_factory=dict)
    """Of a 64-bit access, by the array's bytes."""

    dram: Mapping[str, Fact] = field(default_factory=dict)
    """Of a 64-bit access, by kind."""

    area: Mapping[str, Fact] = field(default_factory=dict)
    """Of a processing element, "int8_element", of a bit of SRAM, "sram_bit", and "memory_interface" for a byte/s."""

    derived: tuple[str, ...] = ()
    """The numbers that are derived: "energy.int16_multiply"."""

    def mac_joules(self, operand: str, accumulator: str) -> float:
        """Energy of a multiply-accumulate. Raises InputError if there is no number for it."""
        return self._energy(f"{operand}_multiply") + self._energy(f"{accumulator}_add")

    def sram_joules(self, array_bytes: float, moved_bytes: float = ACCESS_BITS / 8) -> float:
        """Energy of moving bytes into or out of an array of SRAM of some size. Raises InputError without any number."""
        if not self.sram:
            raise self._gap("sram", "the energy of an access to SRAM")
        points, array_bytes = self._sram_points, max(array_bytes, ACCESS_BITS / 8)
        (smallest, at_smallest), (largest, at_largest) = points[0], points[-1]
        if array_bytes <= smallest:
            access = at_smallest * math.sqrt(array_bytes / smallest)
        elif array_bytes >= largest:
            access = at_largest * math.sqrt(array_bytes / largest)
        else:
            below = max(point for point in points if point[0] <= array_bytes)
            above = min(point for point in points if point[0] > array_bytes)
            share = math.log(array_bytes / below[0]) / math.log(above[0] / below[0])
            access = below[1] * (above[1] / below[1]) ** share
        return access * moved_bytes * 8 / ACCESS_BITS

    def dram_joules(self, kind: str, moved_bytes: float = ACCESS_BITS / 8) -> float:
        """Energy of moving bytes between the chip and its memory. Raises InputError if there is no number for it."""
        if kind not in self.dram:
            priced = ", ".join(self.dram)
            raise self._gap(f"dram.{kind}", f"the energy of an access to {kind} memory", priced)
        return self.dram[kind].value * moved_bytes * 8 / ACCESS_BITS

    def pe_mm2(self, operand: str) -> float:
        """Area of a processing element with its share of registers, wires and control, in mm²."""
        return self._area(f"{operand}_element", f"the area of a processing element for {operand}")

    def sram_mm2(self, array_bytes: float) -> float:
        """Area of an array of SRAM, in mm²."""
        return array_bytes * 8 * self._area("sram_bit", "the area of SRAM")

    def interface_mm2(self, bandwidth: float) -> float:
        """Area of the memory's interface for a bandwidth in bytes/s, in mm²."""
        return bandwidth * self._area("memory_interface", "the area of the memory's interface")

    def table(self) -> Table:
        """One row a number: joules or square metres, and where it comes from."""
        rows = [
            (
                name, *((None, fact.value) if name.startswith("area") else (fact.value, None)), name in self.derived,
                fact.source.title, fact.source.date, fact.note,
            )
            for name, fact in self._facts.items()
        ]  # fmt: skip
        columns = ("number", "joules", "square_metres", "derived", column("source", title="source"), "date", "note")
        return Table.of(columns, rows, title=f"{self.title}: energy and area")

    def to_frame(self) -> pd.DataFrame:
        """The table as a data frame."""
        return self.table().to_frame()

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    @property
    def _facts(self) -> Mapping[str, Fact]:
        tables: Mapping[str, Mapping[Any, Fact]] = {
            "energy": self.energy,
            "sram": {_label(size): fact for size, fact in self.sram.items()},
            "dram": self.dram,
            "area": self.area,
        }
        return {f"{table}.{name}": fact for table, facts in tables.items() for name, fact in facts.items()}

    @cached_property
    def _sram_points(self) -> list[tuple[int, float]]:
        return sorted((size, fact.value) for size, fact in self.sram.items())

    def _energy(self, operation: str) -> float:
        if operation not in self.energy:
            kind, _, what = operation.partition("_")
            raise self._gap(f"energy.{operation}", f"the energy of {kind} {what}", _types(self.energy, what))
        return self.energy[operation].value

    def _area(self, name: str, what: str) -> float:
        if name not in self.area:
            element = name.endswith("_element")
            raise self._gap(f"area.{name}", what, _types(self.area, "element") if element else ", ".join(self.area))
        return self.area[name].value * 1e6

    def _gap(self, field_name: str, what: str, others: str = "") -> InputError:
        """The error of a missing number: what is missing, what there is instead, and what to do."""
        has = f" (it has {others})" if others else ""
        known = _derived_of(self.name)
        if field_name in known or (field_name == "sram" and any(name.startswith("sram.") for name in known)):
            way = f'"{self.name}{DERIVED}" has a derived one'
        else:
            way = "choose another type or technology, or write a technology file that has it"
        return InputError(f"{self.title} has no number for {what}{has}: {way}.")


def technology(name_or_path: str | PathLike[str]) -> Technology:
    """A technology by its name ("45nm", "28nm+derived"), or read from a TOML file of yours ("my.toml+derived").

    Raises InputError for an unknown name, and for a file that cannot be read or is invalid.
    """
    text = fspath(name_or_path)
    name, derived = text.removesuffix(DERIVED), text.endswith(DERIVED)
    if name.lower().endswith(".toml") or "/" in name or "\\" in name:
        return read_technology(Path(name), derived)
    if name not in names():
        hint = nearest(name, names()) or f" Use {', '.join(names())}."
        raise InputError(f"unknown technology {name!r}.{hint} A technology file of your own ends in .toml.")
    return _ours(name, derived)


def names() -> list[str]:
    """The names of the technologies that come with costmodel, the newest first."""
    return sorted((path.stem for path in _FOLDER.glob("*.toml")), key=lambda name: int(name.removesuffix("nm")))


@cache
def _ours(name: str, derived: bool) -> Technology:
    return read_technology(_FOLDER / f"{name}.toml", derived)


def _derived_of(name: str) -> tuple[str, ...]:
    """The derived numbers of a technology of ours that was requested without them."""
    return _ours(name, True).derived if name in names() else ()


_TABLES = ("energy", "sram", "dram", "area")
_NAMES = {
    "energy": tuple(f"{kind}_{operation}" for kind in TYPE_BITS for operation in ("add", "multiply")),
    "dram": DRAM_KINDS,
    "area": (*(f"{kind}_element" for kind in TYPE_BITS), "sram_bit", "memory_interface"),
}
_LIMITS = {
    "energy": Range(1e-16, 1e-9, "joules"),
    "sram": Range(1e-14, 1e-8, "joules"),
    "dram": Range(1e-12, 1e-7, "joules"),
    "area": Range(1e-17, 1e-6, "square metres"),
}


def read_technology(path: Path, derived: bool = False) -> Technology:
    """The technology that a TOML file describes, with its derived numbers or without; its name is the file's.

    Raises InputError if the file cannot be read, is not TOML, or has an unknown, missing or invalid field.
    """
    file = SourcedFile(path, "technology", f"Ours are {', '.join(names())}.")
    file.check_names(("title", "node_nanometres", *_TABLES, "derived", "sources"), ("title", "node_nanometres"))
    title = file.text("title", file.document["title"])
    node = file.fact("node_nanometres", file.document["node_nanometres"], Range(1, 1000, "nanometres"))
    published = _tables(file, file.document, "")
    guessed: dict[str, dict[Any, Fact]] = {}
    if "derived" in file.document:
        within = file.table("derived", file.document["derived"])
        file.check_names(_TABLES, (), "derived.", within)
        guessed = _tables(file, within, "derived.")
        for table, facts in guessed.items():
            for name, fact in facts.items():
                if name in published.get(table, {}):
                    raise file.error(f"derived.{table}.{name}", "published as well: leave out one of the two")
                if not fact.note:
                    raise file.error(f"derived.{table}.{name}", "without a note that says how it was derived")
    file.check_sources()
    _check_sram(file, {**published.get("sram", {}), **guessed.get("sram", {})})
    tables = {name: published.get(name, {}) | (guessed.get(name, {}) if derived else {}) for name in _TABLES}
    names_derived = tuple(
        f"{table}.{_label(name) if table == 'sram' else name}" for table, facts in guessed.items() for name in facts
    )
    return Technology(
        path.stem + (DERIVED if derived else ""),
        title,
        node.value,
        **tables,  # type: ignore[arg-type]
        derived=names_derived if derived else (),
    )


def _tables(file: SourcedFile, within: Mapping[str, Any], prefix: str) -> dict[str, dict[Any, Fact]]:
    tables: dict[str, dict[Any, Fact]] = {}
    for name in _TABLES:
        if name not in within:
            continue
        table = file.table(f"{prefix}{name}", within[name])
        if name in _NAMES:
            file.check_names(_NAMES[name], (), f"{prefix}{name}.", table)
        facts = file.facts(f"{prefix}{name}.", table, _LIMITS[name])
        tables[name] = {_size(file, prefix, key): fact for key, fact in facts} if name == "sram" else dict(facts)
    return tables


def _size(file: SourcedFile, prefix: str, key: str) -> int:
    try:
        size = parse_bytes(key)
    except InputError:
        size = 0
    if not size:
        raise file.error(f"{prefix}sram.{key}", "not a size: name it like 32KiB")
    return size


def _check_sram(file: SourcedFile, points: Mapping[int, Fact]) -> None:
    by_size = sorted(points)
    for smaller, larger in pairwise(by_size):
        if points[smaller].value > points[larger].value:
            raise file.error(f"sram.{_label(smaller)}", "more than a larger array takes: is it in joules")


def _types(table: Mapping[str, Fact], what: str) -> str:
    return ", ".join(name.removesuffix(f"_{what}") for name in table if name.endswith(f"_{what}"))


def _label(size: int) -> str:
    """An array's size as files write it: 8KiB."""
    return iec(size, digits=1).replace(" ", "")
