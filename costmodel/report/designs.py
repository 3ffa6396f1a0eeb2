"""What an exploration answers, network by network: the fastest design, the front, and what more of each would bring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from costmodel.chip.balance import balance, elasticities, ridge_and_mix, worth
from costmodel.chip.dram import traffic_curves
from costmodel.chip.explore import MIX, Exploration
from costmodel.chip.nests import Nests
from costmodel.report.tables import designs_table, records
from costmodel.units import iec, percent, si

if TYPE_CHECKING:
    import pandas as pd

    from costmodel.chip.accelerator import Accelerator

Answer = dict[str, Any]


def front_rows(found: Exploration, network: str, most: int | None = None) -> pd.DataFrame:
    """The Pareto front of a network: frames a second against area, or against bandwidth without areas.

    Of more than `most` rows, as many at equal distances along the front, its ends among them.
    """
    against = "area_mm2" if "area_mm2" in found.frame.columns else "dram_bandwidth"
    front = found.pareto(network, minimise=(against,))
    if most is None or len(front) <= most:
        return front
    places = sorted({round(index * (len(front) - 1) / max(most - 1, 1)) for index in range(most)})
    return front.iloc[places]


def answers(
    found: Exploration,
    networks: Mapping[str, Nests],
    weights: Mapping[str, float] | None,
    only: str | None = None,
    every_front: bool = False,
) -> dict[str, Answer]:
    """For each network, or the `only` one: what stands in a designs document."""
    told = {}
    for name in found.networks:
        if only is not None and name != only:
            continue
        best = found.best(name)
        design = found.space.design(best)
        own = networks if name == MIX else networks[name]
        shares = weights if name == MIX else None
        answer: Answer = {
            "fastest": records(designs_table(best.to_frame().T))[0],
            "elasticities": elasticities(own, design, shares)._asdict(),
            "ridge": ridge_and_mix(own, design, shares)._asdict(),
        }
        if name != MIX:
            buffer, moved = traffic_curves(networks[name], widths=design.widths).knee()
            answer["knee"] = {"buffer_bytes": buffer, "dram_bytes": moved}
        if design.technology:
            answer["worth_frames_per_second"] = worth(own, design, shares)._asdict()
            answer["balanced"] = _balanced(own, design, float(best["area_mm2"]), shares)
        if every_front:
            answer["front"] = records(designs_table(front_rows(found, name)))
        told[name] = answer
    return told


def notes(answer: Answer) -> list[str]:
    """An answer in sentences, for under a table."""
    best, change, ridge = answer["fastest"], answer["elasticities"], answer["ridge"]
    lines = [
        f"Fastest: {best['array']} elements, {best['dataflow'].replace('_', ' ')}, {iec(best['buffer_bytes'])} of "
        f"buffer, {si(best['dram_bandwidth'], 'B/s')}: {si(best['frames_per_second'])} frames a second."
    ]
    lines.append(
        f"There, 1 % more elements saves {abs(change['elements']):.2f} % of the time, 1 % more bandwidth "
        f"{abs(change['bandwidth']):.2f} %, 1 % more buffer {abs(change['sram']):.2f} %."
    )
    if "worth_frames_per_second" in answer:
        gain, even = answer["worth_frames_per_second"], answer["balanced"]
        lines.append(
            f"A further mm² brings {gain['elements_mm2']:.3g} frames/s as elements, {gain['sram_mm2']:.3g} as buffer, "
            f"{gain['interface_mm2']:.3g} as memory interface; a further GB/s {gain['bandwidth']:.3g}."
        )
        lines.append(
            f"An array that wastes nothing would divide that area into {even['elements']:,.0f} elements, "
            f"{iec(even['buffer_bytes'])} and {si(even['dram_bandwidth'], 'B/s')}: "
            f"{si(even['frames_per_second'])} frames a second."
        )
    lines.append(
        f"Its ridge is {ridge['ridge_point']:.3g} MACs a byte, the network has {ridge['intensity']:.3g}: layers below "
        f"the ridge do {percent(ridge['macs_below'])} of the MACs and move {percent(ridge['traffic_below'])} of the "
        "bytes."
    )
    if "knee" in answer:
        knee = answer["knee"]
        lines.append(
            f"From a buffer of {iec(knee['buffer_bytes'])} on, twice as much saves less than a tenth of the traffic "
            f"({iec(knee['dram_bytes'])} a run)."
        )
    return lines


def _balanced(
    networks: Nests | Mapping[str, Nests], design: Accelerator, area_mm2: float, weights: Mapping[str, float] | None
) -> Answer:
    ideal = design.replace(dataflow="ideal", scratchpads=None)
    found = balance(networks, ideal, area_mm2, weights)
    return {name: value for name, value in vars(found).items() if name != "worth"} | {"worth": found.worth._asdict()}
