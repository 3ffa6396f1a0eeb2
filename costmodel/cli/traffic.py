"""The command about DRAM traffic. Nothing is computed here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from costmodel.cli.inputs import traced
from costmodel.cli.options import AllowUnmodelled, Format, InputOptions, Model, OutputOptions, StepOptions
from costmodel.cli.output import Answer, check_picture, picture, rendered, uncounted_code, write_file
from costmodel.cli.program import command


@command
def traffic(
    model: Model,
    buffer_bytes: Annotated[
        list[str],
        typer.Option(metavar="SIZE", help="Size of the on-chip buffer: 32768, 108KiB ...; repeatable."),
    ],
    feed: InputOptions,
    out: OutputOptions,
    word_bits: Annotated[int, typer.Option(metavar="BITS", help="Width of inputs, weights and outputs.")] = 16,
    partial_bits: Annotated[
        int | None, typer.Option(metavar="BITS", help="Width of partial sums.", show_default="that of a word")
    ] = None,
    double_buffer: Annotated[
        bool, typer.Option("--double-buffer", help="Double-buffer streaming tiles: loading overlaps computing.")
    ] = False,
    fuse: Annotated[
        bool, typer.Option("--fuse", help="Fuse layers where that keeps the tensors between them on the chip.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Plot traffic against buffer size into this .png or .svg.", show_default=False
        ),
    ] = None,
    allow_unmodelled: AllowUnmodelled = False,
) -> Answer:
    """The least traffic between DRAM and an on-chip buffer, layer by layer, beside a lower bound for any schedule."""
    from costmodel.units import parse_bytes

    buffers = [parse_bytes(text) for text in buffer_bytes]
    if plot is not None:
        check_picture(plot, out.force)
    network, trace = traced(model, feed, StepOptions())
    from costmodel.chip.dram import traffic_curves
    from costmodel.chip.fusion import fuse as fused
    from costmodel.chip.fusion import fusion_table
    from costmodel.cli import documents
    from costmodel.cli.notes import caption

    options = {"word_bits": word_bits, "partial_bits": partial_bits, "double_buffer": double_buffer}
    curves = traffic_curves(trace, **options)  # type: ignore[arg-type]
    found = curves.at(buffers)
    fusions = [fused(trace, size, **options) for size in found.buffers] if fuse else []  # type: ignore[arg-type]
    if plot is not None:
        from costmodel import plots

        write_file(plot, picture(plots.traffic(curves, buffers=found.buffers), plot))
    if out.format is Format.JSON:
        document = documents.fusion(fusions, curves, trace) if fuse else documents.traffic(found, trace)
        text = documents.to_text(document)
    else:
        table = fusion_table(fusions) if fuse else found.table()
        warnings = tuple(lost.note for lost in found.unlowered)
        text = rendered(table.around(title=caption(trace, network.title, feed.batch), warnings=warnings), out)
    return Answer(text, uncounted_code(found.unlowered, allow_unmodelled))
