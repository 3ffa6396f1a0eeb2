"""Memory at any batch from two traces, the levels, and the largest batch that a device runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from costmodel.devices import Device, device
from costmodel.errors import InputError
from costmodel.graph import Trace
from costmodel.memory import memory_timeline
from costmodel.memory.allocator import MemoryLimitError
from costmodel.memory.capacity import Scaling, scaling
from costmodel.memory.levels import memory_levels, overheads, workspaces_by_level
from costmodel.memory.runs import replay
from costmodel.memory.search import largest, last
from costmodel.tracer import trace

MIB = 1 << 20


def tiny(name: str = "v100", **changes: Any) -> Device:
    """A GPU with little memory."""
    numbers: dict[str, Any] = {"memory_bytes": 64 * MIB, "l2_bytes": None, "l3_bytes": None, "title": "Tiny"} | changes
    return device(name).replace(**numbers)


def tiny_cpu(**changes: Any) -> Device:
    """A CPU with little memory."""
    return tiny("xeon-icelake", **changes)


def test_whether_a_device_holds_a_batch() -> None:
    memory = scaling(Traced(nn.Linear(1024, 1024), (1024,)))  # 4 MiB of weights, 8 KiB a sample
    usable = tiny(memory_bytes=512 * MIB, usable_bytes=400 * MIB)
    fit = memory.fit(usable)
    assert fit.limit_bytes == 400 * MIB - sum(overhead.nbytes for overhead in fit.beside)
    assert memory.holds(fit.batch, usable) and not memory.holds(fit.bound + 1, usable)
    assert memory.fit(usable.replace(usable_bytes=None)).batch > fit.batch


class Traced:
    """Traces a network at a batch, and counts how often."""

    def __init__(self, network: nn.Module, shape: tuple[int, ...], **options: Any) -> None:
        self.network, self.shape, self.options = network, shape, options
        self.batches: list[int] = []

    def __call__(self, batch: int) -> Trace:
        self.batches.append(batch)
        return trace(self.network, (batch, *self.shape), **self.options)


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(), nn.Flatten(), nn.Linear(4096, 300)
    )


@pytest.mark.parametrize("train", [False, True])
def test_two_traces_are_enough(train: bool) -> None:
    traced = Traced(convolutions(), (3, 32, 32), train=train)
    memory = scaling(traced)
    assert memory.affine
    known = {batch: trace(traced.network, (batch, 3, 32, 32), train=train) for batch in (1000, 1, 2, 5, 64)}
    for batch, there in known.items():
        assert memory.peak_bytes(batch) == memory_timeline(there).peak_bytes
        assert memory.replay(batch) == replay(there)
    # The largest is checked by a trace, which vouches for those below; one sample alone may be special.
    assert list(dict.fromkeys(traced.batches)) == [2, 3, 1000, 1]


def test_affine_by_hand() -> None:
    # 1024 -> 1024 without bias: 4 MiB of weights, and 4 KiB a sample before and after the layer.
    memory = scaling(Traced(nn.Linear(1024, 1024, bias=False), (1024,)))
    assert [memory.peak_bytes(batch) for batch in (1, 100)] == [4 * MIB + 8192, 4 * MIB + 100 * 8192]


def test_the_largest_batch_by_hand() -> None:
    # The same layer: input and output of B samples are 4096·B bytes each. On a CPU it fits while
    # 4 MiB + 8192·B <= 64 MiB, so up to B = 60 MiB / 8 KiB = 7680.
    fit = scaling(Traced(nn.Linear(1024, 1024, bias=False), (1024,), target="cpu")).fit(tiny_cpu())
    assert (fit.batch, fit.level, fit.point.requested_bytes) == (7680, "requested", 64 * MIB)
    # On a GPU whose process holds 4 MiB beside its tensors and a cuBLAS workspace (8,519,680 B from a segment of
    # 20 MiB) 40 MiB remain. The weights lie in a segment of 20 MiB, of which 16 MiB are free.
    # With input and output of 16 MiB each, the first lies behind the weights and the second in a segment of its own:
    # 20 + 16 <= 40. At 4097 samples the input does not fit behind the weights any more, and its segment and the
    # output's are 18 MiB each: 20 + 18 + 18 > 40. At 20 MiB each, none would fit either.
    gpu = scaling(Traced(nn.Linear(1024, 1024, bias=False), (1024,)), context_bytes=4 * MIB).fit(tiny())
    assert gpu.limit_bytes == 40 * MIB
    assert (gpu.batch, gpu.exhaustive, gpu.batch_without_retries) == (4096, True, 4096)
    assert gpu.point.reserved_bytes == 36 * MIB
    assert gpu.point.process_bytes == (36 + 4 + 20) * MIB
    assert gpu.bound == 36 * MIB // 8192  # the tensors alone would fill 40 MiB there


@given(st.integers(24, 200))
@settings(deadline=None, max_examples=12)
def test_no_larger_batch_runs(mebibytes: int) -> None:
    memory = SHARED
    fit = memory.fit(tiny(memory_bytes=mebibytes * MIB))
    assert fit.exhaustive
    assert fit.extrapolated
    for batch in (fit.batch, fit.batch_without_retries):
        if batch:
            memory.replay(batch, limit_bytes=fit.limit_bytes)
    if fit.batch_without_retries:
        assert memory.replay(fit.batch_without_retries).peak_reserved_bytes <= fit.limit_bytes
    for batch in range(fit.batch + 1, fit.bound + 20):
        with pytest.raises(MemoryLimitError):
            memory.replay(batch, limit_bytes=fit.limit_bytes)
    assert fit.batch_without_retries <= fit.batch <= fit.bound


SHARED = Scaling(Traced(convolutions(), (3, 32, 32), train=True), context_bytes=0)


class Looks(nn.Module):
    """A network whose work depends on how many samples it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(256, 256)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layer(x)
        return y + torch.cat([x, x, x]).sum() if x.shape[0] > 100 else y


def test_a_network_that_looks_at_its_batch_is_traced() -> None:
    traced = Traced(Looks(), (256,), target="cpu")
    fit = scaling(traced).fit(tiny_cpu(memory_bytes=MIB))
    sizes = {batch: memory_timeline(traced(batch)).peak_bytes for batch in (fit.batch, fit.batch + 1)}
    assert sizes[fit.batch] <= MIB < sizes[fit.batch + 1]
    assert fit.batch > 100
    assert not fit.extrapolated
    assert len(set(traced.batches)) < 40


def test_a_batch_that_was_traced_needs_no_other() -> None:
    traced = Traced(nn.Linear(1024, 1024, bias=False), (1024,))
    memory = scaling(traced)
    memory.trace(7)
    assert memory.holds(7, "v100")
    assert memory.peak_bytes(7) == 4 * MIB + 7 * 8192
    assert traced.batches == [7]


class Deeper(nn.Module):
    """A network that runs its layer three times from ten samples on: 64 -> 64 with bias, then ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3 if x.shape[0] >= 10 else 1):
            x = self.layer(x).relu()
        return x


def deeper_bytes(batch: int) -> int:
    """Its peak in inference by hand, at a ReLU: 4 · (64 · 64 + 64) B of parameters and maps of 256 B a sample.

    Once, these are the network's input, the layer's output and the ReLU's; the second time also the layer's own input.
    """
    return 16_640 + batch * 256 * (4 if batch >= 10 else 3)


@pytest.mark.parametrize("batches", [(2, 10, 50), (50, 9, 2), (9, 10), (10, 9)])
@pytest.mark.parametrize("target", ["cuda", "cpu"])
def test_every_question_beyond_what_is_known_is_checked(batches: tuple[int, ...], target: str) -> None:
    def fresh() -> Scaling:
        return scaling(Traced(Deeper(), (64,), target=target))

    expected = [deeper_bytes(batch) for batch in batches]
    assert [*fresh().sweep(batches)["requested_bytes"]] == expected
    memory = fresh()
    assert [memory.peak_bytes(batch) for batch in batches] == expected
    assert not memory.affine
    for ask in (
        lambda memory, batch: memory.point(batch).requested_bytes,
        lambda memory, batch: memory.replay(batch).peak_requested_bytes,
        lambda memory, batch: memory.levels(batch)[0].nbytes,
    ):
        memory = fresh()
        assert [ask(memory, batch) for batch in batches] == expected


def test_whether_a_device_holds_it_is_checked_too() -> None:
    # Seen from two samples 1100 would take 16,640 + 1100 · 768 = 861,440 B of its 1,048,576; they take 1,143,040.
    memory = scaling(Traced(Deeper(), (64,), target="cpu"))
    assert not memory.holds(1100, tiny_cpu(memory_bytes=MIB))
    # (1,048,576 - 16,640) / 1024 = 1007.7
    fit = scaling(Traced(Deeper(), (64,), target="cpu")).fit(tiny_cpu(memory_bytes=MIB))
    assert (fit.batch, fit.extrapolated) == (1007, False)
    assert memory.holds(1007, tiny_cpu(memory_bytes=MIB))


def test_a_sweep_says_whether_each_batch_fits() -> None:
    # 1 MiB holds (1,048,576 - 16,640) / 1024 = 1007.7 samples.
    memory = scaling(Traced(Deeper(), (64,), target="cpu"))
    table = memory.sweep([2, 1007, 1008], tiny_cpu(memory_bytes=MIB))
    assert table["fits"] == (True, True, False)
    assert "fits" not in memory.sweep([2], tiny_cpu(memory_bytes=None)).names


@pytest.mark.parametrize(("target", "there"), [("cuda", tiny_cpu()), ("cpu", tiny())])
def test_a_device_that_does_not_run_the_operators(target: str, there: Device) -> None:
    traced = Traced(nn.Linear(8, 8), (8,), target=target)
    memory = scaling(traced)
    asks: list[Callable[[], object]] = [
        lambda: memory.fit(there), lambda: memory.holds(1, there), lambda: memory.sweep([1], there),
        lambda: memory.levels(1, there), lambda: memory.point(1, there),
        lambda: memory_timeline(traced(1)).levels(there),
    ]  # fmt: skip
    for ask in asks:
        with pytest.raises(InputError, match=f"trace with target='{there.target}'"):
            ask()


def test_one_that_changes_from_the_start() -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.relu() if x.shape[0] % 2 else x.relu().relu()

    memory = scaling(Traced(Odd(), (256,), target="cpu"))
    assert not memory.affine
    assert [memory.peak_bytes(batch) for batch in (3, 4)] == [2 * 3 * 1024, 3 * 4 * 1024]


# The levels


def test_the_ladder_by_hand() -> None:
    traced = trace(nn.Linear(1000, 100), (10, 1000), train=True)
    h200 = device("h200")
    levels = {level.name: level for level in memory_levels(replay(traced), overheads(traced, h200))}
    assert list(levels) == ["requested", "allocated", "reserved", "process"]
    assert levels["requested"].nbytes == memory_timeline(traced).peak_bytes
    assert levels["reserved"].nbytes == 2 * MIB  # all of it is small
    # context 300 MB; cuBLAS has 32 MiB in the forward's thread and again in the backward's
    assert levels["process"].added_bytes == 300_000_000 + 2 * 32 * MIB
    assert [level.assumed for level in levels.values()] == [False, False, False, True]
    for below, above in zip(list(levels.values()), list(levels.values())[1:], strict=False):
        assert above.nbytes - below.nbytes == above.added_bytes >= 0


def test_a_replay_shows_its_segments() -> None:
    # weights of 4,000,000 bytes lie in a segment of 20 MiB, as all from 1 to 10 MiB do; maps of 4000 in one of 2 MiB
    layers = nn.Sequential(nn.Linear(1000, 1000, bias=False), nn.ReLU())
    shown = re.sub("<[^>]*>", " ", replay(trace(layers, (1, 1000)))._repr_html_())
    assert "large 20.0 MiB 1 small 2.00 MiB 1 total 22.0 MiB 2" in " ".join(shown.split())


def test_a_workspace_for_each_thread_that_multiplies() -> None:
    def segments(network: nn.Module, name: str, **options: Any) -> list[int]:
        traced = trace(network, (4, 8, 8, 8), **options)
        return [each.nbytes for each in overheads(traced, device(name), context_bytes=1)]

    assert segments(nn.Conv2d(8, 8, 1), "v100") == [1]  # cuDNN's affair
    assert segments(nn.Linear(8, 8), "v100") == [1, 20 * MIB]  # 8,519,680 B in a segment for less than 10 MiB
    assert segments(nn.Linear(8, 8), "h100") == [1, 32 * MIB]
    assert segments(nn.Linear(8, 8), "v100", train=True, loss="sum") == [1, 20 * MIB, 20 * MIB]


def test_what_workspaces_add_to_each_level() -> None:
    # 8,519,680 bytes are 16,640 blocks of 512, from a segment of 20 MiB; a training step multiplies in two threads
    def added(network: nn.Module, name: str, **options: Any) -> list[int]:
        return list(workspaces_by_level(trace(network, (4, 8, 8, 8), **options), device(name)).values())

    assert added(nn.Linear(8, 8), "v100") == [8_519_680, 8_519_680, 20 * MIB]
    assert added(nn.Linear(8, 8), "v100", train=True, loss="sum") == [17_039_360, 17_039_360, 40 * MIB]
    assert added(nn.Linear(8, 8), "h100", train=True, loss="sum") == [64 * MIB] * 3
    assert added(nn.Conv2d(8, 8, 1), "v100") == [0, 0, 0]


def test_what_is_assumed_names_its_source() -> None:
    traced = trace(nn.Linear(8, 8), (4, 8))
    for overhead in overheads(traced):
        assert "github.com" in overhead.source or "aten/src" in overhead.source


# Bad input


def test_a_device_without_a_memory_size() -> None:
    with pytest.raises(InputError, match="Tiny has no memory size"):
        scaling(Traced(nn.Linear(8, 8), (8,))).fit(tiny(memory_bytes=None))


@pytest.mark.parametrize("batch", [0, -3])
def test_a_batch_that_cannot_run(batch: int) -> None:
    with pytest.raises(InputError, match="at least 1"):
        scaling(Traced(nn.Linear(8, 8), (8,))).peak_bytes(batch)


def test_nothing_fits() -> None:
    fit = scaling(Traced(nn.Linear(8192, 8192), (8192,), target="cpu")).fit(tiny_cpu())
    assert (fit.batch, fit.batch_without_retries) == (0, 0)
    assert fit.point.batch == 1
    assert fit.point.requested_bytes == 4 * (8192 * 8192 + 8192 + 2 * 8192)


def test_a_sweep_is_a_table() -> None:
    table = scaling(Traced(nn.Linear(1024, 1024, bias=False), (1024,))).sweep([1, 2, 4])
    assert table.names == ("batch", "requested_bytes", "allocated_bytes", "reserved_bytes", "process_bytes")
    assert table["requested_bytes"] == tuple(4 * MIB + batch * 8192 for batch in (1, 2, 4))


# The searches


def test_the_last_of_a_run() -> None:
    assert [last(lambda n, end=end: n <= end) for end in (0, 1, 2, 1000)] == [0, 1, 2, 1000]  # type: ignore[misc]


@given(st.sets(st.integers(1, 200)))
@settings(deadline=None)
def test_the_largest_is_found_whatever_fits(fitting: set[int]) -> None:
    assert largest(lambda n: n in fitting, 200, 200) == (max(fitting, default=0), True)


def test_without_enough_tries_it_says_so() -> None:
    # fits up to 100 and, by luck, at 150: a bisection from 200 downward passes 150 by
    assert largest(lambda n: n <= 100 or n == 150, 200, 200) == (150, True)
    assert largest(lambda n: n <= 100 or n == 150, 200, 50) == (100, False)


def test_results_show_themselves() -> None:
    memory = scaling(Traced(nn.Linear(1024, 1024, bias=False), (1024,)), context_bytes=0)
    assert repr(memory) == "<Scaling of Linear: affine in its batch>"
    fit = memory.fit(tiny(title="<b>"))
    assert repr(fit) == f"<Fit of the <b>: batch {fit.batch:,}>"
    assert "&lt;b&gt;: 64.0 MiB" in fit._repr_html_()
    shown = memory.replay(2)
    assert repr(shown) == "<Replay: requested 4.02 MiB, allocated 4.02 MiB, reserved 22.0 MiB>"
    # one segment of 20 MiB for the weights, one of 2 MiB for 8 KiB before and after the layer
    assert "20.0 MiB" in shown._repr_html_()
    assert shown.to_frame()["reserved_bytes"].max() == 22 * MIB
