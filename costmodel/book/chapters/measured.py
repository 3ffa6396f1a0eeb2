"""One device's measurements beside what is predicted: whole networks, layer by layer, and over batches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from costmodel import plots
from costmodel.book.benches import Bench, Compared
from costmodel.book.engine import Chapter
from costmodel.book.model import Figure, Table, slug
from costmodel.book.study import title_of
from costmodel.hardware.record import Measurement, Run
from costmodel.validation.measurement import Comparison
from costmodel.validation.sweep import Sweep, sweep
from costmodel.view import Column, column, is_missing
from costmodel.view import Table as Data

CLOSE = ("alexnet", "vgg16", "vgg11", "vgg19")
"""Networks that are looked at layer by layer."""

LEAST_BATCHES = 3
"""Of a sweep."""

SHOWN = 5
"""Layers that are named where bounds were beaten."""


@dataclass(frozen=True)
class Accuracy:
    """How far off predictions are on a device: absolute errors as shares of what was measured, averages over runs."""

    device: str
    basis: str
    """What is predicted: "estimate", or "bound" if some run has no estimate."""

    runs: int
    error_share: float
    """Of a whole network."""

    bound_error_share: float
    worst_share: float
    worst_network: str
    worst_batch: int
    layers_error_share: float
    """Of layers, weighted by their time."""

    noise_share: float
    """How far repeated rounds of a run lie apart."""


@dataclass(frozen=True)
class OneRun:
    """What a run was of."""

    network: str
    batch: int
    dtype: str
    phase: str
    reason: str = ""
    """Why it is not compared."""

    key: str = ""
    """What its figure and table are placed by."""


@dataclass(frozen=True)
class Bend:
    """From which batch on a network's images take more time than what is fixed."""

    networks: tuple[str, ...]
    measured: int
    predicted: int


@dataclass(frozen=True)
class Beaten:
    """A layer that ran faster than its bound without a reason that we know, or for which nothing ran."""

    layer: str
    network: str


@dataclass(frozen=True)
class Silent:
    """A program that predicts nothing here, and why."""

    program: str
    reason: str


@dataclass(frozen=True)
class Numbers:
    """What the section says of a device."""

    device: str
    key: str
    described: bool
    """Whether a device file says what it can do."""

    predicted_with: str
    predicted_source: str
    recorded: int
    """Runs in the records."""

    date: str
    """Of the last of them."""

    versions: Mapping[str, str]
    accuracy: Accuracy | None
    failed: tuple[OneRun, ...]
    left_out: tuple[OneRun, ...]
    beaten: tuple[Beaten, ...]
    """The first of them."""

    more_beaten: int
    silent: tuple[Silent, ...]
    close: tuple[OneRun, ...]
    """The runs that are shown layer by layer."""

    bends: tuple[Bend, ...]


def measured(bench: Bench) -> Chapter:
    """The section on a device."""
    key, close, curves = slug(bench.name), _close(bench), _sweeps(bench)
    tables, figures = {}, {}
    if bench.compared:
        tables["whole"] = Table(f"measured-{key}", _whole_table(bench.compared))
    if curves:
        figures["batches"] = Figure(f"measured-batches-{key}", lambda: plots.sweeps(curves)[0])
    for each in close:
        model = slug(each.run.model)
        tables[model] = Table(f"measured-{model}-layers-{key}", _layers(each), folded=True)
        title = f"{title_of(each.run.model)}, batch {each.run.batch}, {each.run.phase_text}, on {each.device_name}"
        figures[model] = Figure(
            f"measured-{model}-{key}",
            lambda each=each, title=title: plots.gaps(each, title=title),  # type: ignore[misc]
        )
    return Chapter("measured", numbers(bench, close, curves), tables, figures, key=f"measured-{key}")


def numbers(bench: Bench, close: Sequence[Comparison], curves: Sequence[Sweep]) -> Numbers:
    """The section's numbers."""
    beaten = [
        Beaten(row.layer, title_of(each.comparison.run.model))
        for each in bench.compared
        for row in each.comparison.rows
        if row.ok is False
    ]
    return Numbers(
        device=bench.title,
        key=slug(bench.name),
        described=bench.device is not None,
        predicted_with=bench.device.title if bench.device else "",
        predicted_source=bench.device.source if bench.device else "",
        recorded=len(bench.runs),
        date=max(str(record.environment["date"])[:10] for record in bench.records),
        versions={name: str(value) for name, value in bench.records[0].environment["versions"].items()},
        accuracy=accuracy(bench) if bench.compared else None,
        failed=tuple(_one(run) for run in bench.runs if run.failure),
        left_out=tuple(_one(each.run, reason=each.reason) for each in bench.left_out),
        beaten=tuple(beaten[:SHOWN]),
        more_beaten=max(len(beaten) - SHOWN, 0),
        silent=tuple(_silent(bench)),
        close=tuple(_one(each.run, key=slug(each.run.model)) for each in close),
        bends=tuple(_bends(curves)),
    )


def accuracy(bench: Bench) -> Accuracy:
    """How far off the predictions of a device's runs are, of which there is at least one that can be compared."""
    found = [each.comparison for each in bench.compared]
    worst = max(found, key=lambda each: abs(each.error))
    return Accuracy(
        device=bench.title,
        basis="estimate" if all(each.prediction.estimate for each in found) else "bound",
        runs=len(found),
        error_share=_mean(abs(each.error) for each in found),
        bound_error_share=_mean(abs(each.prediction.bound_seconds / each.measured_seconds - 1) for each in found),
        worst_share=abs(worst.error),
        worst_network=title_of(worst.run.model),
        worst_batch=worst.run.batch,
        layers_error_share=_mean(each.weighted_error or 0.0 for each in found),
        noise_share=_mean(each.run.noise for each in found),
    )


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def _one(run: Run, reason: str = "", key: str = "") -> OneRun:
    return OneRun(title_of(run.model), run.batch, run.dtype, run.phase_text, reason, key)


def _silent(bench: Bench) -> Iterator[Silent]:
    peers = {name: said for run in bench.runs for name, said in run.peers.items()}
    for name, said in peers.items():
        if said.problem:
            yield Silent(name, said.problem)


def _family(run: Run) -> str:
    """A network's name without where it is from."""
    return run.model.rpartition(":")[2]


def _close(bench: Bench) -> list[Comparison]:
    """The runs that are shown layer by layer: forward of AlexNet and of one VGG, at their largest batch up to 64."""
    found: dict[bool, Comparison] = {}
    for each in (each.comparison for each in bench.compared):
        run = each.run
        if _family(run) not in CLOSE or run.train or run.batch > 64 or run.dtype != "float32":
            continue
        kind = _family(run) == "alexnet"
        if kind not in found or _rank(run) > _rank(found[kind].run):
            found[kind] = each
    return list(found.values())


def _rank(run: Run) -> tuple[int, int]:
    return -CLOSE.index(_family(run)), run.batch


def _sweeps(bench: Bench) -> list[Sweep]:
    """AlexNet and VGG over batches, forward in float32 as torch runs it by default, where enough were measured."""
    by_model: dict[str, dict[int, Compared]] = {}
    for each in bench.compared:
        run, settings = each.comparison.run, each.record.precision_settings
        if not run.train and run.dtype == "float32" and settings.cudnn_allow_tf32 and _family(run) in CLOSE:
            by_model.setdefault(run.model, {})[run.batch] = each
    return [
        replace(
            sweep([each.comparison for each in points.values()], [each.peak_bytes for each in points.values()]),
            model=title_of(model),
        )
        for model, points in by_model.items()
        if len(points) >= LEAST_BATCHES
    ]


def _bends(curves: Sequence[Sweep]) -> Iterator[Bend]:
    """Where curves bend; networks that do so at the same batches together."""
    alike: dict[tuple[int, ...], list[str]] = {}
    for curve in curves:
        ends = tuple(1 if at is None else max(math.ceil(at), 1) for at in (curve.measured_bend, curve.predicted_bend))
        alike.setdefault(ends, []).append(curve.model)
    for (seen, predicted), models in alike.items():
        yield Bend(tuple(models), seen, predicted)


def _layers(comparison: Comparison) -> Data:
    """A forward run layer by layer: all of one phase, in one precision."""
    whole = comparison.table()
    return whole.select(*(name for name in whole.names if name not in ("phase", "path")))


_WHOLE: tuple[str | Column, ...] = (
    "network", "run", "batch",
    Column("precision", "precision", "term", "the floating-point type, and whether convolutions use TF32"),
    "bound_seconds", "estimate_seconds",
    column("low_seconds", title="estimate from"),
    column("high_seconds", title="estimate to"),
    "measured_seconds", "graph_seconds", "eager_seconds", "error",
    Column("layers_error_share", "layers off", "percent", "the layers' absolute errors as a share of their time"),
    "rank_correlation",
    Column("covered_share", "covered", "percent", "share of the time in layers whose interval holds it"),
    "noise",
    Column("predicted_peak_bytes", "peak predicted", "bytes", "the peak of requested memory that a trace predicts"),
    column("requested_bytes", title="peak requested"),
    column("reserved_bytes", title="peak reserved"),
)  # fmt: skip


def _whole_table(compared: Sequence[Compared]) -> Data:
    """One row a run, with the columns that some run fills."""
    ordered = sorted(compared, key=lambda each: _order(each.comparison.run))
    programs = list(dict.fromkeys(name for each in ordered for name in each.comparison.run.peers))
    columns: tuple[str | Column, ...] = (
        *_WHOLE,
        *(Column(f"{name.replace(' ', '_')}_seconds", name, "seconds", "what it predicts") for name in programs),
    )
    whole = Data.of(columns, [_whole_row(each, programs) for each in ordered])
    return whole.select(*(name for name in whole.names if not all(map(is_missing, whole[name]))))


def _whole_row(each: Compared, programs: Sequence[str]) -> tuple[Any, ...]:
    found = each.comparison
    run, estimate = found.run, found.prediction.estimate
    return (
        title_of(run.model), run.phase_text, run.batch, _precision(each.record, run), found.prediction.bound_seconds,
        estimate.seconds if estimate else None,
        estimate.low_seconds if estimate else None,
        estimate.high_seconds if estimate else None,
        found.measured_seconds,
        run.graph.median if run.graph else None,
        run.eager.median if run.eager else None,
        found.error, found.weighted_error, found.rank_correlation, found.weighted_coverage, run.noise,
        each.peak_bytes if run.memory.requested_bytes else None,
        run.memory.requested_bytes, run.memory.reserved_bytes,
        *(run.peers[name].seconds if name in run.peers else None for name in programs),
    )  # fmt: skip


def _order(run: Run) -> tuple[str, str, bool, int]:
    return run.model, run.dtype, run.train, run.batch


def _precision(record: Measurement, run: Run) -> str:
    if run.dtype == "float32" and record.target == "cuda":
        return "float32, TF32 convolutions" if record.precision_settings.cudnn_allow_tf32 else "float32, strict"
    return run.dtype
