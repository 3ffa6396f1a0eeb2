"""How far the numbers can be trusted: published chips and other programs beside the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from costmodel import networks
from costmodel.book.exercises.words import listed, times
from costmodel.book.model import Bullets, Section, Table
from costmodel.chip.lowering import lower
from costmodel.display import show
from costmodel.graph import Trace
from costmodel.units import percent
from costmodel.validation.chips.anchors import ChipComparison, compare


def trust_section() -> Section:
    """What the same model makes of chips that others measured, and what it leaves out."""
    alexnet, vgg = (lower(_traced(name, batch)).only("conv") for name, batch in _ON_EYERISS)
    rows = compare(alexnet, vgg, _traced("torchvision:resnet50", 1))
    return Section(
        "How far can these numbers be trusted?",
        (
            Table(
                "chip-anchors",
                title="Published chips and another program, beside what the same model makes of them",
                frame=pd.DataFrame([_anchor(row) for row in rows]),
                labels={"how": "what is compared"},
            ),
            Table(
                "chip-tools",
                title="Other programs at the same question",
                frame=pd.DataFrame(_TOOLS),
                labels={"how": "obtained"},
            ),
            Bullets(
                (
                    "**Time** is a band: from perfect overlap of arithmetic and traffic to none. Every layer has the "
                    "best schedule and tile, which a real compiler may not find. Eyeriss on VGG-16 shows how much that "
                    "can be: its passes fill the buffer with partial sums of whole rows and have room for one to four "
                    "input channels, so the bus of the partial sums takes most of the time of conv1 to conv4. The "
                    "model finds passes that sum more channels.",
                    "**Energy** leaves out leakage, the clock's tree and the network on the chip, and is too low by "
                    "those.",
                    "**Area** has neither pads nor control nor what a chip holds beside its accelerator, and prices "
                    "register files as dense SRAM. Derived numbers are marked as such in the technology's file and "
                    "count only for who asks for them.",
                )
            ),
        ),
        answer=_trusted(rows),
    )


_ON_EYERISS = (("alexnet-grouped", 4), ("torchvision:vgg16", 3))
"""The networks that Eyeriss was measured with, and their batches."""


def _traced(name: str, batch: int) -> Trace:
    from costmodel.tracer import trace

    network = networks.find(name)
    return trace(network.module, network.inputs(batch), name=name)


def _anchor(row: ChipComparison) -> dict[str, Any]:
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
    return show(value, "ratio")


def _trusted(rows: Sequence[ChipComparison]) -> str:
    eyeriss = [row for row in rows if row.chip == "Eyeriss"]
    alexnet = [abs(row.difference) for row in eyeriss if row.unit == "ms" and "VGG" not in row.quantity]
    rate = next(row for row in eyeriss if row.unit == "frames/s")
    energies = [row.low / row.published for row in eyeriss if row.unit == "mJ"]
    area = next(row.low / row.published for row in eyeriss if row.unit == "mm²")
    nvdla = [abs(row.difference) for row in rows if row.unit == "mm²" and row.chip != "Eyeriss"]
    slow, fast = times(rate.low / rate.published), times(rate.high / rate.published)
    return (
        f"Eyeriss' measured times are met within {percent(max(alexnet))} on AlexNet; on VGG-16, whose maps are larger, "
        f"the model is {slow} to {fast} as fast as the chip. Of the chip's energy the model has "
        f"{listed([percent(share, 0) for share in energies])}, of its area {percent(area, 0)}. NVDLA's areas are met "
        f"within {percent(max(nvdla))}, its frame rates lie in the band; TPU v1's ridge and SCALE-Sim's cycles are met."
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
