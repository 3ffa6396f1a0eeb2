"""A table as HTML, for a notebook: human units, the raw numbers in `data-sort`, everything escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from costmodel.view.grid import Cell, Heading, grid
from costmodel.view.kinds import show
from costmodel.view.table import Table

_UNFOLDED = 50
"""The rows that a notebook shows without a click."""

_COLORS = {"good": "green", "bad": "crimson", "unsure": "darkorange"}


def html_table(table: Table) -> str:
    """The table as HTML, with its title and warnings above and its notes below; a long one is folded."""
    made = grid(table)
    spans = "".join(f"<th scope='colgroup' colspan='{span.columns}'>{escape(span.label)}</th>" for span in made.spans)
    head = "".join(f"<th scope='col' {_style(each)}>{escape(each.label)}</th>" for each in made.columns)
    body = "".join(_row(made.columns, row) for row in made.rows)
    foot = f"<tfoot style='font-weight:bold'>{_row(made.columns, made.total)}</tfoot>" if made.total else ""
    above = "".join(f"<div><strong>{escape(show(line))}</strong></div>" for line in table.warnings)
    below = "".join(f"<div><small>{escape(show(line))}</small></div>" for line in table.notes)
    long = len(made.rows) > _UNFOLDED
    caption = f"<caption>{escape(show(table.title))}</caption>" if table.title and not long else ""
    text = (
        f"<table>{caption}<thead>{f'<tr>{spans}</tr>' if spans else ''}<tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody>{foot}</table>"
    )
    if long:
        text = f"<details><summary>{escape(show(table.title))}, {len(made.rows)} rows</summary>{text}</details>"
    return above + text + below


def _row(headings: Sequence[Heading], cells: Sequence[Cell]) -> str:
    return f"<tr>{''.join(map(_cell, headings, cells))}</tr>"


def _cell(heading: Heading, cell: Cell) -> str:
    raw = "" if cell.sort is None else f' data-sort="{escape(str(cell.sort))}"'
    return f"<td {_style(heading, cell.tone)}{raw}>{escape(cell.text)}</td>"


def _style(heading: Heading, tone: str = "") -> str:
    color = f";color:{_COLORS[tone]}" if tone else ""
    return f"style='text-align:{'right' if heading.numeric else 'left'}{color}'"
