"""What commands say around a table beyond what the result says itself: which network ran on what, and what fits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from costmodel.graph import Trace
from costmodel.units import iec

if TYPE_CHECKING:
    from costmodel.devices import Device
    from costmodel.memory import Fit, MemoryLevel, Overhead
    from costmodel.validation import Validation
    from costmodel.view import Table


def caption(trace: Trace, title: str = "", batch: int | None = None) -> str:
    """A run in one line: "VGG-16 (book): input 32x1x224x224, float32, batch 32, forward"."""
    shapes = Counter("x".join(map(str, spec.shape)) for spec in trace.inputs)
    inputs = ", ".join(f"{count} of {shape}" if count > 1 else shape for shape, count in shapes.items())
    parts = [f"input {inputs}", trace.dtype]
    if batch is not None:
        parts.append(f"batch {batch}")
    return f"{title or trace.model}: {', '.join([*parts, *_run(trace)])}"


def run_caption(trace: Trace, title: str = "") -> str:
    """The same whatever the batch: "VGG-16 (book): float32, forward"."""
    return f"{title or trace.model}: {', '.join([trace.dtype, *_run(trace)])}"


def _run(trace: Trace) -> list[str]:
    settings = [_setting(name, value) for name, value in trace.settings.items()]
    run = [f"training step ({', '.join(settings)})"] if trace.train else [*settings, "forward"]
    return run if trace.target == "cuda" else [*run, f"operators of the {trace.target.upper()}"]


def _setting(name: str, value: Any) -> str:
    """An entry of `Trace.settings` in words: "sgd", "momentum 0.9", "set to none off", "checkpoint features"."""
    words = name.replace("_", " ")
    if name in ("loss", "optimizer"):
        return str(value or f"no {name}")
    if isinstance(value, bool):
        return words if value else f"{words} off"
    if isinstance(value, (list, tuple)):
        return f"{words} {' '.join(map(str, value))}"
    return f"{words} {value:g}" if isinstance(value, (int, float)) else f"{words} {value}"


def level_notes(levels: Sequence[MemoryLevel]) -> tuple[str, ...]:
    """What a process takes for the tensors' bytes, level by level, where an allocator was replayed."""
    if len(levels) < 2:
        return ()
    steps = ", ".join(f"{level.name} {iec(level.nbytes)}{' (assumed)' if level.assumed else ''}" for level in levels)
    return (f"From tensors to process: {steps}.",)


def room_note(device: Device, levels: Sequence[MemoryLevel], fits: bool) -> str:
    """Whether a run fits a device."""
    room, most = device.available_bytes or 0, levels[-1].nbytes
    size, taken = iec(room), iec(most)
    if fits and most > room:
        return f"It fits the {device.title} ({size}) in less than these {taken}: {_RETRIES}."
    if fits:
        return f"It fits the {device.title}: {taken} of {size}."
    return f"It does not fit the {device.title}: it takes {taken}, and there are {size}. --fit finds the largest batch."


def sweep_notes(sweep: Table, device: Device | None, beside: Sequence[Overhead]) -> tuple[str, ...]:
    """What a sweep over batches was held against, where a device was named, and what was assumed."""
    notes = []
    if device is not None and "fits" in sweep.names:
        room = device.available_bytes or 0
        pairs = zip(sweep["fits"], sweep["process_bytes"], strict=True)
        tight = any(fits and (nbytes or 0) > room for fits, nbytes in pairs)
        more = f"; where its process would take more, {_RETRIES}" if tight else ""
        notes.append(f"Fits: whether the {device.title} ({iec(room)}) runs the batch{more}.")
    return (*notes, *assumed_notes(beside))


_RETRIES = "the allocator has to give segments back and ask for others, which takes time"


def fit_notes(fit: Fit, train: bool) -> tuple[str, ...]:
    """The largest batch in words: what was compared with what, and how sure that is."""
    device, what = fit.device, "a training step" if train else "an inference"
    size = iec(device.available_bytes or 0)
    if not fit.batch:
        held = fit.point.process_bytes if fit.level == "process" else fit.point.requested_bytes
        return (f"nothing fits the {device.title}: {what} of one sample takes {iec(held or 0)}, and it has {size}.",)
    notes = [f"The {device.title} ({size}) runs {what} of up to {fit.batch:,} samples."]
    if fit.batch < fit.bound:
        tried = "all tried" if fit.exhaustive else "searched by bisection"
        notes.append(
            f"Larger batches were {tried} up to {fit.bound:,}, beyond which tensors alone would overfill the memory."
        )
    else:
        notes.append("The tensors of one more alone would overfill the memory.")
    if fit.batch_without_retries < fit.batch:
        notes.append(f"Beyond {fit.batch_without_retries:,} {_RETRIES}.")
    if not fit.extrapolated:
        notes.append("This network's operations depend on its batch, so batches were traced one by one.")
    return (*notes, *assumed_notes(fit.beside))


def assumed_notes(beside: Sequence[Overhead]) -> tuple[str, ...]:
    """What a process was assumed to hold beside its tensors."""
    if not beside:
        return ()
    from costmodel.memory.levels import NOT_COUNTED

    parts = ", ".join(f"{overhead.what} {iec(overhead.nbytes)}" for overhead in beside)
    return (f"Assumed for the process beside its tensors: {parts}. {NOT_COUNTED}",)


def verdict(validation: Validation, title: str) -> str:
    """How a comparison went, in one line."""
    if not validation.rows:
        return f"{title}: nothing could be compared"
    failed, count = sum(not row.ok for row in validation.rows), len(validation.rows)
    if failed:
        return f"{title}: {failed} of {count} numbers differ and are not explained"
    return f"{title}: all {count} numbers are equal, or their difference is explained to the unit"
