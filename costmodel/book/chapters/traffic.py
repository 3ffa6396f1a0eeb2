"""Traffic between chip and DRAM: what a buffer on the chip saves, what nothing saves, and what fusing layers does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from costmodel import plots
from costmodel.book.engine import Chapter, section
from costmodel.book.model import Figure, Section, Table
from costmodel.book.study import BATCH, Study, heaviest, same_form
from costmodel.chip.dram import Curves, traffic_curves
from costmodel.chip.fusion import Fusion, fuse
from costmodel.chip.lowering import lower
from costmodel.chip.technology import technology
from costmodel.errors import InputError
from costmodel.validation.chips.fused_layer_paper import anchors
from costmodel.view import Column
from costmodel.view import Table as Data

KIB = 1024
EYERISS = 108 * KIB
"""The buffer of Eyeriss (Chen et al., ISSCC 2016): the size that examples are given for."""

BUFFERS = tuple(KIB * size for size in (32, 64, 108, 256, 512, 1024))
FUSED = tuple(KIB * size for size in (108, 512, 4096))
"""Buffers that fusion is tried behind: without room for more than tiles, with some, with plenty."""


@dataclass(frozen=True)
class Convolutions:
    """The convolutions of one image."""

    network: str
    knee_buffer_bytes: int
    """From this buffer on no doubling saves a tenth of the traffic."""

    knee_bytes: int
    compulsory_ratio: float
    """The traffic there as a multiple of what no buffer can save."""


@dataclass(frozen=True)
class FullyConnected:
    """The fully connected layers behind Eyeriss' buffer, an image."""

    network: str
    least: bool
    """Whether one image's traffic is the least: each input, weight and output once."""

    compulsory_bytes: int
    """What no buffer can save."""

    single_bytes: int
    batched_bytes: float
    """An image's share of a batch."""


@dataclass(frozen=True)
class Weights:
    """The fully connected layers' weights."""

    network: str
    count: int
    bytes: int


@dataclass(frozen=True)
class Numbers:
    """What the chapter says of the first network and the heaviest of its form."""

    word_joules: float
    """A 16-bit word from DRAM."""

    multiply_joules: float
    word_multiplications: float
    eyeriss_bytes: int
    batch: int
    networks: tuple[str, ...]
    convolutions: tuple[Convolutions, ...]
    fully_connected: tuple[FullyConnected, ...]
    weights: tuple[Weights, ...]
    """Of every network of the report."""


@dataclass(frozen=True)
class Fused:
    """A network of fused layers behind one buffer, an image."""

    buffer_bytes: int
    separate_bytes: int
    dram_bytes: int
    weight_share: float
    on_chip: int
    """Layers whose outputs never leave the chip."""


@dataclass(frozen=True)
class FusedNetwork:
    """A network of fused layers."""

    network: str
    layers: int
    behind: tuple[Fused, ...]
    """One for each of the buffers that hold a tile of every layer."""

    middle: Fused | None
    """Behind the second of the buffers."""


@dataclass(frozen=True)
class FusionNumbers:
    """What the part on fusion says."""

    middle_bytes: int
    last_bytes: int
    networks: tuple[FusedNetwork, ...]


def traffic_section(studies: Sequence[Study]) -> Section:
    """DRAM traffic against the on-chip buffer, and fusion; empty where no network has a contraction."""
    pair = examples(studies)
    if not pair:
        return Section("", ())
    return section(_traffic(studies, pair), [section(_fusion(pair))])


def examples(studies: Sequence[Study]) -> list[Study]:
    """The first network and the heaviest of its form, as far as they have contractions."""
    form = same_form(studies)
    return [study for study in dict.fromkeys((form[0], heaviest(form))) if _curves(study)]


def numbers(studies: Sequence[Study], pair: Sequence[Study]) -> Numbers:
    """The chapter's numbers."""
    old = technology("45nm+derived")
    word, multiply = old.dram_joules("ddr3", 2), old.energy["int16_multiply"].value
    return Numbers(
        word_joules=word,
        multiply_joules=multiply,
        word_multiplications=round(word / multiply, -2),
        eyeriss_bytes=EYERISS,
        batch=BATCH,
        networks=tuple(study.title for study in pair),
        convolutions=tuple(
            Convolutions(study.title, buffer, moved, moved / conv.compulsory_bytes)
            for study in pair
            if (conv := _part(study, "conv"))
            for buffer, moved in (conv.knee(),)
        ),
        fully_connected=tuple(
            FullyConnected(
                study.title,
                one.dram_bytes(EYERISS) == one.compulsory_bytes,
                one.compulsory_bytes,
                one.dram_bytes(EYERISS),
                many.dram_bytes(EYERISS) / BATCH,
            )
            for study in pair
            if (one := _part(study, "linear")) and (many := _part(study, "linear", BATCH))
        ),
        weights=tuple(
            Weights(study.title, count, 2 * count)
            for study in studies
            if _curves(study) and (linear := _part(study, "linear"))
            for count in (sum(nest.weight_numel for nest in linear.nests),)
        ),
    )


def fusion_numbers(pair: Sequence[Study]) -> FusionNumbers:
    """What fusing layers saves."""
    return FusionNumbers(FUSED[1], FUSED[-1], tuple(_fused_network(study) for study in pair if _fusions(study)))


def _fused_network(study: Study) -> FusedNetwork:
    behind = tuple(
        Fused(
            fusion.buffer_bytes,
            fusion.layer_by_layer_bytes + fusion.pooling_bytes,
            fusion.dram_bytes,
            sum(group.weight_bytes for group in fusion.groups) / fusion.dram_bytes,
            len(fusion.on_chip),
        )
        for fusion in _fusions(study)
    )
    layers = sum(len(group.layers) for group in _fusions(study)[0].groups)
    return FusedNetwork(study.title, layers, behind, next((f for f in behind if f.buffer_bytes == FUSED[1]), None))


def _traffic(studies: Sequence[Study], pair: Sequence[Study]) -> Chapter:
    def figure(study: Study) -> Figure:
        return Figure(
            f"traffic-{study.slug}",
            draw=lambda: plots.traffic(_known(study), buffers=[EYERISS], title=study.title),
        )

    columns = (
        "network",
        "buffer_bytes",
        Column("conv_bytes", "convolutions", "bytes", "traffic of the convolutions"),
        Column("conv_bound_bytes", "their bound", "bytes", "what no schedule of a convolution by itself undercuts"),
        Column("linear_bytes", "fully connected", "bytes", "traffic of the fully connected layers"),
        "dram_bytes",
    )
    tables = {"buffers": Table("traffic-buffers", Data.of(columns, [row for study in pair for row in _sizes(study)]))}
    tables |= {
        study.title: Table(f"{study.slug}-traffic", _known(study).at(EYERISS).table().select(*_OF_LAYERS), folded=True)
        for study in pair
    }
    return Chapter("traffic", numbers(studies, pair), tables, {study.title: figure(study) for study in pair})


def _fusion(pair: Sequence[Study]) -> Chapter:
    columns = (
        "network",
        "buffer_bytes",
        Column("separate_bytes", "one by one", "bytes", "traffic of every operation by itself"),
        Column("contraction_bytes", "contractions", "bytes", "traffic of the contractions alone, one by one"),
        Column("dram_bytes", "fused", "bytes", "traffic of the cheapest groups"),
        Column("groups", "groups", "count", "groups of layers that run as one"),
        "recomputed_macs",
    )
    rows = [
        (
            study.title,
            fusion.buffer_bytes,
            fusion.layer_by_layer_bytes + fusion.pooling_bytes,
            fusion.layer_by_layer_bytes,
            fusion.dram_bytes,
            len(fusion.groups),
            fusion.recomputed_macs,
        )
        for study in pair
        for fusion in _fusions(study)
    ]
    paper = (
        "quantity",
        Column("theirs_bytes", "theirs", "bytes", "as printed"),
        Column("ours_bytes", "ours", "bytes", "the same by our model"),
        "explanation",
    )
    tables = {
        "fusion": Table("fusion", Data.of(columns, rows)),
        "paper": Table("fused-layer-paper", Data.of(paper, anchors())),
    } | {
        study.title: Table(f"{study.slug}-fusion", _fusions(study)[-1].table().select(*_OF_GROUPS), folded=True)
        for study in pair
        if _fusions(study)
    }
    return Chapter("fusion", fusion_numbers(pair), tables)


_TRAFFIC = ("kind", "buffer_bytes", "dram_bytes", "bound_bytes", "compulsory_bytes", "schedule", "tile")
_OF_LAYERS = ("layer", *_TRAFFIC, "input_bytes", "weight_bytes", "output_bytes", "partial_bytes")
_OF_GROUPS = (
    *("layer", *_TRAFFIC, "input_bytes", "weight_bytes", "output_bytes"),
    *("layer_by_layer_bytes", "pooling_bytes", "recomputed_macs"),
)


def _curves(study: Study, batch: int = 1) -> Curves | None:
    """The curves of a forward pass; None for a network without contractions."""

    def make() -> Curves | None:
        try:
            return traffic_curves(lower(study.costs(batch)))
        except InputError:
            return None

    return study.keep(("traffic", batch), make)


def _known(study: Study, batch: int = 1) -> Curves:
    curves = _curves(study, batch)
    if curves is None:
        raise InputError(f"{study.title} has no contraction.")
    return curves


def _part(study: Study, kind: str, batch: int = 1) -> Curves | None:
    curves = _known(study, batch)
    return curves.only(kind) if any(nest.kind == kind for nest in curves.nests) else None


def _sizes(study: Study) -> Iterator[tuple[object, ...]]:
    conv, linear, every = _part(study, "conv"), _part(study, "linear"), _known(study)
    for size in BUFFERS:
        if size >= every.smallest_buffer_bytes:
            yield (
                study.title,
                size,
                conv.dram_bytes(size) if conv else None,
                conv.bound_bytes(size) if conv else None,
                linear.dram_bytes(size) if linear else None,
                every.dram_bytes(size),
            )


def _fusions(study: Study) -> list[Fusion]:
    smallest = _known(study).smallest_buffer_bytes
    trace = study.trace()
    return study.keep("fusion", lambda: [fuse(trace, size) for size in FUSED if size >= smallest])
