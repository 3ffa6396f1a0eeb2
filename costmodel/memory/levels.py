"""From the bytes of tensors to those of a process: four levels, each at least as large as the one before.

- requested: the bytes of the live tensors (`requested_bytes.all.peak` of `torch.cuda.memory_stats`);
- allocated: the allocator's blocks that hold them, rounded up (`allocated_bytes.all.peak`);
- reserved: the segments that the blocks lie in, with what is free between them (`reserved_bytes.all.peak`);
- process: what the driver shows for the process: the segments, the CUDA context, the libraries' workspaces.

The first three follow from the trace and the allocator's rules; what the process adds is assumed, each piece with its
source, until it is measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from costmodel.devices import device as find_device
from costmodel.errors import InputError
from costmodel.graph import BACKWARD, FORWARD, Trace
from costmodel.memory.allocator import round_size, segment_size
from costmodel.memory.runs import Replay

if TYPE_CHECKING:
    from costmodel.devices import Device

LEVELS = ("requested", "allocated", "reserved", "process")

CONTEXT_BYTES = 300_000_000
"""A CUDA context with the kernels that a network loads into it, where none was measured."""

_CONTEXT_SOURCE = (
    "about 300 MB since CUDA 11.7 loads kernels when they are first run (github.com/pytorch/pytorch/issues/107667, "
    "2023-08-28); it differs by GPU, driver and libraries"
)
_WORKSPACE_SOURCE = (
    "what at::cuda::getChosenWorkspaceSize of PyTorch 2.14 returns, 32 MiB for compute capability 9, 10 and 12 and "
    "8,519,680 B for 7 and 8, in the allocator's segment for that; one a handle, one handle a thread "
    "(aten/src/ATen/cuda/CublasHandlePool.cpp)"
)

NOT_COUNTED = (
    "Not counted: cuDNN's workspaces, and what the driver keeps of a memory for itself, where nobody says how much."
)
"""What a largest batch leaves out, and is too large by."""

_LARGE_WORKSPACE = 4096 * 8 * 1024
_WORKSPACE = 4096 * 1024 * 2 + 16 * 1024 * 8
_LARGE_ON = ("hopper", "blackwell")
"""Architectures on which PyTorch gives cuBLAS the larger workspace."""

_PRODUCTS = frozenset({"aten.mm", "aten.addmm", "aten.bmm", "aten.baddbmm", "aten._addmm_activation", "aten.addmv"})
"""Operators that cuBLAS computes."""


_LIVE = "the live tensors"


class Overhead(NamedTuple):
    """Memory of a process outside its tensors: an assumption."""

    what: str
    nbytes: int
    source: str


class MemoryLevel(NamedTuple):
    """One way of counting a run's memory at its peak."""

    name: str
    """One of LEVELS."""

    nbytes: int
    added_bytes: int
    """How much more it is than the level below."""

    adds: str
    """What it adds to the level below."""

    assumed: bool
    """Whether what it adds is an assumption."""


def overheads(
    trace: Trace, device: Device | str | None = None, context_bytes: int = CONTEXT_BYTES
) -> tuple[Overhead, ...]:
    """What a process holds on a GPU besides its tensors: the CUDA context, and a cuBLAS workspace a thread.

    The forward's matrix products run in the program's thread and the backward's in autograd's, and each thread has a
    cuBLAS handle of its own, whose workspace PyTorch takes from the caching allocator and keeps: at most a segment
    each, less where a gap holds it. cuDNN's workspaces are not among them: how large they are depends on the algorithm
    that cuDNN picks.
    """
    segment = segment_size(round_size(_workspace(device)))
    return (
        Overhead("CUDA context", context_bytes, _CONTEXT_SOURCE),
        *(Overhead(f"cuBLAS workspace of the {each}'s thread", segment, _WORKSPACE_SOURCE) for each in _threads(trace)),
    )


def workspaces_by_level(trace: Trace, device: Device | str | None = None) -> dict[str, int]:
    """What cuBLAS's workspaces add to each level that the allocator counts, one a thread that multiplies matrices."""
    size, threads = _workspace(device), len(_threads(trace))
    rounded = round_size(size)
    levels = {"requested": size, "allocated": rounded, "reserved": segment_size(rounded)}
    return {level: threads * nbytes for level, nbytes in levels.items()}


def _workspace(device: Device | str | None) -> int:
    device = None if device is None else find_device(device)
    large = device is not None and device.architecture.lower().startswith(_LARGE_ON)
    return _LARGE_WORKSPACE if large else _WORKSPACE


def _threads(trace: Trace) -> tuple[str, ...]:
    """The phases whose threads multiply matrices."""
    phases = (FORWARD, BACKWARD)
    return tuple(phase for phase in phases if any(o.operator in _PRODUCTS for o in trace.of_phase(phase)))


def memory_levels(replay: Replay, beside: Iterable[Overhead]) -> tuple[MemoryLevel, ...]:
    """The four levels of a run that was replayed on the allocator, with what the process holds besides its tensors."""
    requested, allocated, reserved = (
        replay.peak_requested_bytes, replay.peak_allocated_bytes, replay.peak_reserved_bytes,
    )  # fmt: skip
    beside = tuple(beside)
    more = sum(overhead.nbytes for overhead in beside)
    return (
        MemoryLevel("requested", requested, requested, _LIVE, False),
        MemoryLevel(
            "allocated",
            allocated,
            allocated - requested,
            "rounding to whole blocks, and rests too small to split off",
            False,
        ),
        MemoryLevel("reserved", reserved, reserved - allocated, "free blocks in the allocator's segments", False),
        MemoryLevel("process", reserved + more, more, ", ".join(overhead.what for overhead in beside), True),
    )


def check_target(trace: Trace, device: Device) -> None:
    """Raises InputError if the trace has the operators of another target: a CPU's for a GPU, or the reverse."""
    if trace.target not in ("meta", device.target):
        raise InputError(
            f"the {device.title} is a {device.kind.upper()}, and this trace has the operators of target "
            f"{trace.target!r}: trace with target={device.target!r}."
        )


def requested_only(peak_bytes: int) -> tuple[MemoryLevel, ...]:
    """The only level where no allocator is replayed: a CPU's allocator differs by system."""
    return (MemoryLevel("requested", peak_bytes, peak_bytes, _LIVE, False),)
