"""The command about what crosses a chip's edge: traffic. Nothing is computed here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from costmodel.cli.inputs import traced
from costmodel.cli.options import AllowUnmodelled, Feed, Format, Model, Output, Step
from costmodel.cli.output import Answer, check_picture, picture, rendered, write_file
from costmodel.cli.program import command

if TYPE_CHECKING:
    from costmodel.chip.nests import Unlowered


@command
def traffic(
    model: Model,
    buffer_bytes: Annotated[
        list[str],
        typer.Option(metavar="SIZE", help="Size of the on-chip buffer: 32768, 108KiB ...; repeatable."),
    ],
    feed: Feed,
    out: Output,
    word_bits: Annotated[int, typer.Option(metavar="BITS", help="Width of inputs, weights and outputs.")] = 16,
    partial_bits: Annotated[
        int | None, typer.Option(metavar="BITS", help="Width of partial sums.", show_default="that of a word")
    ] = None,
    double_buffer: Annotated[
        bool, typer.Option("--double-buffer", help="Hold streaming tiles twice, so that loading overlaps computing.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw traffic against buffer into this .png or .svg.", show_default=False),
    ] = None,
    allow_unmodelled: AllowUnmodelled = False,
) -> Answer:
    """The least traffic between DRAM and an on-chip buffer, layer by layer, beside what no schedule can beat."""
    from costmodel.units import parse_bytes

    buffers = [parse_bytes(text) for text in buffer_bytes]
    if plot is not None:
        check_picture(plot, out.force)
    network, trace = traced(model, feed, Step())
    from costmodel.chip.dram import traffic_curves
    from costmodel.report import documents
    from costmodel.report.captions import caption, traffic_notes, unlowered_warnings
    from costmodel.report.tables import traffic_table

    curves = traffic_curves(trace, word_bits=word_bits, partial_bits=partial_bits, double_buffer=double_buffer)
    found = curves.at(buffers)
    if plot is not None:
        from costmodel.report import plots

        write_file(plot, picture(plots.traffic(curves, buffers=found.buffers), plot))
    if out.format is Format.JSON:
        text = documents.to_text(documents.traffic(found, trace))
    else:
        title = caption(trace, network.title, feed.batch)
        warnings = unlowered_warnings(found.unlowered)
        text = rendered(traffic_table(found), out, title, traffic_notes(found), warnings, total=len(found.buffers) == 1)
    return Answer(text, _code(found.unlowered, allow_unmodelled))


def _code(unlowered: tuple[Unlowered, ...], allow: bool) -> int:
    """The exit code; what is not counted is named on stderr as well, for a program that reads the answer."""
    if not unlowered:
        return 0
    names = ", ".join(f"{lost.operator} ({lost.reason})" for lost in unlowered)
    way_out = "" if allow else "\nAccept that with --allow-unmodelled."
    typer.echo(f"{'Warning' if allow else 'Error'}: not counted: {names}.{way_out}", err=True)
    return 0 if allow else 3
