"""Two kinds of networks side by side: parameters and FLOPs of their convolutions and fully connected layers."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from costmodel.book.exercises.words import listed, times
from costmodel.book.model import Paragraph, Section, Table
from costmodel.book.study import CONV, FC, Study
from costmodel.units import percent, si


def comparison(first: Study, others: Sequence[Study]) -> Section:
    """The parameters and FLOPs of `first` against those of `others`."""
    heaviest = max(others, key=lambda study: study.costs().total.flops)
    parameters = heaviest.costs().parameters / first.costs().parameters
    flops = heaviest.costs().total.flops / first.costs().total.flops
    more = heaviest.costs().total.flops - first.costs().total.flops
    convolutional = heaviest.parts()[CONV].flops - first.parts()[CONV].flops
    answer = (
        f"{heaviest.short} has {times(parameters)} the parameters of {first.short} "
        f"({si(heaviest.costs().parameters)} against {si(first.costs().parameters)}) and {times(flops)} its FLOPs "
        f"({si(heaviest.costs().total.flops, 'FLOP')} against {si(first.costs().total.flops, 'FLOP')} an image)."
    )
    return Section(
        f"How do {listed([study.short for study in (first, *others)])} compare in parameters and FLOPs?",
        (
            Table(
                f"{first.slug}-comparison",
                title=f"{first.title} and others, one image",
                frame=_frame((first, *others)),
                note=f"The last two columns are multiples of {first.title}.",
                labels=_LABELS,
            ),
            Paragraph(
                f"Of the {si(more, 'FLOP')} between {first.short} and {heaviest.short}, the convolutions make "
                f"{percent(convolutional / more)}. {_per_parameter(first)}, {_per_parameter(heaviest)}."
            ),
        ),
        answer=answer,
        anchor="comparison",
    )


_LABELS = {
    "conv_parameters": "conv parameters",
    "fc_parameters": "FC parameters",
    "conv_flops": "conv FLOPs",
    "fc_flops": "FC FLOPs",
    "other_flops": "other FLOPs",
    "parameters_ratio": "parameters, ×",
    "flops_ratio": "FLOPs, ×",
}


def _per_parameter(study: Study) -> str:
    costs = study.costs()
    return f"{study.short} does {costs.total.flops / costs.parameters:.3g} FLOPs a parameter"


def _frame(studies: Sequence[Study]) -> pd.DataFrame:
    base = studies[0].costs()
    rows = []
    for study in studies:
        costs, parts = study.costs(), study.parts()
        rows.append(
            {
                "network": study.title,
                "conv_parameters": parts[CONV].parameters,
                "fc_parameters": parts[FC].parameters,
                "parameters": costs.parameters,
                "conv_flops": parts[CONV].flops,
                "fc_flops": parts[FC].flops,
                "other_flops": costs.total.flops - parts[CONV].flops - parts[FC].flops,
                "flops": costs.total.flops,
                "parameters_ratio": costs.parameters / base.parameters,
                "flops_ratio": costs.total.flops / base.total.flops,
            }
        )
    return pd.DataFrame(rows)
