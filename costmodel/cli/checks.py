"""The commands that check us, write the report and measure our own speed: validate, report, bench."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

import costmodel
from costmodel.cli.inputs import network, traced, training_options
from costmodel.cli.options import (
    Force,
    Format,
    FormatOptions,
    InputOptions,
    Models,
    OptionalDevice,
    OutputOptions,
    StepOptions,
    TrainingOptions,
)
from costmodel.cli.output import Answer, progress, rendered
from costmodel.cli.program import command
from costmodel.errors import InputError


@command
def validate(
    models: Models,
    feed: InputOptions,
    training: TrainingOptions,
    out: OutputOptions,
    measurement: Annotated[
        Path | None,
        typer.Option(metavar="RECORD.json", help="Compare predictions with a record written by `measure`."),
    ] = None,
    device: OptionalDevice = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Compare with this program only; repeatable.", show_default="all of them"),
    ] = None,
    totals: Annotated[bool, typer.Option("--totals", help="Leave out layers without a difference.")] = False,
) -> Answer:
    """Our numbers against other programs', published or measured ones; exit code 1 if a difference is unexplained."""
    given = training_options(training)
    if measurement is not None:
        if peer:
            raise InputError("--peer compares with programs, --measurement with a record: give one of the two.")
        return _against(models, feed, training, measurement, device, out, totals)
    if given or training.dtype or device:
        raise InputError("--dtype, --optimizer and --device say what was measured: give --measurement with them.")
    networks = [network(model, feed, feed.run) for model in models]
    from costmodel.cli import documents
    from costmodel.cli.notes import verdict
    from costmodel.validation import validate

    asked: dict[str, Any] = {"train": training.train, "run": feed.run or None, "peers": peer or None}
    results = []
    with progress() as tell:
        for index, each in enumerate(networks):
            tell(f"validating {each.title}", index, len(networks))
            results.append(validate(each, batch=feed.batch, **asked))
    if out.format is Format.JSON:
        text = documents.to_text(documents.validation(results))
    else:
        tables = [
            rendered(result.table(every=not totals).around(title=verdict(result, each.title)), out)
            for each, result in zip(networks, results, strict=True)
        ]
        text = "\n".join(tables)
    return Answer(text, 0 if all(result.ok for result in results) else 1)


def _against(
    models: list[str],
    feed: InputOptions,
    training: TrainingOptions,
    path: Path,
    device: str | None,
    out: OutputOptions,
    totals: bool,
) -> Answer:
    """Predictions beside a record's runs of the same networks."""
    from costmodel.cli import documents
    from costmodel.hardware.record import read
    from costmodel.validation.measurement import against, device_of

    record = read(path)
    hardware = costmodel.device(device) if device else device_of(record)
    laid = record.precision_settings.memory_format == "channels_last"
    step = StepOptions(**asdict(training), target=record.target, channels_last=laid)
    results = [against(record, traced(model, feed, step)[1], hardware) for model in models]
    if out.format is Format.JSON:
        text = documents.to_text(documents.measured(results))
    else:
        tables = []
        for result in results:
            tables.append(rendered(result.totals_table(), out))
            if not totals:
                tables.append(rendered(result.table().around(title="Layer by layer", notes=()), out))
        text = "\n".join(tables)
    return Answer(text, 0 if all(result.ok for result in results) else 1)


@command
def report(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL...]", help="Networks; if none, AlexNet and VGG, the book's and torchvision's."),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option("--device", "-d", metavar="DEVICE", help="A device; repeatable.", show_default="three of ours"),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where to write.")] = Path("reports"),
    force: Force = False,
) -> Answer:
    """Write the report: Markdown, one HTML page, figures and tables. Prints the files' paths."""
    machines = [costmodel.device(name) for name in device or ()]
    from costmodel.book.write import DEVICES, MODELS, write_report

    with progress() as tell:
        paths = write_report(models or MODELS, output, devices=machines or DEVICES, force=force, progress=tell)
    return Answer("".join(f"{path}\n" for path in paths))


@command
def bench(
    shown: FormatOptions,
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL...]", help="Networks; if none, six of torchvision's.")
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Measure this program only; repeatable.", show_default="all of them"),
    ] = None,
    repeat: Annotated[int, typer.Option(metavar="N", help="Number of timed rounds.")] = 7,
    memory: Annotated[
        bool, typer.Option("--memory/--no-memory", help="Measure memory too, which takes longer.")
    ] = True,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write it.")] = Path(
        "reports/benchmark.md"
    ),
    force: Force = False,
) -> Answer:
    """How long an analysis takes here and in other programs; written to reports/benchmark.md as well."""
    from costmodel.bench import MODELS, run, write
    from costmodel.cli import documents
    from costmodel.view import Table

    with progress() as tell:
        frame = run(models or MODELS, peer or None, repeat, memory=memory, progress=tell)
    written = write(frame, output, force=force)
    if shown.format is Format.JSON:
        return Answer(documents.to_text(documents.benchmark(frame)))
    notes = ("Times are those of the call alone; MACs are what a program reports, normalised to multiply-accumulates.",)
    return Answer(rendered(Table.from_frame(frame, title=f"Written to {written}", notes=notes), shown))
