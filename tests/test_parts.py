"""Convolutions, fully connected layers and the rest: by operation, so that attention's projections are not missed."""

from __future__ import annotations

import pytest

from costmodel import count, networks, parts, trace
from costmodel.cost import Costs
from costmodel.formulas import CONV, FC, PARTS, REST


def costs(name: str, batch: int = 1) -> Costs:
    network = networks.find(name)
    return count(trace(network.module, network.inputs(batch), name=name))


def test_a_vision_transformer_by_hand() -> None:
    """ViT-B/16: 196 patches and a class token, 12 blocks of in_proj, out_proj and two layers of an MLP, a head.

    An attention computes Q·K and its product with V, 2·197²·768 MACs, and those are not fully connected layers.
    """
    found = parts.parts(costs("torchvision:vit_b_16"))
    products = 768 * 2304 + 768 * 768 + 2 * 768 * 3072
    biases = 2304 + 768 + 3072 + 768
    assert found[FC].cost.macs == 12 * 197 * products + 768 * 1000
    assert found[FC].flops == 2 * found[FC].cost.macs + 12 * 197 * biases + 1000
    assert found[FC].parameters == 12 * (products + biases) + (768 + 1) * 1000
    assert found[CONV].cost.macs == 196 * 16**2 * 3 * 768
    assert found[CONV].parameters == (16**2 * 3 + 1) * 768
    assert found[REST].cost.macs == 12 * 2 * 197**2 * 768
    # the class token, the positions, and gain and shift of 25 normalizations
    assert found[REST].parameters == 768 + 197 * 768 + 25 * 2 * 768


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("vit_b_16", 1 + 12 * 4 + 1),
        ("swin_t", 1 + 12 * 4 + 3 + 1),  # patches, 12 blocks, 3 mergings of patches, a head
        ("swin_v2_t", 1 + 12 * (4 + 2) + 3 + 1),  # two more to a block make the bias of its positions
        ("vgg16", 13 + 3),
        ("resnet18", 20 + 1),
    ],
)
def test_every_layer_with_weights_is_found(name: str, layers: int) -> None:
    for batch in (1, 4):  # other operators run at other batches
        found = parts.weighted(costs(f"torchvision:{name}", batch), batch)
        assert len(found) == layers
        assert len({entry.layer.name for entry in found}) == layers


def test_a_layer_that_is_called_as_a_function() -> None:
    found = {entry.layer.name: entry for entry in parts.weighted(costs("torchvision:vit_b_16"), 1)}
    entry = found["encoder.layers.encoder_layer_0.self_attention.in_proj"]
    assert (entry.short, entry.part) == ("FC 768 → 2304", FC)
    assert (entry.parameter_formula, entry.layer.parameters) == ("(768+1)·2,304", 769 * 2304)
    assert (entry.mac_formula, entry.layer.cost.macs) == ("197·768·2,304", 197 * 768 * 2304)
    assert entry.reuse == 197


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "torchvision:vit_b_16", "torchvision:swin_v2_t", "lenet"])
def test_the_parts_are_the_whole(name: str) -> None:
    whole = costs(name, 2)
    found = parts.parts(whole)
    assert list(found) == list(PARTS)
    for quantity, total in (
        ("parameters", whole.parameters),
        ("parameter_bytes", whole.parameter_bytes),
        ("output_bytes", whole.total.write_bytes),
        ("flops", whole.total.flops),
    ):
        assert sum(getattr(part, quantity) for part in found.values()) == total
    shares = parts.time_shares(whole, ((entry.operation, entry.kind, 1.0) for entry in whole.operations))
    assert sum(shares.values()) == pytest.approx(1)


def test_the_gradient_of_a_bias_is_its_layer_s() -> None:
    """LeNet's three dense layers, a step with one image: forward, and backward twice, each 2·I·O; a bias adds O in the
    forward, and its gradient is a sum over one image, O FLOPs in this count. The rest acts, pools and learns."""
    network = networks.find("lenet")
    step = count(trace(network.module, network.inputs(1), name="lenet", train=True))
    found = parts.parts(step)
    layers = {layer.name: layer.cost.flops for layer in step.layers}
    assert found[FC].flops == sum(layers[name] for name in ("net.7", "net.9", "net.11"))
    assert found[CONV].flops == sum(layers[name] for name in ("net.0", "net.3"))
    products = 400 * 120 + 120 * 84 + 84 * 10
    biases = 120 + 84 + 10
    assert found[FC].flops == 3 * 2 * products + 2 * biases
    assert sum(part.flops for part in found.values()) == step.total.flops
