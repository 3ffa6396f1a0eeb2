"""What was measured: runs of networks on a device, as plain frozen data that needs no torch.

`Measurement.save` writes it to a file and `read` reads it from there, in the form that `document` fixes.

Three totals of a run are kept apart, because they answer different questions:
- `kernel_time`: the time in which a kernel of it ran (on the CPU the operators' own time), under the profiler;
- `graph`: the replay of the run as one CUDA graph, without the host's launches;
- `eager`: wall time of the run as a user writes it, without the profiler.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta, Struct
from msgspec.structs import asdict

from costmodel.errors import InputError
from costmodel.graph import PHASES
from costmodel.hardware import document
from costmodel.units import plural
from costmodel.view import Table

if TYPE_CHECKING:
    import pandas as pd


if TYPE_CHECKING:
    Phase = str
else:
    Phase = Literal[PHASES]
Seconds = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]
"""Nothing that is measured is below zero."""


class Spread(Struct, frozen=True, forbid_unknown_fields=True):
    """Repetitions of one thing, in seconds."""

    median: Seconds
    low: Seconds
    """The first quartile."""

    high: Seconds
    """The third quartile."""

    count: Count
    """How many repetitions."""

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """The spread of some repetitions, at least one."""
        if len(seconds) < 2:
            return cls(seconds[0], seconds[0], seconds[0], 1)
        low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
        return cls(median, low, high, len(seconds))

    def rounded(self) -> Spread:
        """The same to nanoseconds, finer than any clock here."""
        return Spread(round(self.median, 9), round(self.low, 9), round(self.high, 9), self.count)


class Kernel(Struct, frozen=True, forbid_unknown_fields=True):
    """What the device ran for a layer under one name, in one run."""

    name: str
    """A kernel's on CUDA, which tells Winograd, FFT and implicit products apart; an operator's on the CPU."""

    seconds: Seconds
    count: Count


class LayerTime(Struct, frozen=True, forbid_unknown_fields=True):
    """A layer in one phase."""

    layer: str
    """Dotted path, as in a trace; "(loss)" and "(optimizer)" for what a training step adds."""

    phase: Phase

    seconds: Seconds
    """The median over repetitions of the time in which any of its kernels ran."""

    low: Seconds
    high: Seconds
    """The quartiles."""

    kernels: tuple[Kernel, ...]
    """The longest first."""

    @property
    def launches(self) -> int:
        """How many kernels (on the CPU: operators) ran for it."""
        return sum(kernel.count for kernel in self.kernels)

    @property
    def noise(self) -> float:
        """Its own spread over repetitions, as a share of its time."""
        return (self.high - self.low) / self.seconds if self.seconds else 0.0


class MemoryPeaks(Struct, frozen=True, forbid_unknown_fields=True):
    """The highest level of one run's memory, level by level; None where nothing tells."""

    requested_bytes: Count | None = None
    """What tensors and libraries' workspaces asked of torch's allocator."""

    allocated_bytes: Count | None = None
    """The same as the allocator rounds it."""

    reserved_bytes: Count | None = None
    """What the allocator took from the device."""

    device_bytes: Count | None = None
    """What the device no longer had free, the CUDA context and everybody else included."""

    before_bytes: Count | None = None
    """What the device had not free before the network was put there."""


class PeerEstimate(Struct, frozen=True, forbid_unknown_fields=True):
    """What another program estimates for a run."""

    seconds: Seconds | None = None
    problem: str = ""
    """Why it says nothing."""


class Run(Struct, frozen=True, forbid_unknown_fields=True, rename={"kernel_time": "work", "unattributed": "unjoined"}):
    """One network at one batch in one dtype."""

    model: str
    inputs: tuple[tuple[Count, ...], ...]
    """The shapes of its inputs, batch first."""

    batch: Count
    dtype: str
    train: bool
    settings: Mapping[str, Any] = {}
    """Loss and optimizer of a training step."""

    failure: str = ""
    """Why there are no times: out of memory."""

    eager: Spread | None = None
    rounds: tuple[Seconds, ...] = ()
    """The medians of eager wall time over several rounds, apart in time: how far they differ is the noise floor."""

    kernel_time: Spread | None = None
    profiled: Spread | None = None
    """Wall time under the profiler: against `eager` it says what the profiler costs. Nothing is scaled by it."""

    idle: Spread | None = None
    """The time of a run under the profiler in which the GPU did nothing, from its first kernel to its last."""

    cold: tuple[Seconds, ...] = ()
    """The kernels' time of runs before those that count, which had kernels to load and algorithms to search."""

    graph: Spread | None = None
    graph_problem: str = ""
    """Why there is no replay of a CUDA graph."""

    layers: tuple[LayerTime, ...] = ()
    """In the order of execution. Their times are those of kernels, as `kernel_time` is."""

    unattributed: tuple[Kernel, ...] = ()
    """What ran for no layer: copies between host and device, for example."""

    memory: MemoryPeaks = MemoryPeaks()
    clocks_hertz: tuple[Seconds, ...] = ()
    """The compute clock as read before and after."""

    peers: Mapping[str, PeerEstimate] = {}

    @property
    def phase_text(self) -> str:
        """What was run, in words."""
        return "training step" if self.train else "forward"

    @property
    def name(self) -> str:
        """The run in one line: "alexnet, batch 8, float32, forward"."""
        return f"{self.model}, batch {self.batch}, {self.dtype}, {self.phase_text}"

    @property
    def noise(self) -> float:
        """The noise floor: how far the rounds lie apart, as a share of their median; 0 for one round."""
        return (max(self.rounds) - min(self.rounds)) / statistics.median(self.rounds) if self.rounds else 0.0

    @property
    def profiler_ratio(self) -> float | None:
        """Wall time under the profiler as a multiple of that without it."""
        return self.profiled.median / self.eager.median if self.profiled and self.eager else None

    @property
    def samples_per_second(self) -> float | None:
        """Samples a second, from eager wall time."""
        return self.batch / self.eager.median if self.eager else None


class PrecisionSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """PyTorch's settings of precision, algorithms and memory layout."""

    cudnn_allow_tf32: bool = True
    matmul_allow_tf32: bool = False
    cudnn_benchmark: bool = False
    memory_format: str = "contiguous"
    """"contiguous" or "channels_last"."""


DEFAULTS = PrecisionSettings()
"""Torch's own."""


class Measurement(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    rename={"environment": "circumstances", "precision_settings": "switches"},
):
    """Some runs on one device in the same environment."""

    environment: Mapping[str, Any]
    """The device, its clocks, versions, threads, date and command, as `clock.environment` reads them; of a trace of
    others the device, the day, and where it comes from."""

    precision_settings: PrecisionSettings
    runs: tuple[Run, ...]

    @property
    def device_name(self) -> str:
        """The device's own name for itself."""
        return str(self.environment["device"]["name"])

    @property
    def target(self) -> str:
        """Whose way of running operators it shows: "cuda" or "cpu"."""
        return str(self.environment["device"]["type"])

    @property
    def threads(self) -> int:
        """Threads of the CPU."""
        return int(self.environment["threads"])

    def run(
        self, model: str, inputs: Sequence[Sequence[int]], dtype: str, train: bool, settings: Mapping[str, Any]
    ) -> Run:
        """The run of a network on such inputs. Raises InputError, with what there is, if there is none."""
        wanted = (tuple(map(tuple, inputs)), dtype, train)
        of_model = [run for run in self.runs if run.model == model]
        found = [run for run in of_model if (run.inputs, run.dtype, run.train) == wanted]
        exact = [run for run in found if dict(run.settings) == dict(settings)]
        if exact:
            return max(exact, key=lambda run: not run.failure)
        asked = f"{model} on {_shapes(wanted[0])} in {dtype}, {'training step' if train else 'forward'}"
        if found:
            said = ", ".join(f"{name} {value}" for name, value in found[-1].settings.items())
            raise InputError(f"this record's {model} was trained with {said}: give the same options.")
        there = "; ".join(f"{run.name} on {_shapes(run.inputs)}" for run in of_model or self.runs[:8])
        raise InputError(f"this record has no run of {asked}. It has {there or 'none at all'}.")

    def to_json(self) -> str:
        """The document, a line a layer, with the digest of its content."""
        return document.to_json(self)

    @classmethod
    def from_json(cls, text: str) -> Measurement:
        """The measurement that `to_json` wrote. Raises InputError, with the reason, for anything else."""
        return document.from_json(cls, text, _check)

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the document, whole or not at all. Raises InputError if that fails."""
        return document.save(self.to_json(), path)

    def table(self) -> Table:
        """One row a run."""
        rows = [_row(run) for run in self.runs]
        columns = rows[0] if rows else ("model", "batch", "dtype", "run")
        title = f"Measured on {self.device_name}, {self.environment['date']}"
        return Table.of(columns, [list(row.values()) for row in rows], title=title, notes=self.notes)

    def to_frame(self) -> pd.DataFrame:
        """The table as a data frame."""
        return self.table().to_frame()

    @property
    def notes(self) -> tuple[str, ...]:
        """The environment in which the record was made, and what its numbers are, in sentences."""
        switches, versions = self.precision_settings, self.environment["versions"]
        allowed = ", ".join(
            f"{name} {'on' if value else 'off'}"
            for name, value in (
                ("TF32 convolutions", switches.cudnn_allow_tf32),
                ("TF32 matrix products", switches.matmul_allow_tf32),
                ("cuDNN's benchmark", switches.cudnn_benchmark),
            )
        )
        where = allowed if self.target == "cuda" else plural(self.threads, "thread")
        if origin := self.environment.get("trace"):
            return (
                f"From a trace of torch.profiler: {origin['source']}.",
                f"It has {origin['repetitions']}.",
                f"Layers were found by {origin['layers']}. Stated, not read: {where}, {switches.memory_format} layout.",
                "Work is the time in which the GPU did something, under the profiler; no run without it is known.",
            )
        problems = {run.graph_problem for run in self.runs if run.graph_problem and self.target == "cuda"}
        return (
            f"torch {versions.get('torch')}, {self.environment['date']}; {where}, {switches.memory_format} layout.",
            "Work is the time in which the device did something (kernels; on the CPU operators) under the profiler; "
            "eager is wall time without it. Noise: how far eager's rounds lie apart.",
            *(f"No CUDA graph: {problem}." for problem in sorted(problems)),
        )

    def __repr__(self) -> str:
        return f"<Measurement of {len(self.runs)} runs on {self.device_name}>"

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def read(path: str | PathLike[str]) -> Measurement:
    """The measurement in a file. Raises InputError, with the file's name and the reason, if it cannot be used."""
    return document.read(Measurement, path, _check)


def _check(record: Measurement) -> None:
    """What the types do not say. Raises InputError, with the place."""
    device = record.environment.get("device")
    if not (isinstance(device, dict) and device.get("type") in ("cpu", "cuda") and device.get("name")):
        raise InputError("circumstances.device does not say which device it was")
    for name, kind in (("threads", int), ("date", str), ("versions", dict)):
        if not isinstance(record.environment.get(name), kind):
            raise InputError(f"circumstances.{name} is missing")
    for index, run in enumerate(record.runs):
        if not run.failure and ((run.eager or run.profiled) is None or run.kernel_time is None or not run.layers):
            raise InputError(f"runs[{index}] has neither times nor a reason why not")


def _median(spread: Spread | None) -> float | None:
    return spread.median if spread else None


def _row(run: Run) -> dict[str, Any]:
    return {
        "model": run.model,
        "batch": run.batch,
        "dtype": run.dtype,
        "run": run.phase_text,
        "work_seconds": _median(run.kernel_time),
        "graph_seconds": _median(run.graph),
        "eager_seconds": _median(run.eager),
        "profiled_seconds": _median(run.profiled),
        "samples_per_second": run.samples_per_second,
        "noise": run.noise if run.rounds else None,
        "profiler_ratio": run.profiler_ratio,
        **asdict(run.memory),
        "failure": run.failure,
    }


def _shapes(shapes: Sequence[Sequence[int]]) -> str:
    return ", ".join("x".join(map(str, shape)) for shape in shapes)
