"""One network on every design of a space: a piece of an exploration, which any process can compute alone.

A layer's time on a design is max(cycles / clock, DRAM bytes / bandwidth). Cycles depend on the array alone and the
traffic on buffer and width alone, so both are computed once for each (a row-stationary array's cycles depend on the
buffer too) and combined by broadcasting. Every number is the one that `costmodel.chip.evaluation` gives for that
design.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from costmodel.chip.accelerator import Accelerator
from costmodel.chip.evaluation import area_of, energy_of, moved_in_buffer_bytes
from costmodel.chip.mapping import NestMapping, map_nest
from costmodel.chip.nests import Nest, Nests
from costmodel.chip.shapes import curve_of, shape_of
from costmodel.chip.space import Space, variant, with_buffer
from costmodel.chip.technology import TYPE_BITS
from costmodel.errors import InputError
from costmodel.graph import FORWARD

Floats = npt.NDArray[np.float64]


class DistinctNests(NamedTuple):
    """A network's distinct nests, how often each occurs, and the elements moved between them."""

    nests: tuple[Nest, ...]
    counts: tuple[int, ...]
    images: int
    unfused_numel: int


class Piece(NamedTuple):
    """A part of a sweep."""

    work: DistinctNests
    space: Space
    operand: str
    dataflow: str


class SweepResult(NamedTuple):
    """A piece's results, per frame: arrays of (arrays, buffers, bandwidths, clocks); energy without the last two."""

    overlapped: Floats
    serial: Floats
    dram_bytes: Floats
    joules: Floats | None
    area: Floats | None


def work_of(nests: Nests) -> DistinctNests:
    """The forward of a network, each distinct nest once."""
    forward = nests.of_phase(FORWARD)
    shapes = Counter(map(shape_of, forward))
    return DistinctNests(tuple(shapes), tuple(shapes.values()), forward.images, forward.unfused_numel)


def run(piece: Piece) -> SweepResult:
    """Compute a piece."""
    work, space, operand, flow = piece
    chip = variant(space.base, operand, flow)
    technology = chip.find_technology() if chip.technology else None
    sides = np.array(space.arrays, dtype=np.int64)
    buffers = np.array(space.buffers, dtype=np.int64)
    bandwidths, clocks = np.array(space.bandwidths), np.array(space.clocks)
    # Axes: arrays, buffers, bandwidths, clocks. Cycles have the first two alone, traffic the second and third.
    shape = (len(sides), len(buffers), len(bandwidths), len(clocks))
    overlapped, array_time = np.zeros(shape), np.zeros((len(sides), len(buffers), 1, len(clocks)))
    traffic, moved = np.zeros(len(buffers)), np.zeros((len(sides), len(buffers)))
    for nest, times in zip(work.nests, work.counts, strict=True):
        dram = _dram_bytes(nest, chip, buffers)
        cycles, words = _cycles(nest, chip, sides, buffers)
        seconds = cycles[:, :, None, None] / clocks
        if chip.buffer_bytes_per_cycle:
            delivery = words[:, :, None, None] / chip.buffer_bytes_per_cycle / clocks
            seconds = np.maximum(seconds, delivery)
        overlapped += times * np.maximum(seconds, (dram[:, None] / bandwidths)[None, :, :, None])
        array_time += times * seconds
        traffic += times * dram
        moved += times * words
    frames = work.images
    between = work.unfused_numel * TYPE_BITS[operand] // 8
    serial = array_time + ((traffic + between)[:, None] / bandwidths)[None, :, :, None]
    joules = None
    area = None
    if technology is not None:
        macs = sum(nest.macs * times for nest, times in zip(work.nests, work.counts, strict=True))
        pe_energies = [
            energy_of(chip.replace(rows=rows, columns=columns), technology)(macs, 0, 0).total
            for rows, columns in sides.tolist()
        ]
        memories = [
            energy_of(with_buffer(chip, size), technology)(0, moved[:, index], traffic[index]).total
            for index, size in enumerate(buffers.tolist())
        ]
        joules = (np.array(pe_energies)[:, None] + np.stack(memories, axis=1)) / frames
        # Area is a sum of parts that depend on one axis each: add their differences from the base.
        parts = [_area(chip, technology, rows=int(rows), columns=int(columns)) for rows, columns in sides]
        sram = np.array([_area(with_buffer(chip, size), technology) for size in buffers.tolist()])
        interface = np.array([_area(chip, technology, dram_bandwidth=rate) for rate in bandwidths.tolist()])
        own = _area(chip, technology)
        area = np.array(parts)[:, None, None] + (sram - own)[:, None] + (interface - own)
    return SweepResult(overlapped / frames, serial / frames, traffic / frames, joules, area)


def _area(chip: Accelerator, technology: Any, **changes: Any) -> float:
    area = area_of(chip.replace(**changes), technology)
    return area.total if area else 0.0


def _dram_bytes(nest: Nest, chip: Accelerator, buffers: npt.NDArray[np.int64]) -> Floats:
    """The least traffic behind each buffer; NaN where it holds no tile."""
    curve = curve_of(nest, chip.widths)
    fits = buffers >= curve.smallest_buffer_bytes
    traffic = np.full(len(buffers), np.nan)
    if fits.any():
        traffic[fits] = curve.dram_bytes(buffers[fits])
    return traffic


def _cycles(
    nest: Nest, chip: Accelerator, sides: npt.NDArray[np.int64], buffers: npt.NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Cycles, and bytes between buffer and array: (arrays, buffers)."""
    shape = (len(sides), len(buffers))
    if chip.dataflow != "row_stationary":
        mapping = map_nest(nest, chip.array._replace(rows=sides[:, 0], columns=sides[:, 1]))
        words = moved_in_buffer_bytes(mapping, chip)
        return (
            np.broadcast_to(np.asarray(mapping.cycles, dtype=float)[:, None], shape),
            np.broadcast_to(np.asarray(words, dtype=float)[:, None], shape),
        )
    cycles, words = np.full(shape, np.nan), np.full(shape, np.nan)
    ascending = np.argsort(buffers)
    for i, (rows, columns) in enumerate(sides.tolist()):
        array = chip.replace(rows=rows, columns=columns)
        for j, fastest in zip(ascending, _mappings(nest, array, buffers[ascending].tolist()), strict=True):
            if fastest is not None:
                cycles[i, j], words[i, j] = fastest.cycles, moved_in_buffer_bytes(fastest, chip)
    return cycles, words


def _mappings(nest: Nest, chip: Accelerator, buffers: list[int]) -> list[NestMapping | None]:
    """A nest's mapping with each of some buffers, the smallest first; None where no pass fits.

    More buffer never makes a mapping slower: where two buffers have the same one, those between have it too.
    """
    mappings: list[NestMapping | None] = [None] * len(buffers)

    def between(low: int, high: int) -> None:
        if mappings[low] == mappings[high]:
            mappings[low:high] = [mappings[low]] * (high - low)
        elif high - low > 1:
            middle = (low + high) // 2
            mappings[middle] = _mapping(nest, with_buffer(chip, buffers[middle]))
            between(low, middle)
            between(middle, high)

    for end in (0, -1):
        mappings[end] = _mapping(nest, with_buffer(chip, buffers[end]))
    between(0, len(buffers) - 1)
    return mappings


def _mapping(nest: Nest, chip: Accelerator) -> NestMapping | None:
    try:
        return map_nest(nest, chip.array)
    except InputError:  # no pass fits in this buffer
        return None
