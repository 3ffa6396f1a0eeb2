"""How long a network takes on a device, and what the devices are: peaks, memory, calibration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from costmodel.report.tables.frames import frame_of, share
from costmodel.roofline import GroupPrediction, Prediction

if TYPE_CHECKING:
    import pandas as pd

    from costmodel.devices import Device


def prediction_table(prediction: Prediction, by: str = "layer", depth: int | None = None) -> pd.DataFrame:
    """One row a layer, block, kind, operator or phase: what bounds it, and for how long."""
    groups: Iterable[GroupPrediction] = prediction.layers if by == "layer" else prediction.by(by, depth).values()
    known = any(row.estimate for row in prediction.operations)
    estimated = _ESTIMATE if known else ()
    names = (
        by, *(("kind",) if by in ("layer", "operator") else ()), "path", "macs", "flops", "moved_bytes",
        "arithmetic_intensity", "compute_seconds", "memory_seconds", "bound_seconds", *estimated, "bound_share",
        "binding", "flops_per_second",
    )  # fmt: skip
    whole = prediction.bound_seconds
    return frame_of(
        names,
        ([_of_group(group, name, group.name if name == by else None, whole) for name in names] for group in groups),
    )


def batches_table(predictions: Mapping[int, Prediction]) -> pd.DataFrame:
    """One row a batch: how long a run takes, and how many samples that makes a second."""
    estimated = all(prediction.estimate for prediction in predictions.values())
    names = ("batch", "bound_seconds", *(_ESTIMATE if estimated else ()), "samples_per_second")
    rows = []
    for batch, each in predictions.items():
        found = [getattr(each.estimate, name.replace("estimate_", "")) for name in _ESTIMATE] if estimated else []
        rows.append([batch, each.bound_seconds, *found, batch / each.seconds])
    return frame_of(names, rows)


_ESTIMATE = ("estimate_seconds", "low_seconds", "high_seconds")


def devices_table(devices: Iterable[Device]) -> pd.DataFrame:
    """One row a device: dense peaks by precision path, and its memory."""
    paths = ("fp64", "fp64_tensor", "fp32", "tf32", "fp16", "bf16", "fp8", "int8")
    sizes = ("memory_bandwidth", "memory_bytes", "l2_bytes", "launch_seconds")
    return frame_of(
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
    return frame_of(
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


def _of_group(group: GroupPrediction, name: str, title: str | None, whole: float) -> Any:
    if title is not None:
        return title
    if name == "bound_share":
        return share(group.bound_seconds, whole)
    return getattr(group if hasattr(group, name) else group.cost, name)
