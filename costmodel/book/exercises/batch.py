"""What the batch does to throughput and memory, and when the weights' traffic stops mattering."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pandas as pd

from costmodel import plots
from costmodel.book.exercises.words import BEATEN, counted, times
from costmodel.book.model import Figure, Formula, Paragraph, Section, Table, code, slug
from costmodel.book.study import FC, Study, part_of
from costmodel.devices import Device
from costmodel.units import iec, percent, seconds

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_ENDLESS = 1 << 16
"""A batch beyond which only what grows with it counts."""


def batch_size(studies: Sequence[Study], device: Device) -> Section:
    """Batch size against the bound on throughput, and against memory, of the first network and beside the others."""
    study = studies[0]
    limit = _images_per_second_limit(study, device)
    first = study.prediction(device).bound_seconds
    nine_tenths = smallest_batch(lambda batch: batch / study.prediction(device, batch).bound_seconds >= 0.9 * limit)
    weights, an_image = _traffic(study)
    tenth = math.ceil(9 * weights / an_image)
    answer = (
        f"On the {device.title} the bound allows {1 / first:,.0f} images a second at batch 1 and {limit:,.0f} at an "
        f"endless batch, {times(limit * first)} as many; a batch of {nine_tenths} reaches nine tenths of that. "
        f"{launches(study, device)} {_turning_point(study, device)} From batch {tenth:,} on the weights are less than "
        "a tenth of the traffic."
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
            Figure(
                f"batch-{slug(device.name)}",
                f"Batch against throughput and memory on the {device.title}",
                lambda: plots.batches({each.title: _curve(each, device) for each in studies}, device.title)[0],
                note=f"Left: what the bound allows in a forward pass. {BEATEN} Right: the peak of requested bytes of a "
                "training step with SGD, momentum and weight decay.",
            ),
            Table(
                f"{study.slug}-{slug(device.name)}-batch",
                f"{study.title} on the {device.title}: batch against throughput and memory",
                _frame(study, device, limit),
                note=f"Throughput is what the bound allows, without the time to start operations. {BEATEN} Memory is "
                "the peak of requested bytes, training is a step with SGD, momentum and weight decay.",
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


def launches(study: Study, device: Device) -> str:
    """What starting the operations costs, which no bound has in: what is known of it, in a sentence or two."""
    one = study.prediction(device)
    started = sum(row.binding != "none" for row in one.operations)
    text = f"Starting the {counted(started, 'operation')} of a pass is not in it"
    if device.launch_seconds is None:
        return (
            f"{text}: what a start costs on this device is not known, but at "
            f"{seconds(one.bound_seconds / started)} each the starts alone take as long as the bound at batch 1."
        )
    taken = started * device.launch_seconds
    return (
        f"{text}: at {seconds(device.launch_seconds)} each that is {seconds(taken)}, "
        f"{times(taken / one.bound_seconds)} the bound at batch 1."
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


def _curve(study: Study, device: Device) -> pd.DataFrame:
    """What the figure shows of a network: a row a batch."""
    return pd.DataFrame(
        {
            "batch": batch,
            "images_per_second": batch / study.prediction(device, batch).bound_seconds,
            "training_peak_bytes": study.memory(batch, train=True).peak_bytes,
        }
        for batch in BATCHES
    )


def _frame(study: Study, device: Device, limit: float) -> pd.DataFrame:
    weights, an_image = _traffic(study)
    return pd.DataFrame(
        [_row(study, device, batch, limit, weights / (weights + batch * an_image)) for batch in BATCHES]
    )


def _row(study: Study, device: Device, batch: int, limit: float, weights_share: float) -> dict[str, float]:
    bound = study.prediction(device, batch).bound_seconds
    return {
        "batch": batch,
        "bound_seconds": bound,
        "images_per_second": math.floor(batch / bound),
        "limit_share": batch / bound / limit,
        "weight_traffic_share": weights_share,
        "inference_peak_bytes": study.memory(batch).peak_bytes,
        "training_peak_bytes": study.memory(batch, train=True).peak_bytes,
    }
