"""The commands that list networks and devices."""

from __future__ import annotations

from typing import Annotated

import typer

from costmodel.cli.options import Format, NoCache, OutputOptions
from costmodel.cli.output import Answer, rendered
from costmodel.cli.program import command
from costmodel.errors import InputError


@command
def models(
    out: OutputOptions,
    word: Annotated[
        str | None, typer.Argument(metavar="[WORD]", help="Only those with this word.", show_default=False)
    ] = None,
    no_cache: NoCache = False,
) -> Answer:
    """List the networks by name."""
    from costmodel.cli import documents
    from costmodel.networks import names
    from costmodel.networks.listing import networks_table

    found = [info for info in names(kept=not no_cache) if not word or word.lower() in " ".join(map(str, info)).lower()]
    if not found:
        raise InputError(f"no network matches {word!r}: `costmodel models` lists them all.")
    if out.format is Format.JSON:
        return Answer(documents.to_text(documents.networks(found)))
    notes = ("Inputs are without the batch. Any other network: package.module:callable or path/file.py:callable.",)
    return Answer(rendered(networks_table(found).around(notes=notes), out))


@command
def devices(out: OutputOptions) -> Answer:
    """List the devices: peaks by precision path, and memory."""
    from costmodel.cli import documents
    from costmodel.devices import device, names
    from costmodel.devices.spec import devices_table

    found = [device(name) for name in names()]
    if out.format is Format.JSON:
        return Answer(documents.to_text(documents.devices(found)))
    notes = (
        "Peaks are dense; a multiply-accumulate is two FLOPs. --format json gives the source of every number.",
        "A device of your own is a TOML file like those in costmodel/devices: -d my_gpu.toml.",
    )
    return Answer(rendered(devices_table(found).around(notes=notes), out))
