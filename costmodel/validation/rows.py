"""One of our numbers beside a reference's, with what explains the difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

TOTAL = "(total)"
"""The layer of a row of sums."""


class ComparisonRow(NamedTuple):
    """One of our numbers beside a reference's."""

    source: str
    """The reference: a peer, or a publication."""

    phase: str
    """"forward" or "backward"; empty for parameters."""

    layer: str
    """Dotted path, or TOTAL."""

    quantity: str
    """"parameters", "macs", or "contraction_flops" (2 x MACs, for peers that count so)."""

    ours: int
    peer: int
    difference: int
    """The peer's minus ours."""

    explanation: str
    """The names of what makes the difference; what is left unexplained says so."""

    ok: bool
    """Whether there is no difference, or it is explained to the unit."""


def with_total(
    source: str, phase: str, quantity: str, numbers: Iterable[tuple[str, int, int, Mapping[str, int]]]
) -> Iterator[ComparisonRow]:
    """A row for each (layer, ours, theirs, expected differences by name), and their sums.

    The total is ok only if every layer is: two mistakes may cancel.
    """
    ours = theirs = 0
    sums: Counter[str] = Counter()
    fine = True
    for layer, mine, their, expected in numbers:
        row = compare(source, phase, layer, quantity, mine, their, expected)
        yield row
        ours, theirs, fine = ours + mine, theirs + their, fine and row.ok
        sums.update(expected)
    total = compare(source, phase, TOTAL, quantity, ours, theirs, sums)
    if total.ok and not fine:
        total = total._replace(ok=False, explanation=f"{total.explanation}; unexplained in layers".removeprefix("; "))
    yield total


def compare(
    source: str, phase: str, layer: str, quantity: str, ours: int, theirs: int, expected: Mapping[str, int]
) -> ComparisonRow:
    """One row: ok if the expected differences add up to exactly the difference."""
    difference = theirs - ours
    rest = difference - sum(expected.values())
    reasons = [f"{name} ({amount:+,})" for name, amount in expected.items() if amount]
    if rest:
        reasons.append(f"unexplained ({rest:+,})")
    return ComparisonRow(source, phase, layer, quantity, ours, theirs, difference, "; ".join(reasons), rest == 0)
