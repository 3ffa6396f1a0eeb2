"""From what tensors ask for to what the process holds, as predicted."""

from __future__ import annotations

from collections.abc import Sequence

from costmodel.book.exercises.words import BATCH, listed
from costmodel.book.model import Bullets, Paragraph, Section, Table, plain
from costmodel.book.study import Study
from costmodel.devices import Device
from costmodel.memory.levels import overheads
from costmodel.report.tables import levels_table
from costmodel.units import iec, percent


def levels_section(studies: Sequence[Study], gpu: Device | None) -> Section:
    """From what tensors ask for to what the process holds."""
    tables = [
        Table(
            f"{study.slug}-memory-levels",
            title=f"{study.title}: a training step of {BATCH} images"
            f"{f' on the {gpu.title}' if gpu else ''}, as predicted",
            frame=levels_table(study.memory(BATCH, train=True).levels(gpu)),
        )
        for study in studies
    ]
    assumed: dict[tuple[str, int], list[str]] = {}
    for each in overheads(studies[0].memory(BATCH, train=True).trace, gpu):
        assumed.setdefault((each.source, each.nbytes), []).append(each.what)
    replay = studies[-1].memory(BATCH, train=True).replay
    return Section(
        "From tensors to the process",
        (
            Paragraph(
                "PyTorch's caching allocator rounds each request to 512 B, serves it from segments of 2 MiB, 20 MiB or "
                "its own size, splits and merges blocks, and gives nothing back. It is replayed here rule by rule; a "
                "test holds the replay to the sums of PyTorch's own compiled allocator, request by request. Of the "
                f"{iec(replay.peak_reserved_bytes)} that {studies[-1].short} reserves, "
                f"{percent(replay.fragmentation)} hold no tensor even at the peak."
            ),
            *tables,
            Bullets(
                tuple(
                    f"Assumed: {listed(whats)}, {iec(nbytes)}{' each' if len(whats) > 1 else ''}: {plain(source, 400)}."
                    for (source, nbytes), whats in assumed.items()
                )
            ),
        ),
        anchor="memory-levels",
    )
