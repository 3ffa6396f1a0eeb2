"""Published chips and another program's output beside our model of the same: how far to trust the rest.

Eyeriss' tables of AlexNet's convolutions (batch 4, 16 bits, 200 MHz) and of VGG-16's (batch 3), its energy and area,
NVDLA's table of three designs (ResNet-50, int8, 1 GHz), TPU v1's roofline, and SCALE-Sim's cycles for four small
layers. Nothing of ours was fitted to these numbers but NVDLA's fixed area, which is its smallest design's, and TPU
v1's densities, which are 28 nm's.

Where ours is off, and why. On VGG-16 the model is up to four times too fast, the more the larger the maps. Eyeriss'
buffer accesses say what the chip does there: each of C input channels' partial sums of an output goes to the buffer and
comes back, but for the first, so

    accesses / outputs = 2 C / c - 1,   c channels a pass: 1 on maps of 224 and 112, 2 on 56, 4 on 28

Four of them cross the bus in a cycle, in each direction: outputs C / (4 c) cycles are 92 to 95 % of the processing time
of the ten layers from conv1_1 to conv4_3. Whole rows explain such passes: partial sums of 16 filters over 14 rows of
224 pixels would fill 98 of 108 KiB and leave room for one input channel. The model's passes may take fewer filters and
rows, or strips of the columns, and sum more channels.

Energy leaves out leakage and the clock tree, area neither the network on the chip nor compression and control; and
scratchpads are register files, which take more than the large arrays of SRAM whose numbers stand in for them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from costmodel.chip.accelerator import Accelerator, accelerator
from costmodel.chip.evaluation import Evaluation, area_of, evaluate
from costmodel.chip.mapping import Array, map_nest
from costmodel.chip.nests import Nest, Nests
from costmodel.cost import Costs
from costmodel.errors import InputError
from costmodel.graph import Trace

JSSC = "Chen et al., IEEE JSSC 52(1), 2017"
JSSC_VGG16 = f"{JSSC}, as FODLAM copied its table (github.com/cucapra/fodlam)"
PRIMER = "NVDLA primer"
ISCA = "Jouppi et al., ISCA 2017"
SCALE_SIM = "scalesim 3.0.0, run on these layers"


class ChipComparison(NamedTuple):
    """A published number and ours."""

    chip: str
    quantity: str
    published: float
    low: float
    """Ours: the low end of a band, or the number itself."""

    high: float
    unit: str
    source: str
    how: str
    """What is compared, if that is not obvious."""

    @property
    def difference(self) -> float:
        """How far ours is from theirs, as a share of theirs; 0 where theirs lies in our band."""
        if self.low <= self.published <= self.high:
            return 0.0
        nearest = self.low if self.published < self.low else self.high
        return nearest / self.published - 1


class EyerissLayer(NamedTuple):
    """A row of Eyeriss' table."""

    layer: str
    processing_milliseconds: float
    active_pes: int
    dram_megabytes: float
    """Run-length compressed."""


class EyerissVggLayer(NamedTuple):
    """A row of Eyeriss' table of VGG-16."""

    layer: str
    processing_milliseconds: float
    channels: int | None
    """Input channels that a pass sums, as the buffer's accesses say; None where partial sums do not bind."""


class EyerissRun(NamedTuple):
    """A network's convolutions on Eyeriss, in all."""

    images: int
    milliseconds: float
    """Of the batch, DRAM included."""

    milliwatts: float
    """Of the chip, DRAM not included."""

    @property
    def millijoules(self) -> float:
        """Of an image."""
        return self.milliwatts * self.milliseconds / 1e3 / self.images


class NvdlaDesign(NamedTuple):
    """A row of NVDLA's table."""

    macs: int
    area_28nm_mm2: float
    area_16nm_mm2: float
    frames_per_second: float


EYERISS = (
    EyerissLayer("conv1", 16.5, 154, 5.0),
    EyerissLayer("conv2", 39.2, 135, 4.0),
    EyerissLayer("conv3", 21.8, 156, 3.0),
    EyerissLayer("conv4", 16.0, 156, 2.1),
    EyerissLayer("conv5", 10.0, 156, 1.3),
)

EYERISS_VGG16 = (
    EyerissVggLayer("conv1_1", 38.0, 1),
    EyerissVggLayer("conv1_2", 810.6, 1),
    EyerissVggLayer("conv2_1", 405.3, 1),
    EyerissVggLayer("conv2_2", 810.8, 1),
    EyerissVggLayer("conv3_1", 204.0, 2),
    EyerissVggLayer("conv3_2", 408.1, 2),
    EyerissVggLayer("conv3_3", 408.1, 2),
    EyerissVggLayer("conv4_1", 105.1, 4),
    EyerissVggLayer("conv4_2", 210.0, 4),
    EyerissVggLayer("conv4_3", 210.0, 4),
    EyerissVggLayer("conv5_1", 48.3, None),
    EyerissVggLayer("conv5_2", 48.5, None),
    EyerissVggLayer("conv5_3", 48.5, None),
)

EYERISS_ALEXNET_RUN, EYERISS_VGG16_RUN = EyerissRun(4, 115.3, 278), EyerissRun(3, 4309.5, 236)

EYERISS_CORE_MM2 = 3.5 * 3.5

NVDLA = (
    NvdlaDesign(64, 0.91, 0.55, 7.3),
    NvdlaDesign(256, 1.7, 1.0, 46),
    NvdlaDesign(2048, 5.5, 3.3, 269),
)

BIT_CELLS_UM2 = {28: 0.127, 16: 0.07}
"""TSMC's SRAM bit cells: with them the fixed part of a chip shrinks from node to node."""


def _scale_sim_layer(size: int, channels: int, window: int, filters: int, stride: int) -> Nest:
    out = (size - window) // stride + 1
    return Nest(
        "", "aten.convolution", "conv", in_channels=channels, out_channels=filters, out_rows=out, out_columns=out,
        filter_rows=window, filter_columns=window, stride=(stride, stride), in_rows=size, in_columns=size,
    )  # fmt: skip


SCALE_SIM_ARRAY = (16, 24)
SCALE_SIM_CYCLES = (
    (_scale_sim_layer(10, 5, 3, 7, 1), 331, 353),
    (_scale_sim_layer(23, 3, 5, 40, 2), 1581, 1539),
    (_scale_sim_layer(9, 70, 1, 33, 1), 1295, 1349),
    (_scale_sim_layer(1, 300, 1, 50, 1), 1013, 3134),
)
"""Layers, and the "Total Cycles" that SCALE-Sim reports, output- and weight-stationary: its last cycle's number."""


def compare(alexnet: Nests, vgg16: Nests, resnet50: Trace | Costs) -> tuple[ChipComparison, ...]:
    """The published numbers beside ours.

    Args:
        alexnet: the grouped AlexNet's convolutions, batch 4.
        vgg16: VGG-16's convolutions, batch 3, images of 3 x 224 x 224.
        resnet50: a forward pass of one image.
    """
    return (*_eyeriss(alexnet), *_eyeriss_on_vgg16(vgg16), *_nvdla(resnet50), _tpu(), *_scale_sim())


def _eyeriss(alexnet: Nests) -> list[ChipComparison]:
    found = evaluate(alexnet, accelerator("eyeriss"))
    rows = []
    for layer, theirs in zip(found.layers, EYERISS, strict=True):
        milliseconds, active = layer.array_seconds * 1e3, layer.mapping.active(layer.nest)
        rows += [
            _one("Eyeriss", f"{theirs.layer}: processing", theirs.processing_milliseconds, milliseconds, "ms", JSSC),
            _one("Eyeriss", f"{theirs.layer}: active PEs", theirs.active_pes, active, "", JSSC),
        ]
    megabytes = sum(row.dram_megabytes for row in EYERISS)
    how = "theirs is run-length compressed, ours is not: the least of our schedules behind 108 KiB"
    return [
        *rows,
        _one("Eyeriss", "DRAM traffic", megabytes, found.dram_bytes / 1e6, "MB", JSSC, how),
        _energy("AlexNet", EYERISS_ALEXNET_RUN, found),
        _one(
            "Eyeriss", "area", EYERISS_CORE_MM2, found.area_mm2, "mm²", JSSC,
            "theirs is the core's, with the network on the chip, compression and control",
        ),
    ]  # fmt: skip


def _eyeriss_on_vgg16(vgg16: Nests) -> list[ChipComparison]:
    chip = accelerator("eyeriss")
    found = evaluate(vgg16, chip)
    table = list(zip(found.layers, EYERISS_VGG16, strict=True))
    rows = []
    for block in dict.fromkeys(theirs.layer.partition("_")[0] for theirs in EYERISS_VGG16):
        own = [(layer, theirs) for layer, theirs in table if theirs.layer.startswith(block)]
        published = sum(theirs.processing_milliseconds for _, theirs in own)
        milliseconds = sum(layer.array_seconds for layer, _ in own) * 1e3
        rows.append(_one("Eyeriss", f"VGG-16's {block}: processing", published, milliseconds, "ms", JSSC_VGG16))
    bound = [(layer.nest, theirs) for layer, theirs in table if theirs.channels]
    return [
        *rows,
        _one(
            "Eyeriss", "VGG-16's conv1 to conv4: partial sums' bus",
            sum(theirs.processing_milliseconds for _, theirs in bound),
            sum(partial_sum_seconds(nest, theirs.channels or 1, chip) for nest, theirs in bound) * 1e3,
            "ms", JSSC_VGG16, "no mapping of ours: 1, 2 or 4 input channels a pass, as the chip's buffer accesses say",
        ),
        ChipComparison(
            "Eyeriss", "VGG-16's convolutions", 0.7, found.serial_frames_per_second, found.frames_per_second,
            "frames/s", JSSC, "band: serial to overlapped; on large maps the chip's passes sum few input channels",
        ),
        _energy("VGG-16", EYERISS_VGG16_RUN, found),
    ]  # fmt: skip


def partial_sum_seconds(nest: Nest, channels: int, chip: Accelerator) -> float:
    """What a row-stationary array's partial sums take on their bus, with so many input channels a pass."""
    if chip.scratchpads is None:
        raise InputError(f"{chip.title} has no scratchpads: only a row-stationary array has a partial-sum bus.")
    passes = -(-nest.in_channels // channels)
    return nest.output_numel * passes / chip.scratchpads.partial_sums_per_cycle / chip.clock_hertz


def _energy(network: str, theirs: EyerissRun, ours: Evaluation) -> ChipComparison:
    joules = (ours.energy.total - ours.energy.dram) / ours.images
    return _one(
        "Eyeriss", f"{network}'s convolutions: energy of an image without DRAM", theirs.millijoules, joules * 1e3, "mJ",
        JSSC, f"theirs: {theirs.milliwatts:g} mW for {theirs.milliseconds:g} ms; ours has neither clock nor leakage",
    )  # fmt: skip


def _nvdla(resnet50: Trace | Costs) -> list[ChipComparison]:
    rows = []
    for theirs in NVDLA:
        chip = accelerator(f"nvdla-{theirs.macs}")
        found = evaluate(resnet50, chip, energy=False)
        shrunk = chip.other_mm2 * BIT_CELLS_UM2[16] / BIT_CELLS_UM2[28]
        small = replace(chip, technology="16nm+derived", other_mm2=shrunk)
        areas = [area_of(each, each.find_technology()) for each in (chip, small)]
        at_28, at_16 = (area.total if area else 0.0 for area in areas)
        smallest = "its fixed part was taken from this number" if theirs.macs == NVDLA[0].macs else ""
        rows += [
            _one(chip.title, "area, 28 nm", theirs.area_28nm_mm2, at_28, "mm²", PRIMER, smallest),
            _one(chip.title, "area, 16 nm", theirs.area_16nm_mm2, at_16, "mm²", PRIMER, "28 nm's times 0.07 / 0.127"),
            ChipComparison(
                chip.title, "ResNet-50", theirs.frames_per_second, found.serial_frames_per_second,
                found.frames_per_second, "frames/s", PRIMER, "band: serial and unfused, to overlapped and fused",
            ),
        ]  # fmt: skip
    return rows


def _tpu() -> ChipComparison:
    return _one("TPU v1", "ridge point", 1350, accelerator("tpu-v1").ridge_point, "MACs a weight byte", ISCA)


def _scale_sim() -> list[ChipComparison]:
    rows, columns = SCALE_SIM_ARRAY
    found = []
    for nest, output, weight in SCALE_SIM_CYCLES:
        what = f"{nest.in_rows}x{nest.in_columns}x{nest.in_channels}, {nest.out_channels} of {nest.filter_rows}x"
        what += f"{nest.filter_columns}"
        folds = -(-nest.out_rows * nest.out_columns // rows) * -(-nest.out_channels // columns)
        at = {flow: int(map_nest(nest, Array(flow, rows, columns)).cycles) for flow in _FLOWS}
        drain = f"ours less {rows * folds} cycles of draining, which its formula has and its simulation leaves out"
        counts = "it numbers its last cycle, from 0"
        found += [
            _one("SCALE-Sim", f"{what}, weight-stationary", weight + 1, at[_FLOWS[0]], "cycles", SCALE_SIM, counts),
            _one(
                "SCALE-Sim", f"{what}, output-stationary", output + 1, at[_FLOWS[1]] - rows * folds, "cycles",
                SCALE_SIM, f"{counts}; {drain}",
            ),
        ]  # fmt: skip
    return found


_FLOWS = ("weight_stationary", "output_stationary")


def _one(
    chip: str, quantity: str, published: float, ours: float, unit: str, source: str, how: str = ""
) -> ChipComparison:
    return ChipComparison(chip, quantity, published, ours, ours, unit, source, how)
