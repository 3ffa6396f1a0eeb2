"""Layers that a trace names itself: modules' paths in `record_function`, or torch's module events.

With `with_modules=True` or `with_stack=True` torch.profiler writes "nn.Module: Conv2d_3" around each module's forward,
the class and a number in the order in which instances are first seen. They are our trace's modules if their classes
follow each other in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator

from costmodel.graph import LOSS_LAYER, Trace
from costmodel.hardware.profiles.alignment import Located
from costmodel.hardware.profiles.events import ANNOTATION, MODULE, MODULE_PREFIX
from costmodel.hardware.profiles.host import Host
from costmodel.hardware.profiles.join import Interval


def annotated(host: Host, trace: Trace) -> Located | None:
    """The network's layers where the trace names them; None if it does not name all that hold parameters."""
    return _by_path(host, trace) or _by_module(host, trace)


def _by_path(host: Host, trace: Trace) -> Located | None:
    needed = {parameter.layer for parameter in trace.parameters} - {""}
    paths = {module.path for module in trace.modules} - {""} | {LOSS_LAYER}
    events = {i: each.name for i, each in enumerate(host.events) if each.category == ANNOTATION and each.name in paths}
    if not needed or not needed <= set(events.values()):
        return None
    first = next(iter(events.values()))
    return Located(events, tuple(_spans(host, list(events), events, first)), "annotations with modules' paths")


def _by_module(host: Host, trace: Trace) -> Located | None:
    events = [index for index, each in enumerate(host.events) if each.category == MODULE]
    names = list(dict.fromkeys(host.events[index].name.removeprefix(MODULE_PREFIX) for index in events))
    theirs = [name.rpartition("_")[0] for name in names]
    called = [module for module in trace.modules if module.calls]
    wanted = [module.type for module in called]
    for start in range(len(theirs) - len(wanted) + 1):
        if theirs[start : start + len(wanted)] == wanted and wanted:
            path_of = dict(zip(names[start : start + len(wanted)], (module.path for module in called), strict=True))
            path_of |= {name: LOSS_LAYER for name, kind in zip(names, theirs, strict=True) if kind.endswith("Loss")}
            layers = {
                index: path_of[name]
                for index in events
                if (name := host.events[index].name.removeprefix(MODULE_PREFIX)) in path_of
            }
            return Located(layers, tuple(_spans(host, list(layers), layers, called[0].path)), "module events")
    return None


def _spans(host: Host, events: list[int], layers: dict[int, str], first: str) -> Iterator[Interval]:
    """From when to when each forward ran: from one run of the first layer to the last event before the next."""
    starts = [index for index in events if layers[index] == first and not _inside(host, index, layers, first)]
    for number, start in enumerate(starts):
        until = host.events[starts[number + 1]].start if number + 1 < len(starts) else float("inf")
        ends = [host.events[i].end for i in events if host.events[start].start <= host.events[i].start < until]
        yield host.events[start].start, max(ends)


def _inside(host: Host, index: int, layers: dict[int, str], layer: str) -> bool:
    """Whether an event is inside of another one of the same layer."""
    above = host.above[index]
    while above is not None:
        if layers.get(above) == layer:
            return True
        above = host.above[above]
    return False
