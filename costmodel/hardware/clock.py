"""How long a call takes on a device: warm-up, repetitions, a median with its spread, and a cache state that has a name.

    clock = Clock("cpu")                              # or "cuda", "cuda:1"
    clock.time(lambda: a @ b).median_seconds          # warm: the same tensors again and again
    clock.time([partial(mm, a, b) for a, b in sets])  # cold, if the sets together outgrow the last cache

A repetition runs its calls back to back, as often as the clock's resolution requires, and counts as their mean. On
CUDA a repetition stands between two device events and is queued behind a delay, so that what is measured is the
device's time and not the host's, which launches slower than small kernels run; on the CPU it is `perf_counter`.
Nothing is set: clocks are read and written down.
"""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

import costmodel
from costmodel.errors import HardwareError, InputError

Call = Callable[[], Any]

WARM, COLD = "warm", "cold"
"""Cache states: the tensors of the call before; tensors that calls on others have driven out of the last cache."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one call: the mean of each repetition, in the order of time."""

    seconds: tuple[float, ...]
    cache: str
    """WARM or COLD, as the caller stated."""

    @property
    def median_seconds(self) -> float:
        """The repetitions' median."""
        return statistics.median(self.seconds)

    @property
    def best_seconds(self) -> float:
        """The shortest repetition."""
        return min(self.seconds)

    @property
    def spread(self) -> float:
        """From the first quartile to the third, as a share of the median; 0 for a single repetition."""
        if len(self.seconds) < 2:
            return 0.0
        first, _, third = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (third - first) / self.median_seconds


class Clock:
    """Times calls on one device. Raises HardwareError where the device is not there."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = torch_device(device)
        if not self.on_cuda:
            settle_allocator()

    @property
    def on_cuda(self) -> bool:
        """Whether the device is a CUDA one."""
        return self.device.type == "cuda"

    def synchronize(self) -> None:
        """Wait until the device has finished all queued work."""
        if self.on_cuda:
            torch.cuda.synchronize(self.device)

    def time(
        self,
        calls: Call | Sequence[Call],
        *,
        repetitions: int = 7,
        least_seconds: float = 0.005,
        warmup: int = 2,
        cache: str = WARM,
    ) -> Timing:
        """How long one of `calls` takes on average, where they are called in turn.

        Args:
            calls: one call, or calls that do the same with other tensors.
            repetitions: how many times to measure.
            least_seconds: how long a repetition lasts at least; it is made of as many rounds of `calls` as that takes.
            warmup: rounds that are not measured.
            cache: the name of the cache state that `calls` lead to, for the record.
        """
        calls = [calls] if callable(calls) else list(calls)
        if not calls or repetitions < 1:
            raise InputError("there is nothing to time: give at least one call and one repetition.")
        for _ in range(max(1, warmup)):
            self._elapsed(calls, 1)
        rounds = _rounds(self._elapsed(calls, 1), least_seconds)
        return Timing(tuple(self._elapsed(calls, rounds) for _ in range(repetitions)), cache)

    def once(self, call: Call, before: Call | None = None) -> float:
        """Seconds of a single call right after `before`, which is not timed and may put the cache into any state."""
        if before is not None:
            before()
        seconds = self._elapsed([call], 1)
        return max(seconds - self._empty_seconds, 1e-9)

    @cached_property
    def _empty_seconds(self) -> float:
        """The overhead of timing itself: microseconds between two device events."""
        return statistics.median(self._elapsed([lambda: None], 1) for _ in range(21))

    def launch_seconds(self, call: Call, calls: int = 200, repetitions: int = 7) -> float:
        """How long the host takes to launch `call`, which should be tiny: the median over repetitions."""
        found = []
        for _ in range(repetitions + 1):
            self.synchronize()
            start = time.perf_counter()
            for _ in range(calls):
                call()
            found.append((time.perf_counter() - start) / calls)
            self.synchronize()
        return statistics.median(found[1:])

    def _elapsed(self, calls: Sequence[Call], rounds: int) -> float:
        """Seconds of one call, in `rounds` rounds of all."""
        count = rounds * len(calls)
        if not self.on_cuda:
            start = time.perf_counter()
            for _ in range(rounds):
                for call in calls:
                    call()
            return (time.perf_counter() - start) / count
        start_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        with torch.cuda.device(self.device):
            torch.cuda.synchronize(self.device)
            _delay(count)
            start_event.record()
            for _ in range(rounds):
                for call in calls:
                    call()
            end_event.record()
            end_event.synchronize()
        return start_event.elapsed_time(end_event) / 1e3 / count


def torch_device(device: str) -> torch.device:
    """The device that a text names: "cpu", "cuda", "cuda:1".

    Raises InputError for another text and HardwareError, exit code 4, for a CUDA device that is not there.
    """
    try:
        found = torch.device(device)
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise InputError(f"unknown device {device!r}: use cpu, cuda, or cuda:1 for the second one.")
    if found.type == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        built = "" if torch.version.cuda else f" (torch {torch.__version__} was built without CUDA)"
        raise HardwareError(
            f"there is no CUDA device here{built}: run this where nvidia-smi lists one, or give --device cpu."
        )
    index, count = found.index or 0, torch.cuda.device_count()
    if index >= count:
        raise HardwareError(f"there is no {device}: this machine has {count}, the first of them cuda:0.")
    return torch.device("cuda", index)


def answers(device: str) -> bool:
    """Whether a device still computes: after some errors (an illegal address) CUDA does nothing more in a process."""
    try:
        torch.zeros(2, device=torch_device(device)).sum().item()
        return True
    except (RuntimeError, HardwareError):
        return False


FRESH_BYTES = 2**25
"""From this size on, a settled glibc takes memory for a block from the system, and gives it back when it is freed."""


def settle_allocator() -> None:
    """Bring glibc's malloc into the state that it reaches in a long-running process.

    It takes a block from the system, page by page and filled with zeros, if the block is at least as large as its
    threshold, which grows with the blocks that are freed, up to 32 MiB (mallopt(3), M_MMAP_THRESHOLD). In a new process
    the largest tensors of a network are therefore always new memory: MobileNet-v2 at batch 1 took 28 ms instead of
    17 ms (2441 page faults a run instead of none; AMD EPYC, one thread, 2026-11-24). After a block just below the limit
    only tensors of 32 MiB and more are.
    """
    torch.empty(FRESH_BYTES - 2**16, dtype=torch.uint8)


def check_threads(count: int | None) -> None:
    """Raises InputError for a number of threads that the CPU cannot run side by side."""
    most = os.cpu_count()
    if count is not None and (count < 1 or (most is not None and count > most)):
        raise InputError(f"{count} threads cannot run: give 1 to {most}, this machine's number of logical cores.")


@contextmanager
def threads(count: int | None) -> Iterator[int]:
    """Set the number of CPU threads, and restore it afterwards; None leaves it as it is."""
    check_threads(count)
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def environment(device: str | torch.device, command: str = "") -> dict[str, Any]:
    """What a measurement records of its environment: device, versions, clocks, threads, date and command."""
    where = device if isinstance(device, torch.device) else torch_device(device)
    versions = {
        "costmodel": costmodel.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }
    found: dict[str, Any] = {
        "device": {"type": where.type} | (_gpu(where) if where.type == "cuda" else _cpu()),
        "versions": versions | (_cuda_versions() if where.type == "cuda" else {}),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    return found | ({"command": command} if command else {})


def device_title(environment: Mapping[str, Any]) -> str:
    """The device of an environment, a CPU with its threads: "AMD EPYC, 1 thread"."""
    hardware, count = environment["device"], environment["threads"]
    return f"{hardware['name']}, {count} thread{'s' * (count > 1)}" if hardware["type"] == "cpu" else hardware["name"]


def cache_sizes() -> dict[str, int]:
    """Bytes of the CPU's caches by level, "l1" ... as one core sees them; empty where Linux does not report them."""
    found: dict[str, int] = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        with suppress(OSError, ValueError):
            kind, level = ((folder / name).read_text().strip() for name in ("type", "level"))
            size = (folder / "size").read_text().strip()
            if kind != "Instruction":
                found[f"l{int(level)}"] = int(size.removesuffix("K")) * (1024 if size.endswith("K") else 1)
    return found


def memory_bytes() -> int | None:
    """Bytes of the CPU's memory, where the system reports it."""
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


_MOST_ROUNDS = 250
"""A device's queue holds some thousand kernels: with more the host would wait for it, and it for the host."""


def _rounds(seconds: float, least_seconds: float) -> int:
    return max(1, min(_MOST_ROUNDS, round(least_seconds / max(seconds, 1e-7))))


_DELAY_CYCLES, _DELAY_CYCLES_A_CALL = 1_000_000, 100_000
"""Some 500 microseconds, and 50 for each call, at 2 GHz: longer than the host takes to launch a module's kernels."""


def _delay(calls: int) -> None:
    """Keep the device busy while the host fills its queue."""
    sleep = getattr(torch.cuda, "_sleep", None)
    if sleep is not None:
        sleep(_DELAY_CYCLES + _DELAY_CYCLES_A_CALL * calls)


def _cpu() -> dict[str, Any]:
    """The processor's name and the clocks of its cores at this moment."""
    name, clocks = platform.processor() or platform.machine(), []
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() == "cpu MHz":
                clocks.append(float(value) * 1e6)
    return {
        "name": name,
        "cores": os.cpu_count(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "clocks_hertz": clocks,
        "cache_bytes": cache_sizes(),
        "memory_bytes": memory_bytes(),
    }


def _gpu(device: torch.device) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "units": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "cache_bytes": {"l2": getattr(properties, "L2_cache_size", 0)},
    } | _nvidia_smi(str(getattr(properties, "uuid", "")))


_ASKED = {
    "clocks.sm": ("clock_hertz", 1e6),
    "clocks.mem": ("memory_clock_hertz", 1e6),
    "clocks.max.sm": ("highest_clock_hertz", 1e6),
    "power.limit": ("power_limit_watts", 1.0),
    "temperature.gpu": ("celsius", 1.0),
}


def _nvidia_smi(uuid: str) -> dict[str, Any]:
    """Clocks, power limit, temperature and driver as nvidia-smi reports them; what it does not report is left out."""
    chosen = [f"--id=GPU-{uuid.removeprefix('GPU-')}"] if uuid else []
    query = ["nvidia-smi", *chosen, f"--query-gpu=driver_version,{','.join(_ASKED)}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    driver, *values = (value.strip() for value in answer.splitlines()[0].split(",")) if answer.strip() else ("",)
    found: dict[str, Any] = {"driver": driver} if driver else {}
    for (name, factor), value in zip(_ASKED.values(), values, strict=False):
        with suppress(ValueError):
            found[name] = float(value) * factor
    return found


def _cuda_versions() -> dict[str, str]:
    cudnn = torch.backends.cudnn.version()
    return {"cuda": str(torch.version.cuda), "cudnn": str(cudnn)} if cudnn else {"cuda": str(torch.version.cuda)}
