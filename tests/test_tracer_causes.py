"""What is said of networks that cannot be traced, and what a forward may do with tensors of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import costmodel as cm
from costmodel.errors import TraceError


class Calls(nn.Module):
    """A linear layer, and one call with its output."""

    def __init__(self, function: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.linear, self.function = nn.Linear(8, 8), function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self.linear(x))


def _cond(x: torch.Tensor) -> torch.Tensor:
    return torch.cond(x.sum() > 1, lambda y: y * 2, lambda y: y + 1, (x,))


def _map(x: torch.Tensor) -> torch.Tensor:
    from torch._higher_order_ops.map import map as over

    return over(lambda y: y * 2, x)


def _flex(x: torch.Tensor) -> torch.Tensor:
    from torch.nn.attention.flex_attention import flex_attention

    heads = x.reshape(1, 1, 8, 2)
    return flex_attention(heads, heads, heads)


def _nested(layout: torch.layout) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: torch.nested.as_nested_tensor([x[:1], x], layout=layout) * 2


def _sparse(x: torch.Tensor) -> torch.Tensor:
    places = torch.zeros(1, 1, dtype=torch.int64)
    return torch.sparse_coo_tensor(places, torch.ones(1), (8,), check_invariants=False) + x


def _without_meta(x: torch.Tensor) -> torch.Tensor:
    return x.to_sparse()


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (_cond, r"uses torch\.cond, whose branches depend on values"),
        (_map, "uses torch's operator map"),
        (_flex, "uses flex_attention, which is not modelled"),
        (_nested(torch.jagged), "uses nested tensors"),
        (_nested(torch.strided), "uses nested tensors"),
        (_sparse, "uses a sparse tensor: only dense ones"),
        (_without_meta, r"calls aten::_to_sparse.*no meta kernel.*--run"),
        (lambda x: torch.zeros(2, 8).type(x.type()), r"torch\.meta\.FloatTensor.*use \.to\(x\.dtype\)"),
        (lambda x: torch.rand(2, generator=torch.Generator(device=x.device)), "asks for a generator"),
        (lambda x: torch.stft(x[0], 8, window=torch.hann_window(8), return_complex=True), "with device=x.device"),
        (lambda x: x.cpu(), r"moves a tensor to another device.*--run"),
        (lambda x: x.tolist(), r"looks at its values.*--run"),
    ],
)
@pytest.mark.parametrize("target", ["cuda", "meta"])
def test_why_it_cannot_be_traced(function: Callable[[torch.Tensor], Any], said: str, target: str) -> None:
    with pytest.raises(TraceError, match=said) as raised:
        cm.trace(Calls(function), (2, 8), target=target)
    assert "is that what it takes" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="here CUDA can be named")
@pytest.mark.parametrize("function", [lambda x: x.to("cuda"), lambda x: x.cuda(), lambda x: x + torch.ones(8).cuda()])
def test_a_device_by_name(function: Callable[[torch.Tensor], Any]) -> None:
    with pytest.raises(TraceError, match="names the device 'cuda': use its input's device"):
        cm.trace(Calls(function), (2, 8))


TABLE = torch.ones(8)


@pytest.mark.parametrize("run", [False, True])
@pytest.mark.parametrize("table", [lambda _: TABLE, lambda _: torch.arange(8.0), lambda x: TABLE.to(x.device)])
def test_copies_of_tables(table: Callable[[torch.Tensor], torch.Tensor], run: bool) -> None:
    traced = cm.trace(Calls(lambda x: x * copy.deepcopy(table(x))), (2, 8), run=run)
    assert cm.count(traced).total.macs == 2 * 8 * 8
    assert traced.outputs[0].shape == (2, 8)


def test_sequences_of_known_lengths() -> None:
    """Four gates, each of 8 inputs and a state of 8: of the 3 + 2 tokens that there are, not of the 2 x 3 places."""
    lstm = nn.LSTM(8, 8, batch_first=True)

    class Packs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = lstm

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            packed = pack_padded_sequence(x, [3, 2], batch_first=True)
            return pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]

    traced = cm.trace(Packs(), (2, 3, 8), target="meta")
    assert cm.count(traced).total.macs == 5 * 4 * 8 * (8 + 8)
    assert traced.outputs[0].shape == (2, 3, 8)
    assert cm.count(cm.trace(Packs(), (2, 3, 8), run=True)).total.macs == 5 * 4 * 8 * (8 + 8)


def test_lengths_that_are_inputs_have_no_values() -> None:
    class Packs(nn.Module):
        def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            return pack_padded_sequence(x, lengths, batch_first=True).data

    with pytest.raises(TraceError, match="--run"):
        cm.trace(Packs(), [(2, 3, 8), torch.tensor([3, 2])])
