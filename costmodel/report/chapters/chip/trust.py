"""How far the numbers can be trusted: published chips and other programs beside the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from costmodel import networks
from costmodel.chip.anchors import Comparison, compare
from costmodel.chip.lowering import lower
from costmodel.report.model import Bullets, Section, Table
from costmodel.units import percent


def trust_section() -> Section:
    """What the same model makes of chips that others measured, and what it leaves out."""
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
