"""The commands of chip design: chip, explore, accelerators. Nothing is computed here."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from costmodel.cli.inputs import run_options, traced
from costmodel.cli.options import AllowUnmodelled, Format, InputOptions, Model, Models, OutputOptions, StepOptions
from costmodel.cli.output import Answer, rendered, uncounted_code
from costmodel.cli.program import command
from costmodel.errors import InputError

if TYPE_CHECKING:
    from costmodel.chip.accelerator import Accelerator


def _complete_accelerator(incomplete: str) -> list[str]:
    from costmodel.chip.accelerator import names

    return [name for name in names() if name.startswith(incomplete)]


_ACCELERATOR: Any = typer.Option(
    "--accelerator",
    "-a",
    metavar="ACCELERATOR",
    help="A name (see `costmodel accelerators`), a GPU's name, or a TOML file.",
    autocompletion=_complete_accelerator,
)


_TECHNOLOGY: Any = typer.Option(metavar="NAME", help="Another technology: 45nm, 28nm+derived, my.toml ...")
_DRAM: Any = typer.Option(metavar="KIND", help="Another kind of memory: ddr3, lpddr4, hbm2 ...", show_default="its own")


class Goal(StrEnum):
    """What the best design optimises."""

    SPEED = "speed"
    ENERGY = "energy"
    EDP = "edp"


@command
def chip(
    model: Model,
    accelerator: Annotated[str, _ACCELERATOR],
    feed: InputOptions,
    out: OutputOptions,
    kind: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help="Only contractions of this kind: conv, linear, attention; repeatable."),
    ] = None,
    technology: Annotated[str | None, _TECHNOLOGY] = None,
    dram: Annotated[str | None, _DRAM] = None,
    energy: Annotated[bool, typer.Option("--energy/--no-energy", help="Whether to compute energy.")] = True,
    what_if: Annotated[
        bool, typer.Option("--what-if", help="The effect of batch, narrower types, Winograd and other changes.")
    ] = False,
    allow_unmodelled: AllowUnmodelled = False,
) -> Answer:
    """A network on an accelerator, layer by layer: time and what bounds it, energy, area."""
    hardware = _accelerator(accelerator, technology, dram)
    found, trace = traced(model, feed, StepOptions())
    from costmodel.chip.evaluation import evaluate
    from costmodel.chip.lowering import lower
    from costmodel.chip.whatif import what_ifs
    from costmodel.cli import documents
    from costmodel.cli.notes import caption

    nests = lower(trace)
    evaluation = evaluate(nests.only(*kind) if kind else nests, hardware, energy=energy)
    changes = None
    if what_if:
        from costmodel.networks.resolutions import other_resolutions

        sizes = other_resolutions(found, feed.batch, **run_options(feed, StepOptions()))
        extra = [(name, lower(other).only(*kind) if kind else other, why) for name, other, why in sizes]
        changes = what_ifs(nests.only(*kind) if kind else trace, hardware, extra=extra)
    if out.format is Format.JSON:
        text = documents.to_text(documents.evaluation(evaluation, changes))
    else:
        title = f"{caption(trace, found.title, feed.batch)}, on {hardware.title}"
        warnings = tuple(lost.note for lost in nests.unlowered)
        table = evaluation.table() if changes is None else changes.table()
        text = rendered(table.around(title=title, notes=evaluation.notes, warnings=warnings), out)
    return Answer(text, uncounted_code(nests.unlowered, allow_unmodelled))


@command
def explore(
    models: Models,
    feed: InputOptions,
    out: OutputOptions,
    accelerator: Annotated[str, _ACCELERATOR] = "edge-npu",
    budget_area: Annotated[
        float | None, typer.Option(metavar="MM2", help="Largest area of a design.", show_default="none")
    ] = None,
    budget_power: Annotated[
        float | None, typer.Option(metavar="WATTS", help="Largest power of a design.", show_default="none")
    ] = None,
    operand: Annotated[
        list[str] | None,
        typer.Option(metavar="TYPE", help="int8, fp16 ...; repeatable.", show_default="its own"),
    ] = None,
    dataflow: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Such as weight_stationary; repeatable.", show_default="three and its own"),
    ] = None,
    array: Annotated[
        list[str] | None,
        typer.Option(metavar="RxC", help="Rows x columns; repeatable.", show_default="121 and its own"),
    ] = None,
    buffer_bytes: Annotated[
        list[str] | None,
        typer.Option(metavar="SIZE", help="Buffers: 32768, 108KiB ...; repeatable.", show_default="17 and its own"),
    ] = None,
    bandwidth: Annotated[
        list[str] | None,
        typer.Option(metavar="RATE", help="Bytes a second: 8e9, 8GB ...; repeatable.", show_default="25 and its own"),
    ] = None,
    clock: Annotated[
        list[float] | None,
        typer.Option(metavar="HZ", help="Clocks; repeatable.", show_default="three and its own"),
    ] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL=W",
            help="How often a network runs, relatively; repeatable.",
            show_default="equally",
        ),
    ] = None,
    technology: Annotated[str | None, _TECHNOLOGY] = None,
    dram: Annotated[str | None, _DRAM] = None,
    objective: Annotated[
        Goal, typer.Option(help="What to optimise: frames a second, energy a frame, or energy x time (edp).")
    ] = Goal.SPEED,
    front: Annotated[int, typer.Option(metavar="N", help="Designs of each Pareto front in a table.", min=1)] = 12,
    every: Annotated[
        bool, typer.Option("--every", help="With csv: every design within the budgets, not only the fronts.")
    ] = False,
    allow_unmodelled: AllowUnmodelled = False,
) -> Answer:
    """Many designs at once: which are best within a budget, and what more compute, memory or bandwidth would bring."""
    if every and out.format is not Format.CSV:
        raise InputError("--every prints a row for each design, often a million: give --format csv with it.")
    base = _accelerator(accelerator, technology, dram)
    from costmodel.chip.explore import MIX, OBJECTIVES, budgets_of, check_objective
    from costmodel.chip.explore import explore as explored
    from costmodel.chip.nests import check_weights
    from costmodel.chip.space import Space
    from costmodel.units import parse_bytes, plural

    axes = {
        "dataflows": tuple(dict.fromkeys(dataflow or ())),
        "operands": tuple(dict.fromkeys(operand or ())),
        "arrays": tuple(dict.fromkeys(map(_sides, array or ()))),
        "buffers": tuple(dict.fromkeys(map(parse_bytes, buffer_bytes or ()))),
        "bandwidths": tuple(dict.fromkeys(float(parse_bytes(text)) for text in bandwidth or ())),
        "clocks": tuple(dict.fromkeys(clock or ())),
    }
    space = Space(base, **{name: values for name, values in axes.items() if values})  # type: ignore[arg-type]
    goal = OBJECTIVES[objective]
    budgets_of(space, budget_area, budget_power)
    check_objective(space, goal)
    shares = _weights(weight, models)
    check_weights(shares, models)
    runs = [traced(model, feed, StepOptions()) for model in models]  # takes seconds, so options were checked before
    from costmodel.chip.answers import answers, notes
    from costmodel.chip.lowering import lower
    from costmodel.cli import documents

    networks = {trace.model: lower(trace) for _, trace in runs}
    weights = {trace.model: shares[text] for text, (_, trace) in zip(models, runs, strict=True)} if shares else None
    found = explored(networks, space, area_mm2=budget_area, watts=budget_power, weights=weights)
    lost = tuple(entry for nests in networks.values() for entry in nests.unlowered)
    code = uncounted_code(lost, allow_unmodelled)
    if every:
        return Answer(found.table().csv(), code)
    if out.format is Format.JSON:
        by_network = answers(found, networks, weights, every_front=True, objective=goal)
        return Answer(documents.to_text(documents.designs(found, by_network, objective)), code)
    tables = []
    for name in found.networks:
        by_network = answers(found, networks, weights, only=name, objective=goal)
        title = f"{'The average frame' if name == MIX else name}: the front of {plural(found.tried, 'point')}"
        front_of = found.front(name, None if out.format is Format.CSV else front, goal)
        warnings = tuple(lost.note for lost in networks[name].unlowered) if name in networks else ()
        said = tuple(notes(by_network[name], goal))
        table = found.table(front_of, goal).around(title=title, notes=said, warnings=warnings)
        tables.append(rendered(table, out))
    return Answer("\n".join(tables), code)


@command
def accelerators(out: OutputOptions) -> Answer:
    """List the accelerators by name; GPUs go by their device's name."""
    from costmodel.chip.accelerator import accelerator, accelerators_table, names
    from costmodel.cli import documents

    found = [accelerator(name) for name in names()]
    if out.format is Format.JSON:
        return Answer(documents.to_text(documents.accelerators(found)))
    notes = (
        "GPUs go by their device's name, with a type if you like: -a h200@int8. --format json gives every source.",
        "One of your own is a TOML file like those in costmodel/chip/accelerators/: -a my_chip.toml.",
    )
    return Answer(rendered(accelerators_table(found).around(notes=notes), out))


def _accelerator(name: str, technology: str | None, dram: str | None) -> Accelerator:
    from costmodel.chip.accelerator import accelerator
    from costmodel.chip.technology import DRAM_KINDS

    found = accelerator(name)
    changes = {"technology": technology or found.technology, "dram": dram or found.dram}
    if changes["technology"] and not changes["dram"]:
        raise InputError(f"{found.title} has no kind of memory: give --dram, one of {', '.join(DRAM_KINDS)}.")
    changed = found.replace(**changes, title=found.title)
    if technology is not None:
        changed.find_technology()
    return changed


def _sides(text: str) -> tuple[int, int]:
    """Rows and columns from "32x16"."""
    rows, _, columns = text.lower().partition("x")
    if not (rows.isdecimal() and columns.isdecimal()):
        raise InputError(f"cannot read an array from {text!r}: write rows x columns, such as 32x16.")
    return int(rows), int(columns)


def _weights(texts: list[str] | None, networks: list[str]) -> dict[str, float] | None:
    """Weights from "vgg16=2", by network as given; equal ones for several networks without weights, None for one."""
    if not texts:
        return dict.fromkeys(networks, 1.0) if len(networks) > 1 else None
    weights = dict.fromkeys(networks, 1.0)
    for text in texts:
        name, equals, number = text.rpartition("=")
        try:
            weights[name] = float(number)
        except ValueError:
            equals = ""
        if not equals:
            raise InputError(f"cannot read a weight from {text!r}: write MODEL=W, such as vgg16=2.")
    return weights
