"""Many designs at once: every combination of arrays, buffers, bandwidths, widths and clocks, for several networks.

A layer's time on a design is max(cycles / clock, DRAM bytes / bandwidth). Cycles depend on the array alone and the
traffic on buffer and width alone, so both are worked out once for each (a row-stationary array's cycles depend on the
buffer too) and combined by broadcasting: a million designs and networks take about a second. Every number is the one
that `costmodel.chip.evaluation` gives for that design.

A sweep is cut into pieces, one for each network, operand and dataflow, and array rows where that leaves too few; any
`concurrent.futures` executor runs them: `executor=client.get_executor()` is how Dask's cluster does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from costmodel.chip.accelerator import Accelerator
from costmodel.chip.evaluation import area_of, energy_of, moved_in_buffer_bytes
from costmodel.chip.mapping import DATAFLOWS, Array, Mapped, place
from costmodel.chip.nests import Nest, Nests
from costmodel.chip.pareto import pareto
from costmodel.chip.shapes import curve_of, shape_of
from costmodel.display import html_table
from costmodel.errors import InputError, nearest
from costmodel.graph import FORWARD
from costmodel.units import si

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.float64]

MIX = "mix"
"""The network that a weighted mix is called."""

_SIDES = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_DEFAULT_DATAFLOWS = ("weight_stationary", "output_stationary", "channel_parallel")


@dataclass(frozen=True)
class Space:
    """Designs to try: each combination of these, everything else as in `base`. Raises InputError for an empty axis."""

    base: Accelerator
    """Where the technology, the kind of memory and all that is not varied come from."""

    arrays: tuple[tuple[int, int], ...] = tuple(product(_SIDES, _SIDES))
    """Rows and columns."""

    dataflows: tuple[str, ...] = _DEFAULT_DATAFLOWS
    buffers: tuple[int, ...] = tuple(round(2**exponent) for exponent in np.arange(15, 23.5, 0.5))
    """Bytes."""

    bandwidths: tuple[float, ...] = tuple(1e9 * 2**exponent for exponent in np.arange(0, 6.25, 0.25))
    """Bytes/s."""

    operands: tuple[str, ...] = ()
    """Types; the base's own if none is given."""

    clocks: tuple[float, ...] = (0.5e9, 0.7e9, 1.0e9)
    """Hz."""

    def __post_init__(self) -> None:
        if not self.operands:
            object.__setattr__(self, "operands", (self.base.operand,))
        for name in ("arrays", "dataflows", "buffers", "bandwidths", "clocks"):
            if not getattr(self, name):
                raise InputError(f"a design space needs at least one of its {name}.")
        for flow in self.dataflows:
            if flow not in DATAFLOWS:
                hint = nearest(flow, DATAFLOWS) or f" Use {', '.join(DATAFLOWS)}."
                raise InputError(f"unknown dataflow {flow!r}.{hint}")
        for number in (
            *self.buffers,
            *self.bandwidths,
            *self.clocks,
            *(side for sides in self.arrays for side in sides),
        ):
            if not number > 0 or not np.isfinite(number):
                raise InputError(
                    f"{number!r} cannot be a size, a bandwidth or a clock of a design: give a positive one."
                )

    def __len__(self) -> int:
        axes = (self.arrays, self.dataflows, self.buffers, self.bandwidths, self.operands, self.clocks)
        return int(np.prod([len(axis) for axis in axes]))

    def design(self, row: Any) -> Accelerator:
        """The accelerator of a row of an exploration's frame."""
        return _variant(self.base, str(row["operand"]), str(row["dataflow"])).replace(
            title="a design",
            rows=int(row["rows"]),
            columns=int(row["columns"]),
            buffer_bytes=int(row["buffer_bytes"]),
            dram_bandwidth=float(row["dram_bandwidth"]),
            clock_hertz=float(row["clock_hertz"]),
        )


@dataclass(frozen=True, repr=False)
class Exploration:
    """What a sweep found: one row a design and network, those within the budgets only."""

    space: Space
    frame: pd.DataFrame
    tried: int
    """Points that were worked out, within the budgets or not."""

    budgets: Mapping[str, float] = field(default_factory=dict)
    """The most that a column may be: "area_mm2", "watts"."""

    @cached_property
    def networks(self) -> tuple[str, ...]:
        """The networks, with the mix if there is one."""
        return tuple(str(name) for name in self.frame["network"].cat.categories)

    def of(self, network: str) -> pd.DataFrame:
        """The rows of one network. Raises InputError for one that was not tried."""
        if network not in self.networks:
            raise InputError(f"{network!r} was not explored: {', '.join(self.networks)} were.")
        return self.frame[self.frame["network"] == network]

    def pareto(
        self,
        network: str,
        maximise: Sequence[str] = ("frames_per_second",),
        minimise: Sequence[str] = ("area_mm2",),
    ) -> pd.DataFrame:
        """The designs that none beats in the given columns, sorted by the first that is to be least."""
        rows = self.of(network)
        for name in (*maximise, *minimise):
            if name not in rows.columns:
                raise InputError(f"an exploration has no column {name!r}.{nearest(name, map(str, rows.columns))}")
        costs = np.stack([*(-rows[name] for name in maximise), *(rows[name] for name in minimise)], axis=1)
        return rows[pareto(costs)].sort_values(list(minimise or maximise))

    def best(self, network: str, column: str = "frames_per_second") -> pd.Series[Any]:
        """The design with the most of a column; of equals the smallest, then the one of least power."""
        rows = self.of(network)
        if column not in rows.columns:
            raise InputError(f"an exploration has no column {column!r}.{nearest(column, map(str, rows.columns))}")
        order = [column, *(name for name in ("area_mm2", "watts") if name in rows.columns and name != column)]
        return rows.sort_values(order, ascending=[False] + [True] * (len(order) - 1), kind="stable").iloc[0]

    def to_frame(self) -> pd.DataFrame:
        """One row a design and network, in base units."""
        return self.frame

    def __repr__(self) -> str:
        return f"<Exploration of {', '.join(self.networks)}: {len(self.frame):,} of {self.tried:,} points>"

    def _repr_html_(self) -> str:
        columns = [
            ("network", "text"), ("array", "text"), ("dataflow", "term"), ("buffer", "bytes"),
            ("bandwidth", "bytes_per_second"), ("operand", "term"), ("frames/s", "ratio"),
        ]  # fmt: skip
        best = [self.best(network) for network in self.networks]
        rows = [
            (
                row["network"], f"{row['rows']} x {row['columns']} at {si(row['clock_hertz'], 'Hz')}", row["dataflow"],
                row["buffer_bytes"], row["dram_bandwidth"], row["operand"], row["frames_per_second"],
            )
            for row in best
        ]  # fmt: skip
        notes = [f"The fastest of {len(self.frame):,} of {self.tried:,} points."]
        return html_table("Designs", columns, rows, notes=notes)


def explore(
    networks: Nests | Mapping[str, Nests],
    space: Space,
    *,
    area_mm2: float | None = None,
    watts: float | None = None,
    weights: Mapping[str, float] | None = None,
    executor: Executor | None = None,
) -> Exploration:
    """Every design of a space on every network, within budgets.

    Args:
        networks: loop nests by the networks' names; a frame is one sample of their batch.
        space: what to try.
        area_mm2: the most area that a design may have.
        watts: the most power that it may take, on the network of the row.
        weights: how often each network runs, against the others; adds the network "mix", whose frame is the average.
        executor: anything with the `map` of `concurrent.futures`; the calling thread if None.

    Raises InputError for a network without forward contractions, weights of an unknown network, a budget without a
    technology, a buffer axis of which none holds a tile of every layer, and a budget that nothing meets: it says what
    comes nearest.
    """
    named = {networks.model: networks} if isinstance(networks, Nests) else dict(networks)
    if not named:
        raise InputError("there is nothing to explore: give at least one network.")
    _check_weights(weights, named)
    budgets = {name: limit for name, limit in (("area_mm2", area_mm2), ("watts", watts)) if limit is not None}
    for name, limit in budgets.items():
        if not limit > 0:
            raise InputError(f"a budget of {limit} {name.replace('_', ' ')} is not positive.")
        if not space.base.technology:
            raise InputError(f"{space.base.title} names no technology: budgets of area and power need one.")
    work = {name: _work(nests) for name, nests in named.items()}
    pieces = [
        _Piece(work[name], space, operand, flow)
        for operand, flow in product(space.operands, space.dataflows)
        for name in named
    ]
    found = list(executor.map(_run, pieces) if executor is not None else map(_run, pieces))
    frame, tried = _frame(space, list(named), found, weights)
    if frame.empty:
        raise InputError(
            f"no buffer of this space holds a tile of every layer: the largest has {max(space.buffers):,} bytes."
        )
    if budgets:
        within = np.all([frame[name] <= limit for name, limit in budgets.items()], axis=0)
        if not within.any():
            raise InputError(_nearest_miss(frame, budgets))
        frame = frame[within].reset_index(drop=True)
    return Exploration(space, frame, tried, budgets)


class _Work(NamedTuple):
    """A network's distinct nests and how often each occurs."""

    nests: tuple[Nest, ...]
    counts: tuple[int, ...]
    images: int


class _Piece(NamedTuple):
    """A part of a sweep."""

    work: _Work
    space: Space
    operand: str
    dataflow: str


class _Found(NamedTuple):
    """Of a piece, for a frame: arrays of (arrays, buffers, bandwidths, clocks); energy without the last two."""

    overlapped: Floats
    serial: Floats
    dram_bytes: Floats
    joules: Floats | None
    area: Floats | None


def _work(nests: Nests) -> _Work:
    forward = nests.of_phase(FORWARD)
    shapes = Counter(map(shape_of, forward))
    return _Work(tuple(shapes), tuple(shapes.values()), forward[0].batch)


def _variant(base: Accelerator, operand: str, dataflow: str) -> Accelerator:
    """The base with another operand and dataflow; its accumulator follows the operand."""
    floating = not operand.startswith("int")
    accumulator = base.accumulator
    if floating != (not accumulator.startswith("int")) or operand == "int32":
        accumulator = "fp32" if floating else "int32"
    pads = base.scratchpads if dataflow == "row_stationary" else None
    return base.replace(operand=operand, accumulator=accumulator, dataflow=dataflow, scratchpads=pads)


def _run(piece: _Piece) -> _Found:
    work, space, operand, flow = piece
    chip = _variant(space.base, operand, flow)
    technology = chip.find_technology() if chip.technology else None
    sides = np.array(space.arrays, dtype=np.int64)
    buffers = np.array(space.buffers, dtype=np.int64)
    bandwidths, clocks = np.array(space.bandwidths), np.array(space.clocks)
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
    serial = array_time + (traffic[:, None] / bandwidths)[None, :, :, None]
    joules = None
    area = None
    if technology is not None:
        macs = sum(nest.macs * times for nest, times in zip(work.nests, work.counts, strict=True))
        elements = [
            energy_of(chip.replace(rows=rows, columns=columns), technology)(macs, 0, 0).total
            for rows, columns in sides.tolist()
        ]
        memories = [
            energy_of(chip.replace(buffer_bytes=size), technology)(0, moved[:, index], traffic[index]).total
            for index, size in enumerate(buffers.tolist())
        ]
        joules = (np.array(elements)[:, None] + np.stack(memories, axis=1)) / frames
        parts = [_area(chip, technology, rows=int(rows), columns=int(columns)) for rows, columns in sides]
        sram = np.array([_area(chip, technology, buffer_bytes=size) for size in buffers.tolist()])
        interface = np.array([_area(chip, technology, dram_bandwidth=rate) for rate in bandwidths.tolist()])
        own = _area(chip, technology)
        area = np.array(parts)[:, None, None] + (sram - own)[:, None] + (interface - own)
    return _Found(overlapped / frames, serial / frames, traffic / frames, joules, area)


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
        mapped = place(nest, Array(chip.dataflow, sides[:, 0], sides[:, 1]))
        words = moved_in_buffer_bytes(mapped, chip)
        return (
            np.broadcast_to(np.asarray(mapped.cycles, dtype=float)[:, None], shape),
            np.broadcast_to(np.asarray(words, dtype=float)[:, None], shape),
        )
    cycles, words = np.full(shape, np.nan), np.full(shape, np.nan)
    for i, (rows, columns) in enumerate(sides.tolist()):
        for j, size in enumerate(buffers.tolist()):
            found = _placed(nest, chip.replace(rows=rows, columns=columns, buffer_bytes=size))
            if found is not None:
                cycles[i, j], words[i, j] = found.cycles, moved_in_buffer_bytes(found, chip)
    return cycles, words


def _placed(nest: Nest, chip: Accelerator) -> Mapped | None:
    try:
        return place(nest, chip.array)
    except InputError:  # no pass fits in this buffer
        return None


def _frame(
    space: Space, networks: list[str], found: list[_Found], weights: Mapping[str, float] | None
) -> tuple[pd.DataFrame, int]:
    """The pieces' arrays as one frame, with the mix, without designs whose buffer is too small."""
    import pandas as pd

    names = [*networks, MIX] if weights else networks
    columns: dict[str, list[Any]] = {}
    pairs = list(product(space.operands, space.dataflows))
    sides = np.array(space.arrays, dtype=np.int64)
    tried = 0
    for index, (operand, flow) in enumerate(pairs):
        results = found[index * len(networks) : (index + 1) * len(networks)]
        if weights:
            whole = sum(weights.values())
            mixed = [(results[networks.index(name)], weight / whole) for name, weight in weights.items()]
            results = [*results, _mixed(mixed)]
        for name, result in zip(names, results, strict=True):
            shape = result.overlapped.shape
            tried += result.overlapped.size
            kept = ~np.isnan(result.overlapped).ravel()

            def flat(values: Any, *axes: int, shape: Any = shape, kept: Any = kept) -> Any:
                """Values along some axes of the design, as a column."""
                wide = np.expand_dims(values, tuple(axis for axis in range(4) if axis not in axes))
                return np.broadcast_to(wide, shape).ravel()[kept]

            overlapped, serial = result.overlapped.ravel()[kept], result.serial.ravel()[kept]
            row = {
                "network": np.full(kept.sum(), names.index(name), dtype=np.int8),
                "operand": np.full(kept.sum(), space.operands.index(operand), dtype=np.int8),
                "dataflow": np.full(kept.sum(), space.dataflows.index(flow), dtype=np.int8),
                "rows": flat(sides[:, 0], 0),
                "columns": flat(sides[:, 1], 0),
                "buffer_bytes": flat(np.array(space.buffers, dtype=np.int64), 1),
                "dram_bandwidth": flat(np.array(space.bandwidths), 2),
                "clock_hertz": flat(np.array(space.clocks), 3),
                "overlapped_seconds": overlapped,
                "serial_seconds": serial,
                "frames_per_second": 1 / overlapped,
                "serial_frames_per_second": 1 / serial,
                "dram_bytes": flat(result.dram_bytes, 1),
            }
            if result.joules is not None and result.area is not None:
                joules, area = flat(result.joules, 0, 1), flat(result.area, 0, 1, 2)
                row |= {
                    "area_mm2": area,
                    "joules_per_frame": joules,
                    "watts": joules / overlapped,
                    "frames_per_joule": 1 / joules,
                    "frames_per_second_per_mm2": 1 / overlapped / area,
                }
            for key, values in row.items():
                columns.setdefault(key, []).append(values)
    data = {name: np.concatenate(parts) for name, parts in columns.items()}
    coded = {"network": names, "operand": space.operands, "dataflow": space.dataflows}
    labels = {name: pd.Categorical.from_codes(data[name], categories=pd.Index(coded[name])) for name in coded}
    return pd.DataFrame(data | labels, copy=False), tried


def _mixed(parts: list[tuple[_Found, float]]) -> _Found:
    """The average frame of a mix of networks that run one after another."""

    def total(name: str) -> Any:
        values = [getattr(found, name) for found, _ in parts]
        if values[0] is None:
            return None
        return sum(value * weight for value, (_, weight) in zip(values, parts, strict=True))

    return _Found(total("overlapped"), total("serial"), total("dram_bytes"), total("joules"), parts[0][0].area)


def _check_weights(weights: Mapping[str, float] | None, named: Mapping[str, Nests]) -> None:
    for name, weight in (weights or {}).items():
        if name not in named:
            raise InputError(f"a weight for {name!r}, which is not explored: {', '.join(named)} are.")
        if not (weight > 0 and np.isfinite(weight)):
            raise InputError(f"the weight of {name!r} is {weight}: give a positive number.")
    if weights is not None and not weights:
        raise InputError("a mix needs at least one weight.")


def _nearest_miss(frame: pd.DataFrame, budgets: Mapping[str, float]) -> str:
    """What to say where no design is within the budgets."""
    excess = np.max([frame[name] / limit for name, limit in budgets.items()], axis=0)
    row = frame.iloc[int(np.argmin(excess))]
    wanted = " and ".join(_amount(name, limit) for name, limit in budgets.items())
    got = " and ".join(_amount(name, row[name]) for name in budgets)
    return (
        f"no design of {len(frame):,} is within {wanted}. Nearest comes {got}: {row['rows']} x {row['columns']} "
        f"elements, {row['buffer_bytes']:,} bytes of buffer, {si(row['dram_bandwidth'], 'B/s')}."
    )


def _amount(name: str, value: float) -> str:
    return f"{value:,.3g} {'mm²' if name == 'area_mm2' else 'W'}"
