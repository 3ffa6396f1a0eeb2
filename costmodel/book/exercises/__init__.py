"""The book's analytic questions about AlexNet and VGG, answered with computed numbers.

Each question is a pure function from studies of networks to a section; every number in its sentences is computed when
the report is written. The questions are those of Dive into Deep Learning, sections 8.1 and 8.2; they are asked of
whatever networks the report is about, where they make sense.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from costmodel.book.chapters.arithmetic import arithmetic
from costmodel.book.chapters.bandwidth import bandwidth
from costmodel.book.chapters.batch import batch
from costmodel.book.chapters.blocks import depth, hidden_layers, hides_layers, stages
from costmodel.book.chapters.comparison import comparison
from costmodel.book.chapters.footprint import footprint
from costmodel.book.chapters.heads import heads
from costmodel.book.engine import section
from costmodel.book.exercises.claims import claims
from costmodel.book.model import Section
from costmodel.book.study import Study
from costmodel.devices import Device

__all__ = ["answers", "claims"]


def answers(studies: Sequence[Study], variants: Mapping[Study, Sequence[Study]], device: Device) -> tuple[Section, ...]:
    """The questions that can be asked of these networks, answered.

    Args:
        studies: networks of one form (the book's, say); the first is looked at closely, the others compared with it.
        variants: networks with their cheaper heads.
        device: what the bounds are for.
    """
    first, others = studies[0], studies[1:]
    sections: list[Section] = []
    if first.weighted():
        sections = [section(footprint(first)), section(arithmetic(first)), section(bandwidth(first, device))]
    if others:
        sections.append(section(comparison(first, others)))
    if variants:
        sections.append(section(heads(variants, device)))
    if (blocked := next((study for study in studies if hides_layers(study)), None)) is not None:
        sections.append(section(hidden_layers(blocked)))
        family = [study for study in studies if len(stages(study)) == len(stages(blocked))]
        if len(family) > 1:
            sections.append(section(depth(family, device)))
    return (*sections, section(batch(studies, device)))
