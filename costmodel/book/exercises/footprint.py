"""The memory of a network's convolutions and fully connected layers: parameters, outputs, and a training step."""

from __future__ import annotations

import math

import pandas as pd

from costmodel.book.exercises.words import BATCH, counted, largest, place, times
from costmodel.book.model import Block, Formula, Paragraph, Section, Table, plain
from costmodel.book.study import CONV, FC, PARTS, Study
from costmodel.graph import ROLES
from costmodel.memory import MemoryTimeline
from costmodel.units import iec, percent

_STATE = ("parameter", "gradient", "optimizer state")


def footprint(study: Study) -> Section:
    """How much memory the convolutions and fully connected layers take, and which of them dominates."""
    parts = study.parts()
    parameters = sum(part.parameter_bytes for part in parts.values())
    outputs = sum(part.output_bytes for part in parts.values())
    holder = max(PARTS, key=lambda name: parts[name].parameter_bytes)
    answer = (
        f"The {holder} hold {percent(parts[holder].parameter_bytes / parameters)} of the parameters "
        f"({iec(parts[holder].parameter_bytes)} of {iec(parameters)}). The outputs of one image are "
        f"{iec(outputs)}: {iec(parts[CONV].output_bytes)} of convolutions, {iec(parts[FC].output_bytes)} of fully "
        f"connected layers. {_crossing(parameters, outputs)}"
    )
    blocks: list[Block] = [
        Paragraph(
            "A layer's parameters do not depend on the batch, its outputs grow with it. The largest layer of each "
            "sort, "
            "in 4-byte numbers:"
            if study.trace().dtype == "float32"
            else "The largest layer of each sort:"
        ),
        Formula(tuple(_footprint_lines(study))),
        Table(
            f"{study.slug}-footprint",
            title=f"{study.title}: memory of its parts, one image",
            frame=_parts_frame(study),
            note="Outputs are what a forward pass writes: one copy for a convolution and another for the ReLU behind "
            "it, which counts as everything else. They are not all alive at once; the next table says what is.",
            labels={
                "parameter_bytes": "in memory",
                "parameters_share": "share",
                "output_bytes": "outputs",
                "output_share": "share",
            },
            total=True,
        ),
        *_training(study),
    ]
    return Section(
        f"How much memory do {study.short}'s convolutions and fully connected layers take?",
        tuple(blocks),
        answer=answer,
        anchor="memory-footprint",
    )


def _crossing(parameters: int, outputs: int) -> str:
    """From which batch on the outputs are larger than the parameters."""
    if outputs >= parameters:
        return "They outweigh the parameters at any batch."
    return (
        f"The parameters are {times(parameters / outputs)} that and dominate a small batch; the outputs dominate from "
        f"{math.floor(parameters / outputs) + 1:,} images on."
    )


def _footprint_lines(study: Study) -> list[str]:
    lines = []
    for entry in largest(study.weighted(), key=lambda entry: entry.layer.parameter_bytes):
        shape = entry.layer.output_shape or ()
        lines += [
            f"{plain(entry.layer.name)}, {entry.short}",
            f"    parameters  {entry.parameter_formula} = {entry.layer.parameters:,}  →  "
            f"{iec(entry.layer.parameter_bytes)}",
            f"    outputs     {_product(shape[1:])}  →  {iec(entry.layer.cost.write_bytes)} an image",
        ]
    return lines


def _product(sizes: tuple[int, ...]) -> str:
    """ "256·26·26 = 173,056", and a single size as it is."""
    return f"{'·'.join(map(str, sizes))} = {math.prod(sizes):,}" if len(sizes) > 1 else f"{math.prod(sizes):,}"


def _parts_frame(study: Study) -> pd.DataFrame:
    shown = {"parameter_bytes": "parameters_share", "output_bytes": "output_share"}
    rows = [
        {"part": name, "parameters": part.parameters}
        | {
            key: value
            for quantity, share in shown.items()
            for key, value in ((quantity, getattr(part, quantity)), (share, study.share(quantity, name)))
        }
        for name, part in study.parts().items()
    ]
    frame = pd.DataFrame(rows)
    total = {"part": "total", **frame.drop(columns="part").sum()}
    return pd.concat([frame, pd.DataFrame([total]).astype(frame.dtypes)], ignore_index=True)


def _training(study: Study) -> list[Block]:
    """Peaks of inference and of a training step, by what holds them."""
    cases = [(batch, train) for train in (False, True) for batch in (1, BATCH)]
    memories = {case: study.memory(*case) for case in cases}
    roles = [role for role in ROLES if any(memory.by_role.get(role) for memory in memories.values())]
    frame = pd.DataFrame(
        [
            {"run": "training step" if train else "inference", "batch": batch, "peak_bytes": memory.peak_bytes}
            | {f"{role}_bytes": memory.by_role.get(role, 0) for role in roles}
            | {"peak_in": place(memory.peak_operation)}
            for (batch, train), memory in memories.items()
        ]
    )
    shares = [
        f"{percent(sum(memory.by_role.get(role, 0) for role in _STATE) / memory.peak_bytes)} of the peak with "
        f"{counted(batch, 'image')}, {_most_of_the_rest(memory)}"
        for batch, memory in ((batch, memories[batch, True]) for batch in (1, BATCH))
    ]
    return [
        Table(
            f"{study.slug}-peaks",
            title=f"{study.title}: memory at its peak, by what holds it",
            frame=frame,
            note="Requested bytes in the steady state; the step is loss, backward, and SGD with momentum and weight "
            "decay. Activations are what the forward leaves for the backward, or in inference for the next layer.",
            labels={"peak_bytes": "peak", "peak_in": "peak in the"} | {f"{role}_bytes": role for role in roles},
        ),
        Paragraph(f"In training, parameters, gradients and momentum are {'; and '.join(shares)}."),
    ]


def _most_of_the_rest(memory: MemoryTimeline) -> str:
    """The phase of the peak, and who holds most of what is not the training's state."""
    rest = {role: nbytes for role, nbytes in memory.by_role.items() if role not in _STATE}
    role = max(rest, key=lambda role: rest[role])
    share = percent(rest[role] / memory.peak_bytes)
    return f"in the {memory.peak_operation.phase} (next come {_PLURALS.get(role, role)}, {share})"


_PLURALS = {"activation": "activations", "temporary": "temporaries", "buffer": "buffers", "input": "inputs"}
