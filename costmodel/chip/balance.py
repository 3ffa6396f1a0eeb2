"""The designer's questions: what do more compute, memory or bandwidth bring, and how is an area best divided?

A frame takes the sum over its layers of max(array, DRAM): array time falls as 1 / PEs (at the utilisation that the
array has), DRAM time as 1 / bandwidth and, step by step, with the buffer. So

    elasticity to PEs       = d ln(time) / d ln(PEs) = - share of the time that the array bounds
    elasticity to bandwidth = - share of the time that DRAM bounds
    elasticity to SRAM      = d ln(time) / d ln(buffer), across a fourth root of 2 both ways: traffic is a staircase

The first two sum to -1 on any design: twice both is twice as fast. A design is balanced for an area when no square
millimetre would do more for the frame rate elsewhere: the marginal frames/s a mm² of PEs, SRAM and bandwidth are then
equal, unless a layer stands just between array and DRAM (it loses by less of either and gains by more of neither).
`balance` finds it by trying divisions of the area, and finer ones around the best. Where the memory's interface is not
the chip's (`memory_interface = false`), bandwidth takes no area, and stays what it is.

The array's time is that behind the design's own buffer, though a row-stationary mapping may gain by a larger one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from costmodel.chip.accelerator import Accelerator, Which, accelerator
from costmodel.chip.layer_demand import mapped_layer_demand
from costmodel.chip.nests import Nest, Nests, by_name, check_weights
from costmodel.chip.shapes import curve_of
from costmodel.chip.technology import Technology
from costmodel.chip.tiling import Curve
from costmodel.errors import InputError
from costmodel.graph import FORWARD
from costmodel.units import iec, si
from costmodel.view import Table

Floats = npt.NDArray[np.float64]
Networks = Nests | Mapping[str, Nests]

STEP = 2**0.25
"""Across how much of the buffer, both ways, its elasticity is taken."""

MARGIN = 1e-4
"""The step of marginal values in PEs and bandwidth, a ten-thousandth; for the buffer it is STEP."""


class Frame(NamedTuple):
    """The layers of a frame: one sample of a network, or the average one of a mix."""

    nests: tuple[Nest, ...]
    times: tuple[float, ...]
    """How often each runs in a frame; less than once where a run is a batch, or the network one of several."""


def frame_of(networks: Networks, weights: Mapping[str, float] | None = None) -> Frame:
    """One frame of a network, or the average one of several, which run as often as `weights` say (equally if None).

    Raises InputError for a weight of an unknown network, or one that is not positive.
    """
    named = by_name(networks)
    shares = dict(weights) if weights is not None else dict.fromkeys(named, 1.0)
    check_weights(shares, named)
    whole = sum(shares.values())
    times: dict[Nest, float] = {}
    for name, weight in shares.items():
        forward = named[name].of_phase(FORWARD)
        for nest in forward:
            times[nest] = times.get(nest, 0.0) + weight / whole / forward.images
    return Frame(tuple(times), tuple(times.values()))


class Elasticities(NamedTuple):
    """By how many percent a frame's overlapped time changes for one percent more of each."""

    pes: float
    bandwidth: float
    sram: float


class Marginals(NamedTuple):
    """Marginal frames a second of each resource, everything else unchanged."""

    pes_mm2: float
    """Per further mm² of processing elements."""

    sram_mm2: float
    """Per further mm² of buffer."""

    bandwidth: float
    """Per further GB/s (1e9 bytes/s)."""

    interface_mm2: float | None
    """Per further mm² of the memory's interface, which is bandwidth too; None if it takes no chip area."""


@dataclass(frozen=True)
class Balance:
    """How an area is best divided for a frame."""

    technology: str
    operand: str
    pes: float
    """Processing elements; not a whole number, as the optimum is not."""

    buffer_bytes: int
    dram_bandwidth: float
    clock_hertz: float
    frames_per_second: float
    pes_mm2: float
    sram_mm2: float
    interface_mm2: float
    other_mm2: float
    marginals: Marginals

    @property
    def area_mm2(self) -> float:
        """The whole of it."""
        return self.pes_mm2 + self.sram_mm2 + self.interface_mm2 + self.other_mm2

    @property
    def ridge_point(self) -> float:
        """MACs a byte at which arithmetic and memory take equally long."""
        return self.pes * self.clock_hertz / self.dram_bandwidth

    def __repr__(self) -> str:
        return (
            f"<Balance of {self.area_mm2:.3g} mm²: {self.pes:,.0f} PEs, {iec(self.buffer_bytes)}, "
            f"{si(self.dram_bandwidth, 'B/s')}: {si(self.frames_per_second)} frames a second>"
        )

    def table(self) -> Table:
        """How the area is divided, and what more of each would bring."""
        area = self.area_mm2
        rows = [
            ("pes", f"{self.pes:,.0f}", self.pes_mm2 / area, self.marginals.pes_mm2),
            ("buffer", iec(self.buffer_bytes), self.sram_mm2 / area, self.marginals.sram_mm2),
            ("bandwidth", si(self.dram_bandwidth, "B/s"), self.interface_mm2 / area, self.marginals.interface_mm2),
        ]
        title = f"{area:.3g} mm², balanced: {si(self.frames_per_second)} frames a second"
        return Table.of(("part", "amount", "area_share", "marginal"), rows, title=title)

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def elasticities(networks: Networks, chip: Which, weights: Mapping[str, float] | None = None) -> Elasticities:
    """How a frame's overlapped time depends on a design's resources. Raises InputError where `evaluate` does."""
    chip = accelerator(chip)
    times = _Times(frame_of(networks, weights), chip)
    buffers = np.array([chip.buffer_bytes / STEP, chip.buffer_bytes, chip.buffer_bytes * STEP])
    dram = times.traffic(buffers) / chip.dram_bandwidth
    whole = times.overlapped(1.0, dram)
    by_array = times.times * np.where(times.array > dram[:, 1], times.array, 0.0)
    share = float(by_array.sum() / whole[1])
    return Elasticities(0.0 - share, share - 1, float(np.log(whole[2] / whole[0]) / (2 * np.log(STEP))))


def marginals(networks: Networks, chip: Which, weights: Mapping[str, float] | None = None) -> Marginals:
    """What more area or bandwidth brings on a design. Raises InputError where `evaluate` does, or without areas."""
    chip = accelerator(chip)
    technology = chip.find_technology()
    times = _Times(frame_of(networks, weights), chip)
    per_pe = _pe_mm2(chip, technology)
    return _marginals(times, chip, technology, chip.pes, per_pe, chip.buffer_bytes, chip.dram_bandwidth)


def balance(networks: Networks, base: Which, area_mm2: float, weights: Mapping[str, float] | None = None) -> Balance:
    """The best division of an area into PEs, buffer and bandwidth, for the overlapped time of a frame.

    Everything else is the base's: technology, clock, types, the utilisation that its array has on each layer (an ideal
    one wastes nothing), and the bandwidth if the chip has no memory interface. Raises InputError for an area that holds
    nothing, with the least that is needed.
    """
    base = accelerator(base)
    technology = base.find_technology()
    times = _Times(frame_of(networks, weights), base)
    per_pe, per_byte = _pe_mm2(base, technology), technology.sram_mm2(1)
    per_bandwidth = technology.interface_mm2(1.0) if base.memory_interface else 0.0
    fixed = base.other_mm2 + technology.sram_mm2(base.other_sram_bytes)
    smallest = max(curve.smallest_buffer_bytes for curve in times.curves)
    free = area_mm2 - fixed
    if not free > smallest * per_byte + per_pe:
        raise InputError(
            f"{area_mm2:g} mm² hold no design: one PE, {smallest:,} bytes of buffer and the rest take "
            f"{fixed + smallest * per_byte + per_pe:.3g} mm²."
        )
    low, high = np.log(smallest), np.log((free - per_pe) / per_byte * 0.95)
    least, most = (1e-4, 1 - 1e-4) if per_bandwidth else (1.0, 1.0)  # of what the buffer leaves, for PEs
    left, right = least, most
    for _ in range(4):
        buffers = np.exp(np.linspace(low, max(low, high), 65))
        shares = np.linspace(left, right, 129)
        rest = free - buffers * per_byte
        pes = rest[:, None] * shares / per_pe
        bandwidth = np.full_like(pes, base.dram_bandwidth)
        if per_bandwidth:
            bandwidth = rest[:, None] * (1 - shares) / per_bandwidth
        dram = times.traffic(buffers)
        scale = base.pes / pes
        seconds = sum(
            count * np.maximum(array * scale, traffic[:, None] / bandwidth)
            for count, array, traffic in zip(times.times, times.array, dram, strict=True)
        )
        i, j = np.unravel_index(np.argmin(seconds), seconds.shape)
        span, width = (max(low, high) - low) / 16, (right - left) / 16
        low, high = np.log(buffers[i]) - span, np.log(buffers[i]) + span
        low, high = max(low, np.log(smallest)), min(high, np.log((free - per_pe) / per_byte * 0.99))
        left, right = max(shares[j] - width, least), min(shares[j] + width, most)
        best = float(seconds[i, j]), float(pes[i, j]), int(buffers[i]), float(bandwidth[i, j])
    time, count, size, rate = best
    return Balance(
        technology=base.technology,
        operand=base.operand,
        pes=count,
        buffer_bytes=size,
        dram_bandwidth=rate,
        clock_hertz=base.clock_hertz,
        frames_per_second=1 / time,
        pes_mm2=count * per_pe,
        sram_mm2=size * per_byte,
        interface_mm2=rate * per_bandwidth,
        other_mm2=fixed,
        marginals=_marginals(times, base, technology, count, per_pe, size, rate),
    )


def frame_seconds(
    networks: Networks,
    base: Accelerator,
    pes: Floats,
    buffer_bytes: int,
    bandwidths: Floats,
    weights: Mapping[str, float] | None = None,
) -> Floats:
    """Overlapped time of a frame for numbers of PEs and bandwidths that broadcast, behind one buffer."""
    times = _Times(frame_of(networks, weights), base)
    dram = times.traffic(np.array([buffer_bytes]))[:, 0]
    total: Floats = sum(
        count * np.maximum(array * (base.pes / pes), traffic / bandwidths)
        for count, array, traffic in zip(times.times, times.array, dram, strict=True)
    )  # type: ignore[assignment]
    return total


class Mix(NamedTuple):
    """Where a frame's layers lie relative to a design's ridge point."""

    ridge_point: float
    """MACs a byte at which arithmetic and memory take equally long."""

    intensity: float
    """MACs a byte of DRAM traffic, of the whole frame."""

    macs_below: float
    """Share of the MACs in layers whose intensity is below the ridge point: memory bounds them if no PE idles."""

    traffic_below: float
    """Share of the traffic in those layers."""


def ridge_and_mix(networks: Networks, chip: Which, weights: Mapping[str, float] | None = None) -> Mix:
    """The ridge point of a design against the intensities of a frame's layers behind its buffer."""
    chip = accelerator(chip)
    frame = frame_of(networks, weights)
    traffic = np.array([float(curve_of(nest, chip.widths).dram_bytes(chip.buffer_bytes)) for nest in frame.nests])
    macs, times = np.array([float(nest.macs) for nest in frame.nests]), np.array(frame.times)
    below = macs / traffic < chip.ridge_point
    total_macs, total_traffic = float((macs * times).sum()), float((traffic * times).sum())
    return Mix(
        chip.ridge_point,
        total_macs / total_traffic,
        float((macs * times)[below].sum()) / total_macs,
        float((traffic * times)[below].sum()) / total_traffic,
    )


class _Times:
    """A frame's layers on a chip: array time each, and traffic behind any buffer."""

    def __init__(self, frame: Frame, chip: Accelerator) -> None:
        self.times = np.array(frame.times)
        self.curves: list[Curve] = [curve_of(nest, chip.widths) for nest in frame.nests]
        self.array = np.array([mapped_layer_demand(nest, chip, dram_bytes=0).array_seconds for nest in frame.nests])

    def traffic(self, buffers: Floats) -> Floats:
        """Bytes of each layer behind each buffer; where one is too small, behind the smallest that holds a tile."""
        rows = [
            curve.dram_bytes(np.maximum(buffers.astype(np.int64), curve.smallest_buffer_bytes)) for curve in self.curves
        ]
        return np.array(rows, dtype=float)

    def overlapped(self, scale: float, dram: Floats) -> Floats:
        """Seconds of a frame for arrays `scale` times as slow, and the layers' DRAM times."""
        return np.sum(self.times[:, None] * np.maximum(self.array[:, None] * scale, dram), axis=0)


def _marginals(
    times: _Times,
    chip: Accelerator,
    technology: Technology,
    pes: float,
    per_pe: float,
    buffer_bytes: float,
    bandwidth: float,
) -> Marginals:
    """The gain in frames/s from a small step in each resource, per mm² or GB/s of the step."""

    def rate(count: float, size: float, bytes_per_second: float) -> float:
        dram = times.traffic(np.array([size])) / bytes_per_second
        return 1 / float(times.overlapped(chip.pes / count, dram)[0])

    here = rate(pes, buffer_bytes, bandwidth)
    more_bandwidth = rate(pes, buffer_bytes, bandwidth * (1 + MARGIN)) - here
    return Marginals(
        (rate(pes * (1 + MARGIN), buffer_bytes, bandwidth) - here) / (pes * MARGIN * per_pe),
        (rate(pes, buffer_bytes * STEP, bandwidth) - here) / technology.sram_mm2(buffer_bytes * (STEP - 1)),
        more_bandwidth / (bandwidth * MARGIN / 1e9),
        more_bandwidth / technology.interface_mm2(bandwidth * MARGIN) if chip.memory_interface else None,
    )


def _pe_mm2(chip: Accelerator, technology: Technology) -> float:
    """Area of a PE with its scratchpads."""
    pads = technology.sram_mm2(chip.pe_bytes) if chip.scratchpads else 0.0
    return technology.pe_mm2(chip.operand) + pads
