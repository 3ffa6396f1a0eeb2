"""What would lower a training step's peak of memory, by how much, and why some changes do not: each is traced.

A what-if changes one thing about how the step is run. Its saving is the step's peak minus the peak with the change, in
requested bytes in the steady state. Forward, backward and optimizer step each have a peak of their own, and only the
highest counts: a change that lowers another one saves nothing, and the reason given says so in numbers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from costmodel.errors import CostModelError, InputError
from costmodel.graph import LOSS_LAYER, OPTIMIZER_LAYER, Trace
from costmodel.memory.runs import replay
from costmodel.memory.timeline import MemoryTimeline, memory_timeline
from costmodel.units import iec
from costmodel.view import Table

if TYPE_CHECKING:
    import pandas as pd


class TraceWith(Protocol):
    """Traces a training step of a network at a batch, with options of `costmodel.trace`.

    Beside those it takes `inplace`: whether activations overwrite their input, or None for the network's own way.
    """

    def __call__(self, batch: int, *, inplace: bool | None = None, **options: Any) -> Trace:
        """The trace of the step."""
        ...


class MemoryWhatIf(NamedTuple):
    """A change to how a step is run that may need less memory."""

    name: str
    how: str
    """What to write in a program."""

    options: Mapping[str, Any]
    """The options of the trace with it."""

    batch: int
    """At which batch the trace is made."""

    because: str = ""
    """Why it saves nothing where autograd saves as much as without it."""


@dataclass(frozen=True)
class Saving:
    """What a what-if saves."""

    what_if: MemoryWhatIf
    peak_bytes: int | None
    """The step's peak with it; None where the network cannot be run so."""

    saving_bytes: int | None
    """How much lower that is; negative where it is higher."""

    saved_bytes: int | None
    """What autograd saves for the backward with it."""

    reserved_bytes: int | None
    """What the caching allocator reserves with it, on CUDA."""

    why: str
    """Where the saving comes from, or why there is none."""


@dataclass(frozen=True, repr=False)
class MemoryWhatIfs:
    """What-ifs on one training step."""

    memory: MemoryTimeline
    """The step as it is."""

    batch: int
    savings: tuple[Saving, ...]

    def __iter__(self) -> Iterator[Saving]:
        return iter(self.savings)

    def __getitem__(self, name: str) -> Saving:
        """The saving of the what-if of that name. Raises KeyError if there is none."""
        for saving in self.savings:
            if saving.what_if.name == name:
                return saving
        raise KeyError(name)

    def largest_first(self) -> list[Saving]:
        """The what-ifs in the order of their savings; those that cannot be run come last."""
        return sorted(self.savings, key=lambda s: -math.inf if s.saving_bytes is None else s.saving_bytes, reverse=True)

    def table(self) -> Table:
        """One row a what-if, the largest saving first; what could not be run has no numbers."""
        columns = ("what_if", "how", "saving_bytes", "peak_bytes", "reserved_bytes", "saved_bytes", "why")
        rows = [
            (s.what_if.name, s.what_if.how, s.saving_bytes, s.peak_bytes, s.reserved_bytes, s.saved_bytes, s.why)
            for s in self.largest_first()
        ]
        return Table.of(columns, rows, title=f"{self.memory.trace.model}: peak of {iec(self.memory.peak_bytes)}")

    def to_frame(self) -> pd.DataFrame:
        """The table as a data frame."""
        return self.table().to_frame()

    def __repr__(self) -> str:
        most = max(self.savings, key=lambda s: s.saving_bytes or 0, default=None)
        best = f", the best {most.what_if.name} with {iec(most.saving_bytes or 0)}" if most else ""
        return f"<What-ifs of {self.memory.trace.model}: {len(self.savings)} what-ifs{best}>"

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def memory_what_ifs(trace_with: TraceWith, batch: int, **options: Any) -> MemoryWhatIfs:
    """What each change would save of a training step at a batch; those that change nothing are left out.

    Args:
        trace_with: traces the step; called once for every what-if, with its changes.
        batch: samples in a step.
        options: how the step is run without a what-if: optimizer, optimizer_options, dtype, target ...

    Raises InputError if the trace is not a training step.
    """
    trace = trace_with(batch, **options)
    if not trace.train:
        raise InputError("what-ifs of memory are about training: trace a training step.")
    base = memory_timeline(trace)
    savings = (_saving(base, what_if, trace_with) for what_if in what_ifs_for(trace, batch, options))
    return MemoryWhatIfs(base, batch, tuple(saving for saving in savings if saving is not None))


def what_ifs_for(trace: Trace, batch: int, options: Mapping[str, Any]) -> list[MemoryWhatIf]:
    """The changes that apply to a step that was traced at a batch with these options."""
    optimizer = options.get("optimizer", "sgd")
    settings = dict(options.get("optimizer_options") or {})
    applicable: list[MemoryWhatIf] = []

    def what_if(name: str, how: str, at: int = batch, because: str = "", **changes: Any) -> None:
        applicable.append(MemoryWhatIf(name, how, {**options, **changes}, at, because))

    def optimizer_what_if(name: str, how: str, **changes: Any) -> None:
        what_if(name, how, optimizer_options=settings | changes)

    if isinstance(optimizer, str):
        own = f"optim.{_CLASSES.get(optimizer, optimizer)}"
        optimizer_what_if("fused optimizer", f"{own}(..., fused=True)", fused=True, foreach=False)
        optimizer_what_if("optimizer tensor by tensor", f"{own}(..., foreach=False)", foreach=False)
        if settings.get("weight_decay"):
            optimizer_what_if("no weight decay", f"{own}(..., weight_decay=0)", weight_decay=0)
        if settings.get("momentum"):
            optimizer_what_if("no momentum", f"{own}(..., momentum=0)", momentum=0)
        if optimizer in _ADAMS:
            shared = {name: value for name, value in settings.items() if name in _SHARED}
            for name, momentum in (("SGD with momentum", {"momentum": 0.9}), ("SGD without momentum", {})):
                how = f"optim.SGD(..., {'momentum=0.9' if momentum else 'momentum=0'})"
                what_if(name, how, optimizer="sgd", optimizer_options=shared | momentum)
    if not options.get("checkpoint"):
        for blocks in checkpointable(trace):
            where = _briefly(blocks, trace)
            what_if(f"checkpoint {where}", f"checkpoint(block, x) of {where}", checkpoint=blocks)
    if not options.get("autocast") and trace.dtype == "float32":
        what_if("autocast", "torch.autocast('cuda', torch.bfloat16)", autocast="bfloat16")
        what_if("bfloat16 throughout", "model.to(torch.bfloat16)", dtype="bfloat16")
    if not options.get("set_to_none", True):
        what_if("gradients let go", "zero_grad(set_to_none=True)", set_to_none=True)
    what_if("activations in place", "nn.ReLU(inplace=True)", because=_IN_PLACE, inplace=True)
    if batch > 1:
        what_if("half the batch", f"a batch of {batch // 2}", at=batch // 2)
    parts = next((parts for parts in (4, 2) if batch % parts == 0), None)
    if parts and options.get("accumulate", 1) == 1:
        part = batch // parts
        what_if(f"accumulation over {parts} parts", f"{parts} micro-batches of {part}", at=part, accumulate=parts)
    return applicable


_CLASSES = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}
"""The optimizers' classes in torch.optim."""

_ADAMS = ("adam", "adamw")
"""Those that keep two tensors of state for each parameter."""

_SHARED = ("lr", "weight_decay", "foreach", "fused", "maximize")
"""Options that SGD takes as well."""

_IN_PLACE = (
    "a ReLU keeps its output for the backward and the layer before it does not keep its own, so what in-place saves "
    "would have been freed at once"
)


def checkpointable(trace: Trace) -> list[tuple[str, ...]]:
    """The ways to checkpoint a network by its own modules: for each depth, the blocks that repeat there.

    A block is a module with others inside that is called; it repeats where another of its class stands beside it under
    the same parent. The outermost _MOST_WAYS depths are taken; without any, the outermost blocks, whatever they are.
    """
    blocks = [module for module in trace.modules if module.path and not module.leaf and module.calls]
    like = Counter((_parent(block.path), block.type) for block in blocks)
    by_depth: dict[int, list[str]] = {}
    for block in blocks:
        if like[_parent(block.path), block.type] > 1:
            by_depth.setdefault(block.path.count("."), []).append(block.path)
    if by_depth:
        return [tuple(by_depth[depth]) for depth in sorted(by_depth)[:_MOST_WAYS]]
    top = min((block.path.count(".") for block in blocks), default=0)
    outermost = tuple(block.path for block in blocks if block.path.count(".") == top)
    return [outermost] if outermost else []


_MOST_WAYS = 3
"""Each is a trace."""


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _briefly(blocks: Sequence[str], trace: Trace) -> str:
    """Blocks in few words: `features.*` for all that stand beside one another there, the first and last of many."""
    chosen = set(blocks)
    others = {_parent(m.path) for m in trace.modules if not m.leaf and m.calls and m.path not in chosen}
    words = list(dict.fromkeys(f"{_parent(b)}.*" if _parent(b) and _parent(b) not in others else b for b in blocks))
    return ", ".join(words) if len(words) < 3 else f"{words[0]} … {words[-1]}"


def _saving(base: MemoryTimeline, what_if: MemoryWhatIf, trace_with: TraceWith) -> Saving | None:
    """What a what-if saves; None if the step is the same with it."""
    try:
        trace = trace_with(what_if.batch, **what_if.options)
    except CostModelError as error:
        return Saving(what_if, None, None, None, None, f"the network cannot be run so: {error}")
    if trace.operations == base.trace.operations:
        return None
    memory = memory_timeline(trace)
    reserved = replay(trace).peak_reserved_bytes if trace.target == "cuda" else None
    saving, why = base.peak_bytes - memory.peak_bytes, _reason(base, memory, what_if)
    why = f"it raises the peak here: {why}" if saving < 0 else why
    return Saving(what_if, memory.peak_bytes, saving, memory.saved_bytes, reserved, why)


def _reason(base: MemoryTimeline, memory: MemoryTimeline, what_if: MemoryWhatIf) -> str:
    """Why one peak is lower or higher than the other, or neither: the phases' peaks, the roles at the highest."""
    phase = base.peak_operation.phase
    if memory.peak_bytes == base.peak_bytes:
        before, after = phase_peaks(base), phase_peaks(memory)
        lower = [
            f"the {name}'s peak by {iec(before[name] - after[name])}" for name in before if after[name] < before[name]
        ]
        lowers = f"it lowers {' and '.join(lower)}, but" if lower else "it lowers no phase's peak:"
        same = memory.saved_bytes == base.saved_bytes
        saved = (
            f"{iec(base.saved_bytes)} as before" if same else f"{iec(memory.saved_bytes)}, not {iec(base.saved_bytes)}"
        )
        because = f"; {what_if.because}" if same and what_if.because else ""
        return f"{lowers} the highest is the {phase}'s ({iec(base.peak_bytes)}); autograd saves {saved}{because}."
    changes = {
        role: memory.by_role.get(role, 0) - base.by_role.get(role, 0)
        for role in dict.fromkeys([*base.by_role, *memory.by_role])
    }
    moved = [
        f"{role} {'+' if change > 0 else '−'}{iec(abs(change))}"
        for role, change in sorted(changes.items(), key=lambda item: -abs(item[1]))
        if change
    ]
    there, layer = memory.peak_operation.phase, memory.peak_operation.layer
    place = "" if layer in (LOSS_LAYER, OPTIMIZER_LAYER) else f", {layer or memory.peak_operation.operator}"
    return f"{', '.join(moved)}{f'; the peak moves to the {there}{place}' if there != phase else ''}."


def phase_peaks(memory: MemoryTimeline) -> Mapping[str, int]:
    """The most bytes alive at once in each phase."""
    peaks: dict[str, int] = {}
    for operation, live in zip(memory.trace.operations, memory.live_bytes, strict=True):
        peaks[operation.phase] = max(peaks.get(operation.phase, 0), live)
    return peaks
