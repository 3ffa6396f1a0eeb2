"""What a report says, and in which order: the reader's questions first, the long tables last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from costmodel.book.benches import Bench
from costmodel.book.chapters.arithmetic import arithmetic
from costmodel.book.chapters.bandwidth import bandwidth
from costmodel.book.chapters.batch import batch
from costmodel.book.chapters.blocks import depth, hidden_layers, hides_layers, stages
from costmodel.book.chapters.checks import checks
from costmodel.book.chapters.chip import chip_chapter
from costmodel.book.chapters.comparison import comparison
from costmodel.book.chapters.conventions import conventions
from costmodel.book.chapters.footprint import footprint
from costmodel.book.chapters.hardware import hardware_chapter
from costmodel.book.chapters.heads import heads
from costmodel.book.chapters.layers import layers
from costmodel.book.chapters.memory import memory
from costmodel.book.chapters.memory_measured import memory_measured
from costmodel.book.chapters.networks import networks
from costmodel.book.chapters.opening import opening
from costmodel.book.chapters.questions import questions
from costmodel.book.chapters.rooflines import rooflines
from costmodel.book.engine import section
from costmodel.book.model import Bullets, Paragraph, Report, Section
from costmodel.book.study import Study, heaviest, same_form
from costmodel.devices import Device
from costmodel.validation import Validation


def compose(
    studies: Sequence[Study],
    devices: Sequence[Device],
    answers: Sequence[Section],
    claims: Section,
    validations: Mapping[Study, Validation],
    measured: Sequence[Bench] = (),
) -> Report:
    """A report from what was computed about some networks; the first network and device are looked at closely."""
    checked = section(checks(validations))
    hardware = hardware_chapter(measured, [study.name for study in studies])
    chips = chip_chapter(studies)
    about_memory = memory(studies, devices)
    records = [record for bench in measured for record in bench.records]
    pair = dict.fromkeys((same_form(studies)[0], heaviest(same_form(studies))))
    remembered = [section(about_memory, [section(memory_measured(records, list(pair)))])] if about_memory else []
    sections = (
        section(networks(studies, devices[0])),
        section(conventions()),
        section(questions(studies, devices[0]), answers),
        claims,
        *remembered,
        section(rooflines(studies, devices)),
        hardware,
        chips,
        checked,
        section(layers(studies, devices[0])),
    )
    verdicts = [each for each in (chips, claims, checked, hardware) if each.blocks and each.answer]
    said = section(opening(studies, devices[0]), verdicts=verdicts)
    lead, footer = said.blocks
    assert isinstance(lead, Bullets)
    assert isinstance(footer, Paragraph)
    return Report(
        said.title, lead.items, tuple(each for each in sections if each.blocks), footer.text, own_numbers=said.numbers
    )


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
