"""The notes' question to a chip designer: computation against bandwidth against memory on the chip.

The other chapters ask what a network costs on hardware that is there. Here the hardware is what is looked for: what
arithmetic, memory on the chip and an interface to DRAM take in area and energy, and the best division of an area among
them for each network. Chapters on traffic, on designs, on layers and on changes follow, and how far to trust them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from costmodel import plots
from costmodel.book.chapters.chip_changes import changes
from costmodel.book.chapters.chip_designs import designs
from costmodel.book.chapters.chip_layers import layers
from costmodel.book.chapters.chip_study import AREAS, BASE, BUDGET, Designed, design, short_name
from costmodel.book.chapters.chip_trust import trust
from costmodel.book.chapters.traffic import traffic_section
from costmodel.book.engine import Chapter, section
from costmodel.book.model import Figure, Section, Table
from costmodel.book.study import Study, heaviest, same_form
from costmodel.chip.accelerator import Accelerator, accelerator
from costmodel.chip.balance import Balance, balance, ridge_and_mix
from costmodel.chip.technology import DERIVED, technology
from costmodel.view import Column
from costmodel.view import Table as Data

NODES = ("28nm", "16nm", "7nm")


@dataclass(frozen=True)
class Prices:
    """What things take in the oldest of the nodes, and what a square millimetre holds in the newest, as multiples."""

    oldest_nanometres: float
    newest_nanometres: float
    byte_macs: float
    """MACs that take the energy of a byte from DRAM."""

    gigabyte_pes: float
    """PEs that take the area of an interface for a GB/s."""

    pes_ratio: float
    sram_ratio: float
    bandwidth_ratio: float


@dataclass(frozen=True)
class Elasticity:
    """By how many percent a frame's time changes on the base for one percent more of each."""

    pes: float
    bandwidth: float
    buffer: float


@dataclass(frozen=True)
class Division:
    """The best divisions of areas for a network."""

    network: str
    key: str
    """What its table and figure are placed by."""

    interface_share: float
    """Of the budget, as the next one."""

    pes_share: float
    frames_per_second: float
    interface_marginal: float
    """Frames a second that a further square millimetre brings at the budget, as the next one."""

    pes_marginal: float
    pes_ratio: float
    """From the smallest area to the largest, as the next three."""

    bandwidth_ratio: float
    buffer_ratio: float
    speedup: float
    elasticity: Elasticity
    macs_per_byte: float
    """On the base."""

    macs_below_share: float
    """What the layers below the base's ridge point have of the MACs, and of the bytes."""

    bytes_below_share: float


@dataclass(frozen=True)
class Larger:
    """What a larger batch does for the first network, where it has fully connected layers."""

    network: str
    fc_share: float
    """What they have of the bytes that no buffer saves."""

    change: str
    speedup: float


@dataclass(frozen=True)
class Mix:
    """One chip for all of them, each as often as the others."""

    pes: int
    buffer_bytes: int
    bytes_per_second: float
    between: bool
    """Whether it has more PEs than one of the networks' own chips and fewer than another's."""

    own_pes: tuple[int, ...]


@dataclass(frozen=True)
class Base:
    """The accelerator that designs start from."""

    name: str
    rows: int
    columns: int
    buffer_bytes: int
    bytes_per_second: float
    ridge_macs_per_byte: float


@dataclass(frozen=True)
class Numbers:
    """The best divisions of areas."""

    budget_mm2: float
    smallest_mm2: float
    largest_mm2: float
    technology: str
    node_nanometres: float
    derived: bool
    operand: str
    clock_hertz: float
    prices: Prices
    base: Base
    divisions: tuple[Division, ...]
    larger: Larger | None
    mix: Mix | None
    """None for a single network."""


def chip_chapter(studies: Sequence[Study]) -> Section:
    """The chapters for the first network and the heaviest of its form; without blocks if neither has contractions."""
    base, form = accelerator(BASE), same_form(studies)
    pair = dict.fromkeys((form[0], heaviest(form)))
    designed = [found for study in pair if (found := design(study, base)) is not None]
    if not designed:
        return Section("", ())
    following = [designs(designed, base), layers(designed, base), changes(designed), trust()]
    return section(chip(designed, base), [traffic_section(studies), *map(section, following)])


def chip(designed: Sequence[Designed], base: Accelerator) -> Chapter:
    """What an area is best divided into."""
    tables = {"prices": Table("chip-prices", _prices_table(base))}
    tables |= {each.study.slug: Table(f"{each.study.slug}-balance", _divisions_table(each)) for each in designed}
    mixed = _mixed(designed, base)
    if mixed:
        tables["mix"] = Table("chip-mix", _mixed_table(mixed))
    return Chapter("chip", numbers(designed, base, mixed), tables, dict(_figures(designed, base)))


def numbers(designed: Sequence[Designed], base: Accelerator, mixed: Sequence[Balance]) -> Numbers:
    """The chapter's numbers."""
    return Numbers(
        budget_mm2=BUDGET,
        smallest_mm2=AREAS[0],
        largest_mm2=AREAS[-1],
        technology=base.technology,
        node_nanometres=base.find_technology().node_nanometres,
        derived=base.technology.endswith(DERIVED),
        operand=base.operand,
        clock_hertz=base.clock_hertz,
        prices=_prices(base),
        base=Base(short_name(base), base.rows, base.columns, base.buffer_bytes, base.dram_bandwidth, base.ridge_point),
        divisions=tuple(_division(each, base) for each in designed),
        larger=_larger(designed[0]),
        mix=_mix(designed, mixed[AREAS.index(BUDGET)]) if mixed else None,
    )


def _prices(base: Accelerator) -> Prices:
    oldest, newest = (technology(f"{node}{DERIVED}") for node in (NODES[0], NODES[-1]))
    return Prices(
        oldest_nanometres=oldest.node_nanometres,
        newest_nanometres=newest.node_nanometres,
        byte_macs=oldest.dram_joules(base.dram, 1) / oldest.mac_joules(base.operand, base.accumulator),
        gigabyte_pes=oldest.interface_mm2(1e9) / oldest.pe_mm2(base.operand),
        pes_ratio=oldest.pe_mm2(base.operand) / newest.pe_mm2(base.operand),
        sram_ratio=oldest.sram_mm2(1) / newest.sram_mm2(1),
        bandwidth_ratio=oldest.interface_mm2(1) / newest.interface_mm2(1),
    )


def _division(each: Designed, base: Accelerator) -> Division:
    best, small, large = each.at_budget, each.balances[0], each.balances[-1]
    below = ridge_and_mix(each.nests, base)
    return Division(
        network=each.study.title,
        key=each.study.slug,
        interface_share=best.interface_mm2 / best.area_mm2,
        pes_share=best.pes_mm2 / best.area_mm2,
        frames_per_second=best.frames_per_second,
        interface_marginal=best.marginals.interface_mm2 or 0.0,
        pes_marginal=best.marginals.pes_mm2,
        pes_ratio=large.pes / small.pes,
        bandwidth_ratio=large.dram_bandwidth / small.dram_bandwidth,
        buffer_ratio=large.buffer_bytes / small.buffer_bytes,
        speedup=large.frames_per_second / small.frames_per_second,
        elasticity=Elasticity(each.elasticities.pes, each.elasticities.bandwidth, each.elasticities.sram),
        macs_per_byte=below.intensity,
        macs_below_share=below.macs_below,
        bytes_below_share=below.traffic_below,
    )


def _larger(first: Designed) -> Larger | None:
    """What moves most bytes, and what would help more than dividing the area."""
    if not any(nest.kind == "linear" for nest in first.nests):
        return None
    batch = first.what_ifs.outcomes[1]
    share = first.curves.only("linear").compulsory_bytes / first.curves.compulsory_bytes
    return Larger(first.study.title, share, batch.change, batch.speedup)


def _mixed(designed: Sequence[Designed], base: Accelerator) -> list[Balance]:
    """The best division of each area for all networks; empty for a single one."""
    if len(designed) < 2:
        return []
    ideal = base.replace(dataflow="ideal", title=base.title)
    return [balance({each.study.name: each.nests for each in designed}, ideal, area) for area in AREAS]


def _mix(designed: Sequence[Designed], best: Balance) -> Mix:
    own = [each.at_budget.pes for each in designed]
    between = min(own) < best.pes < max(own)
    return Mix(round(best.pes), best.buffer_bytes, best.dram_bandwidth, between, tuple(map(round, own)))


def _figures(designed: Sequence[Designed], base: Accelerator) -> Iterator[tuple[str, Figure]]:
    ideal = base.replace(dataflow="ideal", title=base.title)
    for each in designed:
        title = f"{each.study.short}, one image at a time"
        yield (
            each.study.slug,
            Figure(
                f"{each.study.slug}-iso-throughput",
                lambda each=each, title=title: plots.iso_throughput(each.nests, ideal, each.balances, title=title),  # type: ignore[misc]
            ),
        )


_PRICES = (
    "technology",
    Column("pes", "PEs", "count", "processing elements that a square millimetre holds"),
    Column("macs_per_second", "MAC/s", "macs", "multiply-accumulates a second that they do"),
    Column("buffer_bytes", "or SRAM", "bytes", "bytes of SRAM that it holds"),
    Column("dram_bandwidth", "or bandwidth", "bytes_per_second", "bandwidth whose interface it holds"),
    Column("mac_joules", "a MAC", "joules", "energy of a multiply-accumulate"),
    Column("buffer_joules", "a buffer byte", "joules", "energy of a byte from the base's buffer"),
    Column("dram_joules", "a DRAM byte", "joules", "energy of a byte from DRAM"),
)


def _prices_table(base: Accelerator) -> Data:
    return Data.of(
        _PRICES,
        [
            (
                node,
                round(1 / found.pe_mm2(base.operand)),
                base.clock_hertz / found.pe_mm2(base.operand),
                int(1 / found.sram_mm2(1)),
                1 / found.interface_mm2(1.0),
                found.mac_joules(base.operand, base.accumulator),
                found.sram_joules(base.buffer_bytes / base.buffer_banks, 1),
                found.dram_joules(base.dram, 1),
            )
            for node, found in ((node, technology(f"{node}{DERIVED}")) for node in NODES)
        ],
    )


_DIVISIONS = (
    "area_mm2",
    Column("pes", "PEs", "count", "processing elements"),
    Column("pes_share", "area of PEs", "percent", "what the processing elements have of the area"),
    "buffer_bytes",
    Column("sram_share", "area of buffer", "percent", "what the buffer has of the area"),
    "dram_bandwidth",
    Column("interface_share", "area of interface", "percent", "what the memory's interface has of the area"),
    "frames_per_second", "ridge_point", "pes_marginal", "sram_marginal", "interface_marginal",
)  # fmt: skip


def _divisions_table(each: Designed) -> Data:
    return Data.of(
        _DIVISIONS,
        [
            (
                best.area_mm2, round(best.pes), best.pes_mm2 / best.area_mm2, best.buffer_bytes,
                best.sram_mm2 / best.area_mm2, best.dram_bandwidth, best.interface_mm2 / best.area_mm2,
                best.frames_per_second, best.ridge_point, best.marginals.pes_mm2, best.marginals.sram_mm2,
                best.marginals.interface_mm2,
            )
            for best in each.balances
        ],
    )  # fmt: skip


_MIXED = ("area_mm2", _DIVISIONS[1], "buffer_bytes", "dram_bandwidth", "ridge_point", "frames_per_second")


def _mixed_table(mixed: Sequence[Balance]) -> Data:
    rows = (
        (
            best.area_mm2,
            round(best.pes),
            best.buffer_bytes,
            best.dram_bandwidth,
            best.ridge_point,
            best.frames_per_second,
        )
        for best in mixed
    )
    return Data.of(_MIXED, rows)
