"""The networks beside each other, and what convolutions and fully connected layers have of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from costmodel import plots, view
from costmodel.book.columns import INFERENCE_PEAK, OUTPUT_SHARE, TIME_SHARE, TRAINING_PEAK
from costmodel.book.engine import Chapter
from costmodel.book.model import Figure, Table
from costmodel.book.study import BATCH, PARTS, Study, heaviest, same_form
from costmodel.devices import Device


@dataclass(frozen=True)
class Numbers:
    """What the sentences say; the rest is in the tables."""

    device: str
    training_batch: int


def networks(studies: Sequence[Study], device: Device) -> Chapter:
    """The networks side by side on a device."""
    form = same_form(studies)
    shown = {study.title: study.prediction(device) for study in dict.fromkeys((form[0], heaviest(form)))}
    return Chapter(
        "networks",
        Numbers(device.title, BATCH),
        tables={
            "networks": Table("networks", _networks(studies, device)),
            "shares": Table("shares", _shares(studies, device), folded=True),
        },
        figures={
            "compare": Figure("compare", lambda: plots.compare({study.title: study.costs() for study in studies})),
            "shares": Figure("shares", lambda: plots.shares(shown)),
        },
    )


def _networks(studies: Sequence[Study], device: Device) -> view.Table:
    numbers = ("network", "input", "parameters", "parameter_bytes", "macs", "flops", INFERENCE_PEAK, TRAINING_PEAK)
    rows = []
    for study in studies:
        costs = study.costs()
        held = (costs.parameters, costs.parameter_bytes, costs.total.macs, costs.total.flops)
        peaks = (study.memory().peak_bytes, study.memory(BATCH, train=True).peak_bytes)
        for batch in (1, BATCH):
            bound = study.prediction(device, batch).bound_seconds
            rows.append((study.title, study.image, *held, *peaks, batch, bound))
    return view.Table.of((*numbers, "batch", "bound_seconds"), rows, across="batch")


def _shares(studies: Sequence[Study], device: Device) -> view.Table:
    columns = ("network", "part", "parameters_share", OUTPUT_SHARE, "flops_share", "batch", TIME_SHARE)
    rows = [
        (
            study.title, part, *(study.share(quantity, part) for quantity in ("parameters", "output_bytes", "flops")),
            batch, study.time_share(part, device, batch),
        )
        for study in studies for part in PARTS for batch in (1, BATCH)
    ]  # fmt: skip
    return view.Table.of(columns, rows, across="batch")
