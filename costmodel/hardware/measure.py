"""How long networks really take on a device, layer by layer and in total, and how much memory: one `Run` each.

    network = networks.find("torchvision:vgg16", real=True)
    run = measure(network.module, network.inputs(8), device="cuda", name=network.name, batch=8)
    measurement([run], device="cuda").save("vgg16.json")

A run is timed first as a user writes it, in rounds before and after everything else, so that what the machine does
meanwhile shows as noise; then under torch.profiler, whose events `profiles.join` gives to the layers; on CUDA also as
the replay of one CUDA graph. The cache holds what the run before left there. Data are random.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from msgspec.structs import replace
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from costmodel.errors import HardwareError, InputError
from costmodel.hardware.clock import Clock, environment, threads
from costmodel.hardware.estimator import torch_estimate
from costmodel.hardware.profiles.chrome import read
from costmodel.hardware.profiles.events import ON_DEVICE
from costmodel.hardware.profiles.host import REPETITION
from costmodel.hardware.profiles.join import Joined, join
from costmodel.hardware.record import DEFAULTS, Measurement, MemoryPeaks, PrecisionSettings, Run, Spread
from costmodel.hardware.workload import Workload, applied
from costmodel.tracer.inputs import floating_dtype, materialize, tensors_in
from costmodel.tracer.kineto import silent_kineto
from costmodel.tracer.torch_private import clear_cublas_workspaces
from costmodel.tracer.training import Training

ROUNDS = 4
"""Rounds of eager wall time: two before the profiler and two after everything else."""

_BLOCK_SECONDS = 0.05
"""How long runs in a row last on CUDA."""


def measure(
    network: nn.Module,
    inputs: Any,
    *,
    device: str = "cuda",
    batch: int = 1,
    dtype: str | None = None,
    train: bool | Training = False,
    precision_settings: PrecisionSettings = DEFAULTS,
    thread_count: int | None = None,
    seconds: float = 1.0,
    name: str | None = None,
) -> Run:
    """Run a network on a device and record how long it takes.

    Args:
        network: with real weights; it is copied.
        inputs: as `costmodel.trace` takes them, the batch included.
        device: "cpu", "cuda" or "cuda:1".
        batch: how many samples `inputs` are.
        dtype: the floating-point type to run in; the network's own if None.
        train: a training step (forward, loss, backward, optimizer) in place of a forward without gradients; a
            `Training` says how.
        precision_settings: of PyTorch, while it runs.
        thread_count: threads on the CPU; torch's own number if None.
        seconds: how long to time at least, rounds and profiler each; every repetition is run to its end.
        name: what to call the network; its class's name if None.

    A run that does not fit into memory is a `Run` whose `failure` says so. Raises HardwareError where the device is not
    there or the profiler sees nothing of it, and InputError for what cannot be run.
    """
    clock = Clock(device)
    training = Training.asked(train, {}) if train else None
    shapes, kind = _fed(network, inputs, dtype)
    blank = Run(
        name or type(network).__name__, shapes, batch, kind, bool(train), dict(training.settings) if training else {}
    )
    with threads(thread_count), applied(precision_settings):
        _give_back(clock)
        try:
            run = _staged(network, inputs, training, clock, blank, precision_settings.memory_format, seconds)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            run = replace(blank, failure=f"out of memory: {' '.join(str(error).split())[:160]}")
        _give_back(clock)
        return replace(run, peers={"torch runtime estimator": torch_estimate(network, run, training, clock.device)})


def measurement(
    runs: Sequence[Run],
    *,
    device: str = "cuda",
    precision_settings: PrecisionSettings = DEFAULTS,
    thread_count: int | None = None,
    command: str = "",
) -> Measurement:
    """The document of some runs that were made on a device in the same environment."""
    with threads(thread_count):
        return Measurement(environment(device, command), precision_settings, tuple(runs))


def _fed(network: nn.Module, inputs: Any, dtype: str | None) -> tuple[tuple[tuple[int, ...], ...], str]:
    """The shapes of the inputs and the dtype of a run, before there is any."""
    floating = (p.dtype for p in network.parameters() if p.dtype.is_floating_point)
    kind = floating_dtype(dtype) or next(floating, torch.get_default_dtype())
    fed = materialize(inputs, kind, True, lambda tensor: tensor)
    return tuple(tuple(tensor.shape) for tensor in tensors_in(fed)), str(kind).removeprefix("torch.")


def _staged(
    network: nn.Module,
    inputs: Any,
    training: Training | None,
    clock: Clock,
    blank: Run,
    memory_format: str,
    seconds: float,
) -> Run:
    """Everything about one run; the workload is freed when this returns."""
    before = _used_bytes(clock.device) if clock.on_cuda else None
    workload = Workload(
        network, inputs, clock.device, dtype=blank.dtype, training=training, memory_format=memory_format
    )
    for _ in range(2):
        workload.run()
    clock.synchronize()
    memory = _memory(workload, clock, before)
    clocks = [_clock_hertz(clock)]
    rounds = [_eager(workload, clock, seconds / ROUNDS) for _ in range(ROUNDS // 2)]
    joined, walls = _profiled(workload, clock, seconds)
    graph, problem = _graph(workload, clock) if clock.on_cuda else (None, "CUDA graphs are CUDA's")
    rounds += [_eager(workload, clock, seconds / ROUNDS) for _ in range(ROUNDS - ROUNDS // 2)]
    clocks.append(_clock_hertz(clock))
    return replace(
        blank,
        eager=Spread.of([each for found in rounds for each in found]).rounded(),
        rounds=tuple(round(statistics.median(found), 9) for found in rounds),
        kernel_time=Spread.of(joined.kernel_time).rounded(),
        profiled=Spread.of(walls).rounded(),
        graph=graph,
        graph_problem=problem,
        layers=joined.layers,
        unattributed=joined.unattributed,
        memory=memory,
        clocks_hertz=tuple(hertz for hertz in clocks if hertz),
    )


def _eager(workload: Workload, clock: Clock, seconds: float) -> list[float]:
    """Wall times of a run: on CUDA the mean of several in a row, so that the host may run ahead as it does in use."""
    in_a_row = max(1, min(50, round(_BLOCK_SECONDS / _wall(workload, clock)))) if clock.on_cuda else 1
    found: list[float] = []
    start = time.perf_counter()
    while not found or time.perf_counter() - start < seconds:
        found.append(_wall(workload, clock, in_a_row))
    return found


def _wall(workload: Workload, clock: Clock, count: int = 1) -> float:
    """Seconds of one of `count` runs in a row."""
    clock.synchronize()
    begun = time.perf_counter()
    for _ in range(count):
        workload.run()
    clock.synchronize()
    return (time.perf_counter() - begun) / count


def _profiled(workload: Workload, clock: Clock, seconds: float) -> tuple[Joined, list[float]]:
    """What the profiler says, and the wall times of the runs that it watched."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if clock.on_cuda else [])]
    walls: list[float] = []
    with silent_kineto(), workload.annotated(), profile(activities=activities) as recorded:
        workload.run(annotated=True)  # the profiler's first run is slow, and belongs to no repetition
        clock.synchronize()
        started = time.perf_counter()
        while len(walls) < 3 or (len(walls) < 12 and time.perf_counter() - started < seconds):
            begun = time.perf_counter()
            with record_function(REPETITION):
                workload.run(annotated=True)
            clock.synchronize()
            walls.append(time.perf_counter() - begun)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(path))
        events = read(path).events
    if clock.on_cuda and not any(event.category in ON_DEVICE for event in events):
        raise HardwareError(
            "torch.profiler saw no kernel of this device, so nothing is known of its layers: end other profilers, and "
            "see whether torch finds CUPTI."
        )
    joined = join(events)
    if not joined.layers:
        raise InputError("torch.profiler saw no operation of this network: is this torch built without Kineto?")
    return joined, walls


def _graph(workload: Workload, clock: Clock) -> tuple[Spread | None, str]:
    """Seconds of the run's replay as one CUDA graph, or why it cannot be captured.

    Capture follows https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs: warm-up on a side stream, then
    everything in one graph, with gradients that do not exist yet. Where it fails, what torch does not put back itself
    is put back here: the current stream, and the generator, which in torch 2.11 would wait for the capture to end and
    refuse every dropout from then on.
    """
    before = torch.cuda.current_stream(workload.device)
    captured = False
    try:
        with torch.cuda.device(workload.device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    workload.run()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                workload.run()
            captured = True
            found = clock.time(graph.replay)
            return Spread.of(found.seconds).rounded(), ""
    except torch.OutOfMemoryError:
        return None, "no memory for a second copy of its activations"
    except Exception as error:
        first = error.__context__ or error  # what broke the capture, of which its end then complains
        return None, " ".join(f"{type(first).__name__}: {first}".split())[:200]
    finally:
        torch.cuda.set_stream(before)
        if not captured:
            generator = torch.cuda.default_generators[before.device_index]
            generator.graphsafe_set_state(generator.clone_state())  # its copy captures nothing


def _memory(workload: Workload, clock: Clock, before: int | None) -> MemoryPeaks:
    """The peaks of one run in the steady state."""
    if not clock.on_cuda:
        return MemoryPeaks()
    device = clock.device
    torch.cuda.reset_peak_memory_stats(device)
    workload.run()
    clock.synchronize()
    stats = torch.cuda.memory_stats(device)
    peaks = {f"{level}_bytes": stats.get(f"{level}_bytes.all.peak") for level in ("requested", "allocated", "reserved")}
    return MemoryPeaks(**peaks, device_bytes=_used_bytes(device), before_bytes=before)


def _used_bytes(device: torch.device) -> int:
    free, total = torch.cuda.mem_get_info(device)
    return total - free


def _clock_hertz(clock: Clock) -> float | None:
    """The compute clock now, where the system reports it."""
    found = environment(clock.device)["device"]
    clocks = found.get("clocks_hertz")
    return found.get("clock_hertz") or (statistics.mean(clocks) if clocks else None)


def _give_back(clock: Clock) -> None:
    """Leave nothing behind: the next run finds the allocator as a new process does.

    cuBLAS is given a workspace for each stream that it works on, which PyTorch keeps; one that was made while a graph
    was captured keeps the graph's whole memory.
    """
    gc.collect()
    if clock.on_cuda:
        clear_cublas_workspaces()
        torch.cuda.empty_cache()


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        words in text for words in ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
    )
