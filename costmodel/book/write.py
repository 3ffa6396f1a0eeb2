"""Gather what a report needs, render it, and save it: the one place here that knows of files."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from costmodel import networks
from costmodel.book import html, markdown
from costmodel.book.benches import Bench, benches_for
from costmodel.book.chapters.claims import claims
from costmodel.book.compose import answers, compose
from costmodel.book.draw import SUFFIXES, drawn
from costmodel.book.engine import section
from costmodel.book.folder import check, save
from costmodel.book.model import Report
from costmodel.book.study import Study, distinct, same_form
from costmodel.devices import Device, device
from costmodel.errors import InputError
from costmodel.networks.heads import KINDS
from costmodel.progress import Progress, silent
from costmodel.validation import validate

MODELS = tuple(f"{form}{name}" for form in ("", "torchvision:") for name in ("alexnet", "vgg11", "vgg16", "vgg19"))
"""What a report is about unless it is told otherwise: the book's networks and torchvision's."""

DEVICES = ("h200", "v100", "xeon-icelake")


def write_report(
    models: Sequence[str] = MODELS,
    folder: str | os.PathLike[str] = "reports",
    *,
    devices: Sequence[str | Device] = DEVICES,
    force: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Write report.md, report.html, numbers.json, figures/*.svg and *.png, and tables/*.csv; return their paths.

    Args:
        models: what `networks.find` takes; the first is looked at most closely.
        folder: made if it is not there.
        devices: names, files or devices; the first is the one that the tables' bounds are for.
        force: overwrite files that are not ours, or that were changed since.
        progress: told of each step.

    The files are written together or not at all. Raises InputError, before anything is written, for an unknown model or
    device, for a network that only a run can trace, and for a folder that cannot be written or holds files not ours.
    """
    tell = progress or silent
    target = Path(folder)
    check(target, ("report.md", "report.html", "numbers.json"), force=force)  # before the work is done
    report = gather(models, devices, tell, benches_for(models, target / "measurements"))
    check(target, _paths(report), force=force)
    number = len(report.figures)
    steps = {figure.name: _STEPS // 2 * (number + index) // number for index, figure in enumerate(report.figures)}
    pictures = drawn(report.figures, lambda figure: tell(f"drawing {figure.title}", steps[figure.name], _STEPS))
    drawings = {figure.name: pictures[f"figures/{figure.name}.svg"].decode() for figure in report.figures}
    files = {
        "report.md": markdown.render(report).encode(),
        "report.html": html.render(report, drawings).encode(),
        "numbers.json": numbers_json(report),
        **pictures,
        **{f"tables/{table.name}.csv": table.data.csv().encode() for table in report.tables},
    }
    paths = save(target, files, force=force)
    tell("written", _STEPS, _STEPS)
    return paths


_STEPS = 100


def gather(
    models: Sequence[str],
    devices: Sequence[str | Device],
    tell: Progress,
    measured: Sequence[Bench] = (),
) -> Report:
    """Trace, count, predict and check the networks, and answer the questions about them."""
    if not models or not devices:
        raise InputError("a report needs at least one network and one device.")
    machines = [machine if isinstance(machine, Device) else device(machine) for machine in devices]
    studies = distinct([Study.of(networks.find(model)) for model in dict.fromkeys(models)])
    for study in studies:
        if not study.costs().total.flops:
            raise InputError(f"{study.name} computes nothing: there is nothing to report on.")
    steps = len(studies) + 1
    validations = {}
    for index, study in enumerate(studies):
        tell(f"checking {study.title}", _STEPS // 2 * index // steps, _STEPS)
        if study.network is not None:
            validations[study] = validate(study.network)
    tell("answering the questions", _STEPS // 2 * (steps - 1) // steps, _STEPS)
    near = same_form(studies)
    variants = {study: cuts for study in near if (cuts := _cheaper_heads(study))}
    named = {study.name: study for study in studies} | _witnesses(studies)
    return compose(
        studies,
        machines,
        answers(near, variants, machines[0]),
        section(claims(named, machines[0])),
        validations,
        measured,
    )


def _cheaper_heads(study: Study) -> list[Study]:
    known = {info.name for info in networks.names()}
    return [Study.of(networks.find(name)) for kind in KINDS if (name := f"{study.name}-{kind}") in known]


def _witnesses(studies: Sequence[Study]) -> dict[str, Study]:
    """Networks that only the claims need: the book's AlexNet for ImageNet at two sizes, and LeNet."""
    if not any(study.name == "alexnet" for study in studies):
        return {}
    imagenet = {size: networks.find("alexnet", classes=1000, shapes=(f"3x{size}x{size}",)) for size in (224, 227)}
    return {"lenet": Study.of(networks.find("lenet"))} | {
        f"alexnet-{size}": Study.of(network, f"alexnet-{size}", f"the same for 1000 classes and 3×{size}×{size}")
        for size, network in imagenet.items()
    }


def numbers_json(report: Report) -> bytes:
    """What the sentences of a report say: one JSON document, {chapter: {name: value}}, in base units."""
    document = {"schema": "costmodel/numbers/1"} | msgspec.to_builtins(report.numbers)
    return (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _paths(report: Report) -> list[str]:
    pictures = [f"figures/{figure.name}.{suffix}" for figure in report.figures for suffix in SUFFIXES]
    tables = [f"tables/{table.name}.csv" for table in report.tables]
    return ["report.md", "report.html", "numbers.json", *pictures, *tables]
