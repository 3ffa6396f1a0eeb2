"""What a device can reach at most: peaks by precision path and memory, with the source and date of every number."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from costmodel.devices.calibration import Calibration
from costmodel.errors import InputError
from costmodel.facts import Fact, Range, Source, with_other
from costmodel.view import Table, column, show

PATHS: Mapping[str, str] = {
    "fp64": "FP64",
    "fp64_tensor": "FP64 tensor",
    "fp32": "FP32",
    "tf32": "TF32 tensor",
    "fp16": "FP16 tensor",
    "bf16": "BF16 tensor",
    "fp8": "FP8 tensor",
    "int8": "INT8",
}
"""The precision paths and what people call them; fp64 and fp32 are the vector units."""

KINDS = ("gpu", "cpu")

_SHOWN: Mapping[str, str] = {
    "memory_bandwidth": "bytes_per_second", "memory_bytes": "bytes", "usable_bytes": "bytes", "l2_bytes": "bytes",
    "l3_bytes": "bytes", "units": "count", "clock_hertz": "hertz", "launch_seconds": "seconds",
}  # fmt: skip
"""How each number is written."""


@dataclass(frozen=True)
class Device:
    """What a device can reach at most. Raises InputError for numbers that cannot be."""

    name: str
    title: str
    kind: str
    """"gpu" or "cpu"."""

    peaks: Mapping[str, float]
    """FLOP/s by precision path (see PATHS), dense; a multiply-accumulate is two FLOPs."""

    memory_bandwidth: float
    """Bytes/s between the chip and its memory, reads and writes together."""

    memory_bytes: int | None = None
    usable_bytes: int | None = None
    """The memory that the driver leaves to programs, where a source gives it."""

    l2_bytes: int | None = None
    l3_bytes: int | None = None
    units: int | None = None
    """Streaming multiprocessors of a GPU, cores of a CPU."""

    clock_hertz: float | None = None
    launch_seconds: float | None = None
    """The cost of launching one operation, where a source gives it."""

    architecture: str = ""
    aliases: tuple[str, ...] = ()
    calibration: Calibration | None = field(default=None, repr=False)
    """Measured rates by class of operation; None if it was not calibrated."""

    facts: Mapping[str, Fact] = field(default_factory=dict, compare=False, repr=False)
    """Source, date and note of each number, by its field: "memory_bandwidth", "peaks.fp32"."""

    def __post_init__(self) -> None:
        problem = _inconsistency(self)
        if problem:
            raise InputError(f"{self.name}: {problem}.")

    @property
    def target(self) -> str:
        """Whose operators it runs, as `costmodel.trace` names it: "cuda" or "cpu"."""
        return "cpu" if self.kind == "cpu" else "cuda"

    @property
    def available_bytes(self) -> int | None:
        """The memory available to programs, as far as it is known."""
        return self.usable_bytes or self.memory_bytes

    @property
    def ridge_points(self) -> Mapping[str, float]:
        """FLOPs per byte at which each precision path and the memory take equally long: peak / bandwidth."""
        return {path: peak / self.memory_bandwidth for path, peak in self.peaks.items()}

    @property
    def source(self) -> str:
        """The titles of all sources with their dates, as one text."""
        return "; ".join(f"{source.title} ({source.date})" for source in self._sources)

    @property
    def date(self) -> str:
        """The date of the newest source."""
        return max((source.date for source in self._sources), default="")

    def replace(self, **changes: Any) -> Device:
        """The same device with other numbers: `h200.replace(memory_bandwidth=6.0e12)`. Its title says what changed.

        Raises InputError for an unknown field or a number that cannot be.
        """
        return with_other(self, "a device", changes)

    def _repr_html_(self) -> str:
        """Its numbers with their sources, for a notebook."""
        rows = [
            (f"{title}, dense", show(self.peaks[path], "flops_per_second"), self._source_of(f"peaks.{path}"))
            for path, title in PATHS.items()
            if path in self.peaks
        ] + [
            (name.replace("_", " "), show(value, kind), self._source_of(name))
            for name, kind in _SHOWN.items()
            if (value := getattr(self, name)) is not None
        ]
        return Table.of(("number", "amount", column("source", title="source")), rows, title=self.title)._repr_html_()

    def _source_of(self, name: str) -> str:
        return f"{fact.source.title} ({fact.source.date})" if (fact := self.facts.get(name)) else ""

    @property
    def _sources(self) -> list[Source]:
        return list(dict.fromkeys(fact.source for fact in self.facts.values()))


def devices_table(devices: Iterable[Device]) -> Table:
    """One row a device: dense peaks by precision path, and its memory."""
    sizes = ("memory_bandwidth", "memory_bytes", "l2_bytes", "launch_seconds", "date")
    rows = (
        (
            *(device.name, device.title, *(device.peaks.get(path) for path in PATHS)),
            *(getattr(device, name) for name in sizes),
            device.source,
        )
        for device in devices
    )
    return Table.of(("name", "title", *PATHS, *sizes, "sources"), rows, title="Devices")


NUMBERS: Mapping[str, Range] = {
    "memory_bandwidth": Range(1e8, 1e15, "bytes/s"),
    "memory_bytes": Range(1 << 20, 1 << 50, "bytes", whole=True),
    "usable_bytes": Range(1 << 20, 1 << 50, "bytes", whole=True),
    "l2_bytes": Range(1 << 10, 1 << 40, "bytes", whole=True),
    "l3_bytes": Range(1 << 10, 1 << 40, "bytes", whole=True),
    "units": Range(1, 1e6, "multiprocessors or cores", whole=True),
    "clock_hertz": Range(1e6, 1e11, "Hz"),
    "launch_seconds": Range(1e-9, 1.0, "seconds"),
}
"""What each number of a device can be."""

RATES = Range(1e8, 1e19, "FLOP/s")
"""What a peak can be."""

_REQUIRED = ("memory_bandwidth",)

_NOT_ABOVE = (
    ("peaks.fp64", "peaks.fp64_tensor"),
    ("peaks.fp64", "peaks.fp32"),
    ("peaks.tf32", "peaks.fp16"),
    ("peaks.tf32", "peaks.bf16"),
    ("peaks.fp16", "peaks.fp8"),
    ("peaks.bf16", "peaks.fp8"),
    ("usable_bytes", "memory_bytes"),
    ("l2_bytes", "l3_bytes"),
    ("l2_bytes", "memory_bytes"),
    ("l3_bytes", "memory_bytes"),
)
"""Pairs of which the first cannot be larger: narrower formats are no slower, and memory grows away from the chip."""


def _inconsistency(device: Device) -> str:
    if device.kind not in KINDS:
        return f"kind: {device.kind!r} is neither of {', '.join(KINDS)}"
    for path in device.peaks:
        if path not in PATHS:
            return f"peaks.{path}: unknown, use {', '.join(PATHS)}"
    if "fp32" not in device.peaks:
        return "peaks.fp32: missing: give the peak of the vector units in FLOP/s"
    numbers = {name: getattr(device, name) for name in NUMBERS}
    numbers = {name: value for name, value in numbers.items() if value is not None or name in _REQUIRED}
    numbers |= {f"peaks.{path}": peak for path, peak in device.peaks.items()}
    for name, value in numbers.items():
        if problem := NUMBERS.get(name, RATES).problem(value):
            return f"{name}: {problem}"
    for smaller, larger in _NOT_ABOVE:
        if numbers.get(smaller, 0) > numbers.get(larger, math.inf):
            return f"{smaller}: larger than {larger}: is one of them a figure with sparsity, or in another unit"
    return ""
