"""What changing the network, its types or its batch would do on the same chip."""

from __future__ import annotations

from collections.abc import Sequence

from costmodel.book.chapters.chip.designed import Designed
from costmodel.book.exercises.words import listed, times
from costmodel.book.model import Section, Table
from costmodel.report.tables import what_ifs_table


def change_section(designed: Sequence[Designed]) -> Section:
    """What each change would do, and which one helps a network most."""
    tables = []
    for each in designed:
        frame = what_ifs_table(each.what_ifs)
        tables.append(
            Table(
                f"{each.study.slug}-what-if",
                title=f"{each.study.title} on the same chip: what if",
                frame=frame,
                note="By the frame. A change that saves nothing says when. Accuracy is not computed.",
                labels={"does_nothing": "does nothing …"},
            )
        )
    best = [
        max((outcome for outcome in each.what_ifs.outcomes[1:] if "resolution" not in outcome.change),
            key=lambda outcome: outcome.speedup)
        for each in designed
    ]  # fmt: skip
    helped = listed(
        [
            f"{each.study.short} by {change.change.replace(' in place of', ' for')} ({times(change.speedup)})"
            for each, change in zip(designed, best, strict=True)
        ]
    )
    return Section("What would change the network do?", tuple(tables), answer=f"Helped most: {helped}.")
