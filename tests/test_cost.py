"""Costs add up, whichever way they are summed, and the unknown is never zero in silence."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from costmodel.cost import Cost, Costs, Unmodelled, count
from costmodel.errors import InputError
from costmodel.grouping import block_of
from costmodel.tracer import trace


@pytest.fixture(scope="module")
def costs() -> Costs:
    with torch.device("meta"):
        model = torchvision.models.resnet18()
    return count(trace(model, (2, 3, 64, 64), train=True))


@pytest.mark.parametrize("key", ["operator", "layer", "block", "kind", "phase"])
def test_every_sum_is_the_total(costs: Costs, key: str) -> None:
    assert Cost.sum(costs.by(key).values()) == costs.total
    assert Cost.sum(layer.cost for layer in costs.layers) == costs.total
    assert sum((costs.phase(phase).total for phase in costs.trace.phases), Cost()) == costs.total


def test_layers_hold_all_parameters_once(costs: Costs) -> None:
    assert sum(layer.parameters for layer in costs.layers) == costs.parameters == 11_689_512  # torchvision's num_params
    assert sum(layer.parameter_bytes for layer in costs.layers) == costs.parameter_bytes == 4 * 11_689_512


def test_layers_say_what_they_are(costs: Costs) -> None:
    layers = {layer.name: layer for layer in costs.layers}
    assert (layers["conv1"].kind, layers["conv1"].type) == ("conv", "Conv2d")
    assert (layers["bn1"].kind, layers["fc"].kind, layers["maxpool"].kind) == ("norm", "linear", "pool")
    assert (layers["(loss)"].kind, layers["(optimizer)"].kind) == ("loss", "optimizer")
    assert layers["layer1.0"].type == "BasicBlock"  # adds the shortcut itself


def test_blocks() -> None:
    assert block_of("layer1.0.conv1", leaf=True) == "layer1.0"
    assert block_of("layer1.0", leaf=False) == "layer1.0"
    assert block_of("fc", leaf=True) == ""
    assert block_of("layer1.0.conv1", leaf=True, depth=1) == "layer1"


def test_an_unknown_key_names_the_nearest(costs: Costs) -> None:
    with pytest.raises(InputError, match="Did you mean layer"):
        costs.by("layers")


class Functional(nn.Module):
    """As written in class: activations and poolings are called, and are no modules."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 5)
        self.fc = nn.Linear(864, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores (batch, 10)."""
        return self.fc(functional.max_pool2d(functional.relu(self.conv(images)), 2).flatten(1))


def test_what_a_network_calls_itself_is_of_several_kinds() -> None:
    layers = {layer.name: layer for layer in count(trace(Functional(), (1, 1, 28, 28))).layers}
    assert {name: layer.kind for name, layer in layers.items()} == {"": "mixed", "conv": "conv", "fc": "linear"}
    assert layers[""].output_shape is None
    assert layers[""].cost.vector_flops == 6 * 24 * 24 + 6 * 12 * 12 * 3  # a ReLU, and three comparisons a window


def test_attention_is_attention_though_its_projections_cost_most() -> None:
    # 4 tokens of 64: three projections in and one out are 4 x 4 x 64 x 64 MACs, scores and values 2 x 4 x 4 x 64
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attends, self.head = nn.MultiheadAttention(64, 2), nn.Linear(64, 64)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.head(self.attends(tokens, tokens, tokens, need_weights=False)[0])

    rows = {row.name: row for row in count(trace(Attends(), (4, 1, 64))).layers}
    assert rows["attends"].cost.macs + rows["attends.out_proj"].cost.macs == 4 * 4 * 64 * 64 + 2 * 4 * 4 * 64
    assert (rows["attends"].kind, rows["head"].kind) == ("attention", "linear")


def test_sums_are_a_table_too() -> None:
    costs = count(trace(Functional(), (1, 1, 28, 28)))
    table = costs.table("kind")
    assert table.to_frame().set_index("kind").loc["conv", "macs"] == costs.by("kind")["conv"].macs == 6 * 25 * 24 * 24
    assert "<td style='text-align:left'>conv</td>" in table._repr_html_()


def test_what_is_no_trace_is_refused() -> None:
    with pytest.raises(InputError, match=r"takes a trace, not a Functional: cm.trace\(network, shape\)"):
        count(Functional())  # type: ignore[arg-type]


def test_a_tensor_used_twice_is_read_once() -> None:
    class Square(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ x

    total = count(trace(Square(), (4, 4))).total
    assert (total.macs, total.read_bytes, total.write_bytes) == (64, 64, 64)


def test_views_move_nothing() -> None:
    class Views(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.view(-1).reshape(4, 4).t()[1:].unsqueeze(0).expand(3, 3, 4)

    assert count(trace(Views(), (2, 8))).total == Cost()


def test_flops_are_two_macs_and_the_vector_work() -> None:
    cost = Cost(macs=10, vector_flops=3, read_bytes=5, write_bytes=18)
    assert cost.flops == 23
    assert cost.arithmetic_intensity == 1.0
    assert Cost().arithmetic_intensity == 0.0
    assert cost + cost == Cost.sum([cost, cost]) == Cost(20, 6, 10, 36)


def test_an_operator_without_a_rule_is_reported() -> None:
    traced = trace(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), (1, 2))
    strange = tuple(o._replace(operator="my.relu") if o.operator == "aten.relu" else o for o in traced.operations)
    costs = count(dataclasses.replace(traced, operations=strange))
    (missing,) = costs.unmodelled
    assert missing == Unmodelled("my.relu", 1, ("1",))
    assert costs.total.read_bytes > 0  # its traffic is known all the same
    assert not count(traced).unmodelled


def test_frames_hold_base_units(costs: Costs) -> None:
    frame = costs.to_frame()
    assert frame["flops"].sum() == costs.total.flops
    assert frame.nlargest(1, "parameters")["name"].item() == "layer4.0.conv2"


def test_tables_by_hand() -> None:
    # 3 -> 4 -> 2 on a batch of 2 in float32: 2 x 3 x 4 and 2 x 4 x 2 MACs, 8 and 4 additions of biases, 8 comparisons;
    # the first reads 6 inputs, 12 weights and 4 biases and writes 8, the ReLU reads and writes 8, the last 8, 8, 2, 4
    costs = count(trace(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), (2, 3), name="net"))
    numbers = ("parameters", "parameter_bytes", "macs", "flops", "read_bytes", "write_bytes", "arithmetic_intensity")
    table = costs.table()
    assert [tuple(row[name] for name in numbers) for row in table.records()] == [
        (16, 64, 24, 48 + 8, 4 * 22, 4 * 8, pytest.approx(56 / 120)),
        (0, 0, 0, 8, 4 * 8, 4 * 8, pytest.approx(8 / 64)),
        (10, 40, 16, 32 + 4, 4 * 18, 4 * 4, pytest.approx(36 / 88)),
    ]
    whole = (26, 104, 40, 100, 192, 80, pytest.approx(100 / 272))
    assert table.total is not None and tuple(table.total[name] for name in numbers) == whole
    assert table.title == "net: 26 parameters, 100 FLOP"
    kinds = {row["kind"]: row for row in costs.table("kind").records()}
    assert tuple(kinds["linear"][name] for name in numbers) == (26, 104, 40, 92, 160, 48, pytest.approx(92 / 208))
    assert [kinds[kind]["flops_share"] for kind in ("linear", "activation")] == pytest.approx([0.92, 0.08])
    assert kinds["activation"]["parameters"] == kinds["activation"]["parameter_bytes"] == 0
    assert repr(costs) == "<Costs of net: 26 parameters, 40 MAC, 100 FLOP, 272 B moved>"


def test_an_uncalled_layer_keeps_its_parameters() -> None:
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = nn.Linear(2, 2), nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    costs = count(trace(Spare(), (1, 2)))
    assert costs.parameters == 6 + 12
    assert [layer.name for layer in costs.layers] == ["used", "spare"]


def test_a_notebook_shows_the_layers_and_nothing_hostile() -> None:
    class Hostile(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module("<script>alert(1)</script>", nn.Linear(2, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self._modules["<script>alert(1)</script>"](x)

    html = count(trace(Hostile(), (1, 2), name="<b>net</b>"))._repr_html_()
    assert "<script>" not in html
    assert "<b>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert html.startswith("<table><caption>&lt;b&gt;net&lt;/b&gt;: 9 parameters, 15 FLOP</caption>")
