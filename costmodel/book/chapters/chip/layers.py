"""Where time and energy go on one accelerator, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

from costmodel import plots
from costmodel.book.chapters.chip.designed import Designed, short_name
from costmodel.book.model import Block, Figure, Paragraph, Section
from costmodel.chip.accelerator import Accelerator
from costmodel.chip.evaluation import CONVENTION
from costmodel.units import iec, percent, seconds, si


def layer_section(designed: Sequence[Designed], base: Accelerator) -> Section:
    """The networks on the accelerator that designs start from."""
    blocks: list[Block] = [
        Paragraph(
            f"The same networks, layer by layer, on {short_name(base)}: {base.rows}x{base.columns} "
            f"elements at {si(base.clock_hertz, 'Hz')}, {iec(base.buffer_bytes)} of buffer, "
            f"{si(base.dram_bandwidth, 'B/s')}. {CONVENTION[0].upper()}{CONVENTION[1:]}."
        )
    ]
    for each in designed:
        run = each.evaluation
        blocks.append(
            Figure(
                f"{each.study.slug}-chip-layers",
                title=f"{each.study.title}: time and energy by layer",
                draw=lambda run=run, each=each: plots.chip_layers(run, title=each.study.short)[0],  # type: ignore[misc]
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
