"""The command about memory: when it peaks and for whom, at other batches, on a device, and what would lower it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from costmodel.cli.inputs import batches_of, machine, network, run_options, tracing
from costmodel.cli.options import Feed, Format, MaybeOn, Model, Output, Step, Sweep
from costmodel.cli.output import Answer, check_free, check_picture, picture, rendered, write_file
from costmodel.cli.program import command
from costmodel.errors import InputError

if TYPE_CHECKING:
    from costmodel.memory import Memory


@command
def memory(
    model: Model,
    feed: Feed,
    step: Step,
    out: Output,
    device: MaybeOn = None,
    sweep: Sweep = None,
    fit: Annotated[bool, typer.Option("--fit", help="The largest batch that the device (-d) runs.")] = False,
    levers: Annotated[bool, typer.Option("--levers", help="With --train: what would lower the peak, and why.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Draw the timeline, or with --sweep the batches: a .png or .svg.", show_default=False
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The timeline as .json for ui.perfetto.dev, or as .csv.", show_default=False),
    ] = None,
) -> Answer:
    """The peak of live tensors: how many bytes, when, who holds them, and what a GPU has to have for it."""
    batches = batches_of(sweep)
    hardware = machine(device) if device else None
    if fit and hardware is None:
        raise InputError("--fit asks what fits a device: name it with -d (`costmodel devices` lists them).")
    if fit and feed.run:
        raise InputError("--fit looks at batches that fill a device, and --run would really run them: leave one out.")
    if levers and not step.train:
        raise InputError("--levers are about a training step: give --train with it.")
    if plot is not None:
        check_picture(plot, out.force)
    if export is not None:
        _check_export(export, out.force)
    options = run_options(feed, step)
    found = network(model, feed, feed.run)
    trace_with = tracing(found)
    from costmodel.memory import remember, savings, scaling
    from costmodel.report import captions, documents, plots, tables

    memory = remember(trace_with(feed.batch, **options))
    rungs = memory.ladder(hardware)
    at_any_batch = scaling(lambda batch: trace_with(batch, **options))
    swept = at_any_batch.sweep(batches, hardware) if batches else None
    fitted = at_any_batch.fit(hardware) if fit and hardware else None
    pulled = savings(trace_with, feed.batch, **options) if levers else None
    if fitted and not fitted.batch:
        raise InputError(captions.fit_notes(fitted, step.train)[0])
    if plot is not None:
        named = f"{found.title}, {'training' if step.train else 'inference'}"
        limits = [hardware] if hardware else []
        axes = memory.plot() if swept is None else plots.memory_against_batch({named: swept}, limits)
        write_file(plot, picture(axes, plot))
    if export is not None:
        write_file(export, _exported(memory, export))
    if out.format is Format.JSON:
        beside = at_any_batch.beside(hardware)
        return Answer(
            documents.to_text(documents.memory(memory, rungs, beside, sweep=swept, fit=fitted, savings=pulled))
        )
    title = captions.caption(memory.trace, found.title, feed.batch)
    run = captions.run_caption(memory.trace, found.title)
    shown = []
    if swept is not None:
        shown.append(rendered(swept, out, run, captions.assumed_notes(at_any_batch.beside(hardware)), total=False))
    if fitted is not None:
        notes = captions.fit_notes(fitted, step.train)
        shown.append(rendered(tables.fits_table([fitted]), out, run, notes, total=False))
    if pulled is not None:
        notes = [captions.peak_notes(memory)[0], *captions.rung_notes(rungs), captions.BYTES]
        table = tables.savings_table(pulled)
        table = table.drop(columns=["saved_bytes", "how"]) if out.format is Format.TABLE else table  # no room for all
        shown.append(rendered(table, out, title, notes, total=False))
    if not shown:
        fits = at_any_batch.holds(feed.batch, hardware) if hardware and hardware.room_bytes else None
        room = [] if hardware is None or fits is None else [captions.room_note(hardware, rungs, fits)]
        notes = [*captions.peak_notes(memory, rungs), *room, captions.BYTES]
        most = None if out.format is Format.CSV else _HOLDERS
        shown.append(rendered(tables.memory_table(memory, most), out, title, notes))
    return Answer("\n".join(shown))


_HOLDERS = 20
"""Tensors that a table for people names."""


def _check_export(path: Path, force: bool) -> None:
    if path.suffix.lower() not in (".json", ".csv"):
        raise InputError(
            f"cannot export into {str(path)!r}: give it a name that ends in .json (for ui.perfetto.dev) or .csv."
        )
    check_free(path, force)


def _exported(memory: Memory, path: Path) -> bytes:
    """The timeline as the content of a file."""
    from costmodel.memory import chrome_trace
    from costmodel.report.tables import csv

    if path.suffix.lower() == ".csv":
        return csv(memory.to_frame()).encode()
    replay = memory.replay if memory.trace.target == "cuda" else None
    return json.dumps(chrome_trace(memory, replay), separators=(",", ":")).encode()
