"""Two networks side by side, and what convolutions, fully connected layers and the rest have of one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from costmodel.cost import NUMBERS, Costs
from costmodel.formulas import PARTS
from costmodel.parts import part_of_operation, parts
from costmodel.view import Table, share

if TYPE_CHECKING:
    from costmodel.memory import MemoryTimeline
    from costmodel.roofline import Prediction


def parts_table(costs: Costs, prediction: Prediction | None = None) -> Table:
    """What each part has of the whole; with a prediction, also of its time."""
    found, part_of = parts(costs), part_of_operation(costs)
    rows = []
    for name, part in found.items():
        row = {
            "part": name,
            "parameters": part.parameters,
            "parameters_share": share(part.parameters, costs.parameters),
            "flops": part.flops,
            "flops_share": share(part.flops, costs.total.flops),
            "moved_bytes": part.cost.moved_bytes,
            "moved_share": share(part.cost.moved_bytes, costs.total.moved_bytes),
        }
        if prediction is not None:
            mine = (row for row in prediction.operations if part_of(row.operation, row.kind) == name)
            bound = math.fsum(each.bound_seconds for each in mine)
            row |= {"bound_seconds": bound, "bound_share": share(bound, prediction.bound_seconds)}
        rows.append(row)
    return Table.of(rows[0], [list(row.values()) for row in rows], title=costs.trace.model)


def compare_table(
    costs: Sequence[Costs], memories: Sequence[MemoryTimeline] = (), predictions: Sequence[Prediction] = ()
) -> Table:
    """Two networks side by side: the whole, then the convolutions, the fully connected layers and the rest.

    A row's quantity is the name of a column, which says in what unit its values are.
    """
    wholes = [
        {"parameters": each.parameters, "parameter_bytes": each.parameter_bytes}
        | {name: getattr(each.total, name) for name in NUMBERS}
        | ({"peak_bytes": memories[index].peak_bytes} if memories else {})
        | ({"bound_seconds": predictions[index].bound_seconds} if predictions else {})
        for index, each in enumerate(costs)
    ]
    rows: list[tuple[str, str, Any, Any]] = [("all", name, wholes[0][name], wholes[1][name]) for name in wholes[0]]
    a, b = (parts_table(each, predictions[i] if predictions else None) for i, each in enumerate(costs))
    names = [name for name in a.names if name != "part" and not name.endswith("_share")]
    rows += [
        (part, name, a[name][index], b[name][index])
        for index, part in enumerate(PARTS)
        for name in names
        if a[name][index] or b[name][index]
    ]
    return Table.of(
        ("part", "quantity", "a", "b", "ratio"),
        [(part, name, mine, theirs, theirs / mine if mine else None) for part, name, mine, theirs in rows],
        title=" and ".join(each.trace.model for each in costs),
    )
