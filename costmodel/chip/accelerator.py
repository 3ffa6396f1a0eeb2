"""An accelerator: an array of processing elements (PEs), buffer, memory and technology, in a TOML file or in Python.

    title = "My accelerator"
    dataflow = "weight_stationary"            # see `costmodel.chip.mapping`: also output_stationary, row_stationary ...
    rows = 32
    columns = 32
    clock_hertz = 500e6
    operand = "int8"                          # of inputs, weights and outputs
    accumulator = "int32"                     # of partial sums
    buffer_bytes = 524288                     # on the chip, shared by inputs, weights and partial sums
    dram_bandwidth = 8.5e9                    # bytes/s
    dram = "ddr3"
    technology = "16nm+derived"               # see `costmodel.chip.technology`; or a TOML file

These are required, except the last two, without which an accelerator has no energy and no area. Optional:
`pe_bytes` (registers or scratchpads of one PE), `buffer_banks` (equal arrays of SRAM that the buffer is made
of, each of at least 1 KiB: an access takes the energy of one), `buffer_bytes_per_cycle` (what the buffer delivers),
`other_sram_bytes` (on the chip beside the buffer: its area counts), `other_mm2` (everything else on the chip),
`weights_ahead = true` (a weight-stationary array that takes in the next weights while it multiplies),
`memory_interface = false` (where the area of the memory's interface is not the chip's, or in `other_mm2`), and a table
[scratchpads], which row_stationary needs. A number may say its source, as in device files:

    rows = { value = 256, source = "paper" }

    [sources.paper]
    title = "A paper"
    date = "2017-06"

GPUs come from their device files: the matrix units as an ideal array, the level-2 cache as the buffer, neither energy
nor area. Where they are given a technology, their area leaves out the memory's interface: technologies know DDR3's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from costmodel.chip.mapping import DATAFLOWS, Array, Scratchpads
from costmodel.chip.technology import DRAM_KINDS, TYPE_BITS, Technology
from costmodel.chip.technology import technology as find_technology
from costmodel.chip.widths import Widths
from costmodel.devices import Device, device
from costmodel.devices import names as device_names
from costmodel.errors import InputError, nearest
from costmodel.facts import Fact, Range, SourcedFile, with_other
from costmodel.units import iec, si
from costmodel.view import Table

_FOLDER = Path(__file__).with_name("accelerators")

SMALLEST_BANK_BYTES = 1024
"""Of a buffer of several banks: of a smaller array the decoder and the sense amplifiers, not the cells, take most."""


@dataclass(frozen=True)
class Accelerator:
    """An array, its on-chip memories and its DRAM. Raises InputError for impossible numbers."""

    name: str
    title: str
    dataflow: str
    """How the array divides a nest's loops: one of `costmodel.chip.mapping.DATAFLOWS`."""

    rows: int
    columns: int
    clock_hertz: float
    operand: str
    """Type of inputs, weights and outputs: a key of `costmodel.chip.technology.TYPE_BITS`."""

    accumulator: str
    """Type of partial sums."""

    buffer_bytes: int
    """Capacity of the on-chip buffer, shared by inputs, weights and partial sums."""

    dram_bandwidth: float
    """Bytes/s between the chip and its memory."""

    dram: str = ""
    """Kind of memory; "" if energy is not needed."""

    technology: str = ""
    """Name or file of the technology; "" if energy and area are not needed."""

    pe_bytes: int = 0
    """Capacity of one PE's registers or scratchpads."""

    buffer_bytes_per_cycle: float | None = None
    """The most that the buffer reads and writes in a cycle; None where it keeps up with the array."""

    buffer_banks: int = 1
    """SRAM arrays that the buffer consists of: an access costs the energy of one."""

    other_sram_bytes: int = 0
    """On-chip SRAM besides the buffer and the PEs' own."""

    other_mm2: float = 0.0
    """Area of what is neither PEs nor SRAM: control, host interface."""

    memory_interface: bool = True
    """Whether the area of the memory's interface counts; not if `other_mm2` has it, or it is not on the chip."""

    scratchpads: Scratchpads | None = None
    """Of a row-stationary PE."""

    weights_ahead: bool = False
    """Whether a weight-stationary array takes in the next weights while it multiplies."""

    facts: Mapping[str, Fact] = field(default_factory=dict, compare=False, repr=False)
    """Source, date and note of the numbers that have one, by their field."""

    def __post_init__(self) -> None:
        problem = _inconsistency(self)
        if problem:
            raise InputError(f"{self.name}: {problem}.")

    @property
    def pes(self) -> int:
        """Processing elements: the most multiply-accumulates a cycle."""
        return self.rows * self.columns

    @property
    def macs_per_second(self) -> float:
        """The most multiply-accumulates a second."""
        return self.pes * self.clock_hertz

    @property
    def ridge_point(self) -> float:
        """MACs a byte of DRAM traffic at which arithmetic and memory take equally long."""
        return self.macs_per_second / self.dram_bandwidth

    @property
    def array(self) -> Array:
        """The array that nests are mapped to."""
        operand, accumulator = TYPE_BITS[self.operand] // 8, TYPE_BITS[self.accumulator] // 8
        return Array(
            self.dataflow, self.rows, self.columns, self.scratchpads, self.buffer_bytes, operand, accumulator,
            self.weights_ahead,
        )  # fmt: skip

    @property
    def widths(self) -> Widths:
        """The widths of its words in memory; an accumulator narrower than an operand counts as wide as the operand."""
        bits = TYPE_BITS[self.operand]
        return Widths(bits, bits, bits, max(bits, TYPE_BITS[self.accumulator]))

    def replace(self, **changes: Any) -> Accelerator:
        """The same accelerator with other numbers: `eyeriss.replace(dram_bandwidth=1e9)`. Its title names the changes.

        Raises InputError for an unknown field or an impossible number.
        """
        return with_other(self, "an accelerator", changes)

    def find_technology(self) -> Technology:
        """Its technology. Raises InputError if it names none, or an unknown one."""
        if not self.technology:
            raise InputError(f"{self.title} names no technology: energy and area need one.")
        return find_technology(self.technology)

    @classmethod
    def from_device(cls, gpu: Device, operand: str = "") -> Accelerator:
        """The matrix units of a GPU as an ideal array, its level-2 cache as the buffer.

        It computes in fp16, or else fp32, if no type is given. Raises InputError for a device that is not a GPU or has
        no arithmetic on that type, if its file does not give its units and level-2 cache, and for a type unknown to the
        chip model.
        """
        operand = operand or ("fp16" if "fp16" in gpu.peaks else "fp32")
        if operand not in gpu.peaks or operand not in TYPE_BITS:
            known = operand in gpu.peaks
            problem = f"the chip model does not know {operand}" if known else f"{gpu.title} has no {operand} arithmetic"
            ours = ", ".join(f"{gpu.name}@{name}" for name in gpu.peaks if name in TYPE_BITS)
            raise InputError(f"{problem}: take one of {ours}.")
        if gpu.kind != "gpu" or gpu.units is None or gpu.l2_bytes is None:
            raise InputError(f"{gpu.title} cannot be an accelerator: use a GPU whose file gives its units and L2.")
        columns = max(1, round(gpu.peaks[operand] / 2 / (gpu.clock_hertz or 1e9) / gpu.units))
        return cls(
            name=gpu.name,
            title=f"{gpu.title}, {operand}",
            dataflow="ideal",
            rows=gpu.units,
            columns=columns,
            clock_hertz=gpu.peaks[operand] / 2 / (gpu.units * columns),  # so that the peak is the device's
            operand=operand,
            accumulator="int32" if operand == "int8" else "fp32",
            buffer_bytes=gpu.l2_bytes,
            dram_bandwidth=gpu.memory_bandwidth,
            memory_interface=False,
            facts={"dram_bandwidth": gpu.facts["memory_bandwidth"]} if "memory_bandwidth" in gpu.facts else {},
        )

    def __repr__(self) -> str:
        return f"<Accelerator {self.title}: {si(self.macs_per_second, 'MAC/s')}, {iec(self.buffer_bytes)} of buffer>"

    def _repr_html_(self) -> str:
        rows = [
            ("array", f"{self.rows} x {self.columns}, {self.dataflow.replace('_', ' ')}"),
            ("arithmetic", f"{si(self.macs_per_second, 'MAC/s')}, {self.operand} into {self.accumulator}"),
            ("buffer", iec(self.buffer_bytes)),
            ("memory", f"{si(self.dram_bandwidth, 'B/s')} {self.dram}".rstrip()),
            ("ridge point", f"{self.ridge_point:,.4g} MACs a byte"),
            ("technology", self.technology or "none given"),
        ]
        sources = dict.fromkeys(f"{fact.source.title} ({fact.source.date})" for fact in self.facts.values())
        return Table.of(("number", "amount"), rows, title=self.title, notes=tuple(sources))._repr_html_()


def accelerators_table(accelerators: Iterable[Accelerator]) -> Table:
    """One row an accelerator."""
    names = (
        "name", "title", "array", "dataflow", "operand", "clock_hertz", "buffer_bytes", "dram_bandwidth", "ridge_point",
        "technology",
    )  # fmt: skip
    rows = (
        [f"{chip.rows}x{chip.columns}" if name == "array" else getattr(chip, name) for name in names]
        for chip in accelerators
    )
    return Table.of(names, rows, title="Accelerators")


Which = Accelerator | str | PathLike[str]
"""An accelerator, its name, or its file."""


def accelerator(name_or_path: Which) -> Accelerator:
    """An accelerator by its name ("eyeriss", "tpu-v1", "h200", "h200@int8"), or read from a TOML file of yours.

    A GPU's name may give the type that it computes in, after an @; an Accelerator is returned as is. Raises InputError
    for an unknown name, with the nearest ones, and for a file that cannot be read or is invalid.
    """
    if isinstance(name_or_path, Accelerator):
        return name_or_path
    if not isinstance(name_or_path, (str, PathLike)):
        raise InputError(f"{name_or_path!r} is not an accelerator: give a name, such as edge-npu, or a TOML file.")
    text = fspath(name_or_path)
    if not isinstance(name_or_path, str) or text.lower().endswith(".toml") or "/" in text or "\\" in text:
        return read_accelerator(Path(text))
    if text in names():
        return _ours(text)
    gpu, _, operand = text.partition("@")
    try:
        spec = device(gpu)
    except InputError:
        known = [*names(), *(name for name in device_names() if device(name).kind == "gpu")]
        hint = nearest(text, known) or f" Ours are {', '.join(names())}; GPUs go by their device's name."
        raise InputError(
            f"unknown accelerator {text!r}.{hint} An accelerator file of your own ends in .toml."
        ) from None
    return Accelerator.from_device(spec, operand)


def names() -> list[str]:
    """The names of the accelerators that come with costmodel, besides the GPUs."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


@cache
def _ours(name: str) -> Accelerator:
    return read_accelerator(_FOLDER / f"{name}.toml")


def scratchpad_bytes(pads: Scratchpads, operand: str, accumulator: str) -> int:
    """Capacity of a row-stationary PE's scratchpads, with words of these types."""
    words = (pads.weight_words + pads.input_words) * TYPE_BITS[operand]
    return (words + pads.partial_sum_words * TYPE_BITS[accumulator]) // 8


_TEXTS = ("title", "dataflow", "operand", "accumulator", "dram", "technology")
_SWITCHES = ("memory_interface", "weights_ahead")
LIMITS: Mapping[str, Range] = {
    "rows": Range(1, 1 << 16, "PEs", whole=True),
    "columns": Range(1, 1 << 16, "PEs", whole=True),
    "clock_hertz": Range(1e5, 1e11, "Hz"),
    "buffer_bytes": Range(1, 1 << 40, "bytes", whole=True),
    "dram_bandwidth": Range(1e5, 1e15, "bytes/s"),
    "pe_bytes": Range(0, 1 << 30, "bytes", whole=True),
    "buffer_banks": Range(1, 1 << 16, "banks", whole=True),
    "buffer_bytes_per_cycle": Range(1e-3, 1e9, "bytes a cycle"),
    "other_sram_bytes": Range(0, 1 << 40, "bytes", whole=True),
    "other_mm2": Range(0, 1e5, "mm²"),
}
"""The range of each number of an accelerator."""

_WORDS = Range(1, 1 << 20, "words", whole=True)
_REQUIRED = (
    "title", "dataflow", "rows", "columns", "clock_hertz", "operand", "accumulator", "buffer_bytes", "dram_bandwidth",
)  # fmt: skip
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "dataflow": DATAFLOWS,
    "operand": tuple(TYPE_BITS),
    "accumulator": tuple(TYPE_BITS),
    "dram": DRAM_KINDS,
}


def read_accelerator(path: Path) -> Accelerator:
    """The accelerator that a TOML file describes; its name is the file's.

    Raises InputError if the file cannot be read, is not TOML, or has an unknown, missing or invalid field.
    """
    file = SourcedFile(path, "accelerator", f"Ours are {', '.join(names())}.")
    known = (*_TEXTS, *LIMITS, *_SWITCHES, "scratchpads", "sources")
    file.check_names(known, _REQUIRED)
    document = file.document
    values: dict[str, Any] = {
        name: file.text(name, document[name], _CHOICES.get(name, ())) for name in _TEXTS if name in document
    }
    facts: dict[str, Fact] = {}

    def number(name: str, value: Any, limits: Range) -> Any:
        if isinstance(value, dict):
            facts[name] = file.fact(name, value, limits)
            value = facts[name].value
        return (int if limits.whole else float)(file.number(name, value, limits))

    for name, limits in LIMITS.items():
        if name in document:
            values[name] = number(name, document[name], limits)
    for name in _SWITCHES:
        if name in document:
            values[name] = document[name]
            if not isinstance(values[name], bool):
                raise file.error(name, f"{values[name]!r} is neither true nor false")
    if "scratchpads" in document:
        table = file.table("scratchpads", document["scratchpads"])
        file.check_names(Scratchpads._fields, Scratchpads._fields, "scratchpads.", table)
        words = {name: number(f"scratchpads.{name}", table[name], _WORDS) for name in Scratchpads._fields}
        values["scratchpads"] = Scratchpads(**words)
    file.check_sources()
    if values.get("technology", "").removesuffix("+derived").endswith(".toml"):  # beside the file that names it
        values["technology"] = str(path.parent / values["technology"])
    try:
        return Accelerator(name=path.stem, facts=facts, **values)
    except InputError as error:
        raise InputError(f"{path}: {str(error).removeprefix(f'{path.stem}: ')}") from None


def _inconsistency(chip: Accelerator) -> str:
    for name, choices in _CHOICES.items():
        value = getattr(chip, name)
        if value not in choices and not (name == "dram" and not value):
            return f"{name}: {value!r} is unknown, use {', '.join(choices)}"
    for name, limits in LIMITS.items():
        value = getattr(chip, name)
        if value is not None and (problem := limits.problem(value)):
            return f"{name}: {problem}"
    if chip.buffer_banks > 1 and chip.buffer_bytes < chip.buffer_banks * SMALLEST_BANK_BYTES:
        most = max(1, chip.buffer_bytes // SMALLEST_BANK_BYTES)
        return (
            f"buffer_banks: a bank holds at least {iec(SMALLEST_BANK_BYTES)}, as what surrounds the cells of a smaller "
            f"one takes most of the energy: {iec(chip.buffer_bytes)} are at most {most:,}"
        )
    if chip.operand.startswith("int") != chip.accumulator.startswith("int"):
        return f"accumulator: {chip.accumulator} cannot add up products of {chip.operand}: both integer, or neither"
    if TYPE_BITS[chip.accumulator] < TYPE_BITS[chip.operand]:
        return f"accumulator: {chip.accumulator} is narrower than an operand of {chip.operand}"
    if (chip.dataflow == "row_stationary") != (chip.scratchpads is not None):
        return "scratchpads: row_stationary needs them, and no other dataflow has them"
    if chip.scratchpads is not None:
        needed = scratchpad_bytes(chip.scratchpads, chip.operand, chip.accumulator)
        if chip.pe_bytes and needed > chip.pe_bytes:
            return f"pe_bytes: the scratchpads alone hold {needed} bytes"
    if chip.technology and not chip.dram:
        return "dram: missing: give the kind of memory, as energy needs it"
    return ""
