"""What-ifs: changes to a network or its numbers, each on the same axes, with when it does nothing.

batch: weights move once a batch; everything else grows with it.

narrower operands: every word moved is narrower, and a MAC takes less energy.

low-rank FC layers: a weight of I x O as I x r and r x O (truncated SVD; Girshick, Fast R-CNN, 2015, section 3.1).

pruned FC layers: a share of the weights stays, each with an index of 4 bits (Han et al., Deep Compression, 2016). An
array that does not skip zeros saves traffic, not cycles.

pooling for FC: global average pooling and one layer of C x classes in place of the FC layers (Lin et al., Network in
Network, 2013).

Winograd F(m x m, 3 x 3): (m + 2)² multiplications in place of 9 m² for each tile of m x m outputs of a 3x3 window of
stride 1; transforms of 32 additions for each input tile and 24 for each output tile (m = 2), or 144 and 100 (m = 4).
The filters lie transformed in memory, (m + 2)² / 9 as large (Lavin and Gray, Fast algorithms for convolutional neural
networks, CVPR 2016, section 4).

depthwise separable: a window on each channel, then 1x1 across channels (Howard et al., MobileNets, 2017).

fused layers: what stays between layers of a group never leaves the chip (`costmodel.chip.fusion`: pyramids of
convolutions, with what follows each; what overlaps make again is computed again).

resolution: images of half or twice as many rows and columns; FC layers see what adaptive pooling leaves.

A frame's accuracy changes with all but the first and Winograd's; that is not computed here. Winograd's transforms are
counted as energy, and take no time: an array as wide as its tile makes them beside the products.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from costmodel.chip.accelerator import Accelerator
from costmodel.chip.evaluation import energy_of, moved_in_buffer_bytes
from costmodel.chip.fusion import fuse
from costmodel.chip.lowering import lower
from costmodel.chip.mapping import place
from costmodel.chip.nests import Nest, Nests
from costmodel.chip.shapes import curve_of
from costmodel.chip.technology import TYPE_BITS
from costmodel.cost import Costs
from costmodel.display import html_table
from costmodel.errors import InputError
from costmodel.graph import FORWARD, Trace
from costmodel.units import seconds

if TYPE_CHECKING:
    import pandas as pd

INDEX_BITS = 4
"""Of a pruned weight's place, relative to the one before it."""

_TRANSFORM_ADDITIONS = {2: (32, 24), 4: (144, 100)}
"""Of an input tile and of an output tile, by m."""


class Outcome(NamedTuple):
    """A network on a chip after a change, by the frame."""

    change: str
    overlapped_seconds: float
    serial_seconds: float
    macs: float
    dram_bytes: float
    joules: float | None
    """None where the technology has no number for it."""

    speedup: float
    """Overlapped time before, as a multiple of that after."""

    does_nothing: str
    """When the change does nothing, or harm."""


@dataclass(frozen=True, repr=False)
class WhatIfs:
    """Outcomes side by side; the first is the network as it is."""

    model: str
    accelerator: Accelerator
    outcomes: tuple[Outcome, ...]

    def __getitem__(self, change: str) -> Outcome:
        """An outcome by its change. Raises KeyError for another."""
        return {outcome.change: outcome for outcome in self.outcomes}[change]

    def to_frame(self) -> pd.DataFrame:
        """One row a change, in base units."""
        import pandas as pd

        return pd.DataFrame(list(self.outcomes), columns=list(Outcome._fields))

    def __repr__(self) -> str:
        best = max(self.outcomes, key=lambda outcome: outcome.speedup)
        return f"<What-ifs of {self.model} on {self.accelerator.title}: {best.change} helps most>"

    def _repr_html_(self) -> str:
        columns = [
            ("change", "text"), ("overlapped", "seconds"), ("serial", "seconds"), ("speedup", "times"),
            ("MACs", "macs"), ("DRAM", "bytes"), ("energy (J)", "ratio"), ("does nothing", "prose"),
        ]  # fmt: skip
        rows = [
            (
                each.change, each.overlapped_seconds, each.serial_seconds, each.speedup, round(each.macs),
                each.dram_bytes, each.joules, each.does_nothing,
            )
            for each in self.outcomes
        ]  # fmt: skip
        first = self.outcomes[0].overlapped_seconds
        return html_table(f"{self.model} on {self.accelerator.title}, {seconds(first)} a frame: what if", columns, rows)


def what_ifs(
    network: Trace | Costs | Nests,
    chip: Accelerator,
    *,
    batch: int = 16,
    operands: Sequence[str] = ("int16", "bf16", "int8"),
    rank: int = 256,
    density: float = 0.1,
    extra: Sequence[tuple[str, Nests, str]] = (),
) -> WhatIfs:
    """What each change makes of a network's forward pass on a chip.

    Args:
        network: a trace, its costs, or loop nests, which do not say what fusing them takes.
        chip: what runs it.
        batch: how many times as many samples.
        operands: types to try in place of the chip's.
        rank: of the factored FC layers.
        density: the share of weights that pruned FC layers keep.
        extra: further networks to put beside it: a name, its nests, and when it does nothing.

    A change that no layer allows is left out. Raises InputError where `evaluate` does.
    """
    forward = (network if isinstance(network, Nests) else lower(network)).of_phase(FORWARD)
    if batch < 1 or rank < 1 or not 0 < density <= 1:
        raise InputError("what-ifs take a batch and a rank of at least 1, and a density above 0 and up to 1.")
    images = forward.images
    plain = [_layer(nest, chip) for nest in forward]
    first = _outcome("as it is", plain, chip, images, None, "")
    outcomes = [first]
    changes = (
        *_batches(forward, chip, batch),
        *_types(forward, chip, operands),
        *(_fused(network, forward, chip) if not isinstance(network, Nests) else ()),
        *_fc(forward, chip, rank, density),
        *_convolutions(forward, chip),
        *((name, [_layer(nest, chip) for nest in other.of_phase(FORWARD)], chip, other.images, why)
          for name, other, why in extra),
    )  # fmt: skip
    for name, layers, changed, samples, why in changes:
        outcomes.append(_outcome(name, layers, changed, samples, first, why))
    return WhatIfs(forward.model, chip, tuple(outcomes))


class _Layer(NamedTuple):
    """What a layer asks of a chip."""

    macs: int
    array_seconds: float
    buffer_bytes: int
    dram_bytes: int
    additions: int = 0


_Change = tuple[str, list[_Layer], Accelerator, int, str]


def _layer(nest: Nest, chip: Accelerator) -> _Layer:
    mapped = place(nest, chip.array)
    dram = int(curve_of(nest, chip.widths).dram_bytes(chip.buffer_bytes))
    moved = int(moved_in_buffer_bytes(mapped, chip))
    array = int(mapped.cycles) / chip.clock_hertz
    if chip.buffer_bytes_per_cycle:
        array = max(array, moved / chip.buffer_bytes_per_cycle / chip.clock_hertz)
    return _Layer(nest.macs, array, moved, dram)


def _outcome(
    name: str, layers: Sequence[_Layer], chip: Accelerator, images: int, first: Outcome | None, why: str
) -> Outcome:
    overlapped = sum(max(layer.array_seconds, layer.dram_bytes / chip.dram_bandwidth) for layer in layers) / images
    serial = sum(layer.array_seconds + layer.dram_bytes / chip.dram_bandwidth for layer in layers) / images
    macs = sum(layer.macs for layer in layers)
    dram = sum(layer.dram_bytes for layer in layers)
    joules = _joules(chip, macs, sum(layer.buffer_bytes for layer in layers), dram)
    if joules is not None:
        additions = sum(layer.additions for layer in layers)
        adder = f"{chip.accumulator}_add"
        joules = (joules + additions * chip.find_technology().energy[adder].value) / images
    return Outcome(
        name,
        overlapped,
        serial,
        macs / images,
        dram / images,
        joules,
        first.overlapped_seconds / overlapped if first else 1.0,
        why,
    )


def _joules(chip: Accelerator, macs: int, moved: int, dram: int) -> float | None:
    if not chip.technology:
        return None
    try:
        return energy_of(chip, chip.find_technology())(macs, moved, dram).total
    except InputError:  # the type has no number; `evaluate` says which
        return None


def _batches(nests: Nests, chip: Accelerator, batch: int) -> Iterator[_Change]:
    def more(nest: Nest) -> Nest:
        of = "groups" if nest.kind == "attention" else "batch"  # each sample has its own scores
        return replace(nest, **{of: getattr(nest, of) * batch})

    yield (
        f"{batch} times the batch",
        [_layer(more(nest), chip) for nest in nests],
        chip,
        nests.images * batch,
        "to layers that arithmetic or activations bind",
    )


def _types(nests: Nests, chip: Accelerator, operands: Sequence[str]) -> Iterator[_Change]:
    for operand in operands:
        if operand == chip.operand:
            continue
        accumulator = "int32" if operand.startswith("int") else "fp32"
        pads = {"element_bytes": 0} if chip.scratchpads else {}  # scratchpads hold words, whatever their width
        changed = chip.replace(operand=operand, accumulator=accumulator, **pads)
        wider = TYPE_BITS[operand] >= TYPE_BITS[chip.operand]
        why = "for speed: only accuracy asks for it" if wider else "to time that arithmetic binds"
        yield f"{operand} in place of {chip.operand}", [_layer(n, changed) for n in nests], changed, nests.images, why


def _fused(network: Trace | Costs, nests: Nests, chip: Accelerator) -> Iterator[_Change]:
    widths = chip.widths
    groups = fuse(
        network, chip.buffer_bytes, word_bits=widths.input_bits, partial_bits=widths.partial_bits
    ).groups  # fmt: skip
    own: dict[str, list[_Layer]] = {}
    for nest in nests:
        own.setdefault(nest.layer, []).append(_layer(nest, chip))
    layers = []
    for group in groups:
        parts = [own[name].pop(0) for name in group.layers if own.get(name)]
        macs = sum(part.macs for part in parts)
        again = (macs + group.extra_macs) / macs if macs else 1.0
        moved = sum(part.buffer_bytes for part in parts)
        time = sum(part.array_seconds for part in parts)
        layers.append(_Layer(macs + group.extra_macs, time * again, round(moved * again), group.dram_bytes))
    layers += [part for parts in own.values() for part in parts]
    why = "to weights, and where the buffer holds too little of both layers"
    yield "fused layers", layers, chip, nests.images, why


def _fc(nests: Nests, chip: Accelerator, rank: int, density: float) -> Iterator[_Change]:
    dense = [nest for nest in nests if _is_fc(nest)]
    if not dense:
        return
    images = nests.images
    at_large = "at a large batch, and to convolutions"

    def factored(nest: Nest) -> tuple[Nest, ...]:
        inputs, outputs = nest.in_channels, nest.out_channels
        if not _is_fc(nest) or rank * (inputs + outputs) >= inputs * outputs:
            return (nest,)
        return replace(nest, out_channels=rank), replace(nest, in_channels=rank)

    layers = [_layer(part, chip) for nest in nests for part in factored(nest)]
    yield f"FC layers of rank {rank}", layers, chip, images, at_large

    def pruned(nest: Nest) -> _Layer:
        own = _layer(nest, chip)
        if not _is_fc(nest):
            return own
        weights = curve_of(nest, chip.widths).at(chip.buffer_bytes).weight_bytes
        bits = TYPE_BITS[chip.operand]
        fewer = round(weights * density * (bits + INDEX_BITS) / bits)
        return own._replace(dram_bytes=own.dram_bytes - weights + min(fewer, weights))

    layers = [pruned(nest) for nest in nests]
    yield f"FC layers pruned to {density:.0%}", layers, chip, images, f"{at_large}; to cycles, unless zeros are skipped"

    last_conv = next((nest for nest in reversed(tuple(nests)) if nest.kind == "conv"), None)
    if last_conv is not None:
        channels = last_conv.out_channels * last_conv.groups
        scores = replace(dense[-1], in_channels=channels)
        layers = [_layer(nest, chip) for nest in nests if not _is_fc(nest)] + [_layer(scores, chip)]
        yield "global average pooling in place of FC layers", layers, chip, images, at_large


def _convolutions(nests: Nests, chip: Accelerator) -> Iterator[_Change]:
    images = nests.images
    convs = [nest for nest in nests if nest.kind == "conv"]
    if not convs:
        return
    for m in _TRANSFORM_ADDITIONS:
        if any(_winograd_fits(nest) for nest in convs):
            layers = [winograd(nest, chip, m) if _winograd_fits(nest) else _layer(nest, chip) for nest in nests]
            yield (
                f"Winograd F({m}x{m}, 3x3)",
                layers,
                chip,
                images,
                "to 1x1, strides, FC layers; slows what DRAM binds: filters grow",
            )
    if any(_separable(nest) for nest in convs):
        layers = [_layer(part, chip) for nest in nests for part in separated(nest)]
        yield (
            "depthwise separable convolutions",
            layers,
            chip,
            images,
            "to 1x1 and FC layers; where one group's channels fill the rows, rows idle",
        )
    for scale, text in ((0.5, "half"), (2.0, "twice")):
        scaled = [_scaled(nest, scale) for nest in nests]
        if all(nest is not None for nest in scaled):
            layers = [_layer(nest, chip) for nest in scaled if nest is not None]
            yield f"images of {text} the resolution", layers, chip, images, "to weights and FC layers"


def winograd(nest: Nest, chip: Accelerator, m: int) -> _Layer:
    """A 3x3 convolution of stride 1 by Winograd's F(m x m, 3 x 3): (m + 2)² matrix products of tiles by channels."""
    tiles = -(-nest.out_rows // m) * -(-nest.out_columns // m)
    points = (m + 2) ** 2
    product = Nest(
        nest.layer, nest.operator, "linear", batch=nest.batch * tiles, groups=nest.groups * points,
        out_channels=nest.out_channels, in_channels=nest.in_channels,
    )  # fmt: skip
    mapped = place(product, chip.array)
    tiling = curve_of(nest, chip.widths).at(chip.buffer_bytes)
    grown = tiling.weight_bytes * points // 9
    on_input, on_output = _TRANSFORM_ADDITIONS[m]
    channels = nest.groups * (nest.in_channels * on_input + nest.out_channels * on_output)
    return _Layer(
        product.macs,
        int(mapped.cycles) / chip.clock_hertz,
        int(moved_in_buffer_bytes(mapped, chip)),
        tiling.dram_bytes - tiling.weight_bytes + grown,
        nest.batch * tiles * channels,
    )


def separated(nest: Nest) -> tuple[Nest, ...]:
    """A convolution as a depthwise one and a 1x1 one; itself if it has one tap, groups, or an image's channels."""
    if not _separable(nest):
        return (nest,)
    channels = nest.in_channels
    return (
        replace(nest, groups=channels, in_channels=1, out_channels=1),
        replace(
            nest, filter_rows=1, filter_columns=1, stride=(1, 1), dilation=(1, 1), padding=((0, 0), (0, 0)),
            in_rows=nest.out_rows, in_columns=nest.out_columns,
        ),
    )  # fmt: skip


def _separable(nest: Nest) -> bool:
    taps = nest.filter_rows * nest.filter_columns
    return nest.kind == "conv" and taps > 1 and nest.groups == 1 and nest.in_channels > 4 and not nest.transposed


def _winograd_fits(nest: Nest) -> bool:
    unit = nest.stride == nest.dilation == (1, 1) and not nest.transposed
    return nest.kind == "conv" and (nest.filter_rows, nest.filter_columns) == (3, 3) and unit and not nest.depthwise


def _is_fc(nest: Nest) -> bool:
    return nest.kind == "linear" and nest.groups == 1


def _scaled(nest: Nest, scale: float) -> Nest | None:
    """A convolution on images of another size; None where nothing is left of them."""
    if nest.kind != "conv" or nest.transposed:
        return nest if nest.kind != "conv" else None
    sizes = []
    for axis, (stored, taps) in enumerate(((nest.in_rows, nest.filter_rows), (nest.in_columns, nest.filter_columns))):
        inside = max(1, round(stored * scale))
        room = inside + sum(nest.padding[axis]) - nest.dilation[axis] * (taps - 1) - 1
        if room < 0:
            return None
        sizes.append((inside, room // nest.stride[axis] + 1))
    (in_rows, out_rows), (in_columns, out_columns) = sizes
    return replace(nest, in_rows=in_rows, in_columns=in_columns, out_rows=out_rows, out_columns=out_columns)
