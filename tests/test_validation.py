"""The checks check: differences are explained to the unit, and what is not explained fails."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as functional
from torch import nn

import costmodel.rules
from costmodel import networks
from costmodel.cost import count
from costmodel.errors import InputError
from costmodel.rules import Rule, Work
from costmodel.tracer import trace
from costmodel.validation import TOTAL, Validation, validate
from costmodel.validation.explanations import EXPLANATIONS
from costmodel.validation.published import VGG_PAPER_MILLIONS, published_rows
from costmodel.validation.rows import compare, with_total

COUNTER, FVCORE, PROFILER = "torch flop counter", "fvcore", "torch profiler"


class Calls(nn.Module):
    """A network from a function of itself and its inputs."""

    def __init__(self, forward: Callable[..., torch.Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.function = forward
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.function(self, *inputs)


def explanation(validation: Validation, source: str, phase: str = "forward", layer: str = TOTAL) -> str:
    rows = [row for row in validation.rows if (row.source, row.phase, row.layer) == (source, phase, layer)]
    assert len(rows) == 1
    return rows[0].explanation


# The comparison itself.


def test_a_network_agrees_layer_by_layer_and_in_total():
    # 2 x 4 pixels x 9 = 72 MACs and 20 parameters; 8 x 3 = 24 MACs and 27 parameters
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    validation = validate(network, (1, 1, 4, 4))
    assert validation.ok
    macs = [row for row in validation.rows if row.source == FVCORE and row.quantity == "macs"]
    assert [(row.layer, row.ours, row.peer) for row in macs] == [("0", 72, 72), ("2", 24, 24), (TOTAL, 96, 96)]
    held = [row for row in validation.rows if row.source == COUNTER and row.quantity == "parameters"]
    assert [(row.layer, row.ours, row.peer) for row in held] == [("0", 20, 20), ("2", 27, 27), (TOTAL, 47, 47)]
    flops = [row for row in validation.totals if row.quantity == "contraction_flops"]
    assert [(row.source, row.ours) for row in flops] == [(COUNTER, 192), (PROFILER, 192)]
    frame = validation.to_frame()
    assert list(frame.columns) == [
        "source", "phase", "layer", "quantity", "ours", "peer", "difference", "ok", "explanation",
    ]  # fmt: skip
    assert len(frame) == len(validation.rows) and frame["ok"].all()


def test_an_unexplained_difference_fails(monkeypatch):
    known = costmodel.rules.rules()["aten.convolution"]
    one_more = Rule("conv", lambda op: Work(macs=known.work(op).macs + 1))
    monkeypatch.setitem(costmodel.rules._RULES, "aten.convolution", one_more)
    validation = validate(nn.Conv2d(1, 2, 3), (1, 1, 4, 4))
    assert not validation.ok
    assert explanation(validation, FVCORE) == "unexplained (-1)"
    assert explanation(validation, COUNTER) == "unexplained (-2)"
    assert explanation(validation, PROFILER) == "unexplained (-2)"
    assert all(row.ok for row in validation.rows if row.quantity == "parameters")


def test_an_explanation_that_is_off_by_one_fails(monkeypatch):
    known = costmodel.rules.rules()["aten.addmm"]
    monkeypatch.setitem(
        costmodel.rules._RULES, "aten.addmm", Rule("linear", lambda op: Work(macs=known.work(op).macs - 1))
    )
    # the batch norm explains 2 x 8 elements of the difference, and not 2 x 8 + 1
    validation = validate(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval(), (2, 4), peers=[FVCORE])
    assert not validation.ok
    assert explanation(validation, FVCORE) == "batch norm counted by element (+16); unexplained (+1)"


def test_mistakes_that_cancel_in_the_total_fail():
    rows = list(with_total("peer", "forward", "macs", [("a", 5, 6, {}), ("b", 5, 4, {})]))
    assert [(row.difference, row.ok) for row in rows] == [(1, False), (-1, False), (0, False)]
    assert rows[-1].explanation == "unexplained in layers"


def test_an_expected_difference_that_is_not_there_fails():
    assert not compare("peer", "forward", "a", "macs", 5, 5, {"norm counted": 3}).ok
    row = compare("peer", "forward", "a", "macs", 5, 8, {"norm counted": 3})
    assert row.ok and row.explanation == "norm counted (+3)"


def test_a_peer_that_cannot_run_is_a_note_and_nothing_compared_is_no_success():
    validation = validate(nn.Linear(2, 2), {"input": (1, 2)}, peers=[FVCORE])
    assert not validation.rows and not validation.ok
    assert "could not run" in validation.notes[0] and "positional" in validation.notes[0]
    both = validate(nn.Linear(2, 2), {"input": (1, 2)}, peers=[FVCORE, COUNTER])
    assert both.ok and {row.source for row in both.rows} == {COUNTER}


def test_an_operator_without_a_rule_is_a_note(monkeypatch):
    costmodel.rules.rules()
    monkeypatch.delitem(costmodel.rules._RULES, "aten.addmm")
    validation = validate(nn.Linear(2, 2), (1, 2), peers=[COUNTER])
    assert not validation.ok
    assert validation.notes[0] == "no rule says what aten.addmm costs (calls: 1)"


def test_a_module_needs_inputs_and_a_network_brings_its_own():
    with pytest.raises(InputError, match="inputs"):
        validate(nn.Linear(2, 2))
    assert validate(networks.find("lenet"), batch=2, peers=[COUNTER]).ok
    with pytest.raises(InputError, match="unknown peer"):
        validate(networks.find("lenet"), peers=["thop"])


def test_the_module_stays_as_it_was():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    validate(network, (4, 2), train=True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all("forward" not in vars(module) for module in network.modules())


@pytest.mark.parametrize("train", [False, True])
def test_shared_modules_tied_weights_and_functional_calls(train):
    shared, tied = nn.Linear(4, 4), nn.Linear(4, 4)
    tied.weight = shared.weight
    network = Calls(
        lambda self, x: functional.linear(functional.relu(self.a(x)), self.b.weight) + self.b(self.a(x)),
        a=nn.Sequential(shared, nn.ReLU(), shared),
        b=tied,
    )
    validation = validate(network, (2, 4), train=train)
    assert validation.ok, validation.to_frame().to_string()
    # 32 MACs a product: the shared layer runs four times, the functional call once in the network, b once
    macs = {row.layer: row.ours for row in validation.rows if (row.source, row.phase) == (FVCORE, "forward")}
    assert macs == {"a.0": 4 * 32, "": 32, "b": 32, TOTAL: 6 * 32}
    assert [row.ours for row in validation.totals if row.quantity == "parameters"] == [16 + 4 + 4] * 2


def test_a_layer_whose_forward_is_called_directly_stands_where_fvcore_books_it():
    validation = validate(Calls(lambda self, x: self.inner.forward(x), inner=nn.Linear(4, 4)), (2, 4))
    assert validation.ok
    assert explanation(validation, FVCORE, layer="") == ""
    assert explanation(validation, COUNTER, layer="inner") == ""


# Every explanation, with its number derived by hand.

CASES = {
    # 2 x 4 elements: with scale and shift 2 each; without 1
    "batch norm": (
        nn.Sequential(nn.BatchNorm1d(4), nn.BatchNorm1d(4, affine=False)), (2, 4),
        FVCORE, "batch norm counted by element (+24)",
    ),
    # 4 + 1 an element of 2 x 4 x 3 with scale and shift, 4 without
    "layer norm": (
        nn.Sequential(nn.LayerNorm(3), nn.LayerNorm(3, elementwise_affine=False)), (2, 4, 3),
        FVCORE, "norm counted by element (+216)",
    ),
    "group norm": (nn.GroupNorm(2, 4), (2, 4, 3), FVCORE, "norm counted by element (+120)"),
    "instance norm": (nn.InstanceNorm1d(4), (2, 4, 3), FVCORE, "norm counted by element (+96)"),
    # the elements that go in: 2 x 6 x 6 and then 2 x 3 x 3
    "adaptive pool": (
        nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.AdaptiveAvgPool2d(1)), (1, 2, 6, 6),
        FVCORE, "adaptive pool counted by element (+90)",
    ),
    # the elements that come out: 2 x 4 x 4 once, then 2 x 8 x 8 four times
    "upsampling": (
        nn.Sequential(nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=2, mode="bilinear")), (1, 2, 2, 2),
        FVCORE, "upsampling counted by element (+544)",
    ),
    # two heads, 5 queries on 5 keys of 4: 2 x 5 x 5 x 4 MACs for the scores and again for the values
    "fused attention": (
        Calls(lambda _, x: functional.scaled_dot_product_attention(x, x, x)), (1, 2, 5, 4),
        FVCORE, "no formula for fused attention (-400)",
    ),
    # 3 steps of a batch of 1: 4 gates of 5 units, each from 4 inputs and 5 units: 3 x 20 x 9
    "lstm": (
        Calls(lambda self, x: self.rnn(x)[0], rnn=nn.LSTM(4, 5)), (3, 1, 4),
        FVCORE, "no formula for recurrent layers (-540)",
    ),
    # 4 x 4 pixels from 3 x 3 windows
    "padding by name": (
        nn.Conv2d(1, 1, 3, padding="same"), (1, 1, 4, 4), FVCORE, "no formula for padding by name (-144)",
    ),
    # 2 of 3 x 4 by 4 x 5
    "baddbmm": (
        Calls(lambda _, x, y, z: torch.baddbmm(x, y, z)), [(2, 3, 5), (2, 3, 4), (2, 4, 5)],
        FVCORE, "no formula for this product (-120)",
    ),
    # 3 x 4 by 4
    "matrix times vector": (
        Calls(lambda _, x, y: torch.mv(x, y)), [(3, 4), (4,)], COUNTER, "no formula for this product (-24)",
    ),
    "matrix times vector, profiler": (
        Calls(lambda _, x, y: torch.mv(x, y)), [(3, 4), (4,)], PROFILER, "no formula for this product (-24)",
    ),
    # the first operand's elements: 4 for the sum, 2 x 4 for the product, none for what is done in place
    "add and mul": (
        Calls(lambda _, x, y: ((y + x) * y.expand(2, 4)[:1]).mul_(2)), [(2, 4), (4,)],
        PROFILER, "element-wise add and mul counted (+12)",
    ),
    # 7 positions, 3 output and 2 input channels, a window of 3
    "conv1d": (nn.Conv1d(2, 3, 3), (1, 2, 9), PROFILER, "no formula for this convolution (-252)"),
    # each of 2 x 4 x 4 inputs goes into 3 x 2 x 2 outputs
    "transposed convolution": (
        nn.ConvTranspose2d(2, 3, 2), (1, 2, 4, 4), PROFILER, "no formula for this convolution (-768)",
    ),
    # 2 x 2 pixels, a window of 9
    "no batch": (nn.Conv2d(1, 1, 3), torch.zeros(1, 4, 4), PROFILER, "no formula for this convolution (-72)"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_explanation_gives_the_difference_to_the_unit(case):
    network, inputs, peer, expected = CASES[case]
    validation = validate(network.eval(), inputs, peers=[peer])
    assert validation.ok, validation.to_frame().to_string()
    assert explanation(validation, peer) == expected


def test_einsum_is_read_from_four_printed_digits():
    # 10007 x 3 x 1 = 30021 MACs; twice that prints as 6.004e+04, and half of 60040 is 30020
    network = Calls(lambda _, x, y: torch.einsum("bhij,bhkj->bhik", x, y))
    validation = validate(network, [(1, 1, 10007, 3), (1, 1, 1, 3)], peers=[FVCORE])
    assert validation.ok, validation.to_frame().to_string()
    assert explanation(validation, FVCORE) == "einsum rounded to four digits (-1)"


def test_a_batch_norm_in_training_counts_five_an_element():
    validation = validate(nn.BatchNorm1d(4), (2, 4), train=True, peers=[FVCORE])
    assert validation.ok and explanation(validation, FVCORE) == "batch norm counted by element (+40)"


@pytest.mark.parametrize(("groups", "factor"), [(1, 2.0), (2, 3.0), (4, 5.0)])
def test_torchs_counter_errs_on_grouped_backward(groups, factor):
    # a first layer makes the second one's input want a gradient; the second one's backward is twice its forward
    network = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 8, 3, groups=groups, bias=False))
    validation = validate(network, (1, 4, 6, 6), train=True, peers=[COUNTER])
    assert validation.ok
    forward, backward = (
        next(row for row in validation.rows if (row.phase, row.layer) == (phase, "1"))
        for phase in ("forward", "backward")
    )
    assert backward.ours == 2 * forward.ours
    assert backward.peer == factor * forward.peer
    # 8 x 4 x 4 outputs of 9 x 4 / groups MACs, 2 FLOPs each, counted groups - 1 times too often
    extra = (groups - 1) * 2 * 8 * 16 * 9 * 4 // groups
    assert backward.explanation == (
        f"grouped convolution's weight gradient counted g times (+{extra:,})" if extra else ""
    )


@pytest.mark.parametrize("peer", [COUNTER, PROFILER])
def test_cuda_computes_attentions_scores_again_in_the_backward(peer):
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x * self.weight
            return functional.scaled_dot_product_attention(x, x, x)

    validation = validate(Attention(), (1, 2, 5, 4), train=True, peers=[peer])
    assert validation.ok, validation.to_frame().to_string()
    # 2 heads x 5 x 5 x 4 = 200 MACs once more: five products instead of four
    assert "attention's backward not fused (-400)" in explanation(validation, peer, "backward")


def test_the_profiler_has_no_formula_for_a_convolutions_backward():
    # 2 x 4 pixels x 9 MACs for the weight's gradient
    validation = validate(nn.Conv2d(1, 2, 3), (1, 1, 4, 4), train=True, peers=[PROFILER])
    assert validation.ok
    assert explanation(validation, PROFILER, "backward") == "no formula for a convolution's backward (-144)"


def test_every_explanation_is_tested_here():
    text = Path(__file__).read_text()
    assert not [entry.name for entry in EXPLANATIONS if entry.name not in text]


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", ["lenet", "lenet-relu", "alexnet-fashion", "vgg11-slim"])
def test_the_books_networks(name, train):
    validation = validate(networks.find(name), train=train)
    assert validation.ok, validation.to_frame().to_string()


@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_x0_5", "vit_b_32"])
def test_training_steps_of_torchvisions(name):
    validation = validate(networks.find(f"torchvision:{name}"), batch=2, train=True)
    assert validation.ok, [row for row in validation.rows if not row.ok][:5]


def test_every_peer_on_torchvisions():
    validation = validate(networks.find("torchvision:mobilenet_v3_small"))
    assert validation.ok, [row for row in validation.rows if not row.ok][:5]
    assert {COUNTER, FVCORE, PROFILER} < {row.source for row in validation.rows}


# Published numbers.


def test_torchvisions_numbers_hold_to_the_digit_that_is_printed():
    validation = validate(networks.find("torchvision:alexnet"), peers=[])
    # 714188480 MACs print as 0.714 billion
    assert [(row.quantity, row.ours, row.peer, row.explanation) for row in validation.rows] == [
        ("parameters", 61100840, 61100840, ""),
        ("macs", 714188480, 714000000, "printed in billions with three decimals (-188,480)"),
    ]


def test_a_published_number_that_is_one_digit_off_fails(monkeypatch):
    known = costmodel.rules.rules()["aten.convolution"]
    less = Rule("conv", lambda op: Work(macs=known.work(op).macs - 10**6))
    monkeypatch.setitem(costmodel.rules._RULES, "aten.convolution", less)
    validation = validate(networks.find("torchvision:alexnet"), peers=[])
    assert not validation.ok
    # 5 convolutions less a million each: 709188480 prints as 0.709
    assert "unexplained (+5,000,000)" in validation.rows[-1].explanation


def test_other_heads_are_not_what_is_published():
    assert not validate(networks.find("torchvision:alexnet", classes=10), peers=[]).rows
    assert not validate(networks.find("torchvision:alexnet-gap"), peers=[]).rows


VGG_CONFIGURATIONS = {"A": "vgg11", "B": "vgg13", "D": "vgg16", "E": "vgg19"}


def test_the_vgg_papers_table():
    with (Path(__file__).parent / "data" / "vgg_paper_table2.csv").open() as file:
        table = list(csv.DictReader(line for line in file if not line.startswith("#")))
    millions = {row["configuration"]: int(row["parameters_millions"]) for row in table}
    assert {name: millions[letter] for letter, name in VGG_CONFIGURATIONS.items()} == VGG_PAPER_MILLIONS
    for letter, name in VGG_CONFIGURATIONS.items():
        network = networks.find(f"torchvision:{name}")
        costs = count(trace(network.module, network.inputs()))
        assert round(costs.parameters / 1e6) == millions[letter]
        rows, _ = published_rows(network.name, costs)
        assert "table 2" in rows[-1].source and rows[-1].ok
    # A-LRN is A, since a local response norm holds no parameters. C is B with a third, 1 x 1 convolution in the last
    # three blocks: 256^2 + 256, 512^2 + 512 and again 512^2 + 512 more
    b = sum(p.numel() for p in networks.find("torchvision:vgg13").module.parameters())
    assert millions["A-LRN"] == millions["A"]
    assert round((b + 256 * 257 + 2 * 512 * 513) / 1e6) == millions["C"]


def test_a_notebook_shows_the_sums_and_what_differs() -> None:
    validation = validate(networks.find("lenet"))
    html = validation._repr_html_()
    assert "0 unexplained" in html
    assert html.count("(total)") == len(validation.totals)
    assert repr(validation).startswith("<Validation of lenet: ")
