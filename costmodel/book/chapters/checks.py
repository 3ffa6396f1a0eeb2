"""Our counts against other programs' and published numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from costmodel import view
from costmodel.book.engine import Chapter
from costmodel.book.model import Table
from costmodel.book.study import Study
from costmodel.validation import TOTAL, ComparisonRow, Validation

_Entry = tuple[Study, ComparisonRow]


@dataclass(frozen=True)
class Numbers:
    """How many numbers were compared, layer by layer and in total, and how they turned out."""

    compared: int
    equal: int
    explained: int
    unexplained: int
    totals_differing: int
    layers_differing: int
    notes: tuple[str, ...]
    """What could not be compared, and why."""


def checks(validations: Mapping[Study, Validation]) -> Chapter:
    """The chapter; without tables if nothing was compared."""
    rows = [(study, row) for study, validation in validations.items() for row in validation.rows]
    totals = [(study, row) for study, row in rows if row.layer == TOTAL]
    differing = [(study, row) for study, row in rows if row.difference]
    chosen = {
        "differing": [(study, row) for study, row in differing if row.layer == TOTAL],
        "totals": totals,
        "layers": [(study, row) for study, row in differing if row.layer != TOTAL],
    }
    return Chapter(
        "checks",
        Numbers(
            compared=len(rows),
            equal=len(rows) - len(differing),
            explained=sum(row.ok for _, row in differing),
            unexplained=sum(not row.ok for _, row in differing),
            totals_differing=len(chosen["differing"]),
            layers_differing=len(chosen["layers"]),
            notes=tuple(dict.fromkeys(note for validation in validations.values() for note in validation.notes)),
        ),
        tables={
            name: Table(f"checks-{name}", _table(entries, name == "layers"), folded=name != "differing")
            for name, entries in chosen.items()
            if entries
        },
    )


def _table(entries: Sequence[_Entry], with_layer: bool) -> view.Table:
    where = ("layer",) if with_layer else ()
    columns = (
        *("network", *where, "quantity", "phase", "source", "ours", "peer", "difference"), "verdict", "explanation",
    )  # fmt: skip
    return view.Table.of(columns, [_row(study, row, with_layer) for study, row in entries])


def _row(study: Study, row: ComparisonRow, with_layer: bool) -> tuple[object, ...]:
    verdict = "agrees" if not row.difference else "explained" if row.ok else "differs"
    where = (row.layer,) if with_layer else ()
    numbers = (row.ours, row.peer, row.difference)
    return (study.title, *where, row.quantity, row.phase, row.source, *numbers, verdict, row.explanation)
