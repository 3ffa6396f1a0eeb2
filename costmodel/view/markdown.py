"""A table as Markdown: every column, in human units, with nothing in a name taken for markup."""

from __future__ import annotations

import re
from collections.abc import Iterable

from costmodel.view.grid import grid
from costmodel.view.kinds import show
from costmodel.view.table import Table


def to_markdown(table: Table) -> str:
    """The table as Markdown, with its warnings, title and notes above it."""
    made = grid(table)
    heads = [f"{heading.label}, {heading.over}" if heading.over else heading.label for heading in made.columns]
    rule = ("---:" if heading.numeric else "---" for heading in made.columns)
    lines = (*made.rows, *([made.total] if made.total else []))
    body = [_line(map(escape, heads)), _line(rule), *(_line(escape(cell.text) for cell in cells) for cells in lines)]
    above = [f"> **{escape(show(line))}**" for line in table.warnings]
    above += [f"**{escape(show(table.title))}**"] if table.title else []
    above += [escape(show(line)) for line in table.notes]
    return "\n\n".join([*above, "\n".join(body)]) + "\n"


def escape(text: str) -> str:
    """A text without the meaning that Markdown and HTML give to some characters, and without line breaks."""
    flat = re.sub(r"\s+", " ", text)
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        flat = flat.replace(character, entity)
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", flat)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
