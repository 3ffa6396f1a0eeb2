"""What the batch does to throughput and memory, and when the weights' traffic stops mattering."""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd

from costmodel.devices import Device
from costmodel.report.exercises.words import times
from costmodel.report.model import Formula, Paragraph, Section, Table, code, slug
from costmodel.report.study import FC, Study, part_of
from costmodel.units import iec, percent

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_ENDLESS = 1 << 16
"""A batch beyond which only what grows with it counts."""


def batch_size(study: Study, device: Device) -> Section:
    """Batch size against the bound on throughput, and against memory."""
    limit = _images_per_second_limit(study, device)
    first = study.prediction(device).bound_seconds
    nine_tenths = smallest_batch(lambda batch: batch / study.prediction(device, batch).bound_seconds >= 0.9 * limit)
    weights, an_image = _traffic(study)
    tenth = math.ceil(9 * weights / an_image)
    answer = (
        f"On the {device.title} at most {1 / first:,.0f} images a second at batch 1 and {limit:,.0f} at an endless "
        f"batch, {times(limit * first)} as many; a batch of {nine_tenths} reaches nine tenths of that. "
        f"{_turning_point(study, device)} From batch {tenth:,} on the weights are less than a tenth of the traffic."
    )
    return Section(
        f"What does the batch do to {study.short}'s throughput and memory?",
        (
            Paragraph(
                "A batch of B images moves the weights once and everything else B times, and computes everything B "
                "times. The traffic of a forward pass, from the traces:"
            ),
            Formula(
                (
                    f"traffic(B) = {iec(weights)} of weights + B · {iec(an_image)} an image",
                    f"weights' share at B = 1: {percent(weights / (weights + an_image))}, "
                    f"at B = {tenth:,}: {percent(weights / (weights + tenth * an_image))}",
                )
            ),
            Table(
                f"{study.slug}-{slug(device.name)}-batch",
                f"{study.title} on the {device.title}: batch against throughput and memory",
                _frame(study, device, limit),
                note="Throughput is what the bound allows, so no unfused run exceeds it; memory is the peak of "
                "requested bytes, training is a step with SGD, momentum and weight decay.",
                labels={
                    "images_per_second": "images/s",
                    "limit_share": "of the limit",
                    "weight_traffic_share": "weights in traffic",
                    "inference_peak_bytes": "inference",
                    "training_peak_bytes": "training",
                },
            ),
        ),
        answer=answer,
        anchor="batch",
    )


def smallest_batch(enough: Callable[[int], bool], limit: int = _ENDLESS) -> int:
    """The smallest batch for which `enough` holds, if it holds for all larger ones; `limit` if it never does."""
    high = 1
    while high < limit and not enough(high):
        high *= 2
    low = high // 2
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _turning_point(study: Study, device: Device) -> str:
    """From which batch on arithmetic binds the largest fully connected layer."""
    layers = [layer for layer in study.costs().layers if part_of(layer.kind) == FC]
    if not layers:
        return ""
    name = max(layers, key=lambda layer: layer.parameters).name

    def computes(batch: int) -> bool:
        return next(row for row in study.prediction(device, batch).layers if row.name == name).binding == "compute"

    batch = smallest_batch(computes)
    if batch == 1 or batch >= _ENDLESS:
        bound = f"by {'arithmetic' if batch == 1 else 'memory'} at any batch"
    else:
        bound = f"by memory up to batch {batch - 1} and by arithmetic from {batch} on"
    return f"The largest fully connected layer, {code(name)}, is bound {bound}."


def _images_per_second_limit(study: Study, device: Device) -> float:
    """Throughput as the batch grows without end: an image's share of what grows with the batch."""
    one, two = (study.prediction(device, batch).bound_seconds for batch in (_ENDLESS, 2 * _ENDLESS))
    return _ENDLESS / (two - one)


def _traffic(study: Study) -> tuple[int, int]:
    """Bytes that a forward moves once, and bytes that it moves for each image: traffic is linear in the batch."""
    one, two = (study.costs(batch).total.moved_bytes for batch in (1, 2))
    return 2 * one - two, two - one


def _frame(study: Study, device: Device, limit: float) -> pd.DataFrame:
    weights, an_image = _traffic(study)
    return pd.DataFrame(
        [_row(study, device, batch, limit, weights / (weights + batch * an_image)) for batch in BATCHES]
    )


def _row(study: Study, device: Device, batch: int, limit: float, weights_share: float) -> dict[str, float]:
    seconds = study.prediction(device, batch).bound_seconds
    return {
        "batch": batch,
        "bound_seconds": seconds,
        "images_per_second": math.floor(batch / seconds),
        "limit_share": batch / seconds / limit,
        "weight_traffic_share": weights_share,
        "inference_peak_bytes": study.memory(batch).peak_bytes,
        "training_peak_bytes": study.memory(batch, train=True).peak_bytes,
    }
