"""Which layers to run as one, so that what is between them never leaves the chip: the cheapest cuts of a network.

Along a chain (`chains`) a group is some consecutive units, a unit being a contraction with what works on its outputs
one by one and the poolings that follow. What is inside a group stays on the chip; its input, its weights and its output
meet DRAM. A group of one unit moves what the best tile moves (`tiling`, pooled at once), or less as a pyramid; a longer
one is run as pyramids (`pyramids`), with overlaps kept or recomputed, with any tile of the tip, each layer's
weights staying or reloaded for each tile. With T(v, u) the least that a group of the units v .. u - 1 moves,

    best(u) = min over v < u of best(v) + T(v, u),    best(0) = 0

finds the cheapest way to cut the chain: groups share nothing, so their traffic adds up, and every way to cut is tried.
It is the least of this class of schedules: what it leaves out are groups across branches and sums, and a tensor that
stays on the chip past the next unit. Weights that stay are chosen for the most words (every subset of up to 12 layers;
of more, smallest first).

The dynamic program over cuts is that of "Occam: optimal data reuse for convolutional neural networks", ACM TACO, 2022,
doi:10.1145/3566052, with the best tiles and weights that come again in place of all weights on the chip.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from costmodel.chip.bounds import bound_bytes
from costmodel.chip.chains import Chain, Stage, chains
from costmodel.chip.lowering import lower
from costmodel.chip.nests import Nest, Unlowered
from costmodel.chip.pyramids import Levels, Pyramids, levels, needed, of_run, pyramids
from costmodel.chip.schedules import Pool
from costmodel.chip.shapes import curve_of
from costmodel.chip.tiling import Curve
from costmodel.chip.widths import WORD_BITS, Widths, whole
from costmodel.chip.windows import Integers
from costmodel.cost import Costs
from costmodel.errors import InputError
from costmodel.graph import Trace
from costmodel.units import iec, percent, plural, si
from costmodel.view import Table, column, sentence

if TYPE_CHECKING:
    import pandas as pd

CONVENTION = "least DRAM traffic of groups of layers: what is inside a group never leaves the chip"
"""What the traffic is, in one line for tables."""

KEPT, RECOMPUTED = "fused, overlaps kept", "fused, overlaps recomputed"
APART = ", pooled apart"
"""Behind a schedule: a pooling takes its input from DRAM."""


class Group(NamedTuple):
    """Layers that run as one."""

    layers: tuple[str, ...]
    """The contractions and poolings in it."""

    kind: str
    """The kind of its contraction, or "fused" if there are several."""

    schedule: str
    """One of tiling's five for a single contraction (with APART if not pooled at once), else KEPT or RECOMPUTED."""

    tile: tuple[int, ...]
    """Batch, output channels, input channels, rows and columns of a single contraction; else the tip's channels, rows
    and columns."""

    dram_bytes: int
    input_bytes: int
    weight_bytes: int
    output_bytes: int
    """With partial sums that go and come back."""

    compulsory_bytes: int
    """The part of its input that its outputs need, its weights and its outputs, once each: no schedule that fuses just
    these layers moves less."""

    bound_bytes: int
    """A bound for any schedule of this group: tiling's bound for one contraction, else compulsory traffic. The
    red-blue pebble bound does not cover what is pooled on the chip or stays there."""

    footprint_bytes: int
    """Bytes of the buffer in use."""

    macs: int
    recomputed_macs: int
    """The recomputed share of them."""

    layer_by_layer_bytes: int
    """Traffic of its contractions layer by layer, outputs unpooled."""

    pooling_bytes: int
    """Traffic of its elementwise operations and poolings layer by layer."""

    nests: tuple[Nest, ...] = ()
    """Its contractions."""


@dataclass(frozen=True, repr=False)
class Fusion:
    """A network cut into groups behind one buffer."""

    model: str
    buffer_bytes: int
    widths: Widths
    groups: tuple[Group, ...]
    unlowered: tuple[Unlowered, ...] = ()

    @cached_property
    def dram_bytes(self) -> int:
        """What all groups move."""
        return sum(group.dram_bytes for group in self.groups)

    @cached_property
    def compulsory_bytes(self) -> int:
        """Each group's input, weights and output once."""
        return sum(group.compulsory_bytes for group in self.groups)

    @cached_property
    def bound_bytes(self) -> int:
        """The least that any schedule that fuses these groups can move."""
        return sum(group.bound_bytes for group in self.groups)

    @cached_property
    def layer_by_layer_bytes(self) -> int:
        """Traffic of the contractions layer by layer: `costmodel.traffic`'s sum."""
        return sum(group.layer_by_layer_bytes for group in self.groups)

    @cached_property
    def pooling_bytes(self) -> int:
        """Additional traffic of elementwise operations and poolings layer by layer."""
        return sum(group.pooling_bytes for group in self.groups)

    @cached_property
    def recomputed_macs(self) -> int:
        """Multiply-accumulates that are recomputed."""
        return sum(group.recomputed_macs for group in self.groups)

    @cached_property
    def on_chip(self) -> tuple[str, ...]:
        """The layers whose outputs never leave the chip, in the order of execution."""
        together = (group for group in self.groups if not group.schedule.endswith(APART))
        return tuple(layer for group in together for layer in group.layers[:-1])

    def table(self) -> Table:
        """One row a group: its traffic, and that of its layers one by one."""
        saved = percent(1 - self.dram_bytes / (self.layer_by_layer_bytes + self.pooling_bytes))
        return fusion_table([self]).around(
            title=f"{self.model} behind {iec(self.buffer_bytes)}: {saved} of the traffic saved"
        )

    def to_frame(self) -> pd.DataFrame:
        """The table as a data frame."""
        return self.table().to_frame()

    def __repr__(self) -> str:
        return (
            f"<Fusion of {self.model} behind {iec(self.buffer_bytes)}: {plural(len(self.groups), 'group')}, "
            f"{iec(self.dram_bytes)} instead of {iec(self.layer_by_layer_bytes + self.pooling_bytes)}>"
        )

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    @property
    def note(self) -> str:
        """What fusing saves, in a sentence."""
        return (
            f"Behind {iec(self.buffer_bytes)}: {iec(self.dram_bytes)} in {plural(len(self.groups), 'group')} instead "
            f"of {iec(self.layer_by_layer_bytes + self.pooling_bytes)}: contractions layer by layer "
            f"{iec(self.layer_by_layer_bytes)}, activations and poolings {iec(self.pooling_bytes)}; "
            f"{si(self.recomputed_macs, 'MAC')} recomputed."
        )


def fusion_table(fusions: Sequence[Fusion]) -> Table:
    """One row a group of layers and buffer; a group is named by its first and last layer."""
    columns = [column(name, **_SHOWN.get(name, {})) for name in ("layer", "buffer_bytes", *Group._fields[:-1])]
    rows = [
        (" to ".join(dict.fromkeys((group.layers[0], group.layers[-1]))), fusion.buffer_bytes, *group[:-1])
        for fusion in fusions
        for group in fusion.groups
    ]
    notes = (sentence(CONVENTION), *(fusion.note for fusion in fusions))
    table = Table.of(columns, rows, title=fusions[0].model, notes=notes)
    return table.summed() if len(fusions) == 1 else table


_SHOWN: Mapping[str, Mapping[str, Any]] = {
    "layer": {"title": "layers"},
    "layers": {"rank": 9},
    "macs": {"rank": 9},
    "footprint_bytes": {"rank": 9},
    "bound_bytes": {"rank": 4},
}
"""Columns that are shown differently here."""


def fuse(
    network: Trace | Costs,
    buffer_bytes: int,
    *,
    word_bits: int = WORD_BITS,
    partial_bits: int | None = None,
    double_buffer: bool = False,
    contractions: bool = True,
) -> Fusion:
    """Cut a network into groups of layers that move least between DRAM and an on-chip buffer.

    Args:
        network: a trace of a forward pass, or its costs.
        buffer_bytes: size of the buffer.
        word_bits: width of inputs, weights and outputs.
        partial_bits: width of a partial sum; that of a word if None.
        double_buffer: whether what streams is held twice.
        contractions: whether contractions may be fused with each other; else only with what follows each of them.

    Raises InputError for a training step, which must keep what fusion would not write, for a network without
    contractions, and for a buffer too small for any tile, with the smallest that works.
    """
    trace = network.trace if isinstance(network, Costs) else network
    if trace.train:
        raise InputError("a training step keeps activations for its backward pass: fuse a forward pass.")
    unlowered = lower(network).unlowered
    size = whole(buffer_bytes, "a buffer's size", "bytes")
    cutter = _Cutter(size, Widths.of(word_bits, partial_bits), double_buffer, contractions)
    cut = chains(trace)
    cutter.check([stage for chain in cut for stage in chain.stages])
    groups = [group for chain in cut for group in cutter.cut(chain)]
    return Fusion(trace.model, size, cutter.widths, tuple(groups), unlowered)


class _Cutter:
    """Finds the cheapest groups behind one buffer."""

    def __init__(self, buffer_bytes: int, widths: Widths, double_buffer: bool, fuse_contractions: bool) -> None:
        self.buffer_bytes, self.widths, self.double_buffer = buffer_bytes, widths, double_buffer
        self.fuse_contractions = fuse_contractions

    def check(self, stages: Sequence[Stage]) -> None:
        """Raises InputError if some contraction has no tile that fits, with the smallest buffer for all of them."""
        curves = [self.curve(stage.nest) for stage in stages if stage.nest]
        hungriest = max(curves, key=lambda curve: curve.smallest_buffer_bytes)
        if hungriest.smallest_buffer_bytes > self.buffer_bytes:
            raise InputError(
                f"a buffer of {self.buffer_bytes} bytes is too small: layer {hungriest.nest.layer or '(network)'!r} "
                f"needs at least {hungriest.smallest_buffer_bytes} bytes for its smallest tiles."
            )

    def cut(self, chain: Chain) -> Iterator[Group]:
        """The groups that move least, in order."""
        # best(u) of the module docstring and the cut that reaches it; of equal cuts that with the shortest last group.
        best: list[tuple[int, int, Group | None]] = [(0, 0, None)]  # traffic up to a unit, where its group begins
        for end in range(1, len(chain.units) + 1):
            options = [(best[end - 1][0] + group.dram_bytes, end - 1, group) for group in self.unit(chain, end - 1)]
            options += [(best[start][0] + group.dram_bytes, start, group) for start, group in self.runs(chain, end)]
            best.append(min(options, key=lambda option: (option[0], -option[1])))
        groups, at = [], len(best) - 1
        while at:
            _, at, group = best[at]
            groups.append(group)
        return iter([group for group in reversed(groups) if group])

    def unit(self, chain: Chain, index: int) -> Iterator[Group]:
        """One contraction by itself, the first pooling at once, further ones from and to DRAM."""
        start, end = chain.units[index]
        contraction, *pools = chain.stages[start:end]
        variants: list[tuple[Curve, list[Stage]]] = [(self.curve(contraction.contraction), pools)]
        if pools:
            pooled = self.curve(contraction.contraction, (pools[0].rows, pools[0].columns))
            if pooled.smallest_buffer_bytes <= self.buffer_bytes:
                variants.append((pooled, pools[1:]))
        for curve, after in variants:
            best = curve.at(self.buffer_bytes)
            loose = self._bytes(sum(stage.input_words for stage in after), self.widths.output_bits)
            stored = self._bytes(sum(stage.output_words for stage in after), self.widths.output_bits)
            macs = _pooled_macs(contraction, pools[0] if after is not pools else None, best.tile[3:])
            yield self._group(
                chain.stages[start:end],
                f"{best.schedule}{APART if after else ''}",
                tuple(best.tile),
                best.input_bytes + loose,
                best.weight_bytes,
                best.output_bytes + best.partial_bytes + stored,
                best.footprint_bytes,
                macs,
            )

    def runs(self, chain: Chain, end: int) -> Iterator[tuple[int, Group]]:
        """The pyramids over the units up to `end`, from whichever unit they begin."""
        last = chain.units[end - 1][1]
        stages = chain.stages[:last]
        down = levels([stage.rows for stage in stages])
        across = levels([stage.columns for stage in stages])
        for unit in range(end - 1, -1, -1):
            first = chain.units[unit][0]
            if unit < end - 1 and not self.fuse_contractions:
                return
            group = self.run(stages[first:], of_run(down, first), of_run(across, first))
            if group:
                yield unit, group

    def run(self, stages: Sequence[Stage], down: Levels, across: Levels) -> Group | None:
        """The pyramids over some stages that move least; None if none fits."""
        options = [self._tip(stages, pyramids(stages, down, across, keep, self.widths)) for keep in (True, False)]
        best = min((option for option in options if option), key=lambda option: option[0], default=None)
        if best is None:
            return None
        _, (row, column), footprint, weight_bits, shape = best
        batch = stages[0].batch
        return self._group(
            stages,
            KEPT if shape.keep else RECOMPUTED,
            (stages[-1].out_channels, int(down.sizes[row]), int(across.sizes[column])),
            self._bytes(batch * int(shape.input_words[row, column]), self.widths.input_bits),
            -(-weight_bits // 8),
            self._bytes(batch * shape.output_words, self.widths.output_bits),
            -(-footprint // 8),
            batch * int(shape.macs[row, column]),
        )

    def _tip(self, stages: Sequence[Stage], shape: Pyramids) -> tuple[int, tuple[int, int], int, int, Pyramids] | None:
        """The tip tile that moves least: traffic, place, footprint and weights' traffic, all in bits."""
        widths, batch = self.widths, stages[0].batch
        footprint = shape.working_bits * (1 + self.double_buffer) + shape.kept_words * widths.input_bits
        room = 8 * self.buffer_bytes - footprint
        weights = [stage.weights for stage in stages if stage.weights]
        stay = _subset_sums(tuple(weights)) * widths.weight_bits
        fits = room >= 0
        if not fits.any():
            return None
        # Weights that stay take the largest subset sum that fits beside the tiles; the others are reloaded.
        staying = stay[np.searchsorted(stay, np.maximum(room, 0), side="right") - 1]
        again = sum(weights) * widths.weight_bits - staying
        all_trips = shape.trips * batch
        staying = np.where(all_trips == 1, 0, staying)  # what is loaded once need not stay
        moved = np.where(all_trips == 1, sum(weights) * widths.weight_bits, staying + again * all_trips)
        traffic = (
            moved + batch * shape.input_words * widths.input_bits + batch * shape.output_words * widths.output_bits
        )
        traffic = np.where(fits, traffic, np.iinfo(np.int64).max)
        place = np.unravel_index(int(np.argmin(traffic)), traffic.shape)
        where = (int(place[0]), int(place[1]))
        return int(traffic[where]), where, int(footprint[where] + staying[where]), int(moved[where]), shape

    def curve(self, nest: Nest, pool: Pool | None = None) -> Curve:
        """The least traffic of a contraction behind a buffer of any size."""
        return curve_of(nest, self.widths, self.double_buffer, pool)

    def _group(
        self,
        stages: Sequence[Stage],
        schedule: str,
        tile: tuple[int, ...],
        inputs: int,
        weights: int,
        outputs: int,
        footprint: int,
        macs: int,
    ) -> Group:
        contractions = [stage for stage in stages if stage.nest]
        nests = tuple(stage.contraction for stage in contractions)
        compulsory = (
            self._bytes(_input_words(stages), self.widths.input_bits)
            + self._bytes(sum(stage.weights for stage in contractions), self.widths.weight_bits)
            + self._bytes(stages[-1].output_words, self.widths.output_bits)
        )
        return Group(
            tuple(stage.layer for stage in stages),
            contractions[0].kind if len(contractions) == 1 else "fused",
            schedule,
            tile,
            inputs + weights + outputs,
            inputs,
            weights,
            outputs,
            compulsory,
            compulsory if len(stages) > 1 else bound_bytes(nests[0], self.buffer_bytes, self.widths),
            footprint,
            macs,
            max(0, macs - sum(stage.macs for stage in contractions)),
            sum(int(self.curve(nest).dram_bytes(self.buffer_bytes)) for nest in nests),
            self._bytes(sum(stage.apart_words for stage in stages), self.widths.output_bits),
            nests,
        )

    @staticmethod
    def _bytes(words: int, bits: int) -> int:
        return -(-words * bits // 8)


def _input_words(stages: Sequence[Stage]) -> int:
    """Words of a run's input that its last outputs need."""
    rows = needed(tuple(stage.rows for stage in stages))
    return stages[0].batch * stages[0].in_channels * rows * needed(tuple(stage.columns for stage in stages))


def _pooled_macs(stage: Stage, pool: Stage | None, tile: Sequence[int]) -> int:
    """MACs of a contraction whose tiles make what they pool, overlaps each for itself."""
    if pool is None or stage.nest is None:
        return stage.macs
    rows, columns = (
        levels([window, over], np.array([size]))
        for window, over, size in ((stage.rows, pool.rows, tile[0]), (stage.columns, pool.columns, tile[1]))
    )
    made = int(rows.all_windows[1, 0] * columns.all_windows[1, 0])
    return stage.batch * made * stage.weights


def _subset_sums(weights: tuple[int, ...]) -> Integers:
    """All sums of some of the weights, ascending; of more than 12 the sums of the smallest ones."""
    if len(weights) > 12:
        return np.concatenate([[0], np.cumsum(sorted(weights))])
    sums = np.zeros(1, dtype=np.int64)
    for words in weights:
        sums = np.unique(np.concatenate([sums, sums + words]))
    return sums
