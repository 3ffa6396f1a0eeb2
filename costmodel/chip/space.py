"""A design space: which arrays, buffers, bandwidths, widths and clocks to try, and the accelerator of each choice."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from costmodel.chip.accelerator import Accelerator
from costmodel.chip.mapping import DATAFLOWS
from costmodel.errors import InputError, nearest

_SIDES = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_DEFAULT_DATAFLOWS = ("weight_stationary", "output_stationary", "channel_parallel")


@dataclass(frozen=True)
class Space:
    """Designs to try: each combination of these, everything else as in `base`. Raises InputError for an empty axis."""

    base: Accelerator
    """Where the technology, the kind of memory and all that is not varied come from."""

    arrays: tuple[tuple[int, int], ...] = tuple(product(_SIDES, _SIDES))
    """Rows and columns."""

    dataflows: tuple[str, ...] = _DEFAULT_DATAFLOWS
    buffers: tuple[int, ...] = tuple(round(2**exponent) for exponent in np.arange(15, 23.5, 0.5))
    """Bytes."""

    bandwidths: tuple[float, ...] = tuple(1e9 * 2**exponent for exponent in np.arange(0, 6.25, 0.25))
    """Bytes/s."""

    operands: tuple[str, ...] = ()
    """Types; the base's own if none is given."""

    clocks: tuple[float, ...] = (0.5e9, 0.7e9, 1.0e9)
    """Hz."""

    def __post_init__(self) -> None:
        if not self.operands:
            object.__setattr__(self, "operands", (self.base.operand,))
        for name in ("arrays", "dataflows", "buffers", "bandwidths", "clocks"):
            if not getattr(self, name):
                raise InputError(f"a design space needs at least one of its {name}.")
        for flow in self.dataflows:
            if flow not in DATAFLOWS:
                hint = nearest(flow, DATAFLOWS) or f" Use {', '.join(DATAFLOWS)}."
                raise InputError(f"unknown dataflow {flow!r}.{hint}")
        for number in (
            *self.buffers,
            *self.bandwidths,
            *self.clocks,
            *(side for sides in self.arrays for side in sides),
        ):
            if not number > 0 or not np.isfinite(number):
                raise InputError(
                    f"{number!r} cannot be a size, a bandwidth or a clock of a design: give a positive one."
                )

    def __len__(self) -> int:
        axes = (self.arrays, self.dataflows, self.buffers, self.bandwidths, self.operands, self.clocks)
        return int(np.prod([len(axis) for axis in axes]))

    def design(self, row: Any) -> Accelerator:
        """The accelerator of a row of an exploration's frame."""
        return variant(self.base, str(row["operand"]), str(row["dataflow"])).replace(
            title="a design",
            rows=int(row["rows"]),
            columns=int(row["columns"]),
            buffer_bytes=int(row["buffer_bytes"]),
            dram_bandwidth=float(row["dram_bandwidth"]),
            clock_hertz=float(row["clock_hertz"]),
        )


def variant(base: Accelerator, operand: str, dataflow: str) -> Accelerator:
    """The base with another operand and dataflow; its accumulator follows the operand."""
    floating = not operand.startswith("int")
    accumulator = base.accumulator
    if floating != (not accumulator.startswith("int")) or operand == "int32":
        accumulator = "fp32" if floating else "int32"
    pads = base.scratchpads if dataflow == "row_stationary" else None
    return base.replace(operand=operand, accumulator=accumulator, dataflow=dataflow, scratchpads=pads)
