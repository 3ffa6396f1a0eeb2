"""What the notes and the book say about AlexNet and VGG, held against the counts.

Each verdict is computed: a claim holds, is refuted, or depends: it holds of one thing that it could mean and not of
another. The book is Dive into Deep Learning (https://d2l.ai), by its sections.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from costmodel.book.engine import Chapter
from costmodel.book.study import BATCH, CONV, FC, Study
from costmodel.devices import Device
from costmodel.formulas import Weighted

HOLDS, REFUTED, DEPENDS = "holds", "refuted", "depends"

CLOSE = 0.05
"""How far off a figure that is called approximate may be."""

BIG = 2
"""From how many times its weights on a network's memory counts as a big overhead."""


@dataclass(frozen=True)
class Counted:
    """One network's parameters against a claimed number."""

    network: str
    parameters: int
    off_share: float


@dataclass(frozen=True)
class SixtyMillion:
    """AlexNet needs about 60 million parameters."""

    verdict: str
    networks: tuple[Counted, ...]


@dataclass(frozen=True)
class Formula:
    """A formula for the parameters of a sort of layers, and the largest of them."""

    verdict: str
    what: str
    parameters: int
    products: int
    """Its weights without the bias."""

    right: int
    layers: int


@dataclass(frozen=True)
class Head:
    """AlexNet's cost sits in the fully connected layers: what they have."""

    verdict: str
    parameters_share: float
    flops_share: float
    time_share: float
    batch_time_share: float


@dataclass(frozen=True)
class Peak:
    """A peak of memory, and as a multiple of the weights."""

    peak_bytes: int
    ratio: float


@dataclass(frozen=True)
class Overhead:
    """AlexNet has a big memory overhead."""

    verdict: str
    parameter_bytes: int
    inference: Peak
    step: Peak
    batch_step: Peak


@dataclass(frozen=True)
class Size:
    """Layers that are said to need so many bytes."""

    verdict: str
    what: str
    size_bytes: int
    trained_bytes: int
    """With a gradient and a momentum for each parameter."""


@dataclass(frozen=True)
class Filters:
    """One convolution of AlexNet's beside LeNet's."""

    alexnet: int
    lenet: int
    ratio: float


@dataclass(frozen=True)
class Channels:
    """AlexNet has ten times more convolution channels than LeNet."""

    verdict: str
    convolutions: tuple[Filters, ...]
    alexnet: int
    lenet: int


@dataclass(frozen=True)
class Slower:
    """VGG is much slower than AlexNet to compute and needs more memory."""

    verdict: str
    network: str
    flops_ratio: float
    bound_ratio: float
    memory_ratio: float


@dataclass(frozen=True)
class Dominates:
    """Convolutions dominate the memory of a VGG."""

    verdict: str
    network: str
    conv_parameters_share: float
    conv_output_share: float
    fc_parameters_share: float
    fc_output_share: float


@dataclass(frozen=True)
class Numbers:
    """The claims that are about networks at hand, each with its verdict; None where its network is not."""

    device: str
    batch: int
    close_share: float
    big_ratio: int
    claims: int
    holds: int
    refuted: int
    depends: int
    sixty_million: SixtyMillion | None
    inputs_times_outputs: Formula | None
    window_formula: Formula | None
    head: Head | None
    overhead: Overhead | None
    gigabyte: Size | None
    channels: Channels | None
    slower: Slower | None
    dominates: tuple[Dominates, ...]
    matrix: Size | None


def claims(studies: Mapping[str, Study], device: Device) -> Chapter:
    """The claims about networks that are given by their names: "alexnet", "alexnet-224", "lenet", "vgg11" ..."""
    return Chapter("claims", numbers(studies, device))


def numbers(studies: Mapping[str, Study], device: Device) -> Numbers:
    """Each claim held against the counts."""
    alexnet, lenet, vgg = (studies.get(name) for name in ("alexnet", "lenet", "vgg11"))
    of_ours = [entry for study in studies.values() for entry in study.weighted()] if alexnet else []
    dense = [entry for entry in of_ours if entry.part == FC]
    convolutions = [entry for entry in of_ours if entry.part == CONV]
    checked = {
        "sixty_million": _sixty_million(studies) if alexnet else None,
        "inputs_times_outputs": _formula(dense, [x.layer.parameters == x.weights for x in dense]),
        "window_formula": _formula(convolutions, [x.parameter_formula.startswith("(") for x in convolutions]),
        "head": _head(alexnet, device) if alexnet else None,
        "overhead": _overhead(alexnet) if alexnet else None,
        "gigabyte": _gigabyte(alexnet) if alexnet else None,
        "channels": _channels(alexnet, lenet) if alexnet and lenet else None,
        "slower": _slower(alexnet, vgg, device) if alexnet and vgg else None,
        "matrix": _matrix(vgg) if vgg else None,
    }
    dominates = tuple(_dominates(studies[name]) for name in ("vgg11", "vgg16") if name in studies)
    verdicts = [claim.verdict for claim in (*checked.values(), *dominates) if claim is not None]
    return Numbers(
        device=device.title,
        batch=BATCH,
        close_share=CLOSE,
        big_ratio=BIG,
        claims=len(verdicts),
        holds=verdicts.count(HOLDS),
        refuted=verdicts.count(REFUTED),
        depends=verdicts.count(DEPENDS),
        dominates=dominates,
        **checked,  # type: ignore[arg-type]
    )


def _sixty_million(studies: Mapping[str, Study]) -> SixtyMillion:
    names = [name for name in ("alexnet", "alexnet-224", "alexnet-227", "torchvision:alexnet") if name in studies]
    counts = {studies[name].title: studies[name].costs().parameters for name in names}
    return SixtyMillion(
        _verdict(_near(number, 60e6) for number in counts.values()),
        tuple(Counted(title, number, number / 60e6 - 1) for title, number in counts.items()),
    )


def _formula(layers: list[Weighted], right: list[bool]) -> Formula | None:
    if not layers:
        return None
    biggest = max(layers, key=lambda entry: entry.layer.parameters)
    return Formula(
        _verdict(right), biggest.short, biggest.layer.parameters, biggest.weights, sum(right), len(right)
    )  # fmt: skip


def _head(study: Study, device: Device) -> Head:
    shares = (
        *(study.share(quantity, FC) for quantity in ("parameters", "flops")),
        *(study.time_share(FC, device, batch) for batch in (1, BATCH)),
    )
    return Head(_verdict(share > 0.5 for share in shares), *shares)


def _overhead(study: Study) -> Overhead:
    weights = study.costs().parameter_bytes
    found = [study.memory(), study.memory(1, train=True), study.memory(BATCH, train=True)]
    peaks = [Peak(memory.peak_bytes, memory.peak_bytes / weights) for memory in found]
    return Overhead(_verdict(peak.ratio >= BIG for peak in peaks), weights, *peaks)


def _gigabyte(study: Study) -> Size:
    huge = [entry for entry in study.weighted() if entry.module.settings.get("out_features") == 4096]
    size = sum(entry.layer.parameter_bytes for entry in huge)
    return Size(_verdict([_near(size, 1e9)]), "; ".join(entry.short for entry in huge), size, 3 * size)


def _channels(alexnet: Study, lenet: Study) -> Channels:
    ours, theirs = ([x.filters for x in study.weighted() if x.part == CONV] for study in (alexnet, lenet))
    pairs = [Filters(mine, other, mine / other) for mine, other in zip(ours, theirs, strict=False)]
    return Channels(_verdict(_near(pair.ratio, 10) for pair in pairs), tuple(pairs), sum(ours), sum(theirs))


def _slower(alexnet: Study, vgg: Study, device: Device) -> Slower:
    ratios = (
        vgg.costs().total.flops / alexnet.costs().total.flops,
        vgg.prediction(device, BATCH).bound_seconds / alexnet.prediction(device, BATCH).bound_seconds,
        vgg.memory(BATCH, train=True).peak_bytes / alexnet.memory(BATCH, train=True).peak_bytes,
    )
    return Slower(_verdict(ratio > 1 for ratio in ratios), vgg.title, *ratios)


def _dominates(study: Study) -> Dominates:
    conv, fc = (
        [study.share(quantity, part) for quantity in ("parameter_bytes", "output_bytes")] for part in (CONV, FC)
    )
    return Dominates(_verdict(mine > other for mine, other in zip(conv, fc, strict=True)), study.title, *conv, *fc)


def _matrix(study: Study) -> Size:
    biggest = max(study.weighted(), key=lambda entry: entry.layer.parameters)
    size = biggest.layer.parameter_bytes
    return Size(_verdict([_near(size, 400e6)]), biggest.short, size, 3 * size)


def _near(value: float, claimed: float) -> bool:
    return abs(value / claimed - 1) <= CLOSE


def _verdict(outcomes: Iterable[bool]) -> str:
    found = list(outcomes)
    return HOLDS if all(found) else DEPENDS if any(found) else REFUTED
