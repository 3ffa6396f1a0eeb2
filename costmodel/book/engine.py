"""A chapter's numbers and its Markdown template -> a section of the report.

A template is Markdown with jinja. It knows `n`, the chapter's numbers, and places each of the chapter's tables and
figures once, as a paragraph of its own whose first bold words are the title and whose other words are the note:

    # What does the batch do to {{ n.network }}'s throughput? (#batch)

    > At batch 1 it is {{ n.images_per_second | count }} images a second.

    {{ table("batch", peak_bytes="peak") }}
    **Batch against throughput.** Throughput is what the bound allows.

Below the heading (its anchor in brackets) may follow an answer (`>`), paragraphs, bullets (`-`), formulas (between
```text and ```), tables, figures and deeper headings. In a text, `` `code` ``, `**bold**` and `[text](#anchor)` are
marks. A number is written by a filter that says its unit (see `FILTERS`). It is an error to write one without a filter,
to use a name that does not exist, and to leave out a table or a figure. Every other text is a name from outside: it is
escaped, and can neither mark nor end anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from jinja2 import StrictUndefined
from markupsafe import Markup

from costmodel.book.model import Block, Bullets, Figure, Formula, Paragraph, Section, Table, code, plain
from costmodel.units import iec, joules, percent, seconds, si
from costmodel.view import show

_EDGE, _PLACE = "\ue000", "\ue001"
"""Private characters: around a text from outside, so that no line begins or ends with it; and around a block's name."""


@dataclass(frozen=True, eq=False)
class Chapter:
    """What a template is filled with."""

    name: str
    """The template is chapters/NAME.md.j2."""

    numbers: Any
    """A frozen dataclass of raw values in base units, named with their units; `None` is a number that is not known."""

    tables: Mapping[str, Table] = field(default_factory=dict)
    """By the names that the template places them by."""

    figures: Mapping[str, Figure] = field(default_factory=dict)

    key: str = ""
    """What its numbers are called in numbers.json, where one template serves for several chapters; else the name."""


def section(
    chapter: Chapter, sections: Iterable[Section] = (), source: str | None = None, **parts: Sequence[Section]
) -> Section:
    """The chapter in words: its own template, or `source`, filled with its numbers; `sections` follow at its end.

    `parts` are sections of which the template repeats the titles and answers, under the names that they have here.

    Raises jinja2.TemplateError for a template that does not fit the numbers, ValueError for one that is malformed, and
    TypeError for a number without a filter.
    """
    waiting: dict[str, Any] = {f"table {name}": block for name, block in chapter.tables.items()}
    waiting |= {f"figure {name}": block for name, block in chapter.figures.items()}
    placed: dict[str, Table | Figure] = {}

    def place(kind: str, name: str, **labels: str) -> Markup:
        if (mark := f"{kind} {name}") not in waiting:
            raise ValueError(f"{chapter.name} has no {mark} to place, or has placed it: {', '.join(waiting)} are left.")
        placed[mark] = _labelled(waiting.pop(mark), labels) if labels else waiting.pop(mark)
        return Markup(f"{_PLACE}{mark}{_PLACE}")

    if source is None:
        template = _environment().get_template(f"{chapter.name}.md.j2")
    else:
        template = _environment().from_string(source)
    text = template.render(
        n=chapter.numbers,
        table=lambda name, **labels: place("table", name, **labels),
        figure=lambda name: place("figure", name),
        **{name: [_repeated(each) for each in found] for name, found in parts.items()},
    )
    if waiting:
        raise ValueError(f"the template of {chapter.name} does not place {', '.join(waiting)}.")
    whole = _sections(list(_paragraphs(text)), placed, 1)
    if len(whole) != 1:
        raise ValueError(f"the template of {chapter.name} begins with {len(whole)} headings of the first level, not 1.")
    numbers = {chapter.key or chapter.name: chapter.numbers}
    return replace(whole[0], sections=(*whole[0].sections, *sections), numbers=numbers)


def _repeated(said: Section) -> Mapping[str, Markup]:
    """A section's title, answer and link for another template, which writes them as they are."""
    return {"title": Markup(said.title), "answer": Markup(said.answer), "link": Markup(said.link)}


def _labelled(table: Table, labels: Mapping[str, str]) -> Table:
    """The table with other titles above some of its columns. Raises ValueError for a column that it does not have."""
    if absent := labels.keys() - set(table.data.names):
        raise ValueError(f"table {table.name} has no column {', '.join(sorted(absent))}.")
    titles = {name: _joined([_text(label)]) for name, label in labels.items()}
    columns = tuple(column._replace(title=titles.get(column.name, column.title)) for column in table.data.columns)
    return replace(table, data=table.data.around(columns=columns))


# what a template writes


def _text(value: Any) -> Markup:
    """What `{{ value }}` writes: our own text as it is, any other escaped; a bare number is an error."""
    if isinstance(value, (Markup, StrictUndefined)):
        return Markup(value)
    if isinstance(value, str):
        return _outside(plain(value, 200))
    raise TypeError(f"a template writes {value!r} without saying its unit: add a filter, as in {{{{ x | count }}}}.")


def _outside(text: str) -> Markup:
    return Markup(f"{_EDGE}{text.translate({ord(_EDGE): None, ord(_PLACE): None})}{_EDGE}")


def _written(write: Callable[..., str]) -> Callable[..., Markup]:
    """A filter that writes a number with the signs of the page: − for a minus, × for times."""

    def written(value: Any, *options: Any, signed: bool = False) -> Markup:
        text = write(value, *options)
        return Markup(("+" if signed and value > 0 else "") + text.replace("-", "−", 1 if text[0] == "-" else 0))

    return written


def _pad(value: Any, width: int) -> Markup:
    """A text filled up with blanks on its right, for columns in a formula."""
    text = _text(value)
    return text + " " * (width - len(text.replace(_EDGE, "")))


FILTERS: Mapping[str, Callable[..., Markup]] = {
    "count": _written(lambda value: f"{value:,.0f}"),
    "iec": _written(iec),
    "si": _written(si),
    "seconds": _written(seconds),
    "joules": _written(joules),
    "percent": _written(percent),
    "times": _written(lambda value: show(value, "times").replace("x", "×")),
    "ratio": _written(lambda value: show(value, "ratio")),
    "digits": _written(lambda value, digits=3: f"{value:.{digits}g}"),
    "decimals": _written(lambda value, digits=2: f"{value:,.{digits}f}"),
    "code": lambda value, limit=60: _outside(code(value, limit)),
    "plain": _written(lambda value: f"{value:g}"),
    "long": lambda value: _outside(plain(value, 1000)),
    "pad": _pad,
    "short": lambda title: _text(title.partition(" (")[0]),
    "shape": lambda sizes: Markup("×".join(f"{size}" for size in sizes)),
}
"""count: 1,024; iec: bytes; si("FLOP"), seconds, joules; percent(digits): of a share; times: 2.87×; ratio: three
digits; digits(n), decimals(n); plain: as it is; code: a name as code; long: sentences from outside; pad(width): blanks
behind a text; short: a title without its brackets; shape: 1×224×224."""


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(
            lambda name: (resources.files("costmodel.book") / "chapters" / name).read_text(encoding="utf-8")
        ),
        autoescape=True,  # so that what a macro writes is Markup, which `_text` lets pass
        finalize=_text,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    return environment


# what a template wrote


def _paragraphs(text: str) -> Iterator[tuple[str, ...]]:
    """The lines that stand together; a formula is one paragraph with its blank lines, and begins with its fence."""
    lines: list[str] = []
    fenced = False
    for line in [*text.split("\n"), ""]:
        fence = line.startswith("```")
        closes = fence and fenced
        if closes or (lines and not fenced and (fence or not line.strip())):
            yield tuple(lines)
            lines = []
        fenced = fence != fenced
        if not closes and (fenced or line.strip()):
            lines.append(line)
    if fenced:
        raise ValueError(f"a formula does not end: {lines[:2]}.")


_HEADING = re.compile(r"(?P<level>#+) (?P<title>.+?)(?: \(#(?P<anchor>[a-z0-9\ue000-]+)\))?")


def _sections(paragraphs: Sequence[tuple[str, ...]], placed: Mapping[str, Table | Figure], level: int) -> list[Section]:
    """The sections of a level, each with those below it; only headings may stand before the first."""
    starts = [index for index, lines in enumerate(paragraphs) if lines[0].startswith("#" * level + " ")]
    if not paragraphs:
        return []
    if starts[:1] != [0]:
        raise ValueError(f"a heading of level {level} is missing before {paragraphs[0][0]!r}.")
    found = []
    for start, end in zip(starts, [*starts[1:], len(paragraphs)], strict=True):
        (line, *rest), body = paragraphs[start], list(paragraphs[start + 1 : end])
        heading = _HEADING.fullmatch(line)
        if rest or heading is None:
            raise ValueError(f"a heading is one line with a blank one below it: {paragraphs[start]}.")
        answer = _joined(line.removeprefix(">") for line in body.pop(0)) if body and body[0][0][0] == ">" else ""
        deeper = next((index for index, lines in enumerate(body) if lines[0][0] == "#"), len(body))
        found.append(
            Section(
                _joined([heading["title"]]),
                tuple(_block(lines, placed) for lines in body[:deeper]),
                tuple(_sections(body[deeper:], placed, level + 1)),
                answer=answer,
                anchor=(heading["anchor"] or "").replace(_EDGE, ""),
            )
        )
    return found


def _block(lines: tuple[str, ...], placed: Mapping[str, Table | Figure]) -> Block:
    """What a paragraph is by how it begins."""
    first = lines[0]
    if first.startswith("```"):
        return Formula(tuple(line.replace(_EDGE, "").rstrip() for line in lines[1:]))
    if first.startswith("- "):
        return Bullets(tuple(_items(lines)))
    if first.startswith(_PLACE):
        block = placed[first.strip(_PLACE)]
        title, note = _CAPTION.fullmatch(_joined(lines[1:])).groups()  # type: ignore[union-attr]
        return replace(block, title=title or "", note=note)
    if first[0] in ">#" or any(_PLACE in line for line in lines):
        raise ValueError(f"an answer follows its heading, and a table, a figure or a heading stands alone: {first!r}.")
    return Paragraph(_joined(lines))


_CAPTION = re.compile(r"(?:\*\*(.+?)\.?\*\* ?)?(.*)")


def _items(lines: Iterable[str]) -> Iterator[str]:
    item: list[str] = []
    for line in lines:
        if line.startswith("- ") and item:
            yield _joined(item)
            item = []
        item.append(line.removeprefix("- "))
    yield _joined(item)


def _joined(lines: Iterable[str]) -> str:
    """Lines as one, with single blanks, without the edges of what came from outside."""
    return " ".join(" ".join(lines).split()).replace(_EDGE, "")
