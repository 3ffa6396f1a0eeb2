"""How any result is shown: one schema of columns, one table, and what writes it for a terminal, a page or a program."""

from __future__ import annotations

from costmodel.view.columns import COLUMNS, Column, column
from costmodel.view.grid import Cell, Grid, Heading, Span, grid
from costmodel.view.html import html_table
from costmodel.view.kinds import BAD, FIELD, GOOD, KINDS, QUANTITY, UNSURE, Kind, is_missing, sentence, show
from costmodel.view.table import TOTAL, Table, share

__all__ = [
    "BAD",
    "COLUMNS",
    "FIELD",
    "GOOD",
    "KINDS",
    "QUANTITY",
    "TOTAL",
    "UNSURE",
    "Cell",
    "Column",
    "Grid",
    "Heading",
    "Kind",
    "Span",
    "Table",
    "column",
    "grid",
    "html_table",
    "is_missing",
    "sentence",
    "share",
    "show",
]
