"""Trace -> chains: layers in a row, so that one contraction's outputs may stay on the chip for the next.

A chain is a run of convolutions, poolings and fully connected layers in which each takes what the one before it made
and nothing else does. What works on each element by itself and in place (activation, batch normalization, dropout) goes
with the contraction before it. A fully connected layer that takes whole feature maps is a convolution whose window is
the map. A branch, a sum of two tensors, attention, or anything that reads other elements (local response normalization)
ends a chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from costmodel.chip.lowering import nests_of
from costmodel.chip.nests import Nest
from costmodel.chip.windows import Window
from costmodel.graph import FORWARD, Operation, TensorSpec, Trace

_POOLS = (
    "aten.max_pool2d_with_indices",
    "aten.max_pool2d",
    "aten.avg_pool2d",
    "aten._adaptive_avg_pool2d",
    "aten.mean",
)

_ELEMENTWISE = tuple(
    f"aten.{name}"
    for name in (
        "relu", "relu_", "hardtanh", "hardtanh_", "silu", "silu_", "gelu", "sigmoid", "sigmoid_", "tanh", "tanh_",
        "hardswish", "hardswish_", "hardsigmoid", "hardsigmoid_", "leaky_relu", "leaky_relu_", "elu", "elu_", "clamp",
        "clamp_", "native_dropout", "native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm",
        "_batch_norm_no_update",
    )
)  # fmt: skip
"""Operators that make each element of their output of one element of one tensor, with a channel's constants at most."""


@dataclass(frozen=True)
class Stage:
    """A convolution, a fully connected layer or a pooling, with the elementwise operations on its outputs."""

    layer: str
    kind: str
    """"conv", "linear" or "pool"."""

    batch: int
    in_channels: int
    """Of all groups."""

    out_channels: int
    rows: Window
    columns: Window
    weights: int = 0
    """Weight words."""

    nest: Nest | None = None
    """The contraction; None for a pooling."""

    elementwise: int = 0
    """How many elementwise operations follow on its outputs."""

    @property
    def contraction(self) -> Nest:
        """Its loop nest. Raises ValueError for a pooling, which has none."""
        if self.nest is None:
            raise ValueError(f"{self.layer} is a pooling and has no loop nest")
        return self.nest

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the whole stage."""
        return self.nest.macs if self.nest else 0

    @property
    def input_words(self) -> int:
        """Words of its input."""
        return self.batch * self.in_channels * self.rows.inputs * self.columns.inputs

    @property
    def output_words(self) -> int:
        """Words of its output."""
        return self.batch * self.out_channels * self.rows.outputs * self.columns.outputs

    @property
    def apart_words(self) -> int:
        """Words that its elementwise operations, and a pooling itself, move when each runs by itself."""
        pooling = self.input_words + self.output_words if self.nest is None else 0
        return pooling + 2 * self.elementwise * self.output_words


@dataclass(frozen=True)
class Chain:
    """Stages that follow one another; it begins with a contraction."""

    stages: tuple[Stage, ...]

    @cached_property
    def units(self) -> tuple[tuple[int, int], ...]:
        """The stages, from and to before, of each contraction with the poolings that follow it."""
        starts = [index for index, stage in enumerate(self.stages) if stage.nest]
        return tuple(zip(starts, [*starts[1:], len(self.stages)], strict=True))


def chains(trace: Trace) -> tuple[Chain, ...]:
    """The chains of the forward pass, in the order of execution; each contraction that has a nest is in one."""
    operations = [operation for operation in trace.operations if operation.phase == FORWARD]
    readers = _readers(operations)
    kept = {spec.storage for spec in trace.outputs}
    done: set[int] = set()
    all_chains = []
    for index, operation in enumerate(operations):
        if index in done:
            continue
        nests = nests_of(operation)
        if len(nests) == 1 and (first := _contraction(operation, nests[0])):
            all_chains.append(Chain(_follow(operations, readers, kept, index, first, done)))
        else:
            all_chains += [Chain((_alone(nest),)) for nest in nests]
    return tuple(all_chains)


def follows(operation: Operation) -> bool:
    """Whether a chain takes in an operation behind a contraction: elementwise, or a pooling."""
    return operation.operator in _ELEMENTWISE or operation.operator in _POOLS


def _follow(
    operations: list[Operation],
    readers: Mapping[int, list[int]],
    kept: set[int],
    index: int,
    stage: Stage,
    done: set[int],
) -> tuple[Stage, ...]:
    """The chain that begins with the operation at `index`; what it takes in is added to `done`."""
    stages = [stage]
    while True:
        tensor = operations[index].outputs[0]
        after = [reader for reader in readers.get(tensor.storage, ()) if reader > index]
        if not after or tensor.storage in kept:
            return tuple(stages)
        index = after[0]
        operation = operations[index]
        in_place = bool(operation.outputs) and operation.outputs[0].storage == tensor.storage
        if len(after) > 1 and not in_place:
            return tuple(stages)
        following = _next(operation, tensor, stages[-1])
        if following is None:
            return tuple(stages)
        if following.kind == "pool" and following.input_words == following.output_words:
            continue  # each element is its own pool
        if following is stages[-1]:  # works on each element
            stages.pop()
            following = replace(following, elementwise=following.elementwise + 1)
        elif following.nest:
            done.add(index)
        stages.append(following)


def _next(operation: Operation, tensor: TensorSpec, last: Stage) -> Stage | None:
    """The stage that an operation makes after `last`: `last` itself if it is elementwise, None if it is no stage."""
    if operation.operator in _ELEMENTWISE:
        same = operation.outputs and operation.outputs[0].numel == tensor.numel
        others = [spec for spec in operation.inputs.values() if spec.storage != tensor.storage]
        return last if same and all(len(spec.shape) <= 1 for spec in others) else None
    if operation.operator in _POOLS:
        return _pool(operation, last)
    nests = nests_of(operation)
    if len(nests) != 1 or len(tensor.shape) > 4:  # of three dimensions, the next may take another one as its images
        return None
    source = next(iter(operation.inputs.values())) if "mat1" not in operation.inputs else operation.inputs["mat1"]
    if source.storage != tensor.storage:
        return None
    stage = _contraction(operation, nests[0], last)
    fits = stage is not None and stage.input_words == last.output_words and stage.in_channels == last.out_channels
    return stage if fits else None


def _contraction(operation: Operation, nest: Nest, last: Stage | None = None) -> Stage | None:
    """A convolution or a fully connected layer; None for a product of batches."""
    if nest.kind == "linear":
        if nest.groups > 1:
            return None
        pixels = (last.rows.outputs, last.columns.outputs) if last else (1, 1)
        if last and nest.batch == last.batch and nest.in_channels == last.out_channels * pixels[0] * pixels[1]:
            rows, columns = (Window(1, size, size) for size in pixels)
            return Stage(
                nest.layer, "linear", nest.batch, last.out_channels, nest.out_channels, rows, columns,
                nest.weight_numel, nest,
            )  # fmt: skip
    return Stage(
        nest.layer, nest.kind, nest.batch, nest.groups * nest.in_channels, nest.groups * nest.out_channels,
        nest.rows, nest.columns, nest.weight_numel, nest,
    )  # fmt: skip


def _alone(nest: Nest) -> Stage:
    """A contraction that no chain can hold."""
    return Stage(
        nest.layer, nest.kind, nest.batch, nest.groups * nest.in_channels, nest.groups * nest.out_channels,
        nest.rows, nest.columns, nest.weight_numel, nest,
    )  # fmt: skip


def _pool(operation: Operation, last: Stage) -> Stage | None:
    """A pooling over the last two dimensions; None for one whose windows differ from each other."""
    source, result = next(iter(operation.inputs.values())), operation.outputs[0]
    if len(source.shape) != 4 or source.shape[1] != last.out_channels:
        return None
    inputs = source.shape[2:]
    if operation.operator == "aten.mean":
        axes = {axis % 4 for axis in operation.attributes.get("dim") or ()}
        outputs: tuple[int, ...] = (1, 1)
        if axes != {2, 3}:
            return None
    else:
        outputs = tuple(result.shape[2:])
    windows = []
    for axis in range(2):
        if "kernel_size" in operation.attributes:
            taps, stride, before, gap = (_along(operation.attributes, name, axis) for name in _GEOMETRY)
            windows.append(Window(outputs[axis], inputs[axis], taps, stride or taps, gap, before))
        elif inputs[axis] % outputs[axis]:
            return None
        else:
            size = inputs[axis] // outputs[axis]
            windows.append(Window(outputs[axis], inputs[axis], size, size))
    rows, columns = windows
    return Stage(operation.layer, "pool", last.batch, last.out_channels, last.out_channels, rows, columns)


_GEOMETRY = {"kernel_size": 1, "stride": 0, "padding": 0, "dilation": 1}


def _along(attributes: Mapping[str, Any], name: str, axis: int) -> int:
    value = attributes.get(name)
    if isinstance(value, (tuple, list)):
        return int(value[axis if len(value) > 1 else 0]) if value else 0
    return _GEOMETRY[name] if value is None else int(value)


def _readers(operations: Iterable[Operation]) -> dict[int, list[int]]:
    """Which operations read a storage, views left out."""
    by_storage: dict[int, list[int]] = {}
    for index, operation in enumerate(operations):
        if not operation.view:
            for storage in {spec.storage for spec in operation.inputs.values()}:
                by_storage.setdefault(storage, []).append(index)
    return by_storage
