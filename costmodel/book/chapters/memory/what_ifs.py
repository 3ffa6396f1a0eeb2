"""What would lower the peak, and what would not."""

from __future__ import annotations

from collections.abc import Sequence

from costmodel.book.chapters.memory.steps import what_ifs_on
from costmodel.book.exercises.words import BATCH, listed
from costmodel.book.model import Paragraph, Section, Table
from costmodel.book.study import Study
from costmodel.memory import MemoryWhatIfs
from costmodel.report.tables import memory_what_ifs_table
from costmodel.units import iec


def what_ifs_section(studies: Sequence[Study]) -> Section:
    """What would lower the peak, and what would not."""
    found = {study: what_ifs_on(study) for study in studies if study.network is not None}
    tables = [
        Table(
            f"{study.slug}-memory-what-ifs",
            title=f"{study.title}: what each what-if does to a training step of {BATCH} images",
            frame=memory_what_ifs_table(pulled),
            note=f"Without a what-if the peak is {iec(pulled.memory.peak_bytes)} and "
            f"{iec(pulled.memory.replay.peak_reserved_bytes)} are reserved. Negative savings are costs. A pattern "
            "such as `net.*` stands for each block there, checkpointed by itself.",
            labels={"peak_bytes": "peak", "how": "in PyTorch"},
        )
        for study, pulled in found.items()
    ]
    idle = [
        saving for pulled in found.values() for saving in pulled if saving.what_if.because and not saving.saving_bytes
    ]
    answer = f"An activation in place saves nothing in training: {idle[0].what_if.because}." if idle else ""
    return Section(
        "What would lower it, and what would not?",
        (*(Paragraph(f"**{study.short}.** {_verdict(pulled)}") for study, pulled in found.items()), *tables),
        answer=answer,
        anchor="memory-what-ifs",
    )


def _verdict(pulled: MemoryWhatIfs) -> str:
    """The best and the useless what-ifs, in words."""
    best = [saving for saving in pulled.largest_first() if (saving.saving_bytes or 0) > 0][:3]
    useless = [saving.what_if.name for saving in pulled if saving.saving_bytes == 0]
    strong = [f"{saving.what_if.name} saves {iec(saving.saving_bytes or 0)}" for saving in best]
    text = f"Of {iec(pulled.memory.peak_bytes)}, {listed(strong)}." if best else ""
    return text + (f" These save nothing at the peak: {listed(useless)}." if useless else "")
