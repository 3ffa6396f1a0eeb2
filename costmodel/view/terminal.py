"""A table for a terminal: no line is longer than its width, texts shrink first, then the least important columns go."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import Any

from costmodel.view.grid import Cell, Grid, Heading, grid
from costmodel.view.kinds import BAD, show
from costmodel.view.table import Table

_GAP = 2
_FIRST, _LEAST = 0.4, 14
"""The share of a line, and the characters, that the first column may take before it is shortened: it says what a row
is."""


def to_terminal(table: Table, width: int = 120, *, color: bool = False) -> str:
    """The table as lines of at most `width` characters, as far as the columns of rank 0 allow; with `color`, with
    escape sequences for colours. Columns that are left out are named below."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as Rich
    from rich.text import Text

    made = grid(table)
    lines = (*made.rows, *([made.total] if made.total else []))
    labels = _labels(made)
    widths = _fit(made, labels, lines, width)
    rich = Rich(box=SIMPLE_HEAD, pad_edge=False, padding=(0, _GAP - 1, 0, 0), show_edge=False)
    for place, size in widths.items():
        heading = made.columns[place]
        justify: Any = "right" if heading.numeric else "left"
        rich.add_column(Text(labels[place]), justify=justify, no_wrap=not heading.kind.wraps, width=size)
    for cells in lines:
        last = cells is made.total
        if last:
            rich.add_section()
        texts = (Text(_shortened(cells[place].text, size, made.columns[place])) for place, size in widths.items())
        bad = any(cell.tone == BAD for cell in cells)
        rich.add_row(*texts, style="bold" if last else "red" if bad else "")

    file = io.StringIO()
    console = Console(
        file=file,
        width=max(width, sum(widths.values()) + _GAP * len(widths)),
        color_system="standard" if color else None,
        force_terminal=color,
        legacy_windows=False,
    )
    around = ((table.warnings, "bold red"), ((table.title,) if table.title else (), "bold"), (table.notes, "dim"))
    for sentences, style in around:
        for sentence in sentences:
            console.print(Text(textwrap.fill(show(sentence), width), style=style))
    if any(sentences for sentences, _ in around):
        console.print()
    console.print(rich)
    left_out = [label.replace("\n", " ") for place, label in enumerate(labels) if place not in widths]
    if left_out:
        note = f"Columns left out to fit the terminal: {', '.join(left_out)}; csv, md and json have them all."
        console.print(Text(textwrap.fill(note, width), style="dim"))
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


def _labels(made: Grid) -> list[str]:
    """The headings; what spans several stands in a line above each."""
    return [f"{heading.over}\n{heading.label}" if heading.over else heading.label for heading in made.columns]


def _fit(made: Grid, labels: Sequence[str], lines: Sequence[Sequence[Cell]], width: int) -> dict[int, int]:
    """The columns that fit beside each other, by their places, with their widths.

    The first column says what a row is, and goes last.
    """
    from rich.cells import cell_len

    def size(place: int) -> int:
        texts = [*labels[place].split("\n"), *(cells[place].text for cells in lines)]
        return max(map(cell_len, texts))

    natural = {place: size(place) for place in range(len(labels))}
    ranks = {place: heading.column.rank if place else 0 for place, heading in enumerate(made.columns)}
    kept = dict(natural)

    def least(place: int) -> int:
        shrunk = made.columns[place].kind.least if place else max(_LEAST, int(_FIRST * width))
        return min(natural[place], shrunk or natural[place])

    def room() -> int:
        return width - sum(map(least, kept)) - _GAP * (len(kept) - 1)

    while room() < 0 and any(ranks[place] for place in kept):
        del kept[max(reversed(kept), key=lambda place: ranks[place])]
    spare = max(0, room())
    for place in kept:
        kept[place] = min(natural[place], least(place) + spare)
        spare -= kept[place] - least(place)
    return kept


def _shortened(text: str, size: int, heading: Heading) -> str:
    """A text that fits: of a path the end says more, of anything else the beginning."""
    if len(text) <= size or heading.kind.wraps:
        return text
    return f"…{text[len(text) - size + 1 :]}" if heading.column.kind == "layer" else f"{text[: size - 1]}…"
