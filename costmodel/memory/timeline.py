"""A trace's memory: which bytes are alive when, when they peak, and who holds them then.

A storage is alive from the operation that makes it to the operation after which its last holder lets go; an operation's
outputs stand beside everything that is alive while it runs. These are requested bytes: what tensors ask for, before an
allocator rounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from costmodel.cost import block_of
from costmodel.devices import device as find_device
from costmodel.display import html_table
from costmodel.errors import InputError, nearest, type_of
from costmodel.graph import HOST, LOSS_LAYER, OPTIMIZER_LAYER, ROLES, Operation, Storage, Trace
from costmodel.memory.ladder import Rung, check_target, ladder, overheads, requested_only
from costmodel.memory.runs import Replay, replay
from costmodel.units import iec

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from costmodel.devices import Device


class Holder(NamedTuple):
    """Bytes that one tensor holds at the peak."""

    name: str
    """The parameter's or buffer's name, or the layer that made it."""

    role: str
    nbytes: int
    shape: tuple[int, ...] = ()
    """Of the first tensor that looked at it."""

    dtype: str = ""


class Held(dict[str, int]):
    """Bytes that are alive at the peak by the name of what they are summed by, the largest first."""

    def __init__(self, by: str, sums: Mapping[str, int]) -> None:
        super().__init__(sorted(sums.items(), key=lambda item: -item[1]))
        self.by = by

    def to_frame(self) -> pd.DataFrame:
        """One row a name, in bytes."""
        import pandas as pd

        return pd.DataFrame(list(self.items()), columns=[self.by, "held_bytes"])

    def _repr_html_(self) -> str:
        name = (self.by, "term" if self.by == "role" else "layer")
        total = ("total", sum(self.values()))
        return html_table(f"Bytes at the peak by {self.by}", [name, ("bytes", "bytes")], self.items(), total)


class Saved(NamedTuple):
    """A tensor that autograd saved in the forward for the backward."""

    name: str
    """The parameter's or buffer's name, or the layer that made it."""

    role: str
    nbytes: int
    layers: tuple[str, ...]
    """The layers whose operations saved it, in order."""


@dataclass(frozen=True, repr=False)
class Memory:
    """The live bytes of a trace."""

    trace: Trace

    @cached_property
    def timeline(self) -> Mapping[str, tuple[int, ...]]:
        """Live bytes while each operation runs, by role."""
        return {role: self._live(role) for role in ROLES if any(s.role == role for s in self.trace.storages)}

    @cached_property
    def live_bytes(self) -> tuple[int, ...]:
        """Live bytes while each operation runs."""
        return tuple(map(sum, zip(*self.timeline.values(), strict=True)))

    @property
    def peak_bytes(self) -> int:
        """The most bytes alive at once."""
        return max(self.live_bytes, default=0)

    @property
    def peak_index(self) -> int:
        """The first operation at which the most bytes are alive."""
        return self.live_bytes.index(self.peak_bytes)

    @property
    def peak_operation(self) -> Operation:
        """The operation that runs at the peak: its layer and phase say where."""
        return self.trace.operations[self.peak_index]

    @property
    def peak_place(self) -> str:
        """That operation and its layer in words: "aten.relu of features.1"."""
        operator, layer = self.peak_operation.operator, self.peak_operation.layer
        return operator if layer in (LOSS_LAYER, OPTIMIZER_LAYER) else f"{operator} of {layer or 'the network itself'}"

    @property
    def by_role(self) -> Mapping[str, int]:
        """The peak's bytes by role."""
        return {role: live[self.peak_index] for role, live in self.timeline.items()}

    def holders(self) -> tuple[Holder, ...]:
        """Who holds the bytes at the peak, largest first."""
        tensors = _first_tensors(self.trace)
        held = [
            Holder(storage.name, storage.role, storage.nbytes, *tensors.get(index, ()))
            for index, storage in enumerate(self.trace.storages)
            if storage.nbytes and storage.role != HOST and _alive(storage, self.peak_index)
        ]
        return tuple(sorted(held, key=lambda holder: -holder.nbytes))

    def by(self, key: str, depth: int | None = None) -> Held:
        """The peak's bytes by "layer", "block" or "role", the largest first: a dict by name.

        A parameter, its gradient and its optimizer state belong to the layer that holds it, what was computed to the
        layer that made it; what the network was fed is "(input)". A block is the module that a layer stands in; with
        `depth`, the layer's path cut to that many components. Raises InputError for another key.
        """
        if key not in ("layer", "block", "role"):
            raise InputError(
                f"cannot sum by {key!r}: use layer, block or role.{nearest(key, ('layer', 'block', 'role'))}"
            )
        layers = {parameter.name: parameter.layer for parameter in self.trace.parameters}
        modules = self.trace.module_by_path
        sums: dict[str, int] = {}
        for holder in self.holders():
            layer = _layer_of(holder, layers)
            leaf = layer in modules and modules[layer].leaf
            name = {"role": holder.role, "layer": layer, "block": block_of(layer, leaf, depth)}[key]
            sums[name] = sums.get(name, 0) + holder.nbytes
        return Held(key, sums)

    @property
    def saved_bytes(self) -> int:
        """Bytes of the distinct storages that autograd saves in forward and loss for the backward.

        It is what torch.autograd.graph.saved_tensors_hooks is handed, each storage once and whole, apart from
        parameters and buffers, which are there anyway; the network's inputs and the labels count. (In steps of several
        micro-batches, of the first.)
        """
        return sum(self.saved_by_layer.values())

    @cached_property
    def saved_by_layer(self) -> Mapping[str, int]:
        """The saved bytes by the layer that saved a storage first, in the layers' order."""
        by_layer: dict[str, int] = {}
        for saved in self.saved():
            if saved.role not in ("parameter", "buffer"):
                by_layer[saved.layers[0]] = by_layer.get(saved.layers[0], 0) + saved.nbytes
        return by_layer

    def saved(self) -> tuple[Saved, ...]:
        """Every storage that autograd saves, parameters and buffers too, in the order in which they were made."""
        return tuple(Saved(s.name, s.role, s.nbytes, s.saved_by) for s in self.trace.storages if s.saved_by)

    @cached_property
    def replay(self) -> Replay:
        """The trace on PyTorch's caching allocator, as it runs on CUDA."""
        return replay(self.trace)

    def ladder(self, device: Device | str | None = None) -> tuple[Rung, ...]:
        """The peak from what tensors ask for to what a process holds; on another target than CUDA only the former.

        Raises InputError for a device that does not run the trace's target.
        """
        if device is not None:
            check_target(self.trace, find_device(device))
        if self.trace.target != "cuda":
            return requested_only(self.peak_bytes)
        return ladder(self.replay, overheads(self.trace, device))

    def plot(self, ax: Axes | None = None, **options: Any) -> Axes:
        """The timeline as areas by role, with its peak: `costmodel.plot.memory`. Returns the axes."""
        import costmodel

        return costmodel.plot.memory(self, ax, **options)

    def to_frame(self) -> pd.DataFrame:
        """One row an operation: where it runs, and the live bytes by role while it does."""
        import pandas as pd

        where = [(o.phase, o.layer, o.operator) for o in self.trace.operations]
        return pd.DataFrame(where, columns=["phase", "layer", "operator"]).assign(**self.timeline)

    def __repr__(self) -> str:
        where = self.peak_operation
        return f"<Memory of {self.trace.model}: peak of {iec(self.peak_bytes)} in {where.layer or where.operator}>"

    def _repr_html_(self) -> str:
        """The peak's holders for a notebook, the largest first."""
        phase = self.peak_operation.phase
        title = f"{self.trace.model}: peak of {iec(self.peak_bytes)} in {self.peak_place} ({phase})"
        held = self.holders()
        rest = sum(holder.nbytes for holder in held[_SHOWN:])
        rows: list[Holder] = [*held[:_SHOWN]]
        if rest:
            rows.append(Holder(f"{len(held) - _SHOWN} more", "", rest))
        columns = [("tensor of", "layer"), ("role", "term"), ("bytes", "bytes"), ("shape", "shape"), ("type", "term")]
        return html_table(title, columns, rows, ("total", "", self.peak_bytes, None, ""))

    def _live(self, role: str) -> tuple[int, ...]:
        """Bytes of one role, from what each operation adds and what the one before it let go."""
        count = len(self.trace.operations)
        change = [0] * (count + 1)
        for storage in self.trace.storages:
            if storage.role == role and (storage.death is None or storage.death >= 0):
                change[max(0, storage.birth)] += storage.nbytes
                change[count if storage.death is None else storage.death + 1] -= storage.nbytes
        return tuple(accumulate(change[:count]))


_SHOWN = 12
"""Holders that a notebook shows."""


def remember(trace: Trace) -> Memory:
    """The live bytes of a trace over its operations. Raises InputError for what is no trace."""
    if not isinstance(trace, Trace):
        raise InputError(f"remember takes a trace, not {type_of(trace)}: cm.trace(network, shape) makes one.")
    return Memory(trace)


def _layer_of(holder: Holder, layers: Mapping[str, str]) -> str:
    """The layer that a tensor belongs to, by the layers of the parameters."""
    if holder.role == "input":
        return "(input)"
    if holder.role == "optimizer state":  # "exp_avg of features.0.weight"
        return layers.get(holder.name.partition(" of ")[2], OPTIMIZER_LAYER)
    return layers.get(holder.name, holder.name)


def _first_tensors(trace: Trace) -> dict[int, tuple[tuple[int, ...], str]]:
    """Shape and element type of the first tensor that looks at each storage."""
    found: dict[int, tuple[tuple[int, ...], str]] = {}
    known = (*(parameter.tensor for parameter in trace.parameters), *trace.inputs)
    for tensor in (*known, *(spec for o in trace.operations for spec in (*o.outputs, *o.inputs.values()))):
        found.setdefault(tensor.storage, (tensor.shape, tensor.dtype))
    return found


def _alive(storage: Storage, index: int) -> bool:
    return storage.birth <= index and (storage.death is None or storage.death >= index)
