"""Traffic between chip and DRAM: what a buffer on the chip saves, what nothing saves, and what fusing layers does."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from costmodel import plots
from costmodel.book.exercises.words import BATCH, listed, times
from costmodel.book.model import Block, Figure, Formula, Paragraph, Section, Table
from costmodel.book.study import Study, heaviest, same_form
from costmodel.chip.dram import Curves, traffic_curves
from costmodel.chip.fusion import Fusion, fuse
from costmodel.chip.lowering import lower
from costmodel.chip.technology import technology
from costmodel.errors import InputError
from costmodel.report.tables import fusion_table, traffic_table
from costmodel.units import iec, joules, percent
from costmodel.validation.chips.fused_layer_paper import anchors

KIB = 1024
EYERISS = 108 * KIB
"""The buffer of Eyeriss (Chen et al., ISSCC 2016): the size that examples are given for."""

BUFFERS = tuple(KIB * size for size in (32, 64, 108, 256, 512, 1024))
FUSED = tuple(KIB * size for size in (108, 512, 4096))
"""Buffers that fusion is tried behind: without room for more than tiles, with some, with plenty."""


def traffic_section(studies: Sequence[Study]) -> Section:
    """DRAM traffic against the on-chip buffer, and fusion, for the first network and the heaviest of its form.

    The section is empty where there is no contraction to speak of.
    """
    form = same_form(studies)
    pair = [study for study in dict.fromkeys((form[0], heaviest(form))) if _curves(study)]
    if not pair:
        return Section("Traffic between chip and DRAM", ())
    blocks: list[Block] = [
        Paragraph(
            f"{_prices()}, and DRAM's bandwidth is often what a chip runs out of first. A buffer on the chip helps by "
            "holding tiles: some outputs while their products add up, or some weights or inputs while all that needs "
            "them streams past. For each layer and every size of the buffer at once we tried every tile size under "
            "five such schedules; the least traffic is the solid line below. No schedule of a layer by itself moves "
            "less than the dashed one, and however large the buffer, each input, weight and output crosses once: the "
            "dotted one. Only layers that run as one can move less. Words have 16 bits."
        ),
        *(
            Figure(
                f"traffic-{study.slug}",
                title=f"{study.title}: DRAM traffic of one image against the on-chip buffer",
                draw=lambda study=study: plots.traffic(_known(study), buffers=[EYERISS], title=study.title),  # type: ignore[misc]
                note="A ring marks the knee, from which on no doubling of the buffer saves a tenth of the traffic. The "
                f"grey line is at {iec(EYERISS)}, the buffer of Eyeriss.",
            )
            for study in pair
        ),
        Table(
            "traffic-buffers",
            title="One image behind buffers of several sizes",
            frame=pd.DataFrame([row for study in pair for row in _sizes(study)]),
            note="Each layer by itself, in 16-bit words; partial sums that have to leave the chip as wide.",
            labels={"conv_bytes": "convolutions", "conv_bound_bytes": "their bound", "linear_bytes": "fully connected"},
        ),
        Paragraph(_weights(pair)),
        *_weight_lines(studies),
        *(
            Table(
                f"{study.slug}-traffic",
                title=f"{study.title} behind {iec(EYERISS)}, layer by layer",
                frame=traffic_table(_known(study).at(EYERISS)),
                note="A tile is images × output channels × input channels × output rows × output columns.",
                folded=True,
            )
            for study in pair
        ),
    ]
    return Section(
        "Traffic between chip and DRAM",
        tuple(blocks),
        (_fusion_section(pair),),
        answer=_answer(pair),
        anchor="dram-traffic",
    )


def _prices() -> str:
    """What a word from DRAM takes beside a multiplication, in the numbers that the energies of chips are made of."""
    old = technology("45nm+derived")
    word, multiply = old.dram_joules("ddr3", 2), old.energy["int16_multiply"].value
    return (
        f"At 45 nm a 16-bit word from DRAM takes the energy of some {round(word / multiply, -2):.0f} multiplications "
        f"of 16 bits ({joules(word)} against {joules(multiply)}; Horowitz, ISSCC 2014: a quarter of the middle of his "
        "1.3 to 2.6 nJ for 64 bits, and the mean of his 8-bit and 32-bit multipliers)"
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
    assert curves is not None  # the section has left the others out
    return curves


def _part(study: Study, kind: str, batch: int = 1) -> Curves | None:
    curves = _known(study, batch)
    return curves.only(kind) if any(nest.kind == kind for nest in curves.nests) else None


def _sizes(study: Study) -> list[dict[str, object]]:
    conv, linear, every = _part(study, "conv"), _part(study, "linear"), _known(study)
    return [
        {
            "network": study.title,
            "buffer_bytes": size,
            "conv_bytes": conv.dram_bytes(size) if conv else None,
            "conv_bound_bytes": conv.bound_bytes(size) if conv else None,
            "linear_bytes": linear.dram_bytes(size) if linear else None,
            "dram_bytes": every.dram_bytes(size),
        }
        for size in BUFFERS
        if size >= every.smallest_buffer_bytes
    ]


def _weights(pair: Sequence[Study]) -> str:
    """What the fully connected layers move, and what would move less."""
    said = []
    for study in pair:
        one, many = _part(study, "linear"), _part(study, "linear", BATCH)
        if one and many:
            each = many.dram_bytes(EYERISS) / BATCH
            said.append(
                f"{study.short}'s move {iec(one.dram_bytes(EYERISS))} for one image and {iec(each)} an image "
                f"at batch {BATCH}"
            )
    if not said:
        return "There are no fully connected layers here: every layer uses its weights for many pixels."
    return (
        "The line of the fully connected layers is flat: with one image each weight is used once, so a buffer has "
        f"nothing to hold. {listed(said)}. Only a larger batch, fewer weights (a narrower layer, a low rank, global "
        "average pooling instead) or narrower words move it; no memory on the chip does."
    )


def _weight_lines(studies: Sequence[Study]) -> list[Block]:
    """The fully connected layers' weights of every network of the report."""
    lines = []
    for study in studies:
        if _curves(study) and (linear := _part(study, "linear")):
            words = sum(nest.weight_numel for nest in linear.nests)
            lines.append(f"{study.title}: {words:,} weights × 2 B = {iec(2 * words)}")
    return [Formula(tuple(lines))] if lines else []


def _fused(study: Study) -> list[Fusion]:
    smallest = _known(study).smallest_buffer_bytes
    trace = study.trace()
    return study.keep("fusion", lambda: [fuse(trace, size) for size in FUSED if size >= smallest])


def _fusion_section(pair: Sequence[Study]) -> Section:
    rows = [
        {
            "network": study.title,
            "buffer_bytes": fusion.buffer_bytes,
            "separate_bytes": fusion.layer_by_layer_bytes + fusion.pooling_bytes,
            "layer_by_layer_bytes": fusion.layer_by_layer_bytes,
            "dram_bytes": fusion.dram_bytes,
            "groups": len(fusion.groups),
            "recomputed_macs": fusion.recomputed_macs,
        }
        for study in pair
        for fusion in _fused(study)
    ]
    paper = pd.DataFrame(
        [
            {"quantity": each.quantity, "theirs_bytes": each.theirs, "ours_bytes": each.ours}
            | {"explanation": each.explanation}
            for each in anchors()
        ]
    )
    return Section(
        "Fusing layers",
        (
            Paragraph(
                "What one layer writes the next one reads. If both run as one, tile by tile, what is between them "
                "never leaves the chip. Activations and poolings can always go with the layer before them. "
                "Convolutions can be fused with each other: a tile of the last one needs a larger window of the one "
                "before it, and so on, a pyramid. Neighbouring pyramids overlap, and the overlap is either kept on "
                "the chip or recomputed. Which layers to fuse is found by trying every way to cut the network."
            ),
            Table(
                "fusion",
                title="One image, fused where it pays",
                frame=pd.DataFrame(rows),
                note="One by one: every operation by itself, activations and poolings too. Contractions: these alone, "
                "one by one. Fused: the cheapest groups. Sums of two tensors end a group.",
                labels={
                    "separate_bytes": "one by one",
                    "layer_by_layer_bytes": "contractions",
                    "dram_bytes": "fused",
                    "groups": "groups",
                },
            ),
            Paragraph(_kept(pair)),
            *(
                Table(
                    f"{study.slug}-fusion",
                    title=f"{study.title} behind {iec(_fused(study)[-1].buffer_bytes)}: the groups",
                    frame=fusion_table(_fused(study)[-1:]),
                    note="Alone: its contractions one by one; apart: its activations and poolings one by one. The tile "
                    "of fused layers is the last one's channels × rows × columns.",
                    folded=True,
                )
                for study in pair
                if _fused(study)
            ),
            Table(
                "fused-layer-paper",
                title="VGG's first five convolutions against Alwani et al., MICRO 2016, 32-bit words",
                frame=paper,
                labels={"theirs_bytes": "theirs", "ours_bytes": "ours", "explanation": "what it is"},
            ),
        ),
        answer=_fusion_answer(pair),
        anchor="fusing-layers",
    )


def _kept(pair: Sequence[Study]) -> str:
    """How much of the networks stays on the chip."""
    said = []
    for study in pair:
        counts = [
            f"{len(fusion.on_chip)} behind {iec(fusion.buffer_bytes)}" for fusion in _fused(study) if fusion.on_chip
        ]
        if counts:
            layers = sum(len(group.layers) for group in _fused(study)[0].groups)
            said.append(
                f"of {study.short}'s {layers} convolutions, poolings and fully connected layers {listed(counts)}"
            )
    if not said:
        return "Behind these buffers no layer's outputs stay on the chip."
    return (
        f"Outputs that never leave the chip: {'; '.join(said)}. "
        f"The tables below say which stay behind {iec(FUSED[-1])}."
    )


def _answer(pair: Sequence[Study]) -> str:
    said, flat = [], []
    for study in pair:
        if conv := _part(study, "conv"):
            knee, there = conv.knee()
            ratio = times(there / conv.compulsory_bytes)
            said.append(f"{study.short}'s {iec(there)} behind {iec(knee)}, {ratio} what no buffer can save")
        if linear := _part(study, "linear"):
            flat.append(f"{study.short}'s {iec(linear.compulsory_bytes)}")
    parts = []
    if said:
        parts.append(
            f"An image's convolutions move little more than they must behind a modest buffer: {listed(said)}; from "
            "there on no doubling of the buffer saves a tenth."
        )
    if flat:
        parts.append(f"No buffer changes what the fully connected layers move: {listed(flat)}, their weights once.")
    return " ".join(parts)


def _fusion_answer(pair: Sequence[Study]) -> str:
    said = []
    for study in pair:
        fusion = next((each for each in _fused(study) if each.buffer_bytes == FUSED[1]), None)
        if fusion:
            before, weights = (
                fusion.layer_by_layer_bytes + fusion.pooling_bytes,
                sum(g.weight_bytes for g in fusion.groups),
            )
            said.append(
                f"{study.short} from {iec(before)} an image to {iec(fusion.dram_bytes)}, "
                f"{percent(weights / fusion.dram_bytes)} of it weights"
            )
    return f"Behind {iec(FUSED[1])} fusion takes {listed(said)}." if said else ""
