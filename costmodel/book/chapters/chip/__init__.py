"""Chip design: how a designer trades computation, memory bandwidth and memory on the chip, for the report's networks.

The book asks "You are a chip designer and need to trade off computation and memory bandwidth. How do you optimise?"
(Dive into Deep Learning, AlexNet). The chapter prices the three in one currency, square millimetres, divides an area
among them for each network, looks at what each design binds on, and says how far the numbers can be trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from costmodel.book.chapters.chip.changes import change_section
from costmodel.book.chapters.chip.designed import BASE, BUDGET, Designed, design, short_name
from costmodel.book.chapters.chip.designs import design_section
from costmodel.book.chapters.chip.division import division_section, mix_section
from costmodel.book.chapters.chip.layers import layer_section
from costmodel.book.chapters.chip.prices import price_section
from costmodel.book.chapters.chip.trust import trust
from costmodel.book.chapters.traffic import traffic_section
from costmodel.book.engine import Chapter, section
from costmodel.book.model import Section
from costmodel.book.study import Study, heaviest, same_form
from costmodel.chip.accelerator import Accelerator, accelerator
from costmodel.chip.technology import DERIVED

__all__ = ["chip_chapter"]


@dataclass(frozen=True)
class Division:
    """The best division of the budget for a network."""

    network: str
    interface_share: float
    pes_share: float
    frames_per_second: float


@dataclass(frozen=True)
class Larger:
    """What a larger batch does for the first network, where it has fully connected layers."""

    network: str
    fc_share: float
    """What they have of the bytes that no buffer saves."""

    change: str
    speedup_ratio: float
    chip: str


@dataclass(frozen=True)
class Numbers:
    """The best divisions of an area."""

    budget_mm2: float
    node_nanometres: float
    derived: bool
    operand: str
    clock_hertz: float
    divisions: tuple[Division, ...]
    larger: Larger | None


def chip_chapter(studies: Sequence[Study]) -> Section:
    """The chapter for the first network and the heaviest of its form; without blocks if neither has contractions."""
    base = accelerator(BASE)
    form = same_form(studies)
    designed = [
        found for study in dict.fromkeys((form[0], heaviest(form))) if (found := design(study, base)) is not None
    ]
    if not designed:
        return Section("Chip design", ())
    return section(
        Chapter("chip", numbers(designed, base)),
        (
            price_section(base),
            *(division_section(each, base) for each in designed),
            *([mix_section(designed, base)] if len(designed) > 1 else []),
            traffic_section(studies),
            design_section(designed, base),
            layer_section(designed, base),
            change_section(designed),
            section(trust()),
        ),
    )


def numbers(designed: Sequence[Designed], base: Accelerator) -> Numbers:
    """What the answer says of the networks."""
    return Numbers(
        budget_mm2=BUDGET,
        node_nanometres=base.find_technology().node_nanometres,
        derived=base.technology.endswith(DERIVED),
        operand=base.operand,
        clock_hertz=base.clock_hertz,
        divisions=tuple(_division(each) for each in designed),
        larger=_larger(designed[0], base),
    )


def _division(each: Designed) -> Division:
    best = each.at_budget
    return Division(
        network=each.study.title,
        interface_share=best.interface_mm2 / best.area_mm2,
        pes_share=best.pes_mm2 / best.area_mm2,
        frames_per_second=best.frames_per_second,
    )


def _larger(first: Designed, base: Accelerator) -> Larger | None:
    """What moves most bytes, and what would help more than dividing the area."""
    if not any(nest.kind == "linear" for nest in first.nests):
        return None
    share = first.curves.only("linear").compulsory_bytes / first.curves.compulsory_bytes
    batch = first.what_ifs.outcomes[1]
    return Larger(first.study.title, share, batch.change, batch.speedup, short_name(base))
