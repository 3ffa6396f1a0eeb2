"""Changes to a network or its numbers: its layers' demand on a chip after each, and when the change does nothing.

batch: weights move once a batch; everything else grows with it.

other operands: every word moved is narrower or wider, and a MAC takes another energy. Sums keep their type where it can
hold products; "bf16/fp32" says that they do not. A GPU has as much arithmetic of a type as its datasheet says.

fused layers: what stays between layers of a group never leaves the chip (`costmodel.chip.fusion`: pyramids of
convolutions, with what follows each; overlaps are recomputed).

FC layers are those that end a network: a row an image, behind convolutions or from the start. The linear layers of a
transformer's blocks and an LSTM's gates are none.

low-rank FC layers: a weight of I x O as I x r and r x O (truncated SVD; Girshick, Fast R-CNN, 2015, section 3.1).

pruned FC layers: a share of the weights stays, each with an index of 4 bits (Han et al., Deep Compression, 2016). An
array that does not skip zeros saves traffic, not cycles.

pooling for FC: global average pooling and one layer of C x classes in place of the FC layers that take feature maps
(Lin et al., Network in Network, 2013).

Winograd: see `costmodel.chip.winograd`.

depthwise separable: a window on each channel, then 1x1 across channels (Howard et al., MobileNets, 2017).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from costmodel.chip.accelerator import Accelerator
from costmodel.chip.chains import follows
from costmodel.chip.evaluation import contractions
from costmodel.chip.fusion import fuse
from costmodel.chip.layer_demand import LayerDemand, layer_demand
from costmodel.chip.lowering import nests_of
from costmodel.chip.nests import Nest, Nests
from costmodel.chip.shapes import curve_of
from costmodel.chip.technology import TYPE_BITS
from costmodel.chip.unfused import unfused_numel
from costmodel.chip.winograd import TRANSFORM_ADDITIONS, has_winograd, winograd
from costmodel.cost import Costs
from costmodel.devices import device
from costmodel.devices import names as device_names
from costmodel.errors import InputError
from costmodel.graph import FORWARD

INDEX_BITS = 4
"""Of a pruned weight's place, relative to the one before it."""


class WhatIf(NamedTuple):
    """A network on a chip, changed or not."""

    change: str
    layers: Sequence[LayerDemand]
    chip: Accelerator
    images: int
    unfused_bytes: int
    """DRAM traffic of the operations between contractions, if they are not fused."""

    does_nothing: str = ""
    """When the change does nothing, or harm."""


def as_it_is(network: Costs | Nests, chip: Accelerator, name: str = "as it is", why: str = "") -> WhatIf:
    """A network without any change."""
    nests, between, images = contractions(network, chip)
    return WhatIf(name, [layer_demand(nest, chip) for nest in nests], chip, images, between, why)


def batches(first: WhatIf, nests: Nests, batch: int) -> Iterator[WhatIf]:
    """A larger batch."""
    chip = first.chip

    def more(nest: Nest) -> Nest:
        """Samples share weights; not what they multiply with each other, as attention does with scores and values."""
        own = nest.groups > 1 or ("bmm" in nest.operator and nests.images == 1)
        of = "groups" if nest.kind == "attention" or (nest.kind == "linear" and own) else "batch"
        return replace(nest, **{of: getattr(nest, of) * batch})

    yield first._replace(
        change=f"{batch} times the batch",
        layers=[layer_demand(more(nest), chip) for nest in nests],
        images=first.images * batch,
        unfused_bytes=first.unfused_bytes * batch,
        does_nothing="to layers that arithmetic or activations bind",
    )


def types(network: Costs | Nests, chip: Accelerator, operands: Sequence[str]) -> Iterator[WhatIf]:
    """Other types of operands; those that a GPU's datasheet lacks are left out."""
    for operand in operands:
        changed = None if operand == chip.operand else with_operand(chip, operand)
        if changed is None:
            continue
        sums = "" if changed.accumulator == chip.accumulator else f"/{changed.accumulator}"
        wider = TYPE_BITS[operand] >= TYPE_BITS[chip.operand]
        why = "for speed: only accuracy asks for it" if wider else "to time that arithmetic binds"
        with suppress(InputError):  # a buffer that held a tile of narrower words
            yield as_it_is(network, changed, f"{operand}{sums} in place of {chip.operand}", why)


def with_operand(chip: Accelerator, operand: str) -> Accelerator | None:
    """A chip as large that works on another type; None if it is a GPU without that type.

    Its PEs store as many words as before.
    """
    integer, bits = operand.startswith("int"), TYPE_BITS[operand]
    keeps = chip.accumulator.startswith("int") == integer and TYPE_BITS[chip.accumulator] >= bits
    accumulator = chip.accumulator if keeps else "int32" if integer else "fp32"
    clock = chip.clock_hertz
    if chip.dataflow == "ideal" and not chip.technology:  # a datasheet's rate, which says nothing of other types
        peaks = device(chip.name).peaks if chip.name in device_names() else {}
        if operand not in peaks or chip.operand not in peaks:
            return None
        clock *= peaks[operand] / peaks[chip.operand]
    words = (2, 1)  # a weight and an input; a partial sum
    if chip.scratchpads:
        words = (chip.scratchpads.weight_words + chip.scratchpads.input_words, chip.scratchpads.partial_sum_words)
    wider = words[0] * (bits - TYPE_BITS[chip.operand]) + words[1] * (
        TYPE_BITS[accumulator] - TYPE_BITS[chip.accumulator]
    )
    stored = max(1, chip.pe_bytes + wider // 8) if chip.pe_bytes else 0
    return chip.replace(operand=operand, accumulator=accumulator, clock_hertz=clock, pe_bytes=stored)


def fused(costs: Costs, chip: Accelerator, images: int) -> Iterator[WhatIf]:
    """Layers that run as one; nothing for a training step, which keeps what lies between them."""
    if costs.trace.train:
        return
    widths = chip.widths
    groups = fuse(costs, chip.buffer_bytes, word_bits=widths.input_bits, partial_bits=widths.partial_bits).groups
    layers = []
    for group in groups:
        parts = [layer_demand(nest, chip) for nest in group.nests]
        macs = sum(part.macs for part in parts)
        again = (macs + group.recomputed_macs) / macs
        moved = round(sum(part.buffer_bytes for part in parts) * again)
        time = sum(part.array_seconds for part in parts) * again
        layers.append(LayerDemand(macs + group.recomputed_macs, time, moved, group.dram_bytes))
    apart = replace(costs, operations=tuple(each for each in costs.operations if not follows(each.operation)))
    between = unfused_numel(apart) * widths.input_bits // 8
    yield WhatIf(
        "fused layers",
        layers,
        chip,
        images,
        between,
        "to weights, and where the buffer holds too little of both layers",
    )


def head(nests: Nests) -> tuple[Nest, ...]:
    """The FC layers that end a network: a row an image, each weight used once."""
    times = Counter(nests)
    layers: list[Nest] = []
    for nest in reversed(tuple(nests)):
        if nest.kind != "linear" or nest.groups > 1 or nest.batch != nests.images or times[nest] > 1:
            break
        layers.insert(0, nest)
    return tuple(layers)


def fc_layers(first: WhatIf, nests: Nests, rank: int, density: float) -> Iterator[WhatIf]:
    """Cheaper FC layers."""
    chip, fc = first.chip, head(nests)
    before = list(first.layers[: len(nests) - len(fc)])
    at_large = "at a large batch, and to convolutions"

    def factored(nest: Nest) -> tuple[Nest, ...]:
        inputs, outputs = nest.in_channels, nest.out_channels
        if rank * (inputs + outputs) >= inputs * outputs:
            return (nest,)
        return replace(nest, out_channels=rank), replace(nest, in_channels=rank)

    parts = [part for nest in fc for part in factored(nest)]
    if len(parts) > len(fc):
        layers = before + [layer_demand(part, chip) for part in parts]
        yield first._replace(change=f"FC layers of rank {rank}", layers=layers, does_nothing=at_large)

    def pruned(nest: Nest) -> LayerDemand:
        own = layer_demand(nest, chip)
        weights = curve_of(nest, chip.widths).at(chip.buffer_bytes).weight_bytes
        bits = TYPE_BITS[chip.operand]
        fewer = round(weights * density * (bits + INDEX_BITS) / bits)
        return own._replace(dram_bytes=own.dram_bytes - weights + min(fewer, weights))

    if fc:
        yield first._replace(
            change=f"FC layers pruned to {density:.0%}",
            layers=before + [pruned(nest) for nest in fc],
            does_nothing=f"{at_large}; to cycles, unless zeros are skipped",
        )


def pooled(first: WhatIf, costs: Costs, nests: Nests) -> Iterator[WhatIf]:
    """Global average pooling in place of FC layers that take feature maps; nothing where they take pooled ones."""
    chip, fc = first.chip, head(nests)
    channels = _channels_into(costs, nests, fc)
    if channels:
        scores = replace(fc[-1], in_channels=channels)
        yield first._replace(
            change="global average pooling for FC",
            layers=[*first.layers[: len(nests) - len(fc)], layer_demand(scores, chip)],
            does_nothing="at a large batch, and to convolutions",
        )


def _channels_into(costs: Costs, nests: Nests, fc: Sequence[Nest]) -> int:
    """The channels of the feature maps that the first FC layer takes; 0 if it takes none, or of one pixel."""
    operations = [operation for operation in costs.trace.operations if operation.phase == FORWARD]
    ends = [index for index, operation in enumerate(operations) for _ in nests_of(operation)]
    before = nests.nests[: len(nests) - len(fc)]
    if not fc or not before or before[-1].kind != "conv" or len(ends) != len(nests):
        return 0
    maps = [
        spec.shape for operation in operations[: ends[-len(fc)]] for spec in operation.outputs if len(spec.shape) == 4
    ]
    if not maps:
        return 0
    _, channels, rows, columns = maps[-1]
    flattened = channels * rows * columns == fc[0].in_channels
    return channels if flattened and rows * columns > 1 else 0


def convolutions(first: WhatIf, nests: Nests) -> Iterator[WhatIf]:
    """Cheaper convolutions."""
    chip = first.chip
    for m in TRANSFORM_ADDITIONS:
        fast = [has_winograd(nest, chip, m) for nest in nests]
        if any(fast):
            yield first._replace(
                change=f"Winograd F({m}x{m}, 3x3)",
                layers=[
                    winograd(nest, chip, m) if fits else own
                    for nest, own, fits in zip(nests, first.layers, fast, strict=True)
                ],
                does_nothing="to 1x1, strides, FC layers; slows what DRAM binds: filters grow",
            )
    if any(len(separated(nest)) > 1 for nest in nests):
        yield first._replace(
            change="depthwise separable convolutions",
            layers=[layer_demand(part, chip) for nest in nests for part in separated(nest)],
            does_nothing="to 1x1 and FC layers; where one group's channels fill the rows, rows idle",
        )


def separated(nest: Nest) -> tuple[Nest, ...]:
    """A convolution as a depthwise one and a 1x1 one; itself if it has one tap, groups, or an image's channels."""
    taps, channels = nest.filter_rows * nest.filter_columns, nest.in_channels
    if nest.kind != "conv" or taps == 1 or nest.groups > 1 or channels <= 4 or nest.transposed:
        return (nest,)
    return (
        replace(nest, groups=channels, in_channels=1, out_channels=1),
        replace(
            nest, filter_rows=1, filter_columns=1, stride=(1, 1), dilation=(1, 1), padding=((0, 0), (0, 0)),
            in_rows=nest.out_rows, in_columns=nest.out_columns,
        ),
    )  # fmt: skip
