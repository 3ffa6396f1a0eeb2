"""How far the numbers can be trusted: published chips and other programs beside the model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from costmodel import networks, view
from costmodel.book.columns import SOURCE
from costmodel.book.engine import Chapter
from costmodel.book.model import Table
from costmodel.chip.lowering import lower
from costmodel.graph import Trace
from costmodel.validation.chips.anchors import ChipComparison, compare
from costmodel.validation.chips.programs import ProgramRun, program_runs
from costmodel.view import Column, show

ON_EYERISS = (("alexnet-grouped", 4), ("torchvision:vgg16", 3))
"""The networks that Eyeriss was measured with, and their batches."""

EQUAL = 0.001
"""How far off a number may be that counts as met."""


@dataclass(frozen=True)
class Met:
    """How many of some numbers the model meets, or holds in its band."""

    met: int
    compared: int


@dataclass(frozen=True)
class Numbers:
    """The model beside published chips; shares are of what was published."""

    eyeriss_time_share: float
    """The furthest off of its times on AlexNet's layers."""

    eyeriss_low_ratio: float
    eyeriss_high_ratio: float
    """The model's frame rates on VGG-16, from no overlap to all, as multiples of the chip's."""

    eyeriss_energy_shares: tuple[float, ...]
    """What the model has of the chip's energy, on AlexNet and VGG-16."""

    eyeriss_area_share: float
    nvdla_area_share: float
    """The furthest off of its areas."""

    nvdla_rates: Met
    tpu_ridge: Met
    scale_sim_cycles: Met


def trust() -> Chapter:
    """What the same model makes of chips that others measured, and what it leaves out."""
    alexnet, vgg = (lower(_traced(name, batch)).only("conv") for name, batch in ON_EYERISS)
    rows = compare(alexnet, vgg, _traced("torchvision:resnet50", 1))
    anchors = view.Table.of(_ANCHORS, [_anchor(row) for row in rows])
    programs = view.Table.of(_PROGRAMS, [_program(run) for run in program_runs()])
    tables = {"anchors": Table("chip-anchors", anchors), "programs": Table("chip-tools", programs)}
    return Chapter("chip_trust", numbers(rows), tables)


def numbers(rows: Sequence[ChipComparison]) -> Numbers:
    """What the sentences say of the comparisons."""
    eyeriss, nvdla, tpu, scale_sim = (
        [row for row in rows if row.chip.startswith(chip)] for chip in ("Eyeriss", "NVDLA", "TPU", "SCALE-Sim")
    )
    rate = next(row for row in eyeriss if row.unit == "frames/s")
    return Numbers(
        eyeriss_time_share=max(abs(x.difference) for x in eyeriss if x.unit == "ms" and "VGG" not in x.quantity),
        eyeriss_low_ratio=rate.low / rate.published,
        eyeriss_high_ratio=rate.high / rate.published,
        eyeriss_energy_shares=tuple(row.low / row.published for row in eyeriss if row.unit == "mJ"),
        eyeriss_area_share=next(row.low / row.published for row in eyeriss if row.unit == "mm²"),
        nvdla_area_share=max(abs(row.difference) for row in nvdla if row.unit == "mm²"),
        nvdla_rates=_met(row for row in nvdla if row.unit == "frames/s"),
        tpu_ridge=_met(tpu),
        scale_sim_cycles=_met(scale_sim),
    )


def _met(rows: Iterable[ChipComparison]) -> Met:
    off = [abs(row.difference) for row in rows]
    return Met(sum(each <= EQUAL for each in off), len(off))


def _traced(name: str, batch: int) -> Trace:
    from costmodel.tracer import trace

    network = networks.find(name)
    return trace(network.module, network.inputs(batch), name=name)


_ANCHORS = (
    Column("chip", "chip", "term", "the chip, or the program"),
    Column("compared", "quantity", "text", "what is compared, and its unit"),
    Column("published", "published", "ratio", "what its publication says"),
    Column("modelled", "modelled", "term", "what the model says, from no overlap to all"),
    Column("off_share", "off", "percent", "how far the model is from the publication"),
    SOURCE,
    Column("how", "what is compared", "prose", "what is not obvious about the comparison"),
)


def _anchor(row: ChipComparison) -> tuple[object, ...]:
    ours = show(row.low, "ratio") if row.low == row.high else f"{show(row.low, 'ratio')} to {show(row.high, 'ratio')}"
    compared = f"{row.quantity}, {row.unit}".rstrip(", ")
    return row.chip, compared, row.published, ours, row.difference, row.source, row.how


_PROGRAMS = (
    Column("program", "program", "term", "who was asked"),
    Column("low_seconds", "time from", "seconds", "how long it took, or more where there is no other end"),
    Column("high_seconds", "to", "seconds", "how long it took at most"),
    Column("answer", "answer", "prose", "what it answered"),
    Column("obtained", "obtained", "prose", "how the times were obtained"),
    Column("command", "command", "prose", "what was run"),
    "date",
)


def _program(run: ProgramRun) -> tuple[object, ...]:
    return run.program, run.low_seconds, run.high_seconds, run.answer, run.obtained, run.command, run.date
