"""What stands above a table: which network ran on what, and what the numbers mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from costmodel.chip.dram import CONVENTION as TRAFFIC
from costmodel.chip.evaluation import CONVENTION as BAND
from costmodel.chip.evaluation import for_share
from costmodel.chip.fusion import CONVENTION as FUSED
from costmodel.cost import MIXED, Costs
from costmodel.graph import Trace
from costmodel.roofline import CONVENTION, Prediction, interval
from costmodel.units import iec, joules, percent, plural, seconds, si

if TYPE_CHECKING:
    import pandas as pd

    from costmodel.chip.dram import Curves, Traffic
    from costmodel.chip.evaluation import Evaluation
    from costmodel.chip.fusion import Fusion
    from costmodel.chip.nests import Unlowered
    from costmodel.devices import Device
    from costmodel.memory import Fit, MemoryLevel, MemoryTimeline, Overhead
    from costmodel.validation import Validation

FLOPS = "FLOPs = 2 x MACs + vector FLOPs; bytes count each distinct tensor that an operation takes or makes once."
BLOCKS = "A block's row is what stands directly in it, without the blocks inside it."
BYTES = "Bytes are those that tensors ask for, before an allocator rounds."
NOT_COUNTED = (
    "Not counted: cuDNN's workspaces, and what the driver keeps of a memory for itself, where nobody says how much."
)
"""What a largest batch leaves out, and is too large by."""


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


def bound_note(prediction: Prediction) -> str:
    """What a prediction's times are, and whose operators they are of if not the device's."""
    device, target = prediction.device, prediction.costs.trace.target
    own = "" if target == device.target else f" The operators are those of target {target}, not of the device."
    return f"{device.title}: {CONVENTION}.{own}"


def estimate_notes(prediction: Prediction) -> list[str]:
    """What a prediction's estimates are, and what they leave out; nothing for a device that was not calibrated."""
    calibration = prediction.device.calibration
    if calibration is None:
        return []
    notes = []
    if prediction.estimate:
        share = f"{calibration.confidence:.0%}".replace("%", " %")
        notes.append(f"Estimate: {interval(prediction.estimate)}; an interval holds {share} of the shapes held out.")
    if prediction.uncovered:
        notes.append(f"No estimate, for want of a measured fitted rate: {', '.join(prediction.uncovered)}.")
    return notes


def peak_notes(memory: MemoryTimeline, levels: Sequence[MemoryLevel] = ()) -> list[str]:
    """How high a peak is, when it is reached, what for, and what a process takes for it."""
    roles = ", ".join(f"{role} {iec(held)}" for role, held in memory.by_role.items() if held)
    notes = [
        f"Peak of {iec(memory.peak_bytes)} in {memory.peak_place} ({memory.peak_operation.phase}).",
        f"By role: {roles}.",
    ]
    if memory.trace.train:
        notes.append(f"Autograd saves {iec(memory.saved_bytes)} in the forward for the backward.")
    return [*notes, *level_notes(levels)]


def level_notes(levels: Sequence[MemoryLevel]) -> list[str]:
    """What a process takes for the tensors' bytes, level by level, where an allocator was replayed."""
    if len(levels) < 2:
        return []
    steps = ", ".join(f"{level.name} {iec(level.nbytes)}{' (assumed)' if level.assumed else ''}" for level in levels)
    return [f"From tensors to process: {steps}."]


def room_note(device: Device, levels: Sequence[MemoryLevel], fits: bool) -> str:
    """Whether a run fits a device."""
    room, most = device.available_bytes or 0, levels[-1].nbytes
    size, taken = iec(room), iec(most)
    if fits and most > room:
        return f"It fits the {device.title} ({size}) in less than these {taken}: {_RETRIES}."
    if fits:
        return f"It fits the {device.title}: {taken} of {size}."
    return f"It does not fit the {device.title}: it takes {taken}, and there are {size}. --fit finds the largest batch."


def sweep_notes(sweep: pd.DataFrame, device: Device | None, beside: Sequence[Overhead]) -> list[str]:
    """What a sweep over batches was held against, where a device was named, and what was assumed."""
    notes = []
    if device is not None and "fits" in sweep:
        room = device.available_bytes or 0
        tight = bool((sweep["fits"] & (sweep["process_bytes"].fillna(0) > room)).any())
        more = f"; where its process would take more, {_RETRIES}" if tight else ""
        notes.append(f"Fits: whether the {device.title} ({iec(room)}) runs the batch{more}.")
    return [*notes, *assumed_notes(beside)]


_RETRIES = "the allocator has to give segments back and ask for others, which takes time"


def held_notes(by: str, depth: int | None = None) -> list[str]:
    """What a row of a table of a peak's holders is, and how to have other rows."""
    if by == "tensor":
        return ["A row is a tensor; --by layer, --by block and --by role sum them."]
    return [BLOCKS] if by == "block" and depth is None else []


def group_notes(costs: Costs, by: str = "layer", depth: int | None = None) -> list[str]:
    """What a row of a table of costs is, where that may be misread."""
    if by == "block" and depth is None:
        return [BLOCKS]
    if by == "layer" and any(layer.kind == MIXED for layer in costs.layers):
        return [
            "mixed: what a module calls itself, beside the modules inside it (F.relu, F.max_pool2d ...); "
            "--by operator and --by kind tell it apart."
        ]
    return []


def fit_notes(fit: Fit, train: bool) -> list[str]:
    """The largest batch in words: what was compared with what, and how sure that is."""
    device, what = fit.device, "a training step" if train else "an inference"
    size = iec(device.available_bytes or 0)
    if not fit.batch:
        held = fit.point.process_bytes if fit.level == "process" else fit.point.requested_bytes
        return [f"nothing fits the {device.title}: {what} of one sample takes {iec(held or 0)}, and it has {size}."]
    tried = (
        f"Larger batches were {'all tried' if fit.exhaustive else 'searched by bisection'} up to {fit.bound:,}, beyond"
    )
    notes = [
        f"The {device.title} ({size}) runs {what} of up to {fit.batch:,} samples.",
        f"{tried} which the tensors alone would overfill the memory."
        if fit.batch < fit.bound
        else "The tensors of one more alone would overfill the memory.",
    ]
    if fit.batch_without_retries < fit.batch:
        notes.append(f"Beyond {fit.batch_without_retries:,} {_RETRIES}.")
    if not fit.extrapolated:
        notes.append("This network's operations depend on its batch, so batches were traced one by one.")
    return [*notes, *assumed_notes(fit.beside)]


def assumed_notes(beside: Sequence[Overhead]) -> list[str]:
    """What a process was assumed to hold beside its tensors."""
    if not beside:
        return []
    parts = ", ".join(f"{overhead.what} {iec(overhead.nbytes)}" for overhead in beside)
    return [f"Assumed for the process beside its tensors: {parts}. {NOT_COUNTED}"]


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


def traffic_notes(traffic: Traffic) -> list[str]:
    """What a traffic table counts, and its sums."""
    sums = [
        f"Behind {iec(total.buffer_bytes)}: {iec(total.dram_bytes)} of DRAM traffic; no schedule of contractions "
        f"one by one moves less than {iec(total.bound_bytes)}."
        for total in traffic.totals
    ]
    return [f"{TRAFFIC[0].upper()}{TRAFFIC[1:]}; {_words(traffic.curves)}.", *sums]


def fusion_notes(fusions: Iterable[Fusion], curves: Curves) -> list[str]:
    """What a table of fused layers counts, and its sums beside those of layers that run one by one."""
    sums = [
        f"Behind {iec(each.buffer_bytes)}: {iec(each.dram_bytes)} in {plural(len(each.groups), 'group')} instead of "
        f"{iec(each.layer_by_layer_bytes + each.pooling_bytes)}: contractions alone "
        f"{iec(each.layer_by_layer_bytes)}, activations and poolings apart {iec(each.pooling_bytes)}; "
        f"{si(each.recomputed_macs, 'MAC')} recomputed."
        for each in fusions
    ]
    return [f"{FUSED[0].upper()}{FUSED[1:]}; {_words(curves)}.", *sums]


def _words(curves: Curves) -> str:
    widths = curves.widths
    words = f"{widths.input_bits}-bit words, partial sums of {widths.partial_bits} bits"
    held = "streaming tiles held twice" if curves.double_buffer else "one tile of each operand"
    return f"{words}, {held}: images x output channels x input channels x rows x columns"


def chip_notes(evaluation: Evaluation) -> list[str]:
    """A network on an accelerator in a few lines: the band, what binds it, energy, area."""
    only = for_share(evaluation.counted_share)
    lines = [
        f"{si(evaluation.serial_frames_per_second)} to {si(evaluation.frames_per_second)} frames a second "
        f"({seconds(evaluation.serial_seconds)} to {seconds(evaluation.overlapped_seconds)} a run){only}.",
        f"{BAND[0].upper()}{BAND[1:]}.",
        "Bound by "
        + ", ".join(
            f"{name} for {percent(part / evaluation.overlapped_seconds)}"
            for name, part in evaluation.by_binding().items()
        )
        + " of the overlapped time.",
    ]
    if all(layer.energy is not None for layer in evaluation.layers):
        energy, whole = evaluation.energy, evaluation.energy.total
        parts = ", ".join(f"{name} {percent(part / whole)}" for name, part in energy._asdict().items())
        lines.append(
            f"{joules(evaluation.joules_per_frame)} a frame ({parts}), {si(evaluation.frames_per_joule)} frames a "
            f"joule, {si(evaluation.watts, 'W')}{only}; without leakage and clock wires, "
            f"{evaluation.accelerator.technology}."
        )
    if evaluation.area is not None:
        parts = ", ".join(f"{name} {part:.3g}" for name, part in evaluation.area._asdict().items() if part)
        rate = si(evaluation.frames_per_second_per_mm2)
        lines.append(f"{evaluation.area.total:.3g} mm² ({parts}): {rate} frames/s a mm²{only}.")
    return lines


def unlowered_warnings(unlowered: Iterable[Unlowered]) -> list[str]:
    """What the traffic leaves out."""
    return [
        f"Not counted: {lost.operator} ({lost.reason}; {plural(lost.count, 'time')}, in {_layers(lost.layers)})."
        for lost in unlowered
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
