"""A data frame -> text: "table" for a terminal, "md" for a page, "csv" and "json" for programs; or an HTML table.

The first two show human units, the others the frame's own base units. Nothing in a name steers what reads it: control
characters, console markup, pipes and tags arrive as text.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from costmodel import display
from costmodel.display import TEXTS, show
from costmodel.errors import InputError, nearest
from costmodel.report.columns import QUANTITY, Column, column
from costmodel.report.tables import csv, records

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("table", "json", "csv", "md")

_GAP = 2
_LEAST = {"text": 14, "layer": 14, "prose": 20}  # what a column may shrink to before another one goes


_FIRST = 0.4
"""What the first column, which says what a row is, may take of a line before it is shortened."""


@dataclass(frozen=True)
class Page:
    """A frame with what people read around it."""

    frame: pd.DataFrame
    title: str = ""
    notes: Sequence[str] = ()
    """Lines above the table: what the numbers mean, what they were computed for."""

    warnings: Sequence[str] = ()
    """Lines above everything, which nobody should miss."""

    total: Mapping[str, Any] | None = None
    """The row of sums, see `costmodel.report.tables.total_of`."""

    labels: Mapping[str, str] = field(default_factory=dict)
    """What people see above a column where that depends on the frame."""


def render(
    frame: pd.DataFrame,
    format: str = "table",
    *,
    title: str = "",
    notes: Sequence[str] = (),
    warnings: Sequence[str] = (),
    total: Mapping[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
    width: int = 120,
    color: bool = False,
) -> str:
    """A frame as text that ends in a line break.

    Args:
        frame: a row each, in base units, its columns named as in `costmodel.report.columns`.
        format: one of FORMATS.
        title: a heading; it, the notes, the warnings and the total are for people, "csv" holds the rows only.
        notes: sentences that stand above the table.
        warnings: sentences that stand above everything.
        total: a last row.
        labels: titles for columns, in place of their usual ones.
        width: characters of a line of a "table": texts are shortened, then the least important columns left out.
        color: whether a "table" has colours, as escape sequences.

    Raises InputError for an unknown format.
    """
    if format not in _RENDERERS:
        raise InputError(f"unknown format {format!r}: use one of {', '.join(FORMATS)}.{nearest(format, FORMATS)}")
    page = Page(frame, title, notes, warnings, total, labels or {})
    return _terminal(page, width, color) if format == "table" else _RENDERERS[format](page)


def html_table(
    frame: pd.DataFrame,
    *,
    title: str = "",
    notes: Sequence[str] = (),
    total: Mapping[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
) -> str:
    """A frame as an HTML table in human units, with the raw numbers in `data-sort`; everything is escaped."""
    page = Page(frame, title, notes, (), total, labels or {})
    names = _names(page)
    shown = {name: column(name).kind for name in names}
    as_text = [name for name in names if shown[name] == QUANTITY or name == QUANTITY]
    rows = [[row[name] if name not in as_text else _cell(name, row) for name in names] for row in _rows(page)]
    head = [(_title(page, name), "text" if name in as_text else shown[name]) for name in names]
    return display.html_table(title, head, rows[: len(frame)], rows[-1] if total else None, notes)


def _terminal(page: Page, width: int, color: bool) -> str:
    """Lines no longer than `width`, as far as the columns that must stay allow."""
    import io

    from rich.box import SIMPLE_HEAD
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    names, rows = _names(page), _rows(page)
    cells = {name: [_cell(name, row) for row in rows] for name in names}
    titles = {name: _title(page, name) for name in names}
    natural = {name: max(map(cell_len, [titles[name], *cells[name]])) for name in names}
    widths = _fit(natural, width)

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, _GAP - 1, 0, 0), show_edge=False)
    for name, size in widths.items():
        kind = column(name).kind
        justify: Any = "left" if kind in TEXTS else "right"
        table.add_column(Text(titles[name]), justify=justify, no_wrap=kind != "prose", width=size)
    for index in range(len(rows)):
        last = bool(page.total) and index == len(rows) - 1
        if last:
            table.add_section()
        texts = (Text(_shortened(cells[name][index], size, name)) for name, size in widths.items())
        table.add_row(*texts, style="bold" if last else _style(rows[index]))

    file = io.StringIO()
    console = Console(
        file=file,
        width=max(width, sum(widths.values()) + _GAP * len(widths)),
        color_system="standard" if color else None,
        force_terminal=color,
        legacy_windows=False,
    )
    for lines, style in (
        (page.warnings, "bold red"),
        ((page.title,) if page.title else (), "bold"),
        (page.notes, "dim"),
    ):
        for line in lines:
            console.print(Text(textwrap.fill(show(line), width), style=style))
    if page.title or page.notes or page.warnings:
        console.print()
    console.print(table)
    left_out = [titles[name] for name in names if name not in widths]
    if left_out:
        note = f"Left out for want of width: {', '.join(left_out)} (csv, md and json have every column)."
        console.print(Text(textwrap.fill(note, width), style="dim"))
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


def _fit(natural: Mapping[str, int], width: int) -> dict[str, int]:
    """The columns that fit beside each other with their widths: texts shrink, then the highest ranks go.

    The first column says what a row is, and goes last.
    """
    kept = dict(natural)
    ranks = {name: column(name).rank if index else 0 for index, name in enumerate(natural)}

    first = next(iter(natural), "")

    def least(name: str) -> int:
        shrunk = max(_LEAST["text"], int(_FIRST * width)) if name == first else _LEAST.get(column(name).kind)
        return natural[name] if shrunk is None else min(natural[name], shrunk)

    def room() -> int:
        return width - sum(least(name) for name in kept) - _GAP * (len(kept) - 1)

    while room() < 0 and any(ranks[name] for name in kept):
        del kept[max(reversed(kept), key=lambda name: ranks[name])]
    spare = max(0, room())
    for name in kept:
        kept[name] = min(natural[name], least(name) + spare)
        spare -= kept[name] - least(name)
    return kept


def _shortened(text: str, size: int, name: str) -> str:
    """A text that fits: of a path the end tells more, of anything else the beginning."""
    kind = column(name).kind
    if len(text) <= size or kind == "prose":
        return text
    return f"…{text[len(text) - size + 1 :]}" if kind == "layer" else f"{text[: size - 1]}…"


def _style(row: Mapping[str, Any]) -> str:
    return "red" if row.get("ok") is False or row.get("counted") == "not all" else ""


def escape(text: str) -> str:
    """A text without the meaning that Markdown and HTML give to some characters, and without line breaks."""
    flat = re.sub(r"\s+", " ", text)
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        flat = flat.replace(character, entity)
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", flat)


def _markdown(page: Page) -> str:
    names = _names(page)
    head = " | ".join(escape(_title(page, name)) for name in names)
    rule = " | ".join("---" if column(name).kind in TEXTS else "---:" for name in names)
    body = [" | ".join(escape(_cell(name, row)) for name in names) for row in _rows(page)]
    above = [f"> **{escape(line)}**" for line in page.warnings]
    above += [f"**{escape(page.title)}**"] if page.title else []
    above += [escape(line) for line in page.notes]
    table = "\n".join(f"| {line} |" for line in (head, rule, *body))
    return "\n\n".join([*above, table]) + "\n"


def _json(page: Page) -> str:
    document = {
        "title": page.title,
        "notes": [*page.warnings, *page.notes],
        "columns": {name: {"title": _title(page, name), "meaning": column(name).meaning} for name in _names(page)},
        "rows": records(page.frame),
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


_RENDERERS: Mapping[str, Callable[[Page], str]] = {
    "table": lambda page: _terminal(page, 120, False),
    "json": _json,
    "csv": lambda page: csv(page.frame),
    "md": _markdown,
}


def _names(page: Page) -> list[str]:
    return [str(name) for name in page.frame.columns]


def _title(page: Page, name: str) -> str:
    return show(page.labels.get(name, column(name).title))


def _rows(page: Page) -> list[dict[str, Any]]:
    """The frame's rows, and the total's below them."""
    rows = records(page.frame)
    return [*rows, {name: page.total.get(name) for name in _names(page)}] if page.total else rows


def _cell(name: str, row: Mapping[str, Any]) -> str:
    """A value as people read it."""
    if name == QUANTITY:
        return show(_quantity(row).title)
    kind = column(name).kind
    return show(row[name], _quantity(row).kind if kind == QUANTITY else kind)


def _quantity(row: Mapping[str, Any]) -> Column:
    return column(str(row[QUANTITY]))
