"""Networks of blocks: where a summary hides their layers, and how VGG-16 and VGG-19 are built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from costmodel.book.exercises.words import BATCH, counted, listed
from costmodel.book.model import Formula, Paragraph, Section, Table, plain
from costmodel.book.study import Study
from costmodel.devices import Device
from costmodel.formulas import Weighted
from costmodel.graph import Module
from costmodel.units import percent, si


class BlockRow(NamedTuple):
    """A line of a summary that looks at a network's top level only."""

    module: Module
    inside: tuple[Weighted, ...]
    """The convolutions and fully connected layers in it."""


def summary(study: Study) -> list[BlockRow]:
    """The lines of a summary one level deep: the children of the outermost module that has more than one."""
    modules, path = study.trace().modules, ""
    while True:
        children = [module for module in modules if module.path and module.path.rpartition(".")[0] == path]
        if len(children) != 1:
            break
        path = children[0].path
    return [
        BlockRow(
            child,
            tuple(
                x for x in study.weighted() if x.layer.name == child.path or x.layer.name.startswith(f"{child.path}.")
            ),
        )
        for child in children
    ]


def hides_layers(study: Study) -> bool:
    """Whether a summary one level deep shows some weighted layers and hides others in blocks."""
    rows = summary(study)
    return any(len(row.inside) > 1 for row in rows) and any(row.module.leaf and row.inside for row in rows)


def hidden_layers(study: Study) -> Section:
    """Where the layers went that a summary does not show."""
    rows = [row for row in summary(study) if row.inside]
    blocks = [row for row in rows if not row.module.leaf]
    inside = [layer for row in blocks for layer in row.inside]
    total = sum(len(row.inside) for row in rows)
    answer = (
        f"Into the blocks. {study.short} has {total} layers with weights; a summary of its top level shows "
        f"{len(rows)} rows with weights, {counted(len(blocks), 'block')} and "
        f"{counted(len(rows) - len(blocks), 'layer')}, because a block is one row whatever it holds. The "
        f"{counted(len(blocks), 'block')} hold {counted(len(inside), 'layer')}, so {len(inside)} − {len(blocks)} = "
        f"{len(inside) - len(blocks)} are not seen."
    )
    return Section(
        f"Where did {study.short}'s layers go when its summary shows only {len(rows)} rows?",
        (
            Table(
                f"{study.slug}-rows",
                title=f"{study.title}: what each row of the summary holds",
                frame=_rows_frame(rows),
                note="Rows without weights (flatten, ReLU, dropout) are left out.",
                labels={"layers_inside": "layers with weights", "what": "what they are"},
            ),
            Paragraph("One level deeper they are all there. Inside the blocks stand, with their outputs:"),
            Formula(tuple(f"{plain(x.layer.name):<10} {x.short:<24} {x.image}" for x in inside)),
        ),
        answer=answer,
        anchor="hidden-layers",
    )


def _rows_frame(rows: Sequence[BlockRow]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "row": row.module.path,
                "type": row.module.type,
                "output_shape": row.module.output_shape,
                "layers_inside": len(row.inside),
                "what": "; ".join(x.short for x in row.inside),
                "parameters": sum(x.layer.parameters for x in row.inside),
            }
            for row in rows
        ]
    )


def stages(study: Study) -> list[tuple[int, int]]:
    """The convolutions and filters of each stage, a stage being what ends with a pool: the book's `arch` of a VGG."""
    found, current = [], []
    for layer in study.costs().layers:
        if layer.kind == "conv" and layer.output_shape:
            current.append(layer.output_shape[1])
        elif layer.kind == "pool" and current:
            found.append((len(current), current[-1]))
            current = []
    return found


def deeper(studies: Sequence[Study], device: Device) -> Section:
    """How the deeper networks of a family are built from its table, and what they cost."""
    shallow, deep = studies[0], studies[-1]
    own, more = shallow.costs(), deep.costs()
    are, they_do = ("are", "do they") if len(studies) > 2 else ("is", "does it")
    convolutions = [sum(number for number, _ in stages(study)) for study in (shallow, deep)]
    answer = (
        f"From one pair (convolutions, filters) a block. {deep.short} has {convolutions[1]} convolutions in "
        f"{len(stages(deep))} blocks where {shallow.short} has {convolutions[0]} in {len(stages(shallow))}. The "
        f"{convolutions[1] - convolutions[0]} more cost {si(more.parameters - own.parameters)} parameters "
        f"({percent(more.parameters / own.parameters - 1)} more) and "
        f"{si(more.total.flops - own.total.flops, 'FLOP')} an image "
        f"({percent(more.total.flops / own.total.flops - 1)} more)."
    )
    return Section(
        f"How {are} {listed([study.short for study in studies[1:]])} built, and what {they_do} cost?",
        (
            Formula(tuple(f"{s.short:<8} vgg(({', '.join(map(str, stages(s)))}))" for s in studies)),
            Table(
                f"{deep.slug}-family",
                title="What depth costs, one image",
                frame=_family_frame(studies, device),
                note=f"Bounds on the {device.title}; training is the peak of a step with SGD, momentum and weight "
                "decay.",
                labels=_LABELS,
            ),
        ),
        answer=answer,
        anchor="depth",
    )


_LABELS = {
    "weighted_layers": "layers with weights",
    f"training_peak_bytes_batch_{BATCH}": f"training, batch\u00a0{BATCH}",
}


def _family_frame(studies: Sequence[Study], device: Device) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "network": study.title,
                "convolutions": sum(n for n, _ in stages(study)),
                "weighted_layers": len(study.weighted()),
                "parameters": study.costs().parameters,
                "macs": study.costs().total.macs,
                "flops": study.costs().total.flops,
                "bound_seconds_batch_1": study.prediction(device).bound_seconds,
                f"bound_seconds_batch_{BATCH}": study.prediction(device, BATCH).bound_seconds,
                f"training_peak_bytes_batch_{BATCH}": study.memory(BATCH, train=True).peak_bytes,
            }
            for study in studies
        ]
    )
