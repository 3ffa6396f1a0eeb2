"""Tables: one schema of columns, base units for programs, human units for people, and nothing that steers."""

from __future__ import annotations

import csv
import io
import math
import subprocess
import sys
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.errors import InputError
from costmodel.view import COLUMNS, FIELD, KINDS, QUANTITY, Column, Span, Table, column, grid, html_table, show

SPREAD = Table.of(
    ("layer", "parameters", "batch", "bound_seconds", "flops", "flops_per_second"),
    [
        ("a", 5, 1, 0.1, 100, 1000.0),
        ("b", 7, 1, 0.2, 5, 25.0),
        ("a", 5, 64, 0.3, 6400, 21333.0),
        ("b", 7, 64, 0.4, 320, 800.0),
    ],
    across="batch",
)


def test_every_column_is_whole() -> None:
    for name, each in COLUMNS.items():
        assert each.name == name
        assert each.kind in KINDS, name
        assert each.title and each.meaning, name
        assert KINDS[each.kind].numeric or not each.adds, name
        assert each.of is None or set(each.of) <= set(COLUMNS), name


def test_no_name_stands_twice_and_none_holds_a_batch() -> None:
    from costmodel.view.columns import _COLUMNS

    assert len(COLUMNS) == len(_COLUMNS)
    assert not [name for name in COLUMNS if "_batch_" in name]


def test_an_unknown_column_is_refused() -> None:
    with pytest.raises(InputError, match="no column is called 'flop'"):
        Table.of(("layer", "flop"), [("a", 1)])
    with pytest.raises(InputError, match="no column 'flop'"):
        SPREAD["flop"]


def test_a_row_has_a_value_for_each_column() -> None:
    with pytest.raises(InputError, match=r"2 columns \(layer, flops\), 1 values in a row"):
        Table.of(("layer", "flops"), [("a",)])


def test_names_are_the_same_everywhere() -> None:
    assert SPREAD.names == tuple(SPREAD.to_frame().columns) == tuple(SPREAD.records()[0])
    assert SPREAD.csv().splitlines()[0] == ",".join(SPREAD.names)
    assert SPREAD.csv().splitlines()[3] == "a,5,64,0.3,6400,21333.0"  # tidy: the batch is a value


def test_a_page_spreads_what_stands_across() -> None:
    made = grid(SPREAD.summed())
    assert made.spans == (Span("", 2), Span("batch 1", 3), Span("batch 64", 3))
    assert [heading.label for heading in made.columns] == ["layer", "parameters", *("bound", "FLOPs", "rate") * 2]
    assert [[cell.text for cell in row] for row in made.rows] == [
        ["a", "5", "100 ms", "100", "1.00 kFLOP/s", "300 ms", "6.40 k", "21.3 kFLOP/s"],
        ["b", "7", "200 ms", "5", "25 FLOP/s", "400 ms", "320", "800 FLOP/s"],
    ]
    assert made.total is not None  # 105 FLOPs in 300 ms are 350 a second, 6,720 in 700 ms 9,600
    assert [cell.text for cell in made.total] == [
        *("total", "12"), *("300 ms", "105", "350 FLOP/s"), *("700 ms", "6.72 k", "9.60 kFLOP/s"),
    ]  # fmt: skip


def test_a_row_without_a_batch_has_empty_cells() -> None:
    table = Table.of(("layer", "batch", "flops"), [("a", 1, 2), ("b", 64, 3)], across="batch")
    assert [[cell.text for cell in row] for row in grid(table).rows] == [["a", "2", ""], ["b", "", "3"]]


def test_totals_add_what_adds_up() -> None:
    table = Table.of(
        ("layer", "kind", "read_bytes", "write_bytes", "flops", "arithmetic_intensity", "utilisation"),
        [("a", "conv", 2**62, 8, 100, 3.0, 0.5), ("b", "norm", None, 0, 2**62, 4.0, 0.6)],
    )
    total = table.summed().total
    assert total is not None
    assert set(total) == {"layer", "read_bytes", "write_bytes", "flops", "arithmetic_intensity"}
    assert total["layer"] == "total"
    assert total["read_bytes"] == 2**62  # whole numbers exactly
    assert total["arithmetic_intensity"] == (100 + 2**62) / (2**62 + 8)  # of the sums, not the sum
    assert Table.of(("layer", "kind"), [("a", "conv")]).summed().total is None


@given(st.lists(st.integers(-(2**70), 2**70), min_size=1))
def test_sums_of_whole_numbers_are_exact(numbers: list[int]) -> None:
    total = Table.of(("layer", "flops"), [("a", number) for number in numbers]).summed().total
    assert total == {"layer": "total", "flops": sum(numbers)}


def test_frames_keep_whole_numbers_whole() -> None:
    frame = Table.of(
        ("layer", "flops", "l2_bytes", "bound_seconds", "shape"),
        [("a", 1, None, 0.5, (1, 2)), ("b", 2, 2**60 + 1, None, None)],
    ).to_frame()
    assert frame["flops"].dtype == "int64"
    assert frame["l2_bytes"][1] == 2**60 + 1  # a float would lose the 1
    assert math.isnan(frame["bound_seconds"][1])
    assert frame["shape"][0] == (1, 2)


def test_a_frame_s_columns_are_shared_and_come_out_plain() -> None:
    seconds = np.array([0.5, np.nan])
    frame = pd.DataFrame(
        {"dataflow": pd.Categorical(["a,b", "c"]), "macs": np.array([1, 2]), "bound_seconds": seconds}, index=[7, 9]
    )
    table = Table.from_frame(frame)
    assert table.records() == [
        {"dataflow": "a,b", "macs": 1, "bound_seconds": 0.5},
        {"dataflow": "c", "macs": 2, "bound_seconds": None},
    ]
    assert [type(value) for value in table.records()[0].values()] == [str, int, float]
    assert table.csv() == 'dataflow,macs,bound_seconds\n"a,b",1,0.5\nc,2,\n'
    assert np.shares_memory(table["bound_seconds"].to_numpy(), frame["bound_seconds"].to_numpy())
    assert len(table.to_frame()) == 2


@given(st.lists(st.text(), min_size=1))
def test_csv_reads_back(names: list[str]) -> None:
    text = Table.of(("layer", "macs"), [(name, 1) for name in names]).csv()
    assert [row["layer"] for row in csv.DictReader(io.StringIO(text, newline=""))] == names


def test_people_do_not_see_columns_without_any_value() -> None:
    rows = [("", None, "", True, ""), ("", math.nan, "", None, "")]
    table = Table.of(("kind", "noise", "failure", "ok", "layer"), rows)
    assert [heading.label for heading in grid(table).columns] == ["kind", "ok", "layer"]
    assert table.csv().splitlines()[0] == "kind,noise,failure,ok,layer"
    assert len(grid(Table.of(("kind", "noise"), [])).columns) == 2


def test_a_small_table_needs_neither_pandas_nor_numpy() -> None:
    code = (
        "import sys; from costmodel.view import Table, grid\n"
        "table = Table.of(('layer', 'macs'), [('a', 1)]).summed(); table.csv(), table.records(), grid(table)\n"
        "table._repr_html_()\n"
        "print(*{'pandas', 'numpy', 'rich', 'jinja2', 'torch'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


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
    assert all(show(text, kind).isprintable() for kind in ("text", "name", "term", "prose", "layer", "verdict"))


def test_cells_of_a_page() -> None:
    table = Table.of(
        (
            "layer",
            "output_shape",
            "parameters",
            "peak_bytes",
            "held_share",
            "speedup",
            "verdict",
            "explanation",
            "date",
        ),
        [("conv", (1, 96, 54), 11_712, 1024, -1e-9, 2.0, "holds", "rounded (-188,480) on 2017-08", "2023-11")],
        total={"layer": "total", "peak_bytes": -2048, "verdict": "refuted"},
    )
    made = grid(table, typeset=True)
    assert [heading.numeric for heading in made.columns] == [False, False, True, True, True, True, False, False, False]
    (cells,) = made.rows
    assert [cell.text for cell in cells] == [
        *("conv", "1×96×54", "11,712", "1.00 KiB", "0.0 %", "2.00×", "holds"),  # and not "-0.0 %"
        *("rounded (−188,480) on 2017-08", "2023-11"),  # a minus is a minus, and a date stays one
    ]
    assert [cell.sort for cell in cells] == [None, None, 11712, 1024, 0.0, 2.0, None, None, None]
    assert [cell.css for cell in cells] == ["", "", "n", "n", "n", "n", "good", "w", "f"]
    assert made.total is not None
    assert (made.total[3].text, made.total[6].tone) == ("−2.00 KiB", "bad")
    assert made.total[2] == ("", None, "", "n")


def test_what_a_value_is_may_depend_on_its_row() -> None:
    # an H200's datasheet: 4.8 TB/s, FP8 at 1,978.9 TFLOP/s
    values = {"memory_bandwidth": 4_800_000_000_000, "fp8": 1_978_900_000_000_000, "memory_bytes": 2**34, "units": 132}
    assert (COLUMNS["quantity"].kind, COLUMNS["value"].kind) == (FIELD, QUANTITY)
    made = grid(Table.of(("quantity", "value"), values.items()))
    assert [(name.text, value.text, value.sort) for name, value in made.rows] == [
        ("bandwidth", "4.80 TB/s", 4_800_000_000_000),
        ("FP8", "1.98 PFLOP/s", 1_978_900_000_000_000),
        ("memory", "16.0 GiB", 2**34),
        ("multiprocessors or cores", "132", 132),
    ]


def test_a_column_may_be_one_s_own_and_have_another_title() -> None:
    own = Column("speed_of_light", "c", "ratio", "metres a second")
    made = grid(Table.of((column("layer", title="where"), own), [("here", 299_792_458)]))
    assert [heading.label for heading in made.columns] == ["where", "c"]


class Cells(HTMLParser):
    """The tags of a page, and the text and raw value of each cell."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[list[str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag in ("td", "th"):
            self.cells.append(["", dict(attrs).get("data-sort")])

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1][0] = f"{self.cells[-1][0]}{data}"


def test_html_has_human_text_and_raw_values() -> None:
    page = html_table(
        Table.of(
            (column("layer"), column("peak_bytes", title="size")),
            [("x", 2048), ("", None)],
            title="a <b> & c",
            notes=("a < b",),
            total={"layer": "total", "peak_bytes": 2048},
        )
    )
    assert "<caption>a &lt;b&gt; &amp; c</caption>" in page
    assert "<small>a &lt; b</small>" in page
    assert Cells(page.partition("<div>")[0]).cells == [
        *(["layer", None], ["size", None]),
        *(["x", None], ["2.00 KiB", "2048"], ["(network)", None], ["", None]),
        *(["total", None], ["2.00 KiB", "2048"]),
    ]


@given(st.text(min_size=1))  # what no row says has no column
def test_html_is_the_same_whatever_the_name(name: str) -> None:
    def page(name: str) -> list[str]:
        columns = (column("layer", title=name), "type", "shape")
        around = {"title": name, "notes": (name,), "warnings": (name,), "total": {"layer": name}}
        return Cells(html_table(Table.of(columns, [(name, name, name)], **around))).tags

    assert page(name) == page("conv")


def test_a_long_table_is_folded() -> None:
    rows = [(str(index), index) for index in range(51)]
    assert html_table(Table.of(("layer", "macs"), rows, title="T")).startswith("<details><summary>T, 51 rows</summary>")
    assert "details" not in html_table(Table.of(("layer", "macs"), rows[:50], title="T"))
