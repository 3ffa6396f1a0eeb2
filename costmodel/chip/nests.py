"""A loop nest: any contraction in one form, from which chips are designed.

    for n in batch:  for k in out_channels:  for c in in_channels:      (channels of one group)
        for p in out_rows:  for q in out_columns:
            for r in filter_rows:  for s in filter_columns:
                output[n, k, p, q] += input[n, c, p stride + r dilation - padding, ...] * weight[k, c, r, s]

A fully connected layer or a matrix product is one with a single pixel, its rows being the batch. The matrices of a
batched product, and attention's heads, are groups: each has its own weights. In a transposed convolution the window
slides over the output: p = y stride + r dilation - padding. `lowering` makes nests of a network's operations.

MACs follow the count's convention: taps on padding are multiplied as well (a transposed one's beyond the output too).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING

from costmodel.chip.windows import Window, touched
from costmodel.errors import InputError
from costmodel.graph import FORWARD
from costmodel.grouping import some
from costmodel.units import plural, si
from costmodel.view import Table

if TYPE_CHECKING:
    import pandas as pd

Pair = tuple[int, int]


@dataclass(frozen=True)
class Nest:
    """One contraction as a loop nest. Channels are those of one group."""

    layer: str
    """Dotted path of the module that it belongs to."""

    operator: str
    """The operator that it comes from: "aten.convolution"; with its part where an operator is several nests."""

    kind: str
    """"conv", "linear" or "attention"."""

    batch: int = 1
    groups: int = 1
    """Independent nests side by side: a convolution's groups, a batched product's matrices, attention's heads."""

    out_channels: int = 1
    """Output channels of one group."""

    in_channels: int = 1
    """Input channels of one group: what is summed over, besides the window."""

    out_rows: int = 1
    out_columns: int = 1
    filter_rows: int = 1
    filter_columns: int = 1
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    """Rows above and below, columns to the left and to the right of the stored input."""

    in_rows: int = 1
    in_columns: int = 1
    transposed: bool = False
    """Whether the window slides over the output."""

    phase: str = FORWARD

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all groups."""
        pixels = self.in_rows * self.in_columns if self.transposed else self.out_rows * self.out_columns
        return self.batch * pixels * self.weight_numel

    @property
    def weight_numel(self) -> int:
        """Words of all groups' weights."""
        return self.groups * self.out_channels * self.in_channels * self.filter_rows * self.filter_columns

    @property
    def output_numel(self) -> int:
        """Words of all groups' outputs."""
        return self.batch * self.groups * self.out_channels * self.out_rows * self.out_columns

    @cached_property
    def input_numel(self) -> int:
        """Words of all groups' inputs that any output touches: without what a stride skips."""
        return self.batch * self.groups * self.in_channels * touched(self.rows) * touched(self.columns)

    @property
    def rows(self) -> Window:
        """How output rows meet input rows."""
        return self._window(0, self.out_rows, self.in_rows, self.filter_rows)

    @property
    def columns(self) -> Window:
        """How output columns meet input columns."""
        return self._window(1, self.out_columns, self.in_columns, self.filter_columns)

    @property
    def depthwise(self) -> bool:
        """Whether each group has a single input channel, so that nothing but the window is summed over."""
        return self.kind == "conv" and self.groups > 1 and self.in_channels == 1

    def of_group(self) -> Nest:
        """One of its groups alone."""
        return replace(self, groups=1)

    def _window(self, axis: int, outputs: int, inputs: int, taps: int) -> Window:
        before = self.padding[axis][0]
        return Window(outputs, inputs, taps, self.stride[axis], self.dilation[axis], before, self.transposed)


@dataclass(frozen=True)
class Unlowered:
    """An operator without a loop nest, or without a rule."""

    operator: str
    reason: str
    count: int
    layers: tuple[str, ...]
    macs: int | None
    """Its MACs; None if no rule counts them."""

    phase: str = FORWARD

    @property
    def note(self) -> str:
        """What is not counted and why, in a sentence."""
        return f"Not counted: {self.operator} ({self.reason}; {plural(self.count, 'time')}, in {some(self.layers)})."


@dataclass(frozen=True, repr=False)
class Nests:
    """The loop nests of a network, in the order of execution."""

    model: str
    nests: tuple[Nest, ...]
    unlowered: tuple[Unlowered, ...] = ()
    """The contractions that are not among them."""

    images: int = 1
    """Samples of a run. A nest's batch may be more: a linear layer takes the rows of all tokens as its batch."""

    unfused_numel: int = 0
    """Elements that the forward moves between its contractions if nothing is fused (`costmodel.chip.unfused`)."""

    def __iter__(self) -> Iterator[Nest]:
        return iter(self.nests)

    def __len__(self) -> int:
        return len(self.nests)

    def __getitem__(self, index: int) -> Nest:
        return self.nests[index]

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of all nests."""
        return sum(nest.macs for nest in self.nests)

    @property
    def known_macs(self) -> int:
        """The same with the contractions that are not among them, as far as a rule counts them."""
        return self.macs + sum(lost.macs or 0 for lost in self.unlowered)

    def only(self, *kinds: str) -> Nests:
        """The nests of some kinds ("conv", "linear", "attention"), without what is between them.

        Raises InputError if there are none.
        """
        kept = self._where(lambda nest: nest.kind in kinds, f"contraction of kind {' or '.join(kinds)}")
        return replace(kept, unfused_numel=0)

    def of_phase(self, phase: str) -> Nests:
        """The nests of one phase. Raises InputError if there are none."""
        kept = self._where(lambda nest: nest.phase == phase, f"contraction in its {phase} phase")
        unlowered = tuple(lost for lost in self.unlowered if lost.phase == phase)
        return replace(kept, unlowered=unlowered, unfused_numel=self.unfused_numel if phase == FORWARD else 0)

    def table(self) -> Table:
        """One row a nest, in elements; channels are those of one group."""
        names = (
            *(field.name for field in fields(Nest)),
            "macs",
            "input_numel",
            "weight_numel",
            "output_numel",
        )
        rows = [[getattr(nest, name) for name in names] for nest in self.nests]
        title = f"{self.model}: {len(self)} loop nests, {si(self.macs, 'MAC')}"
        notes = ("Channels are those of one group.",)
        return Table.of(names, rows, title=title, notes=notes, warnings=tuple(lost.note for lost in self.unlowered))

    def to_frame(self) -> pd.DataFrame:
        """The table as a data frame."""
        return self.table().to_frame()

    def __repr__(self) -> str:
        return f"<Nests of {self.model}: {len(self)} contractions, {si(self.macs, 'MAC')}>"

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def _where(self, keep: Callable[[Nest], bool], what: str) -> Nests:
        kept = tuple(nest for nest in self.nests if keep(nest))
        if not kept:
            raise InputError(f"{self.model} has no {what}.")
        return replace(self, nests=kept)


def by_name(networks: Nests | Mapping[str, Nests]) -> dict[str, Nests]:
    """One network or several, by name. Raises InputError for anything but loop nests, or for none."""
    named = {networks.model: networks} if isinstance(networks, Nests) else networks
    if not isinstance(named, Mapping) or not all(isinstance(nests, Nests) for nests in named.values()):
        raise InputError("networks are loop nests, or a dict of several by name: costmodel.lower(trace) makes them.")
    if not named:
        raise InputError("there is nothing to run: give at least one network.")
    return dict(named)


def check_weights(weights: Mapping[str, float] | None, networks: Collection[str]) -> None:
    """Raises InputError for the weight of an unknown network, one that is not positive, and for none at all."""
    for name, weight in (weights or {}).items():
        if name not in networks:
            raise InputError(f"a weight for {name!r}, which is not among the networks: {', '.join(networks)}.")
        if not 0 < weight < math.inf:
            raise InputError(f"the weight of {name!r} is {weight}: give a positive number.")
    if weights is not None and not weights:
        raise InputError("a mix needs at least one weight.")
