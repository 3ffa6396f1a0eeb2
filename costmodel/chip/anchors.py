"""Published chips and another program's output, beside what we make of the same: how far to trust the rest.

Eyeriss' table of AlexNet's convolutions (batch 4, 16 bits, 200 MHz), NVDLA's table of three designs (ResNet-50, int8,
1 GHz), TPU v1's roofline, and SCALE-Sim's cycles for four small layers. Nothing of ours was fitted to these numbers
but NVDLA's fixed area, which is its smallest design's, and TPU v1's densities, which are 28 nm's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from costmodel.chip.accelerator import accelerator
from costmodel.chip.evaluation import area_of, evaluate
from costmodel.chip.mapping import Array, place
from costmodel.chip.nests import Nest, Nests
from costmodel.cost import Costs
from costmodel.graph import Trace

JSSC = "Chen et al., IEEE JSSC 52(1), 2017"
PRIMER = "NVDLA primer"
ISCA = "Jouppi et al., ISCA 2017"
SCALE_SIM = "scalesim 3.0.0, run on these layers"


class Comparison(NamedTuple):
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
    """What is compared, where that is not plain."""

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
    active_elements: int
    dram_megabytes: float
    """Run-length compressed."""


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


def compare(alexnet: Nests, resnet50: Trace | Costs) -> tuple[Comparison, ...]:
    """The published numbers beside ours.

    Args:
        alexnet: the grouped AlexNet's convolutions, batch 4.
        resnet50: a forward pass of one image.
    """
    return (*_eyeriss(alexnet), *_nvdla(resnet50), _tpu(), *_scale_sim())


def _eyeriss(alexnet: Nests) -> list[Comparison]:
    found = evaluate(alexnet, accelerator("eyeriss"))
    rows = []
    for layer, theirs in zip(found.layers, EYERISS, strict=True):
        milliseconds, active = layer.array_seconds * 1e3, layer.mapped.active(layer.nest)
        rows += [
            _one("Eyeriss", f"{theirs.layer}: processing", theirs.processing_milliseconds, milliseconds, "ms", JSSC),
            _one("Eyeriss", f"{theirs.layer}: active elements", theirs.active_elements, active, "", JSSC),
        ]
    megabytes = sum(row.dram_megabytes for row in EYERISS)
    how = "theirs is run-length compressed, ours is not: the least that any schedule moves behind 108 KiB"
    return [*rows, _one("Eyeriss", "DRAM traffic", megabytes, found.dram_bytes / 1e6, "MB", JSSC, how)]


def _nvdla(resnet50: Trace | Costs) -> list[Comparison]:
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
            Comparison(
                chip.title, "ResNet-50", theirs.frames_per_second, found.serial_frames_per_second,
                found.frames_per_second, "frames/s", PRIMER, "band: serial and unfused, to overlapped and fused",
            ),
        ]  # fmt: skip
    return rows


def _tpu() -> Comparison:
    return _one("TPU v1", "ridge point", 1350, accelerator("tpu-v1").ridge_point, "MACs a weight byte", ISCA)


def _scale_sim() -> list[Comparison]:
    rows, columns = SCALE_SIM_ARRAY
    found = []
    for nest, output, weight in SCALE_SIM_CYCLES:
        what = f"{nest.in_rows}x{nest.in_columns}x{nest.in_channels}, {nest.out_channels} of {nest.filter_rows}x"
        what += f"{nest.filter_columns}"
        folds = -(-nest.out_rows * nest.out_columns // rows) * -(-nest.out_channels // columns)
        at = {flow: int(place(nest, Array(flow, rows, columns)).cycles) for flow in _FLOWS}
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


def _one(chip: str, quantity: str, published: float, ours: float, unit: str, source: str, how: str = "") -> Comparison:
    return Comparison(chip, quantity, published, ours, ours, unit, source, how)
