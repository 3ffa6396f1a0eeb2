"""The commands that run networks on real hardware: measure, suite."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from costmodel.cli.inputs import network, traced, training_options
from costmodel.cli.options import (
    Force,
    Format,
    FormatOptions,
    InputOptions,
    Models,
    NetworkOptions,
    StepOptions,
    Tf32Options,
    TrainingOptions,
)
from costmodel.cli.output import Answer, check_free, progress, rendered
from costmodel.cli.program import command
from costmodel.errors import HardwareError, InputError

if TYPE_CHECKING:
    from costmodel.hardware.record import Measurement

Hardware = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="Where to run: cuda, cuda:1, cpu.", show_default=True)
]


@command
def measure(
    models: Models,
    fed: NetworkOptions,
    training: TrainingOptions,
    tf32: Tf32Options,
    shown: FormatOptions,
    device: Hardware = "cuda",
    batch: Annotated[
        list[int] | None, typer.Option(metavar="N", help="Batch size; repeatable.", show_default="1")
    ] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", help="Threads on the CPU.", min=1)] = None,
    seconds: Annotated[float, typer.Option(metavar="S", help="Least time for timing each run.", min=0)] = 1.0,
    benchmark: Annotated[bool, typer.Option("--benchmark", help="Let cuDNN benchmark its algorithms.")] = False,
    channels_last: Annotated[bool, typer.Option("--channels-last", help="The channels_last memory format.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="RECORD.json", help="Write the record to a file.", show_default=False),
    ] = None,
    force: Force = False,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json[.gz]",
            help="Run nothing: read the network's times from a trace that torch.profiler exported, on whatever GPU.",
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        str, typer.Option(metavar="TEXT", help="With --trace: where it comes from.", show_default="not stated")
    ] = "",
) -> Answer:
    """Run networks on a device: time by layer and in total, memory, kernels. Random data, random weights."""
    if output is not None:
        check_free(output, force)
    if source and trace is None:
        raise InputError("--source says where a trace comes from: give --trace with it.")
    if trace is not None:
        if len(models) != 1 or len(batch or [1]) != 1:
            raise InputError("a trace is of one network at one batch: give one MODEL and one --batch with --trace.")
        feed = InputOptions(**asdict(fed), batch=(batch or [1])[0])
        step = StepOptions(**asdict(training), channels_last=channels_last, target="cuda")
        record = _of_trace(models[0], feed, step, trace, source or "a source that is not stated", tf32, benchmark)
        return _told(record, output, shown)
    from costmodel import tracer
    from costmodel.hardware.clock import check_threads, torch_device
    from costmodel.hardware.measure import measure, measurement
    from costmodel.hardware.record import PrecisionSettings

    torch_device(device)  # both before any weight is made
    check_threads(threads)
    settings = PrecisionSettings(
        tf32.tf32_conv, tf32.tf32_matmul, benchmark, "channels_last" if channels_last else "contiguous"
    )
    options = training_options(training)
    names, batches = list(dict.fromkeys(models)), list(dict.fromkeys(batch or [1]))
    runs = []
    with progress() as tell:
        for index, model in enumerate(names):
            found = network(model, fed, real=True)
            for number, each in enumerate(batches):
                tell(f"{found.title}, batch {each}", index * len(batches) + number, len(names) * len(batches))
                run = measure(
                    found.module,
                    found.inputs(each),
                    device=device,
                    batch=each,
                    dtype=training.dtype,
                    train=tracer.Training(**options) if training.train else False,
                    precision_settings=settings,
                    thread_count=threads,
                    seconds=seconds,
                    name=found.name,
                )
                runs.append(run)
                typer.echo(f"Warning: {run.name}: {run.failure}", err=True) if run.failure else None
    record = measurement(
        runs, device=device, precision_settings=settings, thread_count=threads, command=_command_line()
    )
    answer = _told(record, output, shown)
    _check_some(record)
    return answer


def _told(record: Measurement, output: Path | None, shown: FormatOptions) -> Answer:
    """A record as an answer, and in a file."""
    if output is not None:
        record.save(output)
    return Answer(record.to_json() if shown.format is Format.JSON else rendered(record.table(), shown))


def _of_trace(
    model: str, feed: InputOptions, step: StepOptions, path: Path, source: str, tf32: Tf32Options, benchmark: bool
) -> Measurement:
    """The record of somebody's trace."""
    from costmodel.hardware.profiles import chrome, foreign
    from costmodel.hardware.record import PrecisionSettings

    layout = "channels_last" if step.channels_last else "contiguous"
    settings = PrecisionSettings(tf32.tf32_conv, tf32.tf32_matmul, benchmark, layout)
    profile = chrome.read(path)
    foreign.check_kernels(profile)
    ours = traced(model, feed, step)[1]
    return foreign.measurement(profile, ours, settings, source, foreign.digest_of(path))


def _check_some(record: Measurement) -> None:
    """Raises HardwareError if nothing could be run."""
    if record.runs and all(run.failure for run in record.runs):
        raise HardwareError(
            f"nothing fits the memory of {record.device_name}: give a smaller --batch, or --dtype bfloat16."
        )


@command
def suite(
    shown: FormatOptions,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the records go.")],
    device: Hardware = "cuda",
    budget: Annotated[float, typer.Option(metavar="S", help="Start nothing after this many seconds.")] = 480.0,
    run_seconds: Annotated[
        float, typer.Option(metavar="S", help="Least time for timing each run, and for profiling it.", min=0)
    ] = 0.5,
    threads: Annotated[int | None, typer.Option(metavar="N", help="Threads on the CPU.", min=1)] = None,
    calibrate: Annotated[bool, typer.Option("--calibrate/--no-calibrate", help="Whether to calibrate first.")] = True,
) -> Answer:
    """Calibrate a device and measure the networks on it; called again it skips what is done."""
    from costmodel.cli import documents
    from costmodel.hardware import suite as suites
    from costmodel.hardware.samples import FULL

    effort = FULL if calibrate else None
    wanted = suites.Suite(
        device, output, suites.plan(device), budget, run_seconds, threads, _command_line(), effort=effort
    )
    with progress() as tell:
        outcomes = wanted.run(tell)
    if shown.format is Format.JSON:
        text = documents.to_text(documents.suite(device, outcomes))
    else:
        text = rendered(suites.suite_table(outcomes).around(title=f"Suite on {device}, in {output}"), shown)
    return Answer(text, 1 if any(outcome.state in (suites.FAILED, suites.GIVEN_UP) for outcome in outcomes) else 0)


def _command_line() -> str:
    return shlex.join(["costmodel", *sys.argv[1:]])
