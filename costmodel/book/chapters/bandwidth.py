"""How memory affects computation: its bandwidth, the batch, the memory on chip, and training against inference."""

from __future__ import annotations

from dataclasses import dataclass

from costmodel import view
from costmodel.book.chapters.batch import Launches, launches
from costmodel.book.columns import SPEEDUP
from costmodel.book.engine import Chapter
from costmodel.book.model import Table, slug
from costmodel.book.study import BATCH, FC, Study
from costmodel.devices import PATHS, Device
from costmodel.roofline import Prediction
from costmodel.view import Column

HALF = "float16"


@dataclass(frozen=True)
class Ridge:
    """A precision path that the network takes, and its ridge point."""

    path: str
    flops_per_second: float
    flops_per_byte: float


@dataclass(frozen=True)
class AtBatch:
    """What memory has of a forward's bound, and what twice the bandwidth would do."""

    memory_share: float
    faster_ratio: float
    fc_share: float
    """What the fully connected layers have of the bound."""


@dataclass(frozen=True)
class Weights:
    """A layer whose weights a cache cannot keep."""

    layer: str
    parameter_bytes: int


@dataclass(frozen=True)
class Cache:
    """What the largest cache could keep from one batch to the next."""

    cache_bytes: int
    parameter_bytes: int
    larger: tuple[Weights, ...]
    """The layers that do not fit by themselves."""

    others: int
    others_bytes: int
    all_fit: bool


@dataclass(frozen=True)
class Training:
    """A training step against inference at the same batch."""

    flops_ratio: float
    bytes_ratio: float
    bound_ratio: float
    memory_share: float
    optimizer_share: float
    optimizer_alone_share: float
    """The optimizer's share of a step with one image."""


@dataclass(frozen=True)
class Numbers:
    """Bounds of a network on a device."""

    network: str
    device: str
    batch: int
    one: AtBatch
    many: AtBatch
    bandwidth_bytes_per_second: float
    ridges: tuple[Ridge, ...]
    half: str
    half_paths: tuple[Ridge, ...]
    """The paths that contractions take in it."""

    cache: Cache | None
    launches: Launches
    training: Training


def bandwidth(study: Study, device: Device) -> Chapter:
    """How memory bandwidth and size affect the computation, in inference and in training."""
    key = f"{study.slug}-{slug(device.name)}"
    bounds, better = Table(f"{key}-bounds", _bounds(study, device)), Table(f"{key}-what-ifs", _better(study, device))
    return Chapter("bandwidth", numbers(study, device), {"bounds": bounds, "better": better})


def numbers(study: Study, device: Device) -> Numbers:
    """What the sentences say of a network on a device."""
    half = study.prediction(device, dtype=HALF)
    return Numbers(
        network=study.title,
        device=device.title,
        batch=BATCH,
        one=_at(study, device, 1),
        many=_at(study, device, BATCH),
        bandwidth_bytes_per_second=device.memory_bandwidth,
        ridges=_ridges(device, {row.path for row in study.prediction(device).operations if row.path}),
        half=HALF,
        half_paths=_ridges(device, {row.path for row in half.operations if row.path and row.cost.macs}),
        cache=_cache(study, device),
        launches=launches(study, device),
        training=_training(study, device),
    )


def _at(study: Study, device: Device, batch: int) -> AtBatch:
    now, wider = (study.prediction(each, batch) for each in (device, _wider(device)))
    return AtBatch(memory_share(now), wider.speedup_over(now), study.time_share(FC, device, batch))


def _wider(device: Device) -> Device:
    return device.replace(memory_bandwidth=2 * device.memory_bandwidth)


def memory_share(prediction: Prediction) -> float:
    """What the operations that memory binds have of a bound."""
    bound = prediction.by("binding").get("memory")
    return bound.bound_seconds / prediction.bound_seconds if bound else 0.0


def _ridges(device: Device, used: set[str]) -> tuple[Ridge, ...]:
    paths = (path for path in device.peaks if path in used)
    return tuple(Ridge(PATHS[path], device.peaks[path], device.ridge_points[path]) for path in paths)


def _cache(study: Study, device: Device) -> Cache | None:
    size = device.l3_bytes or device.l2_bytes
    if not size:
        return None
    layers = [entry.layer for entry in study.weighted()]
    fitting = [layer for layer in layers if layer.parameter_bytes <= size]
    return Cache(
        cache_bytes=size,
        parameter_bytes=study.costs().parameter_bytes,
        larger=tuple(Weights(layer.name, layer.parameter_bytes) for layer in layers if layer.parameter_bytes > size),
        others=len(fitting),
        others_bytes=sum(layer.parameter_bytes for layer in fitting),
        all_fit=study.costs().parameter_bytes <= size,
    )


def _training(study: Study, device: Device) -> Training:
    inference, step = study.costs(BATCH).total, study.costs(BATCH, train=True).total
    one, alone, many = (study.prediction(device, *case) for case in ((BATCH,), (1, True), (BATCH, True)))
    return Training(
        flops_ratio=step.flops / inference.flops,
        bytes_ratio=step.moved_bytes / inference.moved_bytes,
        bound_ratio=many.bound_seconds / one.bound_seconds,
        memory_share=memory_share(many),
        optimizer_share=many.phase("optimizer").bound_seconds / many.bound_seconds,
        optimizer_alone_share=alone.phase("optimizer").bound_seconds / alone.bound_seconds,
    )


def _bounds(study: Study, device: Device) -> view.Table:
    """What binds each layer that takes any time, at either batch."""
    batches = {batch: study.prediction(device, batch).layers for batch in (1, BATCH)}
    seconds = ("compute_seconds", "memory_seconds")
    columns = ("layer", "kind", "path", "batch", "arithmetic_intensity", *seconds, "binding")
    rows = [
        (
            *(one.name, one.kind, PATHS.get(one.path, ""), batch, layer.cost.arithmetic_intensity),
            *(layer.compute_seconds, layer.memory_seconds, layer.binding),
        )
        for one, *layers in zip(batches[1], *batches.values(), strict=True)
        for batch, layer in zip(batches, layers, strict=True)
        if any(each.bound_seconds for each in layers)
    ]
    return view.Table.of(columns, rows, across="batch")


def _better(study: Study, device: Device) -> view.Table:
    """The bound on machines that are better in one thing each, and in half precision."""
    faster = device.replace(peaks={path: 2 * peak for path, peak in device.peaks.items()})
    machines: dict[str, tuple[Device, str | None]] = {
        "as it is": (device, None),
        "twice the bandwidth": (_wider(device), None),
        "twice the arithmetic": (faster, None),
        HALF: (device, HALF),
    }
    rows = []
    for name, (better, dtype) in machines.items():
        for batch in (1, BATCH):
            found = study.prediction(better, batch, dtype=dtype)
            rows.append((name, batch, found.bound_seconds, found.speedup_over(study.prediction(device, batch))))
    machine = Column("machine", "machine", "prose", "what is better about it")
    return view.Table.of((machine, "batch", "bound_seconds", SPEEDUP), rows, across="batch")
