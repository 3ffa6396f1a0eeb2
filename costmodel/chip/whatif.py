"""What-ifs: changes to a network or its numbers (`costmodel.chip.changes`), each on the same axes.

All but the batch and Winograd change the network's accuracy; that is not computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from costmodel.chip import changes
from costmodel.chip.accelerator import Accelerator
from costmodel.chip.accelerator import accelerator as find_accelerator
from costmodel.chip.changes import WhatIf
from costmodel.chip.evaluation import area_of, contractions, energy_of
from costmodel.chip.nests import Nests
from costmodel.chip.technology import TYPE_BITS
from costmodel.cost import Costs, count
from costmodel.errors import InputError
from costmodel.graph import Trace
from costmodel.units import seconds
from costmodel.view import Table

if TYPE_CHECKING:
    import pandas as pd


class WhatIfOutcome(NamedTuple):
    """A network on a chip after a change, by the frame."""

    change: str
    overlapped_seconds: float
    serial_seconds: float
    macs: float
    dram_bytes: float
    joules: float | None
    """None where the technology has no number for it."""

    area_mm2: float | None
    """Of the chip; None where the technology has no number for it."""

    speedup: float
    """Overlapped time before divided by that after."""

    does_nothing: str
    """When the change does nothing, or harm."""


@dataclass(frozen=True, repr=False)
class WhatIfs:
    """Outcomes side by side; the first is the network as it is."""

    model: str
    accelerator: Accelerator
    outcomes: tuple[WhatIfOutcome, ...]

    def __getitem__(self, change: str) -> WhatIfOutcome:
        """An outcome by its change. Raises KeyError for another."""
        return {outcome.change: outcome for outcome in self.outcomes}[change]

    def table(self) -> Table:
        """One row a change: a frame's times, traffic and energy after it, and the chip's area where there is one."""
        names = [n for n in _COLUMNS if n != "area_mm2" or any(each.area_mm2 is not None for each in self.outcomes)]
        rows = [[_whole(name, getattr(each, name)) for name in names] for each in self.outcomes]
        first = self.outcomes[0].overlapped_seconds
        title = f"{self.model} on {self.accelerator.title}, {seconds(first)} a frame: what if"
        return Table.of(names, rows, title=title)

    def to_frame(self) -> pd.DataFrame:
        """The table as a data frame."""
        return self.table().to_frame()

    def __repr__(self) -> str:
        best = max(self.outcomes, key=lambda outcome: outcome.speedup)
        return f"<What-ifs of {self.model} on {self.accelerator.title}: {best.change} helps most>"

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


_COLUMNS = (
    "change", "speedup", "overlapped_seconds", "serial_seconds", "macs", "dram_bytes", "joules", "area_mm2",
    "does_nothing",
)  # fmt: skip


def _whole(name: str, value: Any) -> Any:
    """A frame's counts, which a batch's division leaves as fractions, to the nearest."""
    return round(value) if name in ("macs", "dram_bytes") else value


def what_ifs(
    network: Trace | Costs | Nests,
    accelerator: Accelerator | str,
    *,
    batch: int = 16,
    operands: Sequence[str] = ("int16", "bf16", "int8"),
    rank: int = 256,
    density: float = 0.1,
    extra: Sequence[tuple[str, Trace | Costs | Nests, str]] = (),
) -> WhatIfs:
    """What each change makes of a network's forward pass on a chip.

    Args:
        network: a trace, its costs, or loop nests, from which neither fusing nor pooling can be derived.
        accelerator: what runs it, or its name.
        batch: how many times as many samples.
        operands: types to try in place of the chip's.
        rank: of the factored FC layers.
        density: the share of weights that pruned FC layers keep.
        extra: further networks to put beside it, as this one for images of another size: a name, the network, and when
            the change does nothing.

    A change that no layer allows is left out. Raises InputError where `evaluate` does.
    """
    chip = find_accelerator(accelerator)
    if any(type(number) is not int or number < 1 for number in (batch, rank)) or not 0 < density <= 1:
        raise InputError("what-ifs take a batch and a rank of at least 1, and a density above 0 and up to 1.")
    for operand in operands:
        if operand not in TYPE_BITS:
            raise InputError(f"unknown type {operand!r}: use {', '.join(TYPE_BITS)}.")
    counted = count(network) if isinstance(network, Trace) else network
    nests, _, images = contractions(counted, chip)
    first = changes.as_it_is(counted, chip)
    runs = (
        *changes.batches(first, nests, batch),
        *changes.types(counted, chip, operands),
        *(changes.fused(counted, chip, images) if isinstance(counted, Costs) else ()),
        *changes.fc_layers(first, nests, rank, density),
        *(changes.pooled(first, counted, nests) if isinstance(counted, Costs) else ()),
        *changes.convolutions(first, nests),
        *(changes.as_it_is(count(other) if isinstance(other, Trace) else other, chip, name, why)
          for name, other, why in extra),
    )  # fmt: skip
    before = _outcome(first, None)
    return WhatIfs(nests.model, chip, (before, *(_outcome(run, before) for run in runs)))


def _outcome(run: WhatIf, first: WhatIfOutcome | None) -> WhatIfOutcome:
    chip, layers = run.chip, run.layers
    dram_seconds = [layer.dram_bytes / chip.dram_bandwidth for layer in layers]
    overlapped = sum(max(layer.array_seconds, dram) for layer, dram in zip(layers, dram_seconds, strict=True))
    serial = sum(layer.array_seconds for layer in layers) + sum(dram_seconds) + run.unfused_bytes / chip.dram_bandwidth
    joules, area = _joules(run), _area_mm2(chip)
    return WhatIfOutcome(
        run.change,
        overlapped / run.images,
        serial / run.images,
        sum(layer.macs for layer in layers) / run.images,
        sum(layer.dram_bytes for layer in layers) / run.images,
        None if joules is None else joules / run.images,
        area,
        first.overlapped_seconds * run.images / overlapped if first else 1.0,
        run.does_nothing,
    )


def _joules(run: WhatIf) -> float | None:
    """Of the whole run; None where the technology has no number for the type: `evaluate` says which."""
    if not run.chip.technology:
        return None
    technology = run.chip.find_technology()
    try:
        spent = energy_of(run.chip, technology)
    except InputError:
        return None
    macs, moved, dram, additions = (
        sum(getattr(layer, name) for layer in run.layers)
        for name in ("macs", "buffer_bytes", "dram_bytes", "additions")
    )
    return spent(macs, moved, dram).total + additions * technology.energy[f"{run.chip.accumulator}_add"].value


def _area_mm2(chip: Accelerator) -> float | None:
    """None where the technology has no number for a part."""
    try:
        area = area_of(chip, chip.find_technology() if chip.technology else None)
    except InputError:
        return None
    return area.total if area else None
