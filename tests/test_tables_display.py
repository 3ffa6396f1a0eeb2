"""Values as text: base units in, human units out, and nothing that steers what reads it."""

from __future__ import annotations

import math
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.display import KINDS, TEXTS, html_table, show
from costmodel.errors import InputError
from costmodel.report.columns import COLUMNS, QUANTITY, column


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (46_764_746, "count", "46,764,746"),
        (0.5, "count", "0.5"),
        (2 * 1024**2, "bytes", "2.00 MiB"),
        (938_146_176, "macs", "938 M"),
        (1_878_374_922, "flops", "1.88 G"),
        (0.00123, "seconds", "1.23 ms"),
        (494.7e12, "flops_per_second", "495 TFLOP/s"),
        (4.8e12, "bytes_per_second", "4.80 TB/s"),
        (0, "ratio", "0"),
        (0.0123, "ratio", "0.0123"),
        (5.0, "ratio", "5.00"),
        (99.96, "ratio", "100"),
        (12345.6, "ratio", "12,346"),
        (math.inf, "ratio", "inf"),
        (2.754, "times", "2.75x"),
        (0.9613, "percent", "96.1 %"),
        ((1, 96, 54, 54), "shape", "1x96x54x54"),
        ([2, 8], "shape", "2x8"),
        (True, "flag", "yes"),
        (False, "flag", "no"),
        ("", "layer", "(network)"),
        ("a\x1b[31m\nb", "text", "a\ufffd[31m\ufffdb"),
        (None, "count", ""),
        (math.nan, "seconds", ""),
    ],
)
def test_values_are_written_by_their_kind(value: Any, kind: str, text: str) -> None:
    assert show(value, kind) == text


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InputError, match="unknown kind of column 'furlongs'"):
        show(1, "furlongs")


@given(st.text())
def test_a_text_takes_one_line(text: str) -> None:
    assert all(show(text, kind).isprintable() for kind in ("text", "term", "prose", "layer"))


def test_every_column_has_a_kind_and_a_meaning() -> None:
    for name, each in COLUMNS.items():
        assert each.kind in {*KINDS, QUANTITY}, name
        assert each.title and each.meaning, name
        assert not (each.adds and each.kind in TEXTS), name
    assert column("of_my_own") == ("of my own", "text", "", 1, False)


class Cells(HTMLParser):
    """The tags of a page, and the text and raw value of each cell."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.cells: list[list[str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag in ("td", "th"):
            self.cells.append(["", dict(attrs).get("data-sort")])

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1][0] = f"{self.cells[-1][0]}{data}"


def test_html_has_human_text_and_raw_values() -> None:
    page = html_table(
        "a <b> & c", [("layer", "layer"), ("size", "bytes")], [("x", 2048), ("", None)], ("total", 2048), ["a < b"]
    )
    assert "<caption>a &lt;b&gt; &amp; c</caption>" in page
    assert "<small>a &lt; b</small>" in page
    cells = Cells(page.partition("<div>")[0]).cells
    assert cells[:2] == [["layer", None], ["size", None]]
    assert cells[2:6] == [["x", None], ["2.00 KiB", "2048"], ["(network)", None], ["", None]]
    assert cells[6:] == [["total", None], ["2.00 KiB", "2048"]]


@given(st.text())
def test_html_is_the_same_whatever_the_name(name: str) -> None:
    page = html_table(name, [(name, "text")], [(name,)], (name,), [name])
    assert Cells(page).tags == {"table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td", "div", "small"}


def test_a_row_has_a_value_for_each_column() -> None:
    with pytest.raises(ValueError, match="longer"):
        html_table("", [("a", "text"), ("b", "text")], [("only one",)])
