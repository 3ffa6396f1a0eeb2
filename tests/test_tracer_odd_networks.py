"""Networks unlike torchvision's: each is traced, and its multiply-accumulates are those of a real run."""

from __future__ import annotations

import itertools
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from odd_networks import ODD, Odd
from torch.nn.parameter import UninitializedTensorMixin
from torch.utils.flop_counter import FlopCounterMode

import costmodel as cm

warnings.filterwarnings("ignore", message=".*weight_norm.*", category=FutureWarning)


CONVOLUTION = 2 * 16 * 16 * 8 * 8 * 3 * 3
"""MACs of the odd networks' usual one."""

BY_HAND = {
    # two directions of two layers, ten steps of four gates: 8 and then 2 x 16 inputs beside the 16 of the state
    "LSTM": 2 * 10 * 4 * 16 * ((8 + 16) + (32 + 16)),
    # query, key, value and output, scores and sums over 5 tokens, feed-forward; then the same for 6 tokens, across too
    "transformer": 2 * (10 * 4 * 256 + 2 * 2 * 25 * 16 + 2 * 10 * 512)
    + (12 * 4 * 256 + 2 * 2 * 36 * 16 + (2 * 12 + 2 * 10) * 256 + 2 * 2 * 30 * 16 + 2 * 12 * 512),
    "bilinear": 2 * 4 * 5 * 6,
    # the largest singular value is u . (W v), W of 8 rows and 8 x 3 x 3 columns
    "spectral_norm, old": 2 * CONVOLUTION + 8 * 72 + 8,
    "parametrized": 3 * CONVOLUTION + 8 * 72 + 8,
    "a gradient inside": 2 * CONVOLUTION,
}
"""What torch's counter does not count or cannot run."""


def _real(shapes: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    def make(value: Any) -> torch.Tensor:
        return value if isinstance(value, torch.Tensor) else torch.rand(value)

    if isinstance(shapes, Mapping):
        return (), {name: make(shape) for name, shape in shapes.items()}
    return tuple(make(shape) for shape in shapes), {}


@pytest.mark.parametrize(("name", "odd"), ODD.items(), ids=ODD)
def test_multiply_accumulates(name: str, odd: Odd) -> None:
    network = odd.make().eval()
    costs = cm.count(cm.trace(network, odd.inputs, target="meta"))
    assert not costs.unmodelled
    if name in BY_HAND:
        assert costs.total.macs == BY_HAND[name]
        return
    args, kwargs = _real(odd.inputs)
    with FlopCounterMode(display=False) as counter:
        network(*args, **kwargs)
    assert 2 * costs.total.macs == counter.get_total_flops()


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_the_network_is_left_alone(odd: Odd) -> None:
    network = odd.make().eval()
    before = {key: (tensor, _values(tensor)) for key, tensor in _tensors(network)}
    settings = [{key: value for key, value in vars(m).items() if key != "forward"} for m in network.modules()]
    cm.trace(network, odd.inputs)
    assert {key: id(tensor) for key, tensor in _tensors(network)} == {key: id(old) for key, (old, _) in before.items()}
    assert all(_values(tensor) == values for tensor, values in before.values())
    for module, known in zip(network.modules(), settings, strict=True):
        assert {key: value for key, value in vars(module).items() if key != "forward"} == known


def _tensors(network: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    return itertools.chain(network.named_parameters(), network.named_buffers())


def _values(tensor: torch.Tensor) -> Any:
    return None if isinstance(tensor, UninitializedTensorMixin) else tensor.tolist()


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_every_way_of_tracing(odd: Odd) -> None:
    expected = cm.count(cm.trace(odd.make(), odd.inputs, target="meta")).total.macs
    ways = ({"target": "cuda"}, {"target": "cpu"}, {"channels_last": True}, {"autocast": "bfloat16"}, {"run": True})
    for options in ways:
        assert cm.count(cm.trace(odd.make(), odd.inputs, **options)).total.macs == expected


def test_a_convolution_padded_by_name() -> None:
    """By hand: 9 x 8 x 8 MACs a place, at 16 x 16 places of 2 images with "same" and at 14 x 14 with "valid"."""
    network = torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3, padding="same"), torch.nn.Conv2d(8, 8, 3, padding="valid"))
    same, valid = cm.count(cm.trace(network, (2, 8, 16, 16))).layers
    assert (same.cost.macs, valid.cost.macs) == (2 * 16 * 16 * 576, 2 * 14 * 14 * 576)
    assert valid.output_shape == (2, 8, 14, 14)


def test_the_first_trace_of_a_process_is_like_the_second() -> None:
    """An operator's first call makes torch import and compile, and leaves cycles that hold on to tensors."""
    script = (
        "import costmodel as cm\n"
        "from odd_networks import ODD\n"
        "for name in ('norms', 'activations', 'LSTM', 'attention', 'Fourier', 'views', 'reshapes in place'):\n"
        "    first, second = (cm.trace(ODD[name].make(), ODD[name].inputs) for _ in range(2))\n"
        "    assert first == second, name\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
