"""The commands that run networks on real hardware: measure, suite."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from costmodel.cli.inputs import network, training_options
from costmodel.cli.options import Force, Format, FormatOptions, Models, NetworkOptions, Tf32Options, TrainingOptions
from costmodel.cli.output import Answer, check_free, progress, rendered
from costmodel.cli.program import command
from costmodel.errors import HardwareError

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
) -> Answer:
    """Run networks on a device: time by layer and in total, memory, kernels. Random data, random weights."""
    if output is not None:
        check_free(output, force)
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
    if output is not None:
        record.save(output)
    _check_some(record)
    if shown.format is Format.JSON:
        return Answer(record.to_json())
    return Answer(rendered(record.table(), shown))


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
