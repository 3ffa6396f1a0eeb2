"""The command about memory: the peak and what holds it, other batches, a device's limit, and what would lower it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import costmodel
from costmodel.cli.inputs import batches_of, check_depth, reference, run_options
from costmodel.cli.options import (
    Depth,
    Format,
    InputOptions,
    Model,
    OptionalDevice,
    OutputOptions,
    PeakBy,
    StepOptions,
    Sweep,
)
from costmodel.cli.output import Answer, check_free, check_picture, picture, rendered, write_file
from costmodel.cli.program import command
from costmodel.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from costmodel.devices import Device
    from costmodel.memory import MemoryLevel, MemoryTimeline, MemoryWhatIfs
    from costmodel.view import Table


@command
def memory(
    model: Model,
    feed: InputOptions,
    step: StepOptions,
    out: OutputOptions,
    device: OptionalDevice = None,
    by: Annotated[PeakBy, typer.Option("--by", help="What a row of the peak is.")] = PeakBy.TENSOR,
    depth: Depth = None,
    sweep: Sweep = None,
    fit: Annotated[
        bool, typer.Option("--fit", help="The largest batch that fits the device (-d), whatever --batch is.")
    ] = False,
    what_ifs: Annotated[
        bool, typer.Option("--what-ifs", help="With --train: what would lower the peak, and why.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Plot the timeline, or with --sweep the batches: a .png or .svg.",
            show_default=False,
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The timeline as .json for ui.perfetto.dev, or as .csv.", show_default=False),
    ] = None,
) -> Answer:
    """The peak of live tensors: how many bytes, when, who holds them, and how much memory a GPU needs for it."""
    check_depth(by, depth)
    batches = batches_of(sweep)
    if by is not PeakBy.TENSOR and (batches or fit or what_ifs):
        raise InputError("--by groups the tensors at the peak: leave out --sweep, --fit and --what-ifs with it.")
    if what_ifs and not step.train:
        raise InputError("--what-ifs are about a training step: give --train with it.")
    hardware = _device(device, feed, step, fit)
    if plot is not None:
        check_picture(plot, out.force)
    if export is not None:
        _check_export(export, out.force)
    options = run_options(feed, step, hardware)
    found = reference(model, feed)
    from costmodel.cli import documents, notes
    from costmodel.memory import memory_timeline, memory_what_ifs, scaling

    at_any_batch = scaling(lambda batch: found.trace(batch, **options))
    memory = memory_timeline(at_any_batch.trace(feed.batch))
    levels = memory.levels(hardware)
    swept = at_any_batch.sweep(batches, hardware) if batches else None
    fitted = at_any_batch.fit(hardware) if fit and hardware else None
    changes = memory_what_ifs(found.trace, feed.batch, **options) if what_ifs else None
    if fitted and not fitted.batch:
        raise InputError(notes.fit_notes(fitted, step.train)[0])
    if plot is not None:
        write_file(plot, picture(_drawn(memory, swept, found.title, hardware), plot))
    if export is not None:
        write_file(export, _exported(memory, export))
    if out.format is Format.JSON:
        document = documents.memory(
            memory, levels, at_any_batch.beside(hardware), by=by, depth=depth, sweep=swept, fit=fitted, what_ifs=changes
        )
        return Answer(documents.to_text(document))
    title = notes.caption(memory.trace, found.title, feed.batch)
    run = notes.run_caption(memory.trace, found.title)
    tables = []
    if swept is not None:
        tables.append(swept.around(title=run, notes=notes.sweep_notes(swept, hardware, at_any_batch.beside(hardware))))
    if fitted is not None:
        tables.append(fitted.table().around(title=run, notes=notes.fit_notes(fitted, step.train)))
    if changes is not None:
        tables.append(_what_ifs(changes, levels, out).around(title=title))
    if not tables:
        fits = at_any_batch.holds(feed.batch, hardware) if hardware and hardware.available_bytes else None
        room = () if hardware is None or fits is None else (notes.room_note(hardware, levels, fits),)
        table = memory.table(by, depth, most=None if out.format is Format.CSV else _MOST)
        how = ("A row is a tensor; --by layer, --by block and --by role sum them.",) if by is PeakBy.TENSOR else ()
        tables.append(table.around(title=title, notes=(*table.notes, *notes.level_notes(levels), *room, *how)))
    return Answer("\n".join(rendered(table, out) for table in tables))


def _device(name: str | None, feed: InputOptions, step: StepOptions, fit: bool) -> Device | None:
    """The device that was given. Raises InputError if the run has other operators, or cannot be fitted to it."""
    hardware = costmodel.device(name) if name else None
    if hardware is not None:
        _check_target(hardware, feed, step)
    if fit and hardware is None:
        raise InputError("--fit asks what fits a device: name it with -d (`costmodel devices` lists them).")
    if fit and feed.run:
        raise InputError("--fit looks at batches that fill a device, and --run would really run them: leave one out.")
    return hardware


def _drawn(memory: MemoryTimeline, swept: Table | None, title: str, hardware: Device | None) -> Axes:
    """The timeline, or the batches of a sweep."""
    from costmodel import plots

    if swept is None:
        return plots.memory(memory)
    run = f"{title}, {'training' if memory.trace.train else 'inference'}"
    return plots.memory_against_batch({run: swept.to_frame()}, [hardware] if hardware else [])


def _what_ifs(changes: MemoryWhatIfs, levels: Sequence[MemoryLevel], out: OutputOptions) -> Table:
    """What would lower the peak."""
    from costmodel.cli.notes import level_notes
    from costmodel.memory.timeline import BYTES

    table = changes.table().around(notes=(changes.memory.notes[0], *level_notes(levels), BYTES))
    if out.format is not Format.TABLE:
        return table
    # no room for all: the code to write names the change
    return table.select(*(name for name in table.names if name not in ("what_if", "saved_bytes")))


_MOST = 20
"""Tensors, layers or blocks that a table for people names."""


def _check_target(device: Device, feed: InputOptions, step: StepOptions) -> None:
    """Raises InputError if a run does not have the device's operators."""
    if feed.run and device.target != "cpu":
        raise InputError(f"--run runs on this machine's CPU, and the {device.title} is a GPU: leave one of them out.")
    if step.target not in (None, "meta", device.target):
        raise InputError(
            f"--target {step.target} is not how the {device.title} runs operators: leave --target out, "
            f"and {device.target} is taken."
        )


def _check_export(path: Path, force: bool) -> None:
    if path.suffix.lower() not in (".json", ".csv"):
        raise InputError(
            f"cannot export into {str(path)!r}: give it a name that ends in .json (for ui.perfetto.dev) or .csv."
        )
    check_free(path, force)


def _exported(memory: MemoryTimeline, path: Path) -> bytes:
    """The timeline as the content of a file."""
    from costmodel.memory import chrome_trace

    if path.suffix.lower() == ".csv":
        return memory.table("operation").csv().encode()
    replay = memory.replay if memory.trace.target == "cuda" else None
    return json.dumps(chrome_trace(memory, replay), separators=(",", ":")).encode()
