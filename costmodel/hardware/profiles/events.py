"""What a profiler's trace holds, as plain data: events of host and GPU, memory taken and given back, the GPUs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from costmodel.errors import InputError

ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
OPERATOR, ANNOTATION, MODULE = "cpu_op", "user_annotation", "python_function"
LAUNCHES = ("cuda_runtime", "cuda_driver")

MODULE_PREFIX = "nn.Module: "
"""How the events of modules begin; their class and a number follow."""

Dims = tuple[tuple[int, ...], ...]


class Event(NamedTuple):
    """Something that the profiler saw, with its times in seconds."""

    category: str
    """"cpu_op", "user_annotation", "python_function" (modules only), "cuda_runtime", "cuda_driver", "kernel",
    "gpu_memcpy" or "gpu_memset"."""

    name: str
    thread: Any
    """Process and thread; of a kernel its device and stream."""

    start: float
    seconds: float
    external: int | None = None
    """An operator's own number; a kernel's or a launch's: that of its operator."""

    correlation: int | None = None
    """What a launch and its kernel have in common."""

    sequence: int | None = None
    """The number of the autograd node that an operator belongs to."""

    dims: Dims | None = None
    """The shapes of an operator's inputs, where the profiler recorded shapes; () for what is no tensor."""

    nbytes: int | None = None
    """What a copy copies."""

    @property
    def end(self) -> float:
        """When it was over."""
        return self.start + self.seconds


class Allocation(NamedTuple):
    """A GPU's memory taken or given back by torch's allocator."""

    moment: float
    """In seconds, as events' starts."""

    nbytes: int
    """Negative where it is given back."""

    allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    """What is taken afterwards; None in old traces."""


class Properties(msgspec.Struct, frozen=True):
    """A GPU as the trace describes it."""

    name: str
    memory_bytes: int = msgspec.field(default=0, name="totalGlobalMem")
    units: int = msgspec.field(default=0, name="numSms")
    major: int = msgspec.field(default=0, name="computeMajor")
    minor: int = msgspec.field(default=0, name="computeMinor")
    id: int = 0


@dataclass(frozen=True)
class Profile:
    """What a trace holds."""

    events: tuple[Event, ...]
    allocations: tuple[Allocation, ...] = ()
    devices: tuple[Properties, ...] = ()
    """All GPUs of the machine."""

    origin: float = 0.0
    """When time 0 of the events was, in microseconds as the trace counts them."""

    workers: int = 1
    """How many processes the run had, where the trace says so."""

    until: float = math.inf
    """Where it was cut because it is too long: what began later is not here."""

    kernels: tuple[Event, ...] = field(init=False, repr=False)
    """What ran on a GPU, copies and fills too."""

    def __post_init__(self) -> None:
        kernels = tuple(event for event in self.events if event.category in ON_DEVICE)
        object.__setattr__(self, "kernels", kernels)

    @property
    def device(self) -> Properties | None:
        """The GPU that did something. Raises InputError if there were several."""
        used = sorted({str(kernel.thread[0]) for kernel in self.kernels})
        if len(used) > 1:
            raise InputError(
                f"kernels of {len(used)} GPUs are in this trace: give the trace of one process with one GPU."
            )
        return next((each for each in self.devices if used and str(each.id) == used[0]), None)
