"""The command that measures what a device reaches: calibrate."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from costmodel.cli.options import Force, Format, FormatOptions
from costmodel.cli.output import Answer, check_free, progress, rendered, write_file
from costmodel.cli.program import command
from costmodel.errors import InputError
from costmodel.units import percent


class CalibrationEffort(StrEnum):
    """How much is measured."""

    FULL = "full"
    QUICK = "quick"


@command
def calibrate(
    shown: FormatOptions,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.toml", help="The device file to write.")],
    device: Annotated[str, typer.Option(metavar="DEVICE", help="cpu, cuda, or cuda:1 for the second one.")] = "cuda",
    threads: Annotated[
        int | None,
        typer.Option(metavar="N", help="With --device cpu: number of threads.", show_default="torch's"),
    ] = None,
    effort: Annotated[
        CalibrationEffort, typer.Option(help="quick takes seconds but estimates coarsely.")
    ] = CalibrationEffort.FULL,
    force: Force = False,
) -> Answer:
    """Measure what a device really reaches, in a few minutes, and write it as a device file for -d.

    Times matrix products, bandwidth and generated operations of each class; run nothing else meanwhile.
    """
    if output.suffix.lower() != ".toml":
        raise InputError(f"{output} cannot be read as a device later: give it a name that ends in .toml.")
    check_free(output, force)
    if threads is not None and device != "cpu":
        raise InputError("--threads is for the CPU: give --device cpu with it.")
    from costmodel.cli import documents
    from costmodel.devices import to_toml
    from costmodel.hardware import calibrate as calibration
    from costmodel.hardware.rates import disturbance, noise_of

    command_line = f"costmodel calibrate --device {device}" + (f" --threads {threads}" if threads else "")
    command_line += f" --effort {effort.value}" if effort is not CalibrationEffort.FULL else ""
    with progress() as tell:
        found = calibration.calibrate(
            device,
            cpu_threads=threads,
            name=output.stem,
            command=command_line,
            effort=calibration.QUICK if effort is CalibrationEffort.QUICK else calibration.FULL,
            progress=tell,
        )
    write_file(output, to_toml(found).encode())
    problem = disturbance(found)
    if problem:
        typer.echo(f"Warning: {problem}", err=True)
    if shown.format is Format.JSON:
        return Answer(documents.to_text(documents.devices([found])))
    notes = (
        "Rates are of one class's operations; error is the median of shapes held out, 90 % lie in the interval.",
        f"Noise {percent(noise_of(found), 0)}: how much longer one operation took in its slowest moment than at best.",
        f"Written to {output}: give it to other commands as -d {output}.",
    )
    rates = found.calibration
    return Answer(rendered(rates.table().around(title=found.title, notes=notes), shown) if rates else "")
