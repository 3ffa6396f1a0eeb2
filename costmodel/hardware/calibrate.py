"""What a device really reaches, as a device file that everything else takes.

Three things are measured, in about two minutes: matrix products over sizes, bandwidth over working sets, and the
operations of `shapes`, class by class. From the last come the ceilings of `costmodel.estimate` (see `fit`).

Operations are timed as a network runs them, not in a loop of their own: groups of several hundred operations of all
classes run in a random order, one call each, again and again, so that code and tensors are as cold as they are in a
network, and branches are as hard to predict. What is in the last-level cache at a call is one of three: everything,
for its inputs, weights and program were used just before (a small network); its inputs alone, which are touched before
it (a large one); nothing, for the rest of the group has driven it out. The median over the rounds counts.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from costmodel import devices
from costmodel.cost import count
from costmodel.devices import Calibration, Ceilings, Device, Fact, Source
from costmodel.errors import InputError
from costmodel.estimate import PROGRAM, class_of, demands
from costmodel.graph import Operation
from costmodel.hardware.clock import FRESH_BYTES, Clock, Timing, circumstances, threads
from costmodel.hardware.fit import CONFIDENCE, Guess, Sample, fit
from costmodel.hardware.shapes import DRAWS, Case, Limits, cases
from costmodel.tracer import trace

Progress = Callable[[str, int, int], None]
"""Called with what is being measured, how many steps are done and how many there are."""

RESIDENT: Sequence[frozenset[str]] = (
    frozenset({PROGRAM, "parameter", "buffer", "input"}),
    frozenset({"input"}),
    frozenset({PROGRAM, "parameter", "buffer", "input"}),
    frozenset(),
)
"""The roles of what is in the last-level cache when an operation starts; one after the other for a class's shapes."""


class Effort(NamedTuple):
    """How much is measured."""

    shapes: int = 36
    """Of each class."""

    rounds: int = 5
    classes: Sequence[str] = tuple(DRAWS)
    most_seconds: float = 0.04
    """Of one operation, at half the highest rate."""

    sizes: Sequence[int] = ()
    """Of matrix products; chosen for the device if empty."""

    most_bytes: int = 0
    """Of one tensor; chosen for the device if 0."""


FULL = Effort()
QUICK = Effort(shapes=6, rounds=1, most_seconds=0.002, sizes=(128, 256), most_bytes=2**23)


class _Path(NamedTuple):
    """A precision path, and how PyTorch is told to take it."""

    name: str
    dtype: torch.dtype
    tf32: bool = False


_PATHS = {
    "cpu": (_Path("fp32", torch.float32),),
    "cuda": (
        _Path("fp32", torch.float32),
        _Path("tf32", torch.float32, tf32=True),
        _Path("fp16", torch.float16),
        _Path("bf16", torch.bfloat16),
    ),
}
_AT_PEAK = {"cpu": ("conv_1x1", "conv_3x3", "conv_large", "gemm"), "cuda": ("conv_1x1", "gemm")}
"""The classes whose rates are peaks too, if no matrix product is faster: not where Winograd's convolution may run."""

_CONTRACTIONS = ("conv", "gem", "attention")
"""How the names of the classes start that have a rate of their own by each path."""


class _Timed(NamedTuple):
    """One operation that was timed."""

    name: str
    """Its class."""

    path: str
    sample: Sample
    unpadded: float
    """The share of its products that are not with a padding's zero, which some kernels leave out."""


@dataclass(frozen=True)
class _Subject:
    """One operation, ready to be timed."""

    name: str
    path: _Path
    sample: Sample
    """What it demands; its time is yet to come."""

    unpadded: float
    others: int
    """Views beside it."""

    call: Callable[[], Any]
    prepare: Callable[[], Any]
    """Brings the cache into its state."""


def calibrate(
    device: str = "cpu",
    *,
    cpu_threads: int | None = None,
    name: str = "",
    command: str = "",
    effort: Effort | None = None,
    progress: Progress | None = None,
) -> Device:
    """Measure what a device reaches.

    Args:
        device: "cpu", "cuda", "cuda:1".
        cpu_threads: how many threads the CPU computes with; as many as torch is set to if None.
        name: what to call the device; made of its model's name if empty.
        command: what was asked for, for the record.
        effort: how much to measure.
        progress: told of each step.

    A GPU that has a file of ours keeps the peaks and bandwidth of its datasheet; for any other device they are the
    highest rates measured. Raises HardwareError if the device is not there.
    """
    clock = Clock(device)
    tell = progress or (lambda text, done, total: None)
    with threads(cpu_threads), torch.no_grad():
        about = circumstances(clock.device, command)
        cache = _nominal_cache(about)
        effort = _suited(effort or FULL, clock, cache)
        tell("bandwidth", 0, 1)
        bandwidth = _bandwidths(clock, cache, effort.most_bytes)
        memory_bandwidth = max(rate for size, rate in bandwidth.items() if size >= min(max(bandwidth), 4 * cache))
        cache = _effective_cache(bandwidth, cache, memory_bandwidth)
        tell("matrix products", 0, 1)
        paths = [path for path in _PATHS[clock.device.type] if _runs(path, clock)]
        products = {path.name: _products(clock, path, effort.sizes) for path in paths}
        launch = _launch(clock)
        samples = _samples(clock, paths, products, cache, effort, tell)
        near = bandwidth[min(bandwidth, key=lambda size: abs(math.log(size / (cache / 4))))]
        classes = _fitted(samples, products, near, memory_bandwidth, clock)
        calibration = Calibration(cache, _fresh_from(clock, cache), CONFIDENCE, classes, products, bandwidth)
        peaks = {path: max(rates.values()) for path, rates in products.items()}
        for each in samples:
            if each.name in _AT_PEAK[clock.device.type]:
                peaks[each.path] = max(peaks[each.path], each.unpadded * each.sample.demand.flops / each.sample.seconds)
        about = circumstances(clock.device, command)  # clocks under load
        return _device(about, name, calibration, peaks, memory_bandwidth, launch)


def _suited(effort: Effort, clock: Clock, cache: int) -> Effort:
    sizes = effort.sizes or ((256, 512, 1024, 2048, 4096, 8192) if clock.on_cuda else (128, 256, 512, 1024, 1536))
    most = effort.most_bytes or (2**29 if clock.on_cuda else max(2**27, 4 * cache))
    return effort._replace(sizes=sizes, most_bytes=most)


def _nominal_cache(about: Mapping[str, Any]) -> int:
    """Bytes of the last-level cache by what the system says; 32 MiB where it says nothing."""
    return max(about["device"].get("cache_bytes", {}).values(), default=0) or 2**25


# bandwidth, matrix products, launches ---------------------------------------------------------------------------------


def _bandwidths(clock: Clock, cache: int, most_bytes: int) -> dict[int, float]:
    """Bytes/s, read and written, of the fastest of three simple operations, by bytes of the working set."""
    found = {}
    size = 2**16
    while size <= max(2 * most_bytes, 8 * cache):
        found[size] = max(size / timing.median_seconds for timing in _streams(clock, size))
        size *= 2
    return found


def _streams(clock: Clock, size: int) -> Iterator[Timing]:
    """Copy, scale in place, and sum, each on a working set of `size` bytes, all of it touched once."""
    x = torch.randn(size // 4, device=clock.device)
    half = size // 8
    yield clock.time(partial(x[:half].copy_, x[half : 2 * half]), repetitions=3)
    yield clock.time(partial(x.sum), repetitions=3)
    y = x[:half]
    scaled = clock.time(partial(y.mul_, 1.0), repetitions=3)
    yield scaled


def _effective_cache(bandwidth: Mapping[int, float], nominal: int, memory: float) -> int:
    """The largest working set whose bandwidth is nearer to the cache's than to the memory's, but not above nominal."""
    inside = max((rate for size, rate in bandwidth.items() if nominal / 8 <= size <= nominal / 2), default=memory)
    limit = math.sqrt(inside * memory)
    served = [size for size, rate in bandwidth.items() if size <= nominal and rate >= limit]
    return max(served, default=nominal)


def _fresh_from(clock: Clock, cache: int) -> int:
    """From which size on a new tensor is written to memory: beyond the cache; on a CPU at glibc's threshold."""
    return cache if clock.on_cuda else FRESH_BYTES


def _products(clock: Clock, path: _Path, sizes: Iterable[int]) -> dict[int, float]:
    """FLOP/s of n x n matrix products."""
    found = {}
    with _precision(path):
        for size in sizes:
            a, b = (torch.randn(size, size, device=clock.device, dtype=path.dtype) for _ in range(2))
            found[size] = 2 * size**3 / clock.time(partial(torch.mm, a, b), repetitions=5).median_seconds
    return found


def _launch(clock: Clock) -> float:
    tiny = torch.randn(1, device=clock.device)
    call = partial(torch.add, tiny, tiny)
    return clock.launch_seconds(call) if clock.on_cuda else clock.time(call).median_seconds


def _runs(path: _Path, clock: Clock) -> bool:
    """Whether the device has the path: TF32 and bfloat16 came with compute capability 8.0."""
    if not clock.on_cuda or path.name in ("fp32", "fp16"):
        return True
    return torch.cuda.get_device_capability(clock.device)[0] >= 8


@contextmanager
def _precision(path: _Path) -> Iterator[None]:
    """Let float32 contractions use TF32, or not, for a while."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = path.tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


# the operations of each class -----------------------------------------------------------------------------------------


def _samples(
    clock: Clock,
    paths: Sequence[_Path],
    products: Mapping[str, Mapping[int, float]],
    cache: int,
    effort: Effort,
    tell: Progress,
) -> list[_Timed]:
    """The operations of all classes, timed."""
    wanted = []
    for path in paths:
        best = max(products[path.name].values())
        limits = Limits(
            2e5,
            effort.most_seconds * best / 2,
            effort.most_bytes,
            128 if clock.on_cuda else 16,
            min(1.3 * cache, effort.most_bytes / 4),
        )
        for name in effort.classes:
            if path.name == "fp32" or name.startswith(_CONTRACTIONS):
                drawn = enumerate(cases(name, effort.shapes, limits))
                wanted += [(name, path, case, RESIDENT[i % len(RESIDENT)]) for i, case in drawn]
    random.Random(0).shuffle(wanted)
    groups = _grouped(wanted, 2**33 if clock.on_cuda else max(2**30, 16 * cache))
    found = []
    for number, group in enumerate(groups):
        tell(f"operations, group {number + 1} of {len(groups)}", number, len(groups))
        subjects = [subject for each in group if (subject := _subject(clock, cache, *each)) is not None]
        times = _timed(clock, subjects, effort.rounds)
        found += [(subject.others, _timed_as(subject, each)) for subject, each in zip(subjects, times, strict=True)]
        del subjects
    tell("done", len(groups), len(groups))
    views = [each.sample.seconds for _, each in found if each.name == "view"]
    view = statistics.median(views) if views and not clock.on_cuda else 0.0
    return [each._replace(sample=_without(each.sample, others * view)) for others, each in found]


def _timed_as(subject: _Subject, seconds: float) -> _Timed:
    sample = subject.sample._replace(seconds=seconds)
    return _Timed(subject.name, subject.path.name, sample, subject.unpadded)


def _without(sample: Sample, seconds: float) -> Sample:
    """The sample without what its views took, which is not all of it."""
    return sample._replace(seconds=max(sample.seconds - seconds, sample.seconds / 2))


def _grouped(wanted: Sequence[Any], most_bytes: float) -> list[list[Any]]:
    """The cases in groups of equal bytes, none above the most."""
    sizes = [4 * sum(math.prod(shape) for shape in case.shapes) for _, _, case, _ in wanted]
    number = max(1, math.ceil(sum(sizes) / most_bytes))
    groups: list[list[Any]] = [[] for _ in range(number)]
    for rank, index in enumerate(sorted(range(len(wanted)), key=lambda i: -sizes[i])):
        groups[rank % number].append(wanted[index])
    return [group for group in groups if group]


def _subject(clock: Clock, cache: int, name: str, path: _Path, case: Case, resident: frozenset[str]) -> _Subject | None:
    """The operation with its tensors on the device; None if this torch runs another operator for it."""
    shapes = case.shapes[0] if len(case.shapes) == 1 else list(case.shapes)
    with torch.device("meta"):
        costs = count(trace(case.make(), shapes, dtype=path.dtype, target=clock.device.type))
    found = [class_of(entry) for entry in costs.operations]
    if name not in found:
        return None
    index = found.index(name)
    demand = demands(costs, cache, _fresh_from(clock, cache), resident=resident)[index]
    module = _built(case).eval().to(clock.device, path.dtype)
    inputs = [_random(shape, clock.device, path.dtype) for shape in case.shapes]
    if case.rectified:
        inputs = [x.relu_() for x in inputs]
    call = partial(module, *inputs)
    largest = max(tensor.nbytes for entry in costs.operations for tensor in entry.operation.outputs)
    leaves_something = max(largest, *(x.nbytes for x in inputs)) <= cache

    def prepare() -> None:
        if PROGRAM in resident and leaves_something:
            call()
        if "input" in resident:
            for x in inputs:
                x.mul_(1.0)

    others = sum(each == "view" for each in found) if name != "view" else 0
    unpadded = unpadded_share(costs.operations[index].operation)
    return _Subject(name, path, Sample(demand, 0.0), unpadded, others, call, prepare)


def unpadded_share(operation: Operation) -> float:
    """The share of a convolution's products in which no padding takes part; 1 for any other operation."""
    if operation.operator != "aten.convolution":
        return 1.0
    share = 1.0
    sizes, window = operation.inputs["input"].shape[2:], operation.inputs["weight"].shape[2:]
    geometry = (operation.outputs[0].shape[2:], operation.attributes["stride"], operation.attributes["padding"])
    for size, places, out, stride, padding in zip(sizes, window, *geometry, strict=True):
        inside = sum(0 <= i * stride - padding + place < size for i in range(out) for place in range(places))
        share *= inside / (out * places)
    return share


_LONG, _ENOUGH = 0.05, 2
"""Operations of so many seconds are steady, and are timed only so often."""


def _built(case: Case) -> nn.Module:
    """The case's module, with weights; those of a large one are filled faster than layers initialise theirs."""
    with torch.device("meta"):
        module = case.make()
    if sum(parameter.numel() for parameter in module.parameters()) < _BLOCK:
        return case.make()
    module.to_empty(device="cpu")
    for parameter in module.parameters():
        parameter.copy_(_random(parameter.shape, torch.device("cpu"), parameter.dtype))
    return module


_BLOCK = 2**20


def _random(shape: Sequence[int], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Normal random numbers; beyond a million they repeat, which no operation notices."""
    number = math.prod(shape)
    flat = torch.empty(number, device=device, dtype=dtype)
    block = torch.randn(min(number, _BLOCK), device=device, dtype=dtype)
    for start in range(0, number, _BLOCK):
        part = flat[start : start + _BLOCK]
        part.copy_(block[: len(part)])
    return flat.view(*shape)


def _timed(clock: Clock, subjects: Sequence[_Subject], rounds: int) -> list[float]:
    """The median time of each over the rounds, each round in an order of its own."""
    seconds: list[list[float]] = [[] for _ in subjects]
    order = list(range(len(subjects)))
    for number in range(rounds + 1):
        random.Random(number).shuffle(order)
        for index in order:
            subject = subjects[index]
            if len(seconds[index]) >= _ENOUGH and seconds[index][0] > _LONG:
                continue
            with _precision(subject.path):
                elapsed = clock.once(subject.call, subject.prepare)
            if number:  # the first makes kernels
                seconds[index].append(elapsed)
    return [statistics.median(each) for each in seconds]


def _fitted(
    samples: Sequence[_Timed],
    products: Mapping[str, Mapping[int, float]],
    near: float,
    far: float,
    clock: Clock,
) -> dict[str, dict[str, Ceilings]]:
    """The ceilings of each class and path that were measured."""
    by_class: dict[str, dict[str, list[Sample]]] = {}
    for each in samples:
        by_class.setdefault(each.name, {}).setdefault(each.path, []).append(each.sample)
    found: dict[str, dict[str, Ceilings]] = {}
    for name in DRAWS:
        for path, timed in by_class.get(name, {}).items():
            ceilings = fit(timed, Guess(max(products[path].values()), near, far))
            if name == "view" and clock.on_cuda:
                ceilings = replace(ceilings, fixed_seconds=0.0)  # the host's time, while the device goes on
            found.setdefault(name, {})[path] = ceilings
    return found


# the device -----------------------------------------------------------------------------------------------------------


def _device(
    about: Mapping[str, Any],
    name: str,
    calibration: Calibration,
    peaks: Mapping[str, float],
    memory_bandwidth: float,
    launch_seconds: float,
) -> Device:
    """The device's file: what is known of it already, and what was measured."""
    hardware, versions = about["device"], about["versions"]
    on_cpu = hardware["type"] == "cpu"
    command = about.get("command") or "costmodel.hardware.calibrate"
    details = [f"{key} {value}" for key, value in versions.items() if key != "costmodel"]
    details += [f"{about['threads']} threads" if about["threads"] > 1 else "1 thread"] if on_cpu else []
    details += [str(hardware[key]) for key in ("instructions", "driver") if key in hardware]
    clocks = hardware["clocks_hertz"] if on_cpu else [hardware[key] for key in ("clock_hertz",) if key in hardware]
    details += [f"clock read as {max(clocks) / 1e9:.2f} GHz"] if clocks else []
    run = Source(
        f"Measured by costmodel {versions['costmodel']}: {command}", about["date"][:10], via=", ".join(details)
    )
    title = (
        f"{hardware['name']}, {about['threads']} thread{'s' * (about['threads'] > 1)}" if on_cpu else hardware["name"]
    )
    known = None if on_cpu else _known(hardware["name"])
    numbers: dict[str, float] = {"memory_bandwidth": memory_bandwidth}
    numbers |= {f"peaks.{path}": rate for path, rate in peaks.items()}
    sizes = {"memory_bytes": hardware.get("memory_bytes"), "units": about["threads"] if on_cpu else hardware["units"]}
    sizes["clock_hertz"] = max(clocks, default=None)
    sizes |= {f"{level}_bytes": hardware.get("cache_bytes", {}).get(level) for level in ("l2", "l3")}
    facts = {key: Fact(float(f"{value:.4g}"), run, "the highest rate measured") for key, value in numbers.items()}
    facts |= {key: Fact(value, run) for key, value in sizes.items() if value}
    if known is not None:
        facts = dict(known.facts)
    facts["launch_seconds"] = Fact(float(f"{launch_seconds:.4g}"), run)
    facts["calibration"] = Fact(calibration.cache_bytes, run)
    plain = {key: fact.value for key, fact in facts.items() if not key.startswith("peaks.") and key != "calibration"}
    return Device(
        name=name or "-".join(title.lower().replace(",", "").split()),
        title=f"{title}, calibrated",
        kind="cpu" if on_cpu else "gpu",
        architecture=known.architecture if known else "",
        peaks={key.removeprefix("peaks."): fact.value for key, fact in facts.items() if key.startswith("peaks.")},
        calibration=calibration,
        facts=facts,
        **plain,  # type: ignore[arg-type]
    )


def _known(model: str) -> Device | None:
    """Our device of that name, with its datasheet's numbers."""
    try:
        return devices.device(model)
    except InputError:
        return None
