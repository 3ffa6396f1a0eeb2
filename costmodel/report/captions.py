"""What stands above a table: which network ran on what, and what the numbers mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from costmodel.cost import Costs
from costmodel.graph import Trace
from costmodel.roofline import CONVENTION, Prediction, interval
from costmodel.units import iec

if TYPE_CHECKING:
    from costmodel.memory import Memory
    from costmodel.validation import Validation

FLOPS = "FLOPs = 2 x MACs + vector FLOPs; bytes count each distinct tensor that an operation takes or makes once."
BYTES = "Bytes are those that tensors ask for, before an allocator rounds."


def caption(trace: Trace, title: str = "", batch: int | None = None) -> str:
    """A run in one line: "VGG-16 (book): input 32x1x224x224, float32, batch 32, forward"."""
    shapes = Counter("x".join(map(str, spec.shape)) for spec in trace.inputs)
    inputs = ", ".join(f"{count} of {shape}" if count > 1 else shape for shape, count in shapes.items())
    parts = [f"input {inputs}", trace.dtype]
    if batch is not None:
        parts.append(f"batch {batch}")
    settings = [_setting(name, value) for name, value in trace.settings.items()]
    parts += [f"training step ({', '.join(settings)})"] if trace.train else [*settings, "forward"]
    if trace.target != "cuda":
        parts.append(f"operators of the {trace.target.upper()}")
    return f"{title or trace.model}: {', '.join(parts)}"


def bound_note(prediction: Prediction) -> str:
    """What a prediction's times are."""
    return f"{prediction.device.title}: {CONVENTION}."


def estimate_notes(prediction: Prediction) -> list[str]:
    """What a prediction's estimates are, and what they leave out; nothing for a device that was not calibrated."""
    calibration, device, trace = prediction.device.calibration, prediction.device, prediction.costs.trace
    if calibration is None:
        return []
    notes = []
    if prediction.estimate:
        share = f"{calibration.confidence:.0%}".replace("%", " %")
        notes.append(f"Estimate: {interval(prediction.estimate)}; an interval holds {share} of the shapes held out.")
    if prediction.uncovered:
        notes.append(f"No estimate, for want of a measured ceiling: {', '.join(prediction.uncovered)}.")
    if (trace.target == "cpu") != (device.kind == "cpu"):
        own = "cpu" if device.kind == "cpu" else "cuda"
        notes.append(f"These are operators as {trace.target} runs them: give --target {own} for those of the device.")
    return notes


def peak_notes(memory: Memory) -> list[str]:
    """How high a peak is, when it is reached, and what for."""
    where = memory.peak_operation
    roles = ", ".join(f"{role} {iec(held)}" for role, held in memory.by_role.items() if held)
    place = f"{where.operator} of {where.layer or 'the network itself'} ({where.phase})"
    return [f"Peak of {iec(memory.peak_bytes)} in {place}.", f"By role: {roles}."]


def verdict(validation: Validation, title: str) -> str:
    """How a comparison went, in one line."""
    if not validation.rows:
        return f"{title}: nothing could be compared"
    failed, count = sum(not row.ok for row in validation.rows), len(validation.rows)
    if failed:
        return f"{title}: {failed} of {count} numbers differ and are not explained"
    return f"{title}: all {count} numbers are equal, or their difference is explained to the unit"


def warnings(costs: Iterable[Costs]) -> list[str]:
    """What sums leave out, for want of a rule."""
    return [
        f"Not counted, for want of a rule: {entry.operator} ({entry.count} times, in {_layers(entry.layers)})."
        for each in costs
        for entry in each.unmodelled
    ]


def _layers(names: tuple[str, ...], limit: int = 3) -> str:
    shown = ", ".join(name or "the network itself" for name in names[:limit])
    return shown + (f" and {len(names) - limit} more layers" if len(names) > limit else "")


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
