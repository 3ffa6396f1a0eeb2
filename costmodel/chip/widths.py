"""The widths of the words of a nest's operands, in bits."""

from __future__ import annotations

import operator
from dataclasses import dataclass, fields
from typing import Any

from costmodel.errors import InputError

WORD_BITS = 16
"""The default: the word of Eyeriss and of most published traffic."""


@dataclass(frozen=True, slots=True)
class Widths:
    """Bits of a word of each operand. Raises InputError unless they are whole and positive."""

    input_bits: int = WORD_BITS
    weight_bits: int = WORD_BITS
    output_bits: int = WORD_BITS
    partial_bits: int = WORD_BITS
    """Of a partial sum, on the chip and when it has to go to DRAM and come back; no narrower than an output."""

    def __post_init__(self) -> None:
        for field in fields(self):
            name = field.name.replace("_bits", " word's width")
            object.__setattr__(self, field.name, whole(getattr(self, field.name), f"the {name}", "bits"))
        if self.partial_bits < self.output_bits:
            raise InputError(
                f"partial sums of {self.partial_bits} bits are narrower than outputs of {self.output_bits}: "
                "give them at least as many."
            )

    @classmethod
    def of(cls, word_bits: int = WORD_BITS, partial_bits: int | None = None) -> Widths:
        """One width for all operands; partial sums may be wider."""
        return cls(word_bits, word_bits, word_bits, word_bits if partial_bits is None else partial_bits)


def whole(value: Any, what: str, unit: str) -> int:
    """A positive whole number as an int. Raises InputError for anything else, True included."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < 1:
        raise InputError(f"{what} is a positive whole number of {unit}, not {value!r}.")
    return number
