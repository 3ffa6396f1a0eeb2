"""What what-ifs save, by hand on small networks; and the timeline in a viewer's format."""

from __future__ import annotations

import json
from typing import Any

import pytest
from torch import nn

from costmodel.errors import InputError
from costmodel.graph import Trace
from costmodel.memory import MemoryWhatIfs, chrome_trace, memory_timeline, memory_what_ifs
from costmodel.memory.what_ifs import checkpointable, phase_peaks
from costmodel.networks.variants import in_place
from costmodel.tracer import trace


def pulled(network: nn.Module, shape: tuple[int, ...], batch: int, **options: Any) -> MemoryWhatIfs:
    def trace_with(batch: int, *, inplace: bool | None = None, **options: Any) -> Trace:
        with in_place(network, inplace):
            return trace(network, (batch, *shape), **options)

    return memory_what_ifs(trace_with, batch, **{"train": True, "loss": "sum"} | options)


@pytest.fixture(scope="module")
def wide() -> MemoryWhatIfs:
    """Mostly parameters: 1000 -> 1000 without bias, one sample, SGD with momentum and weight decay."""
    layer = nn.Linear(1000, 1000, bias=False)
    return pulled(layer, (1000,), 1, optimizer_options={"momentum": 0.9, "weight_decay": 1e-4})


@pytest.fixture(scope="module")
def deep() -> MemoryWhatIfs:
    """Mostly activations: ten layers of 10 -> 10 with ReLUs, 10,000 samples, SGD."""
    layers = [layer for _ in range(10) for layer in (nn.Linear(10, 10), nn.ReLU())]
    return pulled(nn.Sequential(*layers), (10,), 10_000)


def test_levers_on_the_optimizer_by_hand(wide: MemoryWhatIfs) -> None:
    # Weights W = 4 MB, input 4 kB. At the optimizer step: weights, gradient, momentum, and the temporary gradient +
    # decay · weights: 4 W. The backward has 3 W and less than 20 kB of activations and their gradients.
    whole = 4_000_000
    assert wide.memory.peak_operation.phase == "optimizer"
    assert wide.memory.by_role["temporary"] == whole
    for name in ("no weight decay", "fused optimizer"):
        saving = wide[name]
        assert saving.saving_bytes is not None
        assert whole - 20_000 < saving.saving_bytes <= whole
        assert saving.why.startswith("temporary −3.8")
        assert "the peak moves to the backward" in saving.why
    assert wide["no momentum"].saving_bytes == whole
    assert wide["no momentum"].why == "optimizer state −3.81 MiB."
    # one tensor: taken one by one is the same
    assert wide["optimizer tensor by tensor"].saving_bytes == 0


def test_a_lever_that_lowers_a_phase_that_is_not_the_peak(deep: MemoryWhatIfs) -> None:
    assert deep.memory.peak_operation.phase == "backward"
    saving = deep["optimizer tensor by tensor"]
    assert saving.saving_bytes == 0
    assert "the highest is the backward's" in saving.why


def test_in_place_saves_nothing_in_training_and_why(deep: MemoryWhatIfs) -> None:
    # A linear layer keeps its input, a ReLU its output: what is between them was let go at once.
    saving = deep["activations in place"]
    assert saving.saving_bytes == 0
    assert saving.saved_bytes == deep.memory.saved_bytes
    assert "a ReLU keeps its output" in saving.why
    # and the forward's peak is lower by one output: 10,000 · 10 · 4 B
    assert "the forward's peak by 391 KiB" in saving.why


def test_the_batch_by_hand(deep: MemoryWhatIfs) -> None:
    # Nearly all is activations, so half the samples take nearly half.
    peak = deep.memory.peak_bytes
    half = deep["half the batch"]
    assert half.peak_bytes is not None
    parameters = 4 * 10 * (10 * 10 + 10)
    assert peak / 2 <= half.peak_bytes <= peak / 2 + 2 * parameters
    quarter = deep["accumulation over 4 parts"]
    assert quarter.peak_bytes is not None
    assert quarter.peak_bytes < half.peak_bytes
    assert quarter.what_if.batch == 2500


def test_bfloat16_halves_everything(wide: MemoryWhatIfs) -> None:
    saving = wide["bfloat16 throughout"]
    assert saving.saving_bytes == saving.peak_bytes == wide.memory.peak_bytes // 2


def blocks(count: int) -> nn.Module:
    """`net`: blocks of 10 -> 10, tanh, 10 -> 10, tanh."""
    network = nn.Sequential()
    network.add_module("net", nn.Sequential(*(two_layers() for _ in range(count))))
    return network


def two_layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(10, 10), nn.Tanh(), nn.Linear(10, 10), nn.Tanh())


def test_checkpointing_blocks() -> None:
    found = pulled(blocks(6), (10,), 1000)
    saving = found["checkpoint net.*"]
    assert saving.what_if.how == "checkpoint(block, x) of net.*"
    # Block by block only the six inputs stay: 1000 · 10 · 4 B each.
    assert saving.saved_bytes == 6 * 40_000
    # Without, the backward of the last tanh has the twelve outputs of tanhs, with it those inputs that stay and the
    # four maps of the one block (its input is one of the six).
    assert saving.saving_bytes is not None
    assert saving.saving_bytes > 4 * 40_000
    # As one block everything is computed again at once: the backward has what it had.
    alone = pulled(blocks(1), (10,), 1000)
    saving = alone["checkpoint net"]
    assert saving.saving_bytes == 0
    assert "autograd saves 39.1 KiB, not" in saving.why


class Encoder(nn.Module):
    """Blocks with names of their own, as torchvision's transformers have: `encoder.layers.layer_0` ..."""

    def __init__(self, count: int = 3) -> None:
        super().__init__()
        layers = nn.Sequential()
        for index in range(count):
            layers.add_module(f"layer_{index}", two_layers())
        self.encoder = nn.ModuleDict({"layers": layers, "norm": nn.LayerNorm(10)})
        self.head = nn.Sequential(nn.Linear(10, 10))

    def forward(self, x: Any) -> Any:
        return self.head(self.encoder["norm"](self.encoder["layers"](x)))


def test_which_blocks_there_are() -> None:
    pair = nn.Sequential(nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2)))
    assert checkpointable(trace(nn.Sequential(pair), (1, 2))) == [("0.0", "0.1")]
    assert checkpointable(trace(nn.Linear(2, 2), (1, 2))) == []
    # however deep they stand and whatever they are called; what stands alone is no block beside others
    names = tuple(f"encoder.layers.layer_{index}" for index in range(3))
    assert checkpointable(trace(Encoder(), (1, 10))) == [names]
    # blocks of blocks: each depth is a way of its own
    deep = nn.Sequential(blocks(2), blocks(2))
    inner = tuple(f"{outer}.net.{index}" for outer in (0, 1) for index in (0, 1))
    assert checkpointable(trace(deep, (1, 10))) == [("0", "1"), inner]


def test_blocks_by_any_name_are_checkpointed() -> None:
    found = pulled(Encoder(6), (10,), 1000)
    by_name = pulled(blocks(6), (10,), 1000)["checkpoint net.*"]
    saving = found["checkpoint encoder.layers.*"]
    assert saving.saving_bytes is not None and by_name.saving_bytes is not None
    assert saving.saving_bytes >= by_name.saving_bytes
    # one of them is what the trace does when it is told so
    told = trace(Encoder(6), (1000, 10), train=True, loss="sum", checkpoint="encoder.layers.*")
    assert saving.peak_bytes == memory_timeline(told).peak_bytes
    # many blocks in several places: the first and the last name them
    many = nn.Sequential(*(blocks(2) for _ in range(3)))
    assert "checkpoint 0.net.* … 2.net.*" in [what_if.what_if.name for what_if in pulled(many, (10,), 1000)]


def test_another_optimizer_by_hand() -> None:
    # Weights W = 4 MB, one sample. AdamW keeps two tensors of W; SGD with momentum one: weights, gradient, momentum.
    layer = nn.Linear(1000, 1000, bias=False)
    whole = 4_000_000
    found = pulled(layer, (1000,), 1, optimizer="adamw", optimizer_options={"betas": (0.9, 0.99), "foreach": False})
    assert found.memory.by_role["optimizer state"] == 2 * whole  # the number of steps is kept on the host
    for name, tensors in (("SGD without momentum", 2), ("SGD with momentum", 3)):
        peak = found[name].peak_bytes
        assert peak is not None
        assert tensors * whole < peak < tensors * whole + 20_000  # maps of 4 kB
    assert found["SGD with momentum"].what_if.how == "optim.SGD(..., momentum=0.9)"
    assert found["fused optimizer"].what_if.how == "optim.AdamW(..., fused=True)"
    assert "SGD with momentum" not in [each.what_if.name for each in pulled(layer, (1000,), 1)]


def test_what_raises_the_peak_says_so(deep: MemoryWhatIfs) -> None:
    # Three layers of 1000 -> 1000 with one sample, in autocast: the last gradient of 4 MB is cast from one of 2 MB in
    # bfloat16, beside all that there is without autocast but some maps of 4 kB.
    layers = nn.Sequential(*(nn.Linear(1000, 1000, bias=False) for _ in range(3)))
    found = pulled(layers, (1000,), 1, optimizer_options={"foreach": False})
    raising = [each for each in found if (each.saving_bytes or 0) < 0]
    assert [each.what_if.name for each in raising] == ["autocast"]
    assert -2_000_000 <= (raising[0].saving_bytes or 0) < -1_980_000
    assert raising[0].why == "it raises the peak here: temporary +1.90 MiB."
    assert not [each for each in deep if "raises" in each.why]


def test_kept_gradients_can_be_let_go() -> None:
    # Three layers of 1000 -> 1000 and one sample: the backward of the last adds its gradient of 4 MB to one of 4 MB
    # that was kept, where all others stand already.
    layers = nn.Sequential(*(nn.Linear(1000, 1000, bias=False) for _ in range(3)))
    kept = pulled(layers, (1000,), 1, set_to_none=False)["gradients let go"]
    assert kept.what_if.how == "zero_grad(set_to_none=True)"
    assert 4_000_000 <= (kept.saving_bytes or 0) < 4_020_000
    assert "gradients let go" not in [each.what_if.name for each in pulled(layers, (1000,), 1)]


def test_levers_that_change_nothing_are_left_out(deep: MemoryWhatIfs) -> None:
    names = [saving.what_if.name for saving in deep]
    assert "activations not in place" not in names
    assert "no momentum" not in names
    with pytest.raises(KeyError):
        deep["no momentum"]


def test_what_cannot_be_run_says_so() -> None:
    # exp keeps its output, which the activation behind it would overwrite
    class Exponential(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.activation = nn.Linear(4, 4), nn.ReLU()

        def forward(self, x: Any) -> Any:
            return self.activation(self.layer(x).exp())

    saving = pulled(Exponential(), (4,), 2)["activations in place"]
    assert saving.saving_bytes is None
    assert saving.why.startswith("the network cannot be run so: ")


def test_in_place_is_put_back() -> None:
    network = nn.Sequential(nn.ReLU(), nn.ReLU(inplace=True), nn.Dropout())
    with pytest.raises(RuntimeError), in_place(network, True):
        assert [getattr(module, "inplace", None) for module in network] == [True, True, False]
        raise RuntimeError
    assert [getattr(module, "inplace", None) for module in network] == [False, True, False]


def test_levers_are_about_training() -> None:
    with pytest.raises(InputError, match="training"):
        memory_what_ifs(lambda batch, **_: trace(nn.Linear(2, 2), (batch, 2)), 1)


def test_a_frame_and_a_table(wide: MemoryWhatIfs) -> None:
    frame = wide.to_frame()
    assert frame["saving_bytes"].dropna().is_monotonic_decreasing
    assert frame["what_if"].tolist()[0] == "bfloat16 throughout"
    assert "no weight decay" in wide._repr_html_()
    assert repr(wide).startswith("<What-ifs of Linear: ")


def test_phase_peaks_are_the_highest_of_their_phases(deep: MemoryWhatIfs) -> None:
    peaks = phase_peaks(deep.memory)
    assert max(peaks.values()) == peaks["backward"] == deep.memory.peak_bytes
    assert list(peaks) == ["forward", "backward", "optimizer"]


# Chrome's trace event format: each event has ph, name, pid and ts where it has a time; X has dur, C numbers as args.


def test_the_export_is_a_chrome_trace(deep: MemoryWhatIfs) -> None:
    memory = deep.memory
    document = json.loads(json.dumps(chrome_trace(memory, memory.replay)))
    events = document["traceEvents"]
    for event in events:
        assert set(event) >= {"ph", "name", "pid"}
        assert isinstance(event["name"], str)
        if event["ph"] == "X":
            assert event["dur"] >= 1
            assert event["tid"] in (1, 2)
        if event["ph"] == "C":
            assert event["args"]
            assert all(isinstance(value, int) for value in event["args"].values())
        if event["ph"] != "M":
            assert 0 <= event["ts"] < len(memory.trace.operations)
    assert {event["ph"] for event in events} == {"M", "X", "C", "i"}
    peak = next(event for event in events if event["ph"] == "i")
    assert document["otherData"]["peak_index"] == peak["ts"] == memory.live_bytes.index(max(memory.live_bytes))
    assert document["otherData"]["peak_bytes"] == max(memory.live_bytes)
    live = [sum(event["args"].values()) for event in events if event["name"] == "live bytes by role"]
    assert live == list(memory.live_bytes)
    reserved = [event["args"]["bytes"] for event in events if event["name"] == "reserved bytes"]
    assert reserved == list(memory.replay.reserved_bytes)
    phases = [(e["name"], e["ts"], e["dur"]) for e in events if e["ph"] == "X" and e["tid"] == 1]
    assert [name for name, *_ in phases] == ["forward", "backward", "optimizer"]
    assert phases[-1][1] + phases[-1][2] == len(memory.trace.operations)


def test_the_export_without_an_allocator() -> None:
    memory = memory_timeline(trace(nn.Linear(2, 2), (1, 2), target="cpu"))
    names = {event["name"] for event in chrome_trace(memory)["traceEvents"] if event["ph"] == "C"}
    assert names == {"live bytes by role"}
