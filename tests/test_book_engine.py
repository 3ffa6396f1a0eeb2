"""Templates and numbers -> sections: what a template may say, what it may not, and names that are not nice."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jinja2
import pytest

from costmodel import device, networks, view
from costmodel.book import html, markdown
from costmodel.book.chapters.batch import batch
from costmodel.book.engine import Chapter, section
from costmodel.book.model import Bullets, Figure, Formula, Paragraph, Report, Section, Table
from costmodel.book.study import Study

HOSTILE = (
    "<script>alert(1)</script>", "a|b", "`code` **bold** [link](#x)", "# heading", "> answer", "- item", "```text",
    "x (#y)", "two\nlines\n\n# three", "\ue000\ue001table t\ue001", "{{ n.name }}", "∗" * 300, "",
)  # fmt: skip


@dataclass(frozen=True)
class Numbers:
    name: str = "net"
    size_bytes: int = 3 * 1024
    share: float = -0.25


def made(template: str, numbers: object = Numbers(), **blocks: object) -> Section:
    return section(Chapter("made", numbers, **blocks), source=template)  # type: ignore[arg-type]


def test_a_template_becomes_blocks() -> None:
    table, figure = Table("t-file", view.Table.of(["batch"], [(1,)])), Figure("f-file", draw=lambda: None)  # type: ignore[arg-type, return-value]
    found = made(
        """# Title of {{ n.name }} (#here)

> The answer
> goes on.

One paragraph
of two lines.

- first
- second
  goes on

```text
a    b

{{ n.name | pad(6) }}|
```

{{ table("t", batch="how many") }}
**A table.** Its note
goes on.

{{ figure("t") }}
**A figure.**

## Deeper

Text.

### Deepest (#deep)

Text.

## Deeper too

{{ n.size_bytes | iec }} and {{ n.share | percent(0) }}
""",
        tables={"t": table},
        figures={"t": figure},
    )
    assert (found.title, found.link, found.answer) == ("Title of net", "here", "The answer goes on.")
    paragraph, bullets, formula, shown, drawn = found.blocks
    assert paragraph == Paragraph("One paragraph of two lines.")
    assert bullets == Bullets(("first", "second goes on"))
    assert formula == Formula(("a    b", "", "net   |"))
    assert isinstance(shown, Table)
    assert isinstance(drawn, Figure)
    assert (shown.name, shown.title, shown.note) == ("t-file", "A table", "Its note goes on.")
    assert [column.title for column in shown.data.columns] == ["how many"]
    assert (drawn.name, drawn.title, drawn.note) == ("f-file", "A figure", "")
    assert [inner.title for inner in found.walk()] == ["Title of net", "Deeper", "Deepest", "Deeper too"]
    assert found.sections[0].sections[0].link == "deep"
    assert found.sections[1].blocks == (Paragraph("3.00 KiB and −25 %"),)
    assert found.numbers == {"made": Numbers()}


@pytest.mark.parametrize(
    ("template", "error", "message"),
    [
        ("# T\n\n{{ n.size_bytes }}", TypeError, "3072 without saying its unit"),
        ("# T\n\n{{ n.share }}", TypeError, "-0.25 without saying its unit"),
        ("# T\n\n{{ n.share > 0 }}", TypeError, "False without saying its unit"),
        ("# T\n\n{{ n.absent | iec }}", jinja2.UndefinedError, "absent"),
        ("# T\n\n{% if n.absent %}x{% endif %}", jinja2.UndefinedError, "absent"),
        ("# T\n\n{{ n.share | furlongs }}", jinja2.TemplateAssertionError, "furlongs"),
        ("# T\n\n{{ table('u') }}", ValueError, "no table u to place"),
        ("Text.", ValueError, "heading of level 1 is missing"),
        ("# T\n\n### Too deep", ValueError, "heading of level 2 is missing"),
        ("# T\ntext", ValueError, "a heading is one line"),
        ("# T\n\n# U", ValueError, "2 headings"),
        ("", ValueError, "0 headings"),
        ("# T\n\ntext\n\n> late answer", ValueError, "an answer follows its heading"),
        ("# T\n\n```text\nformula", ValueError, "does not end"),
    ],
)
def test_what_a_template_may_not_do(template: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        made(template)


def test_every_table_and_figure_is_placed_once() -> None:
    tables = {"t": Table("t", view.Table.of(["batch"], [(1,)]))}
    with pytest.raises(ValueError, match="does not place table t"):
        made("# T", tables=tables)
    with pytest.raises(ValueError, match="has placed it"):
        made("# T\n\n{{ table('t') }}\n\n{{ table('t') }}", tables=tables)
    with pytest.raises(ValueError, match="has no column weight"):
        made("# T\n\n{{ table('t', weight='w') }}", tables=tables)
    with pytest.raises(ValueError, match="stands alone"):
        made("# T\n\nLook: {{ table('t') }}", tables=tables)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_can_neither_mark_nor_end_anything(name: str) -> None:
    template = """# {{ n.name }}

> {{ n.name }}

{{ n.name }}

{{ n.name | code }}

- {{ n.name }}
- {{ n.name }}

```text
{{ n.name }}
```

{{ table("t", batch=n.name) }}
**{{ n.name }}.** {{ n.name }}
"""
    tables = {"t": Table("t", view.Table.of(["batch"], [(1,)]))}
    found, nice = (made(template, Numbers(each), tables=tables) for each in (name, "nice"))
    assert [type(block) for block in found.blocks] == [type(block) for block in nice.blocks]
    assert found.link == (found.anchor or found.link)
    assert not found.sections
    assert len(found.blocks[2].items) == 2  # type: ignore[union-attr]
    assert len(found.blocks[3].lines) == 1  # type: ignore[union-attr]
    pages = [html.render(Report("x", (), (each,)), {}) for each in (found, nice)]
    assert re.findall(r"<\w+", pages[0]) == re.findall(r"<\w+", pages[1])
    texts = [markdown.render(Report("x", (), (each,))) for each in (found, nice)]
    assert "<script>" not in re.sub("`[^`]*`", "", texts[0])
    assert texts[0].count("\n") == texts[1].count("\n")
    assert not any("\ue000" <= character <= "\uf8ff" for character in texts[0])


def test_filters_say_units() -> None:
    class Many:
        million, small, minus, whole = 1.5e6, 0.00123, -2.0, 1234

    text = made(
        """# T

{{ n.million | si("FLOP") }}; {{ n.small | seconds }}; {{ n.small | joules }}; {{ n.minus | times }};
{{ n.whole | count }}; {{ n.small | ratio }}; {{ n.million | digits }}; {{ n.whole | decimals(1) }};
{{ n.small | percent(2, signed=True) }}; {{ "AlexNet (book)" | short }}; {{ (1, 2) | shape }}
""",
        Many,
    ).blocks[0]
    assert text == Paragraph(
        "1.50 MFLOP; 1.23 ms; 1.23 mJ; −2.00×; 1,234; 0.00123; 1.5e+06; 1,234.0; +0.12 %; AlexNet; 1×2"
    )


def test_words_of_lists_and_numbers() -> None:
    template = """{% import "words.j2" as words %}
# T

{{ words.listed(n.one) }}; {{ words.listed(n.two) }}; {{ words.listed(n.three) }}; {{ words.counted(1, "layer") }};
{{ words.counted(1200, "layer") }}; {{ words.counted(2, "box", "boxes") }}; {{ words.beaten }}
"""
    found = made(template, {"one": ["a"], "two": ["a", "b*"], "three": ["a", "b", "c"]}).blocks[0]
    assert isinstance(found, Paragraph)
    assert found.text.startswith("a; a and b∗; a, b and c; 1 layer; 1,200 layers; 2 boxes; A run that")


def test_a_chapter_in_another_language() -> None:
    chapter = batch([Study.of(networks.find("alexnet"))], device("h200"))
    german = section(chapter, source=(Path(__file__).parent / "book" / "batch.de.md.j2").read_text(encoding="utf-8"))
    text = markdown.render(Report("Bericht", (), (german,)))
    # 1 / 42.37 µs = 23,601 and 178 MiB + B · 11.1 MiB, as in English (tests/test_report_exercises.py)
    assert "sind höchstens 23,601 Bilder je Sekunde möglich" in text
    assert "also das 6.3fache" in text
    assert "Bytes(B) = 178 MiB + B · 11.1 MiB" in text
    assert "| Stapel | bound | Bilder/s |" in text
    assert german.link == "stapel"


def test_no_template_is_without_a_chapter_and_no_chapter_without_a_template() -> None:
    folder = Path(str(resources.files("costmodel.book"))) / "chapters"
    templates = {path.name.removesuffix(".md.j2") for path in folder.rglob("*.md.j2")}
    sources = "".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))
    assert templates == set(re.findall(r"\bChapter\(\s*\"(\w+)\"", sources))
