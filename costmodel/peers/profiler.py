"""torch.profiler with `with_flops=True`: 2 FLOPs a multiply-accumulate, and the elements of add and mul.

It records operators by name as they are dispatched. Kernels of the meta device are written in Python and call further
operators (`addmm` calls `mm`, `mul` and `add`); a real kernel does not, so what runs below a kernel is marked and left
out. Formulas: torch/csrc/profiler/util.cpp, computeFlops.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function

from costmodel.graph import BACKWARD, FORWARD
from costmodel.peers import Findings, Reading
from costmodel.peers.subject import Subject, total_of
from costmodel.tracer.kineto import silent_kineto
from costmodel.tracer.meta_copy import surround
from costmodel.tracer.torch_private import DispatchMode

_LAYER, _KERNEL, _BACKWARD = "costmodel layer: ", "costmodel kernel", "costmodel backward"
_CONTRACTIONS = ("conv2d", "mm", "addmm", "bmm", "baddbmm")
_POINTWISE = ("add", "mul")


def count(subject: Subject) -> Findings:
    """Forward, and backward if requested, in the profiler's FLOPs."""
    surround(subject.network, lambda path: record_function(_LAYER + path))
    profiler = profile(activities=[ProfilerActivity.CPU], record_shapes=True, with_flops=True)
    with silent_kineto(), profiler as recorded, _Kernels():
        outputs = subject.forward()
        if subject.train:
            total = total_of(outputs)
            with record_function(_BACKWARD):
                total.backward()
    amounts: Counter[tuple[str, str, str]] = Counter()
    layer_of: dict[int, str] = {}
    for event in recorded.events():
        if not event.name.startswith(("aten::", "torchvision::")):
            continue
        layer, phase = _place(event, layer_of)
        if layer is None:
            continue
        if phase == FORWARD and event.sequence_nr >= 0:
            layer_of[event.sequence_nr] = layer  # the last to carry a number is the operator that made its node
        if event.flops:
            amounts[layer, phase, event.name.replace("::", ".")] += int(event.flops)
    readings = tuple(Reading(*key, amount) for key, amount in amounts.items())
    return Findings(readings, None, frozenset(f"aten.{name}" for name in (*_CONTRACTIONS, *_POINTWISE)))


class _Kernels(DispatchMode):
    """Marks what runs below the dispatcher."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with record_function(_KERNEL):
            return func(*args, **(kwargs or {}))


def _place(event: Any, layer_of: dict[int, str]) -> tuple[str | None, str]:
    """The layer and phase of an operator's event; no layer if a kernel called it."""
    layer, number = None, -1
    above = event.cpu_parent
    while above is not None:
        if above.name == _KERNEL:
            return None, FORWARD
        if above.name == _BACKWARD:
            return layer or _maker(number, layer_of), BACKWARD
        if above.name.startswith(_LAYER) and layer is None:
            layer = above.name.removeprefix(_LAYER)
        if above.name.startswith("autograd::engine::evaluate_function") and number < 0:
            number = above.sequence_nr
        above = above.cpu_parent
    return layer or "", FORWARD


def _maker(number: int, layer_of: dict[int, str]) -> str:
    """The layer whose forward made a node: the last operator that began with no larger number.

    An operator that writes a view in place makes two nodes, and its event carries the number of the first.
    """
    if number < 0 or number in layer_of:
        return layer_of.get(number, "")
    return layer_of[max(begun)] if (begun := [key for key in layer_of if key < number]) else ""
