"""How big a training step's memory is, when it peaks and who holds it; and the networks beside one another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from costmodel import plots
from costmodel.book.chapters.memory.steps import growth, state_share
from costmodel.book.exercises.words import BATCH, counted, listed, place, times
from costmodel.book.model import Bullets, Figure, Paragraph, Section, Table, code, plain
from costmodel.book.study import Study, heaviest
from costmodel.graph import LOSS_LAYER, OPTIMIZER_LAYER, ROLES
from costmodel.memory import MemoryTimeline
from costmodel.memory.what_ifs import phase_peaks
from costmodel.report.tables import memory_table
from costmodel.units import iec, percent


def overhead_section(study: Study) -> Section:
    """How big the overhead is, when it peaks, and who holds it."""
    one, many = study.memory(1, train=True), study.memory(BATCH, train=True)
    weights = many.by_role["parameter"]
    rows = [
        {"run": f"{batch} images" if batch > 1 else "1 image", "phase": phase, "peak_bytes": peak}
        | {f"{role}_bytes": roles.get(role, 0) for role in ROLES if role in memory.timeline}
        | {"peak_in": place}
        for batch, memory in ((1, one), (BATCH, many))
        for phase, peak, place, roles in _moments(memory)
    ]
    sentences = []
    for batch, memory in ((1, one), (BATCH, many)):
        where = memory.peak_operation
        sentences.append(
            f"With {counted(batch, 'image')} a step holds {iec(memory.peak_bytes)} at its peak, "
            f"{times(memory.peak_bytes / weights)} its parameters ({iec(weights)}): in the {where.phase}, "
            f"{code(where.operator)}{_of(where.layer)}. {_held(memory)}"
        )
    return Section(
        f"{study.short}'s overhead, to the byte",
        (
            Bullets(tuple(sentences)),
            Figure(
                f"memory-{study.slug}",
                title=f"{study.title}: a training step of {BATCH} images, operation by operation",
                draw=lambda: plots.memory(many, title=f"{study.title}: a training step of {BATCH} images"),
                note="The broken line is what PyTorch's caching allocator reserves on a GPU for these tensors.",
            ),
            Table(
                f"{study.slug}-memory-phases",
                title=f"{study.title}: the highest moment of each phase",
                frame=pd.DataFrame(rows),
                labels={"peak_bytes": "peak", "peak_in": "in"} | {f"{role}_bytes": role for role in ROLES},
                note="Forward includes the loss. The peak of the step is the highest of the three.",
            ),
            Table(
                f"{study.slug}-memory-holders",
                title=f"{study.title}: who holds the peak of {BATCH} images",
                frame=memory_table(many, 12),
                note=f"Autograd saves {iec(many.saved_bytes)} in the forward for the backward.",
                folded=True,
            ),
        ),
        answer=(
            f"A training step holds {times(one.peak_bytes / weights)} the parameters with one image and "
            f"{times(many.peak_bytes / weights)} with {BATCH}: parameters, gradients and momentum are "
            f"{percent(state_share(study, 1))} and {percent(state_share(study))} of the peak."
        ),
    )


def _held(memory: MemoryTimeline) -> str:
    """The peak by role, the largest first."""
    roles = sorted(memory.by_role.items(), key=lambda item: -item[1])
    return f"It is {listed([f'{iec(held)} of {_PLURALS.get(role, role)}' for role, held in roles if held])}."


def _of(layer: str) -> str:
    """Of which layer, if it is one."""
    return "" if layer in (LOSS_LAYER, OPTIMIZER_LAYER) else f" of {code(layer or 'the network')}"


_PLURALS = {
    "parameter": "parameters", "buffer": "buffers", "activation": "activations", "gradient": "gradients",
    "optimizer state": "momentum", "temporary": "temporaries",
}  # fmt: skip


def _moments(memory: MemoryTimeline) -> Iterator[tuple[str, int, str, Mapping[str, int]]]:
    """The first highest moment of each phase: the phase, its bytes, its place, its roles."""
    for phase, peak in phase_peaks(memory).items():
        index = next(
            index
            for index, operation in enumerate(memory.trace.operations)
            if operation.phase == phase and memory.live_bytes[index] == peak
        )
        operation = memory.trace.operations[index]
        made = operation.layer not in (LOSS_LAYER, OPTIMIZER_LAYER)
        place = operation.operator.removeprefix("aten.") + (f" of {plain(operation.layer)}" if made else "")
        yield phase, peak, place, {role: live[index] for role, live in memory.timeline.items()}


def comparison_section(studies: Sequence[Study]) -> Section:
    """The networks beside one another."""
    rows: list[dict[str, Any]] = []
    for study in studies:
        memories = {batch: study.memory(batch, train=True) for batch in (1, BATCH)}
        at_any_batch = growth(study, train=True)
        an_image = at_any_batch.peak_bytes(BATCH + 1) - at_any_batch.peak_bytes(BATCH)
        rows.append(
            {"network": study.title, "parameter_bytes": study.costs().parameter_bytes}
            | {f"peak_bytes_batch_{batch}": memory.peak_bytes for batch, memory in memories.items()}
            | {
                "an_image_bytes": an_image,
                f"saved_bytes_batch_{BATCH}": memories[BATCH].saved_bytes,
                f"reserved_bytes_batch_{BATCH}": memories[BATCH].replay.peak_reserved_bytes,
                "peak_in": place(memories[BATCH].peak_operation),
            }
        )
    first, last = rows[0], rows[[study is heaviest(studies) for study in studies].index(True)]
    names = studies[0].short, heaviest(studies).short
    figures = [
        Figure(
            f"memory-{study.slug}",
            title=f"{study.title}: a training step of {BATCH} images, operation by operation",
            draw=lambda study=study: plots.memory(
                study.memory(BATCH, train=True), title=f"{study.title}: a training step of {BATCH} images"
            ),  # type: ignore[misc]
        )
        for study in dict.fromkeys((*studies[1:3], heaviest(studies)))
        if study is not studies[0]
    ]
    more, weights = (last[name] / first[name] for name in ("an_image_bytes", "parameter_bytes"))
    return Section(
        f"{names[0]} against the others",
        (
            Paragraph(
                f"At batch {BATCH} an image more adds {iec(first['an_image_bytes'])} to {names[0]}'s peak and "
                f"{iec(last['an_image_bytes'])} to {names[1]}'s, {times(more)} as much, while its parameters are "
                f"{times(weights)}. Parameters, gradients and momentum are "
                f"{percent(state_share(studies[0]))} of {names[0]}'s peak and "
                f"{percent(state_share(heaviest(studies)))} of {names[1]}'s."
            ),
            Table(
                "memory-networks",
                title="Training steps side by side",
                frame=pd.DataFrame(rows),
                note=f"An image is what one more adds to the peak at batch {BATCH}. Saved for backward is what "
                "autograd keeps; reserved is what the caching allocator takes from a GPU.",
                labels={
                    "peak_in": f"peak at batch {BATCH} in the",
                    "an_image_bytes": "an image",
                },
            ),
            *figures,
        ),
    )
