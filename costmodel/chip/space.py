"""A design space: which arrays, buffers, bandwidths, widths and clocks to try, and the accelerator of each choice."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from costmodel.chip.accelerator import LIMITS, SMALLEST_BANK_BYTES, Accelerator, accelerator, scratchpad_bytes
from costmodel.chip.evaluation import area_of, energy_of
from costmodel.chip.mapping import DATAFLOWS
from costmodel.chip.technology import TYPE_BITS
from costmodel.errors import InputError, nearest

_SIDES = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_ARRAYS = tuple(product(_SIDES, _SIDES))
_DATAFLOWS = ("weight_stationary", "output_stationary", "channel_parallel")
_BUFFERS = tuple(round(2**exponent) for exponent in np.arange(15, 23.5, 0.5))
_BANDWIDTHS = tuple(1e9 * 2**exponent for exponent in np.arange(0, 6.25, 0.25))
_CLOCKS = (0.5e9, 0.7e9, 1.0e9)

_FEW_ARRAYS = tuple((side, side) for side in (8, 16, 32, 64, 128, 256))
_FEW_BUFFERS = _BUFFERS[::2]
"""For row-stationary arrays, each of which takes long to map."""

_USUAL: Any = None
"""Stands for an axis that was left out."""


@dataclass(frozen=True)
class Space:
    """Designs to try: each combination of these, everything else as in `base`.

    An axis that is left out has its usual values, and the base's own among them. Raises InputError for an empty axis,
    for an impossible number, and for a type that the base's technology has no numbers for.
    """

    base: Accelerator
    """Where the technology, the kind of memory and all that is not varied come from; its name or file will do."""

    arrays: tuple[tuple[int, int], ...] = _USUAL
    """Rows and columns; usually fewer, as of buffers, if row-stationary arrays are tried, which take long to map."""

    dataflows: tuple[str, ...] = _USUAL

    buffers: tuple[int, ...] = _USUAL
    """Bytes."""

    bandwidths: tuple[float, ...] = _USUAL
    """Bytes/s; usually the base's alone if areas leave out its memory's interface, as more would cost nothing."""

    operands: tuple[str, ...] = _USUAL
    """Types; usually the base's alone."""

    clocks: tuple[float, ...] = _USUAL
    """Hz."""

    def __post_init__(self) -> None:
        base = accelerator(self.base)
        object.__setattr__(self, "base", base)
        self._fill("dataflows", (*_DATAFLOWS, base.dataflow))
        long = "row_stationary" in self.dataflows
        self._fill("arrays", (*(_FEW_ARRAYS if long else _ARRAYS), (base.rows, base.columns)))
        self._fill("buffers", (*(_FEW_BUFFERS if long else _BUFFERS), base.buffer_bytes))
        costly = base.memory_interface or not base.technology
        self._fill("bandwidths", (*(_BANDWIDTHS if costly else ()), base.dram_bandwidth))
        self._fill("operands", (base.operand,))
        self._fill("clocks", (*_CLOCKS, base.clock_hertz))
        self._check()

    def __len__(self) -> int:
        axes = (self.arrays, self.dataflows, self.buffers, self.bandwidths, self.operands, self.clocks)
        return int(np.prod([len(axis) for axis in axes]))

    @property
    def sizes(self) -> dict[str, tuple[Any, ...]]:
        """The values of each varied number, by its name in an accelerator."""
        return {
            "rows": tuple(rows for rows, _ in self.arrays),
            "columns": tuple(columns for _, columns in self.arrays),
            "buffer_bytes": self.buffers,
            "dram_bandwidth": self.bandwidths,
            "clock_hertz": self.clocks,
        }

    def design(self, row: Any) -> Accelerator:
        """The accelerator of a row of an exploration's frame."""
        chip = variant(self.base, str(row["operand"]), str(row["dataflow"]))
        return with_buffer(chip, int(row["buffer_bytes"])).replace(
            title="a design",
            rows=int(row["rows"]),
            columns=int(row["columns"]),
            dram_bandwidth=float(row["dram_bandwidth"]),
            clock_hertz=float(row["clock_hertz"]),
        )

    def _fill(self, axis: str, usual: Iterable[Any]) -> None:
        if getattr(self, axis) is _USUAL:
            object.__setattr__(self, axis, tuple(dict.fromkeys(usual)))

    def _check(self) -> None:
        for name in ("arrays", "dataflows", "buffers", "bandwidths", "operands", "clocks"):
            if not getattr(self, name):
                raise InputError(f"a design space needs at least one of its {name}.")
        known = (("dataflow", self.dataflows, DATAFLOWS), ("operand", self.operands, tuple(TYPE_BITS)))
        for what, words, choices in known:
            for word in words:
                if word not in choices:
                    hint = nearest(word, choices) or f" Use {', '.join(choices)}."
                    raise InputError(f"unknown {what} {word!r}.{hint}")
        for name, values in self.sizes.items():
            for value in values:
                if problem := LIMITS[name].problem(value.item() if isinstance(value, np.generic) else value):
                    raise InputError(f"a design's {name}: {problem}.")
        technology = self.base.find_technology() if self.base.technology else None
        for operand, flow in product(self.operands, self.dataflows):
            chip = variant(self.base, operand, flow)
            if technology is not None:  # these name what it has no number for
                area_of(chip, technology), energy_of(chip, technology)


def variant(base: Accelerator, operand: str, dataflow: str) -> Accelerator:
    """The base with another operand and dataflow; accumulator and PE capacity follow."""
    floating = not operand.startswith("int")
    accumulator = base.accumulator
    if floating != (not accumulator.startswith("int")) or TYPE_BITS[accumulator] < TYPE_BITS[operand]:
        accumulator = "fp32" if floating else "int32"
    return base.replace(
        operand=operand,
        accumulator=accumulator,
        dataflow=dataflow,
        scratchpads=base.scratchpads if dataflow == "row_stationary" else None,
        pe_bytes=_pe_bytes(base, operand, accumulator, dataflow),
    )


def with_buffer(chip: Accelerator, buffer_bytes: int) -> Accelerator:
    """The chip with another buffer, in fewer banks if they would be too small."""
    most = max(1, buffer_bytes // SMALLEST_BANK_BYTES)
    return chip.replace(buffer_bytes=buffer_bytes, buffer_banks=min(chip.buffer_banks, most))


def _pe_bytes(base: Accelerator, operand: str, accumulator: str, dataflow: str) -> int:
    """Capacity of a PE: as many scratchpad words; without scratchpads a weight, an input and a partial sum."""
    same = (operand, accumulator, dataflow) == (base.operand, base.accumulator, base.dataflow)
    if base.scratchpads is None or not base.pe_bytes or same:
        return base.pe_bytes
    if dataflow == "row_stationary":
        return scratchpad_bytes(base.scratchpads, operand, accumulator)
    return (2 * TYPE_BITS[operand] + TYPE_BITS[accumulator]) // 8
