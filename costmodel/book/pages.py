"""What both renderers need of jinja: the templates of this package, and the sorts of blocks to tell apart."""

from __future__ import annotations

from importlib import resources

import jinja2

from costmodel import view
from costmodel.book.model import Bullets, Figure, Formula, Paragraph, Table

_BLOCKS = {"paragraph": Paragraph, "bullets": Bullets, "formula": Formula, "figure": Figure, "table": Table}


def environment(*, escape: bool) -> jinja2.Environment:
    """A jinja environment that reads our templates; with `escape`, what is not our markup is escaped as HTML."""
    made = jinja2.Environment(
        loader=jinja2.FunctionLoader(template_text),
        autoescape=escape,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    made.filters["grid"] = _grid
    for name, kind in _BLOCKS.items():
        made.tests[name] = lambda block, kind=kind: isinstance(block, kind)
    return made


def _grid(table: Table) -> view.Grid:
    """A table's cells; the columns of a batch say which batch it is."""
    found = view.grid(table.data, typeset=True)
    headings = (f"{column.label}, {column.over}" if column.over else column.label for column in found.columns)
    return found._replace(
        columns=tuple(c._replace(label=label) for c, label in zip(found.columns, headings, strict=True))
    )


def template_text(name: str) -> str:
    """The text of a file in our templates folder."""
    return (resources.files("costmodel.book") / "templates" / name).read_text(encoding="utf-8")
