"""The caching allocator by hand, by its invariants, and against PyTorch's own, compiled, on a machine without a GPU."""

from __future__ import annotations

import itertools
import random
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from costmodel.graph import Trace
from costmodel.memory import memory_timeline
from costmodel.memory.allocator import Allocator, Block, MemoryLimitError
from costmodel.memory.runs import AllocationSchedule, replay, replay_schedule
from costmodel.tracer import trace

KIB, MIB = 1 << 10, 1 << 20


def taken(*requests: int) -> Allocator:
    """An allocator that was asked for these, none freed."""
    allocator = Allocator()
    for nbytes in requests:
        allocator.malloc(nbytes)
    return allocator


@pytest.mark.parametrize(
    ("request_", "allocated", "reserved"),
    [
        (1, 512, 2 * MIB),
        (512, 512, 2 * MIB),
        (513, 1024, 2 * MIB),
        (MIB, MIB, 2 * MIB),  # the largest of the small pool
        (MIB - 511, MIB, 2 * MIB),
        (MIB + 1, MIB + 512, 20 * MIB),  # the smallest of the large pool
        (10 * MIB - 512, 10 * MIB - 512, 20 * MIB),  # the largest that shares a segment
        (10 * MIB - 511, 10 * MIB, 10 * MIB),  # rounded to 10 MiB before the segment is chosen: one of its own
        (10 * MIB, 10 * MIB, 10 * MIB),
        (10 * MIB + 1, 10 * MIB + 512, 12 * MIB),  # 2 MiB - 512 B behind it are split off
        (11 * MIB - 512, 11 * MIB - 512, 12 * MIB),  # 1 MiB + 512 B are split off
        (11 * MIB, 12 * MIB, 12 * MIB),  # 1 MiB is not: the block keeps it
        (0, 0, 0),
    ],
)
def test_one_request(request_: int, allocated: int, reserved: int) -> None:
    allocator = taken(request_)
    assert (allocator.requested_bytes, allocator.allocated_bytes, allocator.reserved_bytes) == (
        request_, allocated, reserved,
    )  # fmt: skip


def test_a_small_segment_is_filled_to_its_end() -> None:
    # 4096 blocks of 512 B are 2 MiB; one more needs a segment more
    assert taken(*[1] * 4096).reserved_bytes == 2 * MIB
    assert taken(*[1] * 4097).reserved_bytes == 4 * MIB


def test_the_smallest_gap_that_is_large_enough_is_taken() -> None:
    # A segment of 20 MiB as 6 | 2 | 4 | 2 | 6 with 2s in use: 3 MiB goes into the 4, not into the first 6.
    allocator = Allocator()
    blocks = [block for size in (6, 2, 4, 2, 6) if (block := allocator.malloc(size * MIB))]
    assert allocator.reserved_bytes == 20 * MIB
    for index in (0, 2, 4):
        allocator.free(blocks[index])
    new = allocator.malloc(3 * MIB)
    assert new is not None
    assert new.address == 8 * MIB
    # its rest is 1 MiB, which is not split off
    assert new.size == 4 * MIB
    assert allocator.allocated_bytes == (2 + 2 + 4) * MIB
    # Of the two 6s the one at the lower address is next.
    after = allocator.malloc(5 * MIB - 512)
    assert after is not None
    assert after.address == 0
    assert after.size == 5 * MIB - 512


def test_free_neighbours_merge_and_segments_do_not() -> None:
    allocator = Allocator()
    blocks = [block for _ in range(4) if (block := allocator.malloc(MIB))]  # two segments of two blocks
    assert allocator.reserved_bytes == 4 * MIB
    for index in (0, 2, 3, 1):
        allocator.free(blocks[index])
    assert [[block.size for block in inside] for _, inside in allocator.blocks()] == [[2 * MIB], [2 * MIB]]
    assert allocator.allocated_bytes == allocator.requested_bytes == 0
    assert allocator.reserved_bytes == 4 * MIB


def test_pools_do_not_help_each_other() -> None:
    # A free 20 MiB segment does not serve 1 MiB, and small gaps do not serve the large pool.
    allocator = Allocator()
    large = allocator.malloc(5 * MIB)
    assert large is not None
    allocator.free(large)
    allocator.malloc(MIB)
    assert allocator.reserved_bytes == 22 * MIB


def test_at_the_limit_free_segments_go_back() -> None:
    allocator = Allocator(limit_bytes=40 * MIB)
    first, second = allocator.malloc(12 * MIB), allocator.malloc(20 * MIB)
    assert first is not None
    assert second is not None
    allocator.free(first)
    # 32 MiB are reserved; 16 MiB more do not fit 40, but do once the free 12 went back
    allocator.malloc(16 * MIB)
    assert (allocator.reserved_bytes, allocator.retries) == (36 * MIB, 1)
    with pytest.raises(MemoryLimitError, match=r"41,943,040 B"):
        allocator.malloc(6 * MIB)  # a segment of 20 MiB


def test_a_segment_in_use_does_not_go_back() -> None:
    allocator = Allocator(limit_bytes=20 * MIB)
    kept, gone = allocator.malloc(2 * MIB), allocator.malloc(6 * MIB)
    assert kept is not None
    assert gone is not None
    allocator.free(gone)
    with pytest.raises(MemoryLimitError):
        allocator.malloc(19 * MIB)


# Invariants

SIZES = st.one_of(
    st.integers(0, 4096),
    st.integers(MIB - 1024, MIB + 1024),
    st.integers(1, 24 * MIB),
    st.integers(10 * MIB - 1024, 10 * MIB + 1024),
)
EVENTS = st.lists(st.one_of(SIZES, st.integers(-40, -1)), max_size=80)
"""A size to ask for, or a negative number: which of the blocks in use to free."""


@given(EVENTS)
@settings(deadline=None, max_examples=150)
def test_invariants(events: list[int]) -> None:
    allocator = Allocator()
    held: list[Block] = []
    for event in events:
        if event >= 0:
            block = allocator.malloc(event)
            held += [block] if block else []
        elif held:
            allocator.free(held.pop(event % len(held)))
        assert allocator.requested_bytes == sum(block.requested for block in held)
        assert allocator.allocated_bytes == sum(block.size for block in held)
        assert allocator.requested_bytes <= allocator.allocated_bytes <= allocator.reserved_bytes
        in_use = []
        for segment, blocks in allocator.blocks():
            place = segment.address
            for block in blocks:  # they tile their segment: none overlaps, nothing is lost
                assert block.address == place
                place += block.size
            assert place == segment.address + segment.size
            assert not any(a.free and b.free for a, b in itertools.pairwise(blocks))
            in_use += [block for block in blocks if not block.free]
        assert {id(block) for block in in_use} == {id(block) for block in held}
    for block in held:
        allocator.free(block)
    assert all(len(blocks) == 1 and blocks[0].free for _, blocks in allocator.blocks())
    assert sum(segment.size for segment, _ in allocator.blocks()) == allocator.reserved_bytes


# Traces


def test_a_forward_by_hand() -> None:
    # 1024 -> 1024 -> 1024 without biases, batch 512, float32: weights of 4 MiB, activations of 2 MiB.
    network = nn.Sequential(nn.Linear(1024, 1024, bias=False), nn.ReLU(), nn.Linear(1024, 1024, bias=False))
    result = replay(trace(network, (512, 1024)))
    # weights 8 + input 2 + first 2 + relu 2 = 14; then the first dies, and the second layer's output takes its place
    assert result.peak_requested_bytes == result.peak_allocated_bytes == 14 * MIB
    assert result.peak_reserved_bytes == 20 * MIB
    assert result.fragmentation == pytest.approx(0.3)
    assert result.runs == 1  # what is there before the run reserves all that it needs


def test_requested_bytes_are_those_of_the_timeline() -> None:
    traced = training_step()
    assert replay(traced).requested_bytes == memory_timeline(traced).live_bytes


def test_gradients_are_let_go_between_runs() -> None:
    traced = training_step()
    schedule = AllocationSchedule.of(traced)
    gradients = [index for index, storage in enumerate(traced.storages) if storage.role == "gradient"]
    assert gradients
    assert set(gradients) <= set(schedule.leftover)


def test_the_first_run_makes_the_optimizers_state() -> None:
    # Adam's two moments are asked for where the backward is over, not before the first operation.
    traced = training_step()
    schedule = AllocationSchedule.of(traced)
    state = [index for index, storage in enumerate(traced.storages) if storage.role == "optimizer state"]
    assert schedule.lasting == tuple(state)
    assert traced.operations[schedule.lasting_from].phase == "optimizer"
    assert traced.operations[schedule.lasting_from - 1].phase == "backward"
    assert not set(state) & set(schedule.resident)
    assert replay(traced).runs > 1


def test_dropout_asks_for_its_mask_first() -> None:
    traced = trace(nn.Sequential(nn.Linear(4, 4), nn.Dropout()), (2, 4), train=True)
    where = next(index for index, o in enumerate(traced.operations) if o.operator == "aten.native_dropout")
    mask, output = AllocationSchedule.of(traced).moments[where].births
    assert (traced.storages[mask].nbytes, traced.storages[output].nbytes) == (8, 32)


def training_step() -> Trace:
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(), nn.Flatten(), nn.Linear(4096, 300)
    )
    return trace(network, (48, 3, 32, 32), train=True, optimizer="adam")


def torchvisions(name: str) -> Trace:
    with torch.device("meta"):
        network = torchvision.models.get_model(name, weights=None)
    return trace(network, (24, 3, 224, 224), train=True, optimizer_options={"momentum": 0.9})


# PyTorch's own allocator

Real = Callable[[Sequence[str], int | None], list[str]]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Real:
    """Runs requests on the allocator of the PyTorch that is installed, over a CUDA runtime of ours."""
    compiler, packages = shutil.which("g++"), Path(sysconfig.get_path("purelib"))
    libraries = Path(torch.__file__).parent / "lib"
    runtime = next(packages.glob("nvidia/*/lib/libcudart.so.*"), None)
    if compiler is None or runtime is None or not (libraries / "libc10_cuda.so").exists():
        pytest.skip("needs g++ and a PyTorch for CUDA, with the runtime and the headers that it brings")
    program = tmp_path_factory.mktemp("oracle") / "caching_allocator"
    headers = packages / "triton/backends/nvidia/include"
    includes = [f"-I{folder}" for folder in (libraries.parent / "include", runtime.parents[1] / "include", headers)]
    linked = [f"-L{libraries}", "-lc10_cuda", "-lc10", str(runtime), f"-Wl,-rpath,{libraries}:{runtime.parent}"]
    source = Path(__file__).parent / "oracles" / "caching_allocator.cpp"
    subprocess.run([compiler, "-std=c++20", "-rdynamic", *includes, source, "-o", program, *linked], check=True)

    def run(lines: Sequence[str], limit: int | None) -> list[str]:
        arguments = [str(program)] if limit is None else [str(program), str(limit)]
        done = subprocess.run(arguments, input="\n".join(lines), capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    return run


def ours(lines: Sequence[str], limit: int | None) -> list[str]:
    """What the oracle prints, from our allocator."""
    allocator, held, said = Allocator(limit), [], []
    for line in lines:
        what, value = line[0], int(line[2:])
        try:
            if what == "a":
                held.append(allocator.malloc(value))
            elif (block := held[value]) is not None:
                allocator.free(block)
        except MemoryLimitError:
            return [*said, "oom"]
        sums = allocator.requested_bytes, allocator.allocated_bytes, allocator.reserved_bytes, allocator.retries
        said.append(" ".join(map(str, sums)))
    return said


@pytest.mark.parametrize("seed", range(16))
def test_every_sum_is_pytorchs(real: Real, seed: int) -> None:
    # 800 requests and releases of every size that a rule names; every second time on a device that is too small
    choose = random.Random(seed)
    lines: list[str] = []
    alive: list[int] = []
    limit = choose.randrange(500 * MIB, 6 << 30) if seed % 2 else None
    for _ in range(800):
        if alive and choose.random() < 0.48:
            lines.append(f"f {alive.pop(choose.randrange(len(alive)))}")
            continue
        near = choose.choice((0, MIB, 10 * MIB, 11 * MIB)) + choose.randrange(0, 1024) - 512
        size = choose.choice(
            (max(0, near), choose.randrange(MIB), choose.randrange(10 * MIB), choose.randrange(200 * MIB))
        )
        alive.append(sum(line[0] == "a" for line in lines))
        lines.append(f"a {size}")
    said = real(lines, limit)
    assert said == ours(lines, limit)
    assert len(said) == 800 or said[-1] == "oom"


@pytest.mark.parametrize("name", ["small", "alexnet", "resnet18"])
def test_a_training_step_is_pytorchs(real: Real, name: str) -> None:
    # Three steps of a network on both: every sum after every request and release.
    traced = training_step() if name == "small" else torchvisions(name)
    schedule, sizes = AllocationSchedule.of(traced), [storage.nbytes for storage in traced.storages]
    lines: list[str] = []
    number: dict[int, int] = {}
    count = 0

    def ask(storages: Sequence[int]) -> None:
        nonlocal count
        for index in storages:
            number[index] = count
            lines.append(f"a {sizes[index]}")
            count += 1

    def give(storages: Sequence[int]) -> None:
        lines.extend(f"f {number.pop(index)}" for index in storages)

    for run in range(3):
        ask([index for index in schedule.resident if index not in number])
        for index, (births, deaths) in enumerate(schedule.moments):
            if run == 0 and index == schedule.lasting_from:
                ask(schedule.lasting)
            ask(births)
            give(deaths)
        give(schedule.leftover)
    said = real(lines, None)
    assert said == ours(lines, None)
    peaks = [max(column) for column in zip(*(map(int, line.split()[:3]) for line in said), strict=True)]
    result = replay_schedule(schedule, sizes)
    assert peaks == [result.peak_requested_bytes, result.peak_allocated_bytes, result.peak_reserved_bytes]
