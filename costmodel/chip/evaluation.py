"""Loop nests x Accelerator -> Evaluation: time, energy and area, layer by layer, and what binds each.

    array  = cycles of the mapping / clock                         (`costmodel.chip.mapping`)
    buffer = bytes between buffer and array / what it delivers     (where the file says what that is)
    dram   = least DRAM traffic behind the buffer / bandwidth      (`costmodel.chip.tiling`)

    overlapped = max(array, buffer, dram)                          arithmetic hides traffic perfectly
    serial     = array + dram                                      nothing hides anything

A real chip lies between the two: that is the band. The serial end of a whole network also moves the tensors of the
operations between contractions (`costmodel.chip.unfused`); the overlapped end fuses them.

    energy = MACs x that of one + PE, buffer and DRAM bytes x those of a byte
    area   = PEs + SRAM + the memory's interface + everything else the accelerator's file states

A MAC reads two operands and reads and writes a partial sum in its PE (an adder tree does so once a column). DRAM
traffic passes through the buffer once more. Energy leaves out leakage and the clock tree, area the pads: estimates are
too low by those. All of it assumes the best schedule and tile of each layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from costmodel.chip.accelerator import Accelerator, Which
from costmodel.chip.accelerator import accelerator as find_accelerator
from costmodel.chip.lowering import lower
from costmodel.chip.mapping import NestMapping, map_nest
from costmodel.chip.nests import Nest, Nests
from costmodel.chip.shapes import curve_of
from costmodel.chip.technology import TYPE_BITS, Technology
from costmodel.chip.tiling import Tiling
from costmodel.cost import Costs
from costmodel.errors import InputError
from costmodel.graph import FORWARD, Trace
from costmodel.units import joules, percent, seconds, si
from costmodel.view import Table, sentence

if TYPE_CHECKING:
    import pandas as pd

CONVENTION = (
    "overlapped: arithmetic and DRAM traffic hide each other perfectly; serial: nothing hides anything; every layer "
    "has its best schedule and tile"
)
"""What the two times mean, in one line for tables and plots."""


DRAM_PARTS = ("input_dram_bytes", "weight_dram_bytes", "output_dram_bytes", "partial_dram_bytes")
"""A layer's DRAM traffic by what moves; partial sums both ways."""


class Energy(NamedTuple):
    """Energy by part, in joules. An estimate without leakage and clock tree."""

    mac: float
    """Multiplying and adding."""

    pe: float
    """Registers and scratchpads in the PEs."""

    buffer: float
    dram: float

    @property
    def total(self) -> float:
        """All of them."""
        return sum(self)


class Area(NamedTuple):
    """Area by part, in mm²."""

    pes: float
    """Processing elements, with their scratchpads."""

    sram: float
    """Buffer and other SRAM."""

    interface: float
    """Of the memory."""

    other: float

    @property
    def total(self) -> float:
        """All of them."""
        return sum(self)


@dataclass(frozen=True)
class LayerOnChip:
    """One nest on an accelerator."""

    nest: Nest
    mapping: NestMapping
    tiling: Tiling
    array_seconds: float
    buffer_seconds: float
    dram_seconds: float
    buffer_bytes: int
    """Moved between buffer and array."""

    utilisation: float
    """MACs as a share of what the PEs could do in the array's time."""

    energy: Energy | None

    @property
    def dram_bytes(self) -> int:
        """Moved between chip and memory."""
        return self.tiling.dram_bytes

    @property
    def overlapped_seconds(self) -> float:
        """The longest of the three."""
        return max(self.array_seconds, self.buffer_seconds, self.dram_seconds)

    @property
    def serial_seconds(self) -> float:
        """One after another."""
        return max(self.array_seconds, self.buffer_seconds) + self.dram_seconds

    @property
    def binding(self) -> str:
        """What bounds the overlapped time: "dram", "buffer" or the array.

        The array is "compute" if at least half of the PEs' cycles do a MAC, else "utilisation".
        """
        if self.dram_seconds >= self.overlapped_seconds:
            return "dram"
        if self.buffer_seconds >= self.overlapped_seconds:
            return "buffer"
        return "compute" if self.utilisation >= 0.5 else "utilisation"


@dataclass(frozen=True, repr=False)
class Evaluation:
    """A network on an accelerator."""

    model: str
    accelerator: Accelerator
    layers: tuple[LayerOnChip, ...]
    images: int
    """Samples of one run."""

    unfused_bytes: int = 0
    """DRAM traffic of the operations between contractions, if they are not fused."""

    area: Area | None = None
    """None without a technology."""

    counted_share: float = 1.0
    """The layers' share of the network's MACs; below 1 if a contraction has no loop nest."""

    @cached_property
    def overlapped_seconds(self) -> float:
        """Of a run: the fast end of the band."""
        return sum(layer.overlapped_seconds for layer in self.layers)

    @cached_property
    def serial_seconds(self) -> float:
        """Of a run: the slow end of the band."""
        return sum(layer.serial_seconds for layer in self.layers) + (
            self.unfused_bytes / self.accelerator.dram_bandwidth
        )

    @property
    def frames_per_second(self) -> float:
        """Samples a second at the fast end."""
        return self.images / self.overlapped_seconds

    @property
    def serial_frames_per_second(self) -> float:
        """Samples a second at the slow end."""
        return self.images / self.serial_seconds

    @cached_property
    def dram_bytes(self) -> int:
        """Of all contractions."""
        return sum(layer.dram_bytes for layer in self.layers)

    @cached_property
    def macs(self) -> int:
        """Of all contractions."""
        return sum(layer.nest.macs for layer in self.layers)

    @cached_property
    def utilisation(self) -> float:
        """MACs as a share of what the PEs could do in the overlapped time."""
        return self.macs / (self.accelerator.macs_per_second * self.overlapped_seconds)

    @cached_property
    def energy(self) -> Energy:
        """Of a run. Raises InputError for an accelerator without a technology."""
        if any(layer.energy is None for layer in self.layers):
            raise InputError(f"{self.accelerator.title} names no technology: energy needs one.")
        each = [layer.energy for layer in self.layers if layer.energy is not None]
        return Energy(*(sum(parts) for parts in zip(*each, strict=True)))

    @property
    def joules_per_frame(self) -> float:
        """Energy of a sample."""
        return self.energy.total / self.images

    @property
    def frames_per_joule(self) -> float:
        """Samples a joule: frames a second and watt."""
        return self.images / self.energy.total

    @property
    def watts(self) -> float:
        """Power at the fast end."""
        return self.energy.total / self.overlapped_seconds

    @property
    def frames_per_second_per_mm2(self) -> float:
        """Samples a second and square millimetre at the fast end. Raises InputError without a technology."""
        return self.frames_per_second / self.area_mm2

    @property
    def area_mm2(self) -> float:
        """The whole area. Raises InputError without a technology."""
        if self.area is None:
            raise InputError(f"{self.accelerator.title} names no technology: area needs one.")
        return self.area.total

    def by_binding(self) -> dict[str, float]:
        """Seconds of the overlapped time by what bounds it, the most first."""
        sums: dict[str, float] = {}
        for layer in self.layers:
            sums[layer.binding] = sums.get(layer.binding, 0.0) + layer.overlapped_seconds
        return dict(sorted(sums.items(), key=lambda entry: -entry[1]))

    def table(self) -> Table:
        """One row a nest: its times on the accelerator, what binds it, its traffic and energy; and their sum."""
        rows = [_row(layer) for layer in self.layers]
        title = (
            f"{self.model} on {self.accelerator.title}: {si(self.serial_frames_per_second)} to "
            f"{si(self.frames_per_second)} frames a second{for_share(self.counted_share)}"
        )
        table = Table.of(rows[0], [list(row.values()) for row in rows], title=title, notes=self.notes).summed()
        return table.around(total={**(table.total or {}), "utilisation": self.utilisation})

    def to_frame(self) -> pd.DataFrame:
        """The table as a data frame."""
        return self.table().to_frame()

    @property
    def notes(self) -> tuple[str, ...]:
        """The band, what binds it, energy and area, in sentences."""
        only, whole = for_share(self.counted_share), self.overlapped_seconds
        bound = ", ".join(f"{name} for {percent(part / whole)}" for name, part in self.by_binding().items())
        lines = [
            f"{si(self.serial_frames_per_second)} to {si(self.frames_per_second)} frames a second "
            f"({seconds(self.serial_seconds)} to {seconds(whole)} a run){only}.",
            sentence(CONVENTION),
            f"Bound by {bound} of the overlapped time.",
        ]
        if all(layer.energy is not None for layer in self.layers):
            energy = self.energy
            parts = ", ".join(f"{name} {percent(part / energy.total)}" for name, part in energy._asdict().items())
            lines.append(
                f"{joules(self.joules_per_frame)} a frame ({parts}), {si(self.frames_per_joule)} frames a joule, "
                f"{si(self.watts, 'W')}{only}; without leakage and clock wires, {self.accelerator.technology}."
            )
        if self.area is not None:
            parts = ", ".join(f"{name} {part:.3g}" for name, part in self.area._asdict().items() if part)
            rate = si(self.frames_per_second_per_mm2)
            lines.append(f"{self.area.total:.3g} mm² ({parts}): {rate} frames/s a mm²{only}.")
        return tuple(lines)

    def __repr__(self) -> str:
        return (
            f"<{self.model} on {self.accelerator.title}: {seconds(self.overlapped_seconds)} to "
            f"{seconds(self.serial_seconds)}{for_share(self.counted_share)}>"
        )

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def evaluate(network: Trace | Costs | Nests, accelerator: Which, *, energy: bool = True) -> Evaluation:
    """A network's forward pass on an accelerator, contraction by contraction.

    Args:
        network: a trace, its costs, or loop nests; nests of one kind alone leave out what is between them.
        accelerator: what runs it, or its name or file. Without a technology it has neither energy nor area.
        energy: False leaves it out, as for an operand that the technology has no numbers for.

    Raises InputError for a network without contractions, for an unknown accelerator, for a buffer that holds no tile of
    some layer, and for energy that the technology has no number for.
    """
    chip = find_accelerator(accelerator)
    nests, between, images = contractions(network, chip)
    technology = chip.find_technology() if chip.technology else None
    joules = energy_of(chip, technology) if technology and energy else None
    layers = tuple(_layer(nest, chip, joules) for nest in nests)
    share = nests.macs / nests.known_macs
    return Evaluation(nests.model, chip, layers, images, between, area_of(chip, technology), share)


def contractions(network: Trace | Costs | Nests, accelerator: Accelerator) -> tuple[Nests, int, int]:
    """A forward's nests, the DRAM traffic between them if nothing is fused, and the samples of a run."""
    nests = (network if isinstance(network, Nests) else lower(network)).of_phase(FORWARD)
    return nests, nests.unfused_numel * TYPE_BITS[accelerator.operand] // 8, nests.images


def for_share(share: float) -> str:
    """The suffix of a number that covers a share of a network's MACs; empty if it covers all."""
    if share > 0.9995:  # 100.0 %
        return ""
    return f", counting only {percent(share) if share >= 0.001 else f'{100 * share:.2g} %'} of the MACs"


def area_of(accelerator: Accelerator, technology: Technology | None) -> Area | None:
    """The area of a chip by part; None without a technology. Raises InputError if that has no number for a part."""
    if technology is None:
        return None
    pads = accelerator.pe_bytes if accelerator.scratchpads else 0  # registers are part of the PE's area
    return Area(
        accelerator.pes * (technology.pe_mm2(accelerator.operand) + technology.sram_mm2(pads)),
        technology.sram_mm2(accelerator.buffer_bytes + accelerator.other_sram_bytes),
        technology.interface_mm2(accelerator.dram_bandwidth) if accelerator.memory_interface else 0.0,
        accelerator.other_mm2,
    )


def moved_in_pe_bytes(accelerator: Accelerator) -> float:
    """Bytes that a MAC reads and writes in its PE: two operands, and a partial sum both ways."""
    columns_share = accelerator.rows if accelerator.dataflow == "channel_parallel" else 1
    operand, accumulator = TYPE_BITS[accelerator.operand] / 8, TYPE_BITS[accelerator.accumulator] / 8
    return 2 * operand + 2 * accumulator / columns_share


def moved_in_buffer_bytes(mapping: NestMapping, accelerator: Accelerator) -> Any:
    """Bytes between buffer and array: operands at their width, partial sums at the accumulator's."""
    operand, accumulator = TYPE_BITS[accelerator.operand] // 8, TYPE_BITS[accelerator.accumulator] // 8
    return (mapping.input_words + mapping.weight_words) * operand + mapping.partial_sum_words * accumulator


def energy_of(accelerator: Accelerator, technology: Technology) -> Callable[[int, Any, Any], Energy]:
    """The energy of MACs, bytes between buffer and array, and bytes of DRAM traffic, as a function of the three.

    Raises InputError if the technology has no number for one of them.
    """
    mac = technology.mac_joules(accelerator.operand, accelerator.accumulator)
    element = (
        technology.sram_joules(accelerator.pe_bytes, moved_in_pe_bytes(accelerator)) if accelerator.pe_bytes else 0.0
    )
    buffer = technology.sram_joules(accelerator.buffer_bytes / accelerator.buffer_banks, 1)
    dram = technology.dram_joules(accelerator.dram, 1)
    return lambda macs, buffer_bytes, dram_bytes: Energy(
        macs * mac, macs * element, (buffer_bytes + dram_bytes) * buffer, dram_bytes * dram
    )


def _layer(nest: Nest, chip: Accelerator, joules: Callable[[int, Any, Any], Energy] | None) -> LayerOnChip:
    mapping = map_nest(nest, chip.array)
    tiling = curve_of(nest, chip.widths).at(chip.buffer_bytes)
    moved = int(moved_in_buffer_bytes(mapping, chip))
    cycles = int(mapping.cycles)
    delivered = chip.buffer_bytes_per_cycle
    return LayerOnChip(
        nest,
        mapping,
        tiling,
        cycles / chip.clock_hertz,
        moved / delivered / chip.clock_hertz if delivered else 0.0,
        tiling.dram_bytes / chip.dram_bandwidth,
        moved,
        nest.macs / (cycles * chip.pes),
        joules(nest.macs, moved, tiling.dram_bytes) if joules else None,
    )


def _row(layer: LayerOnChip) -> dict[str, Any]:
    energy = layer.energy
    joules = {f"{name}_joules": getattr(energy, name) for name in Energy._fields} if energy else {}
    return {
        "layer": layer.nest.layer,
        "kind": layer.nest.kind,
        "macs": layer.nest.macs,
        "cycles": int(layer.mapping.cycles),
        "active_pes": layer.mapping.active(layer.nest),
        "utilisation": layer.utilisation,
        "array_seconds": layer.array_seconds,
        "buffer_seconds": layer.buffer_seconds,
        "dram_seconds": layer.dram_seconds,
        "overlapped_seconds": layer.overlapped_seconds,
        "serial_seconds": layer.serial_seconds,
        "binding": layer.binding,
        "delivered_bytes": layer.buffer_bytes,
        "dram_bytes": layer.dram_bytes,
        **{name: getattr(layer.tiling, name.replace("_dram", "")) for name in DRAM_PARTS},
        "schedule": layer.tiling.schedule,
        "tile": tuple(layer.tiling.tile),
        "mapping": layer.mapping.choice,
        **joules,
        **({"joules": energy.total} if energy else {}),
    }
