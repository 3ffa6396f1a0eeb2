"""Chip design: how a designer trades computation, memory bandwidth and memory on the chip, for the report's networks.

The book asks "You are a chip designer and need to trade off computation and memory bandwidth. How do you optimise?"
(Dive into Deep Learning, AlexNet). The chapter prices the three in one currency, square millimetres, divides an area
among them for each network, looks at what each design binds on, and says how far the numbers can be trusted.
"""

from __future__ import annotations

from collections.abc import Sequence

from costmodel.book.chapters.chip.changes import change_section
from costmodel.book.chapters.chip.designed import BASE, BUDGET, Designed, design, short_name
from costmodel.book.chapters.chip.designs import design_section
from costmodel.book.chapters.chip.division import division_section, mix_section
from costmodel.book.chapters.chip.layers import layer_section
from costmodel.book.chapters.chip.prices import price_section
from costmodel.book.chapters.chip.trust import trust_section
from costmodel.book.chapters.traffic import traffic_section
from costmodel.book.exercises.words import times
from costmodel.book.model import Paragraph, Section
from costmodel.book.study import Study, heaviest, same_form
from costmodel.chip.accelerator import Accelerator, accelerator
from costmodel.chip.technology import DERIVED
from costmodel.units import percent, si

__all__ = ["chip_chapter"]


def chip_chapter(studies: Sequence[Study]) -> Section:
    """The chapter for the first network and the heaviest of its form; without blocks if neither has contractions."""
    base = accelerator(BASE)
    form = same_form(studies)
    designed = [
        found for study in dict.fromkeys((form[0], heaviest(form))) if (found := design(study, base)) is not None
    ]
    title = "Chip design: computation, bandwidth and memory on the chip"
    if not designed:
        return Section(title, ())
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
            price_section(base),
            *(division_section(each, base) for each in designed),
            *([mix_section(designed, base)] if len(designed) > 1 else []),
            traffic_section(studies),
            design_section(designed, base),
            layer_section(designed, base),
            change_section(designed),
            trust_section(),
        ),
        answer=_answer(designed, base),
        anchor="chip-design",
    )


def _answer(designed: Sequence[Designed], base: Accelerator) -> str:
    parts = []
    for each in designed:
        best = each.at_budget
        parts.append(
            f"{percent(best.interface_mm2 / best.area_mm2, 0)} on the memory's interface and "
            f"{percent(best.pes_mm2 / best.area_mm2, 0)} on elements for {each.study.short} "
            f"({si(best.frames_per_second)} frames a second)"
        )
    node = f"{base.find_technology().node_nanometres:g} nm"
    derived = " by derived numbers" if base.technology.endswith(DERIVED) else ""
    return (
        f"{BUDGET:g} mm² ({node}{derived}, {base.operand}, {si(base.clock_hertz, 'Hz')}) are best spent with "
        f"{', '.join(parts)}: then a further mm² brings as much as either.{_why(designed, base)}"
    )


def _why(designed: Sequence[Designed], base: Accelerator) -> str:
    """What moves most bytes, and what would help more than dividing the area."""
    first = designed[0]
    if not any(nest.kind == "linear" for nest in first.nests):
        return ""
    share = first.curves.only("linear").compulsory_bytes / first.curves.compulsory_bytes
    batch = first.what_ifs.outcomes[1]
    return (
        f" {percent(share, 0)} of {first.study.short}'s bytes are fully connected weights, moved once a batch: "
        f"{batch.change} makes it {times(batch.speedup)} as fast on {short_name(base)}."
    )
