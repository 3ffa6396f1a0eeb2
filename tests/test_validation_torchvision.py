"""Every torchvision model, against torch's own counter and against the numbers that torchvision publishes."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

from costmodel import networks
from costmodel.cost import Costs, count
from costmodel.networks import zoo
from costmodel.networks.build import build
from costmodel.peers.published import published
from costmodel.tracer import trace
from costmodel.tracer.meta_copy import copy_to_meta
from costmodel.validation import validate
from costmodel.validation.published import published_rows

CLASSIFICATION = [name for name in zoo.names() if zoo.purpose(name) == "classification"]
OTHERS = [name for name in zoo.names() if zoo.purpose(name) in ("segmentation", "video", "optical flow")]
OTHER_SIZES = [
    (name, entry)
    for name in CLASSIFICATION
    for entry in published(name)
    if entry.sizes != tuple(shape.sizes for shape in zoo.input_shapes(name))
]


def counted_by_torch(module: torch.nn.Module, shapes: tuple) -> int:
    """MACs of a forward with gradients enabled, by torch's counter (2 FLOPs each)."""
    copied = copy_to_meta(module).eval()
    with FlopCounterMode(display=False) as counter:
        copied(*(torch.empty(shape.sizes, device="meta") for shape in shapes))
    flops = counter.get_total_flops()
    assert flops % 2 == 0
    return flops // 2


def check(name: str) -> Costs:
    network = networks.find(f"torchvision:{name}")
    costs = count(trace(network.module, network.inputs(), name=network.name))
    assert costs.parameters == sum(parameter.numel() for parameter in network.module.parameters())
    assert costs.total.macs == counted_by_torch(network.module, network.inputs())
    network.module.train()
    with torch.inference_mode():
        again = count(trace(network.module, network.inputs()))
    assert (again.parameters, again.total.macs) == (costs.parameters, costs.total.macs)
    rows, _ = published_rows(network.name, costs)
    assert rows and all(row.ok for row in rows), rows
    return costs


def test_there_are_eighty_classification_models():
    assert len(CLASSIFICATION) >= 80
    assert set(CLASSIFICATION) == set(models.list_models(models))


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_classification_agrees_with_torch_and_with_what_is_published(name):
    check(name)


@pytest.mark.parametrize("name", OTHERS)
def test_segmentation_video_and_flow_agree_as_well(name):
    check(name)


@pytest.mark.parametrize(("name", "entry"), OTHER_SIZES, ids=[entry.source.split()[-1] for _, entry in OTHER_SIZES])
def test_weights_for_another_input_size_agree_with_what_is_published_for_it(name, entry):
    options = {"image_size": entry.sizes[0][-1]} if name.startswith("vit_") else {}
    module = build(lambda: models.get_model(name, weights=None, **options), False, [])
    costs = count(trace(module, (1, *entry.sizes[0])))
    rows, _ = published_rows(f"torchvision:{name}", costs)
    found = {row.source: row.ok for row in rows}
    assert found[entry.source], rows


def test_a_size_that_an_entry_does_not_hold_for_is_a_note():
    network = networks.find("torchvision:alexnet")
    validation = validate(network, (1, 3, 256, 256), peers=["torch flop counter"])
    assert validation.ok
    assert {row.source for row in validation.rows} == {"torch flop counter"}
    assert "torchvision AlexNet_Weights.IMAGENET1K_V1 not compared" in validation.notes[-1]


def test_a_detection_model_is_really_run_by_us_and_by_the_peer_on_the_same_image():
    network = networks.find("torchvision:fasterrcnn_mobilenet_v3_large_320_fpn", real=True)
    validation = validate(network, peers=["torch flop counter"])
    assert validation.ok
    assert any("ran on the CPU" in note for note in validation.notes)
    macs = [row for row in validation.totals if row.phase == "forward"]
    assert [row.source for row in macs] == ["torch flop counter"]  # the image behind the published MACs is not known
    assert macs[0].difference == 0 < macs[0].ours
