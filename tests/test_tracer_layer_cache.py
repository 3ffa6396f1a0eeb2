"""Layers that are written down without being run: the trace is that of running them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_networks import ODD, Odd
from torch import nn

import costmodel as cm
from costmodel.errors import TraceError
from costmodel.networks import find
from costmodel.tracer import module_tracker
from costmodel.tracer.layer_cache import SETTINGS

WAYS: tuple[dict[str, Any], ...] = (
    {"target": "cuda"},
    {"target": "cpu"},
    {"target": "meta"},
    {"channels_last": True},
    {"dtype": "float16"},
    {"autocast": "bfloat16"},
)


def run(network: nn.Module, inputs: Any, **options: Any) -> cm.Trace:
    """The trace with every layer run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module_tracker, "SETTINGS", {})
        return cm.trace(network, inputs, **options)


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_odd_networks(odd: Odd, way: dict[str, Any]) -> None:
    assert cm.trace(odd.make(), odd.inputs, **way) == run(odd.make(), odd.inputs, **way)


@pytest.mark.parametrize(
    "name",
    [
        *("alexnet", "vgg11_bn", "resnet50", "densenet121", "googlenet", "inception_v3", "squeezenet1_0", "mnasnet0_5"),
        *("mobilenet_v2", "mobilenet_v3_large", "shufflenet_v2_x1_0", "efficientnet_b0", "efficientnet_v2_s"),
        *("convnext_tiny", "vit_b_16", "swin_t", "swin_v2_t", "maxvit_t", "regnet_y_400mf", "resnext50_32x4d"),
    ],
)
def test_torchvision(name: str) -> None:
    network = find(f"torchvision:{name}")
    for way in WAYS[:4]:
        assert cm.trace(network.module, network.inputs(2), **way) == run(network.module, network.inputs(2), **way)


def test_one_layer_of_a_kind_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    forward = nn.Conv2d.forward

    def counted(self: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        calls.append(self.out_channels)
        return forward(self, x)

    monkeypatch.setattr(nn.Conv2d, "forward", counted)
    network = nn.Sequential(*[nn.Conv2d(8, 8, 3, padding=1) for _ in range(4)], nn.Conv2d(8, 5, 5, padding=1))
    traced = cm.trace(network, (2, 8, 16, 16))
    assert calls == [8]
    assert [operation.outputs[0].shape for operation in traced.operations[-2:]] == [(2, 8, 16, 16), (2, 5, 14, 14)]
    calls.clear()
    cm.trace(nn.Sequential(network, nn.Conv2d(5, 5, 3, stride=2)), (2, 8, 16, 16))
    assert calls == [8, 5]
    calls.clear()
    cm.trace(network, (2, 8, 16, 16), train=True, loss="sum")
    assert calls == [8, 8, 8, 8, 5]


def test_what_does_not_fit_is_torchs_to_say() -> None:
    for wrong in (nn.Conv2d(7, 8, 3), nn.Conv2d(8, 8, 40), nn.BatchNorm2d(9), nn.LayerNorm(5)):
        fits = {nn.Conv2d: nn.Conv2d(8, 8, 3), nn.BatchNorm2d: nn.BatchNorm2d(8), nn.LayerNorm: nn.LayerNorm(14)}
        messages = []
        for tracing in (cm.trace, run):
            network = nn.Sequential(nn.Conv2d(8, 8, 3), fits[type(wrong)], wrong)
            with pytest.raises(TraceError) as raised:
                tracing(network, (2, 8, 16, 16))
            messages.append(str(raised.value))
        assert messages[0] == messages[1]
        assert "layer '2'" in messages[0]


flags = st.booleans()
few = st.integers(1, 3)


@st.composite
def layers(draw: st.DrawFn) -> nn.Module:
    """A layer of one of the classes that need not be run, of 8 channels."""
    cls = draw(st.sampled_from([nn.Conv2d, nn.BatchNorm2d, nn.LayerNorm, nn.MaxPool2d, nn.AvgPool2d, *_PLAIN]))
    if cls is nn.Conv2d:
        padding = draw(st.sampled_from([0, 1, "same", "valid", (0, 2)]))
        stride = 1 if padding == "same" else draw(few)
        mode = draw(st.sampled_from(["zeros", "zeros", "circular"]))
        shape = (draw(few), draw(few))
        return nn.Conv2d(8, 8, shape, stride, padding, draw(few), draw(st.sampled_from([1, 2, 8])), draw(flags), mode)
    if cls is nn.BatchNorm2d:
        return nn.BatchNorm2d(8, affine=draw(flags), track_running_stats=draw(flags), momentum=draw(momenta))
    if cls is nn.LayerNorm:
        return nn.LayerNorm(draw(st.sampled_from([[5], [5, 5]])), elementwise_affine=draw(flags), bias=draw(flags))
    if cls in (nn.MaxPool2d, nn.AvgPool2d):
        return cls(
            draw(st.sampled_from([2, (2, 3), [2, 2]])), draw(few), draw(st.integers(0, 1)), ceil_mode=draw(flags)
        )
    if cls is nn.AdaptiveAvgPool2d:
        return nn.AdaptiveAvgPool2d(draw(st.sampled_from([1, 3, (2, None), (None, None), (4, 4)])))
    if cls is nn.Softmax:
        return nn.Softmax(draw(st.sampled_from([None, -1, 1])))
    return cls(inplace=True) if "inplace" in SETTINGS[cls] and draw(flags) else cls()


momenta = st.sampled_from([0.1, None])
_PLAIN = [cls for cls in SETTINGS if not SETTINGS[cls] or SETTINGS[cls][0] in ("inplace", "dim", "output_size", "p")]


class _Branches(nn.Module):
    """Each layer on its own, on one of a few tensors of other shapes, types and strides, then on the next."""

    def __init__(self, each: list[nn.Module]) -> None:
        super().__init__()
        self.each = nn.ModuleList(each)

    def forward(self, x: torch.Tensor) -> list[Any]:
        results: list[Any] = [x + 1]
        wide = torch.cat([x, x], 2)
        for layer in self.each:
            for made in (x * 2, wide[:, :, :5], wide.transpose(2, 3), x[:1] + 1, (x * 2)[0], x.to(torch.float64)):
                try:
                    results.append(layer(made))
                except (RuntimeError, ValueError):  # of torch's, about this shape or type
                    results.append(None)
        return results


@settings(max_examples=80, deadline=None)
@given(st.lists(layers(), min_size=1, max_size=4), st.sampled_from(["cuda", "cpu", "meta"]))
def test_any_layers_on_any_tensors(each: list[nn.Module], target: str) -> None:
    network, inputs = _Branches([*each, *each]), (2, 8, 5, 5)
    assert cm.trace(network, inputs, target=target) == run(network, inputs, target=target)
