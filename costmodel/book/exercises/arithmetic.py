"""The arithmetic of a network's convolutions and fully connected layers, and how often each weight is used."""

from __future__ import annotations

import pandas as pd

from costmodel.book.exercises.words import largest
from costmodel.book.model import Formula, Paragraph, Section, Table, code, plain
from costmodel.book.study import CONV, FC, REST, Study
from costmodel.units import percent, si


def arithmetic(study: Study) -> Section:
    """How much the convolutions and the fully connected layers compute."""
    parts, total = study.parts(), study.costs().total
    answer = (
        f"One image takes {si(total.flops, 'FLOP')} ({si(total.macs, 'MAC')}): "
        f"{percent(parts[CONV].flops / total.flops)} in the convolutions, "
        f"{percent(parts[FC].flops / total.flops)} in the fully connected layers, "
        f"{percent(parts[REST].flops / total.flops, 2)} in everything else."
    )
    return Section(
        f"How much do {study.short}'s convolutions and fully connected layers compute?",
        (
            Paragraph(
                "A convolution with K filters of F×F over C channels makes each of its P·Q output pixels from F²·C "
                "products, so it takes P·Q·F²·C·K MACs. A fully connected layer with I inputs and O outputs takes "
                "I·O. One MAC is two FLOPs; a bias adds one FLOP an output."
            ),
            Formula(tuple(_lines(study))),
            Table(
                f"{study.slug}-arithmetic",
                title=f"{study.title}: arithmetic of one image, layer by layer",
                frame=_frame(study),
                note="MACs per weight: how many multiplications each weight takes part in for one image.",
                labels={
                    "what": "",
                    "macs_per_weight": "MACs per weight",
                    "flops_share": "of FLOPs",
                    "parameters_share": "of parameters",
                },
            ),
            Paragraph(_reuse(study)),
        ),
        answer=answer,
        anchor="arithmetic",
    )


def _lines(study: Study) -> list[str]:
    lines = []
    for entry in largest(study.weighted(), key=lambda entry: entry.layer.cost.macs):
        cost = entry.layer.cost
        lines += [
            f"{plain(entry.layer.name)}, {entry.short}",
            f"    MACs   {entry.mac_formula} = {cost.macs:,}",
            f"    FLOPs  2·{cost.macs:,} + {cost.vector_flops:,} = {cost.flops:,}",
        ]
    return lines


def _frame(study: Study) -> pd.DataFrame:
    costs = study.costs()
    return pd.DataFrame(
        [
            {
                "layer": entry.layer.name,
                "what": entry.short,
                "macs": entry.layer.cost.macs,
                "flops": entry.layer.cost.flops,
                "flops_share": entry.layer.cost.flops / costs.total.flops,
                "parameters": entry.layer.parameters,
                "parameters_share": entry.layer.parameters / costs.parameters,
                "macs_per_weight": entry.reuse,
            }
            for entry in study.weighted()
        ]
    )


def _reuse(study: Study) -> str:
    busiest = max(study.weighted(), key=lambda entry: entry.reuse)
    idlest = min(study.weighted(), key=lambda entry: entry.reuse)
    return (
        f"Parameters and arithmetic part ways because a filter is used at every pixel: each weight of "
        f"{code(busiest.layer.name)} takes part in {busiest.reuse:,.0f} multiplications an image, each weight of "
        f"{code(idlest.layer.name)} in {idlest.reuse:,.0f}."
    )
