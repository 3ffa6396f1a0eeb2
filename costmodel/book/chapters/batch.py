"""What the batch does to throughput and memory, and when what moves once a batch stops mattering."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from costmodel import plots, view
from costmodel.book.engine import Chapter
from costmodel.book.model import Figure, Table, slug
from costmodel.book.study import FC, Study
from costmodel.devices import Device

if TYPE_CHECKING:
    import pandas as pd

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
ENDLESS = 1 << 16
"""A batch beyond which only what grows with it counts."""


@dataclass(frozen=True)
class Launches:
    """What starting a pass's operations costs, which no bound has in."""

    operations: int
    bound_seconds: float
    """The bound of the pass at batch 1."""

    even_seconds: float
    """What one start would have to cost for all of them to take as long as that."""

    launch_seconds: float | None
    """What one start costs on the device, if that is known."""

    total_seconds: float | None
    bound_ratio: float | None
    """All of them as a multiple of the bound."""


@dataclass(frozen=True)
class Numbers:
    """The numbers of the chapter; a traffic that is not affine in the batch has no fixed and growing part."""

    network: str
    device: str
    images_per_second: float
    """At batch 1."""

    limit_images_per_second: float
    """As the batch grows without end."""

    limit_ratio: float
    near_share: float
    near_batch: int | None
    """From which batch on the throughput is at least that share of its limit."""

    launches: Launches
    fc_layer: str | None
    """The fully connected layer with the most parameters."""

    fc_compute_batch: int | None
    """From which batch on arithmetic binds it; None if it never does."""

    first_bytes: int
    """What one image moves."""

    parameter_bytes: int
    fixed_bytes: int | None
    """What a batch moves once, from the batches 2 and 3: one image may run by other operators."""

    image_bytes: int | None
    tenth_batch: int | None
    """From which batch on the fixed part is less than a tenth."""

    first_share: float | None
    tenth_share: float | None
    """The fixed part's share of the traffic at batch 1, and at `tenth_batch`."""


def batch(studies: Sequence[Study], device: Device) -> Chapter:
    """Batch size against the bound on throughput, and against memory, of the first network and beside the others."""
    study = studies[0]
    found = numbers(study, device)
    return Chapter(
        "batch",
        found,
        tables={
            "batch": Table(
                f"{study.slug}-{slug(device.name)}-batch",
                view.Table.of(_COLUMNS, [_row(study, device, batch, found) for batch in BATCHES]),
            )
        },
        figures={
            "batch": Figure(
                f"batch-{slug(device.name)}",
                draw=lambda: plots.batches({each.title: _curve(each, device) for each in studies}, device.title)[0],
            )
        },
    )


def numbers(study: Study, device: Device) -> Numbers:
    """What the chapter says of a network on a device."""
    rate = 1 / study.prediction(device).bound_seconds
    limit = _images_per_second_limit(study, device)
    dense = [entry.layer for entry in study.weighted() if entry.part == FC]
    fc = max(dense, key=lambda layer: layer.parameters, default=None)
    first = study.costs().total.moved_bytes
    fixed, image = fixed_and_growing(study) or (None, None)
    tenth = None if fixed is None or not image else 9 * fixed // image + 1
    return Numbers(
        network=study.title,
        device=device.title,
        images_per_second=rate,
        limit_images_per_second=limit,
        limit_ratio=limit / rate,
        near_share=0.9,
        near_batch=smallest_batch(lambda batch: batch / study.prediction(device, batch).bound_seconds >= 0.9 * limit),
        launches=launches(study, device),
        fc_layer=fc.name if fc else None,
        fc_compute_batch=smallest_batch(lambda batch: _binding(study, device, batch, fc.name) == "compute")
        if fc
        else None,
        first_bytes=first,
        parameter_bytes=study.costs().parameter_bytes,
        fixed_bytes=fixed,
        image_bytes=image,
        tenth_batch=tenth,
        first_share=None if fixed is None else fixed / first,
        tenth_share=None if fixed is None or tenth is None else fixed / study.costs(tenth).total.moved_bytes,
    )


def launches(study: Study, device: Device) -> Launches:
    """What starting the operations of one image's pass costs."""
    one = study.prediction(device)
    started = sum(row.binding != "none" for row in one.operations)
    total = None if device.launch_seconds is None else started * device.launch_seconds
    return Launches(
        operations=started,
        bound_seconds=one.bound_seconds,
        even_seconds=one.bound_seconds / started,
        launch_seconds=device.launch_seconds,
        total_seconds=total,
        bound_ratio=None if total is None else total / one.bound_seconds,
    )


def smallest_batch(enough: Callable[[int], bool], limit: int = ENDLESS) -> int | None:
    """The smallest batch from which on `enough` holds; None if it does not hold at `limit`.

    From batch 2 on a network runs the same operators, whose work and traffic are affine in the batch, so that what
    holds of one batch holds of every larger one; batch 1 may run others, and counts only if 2 is enough as well.
    """
    if not enough(limit):
        return None
    low, high = 1, limit
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return 1 if high == 2 and enough(1) else high


def fixed_and_growing(study: Study) -> tuple[int, int] | None:
    """Bytes that a forward moves once a batch, and for each image; None if they are not affine from batch 2 on."""
    two, three, four = (study.costs(batch).total.moved_bytes for batch in (2, 3, 4))
    return (3 * two - 2 * three, three - two) if four - three == three - two else None


def _binding(study: Study, device: Device, batch: int, layer: str) -> str:
    """What binds most of a layer's time."""
    mine = set(map(id, next(entry for entry in study.weighted(batch) if entry.layer.name == layer).operations))
    rows = [row for row in study.prediction(device, batch).operations if id(row.operation) in mine]
    return max(rows, key=lambda row: row.bound_seconds).binding


def _images_per_second_limit(study: Study, device: Device) -> float:
    """Throughput as the batch grows without end: an image's share of what grows with the batch."""
    one, two = (study.prediction(device, batch).bound_seconds for batch in (ENDLESS, 2 * ENDLESS))
    return ENDLESS / (two - one)


def _curve(study: Study, device: Device) -> pd.DataFrame:
    """What the figure shows of a network: a row a batch."""
    import pandas as pd

    return pd.DataFrame(
        {
            "batch": batch,
            "images_per_second": batch / study.prediction(device, batch).bound_seconds,
            "training_peak_bytes": study.memory(batch, train=True).peak_bytes,
        }
        for batch in BATCHES
    )


_COLUMNS = (
    "batch",
    "bound_seconds",
    "images_per_second",
    view.Column("limit_share", "of the limit", "percent", "throughput as a share of its limit for large batches"),
    view.Column("fixed_share", "weights in traffic", "percent", "share of the traffic that a batch moves once"),
    view.Column("inference_peak_bytes", "inference", "bytes", "peak of requested bytes in a forward pass"),
    view.Column("training_peak_bytes", "training", "bytes", "peak of requested bytes in a training step"),
)


def _row(study: Study, device: Device, batch: int, found: Numbers) -> tuple[float | None, ...]:
    bound = study.prediction(device, batch).bound_seconds
    return (
        batch,
        bound,
        math.floor(batch / bound),
        batch / bound / found.limit_images_per_second,
        None if found.fixed_bytes is None else found.fixed_bytes / study.costs(batch).total.moved_bytes,
        study.memory(batch).peak_bytes,
        study.memory(batch, train=True).peak_bytes,
    )
