"""What a chip makes of a network: DRAM traffic, fusion, time and energy on an accelerator, designs and changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from costmodel.report.tables.frames import frame_of

if TYPE_CHECKING:
    import pandas as pd

    from costmodel.chip.accelerator import Accelerator
    from costmodel.chip.dram import Traffic
    from costmodel.chip.evaluation import Evaluation
    from costmodel.chip.fusion import Fusion, Group
    from costmodel.chip.whatif import WhatIfs


def traffic_table(traffic: Traffic) -> pd.DataFrame:
    """One row a contraction and buffer: its DRAM traffic, bounds, schedule and tile, and the traffic by operand."""
    names = (
        "layer", "kind", "buffer_bytes", "dram_bytes", "bound_bytes", "compulsory_bytes", "schedule", "tile",
        "input_bytes", "weight_bytes", "output_bytes", "partial_bytes",
    )  # fmt: skip
    return frame_of(names, ([getattr(row, name) for name in names] for row in traffic.rows))


def fusion_table(fusions: Iterable[Fusion]) -> pd.DataFrame:
    """One row a group of layers, from its first to its last, and buffer: what it moves, and its layers one by one.

    Its output bytes hold the partial sums that go and come back.
    """
    own = (
        "dram_bytes", "bound_bytes", "compulsory_bytes", "schedule", "tile", "input_bytes", "weight_bytes",
        "output_bytes", "layer_by_layer_bytes", "pooling_bytes", "recomputed_macs",
    )  # fmt: skip

    def row(group: Group, buffer_bytes: int) -> list[Any]:
        ends = dict.fromkeys((group.layers[0], group.layers[-1]))
        return [" to ".join(ends), group.kind, buffer_bytes, *(getattr(group, name) for name in own)]

    return frame_of(
        ("layers", "kind", "buffer_bytes", *own),
        [row(group, fusion.buffer_bytes) for fusion in fusions for group in fusion.groups],
    )


def accelerators_table(accelerators: Iterable[Accelerator]) -> pd.DataFrame:
    """One row an accelerator."""
    names = (
        "name", "title", "array", "dataflow", "operand", "clock_hertz", "buffer_bytes", "dram_bandwidth", "ridge_point",
        "technology",
    )  # fmt: skip
    return frame_of(
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


def evaluation_table(evaluation: Evaluation) -> pd.DataFrame:
    """One row a contraction: its times on an accelerator, what binds it, its traffic and energy."""
    energy = ("joules",) if all(layer.energy is not None for layer in evaluation.layers) else ()
    names = (
        "layer", "macs", "utilisation", "array_seconds", "dram_seconds", "overlapped_seconds", "serial_seconds",
        "binding", "dram_bytes", "schedule", *energy,
    )  # fmt: skip
    return frame_of(
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


def designs_table(designs: pd.DataFrame, last: str = "frames_per_second_per_mm2") -> pd.DataFrame:
    """Designs of an exploration, an array in one column; `last` is a column of theirs that stands at the end."""
    names = [
        "network", "array", "dataflow", "operand", "clock_hertz", "buffer_bytes", "dram_bandwidth", "area_mm2",
        "frames_per_second", "serial_frames_per_second", "watts", "frames_per_joule", last,
    ]  # fmt: skip
    array = designs["rows"].astype(str) + "x" + designs["columns"].astype(str)
    words = {name: designs[name].astype(str) for name in ("network", "dataflow", "operand")}
    plain = designs.assign(array=array, **words)
    return plain[[name for name in names if name in plain.columns]].reset_index(drop=True)


def what_ifs_table(found: WhatIfs) -> pd.DataFrame:
    """One row a change: a frame's times, traffic and energy after it, and the chip's area where there is one."""
    areas = ("area_mm2",) if any(outcome.area_mm2 is not None for outcome in found.outcomes) else ()
    names = (
        "change",
        "speedup",
        "overlapped_seconds",
        "serial_seconds",
        "macs",
        "dram_bytes",
        "joules",
        *areas,
        "does_nothing",
    )
    return frame_of(
        names,
        ([_whole(name, getattr(outcome, name)) for name in names] for outcome in found.outcomes),
    )


def _whole(name: str, value: Any) -> Any:
    """A frame's counts, which a batch's division leaves as fractions, to the nearest."""
    return round(value) if name in ("macs", "dram_bytes") else value
