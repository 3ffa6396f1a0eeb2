"""What the words and numbers mean."""

from __future__ import annotations

from dataclasses import dataclass

from costmodel.book.engine import Chapter
from costmodel.cost import CONVENTIONS
from costmodel.roofline import CONVENTION


@dataclass(frozen=True)
class Numbers:
    """The conventions of the library, in its own words, which its JSON documents say as well."""

    mac: str
    flops: str
    moved: str
    arithmetic_intensity: str
    bound: str


def conventions() -> Chapter:
    """What MACs, FLOPs, bytes and bounds are."""
    return Chapter(
        "conventions",
        Numbers(
            mac=CONVENTIONS["mac"],
            flops=CONVENTIONS["flops"],
            moved=CONVENTIONS["bytes"],
            arithmetic_intensity=CONVENTIONS["arithmetic_intensity"],
            bound=CONVENTION,
        ),
    )
