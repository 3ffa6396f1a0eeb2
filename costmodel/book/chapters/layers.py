"""Every layer of every network, with the book's formula for its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from costmodel import view
from costmodel.book.engine import Chapter
from costmodel.book.model import Table
from costmodel.book.study import Study
from costmodel.devices import Device


@dataclass(frozen=True)
class Missing:
    """An operator without a rule."""

    operator: str
    calls: int


@dataclass(frozen=True)
class Network:
    """What is said below a network's table."""

    table: str
    title: str
    not_counted: tuple[Missing, ...]


@dataclass(frozen=True)
class Numbers:
    """What the sentences say; the rest is in the tables."""

    device: str
    networks: tuple[Network, ...]


def layers(studies: Sequence[Study], device: Device) -> Chapter:
    """A table for each network: what its layers hold and compute, and what binds them."""
    networks = tuple(
        Network(
            f"{study.slug}-layers",
            study.title,
            tuple(Missing(entry.operator, entry.count) for entry in study.costs().unmodelled),
        )
        for study in studies
    )
    tables = {
        network.table: Table(network.table, _table(study, device), folded=True)
        for study, network in zip(studies, networks, strict=True)
    }
    return Chapter("layers", Numbers(device.title, networks), tables)


def _table(study: Study, device: Device) -> view.Table:
    """What a layer is from the costs, how long it takes from the prediction; the rows are the same."""
    costs, bounds = study.costs().table(), study.prediction(device).table()
    held = costs.select(costs.names[0], *("type", "output_shape", "parameter_formula", "parameters", "macs", "flops"))
    return held.beside(bounds.select("moved_bytes", "arithmetic_intensity", "bound_seconds", "binding")).summed()
