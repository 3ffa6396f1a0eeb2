"""What torch.profiler saw on GPUs: traces that others published, joined to layers and held against the bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from costmodel import plots
from costmodel.book.engine import Chapter
from costmodel.book.model import Figure, Table
from costmodel.book.study import title_of
from costmodel.hardware import records
from costmodel.hardware.record import Kernel, LayerTime, Measurement, read
from costmodel.hardware.retrace import traced
from costmodel.networks import find
from costmodel.validation.measurement import Comparison, LayerRow, against, device_of
from costmodel.validation.reasons import CACHE_RESIDENT
from costmodel.view import Column
from costmodel.view import Table as Data

FFT, WINOGRAD, TF32, FP32, LAYOUT, BIAS = "FFT", "Winograd", "TF32", "FP32", "layout conversion", "bias"
_SIGNS = (
    ("CUDAFunctor_add", BIAS), ("nchwToNhwc", LAYOUT), ("nhwcToNchw", LAYOUT), ("winograd", WINOGRAD), ("fft", FFT),
    ("gcgemm", FFT), ("tf32f32", TF32), ("scudnn", FP32), ("sgemm", FP32),
)  # fmt: skip
"""What in a kernel's name tells what it does, the first that is there."""

CLOSE = "alexnet"
"""The network that is looked at layer by layer."""


def sort_of(kernel: str) -> str:
    """What a kernel does, by its name; empty if it does not say."""
    return next((sort for sign, sort in _SIGNS if sign in kernel), "")


@dataclass(frozen=True)
class Whole:
    """A run on a GPU."""

    network: str
    gpu: str
    batch: int
    phase: str
    bound_seconds: float
    work_seconds: float
    ratio: float
    """The time as a multiple of the bound."""

    idle_share: float
    """Of the time under the profiler, in which no kernel ran."""


@dataclass(frozen=True)
class Convolution:
    """How a convolution ran."""

    layer: str
    path: str
    """The precision path that the bound is for."""

    algorithm: str
    ratio: float


@dataclass(frozen=True)
class Layers:
    """One run, layer by layer."""

    run: Whole
    convolutions: tuple[Convolution, ...]
    bias_seconds: float
    bias_share: float
    bias_kernels: int
    layout_seconds: float
    layout_share: float
    cached: tuple[str, ...]
    """Layers that ran faster than memory allows, as their tensors fit into the last cache."""

    furthest: str
    """The layer that takes longest beside its bound."""

    furthest_ratio: float
    furthest_seconds: float


@dataclass(frozen=True)
class Numbers:
    """The runs, and one of them closely."""

    runs: tuple[Whole, ...]
    layers: Layers | None


def gpu_traces() -> Chapter:
    """The chapter on the records of traces that come with costmodel."""
    found = list(_compared())
    close = next((pair for pair in found if CLOSE in pair[1].run.model and not pair[1].run.train), None)
    tables = {"runs": Table("gpu-traces", _runs_table(found))}
    figures = {}
    if close is not None:
        tables["layers"] = Table("gpu-traces-layers", _layers_table(close[1]))
        title = f"{_whole(*close).network}, batch {close[1].run.batch}, on {_whole(*close).gpu}"
        figures["layers"] = Figure("gpu-traces-layers", lambda: plots.gaps(close[1], title=title))
    return Chapter("gpu_traces", numbers(found, close), tables, figures)


def numbers(found: Sequence[tuple[Measurement, Comparison]], close: tuple[Measurement, Comparison] | None) -> Numbers:
    """The chapter's numbers."""
    return Numbers(tuple(_whole(*pair) for pair in found), None if close is None else _closely(*close))


def _compared() -> Iterator[tuple[Measurement, Comparison]]:
    for path in sorted(records.of_traces().glob("*.json")):
        record = read(path)
        for run in record.runs:
            trace = traced(run, find(run.model), record.target)
            yield record, against(record, trace, device_of(record))


def _whole(record: Measurement, found: Comparison) -> Whole:
    run = found.run
    idle = run.idle.median / run.profiled.median if run.idle and run.profiled else 0.0
    bound = found.prediction.bound_seconds
    return Whole(
        title_of(run.model), found.prediction.device.title, run.batch, run.phase_text, bound, found.measured_seconds,
        found.measured_seconds / bound, idle,
    )  # fmt: skip


def _closely(record: Measurement, found: Comparison) -> Layers:
    rows = [row for row in found.rows if row.measured_seconds and row.bound_seconds]
    layers = {layer.layer: layer for layer in found.run.layers}
    kernels = [kernel for layer in found.run.layers for kernel in layer.kernels]
    far = max(rows, key=_ratio)
    bias, layout = (_seconds(kernels, lambda name, sort=sort: sort_of(name) == sort) for sort in (BIAS, LAYOUT))  # type: ignore[misc]
    return Layers(
        run=_whole(record, found),
        convolutions=tuple(
            Convolution(row.layer, row.path, _algorithm(layers[row.layer]), _ratio(row))
            for row in rows
            if row.kind == "conv"
        ),
        bias_seconds=bias,
        bias_share=bias / found.measured_seconds,
        bias_kernels=sum(kernel.count for kernel in kernels if sort_of(kernel.name) == BIAS),
        layout_seconds=layout,
        layout_share=layout / found.measured_seconds,
        cached=tuple(row.layer for row in rows if _ratio(row) < 1 and row.explanation == CACHE_RESIDENT),
        furthest=far.layer,
        furthest_ratio=_ratio(far),
        furthest_seconds=far.measured_seconds or 0.0,
    )


def _ratio(row: LayerRow) -> float:
    return (row.measured_seconds or 0.0) / row.bound_seconds


def _seconds(kernels: Sequence[Kernel], wanted: Callable[[str], bool]) -> float:
    return math.fsum(kernel.seconds for kernel in kernels if wanted(kernel.name))


def _algorithm(layer: LayerTime) -> str:
    """What multiplies in a layer: the sort of its longest kernel that is neither a bias nor a conversion."""
    longest = max(layer.kernels, key=lambda kernel: (sort_of(kernel.name) not in (BIAS, LAYOUT), kernel.seconds))
    return sort_of(longest.name)


_RUNS = (
    "network", Column("gpu", "GPU", "text", "what it ran on"), "batch", "run", "bound_seconds",
    Column("work_seconds", "kernels", "seconds", "sum of its kernels"),
    Column("ratio", "of the bound", "times", "the kernels' time as a multiple of the bound"),
    Column("idle_share", "idle", "percent", "share of the time under the profiler without a kernel"),
    Column("published", "published by", "prose", "whose trace it is"), "date",
)  # fmt: skip


def _runs_table(found: Sequence[tuple[Measurement, Comparison]]) -> Data:
    return Data.of(_RUNS, [_run_row(record, _whole(record, comparison)) for record, comparison in found])


def _run_row(record: Measurement, run: Whole) -> tuple[object, ...]:
    published, date = record.environment["trace"]["source"], str(record.environment["date"])[:10]
    return (
        run.network, run.gpu, run.batch, run.phase, run.bound_seconds, run.work_seconds, run.ratio, run.idle_share,
        published, date,
    )  # fmt: skip


_LAYERS = (
    "layer", "kind", "path", "bound_seconds",
    Column("work_seconds", "kernels", "seconds", "sum of its kernels"),
    Column("ratio", "of the bound", "times", "the kernels' time as a multiple of the bound"),
    Column("kernels", "which", "prose", "its kernels, by what their names say that they do"),
)  # fmt: skip


def _layers_table(found: Comparison) -> Data:
    layers = {(layer.layer, layer.phase): layer for layer in found.run.layers}
    return Data.of(
        _LAYERS,
        [
            (
                row.layer, row.kind, row.path, row.bound_seconds, row.measured_seconds, _ratio(row),
                _named(layers[row.layer, row.phase]),
            )
            for row in found.rows
            if row.measured_seconds and row.bound_seconds
        ],
    )  # fmt: skip


def _named(layer: LayerTime) -> str:
    """A layer's kernels in microseconds, those of one sort together; nothing where no name says what it does."""
    sums: dict[str, float] = {}
    for kernel in layer.kernels:
        sort = sort_of(kernel.name) or "other"
        sums[sort] = sums.get(sort, 0.0) + kernel.seconds
    return ", ".join(f"{sort} {1e6 * spent:,.0f} µs" for sort, spent in sums.items()) if set(sums) - {"other"} else ""
