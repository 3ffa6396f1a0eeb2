"""How to cut the cost of the fully connected layers: each way as a network that is counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from costmodel import view
from costmodel.book.columns import SPEEDUP, TRAINING_PEAK
from costmodel.book.engine import Chapter
from costmodel.book.model import Table
from costmodel.book.study import BATCH, Study
from costmodel.devices import Device
from costmodel.view import Column

PUBLISHED = "as published"


@dataclass(frozen=True)
class Numbers:
    """The smallest of the first network's cheaper heads against its own."""

    network: str
    head: str
    device: str
    batch: int
    parameters: int
    own_parameters: int
    parameters_saved_share: float
    flops: int
    own_flops: int
    flops_saved_share: float
    speedup_ratio: float
    batch_speedup_ratio: float
    peak_bytes: int
    own_peak_bytes: int
    tables: tuple[tuple[str, str], ...]
    """The name of each network's table, and the network."""


def heads(variants: Mapping[Study, Sequence[Study]], device: Device) -> Chapter:
    """What cheaper heads save: for each network, those that differ from it in their head alone."""
    tables = {f"{study.slug}-heads": _table(study, cuts, device) for study, cuts in variants.items()}
    first, others = next(iter(variants.items()))
    titles = tuple((f"{study.slug}-heads", study.title) for study in variants)
    found = numbers(first, others, device, titles)
    return Chapter("heads", found, {name: Table(name, table) for name, table in tables.items()})


def numbers(study: Study, cuts: Sequence[Study], device: Device, tables: tuple[tuple[str, str], ...] = ()) -> Numbers:
    """What the sentences say of a network and its cheaper heads."""
    smallest = min(cuts, key=lambda cut: cut.costs().parameters)
    own, cut = study.costs(), smallest.costs()
    own_peak, peak = (each.memory(BATCH, train=True).peak_bytes for each in (study, smallest))
    return Numbers(
        network=study.title,
        head=head(study, smallest),
        device=device.title,
        batch=BATCH,
        parameters=cut.parameters,
        own_parameters=own.parameters,
        parameters_saved_share=1 - cut.parameters / own.parameters,
        flops=cut.total.flops,
        own_flops=own.total.flops,
        flops_saved_share=1 - cut.total.flops / own.total.flops,
        speedup_ratio=_speedup(study, smallest, device, 1),
        batch_speedup_ratio=_speedup(study, smallest, device, BATCH),
        peak_bytes=peak,
        own_peak_bytes=own_peak,
        tables=tables,
    )


def head(study: Study, cut: Study) -> str:
    """What distinguishes a network from the one it was made from, by their titles."""
    return PUBLISHED if cut is study else cut.title.removeprefix(study.title).removeprefix(",").strip()


def _speedup(study: Study, cut: Study, device: Device, batch: int) -> float:
    return cut.prediction(device, batch).speedup_over(study.prediction(device, batch))


def _table(study: Study, cuts: Sequence[Study], device: Device) -> view.Table:
    own, own_peak = study.costs(), study.memory(BATCH, train=True).peak_bytes
    rows = []
    for cut in (study, *cuts):
        costs, peak = cut.costs(), cut.memory(BATCH, train=True).peak_bytes
        held = (costs.parameters, 1 - costs.parameters / own.parameters)
        work = (costs.total.flops, 1 - costs.total.flops / own.total.flops)
        for batch in (1, BATCH):
            bound = cut.prediction(device, batch).bound_seconds
            speedup = _speedup(study, cut, device, batch)
            rows.append((head(study, cut), *held, *work, peak, 1 - peak / own_peak, batch, bound, speedup))
    return view.Table.of(_COLUMNS, rows, across="batch")


_COLUMNS = (
    Column("head", "head", "prose", "what makes the scores of the classes"),
    "parameters",
    Column("parameters_saved_share", "saved", "percent", "parameters less than with its own head"),
    "flops",
    Column("flops_saved_share", "saved", "percent", "FLOPs less than with its own head"),
    TRAINING_PEAK,
    Column("training_saved_share", "saved", "percent", "the step's peak less than with its own head"),
    "batch",
    "bound_seconds",
    SPEEDUP,
)
