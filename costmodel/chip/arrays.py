"""An array of processing elements (PEs), and the mapping of a nest to it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from costmodel.chip.nests import Nest

Count = int | npt.NDArray[np.int64]
"""A whole number, or an array of them: one for each of several arrays of PEs."""


class Scratchpads(NamedTuple):
    """What a row-stationary PE holds, and what reaches the array in a cycle, in words."""

    weight_words: int
    input_words: int
    partial_sum_words: int
    weights_per_cycle: int
    inputs_per_cycle: int
    partial_sums_per_cycle: int


class Array(NamedTuple):
    """An array of processing elements."""

    dataflow: str
    rows: Count
    columns: Count
    scratchpads: Scratchpads | None = None
    """Of a row-stationary PE."""

    buffer_bytes: int = 1 << 62
    """Capacity of the buffer behind a row-stationary array; unlimited unless given."""

    operand_bytes: int = 2
    """Of an input or a weight."""

    partial_sum_bytes: int = 2
    weights_ahead: bool = False
    """Whether a weight-stationary array takes in the next fold's weights while it multiplies."""


class NestMapping(NamedTuple):
    """A nest mapped to an array: its cycles and its words."""

    cycles: Count
    """From the first word into the array to the last out of it, if no word is late."""

    multiply_cycles: Count
    """Those in which the array multiplies: without filling, draining, loading and reducing."""

    input_words: Count
    """Words from the buffer into the array, a multicast counted once."""

    weight_words: Count
    partial_sum_words: Count
    """Words of partial sums and outputs between array and buffer, both ways."""

    choice: str = ""
    """The sizes that the mapping chose, where it has a choice."""

    def active(self, nest: Nest) -> Any:
        """PEs at work while the array multiplies, on average."""
        return nest.macs / self.multiply_cycles


def ceil(value: Any, by: Any) -> Any:
    """The quotient rounded up; numbers or arrays."""
    return -(-value // by)
