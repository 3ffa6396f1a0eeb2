"""A value of a kind as text, and rows of values as an HTML table: what a result shows itself with in a notebook.

A column's kind says what its values are: base units go in, human units come out. `show` is the one place that turns a
value into text; every table for people goes through it. Everything that reaches HTML is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from costmodel.errors import InputError
from costmodel.units import iec, joules, percent, seconds, si

Column = tuple[str, str]
"""A column's title and its kind (see KINDS)."""

TEXTS = ("text", "term", "prose", "layer", "flag", "shape")
"""The kinds that are not numbers: they stand at the left of their column."""


def show(value: Any, kind: str = "text") -> str:
    """`value` as text for people; a missing value (None, NaN) is an empty text.

    >>> show(244403360, "bytes"), show(0.9613, "percent"), show((1, 96, 54, 54), "shape")
    ('233 MiB', '96.1 %', '1x96x54x54')

    Raises InputError for a kind that there is not.
    """
    if kind not in KINDS:
        raise InputError(f"unknown kind of column {kind!r}: use one of {', '.join(KINDS)}.")
    if is_missing(value):
        return ""
    return KINDS[kind](value)


def is_missing(value: Any) -> bool:
    """Whether there is no value: None, or the NaN that data frames put in its place."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def html_table(
    caption: str,
    columns: Sequence[Column],
    rows: Iterable[Sequence[Any]],
    footer: Sequence[Any] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """An HTML table of raw values: shown in human units, the raw numbers in `data-sort`.

    Args:
        caption: stands above the table.
        columns: a title and a kind each.
        rows: one value a column, in base units.
        footer: a last row, of totals.
        notes: sentences that stand under the table, a line each.
    """
    head = "".join(f"<th scope='col' {_aligned(kind)}>{escape(title)}</th>" for title, kind in columns)
    body = "".join(_row(columns, row) for row in rows)
    foot = f"<tfoot style='font-weight:bold'>{_row(columns, footer)}</tfoot>" if footer is not None else ""
    under = "".join(f"<div><small>{escape(note)}</small></div>" for note in notes)
    return (
        f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody>{foot}</table>{under}"
    )


def _row(columns: Sequence[Column], values: Sequence[Any]) -> str:
    cells = (_cell(value, kind) for value, (_, kind) in zip(values, columns, strict=True))
    return f"<tr>{''.join(cells)}</tr>"


def _cell(value: Any, kind: str) -> str:
    sortable = kind not in TEXTS and not is_missing(value)
    raw = f' data-sort="{escape(str(value))}"' if sortable else ""
    return f"<td {_aligned(kind)}{raw}>{escape(show(value, kind))}</td>"


def _aligned(kind: str) -> str:
    return f"style='text-align:{'left' if kind in TEXTS else 'right'}'"


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


KINDS: Mapping[str, Callable[[Any], str]] = {
    "text": _line,
    "term": _line,  # a text that says nothing when shortened: a formula, a word of ours
    "prose": _line,  # a text that may take several lines
    "layer": lambda path: _line(path) or "(network)",
    "flag": lambda value: "yes" if value else "no",
    "shape": lambda sizes: "x".join(map(str, sizes)) if isinstance(sizes, (tuple, list)) else str(sizes),
    "count": _count,
    "bytes": iec,
    "macs": si,
    "flops": si,
    "seconds": seconds,
    "joules": joules,
    "hertz": lambda value: si(value, "Hz"),
    "flops_per_second": lambda rate: si(rate, "FLOP/s"),
    "bytes_per_second": lambda rate: si(rate, "B/s"),
    "ratio": _ratio,
    "times": lambda ratio: f"{_ratio(ratio)}x",
    "percent": percent,
}
"""How each kind of value is written. MACs and FLOPs have a prefix alone: the column's title says the unit."""
