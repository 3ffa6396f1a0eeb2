"""Results -> data frames in base units: which columns each table has, in which order. `columns` says what they mean.

A frame holds no totals, so that pandas can sum and sort it; `total_of` makes the row that stands below it. Counts stay
whole numbers, also in a column where some are missing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from costmodel.cost import Cost, Costs, block_of
from costmodel.display import is_missing
from costmodel.report.columns import column
from costmodel.report.formulas import PARTS, parameter_formula, part_of
from costmodel.roofline import GroupPrediction, Prediction

if TYPE_CHECKING:
    import pandas as pd

    from costmodel.chip.accelerator import Accelerator
    from costmodel.chip.dram import Traffic
    from costmodel.chip.evaluation import Evaluation
    from costmodel.chip.fusion import Fusion, Group
    from costmodel.chip.whatif import WhatIfs
    from costmodel.devices import Device
    from costmodel.memory import Fit, Memory, Rung, Savings
    from costmodel.networks import NetworkInfo
    from costmodel.validation import Validation

GROUPS = ("layer", "block", "kind", "operator", "phase")
"""What costs and predictions can be summed by."""

TOTAL = "total"

_COSTS = ("macs", "flops", "read_bytes", "write_bytes", "arithmetic_intensity")


def layers_table(costs: Costs) -> pd.DataFrame:
    """One row a layer, with the book's formula for its parameters."""
    modules = costs.trace.module_by_path

    def formula(name: str, parameters: int) -> str:
        return parameter_formula(modules[name], parameters) if name in modules else ""

    frame = _frame(
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
    frame = _frame(
        (by, *holds, *_COSTS, "flops_share"),
        (
            (
                name,
                *held.get(name, (0, 0))[: len(holds)],
                *_numbers(cost),
                _share(cost.flops, costs.total.flops),
            )
            for name in dict.fromkeys([*groups, *held])
            for cost in (groups.get(name, Cost()),)
        ),
    )
    return _counted(frame, costs, by, depth)


def shares_table(costs: Costs, prediction: Prediction | None = None) -> pd.DataFrame:
    """What convolutions, fully connected layers and the rest have of the whole; with a prediction, of its time."""
    rows = []
    for part in PARTS:
        layers = [layer for layer in costs.layers if part_of(layer.kind) == part]
        cost = Cost.sum(layer.cost for layer in layers)
        parameters = sum(layer.parameters for layer in layers)
        row = [
            part,
            parameters,
            _share(parameters, costs.parameters),
            cost.flops,
            _share(cost.flops, costs.total.flops),
            cost.moved_bytes,
            _share(cost.moved_bytes, costs.total.moved_bytes),
        ]
        if prediction is not None:
            bound = math.fsum(layer.bound_seconds for layer in prediction.layers if part_of(layer.kind) == part)
            row += [bound, _share(bound, prediction.bound_seconds)]
        rows.append(row)
    names = ["part", "parameters", "parameters_share", "flops", "flops_share", "moved_bytes", "moved_share"]
    return _frame([*names, "bound_seconds", "bound_share"] if prediction is not None else names, rows)


def compare_table(
    costs: Sequence[Costs], memories: Sequence[Memory] = (), predictions: Sequence[Prediction] = ()
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
    return _frame(
        ("part", "quantity", "a", "b", "ratio"),
        ((part, name, mine, theirs, theirs / mine if mine else None) for part, name, mine, theirs in rows),
    )


def prediction_table(prediction: Prediction, by: str = "layer", depth: int | None = None) -> pd.DataFrame:
    """One row a layer, block, kind, operator or phase: what bounds it, and for how long."""
    groups: Iterable[GroupPrediction] = prediction.layers if by == "layer" else prediction.by(by, depth).values()
    known = any(row.estimate for row in prediction.operations)
    estimated = ("estimate_seconds", "low_seconds", "high_seconds") if known else ()
    names = (
        by, *(("kind",) if by in ("layer", "operator") else ()), "path", "macs", "flops", "moved_bytes",
        "arithmetic_intensity", "compute_seconds", "memory_seconds", "bound_seconds", *estimated, "bound_share",
        "binding", "flops_per_second",
    )  # fmt: skip
    whole = prediction.bound_seconds
    return _frame(
        names,
        ([_of_group(group, name, group.name if name == by else None, whole) for name in names] for group in groups),
    )


def validation_table(validation: Validation, every: bool = True) -> pd.DataFrame:
    """One row a number of ours beside somebody else's; else only totals, and layers whose numbers differ."""
    from costmodel.validation import TOTAL as SUM

    names = ("source", "phase", "layer", "quantity", "ours", "peer", "difference", "ok", "explanation")
    chosen = (row for row in validation.rows if every or row.layer == SUM or not row.ok)
    return _frame(names, ([getattr(row, name) for name in names] for row in chosen))


def memory_table(memory: Memory, most: int | None = None) -> pd.DataFrame:
    """One row a tensor that is alive at the peak, the largest first; beyond `most`, one row for the rest."""
    held = memory.holders()
    shown, rest = held[:most], held[len(held[:most]) :]
    rows: list[tuple[str, str, int]] = [*shown]
    if rest:
        rows.append((f"{len(rest)} more", "", sum(holder.nbytes for holder in rest)))
    return _frame(
        ("name", "role", "held_bytes", "held_share"),
        ((name, role, nbytes, _share(nbytes, memory.peak_bytes)) for name, role, nbytes in rows),
    )


def traffic_table(traffic: Traffic) -> pd.DataFrame:
    """One row a contraction and buffer: its DRAM traffic, bounds, schedule and tile."""
    names = (
        "layer", "kind", "buffer_bytes", "dram_bytes", "bound_bytes", "compulsory_bytes", "schedule", "tile",
    )  # fmt: skip
    return _frame(names, ([getattr(row, name) for name in names] for row in traffic.rows))


def ladder_table(rungs: Iterable[Rung]) -> pd.DataFrame:
    """One row a way of counting the peak, from what tensors ask for to what the process holds."""
    names = ("rung", "rung_bytes", "added_bytes", "adds")
    return _frame(names, ((rung.name, rung.nbytes, rung.added_bytes, rung.adds) for rung in rungs))


def fits_table(fits: Iterable[Fit]) -> pd.DataFrame:
    """One row a device: the largest batch that it runs, and what that takes."""
    names = (
        "device", "memory_bytes", "largest_batch", "easy_batch", "bound_batch", "requested_bytes", "reserved_bytes",
        "process_bytes",
    )  # fmt: skip
    return _frame(
        names,
        (
            (
                fit.device.title,
                fit.device.memory_bytes,
                fit.batch,
                fit.easy_batch,
                fit.bound,
                fit.point.requested_bytes,
                fit.point.reserved_bytes,
                fit.point.process_bytes,
            )
            for fit in fits
        ),
    )


def savings_table(savings: Savings) -> pd.DataFrame:
    """One row a lever, the largest saving first; what could not be run has no numbers."""
    return _frame(
        ("lever", "saving_bytes", "peak_bytes", "reserved_bytes", "saved_bytes", "how", "why"),
        (
            (s.lever.name, s.saving_bytes, s.peak_bytes, s.reserved_bytes, s.saved_bytes, s.lever.how, s.why)
            for s in savings.largest_first()
        ),
    )


def fusion_table(fusions: Iterable[Fusion]) -> pd.DataFrame:
    """One row a group of layers, from its first to its last, and buffer: what it moves, and its layers one by one."""
    own = (
        "dram_bytes", "bound_bytes", "compulsory_bytes", "schedule", "tile", "alone_bytes", "apart_bytes", "extra_macs",
    )  # fmt: skip

    def row(group: Group, buffer_bytes: int) -> list[Any]:
        ends = dict.fromkeys((group.layers[0], group.layers[-1]))
        return [" to ".join(ends), group.kind, buffer_bytes, *(getattr(group, name) for name in own)]

    return _frame(
        ("layers", "kind", "buffer_bytes", *own),
        [row(group, fusion.buffer_bytes) for fusion in fusions for group in fusion.groups],
    )


def devices_table(devices: Iterable[Device]) -> pd.DataFrame:
    """One row a device: dense peaks by precision path, and its memory."""
    paths = ("fp64", "fp64_tensor", "fp32", "tf32", "fp16", "bf16", "fp8", "int8")
    sizes = ("memory_bandwidth", "memory_bytes", "l2_bytes", "launch_seconds")
    return _frame(
        ("name", "title", *paths, *sizes, "date", "sources"),
        (
            (
                device.name,
                device.title,
                *(device.peaks.get(path) for path in paths),
                *(getattr(device, name) for name in sizes),
                device.date,
                device.source,
            )
            for device in devices
        ),
    )


def calibration_table(device: Device) -> pd.DataFrame:
    """One row a class of operations and precision path that a device was calibrated for."""
    names = (
        "class", "path", "fixed_seconds", "cold_seconds", "class_flops", "near_bandwidth", "far_bandwidth",
        "fresh_bandwidth", "shapes", "error_share", "low", "high",
    )  # fmt: skip
    classes = device.calibration.classes if device.calibration else {}
    return _frame(
        names,
        (
            (
                name,
                path,
                each.fixed_seconds,
                each.cold_seconds,
                each.flops_per_second,
                each.near_bytes_per_second,
                each.far_bytes_per_second,
                each.fresh_bytes_per_second,
                each.shapes,
                each.error,
                each.low,
                each.high,
            )
            for name, paths in classes.items()
            for path, each in paths.items()
        ),
    )


def networks_table(networks: Iterable[NetworkInfo]) -> pd.DataFrame:
    """One row a network that has a name."""
    names = ("name", "title", "group", "input", "classes")
    return _frame(names, ([getattr(network, name) for name in names] for network in networks))


def evaluation_table(evaluation: Evaluation) -> pd.DataFrame:
    """One row a contraction: its times on an accelerator, what binds it, its traffic and energy."""
    energy = ("joules",) if all(layer.energy is not None for layer in evaluation.layers) else ()
    names = (
        "layer", "macs", "utilisation", "array_seconds", "dram_seconds", "overlapped_seconds", "serial_seconds",
        "binding", "dram_bytes", "schedule", *energy,
    )  # fmt: skip
    return _frame(
        names,
        (
            (
                layer.nest.layer,
                layer.nest.macs,
                layer.utilisation,
                max(layer.array_seconds, layer.buffer_seconds),
                layer.dram_seconds,
                layer.overlapped_seconds,
                layer.serial_seconds,
                layer.binding,
                layer.dram_bytes,
                layer.tiling.schedule,
                *((layer.energy.total,) if layer.energy is not None else ()),
            )
            for layer in evaluation.layers
        ),
    )


def designs_table(designs: pd.DataFrame) -> pd.DataFrame:
    """Designs of an exploration, an array in one column and what they are in the first ones."""
    names = [
        "network", "array", "dataflow", "operand", "clock_hertz", "buffer_bytes", "dram_bandwidth", "area_mm2",
        "frames_per_second", "serial_frames_per_second", "watts", "frames_per_joule", "frames_per_second_per_mm2",
    ]  # fmt: skip
    array = designs["rows"].astype(str) + "x" + designs["columns"].astype(str)
    words = {name: designs[name].astype(str) for name in ("network", "dataflow", "operand")}
    plain = designs.assign(array=array, **words)
    return plain[[name for name in names if name in plain.columns]].reset_index(drop=True)


def what_ifs_table(found: WhatIfs) -> pd.DataFrame:
    """One row a change: a frame's times, traffic and energy after it."""
    names = (
        "change",
        "speedup",
        "overlapped_seconds",
        "serial_seconds",
        "macs",
        "dram_bytes",
        "joules",
        "does_nothing",
    )
    return _frame(
        names,
        ([_whole(name, getattr(outcome, name)) for name in names] for outcome in found.outcomes),
    )


def accelerators_table(accelerators: Iterable[Accelerator]) -> pd.DataFrame:
    """One row an accelerator."""
    names = (
        "name", "title", "array", "dataflow", "operand", "clock_hertz", "buffer_bytes", "dram_bandwidth", "ridge_point",
        "technology",
    )  # fmt: skip
    return _frame(
        names,
        (
            (
                chip.name,
                chip.title,
                f"{chip.rows}x{chip.columns}",
                chip.dataflow,
                chip.operand,
                chip.clock_hertz,
                chip.buffer_bytes,
                chip.dram_bandwidth,
                chip.ridge_point,
                chip.technology,
            )
            for chip in accelerators
        ),
    )


def total_of(frame: pd.DataFrame) -> dict[str, Any] | None:
    """The row of sums under a frame, or None where nothing adds up; what does not add up is missing from it.

    Ratios are those of the sums.
    """
    sums: dict[str, Any] = {
        str(name): _sum(frame[name]) for name in frame.columns if column(str(name)).adds and _complete(frame, str(name))
    }
    if not sums:
        return None
    moved = sums["moved_bytes"] if "moved_bytes" in sums else sums.get("read_bytes", 0) + sums.get("write_bytes", 0)
    ratios = {
        "arithmetic_intensity": _share(sums.get("flops", 0), moved),
        "flops_per_second": _share(sums.get("flops", 0), sums.get("bound_seconds", 0)),
    }
    return (
        {str(frame.columns[0]): TOTAL} | sums | {name: value for name, value in ratios.items() if name in frame.columns}
    )


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as plain Python values: int, float, str, bool, list, None."""
    names = [str(name) for name in frame.columns]
    values = frame.astype(object).where(frame.notna(), None)
    return [dict(zip(names, map(_plain, row), strict=True)) for row in values.itertuples(index=False)]


def csv(frame: pd.DataFrame) -> str:
    """A frame as CSV: base units, whole numbers in full, shapes as 1x96x54x54, nothing where a value is missing."""
    lines: list[Iterable[Any]] = [frame.columns, *(row.values() for row in records(frame))]
    return "".join(",".join(map(_csv_cell, line)) + "\n" for line in lines)


def _csv_cell(value: Any) -> str:
    """A value as RFC 4180 has it; Python's own writer would leave a lone carriage return bare."""
    text = "" if value is None else "x".join(map(str, value)) if isinstance(value, list) else str(value)
    return '"' + text.replace('"', '""') + '"' if re.search(r'[",\r\n]', text) else text


def _frame(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> pd.DataFrame:
    """A frame whose whole numbers stay whole where others are missing."""
    import pandas as pd

    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    return pd.DataFrame({name: _series(values) for name, values in zip(names, columns, strict=True)})


def _series(values: Sequence[Any]) -> pd.Series[Any]:
    import pandas as pd

    kinds = {type(value) for value in values}
    return pd.Series(list(values), dtype=None if kinds in ({int}, {float}, {bool}) else object)


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


def _of_group(group: GroupPrediction, name: str, title: str | None, whole: float) -> Any:
    if title is not None:
        return title
    if name == "bound_share":
        return _share(group.bound_seconds, whole)
    return getattr(group if hasattr(group, name) else group.cost, name)


def _whole(name: str, value: Any) -> Any:
    """A frame's counts, which a batch's division leaves as fractions, to the nearest."""
    return round(value) if name in ("macs", "dram_bytes") else value


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _complete(frame: pd.DataFrame, name: str) -> bool:
    """Whether a column of estimates has one for each row that takes time: a sum of some would pass for that of all."""
    if name != "estimate_seconds":
        return True
    return not any(map(is_missing, frame[name][frame["bound_seconds"] > 0]))


def _sum(values: pd.Series[Any]) -> Any:
    """Whole numbers exactly, as Python's integers; times with one rounding."""
    known = [_plain(value) for value in values if not is_missing(value)]
    return sum(known) if all(isinstance(value, int) for value in known) else math.fsum(known)


def _plain(value: Any) -> Any:
    """Numpy's numbers as Python's, tuples as lists, NaN as None."""
    if is_missing(value):
        return None
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.item() if hasattr(value, "item") else value
