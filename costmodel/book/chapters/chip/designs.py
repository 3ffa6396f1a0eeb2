"""Whole designs tried by the thousand, real arrays among them, and those that none beats."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from costmodel import plots
from costmodel.book.chapters.chip.designed import AREAS, Designed
from costmodel.book.model import Figure, Section, Table
from costmodel.chip.accelerator import Accelerator
from costmodel.chip.explore import explore
from costmodel.chip.space import Space
from costmodel.report.tables import designs_table

_SIDES = (8, 16, 32, 64, 128, 256)


def design_section(designed: Sequence[Designed], base: Accelerator) -> Section:
    """The fronts of frames a second against area, and the fastest designs up to each area."""
    found = explore({each.study.name: each.nests for each in designed}, _space(base))
    names = {each.study.name: each.study.short for each in designed}
    fronts = {names[name]: found.pareto(name) for name in found.networks}
    rows = []
    for name in found.networks:
        front = found.pareto(name)
        picked = [front[front["area_mm2"] <= area].iloc[-1:] for area in AREAS]
        table = designs_table(pd.concat(picked)).drop_duplicates().assign(network=names[name])
        rows.append(table.drop(columns=["operand", "clock_hertz"]))
    return Section(
        "Which designs are best?",
        (
            Figure(
                "chip-fronts",
                title="Frames a second against area: "
                f"{len(found.frame) // len(found.networks):,} designs for each network",
                draw=lambda: plots.fronts(fronts, {names[name]: found.of(name) for name in found.networks}),
                note="Each small dot is a design: an array, a dataflow, a buffer and a bandwidth. On a line is what "
                "none beats; the larger marks on it, a shape for each network, are some of those.",
            ),
            Table(
                "chip-designs",
                title="The fastest designs up to each area",
                frame=pd.concat(rows, ignore_index=True),
                note="Real arrays: rows and columns that a layer's channels do not fill idle, which is why these are "
                "slower than the divisions above. serial: nothing overlaps. `costmodel explore` tries a million more.",
                labels={"dataflow": "dataflow"},
            ),
        ),
    )


def _space(base: Accelerator) -> Space:
    """Fewer designs than `costmodel explore` tries: enough for a front's shape."""
    full = Space(base)
    return Space(
        base,
        arrays=tuple((rows, columns) for rows in _SIDES for columns in _SIDES),
        buffers=full.buffers[::2],
        bandwidths=full.bandwidths[::2],
        clocks=(base.clock_hertz,),
    )
