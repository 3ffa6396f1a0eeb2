"""Frames, their text and their documents, on a network whose numbers are worked out by hand.

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
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from torch import nn

from costmodel.cost import Costs, count
from costmodel.devices import Device
from costmodel.errors import InputError
from costmodel.memory import memory_timeline
from costmodel.report import captions, documents, tables
from costmodel.report.render import FORMATS, html_table, render
from costmodel.roofline import Prediction, predict
from costmodel.tracer import trace
from costmodel.validation import TOTAL, ComparisonRow, Validation

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


class TestFrames:
    def test_layers(self, costs: Costs) -> None:
        frame = tables.layers_table(costs)
        assert frame["layer"].tolist() == ["0", "1", "2", "3"]
        assert frame["kind"].tolist() == ["conv", "activation", "reshape", "linear"]
        assert frame["parameter_formula"].tolist() == ["(3²·1+1)·2", "", "", "(8+1)·3"]
        assert frame["parameters"].tolist() == [20, 0, 0, 27]
        assert frame["macs"].tolist() == [72, 0, 0, 24]
        assert frame["flops"].tolist() == [152, 8, 0, 51]
        assert frame["read_bytes"].tolist() == [144, 32, 0, 140]
        assert frame["write_bytes"].tolist() == [32, 32, 0, 12]
        assert frame["output_shape"].tolist() == [(1, 2, 2, 2), (1, 2, 2, 2), (1, 8), (1, 3)]
        assert frame.nlargest(1, "flops")["layer"].item() == "0"

    def test_formulas_honour_groups_and_missing_biases(self) -> None:
        model = nn.Sequential(
            nn.Conv2d(4, 6, (3, 5), groups=2), nn.Conv2d(6, 8, 1, bias=False), nn.ConvTranspose1d(8, 4, 2)
        )
        layers = [nn.Sequential(layer) for layer in model]
        inputs = [(1, 4, 8, 8), (1, 6, 8, 8), (1, 8, 8)]
        frames = [tables.layers_table(count(trace(*pair))) for pair in zip(layers, inputs, strict=True)]
        formulas = [frame["parameter_formula"].item() for frame in frames]
        assert formulas == ["(3·5·2+1)·6", "1²·6·8", "(2·8+1)·4"]
        # (30 + 1) 6 = 186; 6 * 8 = 48; 2 * 8 * 4 + 4 = 68
        assert [frame["parameters"].item() for frame in frames] == [186, 48, 68]

    @pytest.mark.parametrize("by", tables.GROUPS)
    def test_every_grouping_adds_up(self, costs: Costs, training: Costs, by: str) -> None:
        for each in (costs, training):
            total = tables.total_of(tables.groups_table(each, by))
            assert total is not None
            assert total[by] == "total"
            wanted = {"macs": each.total.macs, "flops": each.total.flops, "read_bytes": each.total.read_bytes}
            if by in ("layer", "block", "kind"):
                wanted["parameters"] = 47
            assert {name: total[name] for name in wanted} == wanted
            assert total["arithmetic_intensity"] == each.total.arithmetic_intensity

    def test_the_totals_are_those_worked_out(self, costs: Costs) -> None:
        total = tables.total_of(tables.layers_table(costs))
        assert total == {"layer": "total", **TOTALS, "arithmetic_intensity": 211 / 392}

    def test_sums_are_exact_beyond_64_bits(self) -> None:
        frame = tables.frame_of(("layer", "flops"), [("a", 2**63 - 1), ("b", 2**63 - 1), ("c", 1)])
        total = tables.total_of(frame)
        assert total is not None and total["flops"] == 2**64 - 1

    def test_parts(self, costs: Costs, prediction: Prediction) -> None:
        frame = tables.shares_table(costs, prediction)
        assert frame["parameters"].tolist() == [20, 27, 0]
        assert frame["flops"].tolist() == [152, 51, 8]
        assert frame["moved_bytes"].tolist() == [176, 152, 64]
        for name in ("parameters_share", "flops_share", "moved_share", "bound_share"):
            assert frame[name].sum() == pytest.approx(1)
        # bytes bound each layer of the toy device: 176, 152 and 64 ns
        assert frame["bound_seconds"].tolist() == pytest.approx([176e-9, 152e-9, 64e-9])

    def test_predictions(self, prediction: Prediction) -> None:
        frame = tables.prediction_table(prediction)
        assert frame["bound_seconds"].tolist() == pytest.approx([176e-9, 64e-9, 0, 152e-9])
        assert frame["compute_seconds"].tolist() == pytest.approx([152e-9, 8e-9, 0, 51e-9])
        assert frame["binding"].tolist() == ["memory", "memory", "none", "memory"]
        assert "estimate_seconds" not in frame
        total = tables.total_of(frame)
        assert total is not None
        assert total["bound_seconds"] == pytest.approx(prediction.bound_seconds)
        assert total["flops_per_second"] == pytest.approx(211 / 392e-9)

    @pytest.mark.parametrize("by", tables.GROUPS)
    def test_predictions_by_anything_add_up(self, prediction: Prediction, by: str) -> None:
        frame = tables.prediction_table(prediction, by)
        assert frame.columns[0] == by
        assert frame["bound_seconds"].sum() == pytest.approx(392e-9)

    def test_a_network_against_its_training_step(self, costs: Costs, training: Costs) -> None:
        memories = [memory_timeline(costs.trace), memory_timeline(training.trace)]
        frame = tables.compare_table([costs, training], memories)
        rows = {(row.part, row.quantity): row for row in frame.itertuples()}
        assert (rows["all", "parameters"].a, rows["all", "parameters"].b, rows["all", "parameters"].ratio) == (
            47,
            47,
            1,
        )
        assert rows["all", "flops"].a == 211
        assert rows["all", "flops"].b == training.total.flops
        assert rows["all", "peak_bytes"].a == 316
        assert ("convolutions", "parameters") in rows
        assert ("everything else", "parameters") not in rows  # nobody has any there
        assert all(isinstance(row.a, int) for row in rows.values() if row.quantity.endswith("bytes"))

    def test_what_has_no_rule_is_marked(self, costs: Costs, unmodelled: Costs) -> None:
        assert "counted" not in tables.layers_table(costs)
        assert tables.layers_table(unmodelled)["counted"].tolist() == ["all", "not all", "all", "all"]
        assert tables.groups_table(unmodelled, "operator").set_index("operator").at["my|relu", "counted"] == "not all"
        assert captions.warnings([unmodelled]) == ["Not counted, for want of a rule: my|relu (1 times, in 1)."]

    def test_counts_stay_whole_where_some_are_missing(self) -> None:
        frame = tables.frame_of(("name", "classes"), [("a", 10), ("b", None)])
        assert tables.csv(frame) == "name,classes\na,10\nb,\n"
        assert tables.records(frame) == [{"name": "a", "classes": 10}, {"name": "b", "classes": None}]


class TestText:
    @pytest.mark.parametrize("width", [80, 120, 200])
    def test_a_table_fits_and_keeps_a_row_a_line(self, costs: Costs, width: int) -> None:
        frame = tables.layers_table(costs).assign(layer=HOSTILE[:4], type=HOSTILE[4:])
        text = render(frame, title=HOSTILE[5], notes=["note " * 40], total=tables.total_of(frame), width=width)
        lines = text.splitlines()
        assert all(cell_len(line) <= width for line in lines)
        assert all(line == line.rstrip() for line in lines)
        body = lines[next(i for i, line in enumerate(lines) if line.startswith("──")) + 1 :]
        assert [line.split()[0] for line in body[:4]] == HOSTILE[:4]
        assert body[5].startswith("total ")
        assert all(number in body[5].split() for number in ("47", "96", "211"))

    def test_what_does_not_fit_is_named(self, costs: Costs) -> None:
        text = " ".join(render(tables.layers_table(costs), width=80).split())
        assert "Left out for want of width: kind, formula, weights (csv, md and json" in text
        assert "Left out" not in render(tables.layers_table(costs), width=200)

    @given(st.lists(st.text(max_size=60), min_size=1, max_size=3), st.integers(60, 160))
    def test_no_name_breaks_a_table(self, names: list[str], width: int) -> None:
        frame = pd.DataFrame({"layer": names, "flops": range(len(names))}, dtype=object)
        lines = render(frame, width=width).splitlines()
        assert len(lines) == 2 + len(names)
        assert all(line.isprintable() and cell_len(line) <= width for line in lines)

    def test_of_a_long_path_the_end_remains(self) -> None:
        frame = pd.DataFrame({"layer": ["block." * 20 + "last"], "flops": [1]})
        assert re.search(r"^….*\.last ", render(frame, width=60), re.MULTILINE)

    def test_warnings_come_first(self, unmodelled: Costs) -> None:
        text = render(tables.layers_table(unmodelled), title="tiny", warnings=captions.warnings([unmodelled]))
        assert text.startswith("Not counted, for want of a rule: my|relu")

    def test_colours_only_when_asked_for(self, costs: Costs) -> None:
        frame = tables.layers_table(costs)
        assert "\x1b[" not in render(frame, title="x")
        assert "\x1b[1m" in render(frame, title="x", color=True)

    def test_prose_is_wrapped_in_its_column(self) -> None:
        frame = pd.DataFrame({"layer": ["a"], "explanation": ["word " * 30]})
        lines = render(frame, width=50).splitlines()
        assert sum(line.count("word") for line in lines) == 30
        assert max(map(len, lines)) <= 50

    def test_csv_is_raw(self, costs: Costs) -> None:
        rows = list(csv.DictReader(io.StringIO(render(tables.layers_table(costs), "csv", title="not in it"))))
        assert len(rows) == 4
        assert {name: sum(int(row[name]) for row in rows) for name in TOTALS} == TOTALS
        assert rows[0]["output_shape"] == "1x2x2x2"

    @given(st.text())
    def test_csv_gives_back_any_name(self, name: str) -> None:
        text = render(pd.DataFrame({"layer": [name, "x"], "flops": [1, 2]}, dtype=object), "csv")
        assert [row[0] for row in csv.reader(io.StringIO(text, newline=""))][1:] == [name, "x"]

    def test_csv_of_every_kind_of_column(self) -> None:
        frame = pd.DataFrame(
            {
                "a,b": ["x\r", None, 'q"'],
                "ratio": [1.5, float("nan"), 2e-9],
                "ok": [True, False, True],
                "tile": [(1, 2), None, (3,)],
                "macs": pd.array([1, None, 3], dtype="Int64"),
                "network": pd.Categorical(["a,", None, "b"]),
                "flops": [1, 2, 12345678901],
            }
        )
        lines = [
            '"a,b",ratio,ok,tile,macs,network,flops',
            '"x\r",1.5,True,1x2,1,"a,",1',
            ",,False,,,,2",
            '"q""",2e-09,True,3,3,b,12345678901',
        ]
        assert tables.csv(frame) == "".join(f"{line}\n" for line in lines)

    def test_json_is_raw(self, costs: Costs) -> None:
        document = json.loads(render(tables.layers_table(costs), "json", title="tiny", notes=["n"]))
        assert [row["flops"] for row in document["rows"]] == [152, 8, 0, 51]
        assert document["rows"][0]["output_shape"] == [1, 2, 2, 2]
        assert document["columns"]["flops"] == {"title": "FLOPs", "meaning": "2 x MACs + vector FLOPs"}

    @pytest.mark.parametrize("name", HOSTILE)
    def test_markdown_cells_stay_cells(self, name: str) -> None:
        frame = pd.DataFrame({"layer": [name], "flops": [1500]})
        text = render(frame, "md", title=name, total={"layer": "total", "flops": 1500})
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [3, 3, 3, 3]
        assert rows[1] == "| --- | ---: |"
        assert rows[3] == "| total | 1.50 k |"
        assert not re.search(r"<(b|/script)", text)

    def test_quantities_are_written_in_their_own_units(self, costs: Costs, training: Costs) -> None:
        frame = tables.compare_table([costs, training], [memory_timeline(costs.trace), memory_timeline(training.trace)])
        text = render(frame, "md", labels={"a": "one|two"})
        assert "| part | quantity | one\\|two | B | B / A |" in text
        assert "| all | weights | 188 B | 188 B | 1.00x |" in text
        assert "| all | peak memory | 316 B |" in text
        assert "188 B" in html_table(frame)

    def test_html_is_escaped(self) -> None:
        page = html_table(
            pd.DataFrame({"layer": HOSTILE, "macs": range(8)}), title="<i>", total={"layer": "t", "macs": 28}
        )
        assert "<b>" not in page and "</script>" not in page and "<i>" not in page
        assert 'data-sort="28"' in page

    def test_an_unknown_format_names_the_nearest(self, costs: Costs) -> None:
        with pytest.raises(InputError, match="Did you mean json"):
            render(tables.layers_table(costs), "jsn")

    @pytest.mark.parametrize("format", FORMATS)
    def test_an_empty_frame_can_be_shown(self, format: str) -> None:
        assert render(tables.frame_of(("layer", "flops"), []), format).endswith("\n")

    def test_captions_say_what_ran(self, costs: Costs, training: Costs) -> None:
        assert captions.caption(costs.trace, "Tiny", 1) == "Tiny: input 1x1x4x4, float32, batch 1, forward"
        assert "training step (cross_entropy, sgd, momentum 0.9)" in captions.caption(training.trace)

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
        caption = captions.caption(dataclasses.replace(training.trace, settings=settings))
        assert caption.endswith(
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
        assert tables.validation_table(result, every=False)["layer"].tolist() == [TOTAL]
        assert captions.verdict(result, "M") == "M: 1 of 2 numbers differ and are not explained"
        assert captions.verdict(Validation("m", (), ()), "M") == "M: nothing could be compared"

    def test_what_json_lacks_is_refused(self) -> None:
        with pytest.raises(ValueError, match="JSON"):
            documents.to_text({"x": float("nan")})


def test_devices_are_described_with_sources() -> None:
    from costmodel.devices import device, names

    found = [device(name) for name in names()]
    frame = tables.devices_table(found)
    assert frame["name"].tolist() == names()
    h200: dict[str, Any] = next(each for each in documents.devices(found)["devices"] if each["name"] == "h200")
    assert h200["memory_bandwidth"] == 4.8e12  # 4.8 TB/s, NVIDIA's datasheet
    assert h200["sources"]["memory_bandwidth"]["title"]
    assert frame.set_index("name").at["h200", "memory_bandwidth"] == 4.8e12
