"""One report model, two renderers: what is in a name stays text, and a page loads nothing."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from costmodel.book import html, markdown
from costmodel.book.model import (
    Bullets,
    Figure,
    Formula,
    Paragraph,
    Report,
    Section,
    Table,
    code,
    plain,
    slug,
    spans,
)
from costmodel.view import Column
from costmodel.view import Table as Data

HOSTILE = [
    "<b>bold</b>",
    "</script><script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>",
    "a | b || c",
    "`tick` **star** [link](#x) \\ _under_",
    '" onmouseover="alert(1)',
    "{{ 7 * 7 }} {% raw %}",
    "two\nlines\r\tand a tab",
    "x" * 200,
    "",
]
VOID = {"meta", "link", "img", "br", "hr", "input"}

SVG = """<?xml version="1.0"?><!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/svg11.dtd">
<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="10pt" viewBox="0 0 10 10">
<metadata><rdf:RDF xmlns:cc="http://creativecommons.org/ns#"/></metadata>
<defs><path id="glyph" d="M 0.12345 1.5 L 2 3.98765"/></defs>
<use xlink:href="#glyph" transform="scale(0.015625)"/><g clip-path="url(#clip)"/></svg>"""


class Tags(HTMLParser):
    """Every tag, and that each closes what was opened last."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def report(name: str) -> Report:
    """A report that has `name` wherever a network's, layer's or device's name can get to."""
    columns = ("layer", Column("type", name, "name", "its class"), "flops", "note")
    data = Data.of(columns, [(name, name, 1234567, name), ("fc", "Linear", None, "a note")])
    blocks = (
        Paragraph(f"About {code(name)} and {plain(name)}."),
        Bullets((code(name), plain(name))),
        Formula((plain(name), "1 < 2 & 3")),
        Table("t", data, title=name, note=name),
        Table("folded", data.summed(), title=plain(name), folded=True),
        Figure("f", title=plain(name), draw=lambda: pytest.fail("renderers draw nothing")),
    )
    inner = Section(plain(name), blocks, answer=code(name), anchor="inner")
    return Report(
        plain(name), (f"**In short** {plain(name)}, [see](#inner).",), (Section("Outer", (), (inner,)),), name
    )


def rendered(name: str) -> str:
    return html.render(report(name), {"f": SVG})


@pytest.mark.parametrize("name", HOSTILE)
def test_html_has_the_same_tags_whatever_the_names(name: str) -> None:
    tags, plain_tags = Tags(), Tags()
    tags.feed(rendered(name))
    plain_tags.feed(rendered("conv"))
    assert tags.open == []

    def shape(parser: Tags) -> list[tuple[str, list[str]]]:  # marks in a title may add a <strong>, a <code>, a link
        return [(tag, sorted(attrs)) for tag, attrs in parser.found if tag not in ("code", "strong", "a")]

    assert shape(tags) == shape(plain_tags)


@pytest.mark.parametrize("name", HOSTILE)
def test_html_keeps_the_text_of_a_name(name: str) -> None:
    class Text(HTMLParser):
        text = ""

        def handle_data(self, data: str) -> None:
            self.text += data

    page = Text()
    page.feed(rendered(name))
    shown = " ".join(name.split()) or "(network)"
    assert shown in " ".join(page.text.split())


def test_html_loads_nothing() -> None:
    page = Tags()
    text = rendered("conv")
    page.feed(text)
    for tag, attributes in page.found:
        assert tag not in ("link", "img", "iframe", "object", "base"), tag
        assert not attributes.keys() & {"src", "srcset", "action", "data", "background", "poster"}
        for key in ("href", "xlink:href"):
            target = attributes.get(key) or "#"
            assert target.startswith(("#", "figures/", "tables/")), target
    assert "@import" not in text
    assert set(re.findall(r"url\((.)", text)) == {"#"}


def test_svg_pictures_have_ids_of_their_own() -> None:
    text = rendered("conv")
    assert 'id="f-glyph"' in text
    assert 'href="#f-glyph"' in text
    assert "url(#f-clip)" in text
    assert "<!DOCTYPE svg" not in text
    assert "metadata" not in text
    assert 'd="M 0.12 1.5 L 2 3.98"' in text  # shapes to a hundredth, scales as they are
    assert "scale(0.015625)" in text


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_tables_keep_their_columns(name: str) -> None:
    text = markdown.render(report(name))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 * (1 + 1 + 2) + 1  # two tables: a heading, a rule and two rows each, and one total
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {5}


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_has_no_markup_from_a_name(name: str) -> None:
    text = re.sub(r"```text.*?```", "", markdown.render(report(name)), flags=re.DOTALL)
    outside_code = re.sub(r"`[^`\n]*`", "", text)
    assert re.findall(r"<(?!a id=|/a>)\w+", outside_code) == ([] if "|" not in name else ["<code"] * 3)


def test_markdown_and_html_say_the_same() -> None:
    text, page = markdown.render(report("conv")), rendered("conv")
    for part in ("About `conv` and conv.", "**In short** conv, [see](#inner).", "> `conv`", "[CSV](tables/t.csv)"):
        assert part in text
    for part in ("About <code>conv</code> and conv.", '<a href="#inner">see</a>', 'href="tables/t.csv"'):
        assert part in page
    assert "1.23 M" in text
    assert 'data-sort="1234567">1.23 M<' in page


def test_numbers_do_not_part_from_their_units() -> None:
    assert html.inline("takes 42.4 µs, 19.1 % of 178 MiB") == (
        "takes 42.4\N{NO-BREAK SPACE}µs, 19.1\N{NO-BREAK SPACE}% of 178\N{NO-BREAK SPACE}MiB"
    )


def test_spans_and_names() -> None:
    assert [span.style for span in spans("a `b` **c** [d](#e) f")] == [
        "text",
        "code",
        "text",
        "bold",
        "text",
        "link",
        "text",
    ]
    assert code("a`b\nc") == "`a'b c`"
    assert code("") == "`?`"
    assert len(code("x" * 200)) == 62
    assert [span.style for span in spans(plain("**a** `b` [c](#d)"))] == ["text"]
    assert slug("VGG-16 (torchvision)") == "vgg-16-torchvision"
    assert slug("<>|") == "x"
