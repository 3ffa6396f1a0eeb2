"""A table as cells for people: text, the number that it sorts by, its tone; a terminal and pages show these.

A table that stands `across` a column, batches for example, is spread here: one row for what was several, the values of
each batch side by side under a heading that spans them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from costmodel.view.columns import COLUMNS, Column
from costmodel.view.kinds import FIELD, KINDS, QUANTITY, Kind, is_missing, show
from costmodel.view.table import Table

_HYPHEN_FOR_MINUS = re.compile(r"(?<![\w.)-])-(?=\d)")
"""A hyphen before a number that is not part of a word, a range or a date."""


class Heading(NamedTuple):
    """What stands above a column."""

    label: str
    column: Column
    over: str = ""
    """What stands above it and its neighbours: the value of the column that the table stands across."""

    @property
    def kind(self) -> Kind:
        """What its values are."""
        return KINDS[self.column.kind]

    @property
    def numeric(self) -> bool:
        """Whether its values are numbers, which stand at the right and sort."""
        return self.kind.numeric


class Span(NamedTuple):
    """A heading above several columns; empty above those that say what a row is about."""

    label: str
    columns: int


class Cell(NamedTuple):
    """A value as people see it."""

    text: str
    sort: float | None
    """Its number, by which rows are sorted; None for a text."""

    tone: str
    """"good", "bad" or "unsure" for a verdict, else ""."""

    css: str
    """Its class on a page: its tone, or that of its kind."""


class Grid(NamedTuple):
    """A table ready to be written down."""

    columns: tuple[Heading, ...]
    rows: tuple[tuple[Cell, ...], ...]
    total: tuple[Cell, ...] | None
    """The last row, of what the others add up to."""

    @property
    def spans(self) -> tuple[Span, ...]:
        """What stands above the headings; nothing unless the table stands across a column."""
        if not any(heading.over for heading in self.columns):
            return ()
        spans: list[Span] = []
        for heading in self.columns:
            if spans and spans[-1].label == heading.over:
                spans[-1] = Span(heading.over, spans[-1].columns + 1)
            else:
                spans.append(Span(heading.over, 1))
        return tuple(spans)


def grid(table: Table, *, typeset: bool = False) -> Grid:
    """A table's headings and cells, without the columns that no row fills.

    With `typeset`, for a page: with the signs for minus and times.
    """
    table = _filled(table)
    if table.across:
        return _spread(table, typeset)
    by_name = [dict(zip(table.names, row, strict=True)) for row in table.rows()]
    cells = tuple(tuple(_cell(each, row[each.name], row, typeset) for each in table.columns) for row in by_name)
    total = table.total
    last = tuple(_sum_cell(each, total.get(each.name), typeset) for each in table.columns) if total else None
    return Grid(tuple(Heading(show(each.title), each) for each in table.columns), cells, last)


def _filled(table: Table) -> Table:
    """The table without the columns that have no value in any row, apart from the first and what it stands across."""

    def is_said(each: Column, value: Any) -> bool:
        return not is_missing(value) and (value != "" or each.kind == "layer")

    kept = [
        each.name
        for index, each in enumerate(table.columns)
        if not index or each.name == table.across or not len(table) or any(is_said(each, v) for v in table[each.name])
    ]
    return table.select(*kept) if len(kept) < len(table.columns) else table


def _spread(table: Table, typeset: bool) -> Grid:
    """The grid of a table across a column: a row for each set of values before it."""
    place = table.names.index(table.across)
    fixed, across, spread = table.columns[:place], table.columns[place], table.columns[place + 1 :]
    merged: dict[tuple[Any, ...], dict[Any, dict[str, Any]]] = {}
    for row in table.rows():
        merged.setdefault(row[:place], {})[row[place]] = dict(zip(table.names, row, strict=True))
    values = list(dict.fromkeys(value for found in merged.values() for value in found))
    heads = [Heading(show(each.title), each) for each in fixed]
    for value in values:
        over = f"{across.title} {show(value, across.kind)}"
        heads += [Heading(show(each.title), each, over) for each in spread]
    rows = []
    for key, found in merged.items():
        cells = [_cell(each, value, {}, typeset) for each, value in zip(fixed, key, strict=True)]
        for value in values:
            own = found.get(value, {})
            cells += [_cell(each, own.get(each.name), own, typeset) for each in spread]
        rows.append(tuple(cells))
    return Grid(tuple(heads), tuple(rows), _spread_total(table, fixed, spread, values, typeset))


def _spread_total(
    table: Table, fixed: Sequence[Column], spread: Sequence[Column], values: Sequence[Any], typeset: bool
) -> tuple[Cell, ...] | None:
    if not table.total:
        return None
    cells = [_sum_cell(each, table.total.get(each.name), typeset) for each in fixed]
    for value in values:
        cells += [_sum_cell(each, (table.total.get(each.name) or {}).get(value), typeset) for each in spread]
    return tuple(cells)


def _sum_cell(column: Column, value: Any, typeset: bool) -> Cell:
    """A cell of the last row, whose first value is a word whatever the column holds."""
    word = isinstance(value, str) and KINDS[column.kind].numeric
    return _cell(column._replace(kind="text") if word else column, value, {}, typeset)


def _cell(column: Column, value: Any, row: Mapping[str, Any], typeset: bool) -> Cell:
    """A value as a cell; what its kind is may depend on the row's quantity."""
    name = column.kind
    if name == QUANTITY:
        fields = [row[key] for key in row if key in COLUMNS and COLUMNS[key].kind == FIELD]
        name = COLUMNS[fields[0]].kind if fields and fields[0] in COLUMNS else "ratio"
    elif name == FIELD and value in COLUMNS:
        value = COLUMNS[value].title
    kind = KINDS[name]
    if name == "percent" and not is_missing(value) and abs(value) < 0.0005:
        value = 0.0  # not "-0.0 %"
    text = show(value, name)
    if typeset and name in ("shape", "times"):
        text = text.replace("x", "×")
    if typeset and (kind.numeric or kind.wraps):
        text = _HYPHEN_FOR_MINUS.sub("−", text)
    tone = "" if is_missing(value) or not kind.tones else kind.tones.get(value, "")
    return Cell(text, value if kind.numeric and not is_missing(value) else None, tone, tone or kind.css)
