"""A trace without annotations of ours: its operators beside those of our trace of the same network, in order.

Both are lists of what runs in the forward. Of the profiler's nested operators the outermost is taken that has the name
of one of ours ("aten::conv2d" holds "aten::cudnn_convolution" and the addition of its bias), and of the others those
that launch kernels. Copies, fills, dropout and counters may be missing on either side. All else has to agree, and its
shapes as well, where the profiler recorded them; what does not is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from costmodel.errors import InputError
from costmodel.graph import FORWARD, LOSS_LAYER, Operation, Trace
from costmodel.hardware.profiles.events import OPERATOR, Dims, Event
from costmodel.hardware.profiles.host import Host
from costmodel.hardware.profiles.join import Interval

_FAMILIES: Mapping[str, tuple[str, ...]] = {
    "convolution": (
        "conv1d", "conv2d", "conv3d", "cudnn_convolution", "miopen_convolution", "thnn_conv2d", "slow_conv2d_forward",
        "conv_depthwise2d", "conv_depthwise3d", "slow_conv3d", "conv_transpose2d", "conv_transpose3d", "convolution",
    ),
    "linear": ("linear", "addmm", "mm"),
    "batch_norm": (
        "batch_norm", "batch_norm_impl_index", "cudnn_batch_norm", "native_batch_norm", "miopen_batch_norm",
        "native_batch_norm_legit", "native_batch_norm_legit_no_training", "batch_norm_with_update",
    ),
    "layer_norm": ("layer_norm", "native_layer_norm"),
    "group_norm": ("group_norm", "native_group_norm"),
    "max_pool2d": ("max_pool2d", "max_pool2d_with_indices"),
    "dropout": ("dropout", "native_dropout", "fused_dropout", "feature_dropout", "bernoulli"),
    "attention": (
        "scaled_dot_product_attention", "scaled_dot_product_flash_attention", "scaled_dot_product_efficient_attention",
        "scaled_dot_product_cudnn_attention", "scaled_dot_product_fused_attention_overrideable",
    ),
    "copy": ("copy", "to_copy", "to", "clone", "contiguous", "lift_fresh"),
    "fill": ("fill", "zero", "zeros", "zeros_like", "ones", "ones_like", "full", "arange", "empty", "scalar_tensor"),
    "random": ("uniform", "normal", "random", "rand", "randn", "randint", "randperm"),
}  # fmt: skip
_FAMILY = {name: family for family, names in _FAMILIES.items() for name in names}

_MAY_BE_MISSING = ("dropout", "copy", "fill", "random")
_HEAVY = ("convolution", "linear", "batch_norm", "layer_norm", "attention")
"""What a network has and its loss, metrics and data have not."""


@dataclass(frozen=True)
class Located:
    """Where the network's operators are in a trace."""

    layers: Mapping[int, str]
    """The layer of each operator that was found, by its index in the host's events."""

    forwards: tuple[Interval, ...]
    """From when to when each forward ran, its loss included."""

    found_by: str
    """What their layers were found by."""


class OtherShapeError(InputError):
    """The network's operators, on inputs of another shape."""


class _Theirs(NamedTuple):
    place: int
    """Its index in the host's events."""

    family: str
    event: Event
    name: str
    """That of the outermost operator around it, which is the one that the network called."""


class _Ours(NamedTuple):
    family: str
    operation: Operation
    optional: bool


class _Stop(NamedTuple):
    """Where an attempt to align ended."""

    matched: tuple[tuple[int, str], ...]
    next_theirs: int
    """The place after the last of theirs that was compared."""

    problem: str = ""
    shape: bool = False
    """Whether the problem is one of shapes."""


def align(host: Host, launching: frozenset[int], trace: Trace) -> Located:
    """The operators of each forward in a trace, beside ours.

    Args:
        host: what ran on the host.
        launching: the operators that launched a kernel themselves.
        trace: ours of the same network, on the same inputs.

    Raises InputError, with the first operator that differs and the likely reason, if they are not of the same network.
    """
    ours = _of_trace(trace)
    theirs = _of_host(host, launching, frozenset(each.family for each in ours))
    _check_phases(host, trace, theirs)
    layers: dict[int, str] = {}
    forwards: list[Interval] = []
    furthest = _Stop((), 0)
    position = 0
    while position < len(theirs):
        if theirs[position].family != ours[0].family:
            position += 1
            continue
        attempt = _attempt(ours, theirs, position, trace)
        if attempt.problem:
            if len(attempt.matched) > len(furthest.matched) or not furthest.problem:
                furthest = attempt
            position += 1
            continue
        layers |= dict(attempt.matched)
        last = host.events[attempt.matched[-1][0]]
        forwards.append((theirs[position].event.start, last.end))
        families = {*_HEAVY, ours[0].family}
        after = next((each for each in theirs[attempt.next_theirs :] if each.family in families), None)
        if after is not None and after.family != ours[0].family:
            raise InputError(
                f"the trace is not of {trace.model}: it goes on with {after.name} where the network ends. "
                "Another head, or another network?"
            )
        position = attempt.next_theirs
    if not forwards:
        first = f"{theirs[0].name} comes first" if theirs else "no operator of it launches a kernel"
        problem = furthest.problem or f"{first}, not {ours[0].operation.operator}. Another network?"
        raise (OtherShapeError if furthest.shape else InputError)(f"the trace is not of {trace.model}: {problem}")
    shapes = "and shapes" if any(each.event.dims for each in theirs) else "alone: no shapes were recorded"
    return Located(layers, tuple(forwards), f"the order of their operators {shapes}")


def canonical(operator: str) -> str:
    """What an operator does, whatever its variant: "aten::_convolution" and "aten.convolution" are "convolution"."""
    name = re.split(r"::|\.", operator)[-1].strip("_")
    return _FAMILY.get(name, name)


def _check_phases(host: Host, trace: Trace, theirs: Sequence[_Theirs]) -> None:
    trains = any(host.nodes)
    if trains and not trace.train:
        raise InputError("this trace is of training, as its backward shows: add --train.")
    if trace.train and not trains:
        raise InputError("this trace has no backward: leave out --train.")


def _of_trace(trace: Trace) -> list[_Ours]:
    """Our operations of the forward that run kernels."""
    found: list[_Ours] = []
    for operation in trace.of_phase(FORWARD):
        if not operation.view:
            family = canonical(operation.operator)
            bias = (
                bool(found)
                and found[-1].family == "convolution"
                and family == "add"
                and _adds_bias(found[-1], operation)
            )
            counter = all(tensor.numel <= 1 for tensor in operation.outputs) and operation.layer != LOSS_LAYER
            found.append(_Ours(family, operation, bias or counter or family in _MAY_BE_MISSING))
    return found


def _adds_bias(before: _Ours, operation: Operation) -> bool:
    """Whether an addition is a convolution's bias, which in a trace stands inside of the convolution."""
    return before.operation.layer == operation.layer and before.operation.outputs[0].shape == operation.outputs[0].shape


def _of_host(host: Host, launching: frozenset[int], wanted: frozenset[str]) -> list[_Theirs]:
    """The trace's operators outside of autograd's engine and of the optimizer that are ours, or run kernels."""
    found: list[_Theirs] = []
    inside = [False] * len(host.events)
    for index, event in enumerate(host.events):
        up = host.above[index]
        if (up is not None and inside[up]) or host.nodes[index] or event.thread in host.engine_threads:
            inside[index] = True
        elif event.category == OPERATOR:
            family = canonical(event.name)
            if (family in wanted and _has_kernel(host, index, launching)) or index in launching:
                found.append(_Theirs(index, family, event, _outermost(host, index)))
                inside[index] = True
        elif event.name.startswith("Optimizer."):
            inside[index] = True
    return found


def _outermost(host: Host, index: int) -> str:
    """The name of the first operator around one, itself included."""
    name, above = host.events[index].name, host.above[index]
    while above is not None:
        if host.events[above].category == OPERATOR:
            name = host.events[above].name
        above = host.above[above]
    return name


def _has_kernel(host: Host, index: int, launching: frozenset[int]) -> bool:
    """Whether an operator or one inside of it launched a kernel."""
    if index in launching:
        return True
    end, thread = host.events[index].end, host.events[index].thread
    for later in range(index + 1, len(host.events)):
        if host.events[later].start > end:
            return False
        if later in launching and host.events[later].thread == thread:
            return True
    return False


def _attempt(ours: Sequence[_Ours], theirs: Sequence[_Theirs], start: int, trace: Trace) -> _Stop:
    """Align a forward that begins at one of theirs."""
    matched: list[tuple[int, str]] = []
    at = start
    for position, own in enumerate(ours):
        while at < len(theirs) and theirs[at].family != own.family and theirs[at].family in _MAY_BE_MISSING:
            at += 1
        found = theirs[at] if at < len(theirs) else None
        if found is not None and found.family == own.family:
            if problem := _other_shape(own.operation, found.event, trace):
                return _Stop(tuple(matched), at, problem, shape=True)
            matched.append((found.place, own.operation.layer))
            at += 1
        elif not own.optional:
            return _Stop(tuple(matched), at, _difference(ours, position, found))
    return _Stop(tuple(matched), at)


def _other_shape(operation: Operation, event: Event, trace: Trace) -> str:
    """Why an operator's inputs are not ours; empty where they are, or where nothing says."""
    for what, ours, theirs in _shapes(operation, event.dims or ()):
        if ours == theirs:
            continue
        which = f"{event.name} ({operation.layer}) takes {_text(theirs)} in the trace, {_text(ours)} in the network"
        rows, rest = divmod(trace.inputs[0].shape[0] * theirs[0], ours[0])
        if what == "weight":
            return f"{which}. Another network{', or --classes' if canonical(operation.operator) == 'linear' else ''}?"
        if ours[1:] == theirs[1:] and not rest:
            return f"{which}. Another batch: give --batch {rows}?"
        return f"{which}. Another input: give --input, or another network?"
    return ""


def _shapes(operation: Operation, dims: Dims) -> Iterator[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """Pairs of shapes that have to be equal: of what, ours and theirs."""
    tensors = list(operation.inputs.values())
    family = canonical(operation.operator)
    if not dims or not tensors:
        return
    if family == "linear":
        matrices = [tensor.shape for tensor in tensors if len(tensor.shape) == 2]
        given = [shape for shape in dims if len(shape) >= 2]
        if len(matrices) == 2 and len(given) == 2:
            (rows, inner), (_, columns) = matrices
            yield "input", (rows, inner), (math.prod(given[0][:-1]), given[0][-1])
            yield "weight", (columns,), (math.prod(given[1]) // inner,)
        return
    if dims[0] and tensors[0].shape:
        yield "input", tensors[0].shape, dims[0]
    if family == "convolution" and len(dims) > 1 and dims[1]:
        yield "weight", tensors[1].shape, dims[1]


def _difference(ours: Sequence[_Ours], position: int, found: _Theirs | None) -> str:
    """What differs where the names do, and why that may be."""
    operation = ours[position].operation
    own = f"{operation.operator} ({operation.layer or 'the network itself'})"
    if operation.layer == LOSS_LAYER:
        return f"the network's training goes on with {own}, and the trace does not: another loss?"
    where = f"{found.name} runs" if found else "the trace ends"
    body_is_over = ours[0].family not in {each.family for each in ours[position:]} and position > 1
    return f"{where} where the network has {own}. Is it another {'head' if body_is_over else 'network'}?"


def _text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
