"""The kinds of values: how each is written for people, how its column stands, and what tone a value has.

Base units go in, human units come out. `show` is the one place that turns a value into text, and a text takes one line
without anything that would steer a terminal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from costmodel.errors import InputError
from costmodel.units import iec, joules, percent, seconds, si

GOOD, BAD, UNSURE = "good", "bad", "unsure"
"""The tones of a verdict."""


class Kind(NamedTuple):
    """What the values of a column are."""

    write: Callable[[Any], str]
    """A value as text."""

    numeric: bool = True
    """Whether its values are numbers: they stand at the right, and sort as numbers."""

    least: int = 0
    """The characters that a narrow terminal may shorten it to; 0 where nothing may be cut off."""

    wraps: bool = False
    """Whether a value may take several lines."""

    css: str = ""
    """Its class on a page: "n" for a number, "w" for prose that wants room, "f" for what stands on one line."""

    tones: Mapping[Any, str] = {}
    """The tone of each value that has one."""


def show(value: Any, kind: str = "text") -> str:
    """`value` as text for people; a missing value (None, NaN) is an empty text.

    >>> show(244403360, "bytes"), show(0.9613, "percent"), show((1, 96, 54, 54), "shape")
    ('233 MiB', '96.1 %', '1x96x54x54')

    Raises InputError for an unknown kind.
    """
    if kind not in KINDS:
        raise InputError(f"unknown kind of column {kind!r}: use one of {', '.join(KINDS)}.")
    return "" if is_missing(value) else KINDS[kind].write(value)


def is_missing(value: Any) -> bool:
    """Whether there is no value: None, or the NaN that data frames put in its place."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def sentence(text: str) -> str:
    """A remark as a sentence of its own: with a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def _count(value: float) -> str:
    if value == int(value):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _ratio(value: float) -> str:
    """Three digits, and no fewer than the integer part has: 0.0123, 2.87, 156, 12,345."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 99.95 or value == 0 else f"{value:#.3g}"


def _line(value: Any) -> str:
    """A text on one line: what would steer a terminal or break a row is replaced."""
    return "".join(character if character.isprintable() else "\ufffd" for character in str(value))


def _shape(sizes: Any) -> str:
    return "x".join(map(str, sizes)) if isinstance(sizes, (tuple, list)) else str(sizes)


def _number(write: Callable[[Any], str]) -> Kind:
    return Kind(write, css="n")


FIELD = "field"
"""The kind of a value that is the name of a column, and is shown as its title."""

QUANTITY = "quantity"
"""The kind of a value that is of the kind of the column that its row's FIELD names."""

_VERDICTS = {
    "holds": GOOD, "agrees": GOOD, "explained": GOOD, "refuted": BAD, "differs": BAD, "not all": BAD, "depends": UNSURE,
}  # fmt: skip

KINDS: Mapping[str, Kind] = {
    "text": Kind(_line, numeric=False, least=14),
    "name": Kind(_line, numeric=False, least=14, css="f"),
    "layer": Kind(lambda path: _line(path) or "(network)", numeric=False, least=14),
    "layers": Kind(lambda paths: ", ".join(_line(path) or "(network)" for path in paths), numeric=False, least=14),
    "term": Kind(_line, numeric=False, css="f"),  # says nothing when shortened: a formula, one of our words
    "prose": Kind(_line, numeric=False, least=20, wraps=True, css="w"),
    "verdict": Kind(_line, numeric=False, tones=_VERDICTS),
    "flag": Kind(lambda value: "yes" if value else "no", numeric=False),
    "check": Kind(lambda value: "yes" if value else "no", numeric=False, tones={False: BAD}),
    "shape": Kind(_shape, numeric=False),
    "count": _number(_count),
    "bytes": _number(iec),
    "macs": _number(si),
    "flops": _number(si),
    "seconds": _number(seconds),
    "joules": _number(joules),
    "square_metres": _number(lambda area: f"{area * 1e12:,.4g} µm²"),
    "hertz": _number(lambda value: si(value, "Hz")),
    "flops_per_second": _number(lambda rate: si(rate, "FLOP/s")),
    "bytes_per_second": _number(lambda rate: si(rate, "B/s")),
    "ratio": _number(_ratio),
    "times": _number(lambda ratio: f"{_ratio(ratio)}x"),
    "percent": _number(percent),
    FIELD: Kind(_line, numeric=False),
    QUANTITY: _number(str),
}
"""How each kind is shown. MACs and FLOPs have a prefix alone: the column's title says the unit."""
