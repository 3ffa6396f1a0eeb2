"""Chip design: how a designer trades computation, memory bandwidth and memory on the chip, for the report's networks.

The book asks "You are a chip designer and need to trade off computation and memory bandwidth. How do you optimise?"
(Dive into Deep Learning, AlexNet). The chapter prices the three in one currency, square millimetres, divides an area
among them for each network, looks at what each design binds on, and says how far the numbers can be trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

from costmodel import networks
from costmodel.chip.accelerator import Accelerator, accelerator
from costmodel.chip.anchors import Comparison, compare
from costmodel.chip.balance import Balance, Elasticities, balance, elasticities, ridge_and_mix
from costmodel.chip.dram import Curves, traffic_curves
from costmodel.chip.evaluation import CONVENTION, Evaluation, evaluate
from costmodel.chip.explore import Exploration, explore
from costmodel.chip.lowering import lower
from costmodel.chip.nests import Nests
from costmodel.chip.space import Space
from costmodel.chip.technology import technology
from costmodel.chip.whatif import WhatIfs, what_ifs
from costmodel.errors import InputError
from costmodel.report import plots
from costmodel.report.chapters.traffic import traffic_section
from costmodel.report.exercises.words import listed, times
from costmodel.report.model import Block, Bullets, Figure, Formula, Paragraph, Section, Table
from costmodel.report.study import Study, heaviest, same_form
from costmodel.report.tables import designs_table, what_ifs_table
from costmodel.units import iec, percent, seconds, si

BASE = "edge-npu"
"""The accelerator that designs start from: its technology, clock and types."""

AREAS = (3.0, 10.0, 30.0, 100.0)
"""Chips that an area is divided for, in mm²: a corner of a phone's chip to a small chip of its own."""

BUDGET = 10.0
"""The area that the answer speaks of."""

_SIDES = (8, 16, 32, 64, 128, 256)
_NODES = ("28nm", "16nm", "7nm")


class Designed(NamedTuple):
    """A network and what the chapter works out about it."""

    study: Study
    nests: Nests
    curves: Curves
    balances: tuple[Balance, ...]
    evaluation: Evaluation
    elasticities: Elasticities
    what_ifs: WhatIfs

    @property
    def at_budget(self) -> Balance:
        """The division of BUDGET."""
        return self.balances[AREAS.index(BUDGET)]


def chip_chapter(studies: Sequence[Study]) -> Section:
    """The chapter for the first network and the heaviest of its form; without blocks if neither has contractions."""
    base = accelerator(BASE)
    form = same_form(studies)
    designed = [
        found for study in dict.fromkeys((form[0], heaviest(form))) if (found := _designed(study, base)) is not None
    ]
    title = "Chip design: computation, bandwidth and memory on the chip"
    if not designed:
        return Section(title, ())
    swept = explore({each.study.name: each.nests for each in designed}, _space(base))
    return Section(
        title,
        (
            Paragraph(
                "“You are a chip designer and need to trade off computation and memory bandwidth. How do you "
                "optimise?” A chip that runs networks is an array of **elements**, each of which multiplies and adds "
                "once a clock cycle; a **buffer** of SRAM beside it; and an **interface** to DRAM, where weights and "
                "feature maps lie. A layer takes as long as the slower of its arithmetic and its DRAM traffic, and the "
                "buffer decides how large that traffic is: what it cannot hold is moved again. All three cost area, so "
                "the question is how to divide it."
            ),
        ),
        (
            _prices(base),
            *(_division(each, base) for each in designed),
            *([_together(designed, base)] if len(designed) > 1 else []),
            traffic_section(studies),
            _best(designed, swept),
            _where(designed, base),
            _changes(designed),
            _trust(),
        ),
        answer=_answer(designed),
        anchor="chip-design",
    )


def _designed(study: Study, base: Accelerator) -> Designed | None:
    try:
        nests = lower(study.trace())
    except InputError:  # nothing to multiply
        return None
    ideal = base.replace(dataflow="ideal", title=base.title)
    return Designed(
        study,
        nests,
        traffic_curves(nests, widths=base.widths),
        tuple(balance(nests, ideal, area) for area in AREAS),
        evaluate(study.trace(), base),
        elasticities(nests, base),
        what_ifs(study.trace(), base, operands=("int16",)),
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


def _answer(designed: Sequence[Designed]) -> str:
    parts = []
    for each in designed:
        best = each.at_budget
        parts.append(
            f"for {each.study.short} {BUDGET:g} mm² are best divided into {best.elements:,.0f} elements "
            f"({percent(best.elements_mm2 / best.area_mm2, 0)}), {iec(best.buffer_bytes)} of buffer "
            f"({percent(best.sram_mm2 / best.area_mm2, 0)}) and {si(best.dram_bandwidth, 'B/s')} "
            f"({percent(best.interface_mm2 / best.area_mm2, 0)}): {si(best.frames_per_second)} frames a second"
        )
    return (
        "Spend the next square millimetre where it brings the most frames, until all three bring the same: "
        f"{'; '.join(parts)}. {_why(designed)}"
    )


def _why(designed: Sequence[Designed]) -> str:
    """What moves most bytes, and what would help more than dividing the area."""
    first = designed[0]
    if not any(nest.kind == "linear" for nest in first.nests):
        return ""
    share = first.curves.only("linear").compulsory_bytes / first.curves.compulsory_bytes
    batch = first.what_ifs.outcomes[1]
    return (
        f"Each weight of a fully connected layer is moved once an image, whatever the buffer: {percent(share, 0)} of "
        f"{first.study.short}'s bytes, so the interface is the larger part of its chip. {batch.change[0].upper()}"
        f"{batch.change[1:]} makes a small chip {times(batch.speedup)} as fast without any further area."
    )


def _short(chip: Accelerator) -> str:
    """A chip's name in a sentence."""
    return chip.title.partition(" (")[0].replace("A small", "a small")


def _prices(base: Accelerator) -> Section:
    rows = []
    for node in _NODES:
        found = technology(f"{node}+derived")
        rows.append(
            {
                "technology": node,
                "elements": round(1 / found.element_mm2(base.operand)),
                "macs_per_second": base.clock_hertz / found.element_mm2(base.operand),
                "buffer_bytes": int(1 / found.sram_mm2(1)),
                "dram_bandwidth": 1 / found.interface_mm2(1.0),
                "mac_picojoules": found.mac_joules(base.operand, base.accumulator) * 1e12,
                "buffer_picojoules": found.sram_joules(base.buffer_bytes / base.buffer_banks, 1) * 1e12,
                "dram_picojoules": found.dram_joules(base.dram, 1) * 1e12,
            }
        )
    oldest = technology(f"{_NODES[0]}+derived")
    mac, byte = oldest.mac_joules(base.operand, base.accumulator), oldest.dram_joules(base.dram, 1)
    element, gigabyte = oldest.element_mm2(base.operand), oldest.interface_mm2(1e9)
    return Section(
        "What a square millimetre buys",
        (
            Table(
                "chip-prices",
                f"One mm², and what a MAC and a byte take ({base.operand}, {si(base.clock_hertz, 'Hz')})",
                pd.DataFrame(rows).round(3),
                note="28 nm's areas are those of TPU v1's floor plan, energies are Horowitz' (45 nm) and Jouppi's "
                "(7 nm); the rest is derived from them, as the technologies' files say number by number. An interface "
                "is pads and drivers, which do not shrink with the node.",
                labels={
                    "macs_per_second": "MAC/s",
                    "buffer_bytes": "or SRAM",
                    "dram_bandwidth": "or bandwidth",
                    "mac_picojoules": "pJ a MAC",
                    "buffer_picojoules": "pJ a buffer byte",
                    "dram_picojoules": "pJ a DRAM byte",
                },
            ),
            Paragraph(
                f"At {_NODES[0].removesuffix('nm')} nm a byte from DRAM takes the energy of {byte / mac:,.0f} MACs, "
                f"and the interface for a GB/s the area of {gigabyte / element:,.0f} elements. Each node makes "
                "elements and SRAM cheaper and leaves bandwidth as dear as it was: chips come to be bound by memory by "
                "themselves."
            ),
        ),
    )


def _division(each: Designed, base: Accelerator) -> Section:
    rows = [
        {
            "area_mm2": best.area_mm2,
            "elements": round(best.elements),
            "elements_share": best.elements_mm2 / best.area_mm2,
            "buffer_bytes": best.buffer_bytes,
            "sram_share": best.sram_mm2 / best.area_mm2,
            "dram_bandwidth": best.dram_bandwidth,
            "interface_share": best.interface_mm2 / best.area_mm2,
            "frames_per_second": best.frames_per_second,
            "ridge_point": best.ridge_point,
            "elements_worth": best.worth.elements_mm2,
            "sram_worth": best.worth.sram_mm2,
            "interface_worth": best.worth.interface_mm2,
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
                f"{each.study.title}: equal frame rates over compute and bandwidth, {base.operand}",
                lambda: plots.iso_throughput(each.nests, ideal, each.balances, title=f"{short}, one image at a time"),
                note="Along a line the frame rate is the same. Where it runs up, more bandwidth buys nothing, as "
                "arithmetic binds; where it runs to the right, more elements buy nothing. Where it bends, layers of "
                "both kinds take turns. The rings are the best division of each area; through them runs the cheapest "
                "way to be faster.",
            ),
            Table(
                f"{each.study.slug}-balance",
                f"{each.study.title}: the best division of an area ({base.technology}, {si(base.clock_hertz, 'Hz')})",
                pd.DataFrame(rows),
                note="Shares are of the area; worth is how many frames a second a further mm² brings there. They are "
                "equal at the best division, unless a layer stands just between arithmetic and memory. Elements waste "
                "nothing here; what arrays waste follows below.",
                labels={
                    "elements_share": "of area",
                    "sram_share": "of area",
                    "interface_share": "of area",
                    "elements_worth": "a mm² of elements",
                    "sram_worth": "a mm² of SRAM",
                    "interface_worth": "a mm² of interface",
                },
            ),
            Formula(
                (
                    f"on {_short(base)}, {base.rows}x{base.columns}, "
                    f"{iec(base.buffer_bytes)}, {si(base.dram_bandwidth, 'B/s')}:",
                    f"1 % more elements   {change.elements:+.2f} % time",
                    f"1 % more bandwidth  {change.bandwidth:+.2f} % time     the two add up to -1",
                    f"1 % more buffer     {change.sram + 0:+.2f} % time",
                    f"ridge point {mix.ridge_point:.3g} MACs a byte, {short} {mix.intensity:.3g}",
                    f"layers below the ridge do {percent(mix.macs_below)} of the MACs and move "
                    f"{percent(mix.traffic_below)} of the bytes",
                )
            ),
        ),
        answer=_division_answer(each),
    )


def _division_answer(each: Designed) -> str:
    small, large = each.balances[0], each.balances[-1]
    return (
        f"From {small.area_mm2:.3g} to {large.area_mm2:.3g} mm², {each.study.short} wants "
        f"{times(large.elements / small.elements)} the elements and "
        f"{times(large.dram_bandwidth / small.dram_bandwidth)} the bandwidth, but "
        f"{times(large.buffer_bytes / small.buffer_bytes)} the buffer, and runs "
        f"{times(large.frames_per_second / small.frames_per_second)} as fast."
    )


def _together(designed: Sequence[Designed], base: Accelerator) -> Section:
    """One chip for all of them, each as often as the others."""
    ideal = base.replace(dataflow="ideal", title=base.title)
    mixed = [balance({each.study.name: each.nests for each in designed}, ideal, area) for area in AREAS]
    names = listed([each.study.short for each in designed])
    rows = [
        {
            "area_mm2": best.area_mm2,
            "elements": round(best.elements),
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
                f"The best division of an area for {names}, equally many frames of each",
                pd.DataFrame(rows),
                note="Frames a second are of the average frame. The slower network has more of the time, so the chip "
                "is nearer to what it wants. Other weights: costmodel explore --weight.",
            ),
        ),
        answer=f"Of {BUDGET:g} mm², {at_budget.elements:,.0f} elements, {iec(at_budget.buffer_bytes)} and "
        f"{si(at_budget.dram_bandwidth, 'B/s')}, between what "
        f"{listed([f'{each.study.short} wants ({each.at_budget.elements:,.0f} elements)' for each in designed])}.",
    )


def _best(designed: Sequence[Designed], found: Exploration) -> Section:
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
                f"Frames a second against area: {len(found.frame):,} designs and networks",
                lambda: plots.fronts(fronts, {names[name]: found.of(name) for name in found.networks}),
                note="Each dot is a design: an array, a dataflow, a buffer and a bandwidth. On the line is what none "
                "beats.",
            ),
            Table(
                "chip-designs",
                "The fastest designs up to each area",
                pd.concat(rows, ignore_index=True),
                note="Real arrays: rows and columns that a layer's channels do not fill idle, which is why these are "
                "slower than the divisions above. serial: nothing overlaps. `costmodel explore` tries a million more.",
                labels={"dataflow": "dataflow"},
            ),
        ),
    )


def _where(designed: Sequence[Designed], base: Accelerator) -> Section:
    blocks: list[Block] = [
        Paragraph(
            f"The same networks, layer by layer, on {_short(base)}: {base.rows}x{base.columns} "
            f"elements at {si(base.clock_hertz, 'Hz')}, {iec(base.buffer_bytes)} of buffer, "
            f"{si(base.dram_bandwidth, 'B/s')}. {CONVENTION[0].upper()}{CONVENTION[1:]}."
        )
    ]
    for each in designed:
        run = each.evaluation
        blocks.append(
            Figure(
                f"{each.study.slug}-chip-layers",
                f"{each.study.title}: time and energy by layer",
                lambda run=run, each=each: plots.chip_layers(run, title=each.study.short)[0],  # type: ignore[misc]
            )
        )
    return Section("Where time and energy go", tuple(blocks), answer=" ".join(_went(each) for each in designed))


def _went(each: Designed) -> str:
    run = each.evaluation
    binding, most = next(iter(run.by_binding().items()))
    word = {"dram": "DRAM", "compute": "arithmetic", "utilisation": "idle elements", "buffer": "the buffer"}[binding]
    return (
        f"{each.study.short} takes {seconds(run.overlapped_seconds)} to {seconds(run.serial_seconds)}; {word} "
        f"{'bind' if binding == 'utilisation' else 'binds'} {percent(most / run.overlapped_seconds, 0)} of the former. "
        f"DRAM takes {percent(run.energy.dram / run.energy.total, 0)} of the energy, multiplying "
        f"{percent(run.energy.mac / run.energy.total, 0)}."
    )


def _changes(designed: Sequence[Designed]) -> Section:
    tables = []
    for each in designed:
        frame = what_ifs_table(each.what_ifs)
        tables.append(
            Table(
                f"{each.study.slug}-what-if",
                f"{each.study.title} on the same chip: what if",
                frame,
                note="By the frame. A change that saves nothing says when. Accuracy is not computed.",
                labels={"does_nothing": "does nothing"},
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


def _trust() -> Section:
    alexnet = networks.find("alexnet-grouped")
    resnet = networks.find("torchvision:resnet50")
    from costmodel.tracer import trace

    rows = compare(
        lower(trace(alexnet.module, alexnet.inputs(4), name=alexnet.name)).only("conv"),
        trace(resnet.module, resnet.inputs(1), name=resnet.name),
    )
    return Section(
        "How far can these numbers be trusted?",
        (
            Table(
                "chip-anchors",
                "Published chips and another program, beside what the same model makes of them",
                pd.DataFrame([_anchor(row) for row in rows]),
                labels={"how": "what is compared"},
            ),
            Table(
                "chip-tools", "Other programs at the same question", pd.DataFrame(_TOOLS), labels={"how": "obtained"}
            ),
            Bullets(
                (
                    "**Time** is a band: from perfect overlap of arithmetic and traffic to none. Every layer has the "
                    "best schedule and tile, which a real compiler may not find.",
                    "**Energy** leaves out leakage and the clock's wires, and is too low by those.",
                    "**Area** has neither pads nor what a chip holds beside its accelerator. Derived numbers are "
                    "marked as such in the technology's file and count only for who asks for them.",
                )
            ),
        ),
        answer=_trusted(rows),
    )


def _anchor(row: Comparison) -> dict[str, Any]:
    ours = _number(row.low) if row.low == row.high else f"{_number(row.low)} to {_number(row.high)}"
    return {
        "chip": row.chip,
        "quantity": f"{row.quantity}, {row.unit}".rstrip(", "),
        "published": _number(row.published),
        "modelled": ours,
        "off_share": row.difference,
        "source": row.source,
        "how": row.how,
    }


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _trusted(rows: Sequence[Comparison]) -> str:
    times_off = [abs(row.difference) for row in rows if row.unit == "ms"]
    areas_off = [abs(row.difference) for row in rows if row.unit == "mm²"]
    return (
        f"Eyeriss' measured times are met within {percent(max(times_off))}, NVDLA's areas within "
        f"{percent(max(areas_off))}, its frame rates lie in the band; TPU v1's ridge and SCALE-Sim's cycles are met."
    )


_TOOLS = (
    {
        "program": "costmodel",
        "time": "0.5 s",
        "answer": "AlexNet, VGG-16 and their mix on 462,825 designs each; traffic behind every size of buffer",
        "how": "the space that explore tries by itself, after tracing, on 2 cores, 2026-11-24",
    },
    {
        "program": "SCALE-Sim",
        "time": "337 s",
        "answer": "AlexNet's convolutions on one array; no DRAM traffic against SRAM size",
        "how": "run on a machine of the same kind",
    },
    {
        "program": "ZigZag",
        "time": "30 to 100 s",
        "answer": "one network on one design",
        "how": "run on a machine of the same kind",
    },
    {
        "program": "AccelForge",
        "time": "over 10 min",
        "answer": "none for one Eyeriss layer in that time",
        "how": "run on a machine of the same kind",
    },
    {"program": "Timeloop", "time": "", "answer": "not run: it is distributed as a Docker image", "how": "its README"},
)
