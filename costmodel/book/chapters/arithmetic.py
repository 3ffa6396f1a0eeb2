"""The arithmetic of a network's convolutions and fully connected layers, and how often each weight is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from costmodel import view
from costmodel.book.engine import Chapter
from costmodel.book.model import Table
from costmodel.book.study import CONV, FC, REST, Study
from costmodel.formulas import Weighted
from costmodel.view import Column


@dataclass(frozen=True)
class Layer:
    """One layer's arithmetic."""

    layer: str
    what: str
    """What people call such a layer."""

    formula: str
    """Its MACs, written out."""

    macs: int
    vector_flops: int
    flops: int


@dataclass(frozen=True)
class Reuse:
    """How many multiplications each weight of a layer takes part in for one image."""

    layer: str
    macs_per_weight: float


@dataclass(frozen=True)
class Numbers:
    """The arithmetic of one image."""

    network: str
    flops: int
    macs: int
    conv_share: float
    fc_share: float
    rest_share: float
    largest: tuple[Layer, ...]
    """The convolution and the fully connected layer with the most MACs."""

    busiest: Reuse
    idlest: Reuse


def arithmetic(study: Study) -> Chapter:
    """How much the convolutions and the fully connected layers compute."""
    table = Table(f"{study.slug}-arithmetic", view.Table.of(_COLUMNS, [_row(study, each) for each in study.weighted()]))
    return Chapter("arithmetic", numbers(study), {"arithmetic": table})


def numbers(study: Study) -> Numbers:
    """What the sentences say of a network."""
    total, weighted = study.costs().total, study.weighted()
    busiest, idlest = (end(weighted, key=lambda entry: entry.reuse) for end in (max, min))
    return Numbers(
        network=study.title,
        flops=total.flops,
        macs=total.macs,
        conv_share=study.share("flops", CONV),
        fc_share=study.share("flops", FC),
        rest_share=study.share("flops", REST),
        largest=tuple(map(_layer, largest(weighted, key=lambda entry: entry.layer.cost.macs))),
        busiest=Reuse(busiest.layer.name, busiest.reuse),
        idlest=Reuse(idlest.layer.name, idlest.reuse),
    )


def _layer(entry: Weighted) -> Layer:
    cost = entry.layer.cost
    return Layer(entry.layer.name, entry.short, entry.mac_formula, cost.macs, cost.vector_flops, cost.flops)


def largest(layers: Iterable[Weighted], key: Callable[[Weighted], float]) -> list[Weighted]:
    """The largest convolution and the largest fully connected layer, where there are such."""
    by_part: dict[str, Weighted] = {}
    for entry in layers:
        if entry.part not in by_part or key(entry) > key(by_part[entry.part]):
            by_part[entry.part] = entry
    return list(by_part.values())


_COLUMNS = (
    "layer",
    Column("what", "what", "text", "what people call such a layer"),
    "macs",
    "flops",
    "flops_share",
    "parameters",
    "parameters_share",
    Column("macs_per_weight", "MACs per weight", "ratio", "multiplications that each weight takes part in"),
)


def _row(study: Study, entry: Weighted) -> tuple[object, ...]:
    costs, layer = study.costs(), entry.layer
    return (
        *(layer.name, entry.short, layer.cost.macs),
        *(layer.cost.flops, layer.cost.flops / costs.total.flops),
        *(layer.parameters, layer.parameters / costs.parameters, entry.reuse),
    )
