"""Whole designs tried by the thousand, real arrays among them, and those that none beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from costmodel import plots
from costmodel.book.chapters.chip_study import AREAS, Designed
from costmodel.book.engine import Chapter
from costmodel.book.model import Figure, Table
from costmodel.chip.accelerator import Accelerator
from costmodel.chip.explore import Exploration, explore
from costmodel.chip.space import Space
from costmodel.view import Table as Data

SIDES = (8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Numbers:
    """What was tried."""

    designs: int
    """For each network."""


def designs(designed: Sequence[Designed], base: Accelerator) -> Chapter:
    """The fronts of frames a second against area, and the fastest designs up to each area."""
    found = explore({each.study.name: each.nests for each in designed}, space(base))
    names = {each.study.name: each.study.short for each in designed}
    fronts = {names[name]: found.pareto(name) for name in found.networks}
    clouds = {names[name]: found.of(name) for name in found.networks}
    return Chapter(
        "chip_designs",
        Numbers(len(found.frame) // len(found.networks)),
        {"fastest": Table("chip-designs", _fastest(found, names))},
        {"fronts": Figure("chip-fronts", lambda: plots.fronts(fronts, clouds))},
    )


def space(base: Accelerator) -> Space:
    """Fewer designs than `costmodel explore` tries: enough for a front's shape."""
    full = Space(base)
    return Space(
        base,
        arrays=tuple((rows, columns) for rows in SIDES for columns in SIDES),
        buffers=full.buffers[::2],
        bandwidths=full.bandwidths[::2],
        clocks=(base.clock_hertz,),
    )


_SAME = ("buffer_bytes", "dram_bandwidth", "area_mm2", "frames_per_second", "serial_frames_per_second", "watts",
    "frames_per_joule", "frames_per_second_per_mm2")  # fmt: skip


def _fastest(found: Exploration, names: dict[str, str]) -> Data:
    rows: dict[tuple[object, ...], None] = {}
    for name in found.networks:
        front = found.pareto(name)
        for area in AREAS:
            best = front[front["area_mm2"] <= area].iloc[-1]
            array = f"{best['rows']}x{best['columns']}"
            rows[names[name], array, str(best["dataflow"]), *(best[each] for each in _SAME)] = None
    return Data.of(("network", "array", "dataflow", *_SAME), rows)
