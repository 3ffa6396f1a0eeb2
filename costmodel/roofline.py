"""Costs x Device -> Prediction: a lower bound of each operation's time, and what bounds it.

On a calibrated device a prediction has estimates beside the bounds, from `costmodel.estimate`.

An operation's time has three parts, which a perfect run overlaps:

    contraction = 2 x MACs / peak of the precision path that the operation takes
    vector      = vector FLOPs / peak of the vector units
    memory      = (read + write bytes) / memory bandwidth

    compute = max(contraction, vector), or their sum where both run on the same units
    bound   = max(compute, memory)

Source: Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for multicore
architectures", Communications of the ACM 52(4), 2009. A layer's, a phase's and the network's bound is the sum of its
operations': operations run one after another, and each reads its tensors from memory and writes them back. That is the
convention of unfused execution: a run that fuses operations, finds a tensor in a cache, or multiplies less than the
definition (Winograd's convolution) may beat it.

Which precision path an operation takes follows PyTorch's defaults
(https://docs.pytorch.org/docs/stable/notes/cuda.html#tensorfloat-32-tf32-on-ampere-and-later-devices):
- float32 convolutions, and recurrent networks, which cuDNN runs as well, may use TF32
  (`torch.backends.cudnn.allow_tf32` is True), float32 matrix products may not
  (`torch.backends.cuda.matmul.allow_tf32` is False);
- float32 attention runs on TF32 tensor cores by three products for one (the memory-efficient kernel of
  aten/src/ATen/native/transformers/cuda/mem_eff_attention), so TF32's peak bounds it, and by far;
- attention under a causal mask need not compute the scores that the mask hides (FlashAttention's kernels do not), so
  its bound is that of the others, though its MACs are those of the whole square;
- 16-bit and 8-bit contractions and, on devices that have them, float64 contractions run on tensor cores;
- float16 without a path of its own computes in float32, as cuBLAS does when it accumulates in float32; so does every
  16-bit type on a CPU. Any other path that a device lacks is an error;
- vector FLOPs run on the vector units in float32 (PyTorch's pointwise kernels compute 16-bit types in float32), or
  in float64 if a tensor is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from costmodel.cost import GROUPED_BY, NAME, NOTE, Cost, Costs, OperationCost, not_counted, notes_on_rows
from costmodel.devices import Device
from costmodel.devices import device as find_device
from costmodel.errors import InputError, type_of
from costmodel.estimate import Estimate, estimate_operations, total
from costmodel.graph import Operation
from costmodel.grouping import grouped
from costmodel.rules.attention import causal_share
from costmodel.units import percent, seconds
from costmodel.view import Column, Table, column, share

if TYPE_CHECKING:
    import pandas as pd

CONVENTION = "bound of unfused execution from memory: each operation takes the longer of its arithmetic and its traffic"
"""What the bound means, in one line for tables and plots."""

_PATH_OF_DTYPE = {
    "float64": "fp64", "complex128": "fp64", "float16": "fp16", "complex32": "fp16", "bfloat16": "bf16",
    "float8_e4m3fn": "fp8", "float8_e5m2": "fp8", "float8_e4m3fnuz": "fp8", "float8_e5m2fnuz": "fp8",
    "int8": "int8", "uint8": "int8", "qint8": "int8", "quint8": "int8",
}  # fmt: skip
"""Every other type computes in float32."""

_RECURRENT = ("RNN", "LSTM", "GRU")


@dataclass(frozen=True, slots=True)
class OperationPrediction:
    """One operation's bound and, on a calibrated device, its estimate."""

    operation: Operation
    kind: str
    cost: Cost
    path: str
    """The precision path of its contraction; that of its vector work if it has none; "" if it computes nothing."""

    compute_seconds: float
    memory_seconds: float
    estimate: Estimate | None = None
    """The expected time; None if the device, or the operation's class, was not calibrated."""

    @property
    def estimate_seconds(self) -> float | None:
        """The expected time, if known."""
        return self.estimate.seconds if self.estimate else None

    @property
    def bound_seconds(self) -> float:
        """The longer of arithmetic and memory traffic."""
        return max(self.compute_seconds, self.memory_seconds)

    @property
    def binding(self) -> str:
        """What bounds it: "compute", "memory", or "none" where nothing happens."""
        if not self.bound_seconds:
            return "none"
        return "compute" if self.compute_seconds > self.memory_seconds else "memory"


@dataclass(frozen=True, slots=True)
class GroupPrediction:
    """The bound of the operations of a layer, kind, phase ..., one after another."""

    name: str
    kind: str
    cost: Cost
    path: str
    """The precision path of its largest operation."""

    compute_seconds: float
    memory_seconds: float
    bound_seconds: float
    """The sum over its operations: not less than the longer of the two above."""

    binding: str
    """What bounds the operations that take most of its time."""

    estimate: Estimate | None = None
    """The expected time of its operations; None if unknown for one."""

    @property
    def estimate_seconds(self) -> float | None:
        """The expected time of its operations, if known."""
        return self.estimate.seconds if self.estimate else None

    @property
    def low_seconds(self) -> float | None:
        """The lower end of the estimate's interval."""
        return self.estimate.low_seconds if self.estimate else None

    @property
    def high_seconds(self) -> float | None:
        """The upper end of the estimate's interval."""
        return self.estimate.high_seconds if self.estimate else None

    @property
    def flops_per_second(self) -> float:
        """The rate of arithmetic at the bound; 0 where nothing happens."""
        return self.cost.flops / self.bound_seconds if self.bound_seconds else 0.0


@dataclass(frozen=True, repr=False)
class Prediction:
    """The times of a trace's operations on a device: bounds and, if calibrated, estimates."""

    costs: Costs
    device: Device
    operations: tuple[OperationPrediction, ...]

    @cached_property
    def bound_seconds(self) -> float:
        """The sum of the operations' bounds."""
        return sum(row.bound_seconds for row in self.operations)

    @cached_property
    def estimate(self) -> Estimate | None:
        """The sum of the operations' estimates, with its interval; None if one has none."""
        return total(row.estimate for row in self.operations)

    @property
    def estimate_seconds(self) -> float | None:
        """The sum of the operations' estimates; None if one has none."""
        return self.estimate.seconds if self.estimate else None

    @cached_property
    def uncovered(self) -> tuple[str, ...]:
        """The operators that a calibrated device has no fitted rates for, so that no sum with them is known."""
        if self.device.calibration is None or not any(row.estimate for row in self.operations):
            return ()
        return tuple(dict.fromkeys(row.operation.operator for row in self.operations if row.estimate is None))

    @property
    def basis(self) -> str:
        """What `seconds` is: "estimate" where there is one, else "bound"."""
        return "bound" if self.estimate_seconds is None else "estimate"

    @property
    def seconds(self) -> float:
        """The estimate, or the bound of a device that is not calibrated."""
        return self.bound_seconds if self.estimate_seconds is None else self.estimate_seconds

    @cached_property
    def layers(self) -> tuple[GroupPrediction, ...]:
        """One row a layer, in the order of execution, as in `Costs.layers`; the rows add up to the totals.

        A module that only makes views costs nothing, and has a row at the end if that takes time.
        """
        groups = grouped(self.operations, "layer", GROUPED_BY, self.costs.trace)
        rows = [_group(layer.name, groups.pop(layer.name, []), layer.kind) for layer in self.costs.layers]
        views = (_group(name, group) for name, group in groups.items())
        return (*rows, *(row for row in views if row.estimate_seconds))

    def phase(self, phase: str) -> Prediction:
        """The prediction of one phase alone."""
        rows = tuple(row for row in self.operations if row.operation.phase == phase)
        return Prediction(self.costs.phase(phase), self.device, rows)

    def by(self, key: str, depth: int | None = None) -> dict[str, GroupPrediction]:
        """Sums by "operator", "layer", "block", "kind", "phase", "path" or "binding", in the order of first occurrence.

        A block is the module that a layer stands in; with `depth`, the layer's path cut to that many components.
        Raises InputError for another key.
        """
        groups = grouped(self.operations, key, _GROUPED_BY, self.costs.trace, depth)
        return {name: _group(name, rows) for name, rows in groups.items()}

    def speedup_over(self, other: Prediction) -> float:
        """How many times faster this one is than `other`.

        Raises InputError if a bound would be compared with an estimate, or if there is no time to compare.
        """
        if self.basis != other.basis:
            raise InputError(f"cannot compare a {self.basis} with a {other.basis}: calibrate both devices, or neither.")
        if not self.seconds or not other.seconds:
            raise InputError("there is nothing to compare: a network without operations takes no time.")
        return other.seconds / self.seconds

    def table(self, by: str = "layer", depth: int | None = None) -> Table:
        """One row a layer, block, kind, operator ...: what bounds it and for how long, and their sum.

        Only a calibrated device has estimates; `bound_share` is a row's part of the whole bound.
        """
        groups = self.layers if by == "layer" else self.by(by, depth).values()
        first = (NAME, "kind") if by == "layer" else (by, "kind") if by == "operator" else (by,)
        numbers = (
            "path", "macs", "flops", column("read_bytes", rank=9), column("write_bytes", rank=9), "moved_bytes",
            "arithmetic_intensity", "compute_seconds", "memory_seconds", "bound_seconds", *_ESTIMATES, "bound_share",
            "binding", "flops_per_second",
        )  # fmt: skip
        columns = [each if isinstance(each, Column) else column(each) for each in (*first, *numbers)]
        rows = [(each.name, *(self._number(each, other.name) for other in columns[1:])) for each in groups]
        table = Table.of(columns, rows).summed()
        if table.total and self.estimate_seconds is None:  # a sum of some estimates would pass for that of all
            table = table.around(total={k: v for k, v in table.total.items() if k != "estimate_seconds"})
        title = f"{self.costs.trace.model} on {self.device.title}: at least {seconds(self.bound_seconds)}"
        title += f", estimated {interval(self.estimate)}" if self.estimate else ""
        notes = (NOTE, *self.notes, *notes_on_rows(self.costs, by, depth))
        return table.around(title=title, notes=notes, warnings=not_counted(self.costs))

    def to_frame(self) -> pd.DataFrame:
        """One row a layer, in base units."""
        return self.table().to_frame()

    @property
    def notes(self) -> tuple[str, ...]:
        """What the bounds and estimates are, and what they leave out."""
        device, calibration, target = self.device, self.device.calibration, self.costs.trace.target
        own = "" if target == device.target else f" The operators are those of target {target}, not of the device."
        lines = [f"{device.title}: {CONVENTION}.{own}"]
        if calibration and self.estimate:
            share = percent(calibration.confidence, 0)
            lines.append(f"Estimate: {interval(self.estimate)}; an interval holds {share} of the shapes held out.")
        if self.uncovered:
            lines.append(f"No estimate, as these were not calibrated: {', '.join(self.uncovered)}.")
        return tuple(lines)

    def __repr__(self) -> str:
        model, device = self.costs.trace.model, self.device.title
        return f"<Prediction of {model} on {device}: {self.basis} of {seconds(self.seconds)}>"

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def _number(self, group: GroupPrediction, name: str) -> Any:
        """A value of a group's row."""
        if name == "bound_share":
            return share(group.bound_seconds, self.bound_seconds)
        return getattr(group if hasattr(group, name) else group.cost, name)


_GROUPED_BY: Mapping[str, Callable[[Any], str]] = {
    **GROUPED_BY,
    "path": lambda row: row.path,
    "binding": lambda row: row.binding,
}


def predict(
    costs: Costs,
    device: Device | str,
    *,
    allow_tf32_conv: bool = True,
    allow_tf32_matmul: bool = False,
    estimate: bool | None = None,
) -> Prediction:
    """Each operation's bound on a device and, if it was calibrated, its expected time.

    The device may be given by its name. Two switches are PyTorch's, with its defaults: whether float32 convolutions and
    matrix products may use TF32. The third says whether to estimate: if None, on calibrated devices; True
    requires it.
    Raises InputError if the device lacks a precision path that the network needs, or a required fitted rate.
    """
    if not isinstance(costs, Costs):
        raise InputError(f"predict takes a network's costs, not {type_of(costs)}: cm.count(trace) gives them.")
    device = find_device(device)
    if estimate and device.calibration is None:
        raise InputError(
            f"{device.title} was not calibrated, so there are bounds and no estimates: "
            "measure it with `costmodel calibrate -o FILE.toml`, and give that file as the device."
        )

    def row(entry: OperationCost) -> OperationPrediction:
        operation, cost = entry.operation, entry.cost
        by_cudnn = entry.kind == "conv" or _type_of_module(costs, operation.layer) in _RECURRENT
        may_use_tf32 = entry.kind == "attention" or (allow_tf32_conv if by_cudnn else allow_tf32_matmul)
        vector_path = _vector_path(operation, device) if cost.vector_flops else ""
        path = _contraction_path(operation, device, may_use_tf32) if cost.macs else vector_path
        needed = causal_share(operation) if entry.kind == "attention" else 1.0
        contraction = needed * 2 * cost.macs / device.peaks[path] if cost.macs else 0.0
        vector = needed * cost.vector_flops / device.peaks[vector_path] if cost.vector_flops else 0.0
        compute = contraction + vector if path == vector_path else max(contraction, vector)
        return OperationPrediction(
            operation, entry.kind, cost, path, compute, cost.moved_bytes / device.memory_bandwidth
        )

    rows = tuple(row(entry) for entry in costs.operations)
    if device.calibration is not None and estimate is not False:
        estimates = estimate_operations(costs, [row.path for row in rows], device.calibration)
        rows = tuple(replace(row, estimate=estimated) for row, estimated in zip(rows, estimates, strict=True))
    prediction = Prediction(costs, device, rows)
    if estimate and prediction.uncovered:
        raise InputError(
            f"the calibration of {device.title} has no fitted rates for {', '.join(prediction.uncovered)} in "
            f"{costs.trace.dtype}: calibrate it again with this version, or use the bound."
        )
    return prediction


def interval(estimate: Estimate) -> str:
    """An estimate with its limits, for people: "12.3 ms (11.0 ms to 14.1 ms)"."""
    low, high = seconds(estimate.low_seconds), seconds(estimate.high_seconds)
    return f"{seconds(estimate.seconds)} ({low} to {high})"


def batches_table(predictions: Mapping[int, Prediction]) -> Table:
    """One row a batch: how long a run takes, and how many samples that makes a second."""
    rows = [
        (
            *(batch, each.bound_seconds, each.estimate_seconds),
            *((each.estimate.low_seconds, each.estimate.high_seconds) if each.estimate else (None, None)),
            batch / each.seconds,
        )
        for batch, each in predictions.items()
    ]
    names = ("batch", "bound_seconds", *_ESTIMATES, "samples_per_second")
    return Table.of(names, rows)


_ESTIMATES = ("estimate_seconds", "low_seconds", "high_seconds")


def _contraction_path(operation: Operation, device: Device, may_use_tf32: bool) -> str:
    dtype = next((tensor.dtype for tensor in operation.inputs.values()), "float32")
    path = _PATH_OF_DTYPE.get(dtype, "fp32")
    if path == "fp32":
        return "tf32" if may_use_tf32 and "tf32" in device.peaks else "fp32"
    if path == "fp64" and "fp64_tensor" in device.peaks:
        return "fp64_tensor"
    if path not in device.peaks and (path == "fp16" or (path == "bf16" and device.kind == "cpu")):
        return "fp32"
    return _checked(path, device)


def _vector_path(operation: Operation, device: Device) -> str:
    tensors = (*operation.inputs.values(), *operation.outputs)
    double = any(_PATH_OF_DTYPE.get(tensor.dtype) == "fp64" for tensor in tensors)
    return _checked("fp64" if double else "fp32", device)


def _checked(path: str, device: Device) -> str:
    if path not in device.peaks:
        raise InputError(
            f"{device.title} has no {path} arithmetic, only {', '.join(device.peaks)}: use another dtype or device."
        )
    return path


def _type_of_module(costs: Costs, path: str) -> str:
    module = costs.trace.module_by_path.get(path)
    return module.type if module else ""


def _group(name: str, rows: list[OperationPrediction], kind: str | None = None) -> GroupPrediction:
    """The sum of some operations. Its kind is given, or that of its largest operation."""
    largest = max(rows, key=lambda row: (row.cost.macs, row.cost.flops, row.cost.moved_bytes), default=None)
    by_binding = dict.fromkeys(("compute", "memory"), 0.0)
    for row in rows:
        if row.binding != "none":
            by_binding[row.binding] += row.bound_seconds
    bound = sum(by_binding.values())
    return GroupPrediction(
        name,
        kind if kind is not None else largest.kind if largest else "other",
        Cost.sum(row.cost for row in rows),
        largest.path if largest else "",
        sum(row.compute_seconds for row in rows),
        sum(row.memory_seconds for row in rows),
        bound,
        max(by_binding, key=lambda binding: by_binding[binding]) if bound else "none",
        total(row.estimate for row in rows),
    )
