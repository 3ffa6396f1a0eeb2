"""Somebody's torch.profiler trace -> a measurement record, without CUDA and without the machine that made it.

What a record says of its origin is the GPU's name and size and the day, as the trace has them, the trace's digest and
the source that the user names. Nothing else of a trace's metadata gets there: no environment, host or path.
"""

from __future__ import annotations

import datetime
import hashlib
import math
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import costmodel
from costmodel.errors import InputError
from costmodel.graph import Trace
from costmodel.hardware.profiles.alignment import Located, OtherShapeError, align
from costmodel.hardware.profiles.annotations import annotated
from costmodel.hardware.profiles.events import OPERATOR, Profile
from costmodel.hardware.profiles.host import LAYER, REPETITION, STEP, Host, Places
from costmodel.hardware.profiles.join import Interval, Joined, joined
from costmodel.hardware.profiles.repetitions import Repetitions, of_forwards, of_profiler, without_cold
from costmodel.hardware.record import Measurement, PrecisionSettings, Run, Spread
from costmodel.units import plural

_FIRST_DAY = datetime.datetime(2015, 1, 1, tzinfo=datetime.UTC).timestamp()
"""Before this a trace's clock does not count from 1970."""


class Foreign(NamedTuple):
    """A trace's events, attributed to a network's layers."""

    joined: Joined
    repetitions: Repetitions
    cold: tuple[float, ...]
    """The kernels' time of repetitions that were set apart."""

    located: Located
    host: Host
    places: Places


def attribute(profile: Profile, trace: Trace) -> Foreign:
    """The kernels of a trace by the layers of the network that ours is of.

    Raises InputError if the trace shows no GPU's work, or that of another network, of other inputs, or of another kind
    of step.
    """
    check_kernels(profile)
    host = Host(profile.events)
    located = _located(profile, host, trace)
    _check_copies(profile, located, trace)
    marked = tuple((host.events[index].start, host.events[index].end) for index in host.named(REPETITION))
    steps, found_by = marked, "our own annotations"
    if not steps:
        steps, found_by = of_profiler(host), "ProfilerStep"
    steps = tuple(step for step in steps if any(step[0] <= start <= step[1] for start, _ in located.forwards))
    if not steps:
        steps, found_by = of_forwards(host, located.forwards, trace.train), "its forwards"
    steps = _whole(profile, host, steps)
    repetitions = Repetitions(steps, (), found_by) if marked else without_cold(host, steps, found_by)
    places = Places(host, located.layers, None)
    found = joined(host, places, profile.kernels, repetitions.warm)
    cold = joined(host, places, profile.kernels, repetitions.cold).kernel_time if repetitions.cold else ()
    if trace.train and trace.settings.get("optimizer"):
        _check_optimizer(host, trace)
    return Foreign(found, repetitions, cold, located, host, places)


def measurement(
    profile: Profile, trace: Trace, precision_settings: PrecisionSettings, source: str, digest: str
) -> Measurement:
    """The record of a trace: one run. Raises InputError as `attribute` does."""
    found = attribute(profile, trace)
    device = profile.device
    if device is None:
        raise InputError("this trace does not say which GPU it is of: it has no deviceProperties.")
    hosts = [end - start for start, end in found.repetitions.warm]
    walls = Spread.of([max(pair) for pair in zip(hosts, found.joined.spans, strict=True)]).rounded()
    run = Run(
        trace.model,
        tuple(spec.shape for spec in trace.inputs),
        trace.inputs[0].shape[0],
        trace.dtype,
        trace.train,
        dict(trace.settings),
        kernel_time=Spread.of(found.joined.kernel_time).rounded(),
        idle=Spread.of(found.joined.idle).rounded(),
        profiled=walls,
        layers=found.joined.layers,
        unattributed=found.joined.unattributed,
        cold=found.cold,
    )
    environment = {
        "device": {
            "type": "cuda",
            "name": device.name,
            "capability": f"{device.major}.{device.minor}",
            "units": device.units,
            "memory_bytes": device.memory_bytes,
        },
        "versions": {"costmodel": costmodel.__version__},
        "threads": 0,
        "date": _day(profile.origin),
        "trace": {
            "source": source,
            "sha256": digest,
            "repetitions": _told(found.repetitions),
            "layers": found.located.found_by,
        },
    }
    return Measurement(environment, precision_settings, (run,))


def digest_of(path: str | PathLike[str]) -> str:
    """The first 16 digits of a file's SHA-256."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def check_kernels(profile: Profile) -> None:
    """Raises InputError for a trace without GPU activity."""
    if not profile.kernels:
        raise InputError(
            "this trace shows nothing that ran on a GPU: profile with activities=[ProfilerActivity.CPU, "
            "ProfilerActivity.CUDA], where torch finds CUPTI."
        )
    if not any(event.category == OPERATOR for event in profile.events):
        raise InputError("this trace has kernels and no operators: profile with ProfilerActivity.CPU as well.")


def launching(host: Host, profile: Profile) -> frozenset[int]:
    """The operators that launched a kernel themselves, by their index on the host."""
    found: set[int] = set()
    for kernel in profile.kernels:
        index = host.operator_of(kernel)
        while index is not None and host.events[index].category != OPERATOR:
            index = host.above[index]
        if index is not None:
            found.add(index)
    return frozenset(found)


def _located(profile: Profile, host: Host, trace: Trace) -> Located:
    if host.named(LAYER):
        layers = {index: host.events[index].name.removeprefix(LAYER) for index in host.named(LAYER)}
        return Located(
            layers, tuple((host.events[i].start, host.events[i].end) for i in host.named(REPETITION)), "our annotations"
        )
    try:
        return align(host, launching(host, profile), trace)
    except OtherShapeError:
        raise
    except InputError:
        if found := annotated(host, trace):
            return found
        raise


def _whole(profile: Profile, host: Host, steps: tuple[Interval, ...]) -> tuple[Interval, ...]:
    """The steps whose kernels are all there, where the trace was cut. Raises InputError if there is none."""
    if profile.until == math.inf:
        return steps
    pairs = ((kernel, host.operator_of(kernel)) for kernel in profile.kernels)
    lag = max((kernel.start - host.events[index].start for kernel, index in pairs if index is not None), default=0.0)
    found = tuple(step for step in steps if step[1] + lag <= profile.until)
    if not found:
        raise InputError("this trace is too long, and its first step alone does not fit: record fewer steps, no stack.")
    return found


def _check_copies(profile: Profile, located: Located, trace: Trace) -> None:
    """Raises InputError if each step copies another number of our inputs to the GPU: then the batch is another one."""
    if not trace.inputs or not trace.inputs[0].shape:
        return
    batch = trace.inputs[0].shape[0]
    sample, rest = divmod(trace.inputs[0].nbytes, batch or 1)
    copies = [kernel.nbytes for kernel in profile.kernels if "HtoD" in kernel.name and kernel.nbytes]
    each_step = [size for size in set(copies) if copies.count(size) >= max(2, len(located.forwards) - 1)]
    if rest or not sample or not each_step or trace.inputs[0].nbytes in each_step:
        return
    others = [size // sample for size in each_step if size % sample == 0]
    if others:
        raise InputError(
            f"the trace is of another batch: each step copies {max(others)} inputs of {trace.model} to the GPU, not "
            f"{batch}: give --batch {max(others)}."
        )


def _check_optimizer(host: Host, trace: Trace) -> None:
    """Raises InputError if another optimizer stepped than ours; without any step ours has no time."""
    names = {host.events[index].name.removeprefix(STEP).partition(".")[0].lower() for index in host.named(STEP)}
    ours = str(trace.settings.get("optimizer")).lower()
    if names and ours not in names:
        raise InputError(f"the trace's optimizer is {', '.join(sorted(names))}: give --optimizer {min(names)}.")


def _told(repetitions: Repetitions) -> str:
    """How many steps there are, in words."""
    warm = f"{plural(len(repetitions.warm), 'repetition')}, by {repetitions.found_by}"
    if repetitions.cold:
        return f"{warm}, after {len(repetitions.cold)} that may have been cold"
    return warm if len(repetitions.warm) > 1 else f"{warm}: nothing says whether it was warm"


def _day(microseconds: float) -> str:
    """The day of a trace whose clock counts from 1970."""
    moment = microseconds / 1e6
    return (
        datetime.datetime.fromtimestamp(moment, datetime.UTC).date().isoformat() if moment > _FIRST_DAY else "unknown"
    )
