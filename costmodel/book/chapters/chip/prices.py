"""What a square millimetre buys of each of the three, and what using them takes, node by node."""

from __future__ import annotations

import pandas as pd

from costmodel.book.model import Paragraph, Section, Table
from costmodel.chip.accelerator import Accelerator
from costmodel.chip.technology import technology
from costmodel.units import si

_NODES = ("28nm", "16nm", "7nm")


def price_section(base: Accelerator) -> Section:
    """The three in one currency, and that bandwidth stays as dear as it was."""
    rows = []
    for node in _NODES:
        found = technology(f"{node}+derived")
        rows.append(
            {
                "technology": node,
                "pes": round(1 / found.pe_mm2(base.operand)),
                "macs_per_second": base.clock_hertz / found.pe_mm2(base.operand),
                "buffer_bytes": int(1 / found.sram_mm2(1)),
                "dram_bandwidth": 1 / found.interface_mm2(1.0),
                "mac_joules": found.mac_joules(base.operand, base.accumulator),
                "buffer_joules": found.sram_joules(base.buffer_bytes / base.buffer_banks, 1),
                "dram_joules": found.dram_joules(base.dram, 1),
            }
        )
    oldest = technology(f"{_NODES[0]}+derived")
    mac, byte = oldest.mac_joules(base.operand, base.accumulator), oldest.dram_joules(base.dram, 1)
    element, gigabyte = oldest.pe_mm2(base.operand), oldest.interface_mm2(1e9)
    return Section(
        "What a square millimetre buys",
        (
            Table(
                "chip-prices",
                title=f"One mm², and what a MAC and a byte take ({base.operand}, {si(base.clock_hertz, 'Hz')})",
                frame=pd.DataFrame(rows),
                note="28 nm's areas are those of TPU v1's floor plan, energies are Horowitz' (45 nm) and Jouppi's "
                "(7 nm); the rest is derived from them, as the technologies' files say number by number. An interface "
                "is pads and drivers, which do not shrink with the node.",
                labels={
                    "macs_per_second": "MAC/s",
                    "buffer_bytes": "or SRAM",
                    "dram_bandwidth": "or bandwidth",
                    "mac_joules": "a MAC",
                    "buffer_joules": "a buffer byte",
                    "dram_joules": "a DRAM byte",
                },
            ),
            Paragraph(
                f"At {_NODES[0].removesuffix('nm')} nm a byte from DRAM takes the energy of {byte / mac:,.0f} MACs, "
                f"and the interface for a GB/s the area of {gigabyte / element:,.0f} elements. Each node makes "
                "elements and SRAM cheaper and leaves bandwidth as dear as it was: chips come to be bound by memory by "
                "themselves."
            ),
        ),
    )
