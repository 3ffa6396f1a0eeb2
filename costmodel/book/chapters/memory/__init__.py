"""Memory: "AlexNet has a big memory overhead", the book says. How big, when, for whom, and what would change it."""

from __future__ import annotations

from collections.abc import Sequence

from costmodel.book.chapters.memory.batches import EFFORT, batch_section
from costmodel.book.chapters.memory.levels import levels_section
from costmodel.book.chapters.memory.measured import measured_section
from costmodel.book.chapters.memory.overhead import comparison_section, overhead_section
from costmodel.book.chapters.memory.steps import growth, state_share
from costmodel.book.chapters.memory.what_ifs import what_ifs_section
from costmodel.book.exercises.words import BATCH
from costmodel.book.model import Paragraph, Section, code
from costmodel.book.study import TRAINING, Study, heaviest, same_form
from costmodel.devices import Device, device
from costmodel.hardware.record import Measurement
from costmodel.memory import Scaling
from costmodel.report.captions import NOT_COUNTED
from costmodel.units import iec, percent

__all__ = ["memory_chapter"]

ALSO = ("rtx3090", "gtx1080ti")
"""GPUs that are asked what fits beside those that the report is for."""


def memory_chapter(studies: Sequence[Study], devices: Sequence[Device], records: Sequence[Measurement] = ()) -> Section:
    """The chapter on memory; `records` are measurements, for what they say of GPUs' memory."""
    form = same_form(studies)
    first, last = form[0], heaviest(form)
    if not first.weighted():
        return Section("MemoryTimeline", ())
    gpus = _gpus(devices)
    pair = list(dict.fromkeys((first, last)))
    growths = {study: {train: growth(study, train) for train in (False, True)} for study in pair}
    return Section(
        "Memory: how much, when, and for whom",
        (
            Paragraph(
                "Everything here follows from the births and deaths of tensors in a trace: nothing was allocated. "
                "A training step is loss, backward and SGD with momentum 0.9 and weight decay 0.0005, in "
                f"{first.trace().dtype}, in the steady state: {code(_command(first), 200)} gives the peak of "
                f"{iec(first.memory(BATCH, train=True).peak_bytes)}. Without its last flags the step is of plain SGD, "
                "which holds less."
            ),
        ),
        (
            overhead_section(first),
            *([comparison_section(form)] if len(form) > 1 else []),
            batch_section(growths, gpus),
            what_ifs_section(pair),
            levels_section(pair, gpus[0] if gpus else None),
            measured_section(records, pair),
        ),
        answer=_answer(first, growths[first][True], gpus),
        anchor="memory",
    )


def _command(study: Study) -> str:
    """What prints the peak of a training step as this report takes it."""
    flags = " ".join(f"--{name.replace('_', '-')} {value:g}" for name, value in TRAINING["optimizer_options"].items())
    return f"costmodel memory {study.name} --train --batch {BATCH} {flags}"


def _answer(study: Study, growth: Scaling, gpus: Sequence[Device]) -> str:
    memory = study.memory(BATCH, train=True)
    where = memory.peak_operation
    reserved = memory.replay
    fits = ""
    if gpus:
        most = growth.fit(gpus[0], effort=EFFORT).batch
        fits = f" The {gpus[0].title} trains it with up to {most:,} images at once. {NOT_COUNTED}"
    return (
        f"A training step of {study.short} with {BATCH} images peaks at {iec(memory.peak_bytes)}, in the {where.phase} "
        f"of {code(where.layer)}. Parameters, gradients and momentum are {percent(state_share(study))} of it, "
        f"activations {percent(memory.by_role.get('activation', 0) / memory.peak_bytes)}; for these tensors PyTorch's "
        f"allocator reserves {iec(reserved.peak_reserved_bytes)}.{fits}"
    )


def _gpus(devices: Sequence[Device]) -> list[Device]:
    """The report's GPUs whose memory is known, and those of ALSO."""
    known = [each for each in (*devices, *map(device, ALSO)) if each.kind == "gpu" and each.memory_bytes]
    return list({each.name: each for each in known}.values())
