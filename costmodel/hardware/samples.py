"""The operations of `shapes`, timed as a network runs them, with what each demands.

Groups of several hundred operations of all classes run in a random order, one call each, again and again, so that code
and tensors are as cold as they are in a network, and branches are as hard to predict. What is in the last-level cache
at a call is one of three: everything, for its inputs, weights and program were used just before (a small network); its
inputs alone, which are touched before it (a large one); nothing, for the rest of the group has driven it out. Gradients
find what their forward left, which runs in such a state just before them. The lower quartile of the rounds counts:
other load on the machine only ever adds to a time.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from costmodel.cost import count
from costmodel.errors import TraceError
from costmodel.estimate import PROGRAM, class_of, demands
from costmodel.graph import Operation
from costmodel.hardware.clock import Clock
from costmodel.hardware.fit import Sample
from costmodel.hardware.rates import Path, fresh_from, precision
from costmodel.hardware.shapes import SAMPLERS, Case, Gradients, Limits, cases
from costmodel.progress import Progress
from costmodel.tracer import trace

RESIDENT: Sequence[frozenset[str]] = (
    frozenset({PROGRAM, "parameter", "buffer", "input"}),
    frozenset({"input"}),
    frozenset({PROGRAM, "parameter", "buffer", "input"}),
    frozenset(),
)
"""The roles of what is in the last-level cache when an operation starts; one after the other for a class's shapes."""

_CONTRACTIONS = ("conv", "gem", "attention", "recurrent")
"""How the names of the classes start that have a rate of their own by each path."""


class Effort(NamedTuple):
    """How much is measured."""

    shapes: int = 36
    """Of each class."""

    rounds: int = 5
    classes: Sequence[str] = tuple(SAMPLERS)
    most_seconds: float = 0.04
    """Of one operation, at half the highest rate."""

    sizes: Sequence[int] = ()
    """Of matrix products; chosen for the device if empty."""

    most_bytes: int = 0
    """Of one tensor; chosen for the device if 0."""


FULL = Effort()
QUICK = Effort(shapes=6, rounds=1, most_seconds=0.002, sizes=(128, 256), most_bytes=2**23)


class Timed(NamedTuple):
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
    path: Path
    sample: Sample
    """What it demands, not yet timed."""

    unpadded: float
    others: int
    """Views beside it."""

    call: Callable[[], Any]
    prepare: Callable[[], Any]
    """Brings the cache into its state."""


def sampled(
    clock: Clock,
    paths: Sequence[Path],
    products: Mapping[str, Mapping[int, float]],
    cache: int,
    effort: Effort,
    tell: Progress,
) -> list[Timed]:
    """The operations of all classes, timed; what the device cannot run is left out.

    Raises what it said if it cannot run most of them.
    """
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
    most = min(2**33, torch.cuda.mem_get_info(clock.device)[0] / 4) if clock.on_cuda else max(2**30, 16 * cache)
    groups = _grouped(wanted, most)
    found, problems = [], []
    for number, group in enumerate(groups):
        tell(f"operations, group {number + 1} of {len(groups)}", number, len(groups))
        subjects = [subject for each in group if (subject := _subject(clock, cache, *each)) is not None]
        times = _timed(clock, subjects, effort.rounds)
        pairs = zip(subjects, times, strict=True)
        found += [(subject.others, _timed_as(subject, each)) for subject, each in pairs if isinstance(each, float)]
        problems += [each for each in times if isinstance(each, RuntimeError)]
        del subjects, pairs  # their memory is the next group's
    if len(problems) > len(found):
        raise problems[0]
    tell("done", len(groups), len(groups))
    views = [each.sample.seconds for _, each in found if each.name == "view"]
    view = statistics.median(views) if views and not clock.on_cuda else 0.0
    return [each._replace(sample=_without(each.sample, others * view)) for others, each in found]


def _timed_as(subject: _Subject, seconds: float) -> Timed:
    sample = subject.sample._replace(seconds=seconds)
    return Timed(subject.name, subject.path.name, sample, subject.unpadded)


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


def _subject(clock: Clock, cache: int, name: str, path: Path, case: Case, resident: frozenset[str]) -> _Subject | None:
    """The operation with its tensors on the device; None if this torch runs another operator for it, or cannot."""
    shapes = case.shapes[0] if len(case.shapes) == 1 else list(case.shapes)
    try:
        with torch.device("meta"):
            costs = count(trace(case.make(), shapes, dtype=path.dtype, target=clock.device.type))
    except TraceError:
        return None
    found = [class_of(entry) for entry in costs.operations]
    if name not in found:
        return None
    index = found.index(name)
    demand = demands(costs, cache, fresh_from(clock, cache), resident=resident)[index]
    module = _built(case, clock.device).eval().to(clock.device, path.dtype)
    inputs = [_random(shape, clock.device, path.dtype) for shape in case.shapes]
    if case.rectified:
        inputs = [x.relu_() for x in inputs]
    gradients = module if isinstance(module, Gradients) else None
    call = gradients.finish if gradients else partial(module, *inputs)
    largest = max(tensor.nbytes for entry in costs.operations for tensor in entry.operation.outputs)
    leaves_something = max(largest, *(x.nbytes for x in inputs)) <= cache

    def prepare() -> None:
        if PROGRAM in resident and leaves_something and not gradients:
            call()
        if "input" in resident:
            for x in inputs:
                x.mul_(1.0)
        if gradients:
            gradients.begin(*inputs)

    others = sum(each == "view" for each in found) if name != "view" and not gradients else 0
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
"""Operations that last this long are steady, and are timed only this often."""


def _built(case: Case, device: torch.device) -> nn.Module:
    """The case's module, with weights; a large one is filled on the device, faster than layers initialise theirs."""
    with torch.device("meta"):
        module = case.make()
    if sum(parameter.numel() for parameter in module.parameters()) < _BLOCK:
        return case.make()
    module.to_empty(device=device)
    for parameter in module.parameters():
        parameter.copy_(_random(parameter.shape, device, parameter.dtype))
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


def _timed(clock: Clock, subjects: Sequence[_Subject], rounds: int) -> list[float | RuntimeError]:
    """The lower quartile of each one's times over the rounds, each round in an order of its own.

    What the device says in its place where it cannot run one.
    """
    seconds: list[list[float]] = [[] for _ in subjects]
    lost: dict[int, RuntimeError] = {}
    order = list(range(len(subjects)))
    for number in range(rounds + 1):
        random.Random(number).shuffle(order)
        for index in order:
            subject = subjects[index]
            if index in lost or (len(seconds[index]) >= _ENOUGH and seconds[index][0] > _LONG):
                continue
            try:
                with precision(subject.path):
                    elapsed = clock.once(subject.call, subject.prepare)
            except RuntimeError as error:
                lost[index] = error.with_traceback(None)  # which holds the tensors
                continue
            if number:  # the first makes kernels
                seconds[index].append(elapsed)
    return [lost[i] if i in lost else sorted(each)[(len(each) - 1) // 4] for i, each in enumerate(seconds)]
