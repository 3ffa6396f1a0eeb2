"""The book's formulas with a layer's numbers: what is printed must evaluate to what is counted."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from costmodel import count, trace
from costmodel.formulas import Weighted, parameter_formula
from costmodel.graph import Module


def value(formula: str) -> int:
    """What a formula amounts to."""
    text = formula.replace(",", "").replace("²", "**2").replace("³", "**3").replace("·", "*")
    assert re.fullmatch(r"[0-9+*()]+", text)
    return int(eval(text))


def weighted(network: nn.Module, shape: tuple[int, ...]) -> list[Weighted]:
    costs = count(trace(network, shape))
    modules = costs.trace.module_by_path
    return [Weighted(layer, modules[layer.name], shape[0]) for layer in costs.layers if layer.parameters]


def conv(window: tuple[int, ...], channels: int, filters: int, groups: int = 1) -> Module:
    settings = {"kernel_size": window, "in_channels": channels, "out_channels": filters, "groups": groups}
    return Module("layer", "Conv2d", True, settings=settings)


def linear(inputs: int, outputs: int) -> Module:
    return Module("layer", "Linear", True, settings={"in_features": inputs, "out_features": outputs})


@pytest.mark.parametrize(
    ("module", "parameters", "formula"),
    [
        (conv((11, 11), 1, 96), 11_712, "(11²·1+1)·96"),  # 121 x 96 weights and 96 biases
        (conv((11, 11), 1, 96), 11_616, "11²·1·96"),  # without a bias
        (conv((3, 5), 4, 8), 488, "(3·5·4+1)·8"),  # 60 x 8 + 8
        (conv((3, 3), 32, 32, groups=32), 320, "(3²·1+1)·32"),  # depthwise: 9 x 32 + 32
        (conv((2, 2, 2), 3, 5), 125, "(2³·3+1)·5"),  # 24 x 5 + 5
        (conv((7,), 3, 5), 110, "(7·3+1)·5"),  # 21 x 5 + 5
        (conv((3, 3), 2, 2), 999, ""),  # something else is in there
        (linear(6400, 4096), 26_218_496, "(6,400+1)·4,096"),
        (Module("norm", "BatchNorm2d", True, settings={"num_features": 64}), 128, ""),
        (Module("act", "ReLU", True), 0, ""),
    ],
)  # fmt: skip
def test_parameters_by_hand(module: Module, parameters: int, formula: str) -> None:
    assert parameter_formula(module, parameters) == formula
    assert not formula or value(formula) == parameters


@settings(deadline=None)
@given(
    window=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    channels=st.integers(1, 3),
    filters=st.integers(1, 3),
    groups=st.integers(1, 3),
    bias=st.booleans(),
    transposed=st.booleans(),
)
def test_formulas_of_convolutions_evaluate_to_the_counts(
    window: tuple[int, int], channels: int, filters: int, groups: int, bias: bool, transposed: bool
) -> None:
    make = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer = make(channels * groups, filters * groups, window, groups=groups, bias=bias, device="meta")
    (entry,) = weighted(nn.Sequential(layer), (2, channels * groups, 6, 5))
    assert value(entry.parameter_formula) == entry.layer.parameters
    assert 2 * value(entry.mac_formula) == entry.layer.cost.macs  # the batch is 2, the formula is for one image


def test_macs_by_hand() -> None:
    """AlexNet's second convolution: 26 x 26 pixels of 256 filters, each of 5 x 5 x 96 products."""
    (entry,) = weighted(nn.Sequential(nn.Conv2d(96, 256, 5, padding=2, device="meta")), (4, 96, 26, 26))
    assert entry.mac_formula == "26·26·5²·96·256"
    assert entry.layer.cost.macs == 4 * 415_334_400
    assert entry.reuse == 676  # a weight for each of the 26 x 26 pixels
    assert entry.short == "conv 5×5, 96 → 256"


def test_a_linear_layer_on_tokens_has_its_positions() -> None:
    (entry,) = weighted(nn.Sequential(nn.Linear(8, 3, device="meta")), (2, 5, 8))
    assert entry.mac_formula == "5·8·3"
    assert entry.reuse == 5
    assert entry.short == "FC 8 → 3"


def test_a_layer_that_is_called_twice_has_twice_the_macs() -> None:
    layer = nn.Linear(4, 4, device="meta")
    (entry,) = weighted(nn.Sequential(layer, layer), (1, 4))
    assert value(entry.mac_formula) == entry.layer.cost.macs == 32
