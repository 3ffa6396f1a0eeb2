"""Network x buffer -> DRAM traffic: layer by layer, at chosen sizes of the on-chip buffer and at all of them.

Layers run one after another; each has the whole buffer, finds its inputs and weights in DRAM and leaves its outputs
there. So a bound holds for contractions one by one: what stays on the chip between layers is `fusion`'s matter, and a
weight that runs again (a recurrent layer's steps, a shared module) comes again. Only contractions are counted: what
pooling or an addition moves between DRAM and chip is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from costmodel.chip.bounds import bound_bytes, compulsory_bytes
from costmodel.chip.lowering import lower
from costmodel.chip.nests import Nests
from costmodel.chip.schedules import Tile
from costmodel.chip.shapes import curve_of
from costmodel.chip.tiling import Curve, Integers
from costmodel.chip.widths import WORD_BITS, Widths, whole
from costmodel.cost import Costs
from costmodel.errors import InputError
from costmodel.graph import Trace
from costmodel.units import iec
from costmodel.view import Table, column, sentence

if TYPE_CHECKING:
    import pandas as pd

CONVENTION = (
    "least DRAM traffic of each contraction by itself: five schedules, every tile size, all operands from DRAM each "
    "time that it runs"
)
"""What the traffic is, in one line for tables and plots."""


class LayerTraffic(NamedTuple):
    """One contraction behind one buffer."""

    layer: str
    operator: str
    kind: str
    phase: str
    buffer_bytes: int
    dram_bytes: int
    """The least that one of the five schedules moves, with whichever tile."""

    bound_bytes: int
    """The least that any schedule of this contraction by itself moves."""

    compulsory_bytes: int
    """Each touched input, weight and output once."""

    schedule: str
    tile: Tile
    footprint_bytes: int
    """Bytes of the buffer that the tiles fill."""

    input_bytes: int
    weight_bytes: int
    output_bytes: int
    partial_bytes: int
    """Partial sums that go to DRAM and come back."""


class TotalTraffic(NamedTuple):
    """All contractions behind one buffer."""

    buffer_bytes: int
    dram_bytes: int
    bound_bytes: int
    """The sum of the contractions' bounds: schedules that keep data from one to the next can move less."""

    compulsory_bytes: int


@dataclass(frozen=True, repr=False)
class Curves:
    """The least DRAM traffic of a network's contractions, each behind a buffer of any size."""

    nests: Nests
    curves: tuple[Curve, ...]
    """One for each nest; nests of the same shape share it."""

    widths: Widths
    double_buffer: bool

    @cached_property
    def smallest_buffer_bytes(self) -> int:
        """The smallest buffer that holds a tile of every layer."""
        return max(curve.smallest_buffer_bytes for curve in self.curves)

    @cached_property
    def sufficient_buffer_bytes(self) -> int:
        """The smallest buffer behind which all traffic is compulsory."""
        return max(curve.sufficient_buffer_bytes for curve in self.curves)

    @cached_property
    def steps(self) -> tuple[Integers, Integers]:
        """Every buffer at which the network's traffic falls, and the traffic from there on, in bytes."""
        buffers = np.unique(np.concatenate([curve.footprint_bytes for curve in self.curves]))
        buffers = buffers[buffers >= self.smallest_buffer_bytes]
        traffic = self.dram_bytes(buffers)
        falls = np.diff(traffic, prepend=traffic[0] + 1) < 0
        return buffers[falls], traffic[falls]

    def knee(self, share: float = 0.1) -> tuple[int, int]:
        """The smallest buffer from which on no doubling saves more than `share` of the traffic, and the traffic there.

        The last buffer never pays: traffic is compulsory behind it.
        """
        buffers, _ = self.steps
        halves = -(-buffers // 2)
        places = np.unique(np.concatenate([buffers, halves[halves >= buffers[0]]]))  # where a saving can change
        here = self.dram_bytes(places)
        pays = np.flatnonzero(self.dram_bytes(2 * places) < (1 - share) * here)
        index = int(pays[-1]) + 1 if len(pays) else 0
        return int(places[index]), int(here[index])

    def dram_bytes(self, buffer_bytes: Any) -> Any:
        """The least traffic of all layers behind a buffer, or behind each buffer of an array.

        Raises InputError if a layer has no tile that fits, with the smallest buffer for all of them.
        """
        smallest = int(np.min(buffer_bytes)) if np.size(buffer_bytes) else self.smallest_buffer_bytes
        if smallest < self.smallest_buffer_bytes:
            hungriest = max(self.curves, key=lambda curve: curve.smallest_buffer_bytes)
            raise InputError(
                f"a buffer of {smallest} bytes is too small: layer {hungriest.nest.layer or '(network)'!r} needs "
                f"at least {self.smallest_buffer_bytes} bytes for its smallest tiles."
            )
        return self._sum(lambda curve: curve.dram_bytes(buffer_bytes))

    def bound_bytes(self, buffer_bytes: Any) -> Any:
        """The sum of the layers' bounds behind a buffer, or behind each buffer of an array."""
        return self._sum(lambda curve: bound_bytes(curve.nest, buffer_bytes, self.widths))

    @cached_property
    def compulsory_bytes(self) -> int:
        """Each layer's touched inputs, weights and outputs once."""
        return sum(compulsory_bytes(curve.nest, self.widths) for curve in self.curves)

    def only(self, *kinds: str) -> Curves:
        """Those of some kinds of layers. Raises InputError if there are none."""
        kept = self.nests.only(*kinds)
        curves = tuple(curve for curve in self.curves if curve.nest.kind in kinds)
        return replace(self, nests=kept, curves=curves)

    def at(self, buffer_bytes: int | Sequence[int]) -> Traffic:
        """The traffic behind one buffer or several."""
        given = [buffer_bytes] if isinstance(buffer_bytes, str) or not np.iterable(buffer_bytes) else buffer_bytes
        buffers = tuple(whole(size, "a buffer's size", "bytes") for size in given)
        if not buffers:
            raise InputError("no size of a buffer is given: name one in bytes, 32768 for example.")
        self.dram_bytes(min(buffers))  # refuses a buffer that is too small for any layer
        return Traffic(self, tuple(dict.fromkeys(buffers)))

    def table(self) -> Table:
        """Every step of every layer's staircase: from which buffer on, traffic in bytes, schedule and tile."""
        steps = [curve.table() for curve in self.curves]
        rows = [row for each in steps for row in each.rows()]
        title = f"{self.nests.model}: DRAM traffic behind a buffer of any size"
        return Table(steps[0].columns, tuple(zip(*rows, strict=True)), title=title, notes=(sentence(CONVENTION),))

    def to_frame(self) -> pd.DataFrame:
        """The table as a data frame."""
        return self.table().to_frame()

    def __repr__(self) -> str:
        return f"<Curves of {self.nests.model}: {len(self.curves)} contractions>"

    def _repr_html_(self) -> str:
        """The ends of each layer's staircase, for a notebook."""
        columns = ("layer", "kind", "steps", "smallest_buffer_bytes", "most_dram_bytes", "sufficient_buffer_bytes",
                   "compulsory_bytes")  # fmt: skip
        rows = [
            (
                curve.nest.layer, curve.nest.kind, len(curve), curve.smallest_buffer_bytes,
                int(curve.traffic_bytes[0]), curve.sufficient_buffer_bytes, int(curve.traffic_bytes[-1]),
            )
            for curve in self.curves
        ]  # fmt: skip
        smallest, enough = self.smallest_buffer_bytes, self.sufficient_buffer_bytes
        last = ("all", "", len(self.steps[0]), smallest, self.dram_bytes(smallest), enough, self.compulsory_bytes)
        total = dict(zip(columns, last, strict=True))
        return Table.of(
            columns, rows, title=self.table().title, notes=(sentence(CONVENTION),), total=total
        )._repr_html_()

    @property
    def in_words(self) -> str:
        """The widths, what a buffer holds and how tiles are written, for the notes of a table."""
        widths = self.widths
        words = f"{widths.input_bits}-bit words, partial sums of {widths.partial_bits} bits"
        held = "streaming tiles held twice" if self.double_buffer else "one tile of each operand"
        return f"{words}, {held}: images x output channels x input channels x rows x columns"

    def _sum(self, of: Callable[[Curve], Any]) -> Any:
        total = sum(of(curve) for curve in self.curves)
        return total if np.ndim(total) else int(total)


@dataclass(frozen=True, repr=False)
class Traffic:
    """The least DRAM traffic of a network behind some buffers."""

    curves: Curves
    buffers: tuple[int, ...]

    @cached_property
    def rows(self) -> tuple[LayerTraffic, ...]:
        """One row a contraction and buffer, buffer by buffer, in the order of execution."""
        return tuple(self._row(curve, buffer) for buffer in self.buffers for curve in self.curves.curves)

    @cached_property
    def totals(self) -> tuple[TotalTraffic, ...]:
        """The sums over all contractions, a buffer each."""
        return tuple(
            TotalTraffic(
                buffer,
                *(
                    sum(getattr(row, name) for row in self.rows if row.buffer_bytes == buffer)
                    for name in TotalTraffic._fields[1:]
                ),
            )
            for buffer in self.buffers
        )

    @property
    def model(self) -> str:
        """The network's name."""
        return self.curves.nests.model

    def table(self) -> Table:
        """One row a contraction and buffer: its DRAM traffic, bounds, schedule and tile, and the traffic by operand."""
        ranked = dict.fromkeys(("operator", "phase", "footprint_bytes"), 9)
        columns = [column(name, rank=ranked[name]) if name in ranked else column(name) for name in LayerTraffic._fields]
        rows = [row._replace(tile=tuple(row.tile)) for row in self.rows]  # type: ignore[arg-type]
        sums = [
            f"Behind {iec(total.buffer_bytes)}: {iec(total.dram_bytes)} of DRAM traffic; no schedule of contractions "
            f"one by one moves less than {iec(total.bound_bytes)}."
            for total in self.totals
        ]
        notes = (sentence(f"{CONVENTION}; {self.curves.in_words}"), *sums)
        warnings = tuple(lost.note for lost in self.unlowered)
        table = Table.of(columns, rows, title=f"{self.model}: DRAM traffic", notes=notes, warnings=warnings)
        return table.summed() if len(self.totals) == 1 else table

    def to_frame(self) -> pd.DataFrame:
        """The table as a data frame."""
        return self.table().to_frame()

    def __repr__(self) -> str:
        totals = ", ".join(f"{iec(total.dram_bytes)} behind {iec(total.buffer_bytes)}" for total in self.totals)
        return f"<Traffic of {self.model}: {totals}>"

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    @property
    def unlowered(self) -> tuple[Any, ...]:
        """The contractions that are not counted."""
        return self.curves.nests.unlowered

    def _row(self, curve: Curve, buffer: int) -> LayerTraffic:
        nest, widths, best = curve.nest, self.curves.widths, curve.at(buffer)
        return LayerTraffic(
            nest.layer, nest.operator, nest.kind, nest.phase, buffer, best.dram_bytes,
            bound_bytes(nest, buffer, widths), compulsory_bytes(nest, widths), best.schedule, best.tile,
            best.footprint_bytes, best.input_bytes, best.weight_bytes, best.output_bytes, best.partial_bytes,
        )  # fmt: skip


def traffic_curves(
    network: Trace | Costs | Nests,
    *,
    word_bits: int = WORD_BITS,
    partial_bits: int | None = None,
    double_buffer: bool = False,
    widths: Widths | None = None,
) -> Curves:
    """The least DRAM traffic of a network's contractions behind on-chip buffers of every size at once.

    Args:
        network: a trace, its costs, or nests.
        word_bits: width of inputs, weights and outputs.
        partial_bits: width of a partial sum; that of a word if None.
        double_buffer: whether tiles that change in every step are held twice, so that loading overlaps computing.
        widths: a width for each operand, instead of the two above.

    Raises InputError for a network without contractions and for an invalid width.
    """
    nests = network if isinstance(network, Nests) else lower(network)
    used = widths or Widths.of(word_bits, partial_bits)
    return Curves(nests, tuple(curve_of(nest, used, double_buffer) for nest in nests), used, double_buffer)


def traffic(
    network: Trace | Costs | Nests,
    buffer_bytes: int | Sequence[int],
    *,
    word_bits: int = WORD_BITS,
    partial_bits: int | None = None,
    double_buffer: bool = False,
) -> Traffic:
    """The least DRAM traffic of each contraction of a network behind an on-chip buffer, or several, with its bounds.

    The options are those of `traffic_curves`. Raises InputError for a network without contractions, for a width that is
    none, and for a buffer too small for any tile, with the smallest that works.
    """
    curves = traffic_curves(network, word_bits=word_bits, partial_bits=partial_bits, double_buffer=double_buffer)
    return curves.at(buffer_bytes)
