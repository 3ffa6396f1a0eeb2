"""What a report says, and in which order: the reader's questions first, the long tables last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from costmodel.book.chapters.checks import checks
from costmodel.book.chapters.chip import chip_chapter
from costmodel.book.chapters.conventions import conventions
from costmodel.book.chapters.hardware import Bench, hardware_chapter
from costmodel.book.chapters.layers import layers
from costmodel.book.chapters.memory import memory_chapter
from costmodel.book.chapters.networks import networks
from costmodel.book.chapters.rooflines import rooflines
from costmodel.book.engine import section
from costmodel.book.exercises.words import BATCH, counted, listed, times
from costmodel.book.model import Paragraph, Report, Section
from costmodel.book.study import CONV, FC, Study, heaviest, same_form
from costmodel.devices import Device
from costmodel.units import iec, percent, seconds, si
from costmodel.validation import Validation


def compose(
    studies: Sequence[Study],
    devices: Sequence[Device],
    questions: Sequence[Section],
    claims: Section,
    validations: Mapping[Study, Validation],
    measured: Sequence[Bench] = (),
) -> Report:
    """A report from what was computed about some networks; the first network and device are looked at closely."""
    first = studies[0]
    asked = Paragraph(
        f"Asked of {listed([study.title for study in same_form(studies)])}. One image of {first.short} is "
        f"{first.image} in {first.trace().dtype}, and times are bounds on the {devices[0].title}."
    )
    checked = section(checks(validations))
    hardware = hardware_chapter(measured, [study.name for study in studies])
    chips = chip_chapter(studies)
    sections = (
        section(networks(studies, devices[0])),
        section(conventions()),
        Section("The book's questions, answered", (asked,), tuple(questions)),
        claims,
        memory_chapter(studies, devices, [record for bench in measured for record in bench.records]),
        section(rooflines(studies, devices)),
        hardware,
        chips,
        checked,
        section(layers(studies, devices[0])),
    )
    versions = ", ".join(f"{package} {version}" for package, version in first.trace().versions.items())
    verdicts = (
        f"**{each.title}.** {each.answer} [See there](#{each.link})."
        for each in (chips, claims, checked, hardware)
        if each.blocks and each.answer
    )
    return Report(
        title=_title(studies),
        lead=(*_lead(studies, devices[0]), *verdicts),
        sections=tuple(each for each in sections if each.blocks),
        footer=f"Written by `costmodel report` from static traces; operators as {versions} dispatches them.",
    )


def _title(studies: Sequence[Study]) -> str:
    """Networks by their short names: "What AlexNet, VGG-11, VGG-16 and VGG-19 cost"."""
    names = list(dict.fromkeys(study.short for study in studies))
    who = listed(names) if len(names) <= 6 else counted(len(names), "network")
    return f"What {who} cost{'s' if len(names) == 1 else ''}"


def _lead(studies: Sequence[Study], device: Device) -> Iterator[str]:
    """What matters most about the networks, a line or two each."""
    first, last = studies[0], heaviest(same_form(studies))
    costs, memory = first.costs(), first.memory(BATCH, train=True)
    yield (
        f"**{first.title}** has {si(costs.parameters)} parameters and takes {si(costs.total.flops, 'FLOP')} an image: "
        f"the fully connected layers hold {percent(first.share('parameters', FC))} of the parameters, the convolutions "
        f"do {percent(first.share('flops', CONV))} of the arithmetic."
    )
    yield (
        f"**Time.** Its bound on the {device.title} is {seconds(first.prediction(device).bound_seconds)} for one image "
        f"and {seconds(first.prediction(device, BATCH).bound_seconds)} for {BATCH}, as the fully connected layers move "
        f"their weights once a batch: {percent(first.time_share(FC, device))} of the first, "
        f"{percent(first.time_share(FC, device, BATCH))} of the second."
    )
    multiple = f", {times(memory.peak_bytes / costs.parameter_bytes)} its parameters" if costs.parameter_bytes else ""
    yield (
        f"**Memory.** A training step of {BATCH} images takes {iec(memory.peak_bytes)}{multiple} "
        f"({first.trace().dtype}, SGD with momentum and weight decay)."
    )
    if last is not first:
        more = last.costs()
        yield (
            f"**{last.title}** has {times(more.parameters / costs.parameters)} the parameters, "
            f"{times(more.total.flops / costs.total.flops)} the arithmetic and "
            f"{times(last.memory(BATCH, train=True).peak_bytes / memory.peak_bytes)} the memory of that step."
        )
