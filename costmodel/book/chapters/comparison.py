"""The networks compared in parameters and FLOPs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from costmodel import view
from costmodel.book.engine import Chapter
from costmodel.book.model import Table
from costmodel.book.study import CONV, FC, REST, Study, heaviest
from costmodel.view import Column


@dataclass(frozen=True)
class Numbers:
    """The heaviest of the others against the first; numbers of one image."""

    networks: tuple[str, ...]
    first: str
    heaviest: str
    parameters_ratio: float
    flops_ratio: float
    first_parameters: int
    heaviest_parameters: int
    first_flops: int
    heaviest_flops: int
    more_flops: int
    conv_share: float | None
    """The convolutions' part of them; None if there are not more."""

    first_flops_per_parameter: float
    heaviest_flops_per_parameter: float


def comparison(first: Study, others: Sequence[Study]) -> Chapter:
    """The parameters and FLOPs of `first` against those of `others`."""
    studies = (first, *others)
    table = Table(f"{first.slug}-comparison", view.Table.of(_COLUMNS, [_row(study, first) for study in studies]))
    return Chapter("comparison", numbers(first, others), {"comparison": table})


def numbers(first: Study, others: Sequence[Study]) -> Numbers:
    """What the sentences say."""
    most = heaviest(others)
    one, other = first.costs(), most.costs()
    more = other.total.flops - one.total.flops
    convolutional = most.parts()[CONV].flops - first.parts()[CONV].flops
    return Numbers(
        networks=tuple(study.title for study in (first, *others)),
        first=first.title,
        heaviest=most.title,
        parameters_ratio=other.parameters / one.parameters,
        flops_ratio=other.total.flops / one.total.flops,
        first_parameters=one.parameters,
        heaviest_parameters=other.parameters,
        first_flops=one.total.flops,
        heaviest_flops=other.total.flops,
        more_flops=more,
        conv_share=convolutional / more if more > 0 else None,
        first_flops_per_parameter=one.total.flops / one.parameters,
        heaviest_flops_per_parameter=other.total.flops / other.parameters,
    )


_COLUMNS = (
    "network",
    Column("conv_parameters", "conv parameters", "count", "parameters of convolutions"),
    Column("fc_parameters", "FC parameters", "count", "parameters of fully connected layers"),
    "parameters",
    Column("conv_flops", "conv FLOPs", "flops", "FLOPs of convolutions"),
    Column("fc_flops", "FC FLOPs", "flops", "FLOPs of fully connected layers"),
    Column("other_flops", "other FLOPs", "flops", "FLOPs of everything else"),
    "flops",
    Column("parameters_ratio", "parameters, ×", "times", "parameters as a multiple of the first network's"),
    Column("flops_ratio", "FLOPs, ×", "times", "FLOPs as a multiple of the first network's"),
)


def _row(study: Study, first: Study) -> tuple[object, ...]:
    costs, parts, base = study.costs(), study.parts(), first.costs()
    return (
        *(study.title, parts[CONV].parameters, parts[FC].parameters, costs.parameters),
        *(parts[CONV].flops, parts[FC].flops, parts[REST].flops, costs.total.flops),
        *(costs.parameters / base.parameters, costs.total.flops / base.total.flops),
    )
