"""The claims of the notes and of the book: every figure by hand, and verdicts that follow the figures."""

from __future__ import annotations

from functools import cache

import pytest
from by_hand import ALEXNET, VGG11, rows
from holding import hold

from costmodel import device, networks
from costmodel.book import markdown
from costmodel.book.chapters.claims import claims, numbers
from costmodel.book.engine import section
from costmodel.book.model import Report
from costmodel.book.study import Study
from costmodel.peers.mem_tracker import tracked_peak

H200 = device("h200")


@cache
def study(name: str) -> Study:
    return Study.of(networks.find(name))


def step_bytes(name: str) -> int:
    """The peak of a training step of 64 images, by torch's MemTracker."""
    network = networks.find(name)
    return tracked_peak(
        network.module, network.inputs(64), optimizer="sgd", optimizer_options={"momentum": 0.9, "weight_decay": 5e-4}
    )


def test_every_claim_by_hand() -> None:
    """AlexNet's, VGG-11's and LeNet's layers by their shapes.

    The one-tower AlexNet for 3x227x227 and 1000 classes has 62,378,344 parameters; torchvision prints 61,100,840.
    Where AlexNet's memory is at its peak with one image, in the optimizer, it holds parameters, gradients, momentum and
    a temporary as large as all of them, and the input, its labels and no activation.
    """
    large = networks.find("alexnet", classes=1000, shapes=("3x227x227",))
    named = {name: study(name) for name in ("alexnet", "vgg11", "lenet", "torchvision:alexnet")}
    named["alexnet-227"] = Study.of(large, "alexnet-227", "for 227")
    one, many, deep = rows(ALEXNET), rows(ALEXNET, 64), rows(VGG11, 64)
    fc, flops = [row for row in one if row.kind == "fc"], sum(row.flops for row in one)
    bounds = [[row.bound_seconds() for row in found] for found in (one, many, deep)]
    of_fc = [sum(row.bound_seconds() for row in found if row.kind == "fc") for found in (one, many)]
    steps = step_bytes("alexnet"), step_bytes("vgg11")
    weights = 187_058_984
    held = {kind: sum(row.parameters for row in deep if row.kind == kind) for kind in ("conv", "fc")}
    outputs = {kind: sum(row.write_bytes for row in deep if row.kind == kind) for kind in ("conv", "fc")}
    written = sum(row.write_bytes for row in deep)
    found = numbers(named, H200)
    assert found.overhead is not None
    inference, step = found.overhead.inference.peak_bytes, found.overhead.step.peak_bytes
    # inference holds the weights, and at most an input beside an output of the largest pair: 96 maps of 54 x 54, twice
    assert weights + 2 * 4 * 96 * 54**2 <= inference <= weights + 4 * (224**2 + 2 * 96 * 54**2)
    assert 4 * weights <= step <= 4 * weights * 1.01
    hold(
        found,
        {
            "device": "NVIDIA H200 SXM",
            "batch": 64,
            "close_share": 0.05,
            "big_ratio": 2,
            "claims": 10,
            "holds": 3,  # the formula of a window, slower and larger, almost 400 MB
            "refuted": 3,  # I·O, nearly 1 GB, ten times the channels
            "depends": 4,
            "sixty_million": {
                "verdict": "depends",
                "networks": [
                    {"network": "AlexNet (book)", "parameters": 46_764_746, "off_share": 46_764_746 / 60e6 - 1},
                    {"network": "for 227", "parameters": 62_378_344, "off_share": 62_378_344 / 60e6 - 1},
                    {"network": "AlexNet (torchvision)", "parameters": 61_100_840, "off_share": 61_100_840 / 60e6 - 1},
                ],
            },
            "inputs_times_outputs": {
                "verdict": "refuted",
                "what": "FC 25088 → 4096",
                "parameters": 25_089 * 4096,
                "products": 25_088 * 4096,
                "right": 0,
                "layers": 3 * 5,
            },
            "window_formula": {
                "verdict": "holds",
                "what": "conv 3×3, 512 → 512",
                "parameters": (9 * 512 + 1) * 512,
                "products": 9 * 512 * 512,
                "right": 5 + 8 + 2 + 5 + 5,
                "layers": 25,
            },
            "head": {
                "verdict": "depends",
                "parameters_share": 43_040_778 / 46_764_746,
                "flops_share": sum(row.flops for row in fc) / flops,
                "time_share": of_fc[0] / sum(bounds[0]),
                "batch_time_share": of_fc[1] / sum(bounds[1]),
            },
            "overhead": {
                "verdict": "depends",
                "parameter_bytes": weights,
                "inference": {"peak_bytes": inference, "ratio": inference / weights},
                "step": {"peak_bytes": step, "ratio": step / weights},
                "batch_step": {"peak_bytes": steps[0], "ratio": steps[0] / weights},
            },
            "gigabyte": {
                "verdict": "refuted",
                "what": "FC 6400 → 4096; FC 4096 → 4096",
                "size_bytes": 171_999_232,  # 4·(26,218,496 + 16,781,312)
                "trained_bytes": 3 * 171_999_232,
            },
            "channels": {
                "verdict": "refuted",
                "convolutions": [
                    {"alexnet": 96, "lenet": 6, "ratio": 16},
                    {"alexnet": 256, "lenet": 16, "ratio": 16},
                ],
                "alexnet": 96 + 256 + 384 + 384 + 256,
                "lenet": 22,
            },
            "slower": {
                "verdict": "holds",
                "network": "VGG-11 (book)",
                "flops_ratio": sum(row.flops for row in deep) / (64 * flops),
                "bound_ratio": sum(bounds[2]) / sum(bounds[1]),
                "memory_ratio": steps[1] / steps[0],
            },
            "dominates": [
                {
                    "verdict": "depends",
                    "network": "VGG-11 (book)",
                    "conv_parameters_share": held["conv"] / 128_806_154,
                    "conv_output_share": outputs["conv"] / written,
                    "fc_parameters_share": held["fc"] / 128_806_154,
                    "fc_output_share": outputs["fc"] / written,
                }
            ],
            "matrix": {
                "verdict": "holds",
                "what": "FC 25088 → 4096",
                "size_bytes": 411_058_176,
                "trained_bytes": 3 * 411_058_176,
            },
        },
    )
    text = markdown.render(Report("x", (), (section(claims(named, H200)),)))
    assert "AlexNet (book): 46.8 M (−22.1 %); for 227: 62.4 M (+4.0 %); AlexNet (torchvision): 61.1 M (+1.8 %)." in text
    assert "the counts bear out 3 and refute 3; 4 depend on what is meant" in text


def test_verdicts_follow_the_numbers() -> None:
    """Another network under AlexNet's name turns verdicts round."""
    found = numbers({"alexnet": study("alexnet-gap")}, H200)
    assert found.sixty_million is not None
    assert found.head is not None
    assert (found.sixty_million.verdict, found.head.verdict) == ("refuted", "refuted")


@pytest.mark.parametrize("name", ["lenet", "torchvision:resnet18"])
def test_where_no_claim_is_about_a_network_that_is_said(name: str) -> None:
    found = claims({name: study(name)}, H200)
    assert (found.numbers.claims, found.numbers.dominates, found.numbers.matrix) == (0, (), None)
    said = section(found)
    assert said.answer == ""
    assert "nothing was checked" in str(said.blocks)
