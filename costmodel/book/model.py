"""What a report is, apart from how it looks: sections of paragraphs, formulas, tables and figures.

One `Report` is rendered by `markdown` and by `html`. Text carries three marks only, `` `code` ``, `**bold**` and a link
to a section, `[text](#anchor)`; everything else in it is literal and each renderer escapes it. A name that comes from a
user's network goes through `code` or `plain`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from costmodel import view

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Some sentences."""

    text: str


@dataclass(frozen=True, slots=True)
class Bullets:
    """Short points, each a sentence or two."""

    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Formula:
    """Lines of arithmetic, set as they are."""

    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A table, and one CSV file."""

    name: str
    """File name without its ending; once in a report."""

    data: view.Table
    title: str = ""
    note: str = ""
    folded: bool = False
    """Whether a page may show it closed: long tables that only some readers want."""


@dataclass(frozen=True, slots=True, eq=False)
class Figure:
    """A picture, drawn when the report is written."""

    name: str
    """File name without its ending; once in a report."""

    draw: Callable[[], Axes]
    title: str = ""
    note: str = ""


Block = Paragraph | Bullets | Formula | Table | Figure


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: tuple[Block, ...]
    sections: tuple[Section, ...] = ()
    answer: str = ""
    """The section in a sentence or two, for a reader who stops there."""

    anchor: str = ""
    """What links to it; made from the title if empty."""

    numbers: Mapping[str, object] = field(default_factory=dict)
    """The numbers that its sentences say, by the chapter that they belong to."""

    @property
    def link(self) -> str:
        """The target of a link to this section."""
        return self.anchor or slug(self.title)

    def walk(self) -> Iterator[Section]:
        """This section and those inside it, in reading order."""
        yield self
        for section in self.sections:
            yield from section.walk()


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """A whole report."""

    title: str
    lead: tuple[str, ...]
    """What the reader came for, in a few lines."""

    sections: tuple[Section, ...]
    footer: str = ""
    own_numbers: Mapping[str, object] = field(default_factory=dict)
    """Those of its title, lead and footer."""

    @property
    def numbers(self) -> Mapping[str, object]:
        """What every chapter's sentences say, by the chapter. Raises ValueError if two have the same name."""
        found = dict(self.own_numbers)
        for section in self.sections:
            for inner in section.walk():
                if twice := found.keys() & inner.numbers.keys():
                    raise ValueError(f"two chapters are called {', '.join(sorted(twice))}: give one a key of its own.")
                found |= inner.numbers
        return found

    @property
    def blocks(self) -> Iterator[Block]:
        """Every block, in reading order."""
        for section in self.sections:
            for inner in section.walk():
                yield from inner.blocks

    @property
    def tables(self) -> tuple[Table, ...]:
        """Every table, in reading order."""
        return tuple(block for block in self.blocks if isinstance(block, Table))

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Every figure, in reading order."""
        return tuple(block for block in self.blocks if isinstance(block, Figure))


class Span(NamedTuple):
    """A piece of text in one style."""

    style: str
    """"text", "code", "bold" or "link"."""

    text: str
    target: str = ""
    """The anchor that a link leads to."""


_MARKS = re.compile(r"`(?P<code>[^`]+)`|\*\*(?P<bold>[^*]+)\*\*|\[(?P<link>[^]]+)\]\(#(?P<target>[a-z0-9-]+)\)")


def spans(text: str) -> Iterator[Span]:
    """`text` cut at its marks.

    >>> [span[:2] for span in spans("a `b` **c**")]
    [('text', 'a '), ('code', 'b'), ('text', ' '), ('bold', 'c')]
    """
    position = 0
    for match in _MARKS.finditer(text):
        if match.start() > position:
            yield Span("text", text[position : match.start()])
        style = next(name for name in ("code", "bold", "link") if match[name] is not None)
        yield Span(style, match[style], match["target"] or "")
        position = match.end()
    if position < len(text):
        yield Span("text", text[position:])


def code(name: str, limit: int = 60) -> str:
    """A name from outside as code: on one line, without the mark itself, shortened where it is very long."""
    flat = " ".join(name.replace("`", "'").split()) or "?"
    return f"`{flat if len(flat) <= limit else flat[: limit - 1] + '…'}`"


def plain(name: str, limit: int = 60) -> str:
    """A name from outside as plain text in a sentence or a heading: marks removed, shortened where it is very long."""
    return code(name.replace("*", "∗").replace("[", "(").replace("]", ")"), limit)[1:-1]


def slug(text: str, limit: int = 60) -> str:
    """A name for files and links: lower-case ASCII letters, digits and hyphens.

    >>> slug("VGG-16 (torchvision)")
    'vgg-16-torchvision'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:limit].rstrip("-") or "x"
