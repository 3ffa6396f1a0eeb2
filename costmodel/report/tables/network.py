"""What networks hold and do: layer by layer, in groups, in shares, beside another network and beside other programs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from costmodel.cost import Cost, Costs
from costmodel.formulas import PARTS, parameter_formula
from costmodel.grouping import block_of
from costmodel.parts import part_of_operation, parts
from costmodel.report.tables.frames import frame_of, share
from costmodel.roofline import Prediction

if TYPE_CHECKING:
    import pandas as pd

    from costmodel.memory import MemoryTimeline
    from costmodel.networks import NetworkInfo
    from costmodel.validation import Validation

GROUPS = ("layer", "block", "kind", "operator", "phase")
"""What costs and predictions can be summed by."""

_COSTS = ("macs", "flops", "read_bytes", "write_bytes", "arithmetic_intensity")


def layers_table(costs: Costs) -> pd.DataFrame:
    """One row a layer, with the book's formula for its parameters."""
    modules = costs.trace.module_by_path

    def formula(name: str, parameters: int) -> str:
        return parameter_formula(modules[name], parameters) if name in modules else ""

    frame = frame_of(
        ("layer", "kind", "type", "output_shape", "parameter_formula", "parameters", "parameter_bytes", *_COSTS),
        (
            (
                layer.name,
                layer.kind,
                layer.type,
                layer.output_shape,
                formula(layer.name, layer.parameters),
                layer.parameters,
                layer.parameter_bytes,
                *_numbers(layer.cost),
            )
            for layer in costs.layers
        ),
    )
    return _counted(frame, costs, "layer")


def groups_table(costs: Costs, by: str, depth: int | None = None) -> pd.DataFrame:
    """One row a block, kind, operator or phase, in the order of execution.

    Parameters stand with the block or the kind of the layer that holds them; operators and phases hold none.
    Raises InputError for another `by`.
    """
    if by == "layer":
        return layers_table(costs)
    groups = costs.by(by, depth)
    held = _parameters_by(costs, by, depth)
    holds = ("parameters", "parameter_bytes") if held else ()
    frame = frame_of(
        (by, *holds, *_COSTS, "flops_share"),
        (
            (
                name,
                *held.get(name, (0, 0))[: len(holds)],
                *_numbers(cost),
                share(cost.flops, costs.total.flops),
            )
            for name in dict.fromkeys([*groups, *held])
            for cost in (groups.get(name, Cost()),)
        ),
    )
    return _counted(frame, costs, by, depth)


def shares_table(costs: Costs, prediction: Prediction | None = None) -> pd.DataFrame:
    """What convolutions, fully connected layers and the rest have of the whole; with a prediction, of its time."""
    rows = []
    whole, part_of = parts(costs), part_of_operation(costs)
    for part in PARTS:
        cost = whole[part].cost
        row = [
            part,
            whole[part].parameters,
            share(whole[part].parameters, costs.parameters),
            cost.flops,
            share(cost.flops, costs.total.flops),
            cost.moved_bytes,
            share(cost.moved_bytes, costs.total.moved_bytes),
        ]
        if prediction is not None:
            mine = (row for row in prediction.operations if part_of(row.operation, row.kind) == part)
            bound = math.fsum(row.bound_seconds for row in mine)
            row += [bound, share(bound, prediction.bound_seconds)]
        rows.append(row)
    names = ["part", "parameters", "parameters_share", "flops", "flops_share", "moved_bytes", "moved_share"]
    return frame_of([*names, "bound_seconds", "bound_share"] if prediction is not None else names, rows)


def compare_table(
    costs: Sequence[Costs], memories: Sequence[MemoryTimeline] = (), predictions: Sequence[Prediction] = ()
) -> pd.DataFrame:
    """Two networks side by side: the whole, then the convolutions, the fully connected layers and the rest.

    A row's quantity is the name of a column, which says in what unit its values are.
    """
    wholes = [
        {"parameters": each.parameters, "parameter_bytes": each.parameter_bytes}
        | dict(zip(_COSTS, _numbers(each.total), strict=True))
        | ({"peak_bytes": memories[index].peak_bytes} if memories else {})
        | ({"bound_seconds": predictions[index].bound_seconds} if predictions else {})
        for index, each in enumerate(costs)
    ]
    rows: list[tuple[str, str, Any, Any]] = [("all", name, wholes[0][name], wholes[1][name]) for name in wholes[0]]
    shares = [shares_table(each, predictions[i] if predictions else None) for i, each in enumerate(costs)]
    for index, part in enumerate(PARTS):
        for name in (str(name) for name in shares[0].columns if name != "part" and not name.endswith("_share")):
            mine, theirs = (frame[name].tolist()[index] for frame in shares)
            if mine or theirs:
                rows.append((part, name, mine, theirs))
    return frame_of(
        ("part", "quantity", "a", "b", "ratio"),
        ((part, name, mine, theirs, theirs / mine if mine else None) for part, name, mine, theirs in rows),
    )


def validation_table(validation: Validation, every: bool = True) -> pd.DataFrame:
    """One row a number of ours beside somebody else's; else only totals, and layers whose numbers differ."""
    from costmodel.validation import TOTAL as SUM

    names = ("source", "phase", "layer", "quantity", "ours", "peer", "difference", "ok", "explanation")
    chosen = (row for row in validation.rows if every or row.layer == SUM or not row.ok)
    return frame_of(names, ([getattr(row, name) for name in names] for row in chosen))


def networks_table(networks: Iterable[NetworkInfo]) -> pd.DataFrame:
    """One row a network that has a name."""
    names = ("name", "title", "group", "input", "classes")
    return frame_of(names, ([getattr(network, name) for name in names] for network in networks))


def _numbers(cost: Cost) -> tuple[float, ...]:
    return tuple(getattr(cost, name) for name in _COSTS)


def _counted(frame: pd.DataFrame, costs: Costs, by: str, depth: int | None = None) -> pd.DataFrame:
    """The frame with a column more, where some operations have no rule: which rows lack theirs."""
    missing = tuple(entry for entry in costs.operations if not entry.modelled)
    if not missing:
        return frame
    incomplete = Costs(costs.trace, missing).by(by, depth)
    return frame.assign(counted=["not all" if name in incomplete else "all" for name in frame[by]])


def _parameters_by(costs: Costs, by: str, depth: int | None) -> Mapping[str, tuple[int, int]]:
    """Parameters and their bytes by block or kind."""
    if by not in ("block", "kind"):
        return {}
    leaves = {module.path for module in costs.trace.modules if module.leaf}
    sums: dict[str, tuple[int, int]] = {}
    for layer in costs.layers:
        if layer.parameters:
            name = layer.kind if by == "kind" else block_of(layer.name, layer.name in leaves, depth)
            held, nbytes = sums.get(name, (0, 0))
            sums[name] = held + layer.parameters, nbytes + layer.parameter_bytes
    return sums
