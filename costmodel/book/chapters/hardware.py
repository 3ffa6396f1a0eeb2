"""Real hardware: what was measured beside what is predicted, the gap layer by layer, and published times of old GPUs.

Measurements are the records that come with costmodel, where they are of the report's networks, and those in the
report's own folder (`measurements/NAME/*.json`, beside `device.toml`, the calibrated device), as `costmodel suite`
writes them. They are only read: a report is the same bytes on every run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from costmodel import plots
from costmodel.book.chapters.published import published_brief, published_section
from costmodel.book.exercises.words import counted, listed
from costmodel.book.model import Block, Bullets, Figure, Paragraph, Section, Table, code, plain, slug
from costmodel.book.study import title_of
from costmodel.devices import Device, read_device
from costmodel.errors import InputError
from costmodel.hardware import records
from costmodel.hardware.document import SCHEMA
from costmodel.hardware.record import Measurement, Run, read
from costmodel.memory import memory_timeline
from costmodel.report.measured import comparison_table, traced
from costmodel.units import percent
from costmodel.validation.measurement import Comparison, against, device_of
from costmodel.validation.published_times import published_times
from costmodel.validation.sweep import Sweep, sweep

DEVICE_FILE = "device.toml"
_CLOSE = ("alexnet", "vgg16", "vgg11", "vgg19")
"""Networks that are looked at layer by layer."""

_LEAST_BATCHES = 3
"""Of a sweep."""


@dataclass(frozen=True)
class Bench:
    """A folder of records: what one device did."""

    name: str
    device: Device | None
    """What is known of it, calibrated or not; None if nothing is."""

    records: tuple[Measurement, ...]

    @property
    def title(self) -> str:
        """The device's own name, and the CPU's threads."""
        first = self.records[0]
        threads = f", {counted(first.threads, 'thread')}" if first.target == "cpu" else ""
        return plain(first.device_name) + threads

    @cached_property
    def compared(self) -> tuple[tuple[Measurement, Comparison, int], ...]:
        """Each run that can be compared: its record, the comparison, and the predicted peak of requested memory."""
        return tuple(self._compare())

    @property
    def failures(self) -> tuple[Run, ...]:
        """The runs that did not fit."""
        return tuple(run for record in self.records for run in record.runs if run.failure)

    def _compare(self) -> Iterator[tuple[Measurement, Comparison, int]]:
        from costmodel.networks import find

        if self.device is None:
            return
        networks: dict[str, Any] = {}
        for record in self.records:
            for run in record.runs:
                if run.failure:
                    continue
                try:
                    network = networks[run.model] = networks.get(run.model) or find(run.model)
                except InputError:
                    continue  # a network that is not here
                found = traced(run, network, record.target)
                try:
                    comparison = against(record, found, self.device)
                except InputError:
                    continue  # not with these inputs, or in a type that the device lacks
                yield record, comparison, memory_timeline(found).peak_bytes


def benches_for(models: Iterable[str], folder: Path) -> tuple[Bench, ...]:
    """The benches in a report's folder, and the packaged ones that measured one of its networks, by name.

    Of two with the same name the folder's is shown: in a checkout they are the same.
    """
    wanted = set(models)
    packaged = {
        bench.name: bench
        for bench in benches(records.packaged())
        if any(run.model in wanted for record in bench.records for run in record.runs)
    }
    found = packaged | {bench.name: bench for bench in benches(folder)}
    return tuple(found[name] for name in sorted(found))


def benches(folder: Path) -> tuple[Bench, ...]:
    """The records in a folder's subfolders. Raises InputError for a damaged record or device file."""
    found = []
    for place in sorted(path for path in folder.glob("*") if path.is_dir()):
        records = tuple(read(path) for path in sorted(place.glob("*.json")) if _is_record(path))
        if records:
            found.append(Bench(place.name, _device(place, records[0]), records))
    return tuple(found)


def _is_record(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as file:
        return f'"{SCHEMA}"' in file.read(200)


def _device(place: Path, record: Measurement) -> Device | None:
    if (place / DEVICE_FILE).exists():
        return read_device(place / DEVICE_FILE)
    try:
        return device_of(record)
    except InputError:
        return None


def hardware_chapter(found: Sequence[Bench], models: Iterable[str]) -> Section:
    """The chapter; published times only where the report's networks are theirs. Empty if there is nothing to say."""
    times = published_times() if any("alexnet" in model or "vgg" in model for model in models) else ()
    sections = [_bench_section(bench) for bench in found]
    if times:
        sections.append(published_section(times))
    if not sections:
        return Section("On real hardware", ())
    blocks: list[Block] = [
        Paragraph(
            "Measured is the sum of what the device did for a layer (its kernels; on a CPU its operators' own time) "
            "under torch.profiler; eager is wall time without the profiler. Nothing is scaled. A bound holds for "
            "unfused execution from memory, multiplied by the definition, at the device's peaks; those of a calibrated "
            "device are measured rates, so a layer may run a little faster, or much where it finds its tensors in a "
            "cache or multiplies less. An estimate comes from a calibration on generated shapes, to which none of "
            "these networks belongs; for the same reasons it may lie below the bound."
        )
    ]
    if not any(bench.records[0].target == "cuda" for bench in found):
        blocks.append(
            Paragraph(
                "**No GPU has been measured yet.** `costmodel suite --device cuda -o reports/measurements/NAME` does "
                "it in one call, and the next report shows what it found."
            )
        )
    answer = " ".join(filter(None, [*map(_brief, found), published_brief(times) if times else ""]))
    return Section("On real hardware", tuple(blocks), tuple(sections), answer=answer, anchor="hardware")


def _bench_section(bench: Bench) -> Section:
    title = f"Predicted and measured: {bench.title}"
    if bench.device is None:
        return Section(title, (Paragraph(f"There is no description of {code(bench.records[0].device_name)}."),))
    comparisons = [comparison for _, comparison, _ in bench.compared]
    blocks: list[Block] = [Bullets(tuple(_facts(bench)))]
    if comparisons:
        key = slug(bench.name)
        blocks.append(_whole_table(bench, key))
        for comparison in _closest(comparisons):
            blocks.append(_gap_figure(comparison, key))
        if curves := _sweeps(bench):
            blocks.append(_sweep_figure(curves, key))
        blocks += [_layer_table(comparison, key) for comparison in _closest(comparisons)]
    return Section(title, tuple(blocks), answer=_answer(bench, comparisons), anchor=f"hardware-{slug(bench.name)}")


def _brief(bench: Bench) -> str:
    """How far off the predictions of whole networks are, in a sentence; nothing if none could be compared."""
    comparisons = [comparison for _, comparison, _ in bench.compared]
    if not comparisons:
        return ""
    off = percent(sum(abs(each.error) for each in comparisons) / len(comparisons))
    return (
        f"On the {bench.title}, the {_basis(comparisons)} of a whole network is {off} off on average, over "
        f"{counted(len(comparisons), 'run')}."
    )


def _basis(comparisons: Sequence[Comparison]) -> str:
    return "estimate" if all(each.prediction.estimate for each in comparisons) else "bound"


def _answer(bench: Bench, comparisons: Sequence[Comparison]) -> str:
    """How far off the predictions are, in a few sentences."""
    if not comparisons:
        return f"{bench.title}: nothing could be compared."
    basis = _basis(comparisons)
    errors = [abs(each.error) for each in comparisons]
    worst = max(comparisons, key=lambda each: abs(each.error))
    layers = sum(each.weighted_error or 0.0 for each in comparisons) / len(comparisons)
    noise = sum(each.run.noise for each in comparisons) / len(comparisons)
    bounds = [abs(each.prediction.bound_seconds / each.measured_seconds - 1) for each in comparisons]
    alone = f" (the bound alone {percent(sum(bounds) / len(bounds))})" if basis == "estimate" else ""
    return (
        f"On the {bench.title}, the {basis} of a whole network is {percent(sum(errors) / len(errors))} off on "
        f"average{alone} and {percent(abs(worst.error))} at worst ({title_of(worst.run.model)}, batch "
        f"{worst.run.batch}), over {counted(len(comparisons), 'run')}; its layers are {percent(layers)} off, weighted "
        f"by time. Repeated rounds of one run lie {percent(noise)} apart on average."
    )


def _facts(bench: Bench) -> Iterator[str]:
    first = bench.records[0]
    versions = ", ".join(f"{name} {value}" for name, value in first.environment["versions"].items())
    dates = sorted({str(record.environment["date"])[:10] for record in bench.records})
    yield f"{counted(sum(len(record.runs) for record in bench.records), 'run')} of {dates[-1]}, with {versions}."
    if bench.device is not None:
        yield f"Predicted with: {plain(bench.device.title, 100)} ({plain(bench.device.source, 200)})."
    failed = bench.failures
    if failed:
        names = "; ".join(f"{title_of(run.model)} {run.dtype} batch {run.batch} {run.phase_text}" for run in failed)
        yield f"Did not fit into its memory: {names}."
    beaten = [
        f"{code(row.layer)} of {title_of(each.run.model)}"
        for _, each, _ in bench.compared
        for row in each.rows
        if row.ok is False
    ]
    if beaten:
        shown = "; ".join(beaten[:5]) + (f" and {len(beaten) - 5} more" if len(beaten) > 5 else "")
        yield f"**Bounds that were beaten without a reason that we know**, or layers for which nothing ran: {shown}."
    peers = {name: said for record in bench.records for run in record.runs for name, said in run.peers.items()}
    for name, said in peers.items():
        if said.problem:
            yield f"{name[0].upper()}{name[1:]} says nothing: {plain(said.problem, 120)}."


def _whole_table(bench: Bench, key: str) -> Table:
    rows = []
    for record, each, peak in sorted(bench.compared, key=lambda entry: _order(entry[1].run)):
        run, estimate = each.run, each.prediction.estimate
        rows.append(
            {
                "network": title_of(run.model),
                "run": run.phase_text,
                "batch": run.batch,
                "precision": _precision(record, run),
                "bound_seconds": each.prediction.bound_seconds,
                "estimate_seconds": estimate.seconds if estimate else None,
                "low_seconds": estimate.low_seconds if estimate else None,
                "high_seconds": estimate.high_seconds if estimate else None,
                "measured_seconds": each.measured_seconds,
                "graph_seconds": run.graph.median if run.graph else None,
                "eager_seconds": run.eager.median if run.eager else None,
                "error": each.error,
                "layers_error_share": each.weighted_error,
                "rank_correlation": each.rank_correlation,
                "covered_share": each.weighted_coverage,
                "noise": run.noise,
                "predicted_peak_bytes": peak if run.memory.requested_bytes else None,
                "requested_bytes": run.memory.requested_bytes,
                "reserved_bytes": run.memory.reserved_bytes,
            }
            | {f"{name.replace(' ', '_')}_seconds": said.seconds for name, said in run.peers.items()}
        )
    frame = pd.DataFrame(rows)
    frame = frame[[name for name in frame.columns if frame[name].notna().any()]]
    return Table(
        f"measured-{key}",
        title=f"Whole networks on {bench.title}",
        frame=frame.astype(object).where(frame.notna(), None),
        note="Error is predicted less measured, as a share of the measured; layers off: the sum of the layers' "
        "absolute errors as a share of their time; covered: the share of the time in layers whose interval holds what "
        "was measured; noise: how far rounds of the same run lie apart.",
        labels={
            **_ENDS,
            "layers_error_share": "layers off",
            "covered_share": "covered",
            "requested_bytes": "peak requested",
            "predicted_peak_bytes": "peak predicted",
            "reserved_bytes": "peak reserved",
        },
    )


_ENDS = {"low_seconds": "estimate from", "high_seconds": "estimate to"}


def _order(run: Run) -> tuple[str, str, bool, int]:
    return run.model, run.dtype, run.train, run.batch


def _precision(record: Measurement, run: Run) -> str:
    if run.dtype == "float32" and record.target == "cuda":
        return "float32, TF32 convolutions" if record.precision_settings.cudnn_allow_tf32 else "float32, strict"
    return run.dtype


def _closest(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The runs that are shown layer by layer: forward of AlexNet and of one VGG, at their largest batch up to 64."""
    found: dict[str, Comparison] = {}
    for each in comparisons:
        model = each.run.model.rpartition(":")[2]
        family = "alexnet" if model == "alexnet" else "vgg" if model in _CLOSE else ""
        if not family or each.run.train or each.run.batch > 64 or each.run.dtype != "float32":
            continue
        before = found.get(family)
        rank = (-_CLOSE.index(model), each.run.batch)
        if before is None or rank > (-_CLOSE.index(before.run.model.rpartition(":")[2]), before.run.batch):
            found[family] = each
    return list(found.values())


def _named(comparison: Comparison) -> str:
    return f"{title_of(comparison.run.model)}, batch {comparison.run.batch}, {comparison.run.phase_text}"


def _gap_figure(comparison: Comparison, key: str) -> Figure:
    return Figure(
        f"measured-{slug(comparison.run.model)}-{key}",
        title=f"{_named(comparison)}: predicted (open) and measured (filled)",
        draw=lambda: plots.gaps(comparison, title=f"{_named(comparison)}, on {comparison.device_name}"),
    )


def _layer_table(comparison: Comparison, key: str) -> Table:
    frame = comparison_table(comparison)
    return Table(
        f"measured-{slug(comparison.run.model)}-layers-{key}",
        title=f"{_named(comparison)}: layer by layer",
        frame=frame,
        note="Estimate from, to: the ends of its interval. The bound holds where nothing ran faster than it, or for a "
        "reason that is known: then the bound of what ran stands beside it. Why is said of every layer that is "
        "further off than the noise and outside its interval.",
        labels=_ENDS | {"ok": "bound holds", "executed_bound_seconds": "bound of what ran", "explanation": "why"},
        folded=True,
    )


def _sweeps(bench: Bench) -> list[Sweep]:
    """AlexNet and VGG over batches, forward in float32 as torch runs it by default, where enough were measured."""
    by_model: dict[str, dict[int, tuple[Comparison, int]]] = {}
    for record, each, peak in bench.compared:
        run = each.run
        family = run.model.rpartition(":")[2]
        if not run.train and run.dtype == "float32" and record.precision_settings.cudnn_allow_tf32 and family in _CLOSE:
            by_model.setdefault(run.model, {})[run.batch] = each, peak
    return [
        replace(
            sweep([each for each, _ in points.values()], [peak for _, peak in points.values()]), model=title_of(model)
        )
        for model, points in by_model.items()
        if len(points) >= _LEAST_BATCHES
    ]


def _sweep_figure(curves: Sequence[Sweep], key: str) -> Figure:
    names: dict[str, list[str]] = {}
    for curve in curves:
        names.setdefault(_bends(curve), []).append(curve.model)
    where = "; ".join(f"{listed(who)}: {bends}" for bends, who in names.items())
    return Figure(
        f"measured-batches-{key}",
        title="Batch against throughput, predicted and measured",
        draw=lambda: plots.sweeps(curves)[0],
        note=f"From which batch on the images take more time than what is fixed (starts, weights). {where}.",
    )


def _bends(curve: Sweep) -> str:
    """From which batch on the images take more time than what is fixed, in words."""
    measured, predicted = (
        1 if at is None or at < 1 else math.ceil(at) for at in (curve.measured_bend, curve.predicted_bend)
    )
    if measured == predicted:
        return f"from batch {measured} on, measured and predicted"
    return f"from batch {measured} on as measured, {predicted} as predicted"
