"""Rooflines: the networks of the first one's form on the first device, the first and the heaviest on the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from costmodel import plots, view
from costmodel.book.columns import NOTE, SOURCE
from costmodel.book.engine import Chapter
from costmodel.book.model import Figure, Table, slug
from costmodel.book.study import BATCH, PARTS, Study, heaviest, same_form
from costmodel.devices import Device
from costmodel.roofline import Prediction


@dataclass(frozen=True)
class Movement:
    """How much further right a batch moves the layers of a part: their arithmetic intensity as a multiple."""

    part: str
    least_ratio: float
    most_ratio: float


@dataclass(frozen=True)
class Picture:
    """A roofline."""

    figure: str
    network: str
    device: str


@dataclass(frozen=True)
class Numbers:
    """What the sentences say; each movement is of one network."""

    network: str
    batch: int
    movements: tuple[Movement, ...]
    pictures: tuple[Picture, ...]


def rooflines(studies: Sequence[Study], devices: Sequence[Device]) -> Chapter:
    """A picture for each network and device, and the devices' numbers with their sources."""
    form = same_form(studies)
    ends = dict.fromkeys((form[0], heaviest(form)))
    pairs = {
        f"roofline-{study.slug}-{slug(device.name)}": (study, device)
        for device in devices for study in (form if device is devices[0] else ends)
    }  # fmt: skip
    predictions = {
        name: [study.prediction(device, batch) for batch in (1, BATCH)] for name, (study, device) in pairs.items()
    }
    titles = {name: f"{study.title} on the {device.title}" for name, (study, device) in pairs.items()}
    return Chapter(
        "rooflines",
        Numbers(
            form[0].title,
            BATCH,
            movements(form[0]),
            tuple(Picture(name, study.title, device.title) for name, (study, device) in pairs.items()),
        ),
        tables={"devices": Table("devices", _facts(devices), folded=True)},
        figures={name: _figure(name, predictions[name], titles[name]) for name in pairs},
    )


def movements(study: Study) -> tuple[Movement, ...]:
    """How far a larger batch moves the layers to the right."""
    factors: dict[str, list[float]] = {}
    for one, many in zip(study.weighted(), study.weighted(BATCH), strict=True):
        factor = many.layer.cost.arithmetic_intensity / one.layer.cost.arithmetic_intensity
        factors.setdefault(one.part, []).append(factor)
    return tuple(Movement(part, min(factors[part]), max(factors[part])) for part in PARTS if part in factors)


def _figure(name: str, predictions: Sequence[Prediction], title: str) -> Figure:
    return Figure(name, lambda: plots.roofline(predictions, title=title))


def _facts(devices: Sequence[Device]) -> view.Table:
    """Every number of the devices, with its source."""
    rows = [
        (
            device.title, name.removeprefix("peaks."), int(fact.value) if fact.value >= 1 else fact.value,
            fact.source.title, fact.source.date, fact.note,
        )
        for device in devices for name, fact in device.facts.items()
    ]  # fmt: skip
    return view.Table.of(("device", "quantity", "value", SOURCE, "date", NOTE), rows)
