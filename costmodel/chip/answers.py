"""An exploration's answers, network by network: the best design, the front, and the value of more resources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from costmodel.chip.balance import balance, elasticities, marginals, ridge_and_mix
from costmodel.chip.dram import traffic_curves
from costmodel.chip.evaluation import for_share
from costmodel.chip.explore import MIX, SPEED, Exploration, Objective
from costmodel.chip.nests import Nests
from costmodel.chip.space import variant
from costmodel.graph import FORWARD
from costmodel.units import iec, joules, percent, si
from costmodel.view import column

if TYPE_CHECKING:
    from costmodel.chip.accelerator import Accelerator

Answer = dict[str, Any]


def answers(
    exploration: Exploration,
    networks: Mapping[str, Nests],
    weights: Mapping[str, float] | None,
    only: str | None = None,
    every_front: bool = False,
    objective: Objective = SPEED,
) -> dict[str, Answer]:
    """For each network, or the `only` one: the best design and its analysis, as in a designs document."""
    by_network = {}
    for name in exploration.networks:
        if only is not None and name != only:
            continue
        best = exploration.best(name, objective.column, objective.least)
        design = exploration.space.design(best)
        own = networks if name == MIX else networks[name]
        shares = weights if name == MIX else None
        answer: Answer = {
            "best": exploration.table(best.to_frame().T, objective).records()[0],
            "counted_share": _counted_share(networks if name == MIX else {name: networks[name]}, shares),
            "at_an_end": list(exploration.at_an_end(best)),
            "bandwidth_takes_area": design.memory_interface,
            "elasticities": elasticities(own, design, shares)._asdict(),
            "ridge": ridge_and_mix(own, design, shares)._asdict(),
        }
        if name != MIX:
            buffer, moved = traffic_curves(networks[name], widths=design.widths).knee()
            answer["knee"] = {"buffer_bytes": buffer, "dram_bytes": moved}
        if design.technology:
            answer["marginal_frames_per_second"] = marginals(own, design, shares)._asdict()
            answer["balanced"] = _balanced(own, design, float(best["area_mm2"]), shares)
        if every_front:
            answer["front"] = exploration.table(exploration.front(name, objective=objective), objective).records()
        by_network[name] = answer
    return by_network


def notes(answer: Answer, objective: Objective = SPEED) -> list[str]:
    """An answer in sentences, for under a table."""
    best, change, ridge = answer["best"], answer["elasticities"], answer["ridge"]
    lines = [
        f"{objective.title}: {best['array']} PEs, {best['dataflow'].replace('_', ' ')}, "
        f"{iec(best['buffer_bytes'])} of buffer, {si(best['dram_bandwidth'], 'B/s')}, {si(best['clock_hertz'], 'Hz')}: "
        f"{si(best['frames_per_second'])} frames a second{_energy(best)}{for_share(answer['counted_share'])}."
    ]
    if answer["at_an_end"]:
        names = ", ".join(column(name).title for name in answer["at_an_end"])
        lines.append(f"At an end of what was tried, beyond which there may be better ones: its {names}.")
    lines.append(
        f"There, 1 % more PEs saves {0 - change['pes']:.2f} % of the time, 1 % more bandwidth "
        f"{0 - change['bandwidth']:.2f} %, 1 % more buffer {0 - change['sram']:.2f} %."
    )
    if "marginal_frames_per_second" in answer:
        gain, even = answer["marginal_frames_per_second"], answer["balanced"]
        parts = f"{gain['pes_mm2']:.3g} frames/s as PEs, {gain['sram_mm2']:.3g} as buffer"
        if answer["bandwidth_takes_area"]:
            parts += f", {gain['interface_mm2']:.3g} as memory interface"
        lines.append(f"A further mm² brings {parts}; a further GB/s {gain['bandwidth']:.3g}.")
        if not answer["bandwidth_takes_area"]:
            lines.append("Bandwidth takes no area here: this chip is described without its memory's interface.")
        lines.append(
            f"An array that wastes nothing would divide that area into {even['pes']:,.0f} PEs, "
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


def _energy(best: Mapping[str, Any]) -> str:
    """A design's energy a frame, if known."""
    return f", {joules(1 / best['frames_per_joule'])} a frame" if "frames_per_joule" in best else ""


def _counted_share(networks: Mapping[str, Nests], weights: Mapping[str, float] | None) -> float:
    """The share of a frame's MACs that have loop nests."""
    counted = known = 0.0
    for name, nests in networks.items():
        forward = nests.of_phase(FORWARD)
        frames = (weights or {name: 1.0}).get(name, 0.0) / forward.images
        counted, known = counted + forward.macs * frames, known + forward.known_macs * frames
    return counted / known


def _balanced(
    networks: Nests | Mapping[str, Nests], design: Accelerator, area_mm2: float, weights: Mapping[str, float] | None
) -> Answer:
    best = balance(networks, variant(design, design.operand, "ideal"), area_mm2, weights)
    return {name: value for name, value in vars(best).items() if name != "marginals"} | {
        "marginals": best.marginals._asdict()
    }
