"""What the notes and the book say about these networks, held against the counts.

Each verdict is computed: a claim holds, is refuted, or depends: it holds of one thing that it could mean and not of
another. The book is Dive into Deep Learning (https://d2l.ai), by its sections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import pandas as pd

from costmodel.book.exercises.words import BATCH, listed, times
from costmodel.book.model import Section, Table
from costmodel.book.study import CONV, FC, Study
from costmodel.devices import Device
from costmodel.formulas import Weighted
from costmodel.units import iec, percent, si

HOLDS, REFUTED, DEPENDS = "holds", "refuted", "depends"

_CLOSE = 0.05
"""How far off a figure that is called approximate may be."""

_NOTES, _ALEXNET, _VGG, _NIN = "the notes", "the book, 8.1", "the book, 8.2", "the book, 8.3"


class Claim(NamedTuple):
    """A sentence of somebody's, in our words, and what the counts say."""

    claim: str
    said_by: str
    verdict: str
    computed: str


def claims(studies: Mapping[str, Study], device: Device) -> Section:
    """The claims about the networks at hand, which are by name; the section is empty where none is about them."""
    checked = [claim for check in _CHECKS for claim in check(studies, device)]
    number = {verdict: sum(claim.verdict == verdict for claim in checked) for verdict in (HOLDS, DEPENDS, REFUTED)}
    table = Table(
        "claims",
        title="Claims of the notes and of the book, in our words",
        frame=pd.DataFrame(checked, columns=Claim._fields),
        note=f"A figure called approximate holds if it is within {percent(_CLOSE, 0)}. A claim depends if it holds of "
        "one thing that it could mean and not of another.",
    )
    return Section(
        "Claims checked",
        (table,) if checked else (),
        answer=f"Of {len(checked)} claims, the counts bear out {number[HOLDS]} and refute {number[REFUTED]}; "
        f"{number[DEPENDS]} depend on what is meant.",
    )


def _sixty_million(studies: Mapping[str, Study], device: Device) -> Iterator[Claim]:
    names = [name for name in ("alexnet", "alexnet-224", "alexnet-227", "torchvision:alexnet") if name in studies]
    if "alexnet" in names:
        found = [studies[name] for name in names]
        counts = {study.title: study.costs().parameters for study in found}
        text = "; ".join(
            f"{title}: {si(number)} ({'+' if number > 60e6 else '−'}{percent(abs(number / 60e6 - 1))})"
            for title, number in counts.items()
        )
        near = [_near(number, 60e6) for number in counts.values()]
        yield Claim("AlexNet needs about 60 million parameters", _NOTES, _verdict(near), text)


def _inputs_times_outputs(studies: Mapping[str, Study], device: Device) -> Iterator[Claim]:
    layers = _layers(studies, "linear")
    if layers:
        biggest = max(layers, key=lambda entry: entry.layer.parameters)
        yield Claim(
            "A fully connected layer with I inputs and O outputs has I·O parameters",
            _NOTES,
            _verdict([entry.layer.parameters == entry.weights for entry in layers]),
            f"(I+1)·O, for each output has a bias: {biggest.short} has {biggest.layer.parameters:,}, not "
            f"{biggest.weights:,}; so it is in {sum(x.layer.parameters != x.weights for x in layers)} of "
            f"{len(layers)} such layers here",
        )


def _window_formula(studies: Mapping[str, Study], device: Device) -> Iterator[Claim]:
    layers = _layers(studies, "conv")
    if layers:
        right = [entry.parameter_formula.startswith("(") for entry in layers]
        yield Claim(
            "A convolution with K filters of F×F over C channels has (F²·C+1)·K parameters",
            _NOTES,
            _verdict(right),
            f"so it is in {sum(right)} of {len(right)} convolutions here",
        )


def _layers(studies: Mapping[str, Study], kind: str) -> list[Weighted]:
    """All layers of a kind, where the networks that the notes are about are among them."""
    if "alexnet" not in studies:
        return []
    return [entry for study in studies.values() for entry in study.weighted() if entry.layer.kind == kind]


def _cost_in_the_head(studies: Mapping[str, Study], device: Device) -> Iterator[Claim]:
    if (study := studies.get("alexnet")) is not None:
        parts, costs = study.parts(), study.costs()
        shares = {
            "of the parameters": parts[FC].parameters / costs.parameters,
            "of the FLOPs": parts[FC].flops / costs.total.flops,
        } | {
            f"of the time bound on the {device.title} at batch {batch}": study.time_share(FC, device, batch)
            for batch in (1, BATCH)
        }
        yield Claim(
            "AlexNet's cost sits in the fully connected layers",
            _NOTES,
            _verdict([share > 0.5 for share in shares.values()]),
            "they have " + ", ".join(f"{percent(share)} {of}" for of, share in shares.items()),
        )


def _memory_overhead(studies: Mapping[str, Study], device: Device) -> Iterator[Claim]:
    if (study := studies.get("alexnet")) is not None:
        weights = study.costs().parameter_bytes
        peaks = {
            "inference at batch 1": study.memory().peak_bytes,
            "a training step at batch 1": study.memory(1, train=True).peak_bytes,
            f"a training step at batch {BATCH}": study.memory(BATCH, train=True).peak_bytes,
        }
        yield Claim(
            "AlexNet has a big memory overhead",
            _NOTES,
            _verdict([peak >= 2 * weights for peak in peaks.values()]),
            f"beside {iec(weights)} of weights (a peak of twice that counts as big): "
            + ", ".join(f"{name} peaks at {iec(peak)}, {times(peak / weights)}" for name, peak in peaks.items()),
        )


def _nearly_a_gigabyte(studies: Mapping[str, Study], device: Device) -> Iterator[Claim]:
    if (study := studies.get("alexnet")) is not None:
        huge = [entry for entry in study.weighted() if entry.module.settings.get("out_features") == 4096]
        size = sum(entry.layer.parameter_bytes for entry in huge)
        yield Claim(
            "AlexNet's two layers with 4096 outputs need nearly 1 GB of parameters (an earlier edition)",
            _ALEXNET,
            _verdict([_near(size, 1e9)]),
            f"{size / 1e6:.1f} MB; with a gradient and a momentum for each, {3 * size / 1e6:.1f} MB",
        )


def _more_channels(studies: Mapping[str, Study], device: Device) -> Iterator[Claim]:
    if "alexnet" in studies and "lenet" in studies:
        ours, theirs = ([entry.filters for entry in studies[name].weighted()] for name in ("alexnet", "lenet"))
        pairs = [(ours[i], theirs[i]) for i in range(min(len(ours), len(theirs))) if ours[i] and theirs[i]]
        ratios = [f"{mine} against {other} ({times(mine / other)})" for mine, other in pairs]
        yield Claim(
            "AlexNet has ten times more convolution channels than LeNet",
            _ALEXNET,
            _verdict([_near(mine / other, 10) for mine, other in pairs]),
            f"convolution by convolution {listed(ratios)}; all together {sum(ours):,} against {sum(theirs):,}",
        )


def _slower_and_larger(studies: Mapping[str, Study], device: Device) -> Iterator[Claim]:
    if "alexnet" in studies and (vgg := studies.get("vgg11")) is not None:
        study = studies["alexnet"]
        ratios = {
            "the FLOPs": vgg.costs().total.flops / study.costs().total.flops,
            f"the time bound at batch {BATCH}": vgg.prediction(device, BATCH).bound_seconds
            / study.prediction(device, BATCH).bound_seconds,
            f"the training memory at batch {BATCH}": vgg.memory(BATCH, train=True).peak_bytes
            / study.memory(BATCH, train=True).peak_bytes,
        }
        yield Claim(
            "VGG is much slower than AlexNet to compute and needs more memory",
            _VGG,
            _verdict([ratio > 1 for ratio in ratios.values()]),
            f"{vgg.title} has " + ", ".join(f"{times(ratio)} {what}" for what, ratio in ratios.items()),
        )


def _vgg_memory(studies: Mapping[str, Study], device: Device) -> Iterator[Claim]:
    for study in [study for name, study in studies.items() if name in ("vgg11", "vgg16")]:
        parts, costs = study.parts(), study.costs()
        shares = {
            "of the parameters": parts[CONV].parameter_bytes / costs.parameter_bytes,
            "of all layers' outputs": parts[CONV].output_bytes / sum(part.output_bytes for part in parts.values()),
        }
        dominates = [
            parts[CONV].parameter_bytes > parts[FC].parameter_bytes,
            parts[CONV].output_bytes > parts[FC].output_bytes,
        ]
        yield Claim(
            f"Convolutions dominate the memory of {study.title}",
            _NOTES,
            _verdict(dominates),
            "they have " + ", ".join(f"{percent(share)} {of}" for of, share in shares.items())
            + f"; fully connected layers {percent(parts[FC].parameter_bytes / costs.parameter_bytes)} and "
            + percent(parts[FC].output_bytes / sum(part.output_bytes for part in parts.values()), 2),
        )  # fmt: skip


def _four_hundred_megabytes(studies: Mapping[str, Study], device: Device) -> Iterator[Claim]:
    if (study := studies.get("vgg11")) is not None:
        biggest = max(study.weighted(), key=lambda entry: entry.layer.parameters)
        size = biggest.layer.parameter_bytes
        yield Claim(
            "VGG-11 needs one matrix of almost 400 MB",
            _NIN,
            _verdict([_near(size, 400e6)]),
            f"{biggest.short}: {size / 1e6:.1f} MB, {iec(size)}",
        )


Check = Callable[[Mapping[str, Study], Device], Iterator[Claim]]

_CHECKS: tuple[Check, ...] = (
    _sixty_million, _inputs_times_outputs, _window_formula, _cost_in_the_head, _memory_overhead, _nearly_a_gigabyte,
    _more_channels, _slower_and_larger, _vgg_memory, _four_hundred_megabytes,
)  # fmt: skip


def _near(value: float, claimed: float) -> bool:
    return abs(value / claimed - 1) <= _CLOSE


def _verdict(outcomes: list[bool]) -> str:
    return HOLDS if all(outcomes) else DEPENDS if any(outcomes) else REFUTED
