"""Results as tables, as text and as documents, on a network whose numbers are worked out by hand.

Conv2d(1, 2, 3) on 1x1x4x4   20 parameters = (3²·1+1)·2; 8 outputs of 9 MACs: 72; 2*72 + 8 = 152 FLOPs;
                             reads 4*(16 + 18 + 2) = 144 bytes, writes 4*8 = 32
ReLU on 8 elements           8 FLOPs; reads 32 bytes, writes 32
Flatten                      a view
Linear(8, 3)                 27 parameters = (8+1)·3; 24 MACs; 2*24 + 3 = 51 FLOPs;
                             reads 4*(8 + 24 + 3) = 140 bytes, writes 12
together                     47 parameters, 96 MACs, 211 FLOPs, 316 bytes read, 76 written
alive at once                parameters 188, input 64, and at the ReLU its input 32 and output 32: 316 bytes
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from torch import nn

from costmodel.cli import documents
from costmodel.cli.notes import caption, verdict
from costmodel.compare import compare_table, parts_table
from costmodel.cost import Costs, count
from costmodel.devices import Device
from costmodel.memory import memory_timeline
from costmodel.roofline import Prediction, predict
from costmodel.tracer import trace
from costmodel.validation import TOTAL, ComparisonRow, Validation
from costmodel.view import Table, column
from costmodel.view.markdown import to_markdown
from costmodel.view.terminal import to_terminal

TOTALS = {"parameters": 47, "parameter_bytes": 188, "macs": 96, "flops": 211, "read_bytes": 316, "write_bytes": 76}
HOSTILE = ["<b>bold</b>", "</script>", "a|b", "[red]x[/red]", "`code`", "very_long_" * 30, "=1+1", "é中"]


@pytest.fixture(scope="module")
def costs() -> Costs:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    return count(trace(model, (1, 1, 4, 4), name="tiny"))


@pytest.fixture(scope="module")
def training() -> Costs:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    return count(trace(model, (1, 1, 4, 4), name="tiny", train=True, optimizer_options={"momentum": 0.9}))


@pytest.fixture(scope="module")
def prediction(costs: Costs) -> Prediction:
    """On a device that does 1e9 FLOP/s and moves 1e9 bytes/s: the bound in ns is the larger of FLOPs and bytes."""
    return predict(costs, Device("toy", "Toy", "gpu", {"fp32": 1e9}, 1e9))


@pytest.fixture(scope="module")
def unmodelled(costs: Costs) -> Costs:
    strange = tuple(o._replace(operator="my|relu") if o.operator == "aten.relu" else o for o in costs.trace.operations)
    return count(dataclasses.replace(costs.trace, operations=strange))


GROUPS = ("layer", "block", "kind", "operator", "phase")


class TestTables:
    def test_layers(self, costs: Costs) -> None:
        table = costs.table()
        assert table["name"] == ("0", "1", "2", "3")
        assert table["kind"] == ("conv", "activation", "reshape", "linear")
        assert table["parameter_formula"] == ("(3²·1+1)·2", "", "", "(8+1)·3")
        assert table["parameters"] == (20, 0, 0, 27)
        assert table["macs"] == (72, 0, 0, 24)
        assert table["flops"] == (152, 8, 0, 51)
        assert table["read_bytes"] == (144, 32, 0, 140)
        assert table["write_bytes"] == (32, 32, 0, 12)
        assert table["output_shape"] == ((1, 2, 2, 2), (1, 2, 2, 2), (1, 8), (1, 3))
        assert table.to_frame().nlargest(1, "flops")["name"].item() == "0"

    def test_formulas_honour_groups_and_missing_biases(self) -> None:
        model = nn.Sequential(
            nn.Conv2d(4, 6, (3, 5), groups=2), nn.Conv2d(6, 8, 1, bias=False), nn.ConvTranspose1d(8, 4, 2)
        )
        layers = [nn.Sequential(layer) for layer in model]
        inputs = [(1, 4, 8, 8), (1, 6, 8, 8), (1, 8, 8)]
        tables = [count(trace(*pair)).table() for pair in zip(layers, inputs, strict=True)]
        assert [table["parameter_formula"] for table in tables] == [("(3·5·2+1)·6",), ("1²·6·8",), ("(2·8+1)·4",)]
        # (30 + 1) 6 = 186; 6 * 8 = 48; 2 * 8 * 4 + 4 = 68
        assert [table["parameters"] for table in tables] == [(186,), (48,), (68,)]

    @pytest.mark.parametrize("by", GROUPS)
    def test_every_grouping_adds_up(self, costs: Costs, training: Costs, by: str) -> None:
        for each in (costs, training):
            total = each.table(by).total
            assert total is not None
            assert total["name" if by == "layer" else by] == "total"
            wanted = {"macs": each.total.macs, "flops": each.total.flops, "read_bytes": each.total.read_bytes}
            if by in ("layer", "block", "kind"):
                wanted["parameters"] = 47
            assert {name: total[name] for name in wanted} == wanted
            assert total["arithmetic_intensity"] == each.total.arithmetic_intensity

    def test_the_totals_are_those_worked_out(self, costs: Costs) -> None:
        assert costs.table().total == {"name": "total", **TOTALS, "arithmetic_intensity": 211 / 392}

    def test_parts(self, costs: Costs, prediction: Prediction) -> None:
        table = parts_table(costs, prediction)
        assert table["parameters"] == (20, 27, 0)
        assert table["flops"] == (152, 51, 8)
        assert table["moved_bytes"] == (176, 152, 64)
        for name in ("parameters_share", "flops_share", "moved_share", "bound_share"):
            assert sum(table[name]) == pytest.approx(1)
        # bytes bound each layer of the toy device: 176, 152 and 64 ns
        assert table["bound_seconds"] == pytest.approx((176e-9, 152e-9, 64e-9))

    def test_predictions(self, prediction: Prediction) -> None:
        table = prediction.table()
        assert table["bound_seconds"] == pytest.approx((176e-9, 64e-9, 0, 152e-9))
        assert table["compute_seconds"] == pytest.approx((152e-9, 8e-9, 0, 51e-9))
        assert table["binding"] == ("memory", "memory", "none", "memory")
        assert table["estimate_seconds"] == (None,) * 4
        assert "estimate" not in to_terminal(table, 200)
        assert table.total is not None
        assert table.total["bound_seconds"] == pytest.approx(prediction.bound_seconds)
        assert table.total["flops_per_second"] == pytest.approx(211 / 392e-9)
        assert "estimate_seconds" not in table.total

    @pytest.mark.parametrize("by", GROUPS)
    def test_predictions_by_anything_add_up(self, prediction: Prediction, by: str) -> None:
        table = prediction.table(by)
        assert table.names[0] == ("name" if by == "layer" else by)
        assert sum(table["bound_seconds"]) == pytest.approx(392e-9)

    def test_a_network_against_its_training_step(self, costs: Costs, training: Costs) -> None:
        memories = [memory_timeline(costs.trace), memory_timeline(training.trace)]
        table = compare_table([costs, training], memories)
        rows = {(part, quantity): (a, b, ratio) for part, quantity, a, b, ratio in table.rows()}
        assert rows["all", "parameters"] == (47, 47, 1)
        assert rows["all", "flops"][:2] == (211, training.total.flops)
        assert rows["all", "peak_bytes"][0] == 316
        assert ("convolutions", "parameters") in rows
        assert ("everything else", "parameters") not in rows  # nobody has any there
        assert all(isinstance(a, int) for (_, quantity), (a, _, _) in rows.items() if quantity.endswith("bytes"))

    def test_what_has_no_rule_is_marked(self, costs: Costs, unmodelled: Costs) -> None:
        assert "counted" not in costs.table().names
        assert unmodelled.table()["counted"] == ("all", "not all", "all", "all")
        by_operator = unmodelled.table("operator").to_frame().set_index("operator")
        assert by_operator.at["my|relu", "counted"] == "not all"
        assert unmodelled.table().warnings == ("Not counted, as it has no rule: my|relu (1 call, in 1).",)


def of_names(*names: str, **around: Any) -> Table:
    return Table.of(("layer", "flops"), [(name, index) for index, name in enumerate(names)], **around)


class TestText:
    @pytest.mark.parametrize("width", [80, 120, 200])
    def test_a_table_fits_and_keeps_a_row_a_line(self, costs: Costs, width: int) -> None:
        table = costs.table()
        data = dict(zip(table.names, table.data, strict=True)) | {"name": HOSTILE[:4], "type": HOSTILE[4:]}
        table = table.around(data=tuple(data.values()), title=HOSTILE[5], notes=("note " * 40,))
        lines = to_terminal(table, width).splitlines()
        assert all(cell_len(line) <= width for line in lines)
        assert all(line == line.rstrip() for line in lines)
        body = lines[next(i for i, line in enumerate(lines) if line.startswith("──")) + 1 :]
        assert [line.split()[0] for line in body[:4]] == HOSTILE[:4]
        assert body[5].startswith("total ")
        assert all(number in body[5].split() for number in ("47", "96", "211"))

    def test_what_does_not_fit_is_named(self, costs: Costs) -> None:
        text = " ".join(to_terminal(costs.table(), 80).split())
        assert "Columns left out to fit the terminal: kind, formula, weights; csv, md and json have them all." in text
        assert "left out" not in to_terminal(costs.table(), 200)

    @given(st.lists(st.text(max_size=60), min_size=1, max_size=3), st.integers(60, 160))
    def test_no_name_breaks_a_table(self, names: list[str], width: int) -> None:
        lines = to_terminal(of_names(*names), width).splitlines()
        assert len(lines) == 2 + len(names)
        assert all(line.isprintable() and cell_len(line) <= width for line in lines)

    def test_of_a_long_path_the_end_remains(self) -> None:
        assert re.search(r"^….*\.last ", to_terminal(of_names("block." * 20 + "last"), 60), re.MULTILINE)

    def test_warnings_come_first(self, unmodelled: Costs) -> None:
        assert to_terminal(unmodelled.table()).startswith("Not counted, as it has no rule: my|relu")

    def test_colours_only_when_asked_for(self, costs: Costs, unmodelled: Costs) -> None:
        assert "\x1b[" not in to_terminal(unmodelled.table())
        assert "\x1b[1m" in to_terminal(costs.table(), color=True)
        assert "\x1b[31m" not in to_terminal(costs.table(), color=True)
        assert "\x1b[31m" in to_terminal(unmodelled.table(), color=True)  # the row without a rule, in red

    def test_prose_is_wrapped_in_its_column(self) -> None:
        lines = to_terminal(Table.of(("layer", "explanation"), [("a", "word " * 30)]), 50).splitlines()
        assert sum(line.count("word") for line in lines) == 30
        assert max(map(len, lines)) <= 50

    def test_what_stands_across_has_its_heading_twice(self) -> None:
        rows = [("a", 1, 10), ("a", 64, 640)]
        table = Table.of(("layer", "batch", "flops"), rows, across="batch")
        head = to_terminal(table).splitlines()[:2]
        assert [line.split() for line in head] == [["batch", "1", "batch", "64"], ["layer", "FLOPs", "FLOPs"]]
        assert "| layer | FLOPs, batch 1 | FLOPs, batch 64 |" in to_markdown(table)

    def test_csv_is_raw(self, costs: Costs) -> None:
        rows = list(csv.DictReader(io.StringIO(costs.table().csv())))
        assert len(rows) == 4
        assert {name: sum(int(row[name]) for row in rows) for name in TOTALS} == TOTALS
        assert rows[0]["output_shape"] == "1x2x2x2"

    def test_csv_of_every_kind_of_value(self) -> None:
        names = ("layer", "ratio", "ok", "tile", "layers", "flops")
        rows = [
            ("x\r", 1.5, True, (1, 2), ("a", "b,c"), 1),
            (None, float("nan"), False, None, None, 2),
            ('q"', 2e-9, True, (3,), ("a",), 12345678901),
        ]
        lines = [
            "layer,ratio,ok,tile,layers,flops",
            '"x\r",1.5,True,1x2,"a, b,c",1',
            ",,False,,,2",
            '"q""",2e-09,True,3,a,12345678901',
        ]
        assert Table.of(names, rows).csv() == "".join(f"{line}\n" for line in lines)

    @pytest.mark.parametrize("name", HOSTILE)
    def test_markdown_cells_stay_cells(self, name: str) -> None:
        text = to_markdown(of_names(name, title=name, notes=(name,), warnings=(name,), total={"layer": "total"}))
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [3, 3, 3, 3]
        assert rows[1] == "| --- | ---: |"
        assert not re.search(r"<(b|/script)", text)

    def test_quantities_are_written_in_their_own_units(self, costs: Costs, training: Costs) -> None:
        memories = [memory_timeline(costs.trace), memory_timeline(training.trace)]
        table = compare_table([costs, training], memories)
        columns = [column(each.name, title="one|two") if each.name == "a" else each for each in table.columns]
        text = to_markdown(table.around(columns=tuple(columns)))
        assert "| part | quantity | one\\|two | B | B / A |" in text
        assert "| all | weights | 188 B | 188 B | 1.00x |" in text
        assert "| all | peak memory | 316 B |" in text
        assert "188 B" in table._repr_html_()

    @pytest.mark.parametrize("text", [to_terminal, to_markdown, Table.csv, Table._repr_html_])
    def test_an_empty_table_can_be_shown(self, text: Callable[[Table], str]) -> None:
        assert text(Table.of(("layer", "flops"), [])).strip()

    def test_captions_say_what_ran(self, costs: Costs, training: Costs) -> None:
        assert caption(costs.trace, "Tiny", 1) == "Tiny: input 1x1x4x4, float32, batch 1, forward"
        assert "training step (cross_entropy, sgd, momentum 0.9)" in caption(training.trace)

    def test_every_setting_in_words(self, training: Costs) -> None:
        settings = {
            "loss": "sum",
            "optimizer": None,
            "fused": True,
            "set_to_none": False,
            "accumulate": 4,
            "checkpoint": ("features", "layers.*"),
            "autocast": "bfloat16",
        }
        said = caption(dataclasses.replace(training.trace, settings=settings))
        assert said.endswith(
            "training step (sum, no optimizer, fused, set to none off, accumulate 4, checkpoint features layers.*, "
            "autocast bfloat16)"
        )


class TestDocuments:
    def test_an_analysis_keeps_its_contract(self, costs: Costs) -> None:
        document = json.loads(documents.to_text(documents.analysis(costs, memory_timeline(costs.trace))))
        assert document["schema"] == "costmodel/analysis/1"
        assert (document["model"], document["inputs"], document["dtype"]) == ("tiny", [[1, 1, 4, 4]], "float32")
        assert document["phases"] == ["forward"]
        assert document["conventions"]["flops"].startswith("2 x MACs + vector FLOPs")
        assert {"costmodel", "torch"} <= document["versions"].keys()
        assert document["totals"] == TOTALS | {"peak_bytes": 316}
        assert document["unmodelled"] == []
        assert document["layers"][0] == {
            "name": "0", "kind": "conv", "type": "Conv2d", "parameters": 20, "parameter_bytes": 80, "macs": 72,
            "flops": 152, "read_bytes": 144, "write_bytes": 32, "output_shape": [1, 2, 2, 2],
            "parameter_formula": "(3²·1+1)·2", "arithmetic_intensity": 152 / 176,
        }  # fmt: skip

    def test_layers_add_up_to_totals_in_integers(self, training: Costs) -> None:
        document = json.loads(documents.to_text(documents.analysis(training, memory_timeline(training.trace))))
        assert document["phases"] == ["forward", "backward", "optimizer"]
        for name, total in document["totals"].items():
            assert type(total) is int
            if name != "peak_bytes":
                assert all(type(layer[name]) is int for layer in document["layers"])
                assert sum(layer[name] for layer in document["layers"]) == total

    def test_other_sums_stand_beside_the_layers(self, costs: Costs) -> None:
        document = documents.analysis(costs, memory_timeline(costs.trace), "kind")
        assert [row["kind"] for row in document["groups"]["rows"]] == ["conv", "activation", "reshape", "linear"]
        assert len(document["layers"]) == 4

    def test_the_unknown_is_listed(self, unmodelled: Costs) -> None:
        document = documents.analysis(unmodelled, memory_timeline(unmodelled.trace))
        assert document["unmodelled"] == [{"operator": "my|relu", "count": 1, "layers": ["1"]}]

    def test_a_prediction(self, prediction: Prediction) -> None:
        document = json.loads(documents.to_text(documents.prediction(prediction, "kind")))
        assert document["schema"] == "costmodel/prediction/1"
        assert document["basis"] == "bound" and document["estimate_seconds"] is None
        assert document["bound_seconds"] == pytest.approx(392e-9)
        assert sum(layer["bound_seconds"] for layer in document["layers"]) == pytest.approx(document["bound_seconds"])
        assert document["device"]["peaks"] == {"fp32": 1e9}
        assert sum(row["bound_seconds"] for row in document["groups"]["rows"]) == pytest.approx(392e-9)

    def test_a_comparison(self, costs: Costs, training: Costs, prediction: Prediction) -> None:
        memories = [memory_timeline(costs.trace), memory_timeline(training.trace)]
        document = json.loads(documents.to_text(documents.comparison([costs, training], memories, [prediction] * 2)))
        assert document["schema"] == "costmodel/comparison/1"
        assert document["a"]["totals"] == TOTALS | {"peak_bytes": 316}
        assert document["b"]["phases"] == ["forward", "backward", "optimizer"]
        assert {
            "part": "all",
            "quantity": "macs",
            "a": 96,
            "b": training.total.macs,
            "ratio": training.total.macs / 96,
        } in (document["rows"])

    def test_memory(self, costs: Costs) -> None:
        document = json.loads(documents.to_text(documents.memory(memory_timeline(costs.trace))))
        assert document["peak_bytes"] == sum(document["by_role"].values()) == 316
        assert document["peak"] == {"operation": "aten.relu", "layer": "1", "phase": "forward"}
        assert sum(held["bytes"] for held in document["holders"]) == 316

    def test_a_validation(self) -> None:
        rows = tuple(
            ComparisonRow("p", "forward", layer, "macs", 3, 4, 1, "why (+1)", ok)
            for layer, ok in (("a", True), (TOTAL, False))
        )
        result = Validation("m", rows, ("a note",))
        document = json.loads(documents.to_text(documents.validation([result])))
        assert document["ok"] is False
        assert [row["layer"] for row in document["networks"][0]["rows"]] == ["a", TOTAL]
        assert document["networks"][0]["rows"][0]["ok"] is True
        assert result.table(every=False)["layer"] == (TOTAL,)
        assert verdict(result, "M") == "M: 1 of 2 numbers differ and are not explained"
        assert verdict(Validation("m", (), ()), "M") == "M: nothing could be compared"

    def test_what_json_lacks_is_refused(self) -> None:
        with pytest.raises(ValueError, match="JSON"):
            documents.to_text({"x": float("nan")})


def test_devices_are_described_with_sources() -> None:
    from costmodel.devices import device, names
    from costmodel.devices.spec import devices_table

    found = [device(name) for name in names()]
    frame = devices_table(found).to_frame()
    assert frame["name"].tolist() == names()
    h200: dict[str, Any] = next(each for each in documents.devices(found)["devices"] if each["name"] == "h200")
    assert h200["memory_bandwidth"] == 4.8e12  # 4.8 TB/s, NVIDIA's datasheet
    assert h200["sources"]["memory_bandwidth"]["title"]
    assert frame.set_index("name").at["h200", "memory_bandwidth"] == 4.8e12
