"""The best division of an area into elements, buffer and interface: for a network, and for several on one chip."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from costmodel import plots
from costmodel.book.chapters.chip.designed import AREAS, BUDGET, Designed, short_name
from costmodel.book.exercises.words import listed, times
from costmodel.book.model import Figure, Formula, Section, Table
from costmodel.chip.accelerator import Accelerator
from costmodel.chip.balance import balance, ridge_and_mix
from costmodel.units import iec, percent, si


def division_section(each: Designed, base: Accelerator) -> Section:
    """Computation against bandwidth for one network, and what each division binds on."""
    rows = [
        {
            "area_mm2": best.area_mm2,
            "pes": round(best.pes),
            "pes_share": best.pes_mm2 / best.area_mm2,
            "buffer_bytes": best.buffer_bytes,
            "sram_share": best.sram_mm2 / best.area_mm2,
            "dram_bandwidth": best.dram_bandwidth,
            "interface_share": best.interface_mm2 / best.area_mm2,
            "frames_per_second": best.frames_per_second,
            "ridge_point": best.ridge_point,
            "pes_marginal": best.marginals.pes_mm2,
            "sram_marginal": best.marginals.sram_mm2,
            "interface_marginal": best.marginals.interface_mm2,
        }
        for best in each.balances
    ]
    change = each.elasticities
    mix = ridge_and_mix(each.nests, base)
    ideal = base.replace(dataflow="ideal", title=base.title)
    short = each.study.short
    return Section(
        f"Computation against bandwidth for {short}",
        (
            Figure(
                f"{each.study.slug}-iso-throughput",
                title=f"{each.study.title}: equal frame rates over compute and bandwidth, {base.operand}",
                draw=lambda: plots.iso_throughput(
                    each.nests, ideal, each.balances, title=f"{short}, one image at a time"
                ),
                note="Along a line the frame rate is the same. Where it runs up, more bandwidth buys nothing, as "
                "arithmetic binds; where it runs to the right, more elements buy nothing. Where it bends, layers of "
                "both kinds take turns. The rings are the best division of each area; through them runs the cheapest "
                "way to be faster.",
            ),
            Table(
                f"{each.study.slug}-balance",
                title=f"{each.study.title}: the best division of an area "
                f"({base.technology}, {si(base.clock_hertz, 'Hz')})",
                frame=pd.DataFrame(rows),
                note="The last three columns are what a further mm² brings there. As elements and as interface it "
                "brings about the same at the best division, unless a layer stands just between arithmetic and "
                "memory; the buffer stands at a step, beyond which more brings nothing until the next one. Elements "
                "waste nothing here; what arrays waste follows below.",
                labels={
                    "pes_share": "area of elements",
                    "sram_share": "area of buffer",
                    "interface_share": "area of interface",
                },
            ),
            Formula(
                (
                    f"on {short_name(base)}, {base.rows}x{base.columns}, "
                    f"{iec(base.buffer_bytes)}, {si(base.dram_bandwidth, 'B/s')}:",
                    f"1 % more elements   {change.pes:+.2f} % time",
                    f"1 % more bandwidth  {change.bandwidth:+.2f} % time     the two add up to -1",
                    f"1 % more buffer     {change.sram + 0:+.2f} % time",
                    f"ridge point {mix.ridge_point:.3g} MACs a byte, {short} {mix.intensity:.3g}",
                    f"layers below the ridge do {percent(mix.macs_below)} of the MACs and move "
                    f"{percent(mix.traffic_below)} of the bytes",
                )
            ),
        ),
        answer=_answer(each),
    )


def _answer(each: Designed) -> str:
    small, large = each.balances[0], each.balances[-1]
    return (
        f"From {small.area_mm2:.3g} to {large.area_mm2:.3g} mm², {each.study.short} wants "
        f"{times(large.pes / small.pes)} the elements and "
        f"{times(large.dram_bandwidth / small.dram_bandwidth)} the bandwidth, but "
        f"{times(large.buffer_bytes / small.buffer_bytes)} the buffer, and runs "
        f"{times(large.frames_per_second / small.frames_per_second)} as fast."
    )


def mix_section(designed: Sequence[Designed], base: Accelerator) -> Section:
    """One chip for all of them, each as often as the others."""
    ideal = base.replace(dataflow="ideal", title=base.title)
    mixed = [balance({each.study.name: each.nests for each in designed}, ideal, area) for area in AREAS]
    names = listed([each.study.short for each in designed])
    rows = [
        {
            "area_mm2": best.area_mm2,
            "pes": round(best.pes),
            "buffer_bytes": best.buffer_bytes,
            "dram_bandwidth": best.dram_bandwidth,
            "ridge_point": best.ridge_point,
            "frames_per_second": best.frames_per_second,
        }
        for best in mixed
    ]
    at_budget = mixed[AREAS.index(BUDGET)]
    return Section(
        f"One chip for {names}",
        (
            Table(
                "chip-mix",
                title=f"The best division of an area for {names}, equally many frames of each",
                frame=pd.DataFrame(rows),
                note="Frames a second are of the average frame. The slower network has more of the time, so the chip "
                "is nearer to what it wants. Other weights: costmodel explore --weight.",
            ),
        ),
        answer=f"Of {BUDGET:g} mm², {at_budget.pes:,.0f} elements, {iec(at_budget.buffer_bytes)} and "
        f"{si(at_budget.dram_bandwidth, 'B/s')}, between what "
        f"{listed([f'{each.study.short} wants ({each.at_budget.pes:,.0f} elements)' for each in designed])}.",
    )
