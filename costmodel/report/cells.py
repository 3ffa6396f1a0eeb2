"""A report's tables as cells: human units by the column's name, and beside each number its raw value for sorting.

`columns` says what a name means; a report's own columns carry their unit in their names, and `_batch_64` at the end of
one says at which batch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from costmodel.display import TEXTS, is_missing, show
from costmodel.report.columns import COLUMNS, QUANTITY, column

if TYPE_CHECKING:
    from costmodel.book.model import Table

_KINDS: Sequence[tuple[str, str]] = (
    (r"_bytes$", "bytes"),
    (r"_seconds$", "seconds"),
    (r"_share$", "percent"),
    (r"_ratio$", "times"),
    (r"(^|_)flops$", "flops"),
    (r"_per_weight$|_intensity$", "ratio"),
    (r"_shape$", "shape"),
)
"""What the name of a report's own column says of its values, the first that fits."""

_CLASSES = {
    "holds": "good", "agrees": "good", "explained": "good", "refuted": "bad", "differs": "bad", "depends": "unsure",
}  # fmt: skip
_PROSE = ("claim", "computed", "explanation", "note", "source", "what", "machine", "head")
_TERMS = ("parameter_formula", "path", "type", "binding", "network", "input", "run", "row", "said_by", "date")

_HYPHEN_FOR_MINUS = re.compile(r"(?<![\w.)-])-(?=\d)")
"""A hyphen before a number that is not part of a word, a range or a date."""


class Heading(NamedTuple):
    """What stands above a column."""

    label: str
    numeric: bool


class Cell(NamedTuple):
    """A cell as a page shows it."""

    text: str
    sort: float | None
    """Its number, by which rows are sorted; None for a text."""

    css: str
    """Its class: "n" for a number, "w" for prose, "f" for a term, "good", "bad" or "unsure" for a verdict."""


class Grid(NamedTuple):
    """A table ready to be written down."""

    columns: tuple[Heading, ...]
    rows: tuple[tuple[Cell, ...], ...]
    total: tuple[Cell, ...] | None
    """The last row, where it is the sum of the others."""


def grid(table: Table) -> Grid:
    """A table's headings and cells."""
    names = [str(name) for name in table.frame.columns]
    kinds = [_kind(name, table.frame[name]) for name in names]
    headings = tuple(
        Heading(table.labels.get(name) or _label(name), kind not in TEXTS)
        for name, kind in zip(names, kinds, strict=True)
    )
    values = table.frame.astype(object).itertuples(index=False, name=None)
    rows = tuple(tuple(map(_cell, names, _row_kinds(names, kinds, row), row)) for row in values)
    return Grid(headings, rows[:-1], rows[-1]) if table.total else Grid(headings, rows, None)


def _kind(name: str, values: Any) -> str:
    """The kind (see `display.KINDS`) of a column."""
    base, _ = _batch(name)
    if base in COLUMNS:
        return COLUMNS[base].kind
    for pattern, kind in _KINDS:
        if re.search(pattern, base):
            return kind
    present = [value for value in values if not is_missing(value)]
    return "count" if present and not any(isinstance(value, (str, bool, tuple)) for value in present) else "text"


def _row_kinds(names: Sequence[str], kinds: Sequence[str], row: Sequence[Any]) -> Sequence[str]:
    """The kinds of a row's values, where what one is may depend on the row's quantity."""
    if QUANTITY not in kinds:
        return kinds
    own = column(str(row[names.index(QUANTITY)])).kind
    return [own if kind == QUANTITY else kind for kind in kinds]


def _label(name: str) -> str:
    base, batch = _batch(name)
    own = re.sub(r"_(bytes|seconds|share|ratio|shape)$", "", base).replace("_", " ")
    return (COLUMNS[base].title if base in COLUMNS else own) + (f", batch\u00a0{batch}" if batch else "")


def _batch(name: str) -> tuple[str, str]:
    """A column's name without its batch, and the batch: "bound_seconds_batch_64" is ("bound_seconds", "64")."""
    base, _, batch = name.partition("_batch_")
    return base, batch


def _cell(name: str, kind: str, value: Any) -> Cell:
    if name == QUANTITY:
        value = column(str(value)).title
    if kind == "percent" and not is_missing(value) and abs(value) < 0.0005:
        value = 0.0  # not "-0.0 %"
    text = show(value, kind)
    if kind in ("shape", "times"):
        text = text.replace("x", "×")
    if kind not in TEXTS or kind == "prose":
        text = _HYPHEN_FOR_MINUS.sub("−", text)
    if kind not in TEXTS:
        return Cell(text, None if is_missing(value) else value, "n")
    return Cell(
        text, None, _CLASSES.get(text) or ("w" if kind == "prose" or name in _PROSE else "f" if name in _TERMS else "")
    )
