"""The rates that everything else of a calibration starts from: bandwidth, matrix products, launches.

Also the precision paths of a device, and the settings by which PyTorch takes one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch

from costmodel.devices import Device
from costmodel.hardware.clock import FRESH_BYTES, Clock, Timing
from costmodel.hardware.record import PrecisionSettings
from costmodel.hardware.workload import applied


class Path(NamedTuple):
    """A precision path, and the settings by which PyTorch takes it."""

    name: str
    dtype: torch.dtype
    tf32: bool = False


PATHS = {
    "cpu": (Path("fp32", torch.float32),),
    "cuda": (
        Path("fp32", torch.float32),
        Path("tf32", torch.float32, tf32=True),
        Path("fp16", torch.float16),
        Path("bf16", torch.bfloat16),
    ),
}


def bandwidths(clock: Clock, cache: int, most_bytes: int) -> dict[int, float]:
    """Bytes/s, read and written, of the fastest of three simple operations, by bytes of the working set."""
    found = {}
    size = 2**16
    while size <= max(2 * most_bytes, 8 * cache):
        found[size] = max(_streams(clock, size))
        size *= 2
    return found


def _streams(clock: Clock, size: int) -> Iterator[float]:
    """Bytes/s of a copy from one half to the other, a sum, and a scaling in place, each over all of `size` bytes."""
    x = torch.randn(size // 4, device=clock.device)
    half = size // 8
    yield size / clock.time(partial(x[:half].copy_, x[half : 2 * half]), repetitions=3).best_seconds
    yield size / clock.time(x.sum, repetitions=3).best_seconds
    yield 2 * size / clock.time(partial(x.mul_, 1.0), repetitions=3).best_seconds


def effective_cache(bandwidth: Mapping[int, float], nominal: int, memory: float) -> int:
    """The largest working set whose bandwidth is nearer to the cache's than to the memory's, but not above nominal."""
    inside = max((rate for size, rate in bandwidth.items() if nominal / 8 <= size <= nominal / 2), default=memory)
    limit = math.sqrt(inside * memory)
    served = [size for size, rate in bandwidth.items() if size <= nominal and rate >= limit]
    return max(served, default=nominal)


def fresh_from(clock: Clock, cache: int) -> int:
    """From which size on a new tensor is written to memory: beyond the cache; on a CPU at glibc's threshold."""
    return cache if clock.on_cuda else FRESH_BYTES


def product_rates(clock: Clock, path: Path, sizes: Iterable[int]) -> dict[int, float]:
    """FLOP/s of n x n matrix products."""
    found = {}
    with precision(path):
        for size in sizes:
            a, b = (torch.randn(size, size, device=clock.device, dtype=path.dtype) for _ in range(2))
            found[size] = 2 * size**3 / clock.time(partial(torch.mm, a, b), repetitions=5).best_seconds
    return found


def launch_seconds(clock: Clock) -> float:
    """What launching a tiny operation takes: the host's part on CUDA, all of it on the CPU."""
    tiny = torch.randn(1, device=clock.device)
    call = partial(torch.add, tiny, tiny)
    return clock.launch_seconds(call) if clock.on_cuda else clock.time(call).best_seconds


def runs(path: Path, clock: Clock) -> bool:
    """Whether the device has the path: TF32 and bfloat16 came with compute capability 8.0."""
    if not clock.on_cuda or path.name in ("fp32", "fp16"):
        return True
    return torch.cuda.get_device_capability(clock.device)[0] >= 8


@contextmanager
def precision(path: Path) -> Iterator[None]:
    """Let float32 contractions use TF32, or not, for a while."""
    with applied(PrecisionSettings(cudnn_allow_tf32=path.tf32, matmul_allow_tf32=path.tf32)):
        yield


DISTURBED = 0.25
"""From this noise on a calibration is not to be trusted: the shapes that it is fitted on lie as far off themselves."""


class Reference:
    """One operation, timed again and again while a device is calibrated: its times show what else ran meanwhile.

    It is a matrix product and a pass over a tensor larger than any cache, so that its time rises with anything else
    that takes arithmetic or bandwidth. On a machine that is otherwise idle its times lie a few percent apart, and a
    device's clock may change by a tenth.
    """

    def __init__(self, clock: Clock, cache_bytes: int) -> None:
        size = 2048 if clock.on_cuda else 512
        a, b = (torch.randn(size, size, device=clock.device) for _ in range(2))
        x = torch.ones(cache_bytes // 2, device=clock.device)  # four bytes each
        self._clock, self._calls = clock, [partial(torch.mm, a, b), partial(x.mul_, 1.0)]
        self.timings: list[Timing] = []
        clock.time(self._calls, repetitions=1, least_seconds=0.5)  # a device that slept wakes up

    def run(self) -> None:
        """Time it once more."""
        self.timings.append(self._clock.time(self._calls, repetitions=5))

    @property
    def noise(self) -> float:
        """How much longer it took in the slowest moment than ever, as a share of that; 0 before there is one."""
        if not self.timings:
            return 0.0
        slowest = max(timing.median_seconds for timing in self.timings)
        return slowest / min(timing.best_seconds for timing in self.timings) - 1


def noise_of(device: Device) -> float:
    """The noise of a device's calibration; 0 if there is none, or if it was not recorded."""
    return (device.calibration.noise if device.calibration else None) or 0.0


def disturbance(device: Device) -> str:
    """What to say about a device that was disturbed while it was calibrated; "" for any other."""
    if noise_of(device) < DISTURBED:
        return ""
    return (
        f"something else ran during the calibration, and one operation took up to {1 + noise_of(device):.1f} times as "
        "long as at best: calibrate again when the machine has nothing else to do."
    )
