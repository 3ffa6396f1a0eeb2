"""The commands about what networks cost: analyze, compare, predict, roofline. Nothing is computed here.

Whatever is heavy (torch, pandas, matplotlib) is imported inside a command, after what can be refused without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import costmodel
from costmodel.cli.inputs import batches_of, check_depth, predicted, run_options, traced
from costmodel.cli.options import (
    AllowUnmodelled,
    By,
    Depth,
    DeviceOption,
    Force,
    Format,
    FormatOptions,
    GroupBy,
    InputOptions,
    Model,
    Models,
    OptionalDevice,
    OutputOptions,
    StepOptions,
    Sweep,
    Tf32Options,
)
from costmodel.cli.output import Answer, check_picture, exit_code, picture, rendered, write_file
from costmodel.cli.program import command


@command
def analyze(
    model: Model,
    feed: InputOptions,
    step: StepOptions,
    out: OutputOptions,
    by: GroupBy = By.LAYER,
    depth: Depth = None,
    allow_unmodelled: AllowUnmodelled = False,
) -> Answer:
    """Parameters, MACs, FLOPs, bytes and shapes, layer by layer and in total."""
    check_depth(by, depth)
    network, trace = traced(model, feed, step)
    from costmodel.cli import documents
    from costmodel.cli.notes import caption
    from costmodel.cost import count
    from costmodel.memory import memory_timeline

    costs = count(trace)
    if out.format is Format.JSON:
        text = documents.to_text(documents.analysis(costs, memory_timeline(trace), by, depth))
    else:
        text = rendered(costs.table(by, depth).around(title=caption(trace, network.title, feed.batch)), out)
    return Answer(text, exit_code([costs], allow_unmodelled))


@command
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A network, as for `analyze`.", show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help="The network beside it.", show_default=False)],
    feed: InputOptions,
    step: StepOptions,
    tf32: Tf32Options,
    out: OutputOptions,
    device: OptionalDevice = None,
    allow_unmodelled: AllowUnmodelled = False,
) -> Answer:
    """Two networks side by side: the whole, convolutions, fully connected layers, the rest."""
    hardware = costmodel.device(device) if device else None
    runs = [traced(model, feed, step, hardware) for model in (a, b)]
    from costmodel.cli import documents
    from costmodel.cli.notes import caption
    from costmodel.compare import compare_table
    from costmodel.cost import NOTE, count, not_counted
    from costmodel.memory import memory_timeline

    costs = [count(trace) for _, trace in runs]
    memories = [memory_timeline(trace) for _, trace in runs]
    predictions = [predicted(each, hardware, tf32) for each in costs] if hardware else []
    if out.format is Format.JSON:
        text = documents.to_text(documents.comparison(costs, memories, predictions))
    else:
        (first, one), (second, other) = runs
        notes = (
            f"A: {caption(one, first.title, feed.batch)}.",
            f"B: {caption(other, second.title, feed.batch)}.",
            NOTE,
            *(prediction.notes[0] for prediction in predictions[:1]),
        )
        missing = tuple(warning for each in costs for warning in not_counted(each))
        table = compare_table(costs, memories, predictions)
        title = f"{first.title} and {second.title}"
        text = rendered(table.around(title=title, notes=notes, warnings=missing), out)
    return Answer(text, exit_code(costs, allow_unmodelled))


@command
def predict(
    model: Model,
    device: DeviceOption,
    feed: InputOptions,
    step: StepOptions,
    tf32: Tf32Options,
    out: OutputOptions,
    by: GroupBy = By.LAYER,
    depth: Depth = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Refuse a device that was not calibrated for this network.")
    ] = False,
    sweep: Sweep = None,
    allow_unmodelled: AllowUnmodelled = False,
) -> Answer:
    """How long each layer takes at least on a device, what binds it and, if it was calibrated, how long we expect."""
    check_depth(by, depth)
    batches = batches_of(sweep)
    hardware = costmodel.device(device)
    network, trace = traced(model, feed, step, hardware)
    from costmodel.cli import documents
    from costmodel.cli.notes import caption, run_caption
    from costmodel.cost import count, not_counted
    from costmodel.roofline import batches_table

    costs = count(trace)
    prediction = predicted(costs, hardware, tf32, estimate or None)
    options = run_options(feed, step, hardware)
    at = {each: count(network.trace(each, **options)) for each in batches}
    swept = {each: predicted(found, hardware, tf32, estimate or None) for each, found in at.items()}
    if out.format is Format.JSON:
        text = documents.to_text(documents.prediction(prediction, by, depth, swept))
    elif batches:
        around = {"title": run_caption(trace, network.title), "notes": prediction.notes[:1]}
        text = rendered(batches_table(swept).around(**around, warnings=not_counted(costs)), out)
    else:
        text = rendered(prediction.table(by, depth).around(title=caption(trace, network.title, feed.batch)), out)
    return Answer(text, exit_code([costs], allow_unmodelled))


@command
def roofline(
    models: Models,
    device: DeviceOption,
    feed: InputOptions,
    step: StepOptions,
    tf32: Tf32Options,
    shown: FormatOptions,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Draw the plot into this .png or .svg.", show_default=False
        ),
    ] = None,
    force: Force = False,
    allow_unmodelled: AllowUnmodelled = False,
) -> Answer:
    """The networks' layers under a device's roofs: draw them, and print the bounds."""
    hardware = costmodel.device(device)
    if output is not None:
        check_picture(output, force)
    runs = [traced(model, feed, step, hardware) for model in models]
    from costmodel.cli import documents
    from costmodel.cli.notes import caption
    from costmodel.cost import NOTE, count

    costs = [count(trace) for _, trace in runs]
    predictions = [predicted(each, hardware, tf32) for each in costs]
    if output is not None:
        from costmodel import plots

        write_file(output, picture(plots.roofline(predictions), output))
    if shown.format is Format.JSON:
        text = documents.to_text(documents.roofline(predictions, output))
    else:
        more = () if output else ("Give -o FILE.png (or .svg) for the plot.",)
        tables = [
            prediction.table().around(
                title=caption(trace, network.title, feed.batch), notes=(NOTE, prediction.notes[0], *more)
            )
            for (network, trace), prediction in zip(runs, predictions, strict=True)
        ]
        text = "\n".join(rendered(table, shown) for table in tables)
    return Answer(text, exit_code(costs, allow_unmodelled))
