"""The book's networks: shapes from the book's summaries, parameters from (F^2*C+1)*K and (I+1)*O by hand."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel import networks
from costmodel.errors import InputError
from costmodel.graph import Trace
from costmodel.networks.heads import KINDS, make_head
from costmodel.tracer import trace

DATA = Path(__file__).parent / "data"


def conv(window: int, channels: int, filters: int, groups: int = 1) -> int:
    """Parameters of a convolution: (F^2*C+1)*K, each filter seeing C/groups channels."""
    return (window**2 * channels // groups + 1) * filters


def fc(inputs: int, outputs: int) -> int:
    """Parameters of a fully connected layer: (I+1)*O."""
    return (inputs + 1) * outputs


def parameters(traced: Trace) -> dict[str, int]:
    """Parameters by layer, for the layers that have any."""
    counts: dict[str, int] = {}
    for parameter in traced.parameters:
        if not parameter.buffer:
            counts[parameter.layer] = counts.get(parameter.layer, 0) + math.prod(parameter.tensor.shape)
    return counts


def total(traced: Trace) -> int:
    return sum(parameters(traced).values())


def shapes(traced: Trace) -> dict[str, tuple[int, ...] | None]:
    return {module.path: module.output_shape for module in traced.modules}


# AlexNet: 224 + 2*1 - 11 = 215, and 215 // 4 + 1 = 54; each pool takes n to (n - 3) // 2 + 1: 54, 26, 12, 5.
ALEXNET_CONVOLUTIONS = conv(11, 1, 96) + conv(5, 96, 256) + conv(3, 256, 384) + conv(3, 384, 384) + conv(3, 384, 256)


def test_alexnet_layers() -> None:
    traced = trace(networks.alexnet(), (1, 1, 224, 224))
    made = shapes(traced)
    assert [made[f"net.{i}"] for i in (0, 2, 3, 5, 6, 8, 10, 12)] == [
        (1, 96, 54, 54),
        (1, 96, 26, 26),
        (1, 256, 26, 26),
        (1, 256, 12, 12),
        (1, 384, 12, 12),
        (1, 384, 12, 12),
        (1, 256, 12, 12),
        (1, 256, 5, 5),
    ]
    assert [made[f"net.{i}"] for i in (13, 14, 17, 20)] == [(1, 6400), (1, 4096), (1, 4096), (1, 10)]
    assert parameters(traced) == {
        "net.0": 11_712,  # (121*1 + 1) * 96
        "net.3": 614_656,  # (25*96 + 1) * 256
        "net.6": 885_120,  # (9*256 + 1) * 384
        "net.8": 1_327_488,  # (9*384 + 1) * 384
        "net.10": 884_992,  # (9*384 + 1) * 256
        "net.14": 26_218_496,  # (256*5*5 + 1) * 4096
        "net.17": 16_781_312,  # (4096 + 1) * 4096
        "net.20": 40_970,  # (4096 + 1) * 10
    }
    assert total(traced) == 46_764_746
    assert sum(list(parameters(traced).values())[:5]) == ALEXNET_CONVOLUTIONS == 3_723_968


def test_original_alexnet_is_grouped() -> None:
    network = networks.find("alexnet-grouped")
    traced = trace(network.module, network.inputs())
    made = shapes(traced)
    # (227 - 11) // 4 + 1 = 55; pools: 55, 27, 13, 6
    assert [made[f"net.{i}"] for i in (0, 3, 4, 7, 8, 10, 12, 14)] == [
        (1, 96, 55, 55),
        (1, 96, 27, 27),
        (1, 256, 27, 27),
        (1, 256, 13, 13),
        (1, 384, 13, 13),
        (1, 384, 13, 13),
        (1, 256, 13, 13),
        (1, 256, 6, 6),
    ]
    convolutions = (
        conv(11, 3, 96) + conv(5, 96, 256, 2) + conv(3, 256, 384) + conv(3, 384, 384, 2) + conv(3, 384, 256, 2)
    )
    assert total(traced) == convolutions + fc(256 * 36, 4096) + fc(4096, 4096) + fc(4096, 1000) == 60_965_224


@pytest.mark.parametrize(
    ("layer", "published"),
    [("net.0", 0.42166), ("net.4", 0.89579), ("net.8", 0.59810), ("net.10", 0.44860), ("net.12", 0.29900)],
)
def test_original_alexnet_does_what_eyeriss_counted(layer: str, published: float) -> None:
    """GMACs of batch 4 by layer, as printed by Chen et al. (Eyeriss, JSSC 2017), who round to three digits and more."""
    network = networks.find("alexnet-grouped")
    traced = trace(network.module, network.inputs(4))
    weight = next(p.tensor.shape for p in traced.parameters if p.name == f"{layer}.weight")
    batch, _, height, width = shapes(traced)[layer] or ()
    # each weight meets each output position once
    assert math.prod(weight) * batch * height * width / 1e9 == pytest.approx(published, rel=3e-4)


def test_lenet_layers() -> None:
    traced = trace(networks.lenet(), (1, 1, 28, 28))
    made = shapes(traced)
    assert [made[f"net.{i}"] for i in (0, 2, 3, 5, 6, 7, 9, 11)] == [
        (1, 6, 28, 28),
        (1, 6, 14, 14),
        (1, 16, 10, 10),
        (1, 16, 5, 5),
        (1, 400),
        (1, 120),
        (1, 84),
        (1, 10),
    ]
    assert list(parameters(traced).values()) == [156, 2_416, 48_120, 10_164, 850]
    assert {m.type for m in traced.modules if m.leaf} == {"Conv2d", "Sigmoid", "AvgPool2d", "Flatten", "Linear"}


def test_lenet_with_relu_and_dropout_has_the_parameters_of_lenet() -> None:
    traced = trace(networks.lenet_relu(), (1, 1, 28, 28))
    assert total(traced) == 156 + 2_416 + 48_120 + 10_164 + 850
    assert {m.type for m in traced.modules if m.leaf} >= {"ReLU", "Dropout"}


# VGG: a block's convolutions keep 224x224 and its pool halves it: 112, 56, 28, 14, 7; so 512 * 7 * 7 features remain.
VGG_FILTERS = {
    "vgg11": [64, 128, 256, 256, 512, 512, 512, 512],
    "vgg11-slim": [16, 32, 64, 64, 128, 128, 128, 128],
    "vgg13": [64, 64, 128, 128, 256, 256, 512, 512, 512, 512],
    "vgg16": [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512],
    "vgg19": [64, 64, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512, 512, 512, 512, 512],
}
VGG_TOTALS = {
    # Convolutions of VGG-11 on grey images: 640 + 73,856 + 295,168 + 590,080 + 1,180,160 + 3 * 2,359,808 = 9,219,328.
    # FC layers: 25,089 * 4096 + 4097 * 4096 + 4097 * 10 = 119,586,826.
    "vgg11": 128_806_154,
    # 160 + 4,640 + 18,496 + 36,928 + 73,856 + 3 * 147,584 = 576,832, and 6,273 * 4096 + 16,781,312 + 40,970
    "vgg11-slim": 43_093_322,
    # VGG-11 + (9*64 + 1) * 64 + (9*128 + 1) * 128 = + 36,928 + 147,584
    "vgg13": 128_990_666,
    # VGG-13 + (9*256 + 1) * 256 + 2 * (9*512 + 1) * 512 = + 590,080 + 4,719,616
    "vgg16": 134_300_362,
    # VGG-16 + the same three layers again
    "vgg19": 139_610_058,
}


@pytest.mark.parametrize("name", VGG_FILTERS)
def test_vgg_layers(name: str) -> None:
    network = networks.find(name)
    traced = trace(network.module, network.inputs())
    filters, made = VGG_FILTERS[name], shapes(traced)
    widths = [*dict.fromkeys(filters), filters[-1]]  # the last two blocks are equally wide
    assert [made[f"net.{i}"] for i in range(5)] == [(1, c, 224 >> i, 224 >> i) for i, c in enumerate(widths, start=1)]
    assert [made[f"net.{i}"] for i in (5, 6, 9, 12)] == [(1, widths[-1] * 49), (1, 4096), (1, 4096), (1, 10)]
    convolutions = [conv(3, c, k) for c, k in zip([1, *filters], filters, strict=False)]
    dense = [fc(widths[-1] * 49, 4096), fc(4096, 4096), fc(4096, 10)]
    assert list(parameters(traced).values()) == convolutions + dense
    assert total(traced) == VGG_TOTALS[name]


def test_vgg_summary_shows_eight_rows_for_eleven_layers() -> None:
    """Five blocks and three FC layers; three of the eight convolutions hide as second ones in a block."""
    traced = trace(networks.vgg11(), (1, 1, 224, 224))
    rows = {path.split(".")[1] for path in parameters(traced)}
    assert (len(parameters(traced)), len(rows)) == (11, 8)


PAPER = {"A": "vgg11", "B": "vgg13", "D": "vgg16", "E": "vgg19"}  # A-LRN and C (1x1 convolutions) are not the book's


@pytest.mark.parametrize("configuration", PAPER)
def test_vgg_has_the_parameters_of_the_paper(configuration: str) -> None:
    lines = (DATA / "vgg_paper_table2.csv").read_text().splitlines()
    table = {row["configuration"]: row for row in csv.DictReader(line for line in lines if not line.startswith("#"))}
    traced = trace(networks.find(PAPER[configuration], classes=1000).module, (1, 3, 224, 224))
    assert round(total(traced) / 1e6) == int(table[configuration]["parameters_millions"])
    assert len(parameters(traced)) == int(table[configuration]["layers"])


@pytest.mark.parametrize("name", ["vgg11", "vgg13", "vgg16", "vgg19"])
def test_vgg_is_torchvisions_at_its_input(name: str) -> None:
    ours = trace(networks.find(name, classes=1000).module, (1, 3, 224, 224))
    theirs = networks.find(f"torchvision:{name}")
    assert list(parameters(ours).values()) == list(parameters(trace(theirs.module, theirs.inputs())).values())


def test_networks_for_28x28() -> None:
    for name, last_maps in (("alexnet28", (1, 128, 2, 2)), ("vgg28", (1, 128, 3, 3))):
        network = networks.find(name)
        made = shapes(trace(network.module, network.inputs()))
        assert last_maps in made.values() and made[""] == (1, 10)
    # 28 -> 13 -> 6 -> 2, with filters 48, 128, 192, 192, 128
    convolutions = conv(5, 1, 48) + conv(5, 48, 128) + conv(3, 128, 192) + conv(3, 192, 192) + conv(3, 192, 128)
    dense = fc(512, 512) + fc(512, 512) + fc(512, 10)
    assert total(trace(networks.alexnet28(), (1, 1, 28, 28))) == convolutions + dense
    # 28 -> 14 -> 7 -> 3, two convolutions a block of 32, 64, 128
    filters = [32, 32, 64, 64, 128, 128]
    convolutions = sum(conv(3, c, k) for c, k in zip([1, *filters], filters, strict=False))
    dense = fc(1152, 512) + fc(512, 512) + fc(512, 10)
    assert total(trace(networks.vgg28(), (1, 1, 28, 28))) == convolutions + dense


def test_simplified_alexnet_is_much_smaller() -> None:
    filters = [24, 64, 96, 96, 64]  # a quarter of AlexNet's
    convolutions = sum(
        conv(window, c, k) for window, c, k in zip([11, 5, 3, 3, 3], [1, *filters], filters, strict=False)
    )
    dense = fc(64 * 25, 512) + fc(512, 512) + fc(512, 10)
    traced = trace(networks.alexnet_fashion(), (1, 1, 224, 224))
    assert total(traced) == convolutions + dense
    assert total(traced) < 46_764_746 / 30


VARIANTS = {
    "alexnet-gap": ALEXNET_CONVOLUTIONS + fc(256, 10),
    "alexnet-conv1x1": ALEXNET_CONVOLUTIONS + conv(1, 256, 512) + conv(1, 512, 10),
    "alexnet-fullconv": 46_764_746,  # the same weights in another shape
    "alexnet-width1024": ALEXNET_CONVOLUTIONS + fc(6400, 1024) + fc(1024, 1024) + fc(1024, 10),
    # W (4096 x 6400) becomes 4096x256 times 256x6400; the last layer, 10 x 4096, would only grow
    "alexnet-lowrank256": ALEXNET_CONVOLUTIONS + 6400 * 256 + fc(256, 4096) + 4096 * 256 + fc(256, 4096) + fc(4096, 10),
    # 14,714,688 = convolutions of VGG-16 on colour images; here the last layer, 1000 x 4096, shrinks as well
    "torchvision:vgg16-gap": 14_714_688 + fc(512, 1000),
    "torchvision:vgg16-conv1x1": 14_714_688 + conv(1, 512, 512) + conv(1, 512, 1000),
    "torchvision:vgg16-fullconv": 138_357_544,  # torchvision's VGG-16
    "torchvision:vgg16-width512": 14_714_688 + fc(25088, 512) + fc(512, 512) + fc(512, 1000),
    "torchvision:vgg16-lowrank256": (
        14_714_688 + 25088 * 256 + fc(256, 4096) + 4096 * 256 + fc(256, 4096) + 4096 * 256 + fc(256, 1000)
    ),
    "torchvision:alexnet-gap": 2_469_696 + fc(256, 1000),  # 61,100,840 less 9217*4096 + 4097*4096 + 4097*1000
}


@pytest.mark.parametrize("name", VARIANTS)
def test_cheaper_heads(name: str) -> None:
    network = networks.find(name)
    assert total(trace(network.module, network.inputs())) == VARIANTS[name]


def test_fully_convolutional_head_does_the_same_arithmetic() -> None:
    """On the image it is made for, its windows cover the maps, so that each weight is used once, as in an FC layer."""
    network = networks.find("alexnet-fullconv")
    traced = trace(network.module, network.inputs())
    heads = [path for path, module in traced.module_by_path.items() if module.type == "Conv2d"][5:]
    assert [shapes(traced)[path] for path in heads] == [(1, 4096, 1, 1), (1, 4096, 1, 1), (1, 10, 1, 1)]


@pytest.mark.parametrize("info", [i for i in networks.names() if "variants" in i.group], ids=lambda info: info.name)
def test_every_variant_scores_its_classes_with_no_more_parameters(info: networks.NetworkInfo) -> None:
    base = info.name.rpartition("-")[0]
    made = {}
    for name in (base, info.name):
        network = networks.find(name)
        traced = trace(network.module, network.inputs())
        assert traced.outputs[0].shape == (1, info.classes)
        made[name] = total(traced)
    assert made[info.name] < made[base] or (info.name.endswith("fullconv") and made[info.name] == made[base])


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 4096), st.integers(1, 3))
def test_any_width_can_be_had(width: int, batch: int) -> None:
    network = networks.find(f"alexnet-width{width}")
    traced = trace(network.module, network.inputs(batch))
    assert total(traced) == ALEXNET_CONVOLUTIONS + fc(6400, width) + fc(width, width) + fc(width, 10)
    assert traced.outputs[0].shape == (batch, 10)


@pytest.mark.parametrize("kind", ["", "gapp", "width", "lowrank", "width0", "width4097", "lowrank9999999999", "rank-1"])
def test_unknown_heads(kind: str) -> None:
    with pytest.raises(InputError, match="head"):
        make_head(kind, 10, 7)


@pytest.mark.parametrize("kind", ["dense", *KINDS])
def test_heads_run(kind: str) -> None:
    """Not only on paper: a small VGG with each head scores real images, whose maps are 7x7 after two blocks."""
    network = networks.vgg(((1, 2), (1, 4)), num_classes=3, head=kind)
    assert network(torch.zeros(2, 1, 28, 28)).shape == (2, 3)


def test_builders_allocate_nothing_until_they_see_an_input() -> None:
    uninitialized = torch.nn.parameter.UninitializedParameter
    for make in (networks.vgg19, networks.alexnet, networks.alexnet_grouped, networks.lenet):
        assert all(isinstance(parameter, uninitialized) for parameter in make().parameters())
