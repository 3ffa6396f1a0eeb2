"""Many designs at once: every combination of arrays, buffers, bandwidths, widths and clocks, for several networks.

`sweep` evaluates a network on all designs at once, a million designs and networks in about a second.

A sweep is cut into pieces, one for each network, operand and dataflow, and array rows where that leaves too few; any
`concurrent.futures` executor runs them: `executor=client.get_executor()` is how Dask's cluster does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from costmodel.chip.nests import Nests, by_name, check_weights
from costmodel.chip.pareto import pareto
from costmodel.chip.space import Space
from costmodel.chip.sweep import Piece, SweepResult, run, work_of
from costmodel.errors import InputError, nearest
from costmodel.units import plural, si
from costmodel.view import Table, column

if TYPE_CHECKING:
    import pandas as pd

MIX = "mix"
"""The name of a weighted mix of networks."""


_TIES = {"area_mm2": True, "joules_per_frame": True, "frames_per_second": False}
"""What decides between ties, and whether less is better."""


class Objective(NamedTuple):
    """The column that the best design maximises or minimises."""

    column: str
    least: bool
    title: str


OBJECTIVES: Mapping[str, Objective] = {
    "speed": Objective("frames_per_second", False, "Fastest"),
    "energy": Objective("joules_per_frame", True, "Least energy a frame"),
    "edp": Objective("joule_seconds", True, "Least energy x time a frame"),
}
"""What to optimise; the energy-delay product is that of a frame, at the overlapped time."""

SPEED = OBJECTIVES["speed"]


@dataclass(frozen=True, repr=False)
class Exploration:
    """The designs of a sweep: one row a design and network, only those within the budgets."""

    space: Space
    frame: pd.DataFrame
    tried: int
    """Points that were evaluated, within the budgets or not."""

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

    def best(self, network: str, column: str = "frames_per_second", least: bool = False) -> pd.Series[Any]:
        """The design with the most (or least) of a column; of equals the smallest, of least energy, the fastest."""
        rows = self.of(network)
        if column not in rows.columns:
            raise InputError(f"an exploration has no column {column!r}.{nearest(column, map(str, rows.columns))}")
        order = {column: least} | {name: up for name, up in _TIES.items() if name in rows.columns and name != column}
        return rows.sort_values(list(order), ascending=list(order.values()), kind="stable").iloc[0]

    def at_an_end(self, design: pd.Series[Any]) -> tuple[str, ...]:
        """The numbers of a design that lie at an end of what was tried, beyond which there may be a better one."""
        axes = {name: values for name, values in self.space.sizes.items() if len(set(values)) > 1}
        return tuple(name for name, values in axes.items() if design[name] in (min(values), max(values)))

    def front(self, network: str, most: int | None = None, objective: Objective = SPEED) -> pd.DataFrame:
        """The Pareto front of a network: what is best against area, or against bandwidth without areas.

        Of equals that of least energy, then the fastest. Of more than `most` rows, as many at equal distances along
        the front, its ends among them.
        """
        against = "area_mm2" if "area_mm2" in self.frame.columns else "dram_bandwidth"
        if objective.least:
            front = self.pareto(network, maximise=(), minimise=(against, objective.column))
        else:
            front = self.pareto(network, maximise=(objective.column,), minimise=(against,))
        energy = ["joules_per_frame"] if "joules_per_frame" in front.columns else []
        front = front.sort_values(
            [against, *energy, "frames_per_second"], ascending=[True] * (1 + len(energy)) + [False], kind="stable"
        ).drop_duplicates([against, objective.column])
        if most is None or len(front) <= most:
            return front
        places = sorted({round(index * (len(front) - 1) / max(most - 1, 1)) for index in range(most)})
        return front.iloc[places]

    def table(self, designs: pd.DataFrame | None = None, objective: Objective = SPEED) -> Table:
        """One row a design and network: of the whole exploration, or of some of its rows (a front, the best)."""
        ranks = dict.fromkeys(_ENDS, 9) | {"frames_per_second_per_mm2": 2, objective.column: 0}
        frame = self.frame if designs is None else designs
        columns = {name: column(name, rank=rank) for name, rank in ranks.items()}
        return Table.from_frame(frame, columns, title=f"{len(self.frame):,} of {plural(self.tried, 'point')}")

    def to_frame(self) -> pd.DataFrame:
        """One row a design and network, in base units."""
        return self.frame

    def __repr__(self) -> str:
        return f"<Exploration of {', '.join(self.networks)}: {len(self.frame):,} of {self.tried:,} points>"

    def _repr_html_(self) -> str:
        """The fastest design for each network."""
        import pandas as pd

        best = pd.concat([self.best(network).to_frame().T for network in self.networks])
        title = f"The fastest of {len(self.frame):,} of {self.tried:,} points"
        return self.table(best).around(title=title)._repr_html_()


_ENDS = (
    "rows", "columns", "overlapped_seconds", "serial_seconds", "dram_bytes", "joules_per_frame", "joule_seconds",
)  # fmt: skip
"""The columns that a narrow terminal drops first."""


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
    named = by_name(networks)
    check_weights(weights, named)
    budgets = budgets_of(space, area_mm2, watts)
    work = {name: work_of(nests) for name, nests in named.items()}
    pieces = [
        Piece(work[name], space, operand, flow)
        for operand, flow in product(space.operands, space.dataflows)
        for name in named
    ]
    results = list(executor.map(run, pieces) if executor is not None else map(run, pieces))
    frame, tried = _frame(space, list(named), results, weights)
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


def budgets_of(space: Space, area_mm2: float | None, watts: float | None) -> dict[str, float]:
    """The most that each column may be. Raises InputError for a budget that is none, or without a technology."""
    budgets = {name: limit for name, limit in (("area_mm2", area_mm2), ("watts", watts)) if limit is not None}
    for name, limit in budgets.items():
        if not (limit > 0 and np.isfinite(limit)):
            raise InputError(f"a budget of {limit} {_UNITS[name]} is not positive and finite.")
        if not space.base.technology:
            raise InputError(f"{space.base.title} names no technology: budgets of area and power need one.")
    return budgets


def check_objective(space: Space, objective: Objective) -> None:
    """Raises InputError for an objective of energy without a technology."""
    if objective.column != "frames_per_second" and not space.base.technology:
        raise InputError(f"{space.base.title} names no technology: the least energy needs one.")


def _frame(
    space: Space, networks: list[str], per_pair: list[SweepResult], weights: Mapping[str, float] | None
) -> tuple[pd.DataFrame, int]:
    """The pieces' arrays as one frame, with the mix, without designs whose buffer is too small."""
    import pandas as pd

    names = [*networks, MIX] if weights else networks
    columns: dict[str, list[Any]] = {}
    pairs = list(product(space.operands, space.dataflows))
    sides = np.array(space.arrays, dtype=np.int64)
    tried = 0
    for index, (operand, flow) in enumerate(pairs):
        results = per_pair[index * len(networks) : (index + 1) * len(networks)]
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
                "array": flat(np.arange(len(sides), dtype=np.int16), 0),
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
                    "joule_seconds": joules * overlapped,
                    "frames_per_second_per_mm2": 1 / overlapped / area,
                }
            for key, values in row.items():
                columns.setdefault(key, []).append(values)
    data = {name: np.concatenate(parts) for name, parts in columns.items()}
    arrays = [f"{rows}x{columns}" for rows, columns in space.arrays]
    coded = {"network": names, "array": arrays, "operand": space.operands, "dataflow": space.dataflows}
    labels = {name: pd.Categorical.from_codes(data[name], categories=pd.Index(coded[name])) for name in coded}
    return pd.DataFrame(data | labels, copy=False), tried


def _mixed(parts: list[tuple[SweepResult, float]]) -> SweepResult:
    """The average frame of a mix of networks that run one after another."""

    def total(name: str) -> Any:
        values = [getattr(result, name) for result, _ in parts]
        if values[0] is None:
            return None
        return sum(value * weight for value, (_, weight) in zip(values, parts, strict=True))

    return SweepResult(total("overlapped"), total("serial"), total("dram_bytes"), total("joules"), parts[0][0].area)


def _nearest_miss(frame: pd.DataFrame, budgets: Mapping[str, float]) -> str:
    """What to say where no design is within the budgets."""
    excess = np.max([frame[name] / limit for name, limit in budgets.items()], axis=0)
    row = frame.iloc[int(np.argmin(excess))]
    wanted = " and ".join(_amount(name, limit) for name, limit in budgets.items())
    got = " and ".join(_amount(name, row[name]) for name in budgets)
    return (
        f"no design of {len(frame):,} is within {wanted}. Nearest comes {got}: {row['rows']} x {row['columns']} "
        f"PEs, {row['buffer_bytes']:,} bytes of buffer, {si(row['dram_bandwidth'], 'B/s')}."
    )


_UNITS = {"area_mm2": "mm²", "watts": "W"}


def _amount(name: str, value: float) -> str:
    return f"{value:,.3g} {_UNITS[name]}"
