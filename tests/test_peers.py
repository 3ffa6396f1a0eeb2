"""Each peer on a network small enough to count by hand, and on users' modules that must not notice."""

from __future__ import annotations

import importlib.metadata
import logging
import sys

import pytest
import torch
from torch import nn

from costmodel.errors import InputError
from costmodel.peers import PEERS, PeerAnswer, ask
from costmodel.peers.published import published


class Tiny(nn.Module):
    """For an input of 1 x 1 x 4 x 4:

    conv   2 channels of 2 x 2 pixels from 1 x 3 x 3 windows: 2 x 4 x 9 = 72 MACs; 2 x 9 + 2 = 20 parameters
    norm   2 x 4 = 8 elements; 2 + 2 = 4 parameters
    pool   8 elements in, 2 out
    linear 2 x 3 = 6 MACs; 6 + 3 = 9 parameters
    square 3 elements multiplied, by the network itself
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)
        self.pool, self.linear = nn.AdaptiveAvgPool2d(1), nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(self.pool(self.norm(self.conv(x))).flatten(1))
        return y * y


SHAPE = (1, 1, 4, 4)


def layers(answer: PeerAnswer, phase: str) -> dict[str, int]:
    return {layer: sum(operators.values()) for layer, operators in answer.amounts(phase).items()}


def test_torchs_flop_counter_counts_two_a_mac_of_contractions():
    answer = ask("torch flop counter", Tiny().eval(), SHAPE)
    assert layers(answer, "forward") == {"conv": 2 * 72, "linear": 2 * 6}
    assert answer.total() == 156
    assert answer.findings.parameters == {"conv": 20, "norm": 4, "linear": 9}
    assert answer.device == "meta"
    assert answer.version == importlib.metadata.version("torch")


def test_torchs_flop_counter_gives_the_backward_to_the_layers():
    answer = ask("torch flop counter", Tiny(), (2, 1, 4, 4), train=True)
    # twice the batch; the convolution has a gradient of its weight only, the input wants none; the linear layer both
    assert layers(answer, "forward") == {"conv": 2 * 2 * 72, "linear": 2 * 2 * 6}
    assert layers(answer, "backward") == {"conv": 2 * 2 * 72, "linear": 2 * 2 * 2 * 6}


def test_fvcore_counts_one_a_mac_and_elements_of_norms_and_adaptive_pools():
    answer = ask("fvcore", Tiny().eval(), SHAPE)
    # a batch norm outside training counts 2 an element, an adaptive pool 1 an element of its input
    assert layers(answer, "forward") == {"conv": 72, "norm": 2 * 8, "pool": 8, "linear": 6}
    assert answer.findings.parameters == {"conv": 20, "norm": 4, "linear": 9}
    assert dict(answer.findings.unsupported or {})[""] == {"aten::mul": 1}
    assert answer.device in ("meta", "cpu")
    assert any("aten::mul" in warning for warning in answer.warnings)


def test_the_profiler_counts_two_a_mac_and_the_elements_of_multiplications():
    answer = ask("torch profiler", Tiny().eval(), SHAPE)
    assert layers(answer, "forward") == {"conv": 2 * 72, "linear": 2 * 6, "": 3}
    assert answer.findings.parameters is None


def test_the_profiler_has_no_formula_for_a_convolutions_backward():
    answer = ask("torch profiler", Tiny(), (2, 1, 4, 4), train=True)
    # y * y: both factors' gradients multiply 6 elements each, and their sum adds 6
    assert layers(answer, "backward") == {"linear": 2 * 2 * 2 * 6, "": 18}


def test_the_profilers_backward_of_an_in_place_dropout_goes_to_the_dropout():
    flat = nn.Sequential(nn.Linear(4, 4), nn.Flatten(), nn.Dropout(0.5, inplace=True), nn.Linear(4, 2))
    answer = ask("torch profiler", flat, (3, 1, 4), train=True)
    # flatten is a view, of which an in-place multiplication makes two nodes; its backward multiplies 3 x 4 elements
    assert layers(answer, "backward") == {"3": 2 * 2 * 3 * 4 * 2, "2": 12, "0": 2 * 3 * 4 * 4}


@pytest.mark.parametrize("peer", PEERS)
def test_a_module_used_twice_is_counted_twice_under_its_first_path(peer):
    shared = nn.Linear(4, 4)
    answer = ask(peer, nn.Sequential(nn.Sequential(shared, nn.ReLU()), shared, nn.Sequential(shared)), (2, 4))
    # 2 x 4 x 4 = 32 MACs a call
    assert layers(answer, "forward") == {"0.0": 3 * 32 * answer.peer.flops_per_mac}
    assert answer.findings.parameters in (None, {"0.0": 20})


@pytest.mark.parametrize("peer", PEERS)
def test_lazy_modules_take_their_shapes_on_the_twin(peer):
    network = nn.Sequential(nn.LazyConv2d(2, 3), nn.Flatten(), nn.LazyLinear(3))
    answer = ask(peer, network, SHAPE)
    # 72 as above, and 8 x 3 = 24
    assert layers(answer, "forward") == {"0": 72 * answer.peer.flops_per_mac, "2": 24 * answer.peer.flops_per_mac}
    assert network[0].has_uninitialized_params() and network[2].has_uninitialized_params()


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("train", [False, True])
def test_the_users_module_does_not_notice(peer, train):
    network = Tiny().eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    attributes = {path: set(vars(module)) for path, module in network.named_modules()}
    ask(peer, network, SHAPE if not train else (2, 1, 4, 4), train=train)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert {path: set(vars(module)) for path, module in network.named_modules()} == attributes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert not network.training
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("peer", PEERS)
def test_peers_are_quiet(peer, capfd, caplog, recwarn):
    ask(peer, nn.Linear(2, 2), (1, 2))  # what importing them says is not their answer
    capfd.readouterr()
    handlers = list(logging.getLogger().handlers)
    ask(peer, nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2)), SHAPE)
    assert logging.getLogger().handlers == handlers
    assert capfd.readouterr() == ("", "")
    assert not caplog.records and not recwarn.list


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_callers_modes_do_not_matter(peer, mode):
    network = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    with mode():
        inside = ask(peer, network, (1, 5, 8))
    assert inside.problem is None
    assert inside.findings.readings == ask(peer, network, (1, 5, 8)).findings.readings


@pytest.mark.parametrize("peer", PEERS)
def test_a_forward_that_raises_is_an_answer(peer):
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("broken\nin several lines")

    answer = ask(peer, Broken(), (1, 2))
    assert answer.problem is not None
    assert answer.problem.startswith("could not run:") and "RuntimeError: broken" in answer.problem
    assert "\n" not in answer.problem
    assert answer.total() == 0 and not answer.device


NOT_INSTALLED = "could not run: fvcore is not installed: pip install 'costmodel[validate]' brings it"


def test_a_peer_that_is_not_installed_is_an_answer(monkeypatch):
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert ask("fvcore", Tiny(), SHAPE).problem == NOT_INSTALLED


def test_a_peer_that_cannot_be_imported_is_an_answer(monkeypatch):
    monkeypatch.delitem(sys.modules, "costmodel.peers.fvcore", raising=False)
    monkeypatch.setitem(sys.modules, "fvcore.nn", None)
    assert ask("fvcore", Tiny(), SHAPE).problem == NOT_INSTALLED


def test_fvcore_takes_no_keywords():
    problem = ask("fvcore", nn.Linear(2, 2), {"input": (1, 2)}).problem
    assert problem is not None and "positional" in problem
    assert ask("torch flop counter", nn.Linear(2, 2), {"input": (1, 2)}).total() == 8  # 2 x 2 x 2


def test_an_unknown_peer_answers_with_the_nearest():
    with pytest.raises(InputError, match="Did you mean fvcore"):
        ask("fvcor", Tiny(), SHAPE)


def test_inputs_that_cannot_be_used_are_the_callers_error():
    with pytest.raises(InputError):
        ask("torch flop counter", Tiny(), "1x1y4")


def test_with_run_the_values_decide():
    class Deep(nn.Module):
        """Runs its layer as often as the first element says."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(int(x[0, 0])):
                x = self.layer(x)
            return x

    given = torch.full((1, 2), 3.0)
    answer = ask("torch flop counter", Deep(), given, run=True)
    assert (answer.total(), answer.device) == (3 * 2 * 4, "cpu")  # three calls of 4 MACs
    assert ask("torch flop counter", Deep(), (1, 2)).device != "meta"  # which has no values; on the CPU they are random


def test_on_the_cpu_weights_are_stand_ins_that_occupy_nothing():
    from costmodel.peers.subject import prepare

    tied = nn.Linear(1000, 1000)
    network = nn.Sequential(tied, nn.Linear(1000, 1000), nn.BatchNorm1d(1000))
    network[1].weight = tied.weight
    copied = prepare(network, (2, 1000), device="cpu", train=False, run=False).network
    assert copied[0].weight is copied[1].weight and not copied[0].weight.is_meta
    assert copied[0].weight.untyped_storage().nbytes() == 4  # one float32
    assert sum(parameter.numel() for parameter in copied.parameters()) == 1_000_000 + 4 * 1000


def test_what_torchvision_publishes_of_alexnet():
    # pytorch.org/vision/stable/models/generated/torchvision.models.alexnet.html: 61100840 parameters, 0.71 GFLOPS
    (entry,) = published("alexnet")
    assert (entry.parameters, entry.gigamacs, entry.sizes, entry.classes) == (61100840, 0.714, ((3, 224, 224),), 1000)


def test_names_that_torchvision_does_not_have_publish_nothing():
    assert published("alexnet-gap") == ()
