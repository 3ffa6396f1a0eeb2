"""Where time and energy go on one accelerator, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from costmodel import plots
from costmodel.book.chapters.chip_study import Designed, short_name
from costmodel.book.engine import Chapter
from costmodel.book.model import Figure
from costmodel.chip.accelerator import Accelerator


@dataclass(frozen=True)
class OnChip:
    """A network on the accelerator that designs start from."""

    network: str
    key: str
    overlapped_seconds: float
    serial_seconds: float
    binding: str
    """What binds most of the overlapped time: "dram", "compute", "utilisation" or "buffer"."""

    binding_share: float
    dram_energy_share: float
    mac_energy_share: float


@dataclass(frozen=True)
class Numbers:
    """The networks, and the accelerator."""

    chip: str
    rows: int
    columns: int
    clock_hertz: float
    buffer_bytes: int
    bytes_per_second: float
    networks: tuple[OnChip, ...]


def layers(designed: Sequence[Designed], base: Accelerator) -> Chapter:
    """The networks on the accelerator that designs start from."""
    figures = {
        each.study.slug: Figure(
            f"{each.study.slug}-chip-layers",
            lambda each=each: plots.chip_layers(each.evaluation, title=each.study.short)[0],  # type: ignore[misc]
        )
        for each in designed
    }
    return Chapter("chip_layers", numbers(designed, base), figures=figures)


def numbers(designed: Sequence[Designed], base: Accelerator) -> Numbers:
    """The chapter's numbers."""
    return Numbers(
        short_name(base), base.rows, base.columns, base.clock_hertz, base.buffer_bytes, base.dram_bandwidth,
        tuple(map(_on_chip, designed)),
    )  # fmt: skip


def _on_chip(each: Designed) -> OnChip:
    run = each.evaluation
    binding, most = next(iter(run.by_binding().items()))
    return OnChip(
        network=each.study.title,
        key=each.study.slug,
        overlapped_seconds=run.overlapped_seconds,
        serial_seconds=run.serial_seconds,
        binding=binding,
        binding_share=most / run.overlapped_seconds,
        dram_energy_share=run.energy.dram / run.energy.total,
        mac_energy_share=run.energy.mac / run.energy.total,
    )
