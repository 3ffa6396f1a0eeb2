"""Memory over a run's operations, and memory against the batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MultipleLocator, NullLocator

from costmodel.errors import InputError
from costmodel.plots.style import FAINT, INK, SOFT, dress, layer_name, new_axes, shortened, styled
from costmodel.units import iec

if TYPE_CHECKING:
    import pandas as pd

    from costmodel.devices import Device
    from costmodel.memory import MemoryTimeline

_COLOURS: Mapping[str, str] = {
    "parameter": "#0072B2",
    "buffer": "#999999",
    "input": "#F0E442",
    "optimizer state": "#5D3A9B",
    "gradient": "#D55E00",
    "activation": "#009E73",
    "temporary": "#E69F00",
}
"""From the bottom of the stack to its top: what stays lies below what comes and goes."""

_TITLES: Mapping[str, str] = {
    "parameter": "parameters",
    "buffer": "buffers",
    "input": "input",
    "optimizer state": "optimizer state",
    "gradient": "gradients",
    "activation": "activations",
    "temporary": "temporaries",
}


@styled
def memory(
    memory: MemoryTimeline, ax: Axes | None = None, *, reserved: bool | None = None, title: str | None = None
) -> Axes:
    """Live bytes over a run's operations as areas by role, the phases, and the peak with who holds it.

    Args:
        memory: what `costmodel.memory_timeline` gives.
        ax: axes to draw on; in a figure of their own if None.
        reserved: whether to draw what the caching allocator reserves above it; on CUDA it is if None.

    Returns the axes.
    """
    ax = new_axes(9.6, 4.8, left=0.85, bottom=1.05, right=0.25, top=0.75) if ax is None else ax
    count = len(memory.trace.operations)
    edges = [edge for index in range(count) for edge in (index, index + 1)]
    roles = [role for role in _COLOURS if any(memory.timeline.get(role, ()))]
    stacks = [[live for live in memory.timeline[role] for _ in (0, 1)] for role in roles]
    ax.stackplot(edges, stacks, colors=[_COLOURS[role] for role in roles], linewidth=0, alpha=0.92)
    shown = memory.trace.target == "cuda" if reserved is None else reserved
    top = memory.peak_bytes
    if shown:
        steps = [held for held in memory.replay.reserved_bytes for _ in (0, 1)]
        ax.plot(edges, steps, color=INK, linewidth=1.0, linestyle=(0, (4, 2)))
        top = max(top, memory.replay.peak_reserved_bytes)
    ax.set_xlim(0, count)
    ax.set_ylim(0, top * _HEADROOM)
    _mark_phases(ax, memory)
    _mark_peak(ax, memory, top)
    _layer_ticks(ax, memory)
    _byte_axis(ax)
    dress(ax, grid="y")
    handles: list[Patch | Line2D] = [Patch(color=_COLOURS[role], label=_TITLES[role]) for role in roles[::-1]]
    if shown:
        handles.append(Line2D([], [], color=INK, linewidth=1.0, linestyle=(0, (4, 2)), label="reserved"))
    ax.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncol=len(handles), fontsize=7.5, borderaxespad=0.2,
        handlelength=1.2, handletextpad=0.4, columnspacing=1.1, frameon=False,
    )  # fmt: skip
    batch = memory.trace.inputs[0].shape[0] if memory.trace.inputs and memory.trace.inputs[0].shape else 1
    what = "training step" if memory.trace.train else "inference"
    heading = title or f"{shortened(memory.trace.model, 48)}: memory of one {what}, batch {batch}"
    ax.set_title(heading, loc="left", fontsize=11, pad=24)
    return ax


_HEADROOM = 1.6
"""The axes' height over the highest line: room for the note on the peak."""


def _mark_phases(ax: Axes, memory: MemoryTimeline) -> None:
    """A line where a phase begins, and its name above."""
    phases = [(name, [index for index, _ in group]) for name, group in groupby(
        enumerate(memory.trace.operations), key=lambda item: item[1].phase
    )]  # fmt: skip
    for name, indices in phases:
        if indices[0]:
            ax.axvline(indices[0], color=SOFT, linewidth=0.8)
        share = len(indices) / len(memory.trace.operations)
        middle = (indices[0] + indices[-1] + 1) / 2
        place, side = (indices[0], "right") if share < 0.03 else (middle, "center")  # no room between its lines
        ax.annotate(
            name, (place, ax.get_ylim()[1]), (-2 if side == "right" else 0, -4), textcoords="offset points",
            fontsize=8, color=SOFT, ha=side, va="top", rotation=90 if share < 0.07 else 0,
        )  # fmt: skip


def _mark_peak(ax: Axes, memory: MemoryTimeline, top: int) -> None:
    """The peak, its moment and its largest holders, in a note above everything that is drawn."""
    index, where = memory.peak_index, memory.peak_operation
    peak_tensors = memory.peak_tensors()
    rest = memory.peak_bytes - sum(held.nbytes for held in peak_tensors[:_NAMED])
    lines = [
        f"{iec(memory.peak_bytes)} at the peak, in {where.operator.removeprefix('aten.')} of {layer_name(where.layer)}",
        *(f"{iec(held.nbytes)}  {held.role}{_of(held.name)}" for held in peak_tensors[:_NAMED]),
        *([f"{iec(rest)}  {len(peak_tensors) - _NAMED} more"] if rest else []),
    ]
    count = len(memory.trace.operations)
    ax.plot([index + 0.5], [memory.peak_bytes], marker="v", markersize=6, color=INK, clip_on=False, zorder=4)
    across = min(max((index + 0.5) / count, 0.22), 0.74)
    ax.annotate(
        "\n".join(lines), (index + 0.5, memory.peak_bytes), (across, (1.06 * top) / ax.get_ylim()[1]),
        textcoords="axes fraction", fontsize=7.5, ha="center", va="bottom", multialignment="left", linespacing=1.3,
        bbox={"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": FAINT},
        arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.7, "shrinkB": 5, "relpos": (0.5, 0)}, zorder=5,
    )  # fmt: skip


_NAMED = 3
"""Holders that the note names."""


def _of(name: str) -> str:
    return "" if name.startswith("(") else f": {layer_name(name)}"


def _layer_ticks(ax: Axes, memory: MemoryTimeline) -> None:
    """The layers that hold parameters, where each one's operations begin; those that there is room for."""
    operations = memory.trace.operations
    weighted = {parameter.layer for parameter in memory.trace.parameters}
    starts = [
        (index, operation.layer)
        for index, operation in enumerate(operations)
        if operation.layer in weighted and (not index or operations[index - 1].layer != operation.layer)
    ]
    room = len(operations) / 46
    ticks: list[tuple[int, str]] = []
    for index, layer in starts:
        if not ticks or index - ticks[-1][0] >= room:
            ticks.append((index, layer))
    ax.xaxis.set_major_locator(FixedLocator([index for index, _ in ticks]))
    ax.set_xticklabels([shortened(layer, 14, end=True) for _, layer in ticks], rotation=90, fontsize=6.5)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("operations in their order, marked where a layer with parameters begins", fontsize=8)


def _byte_axis(ax: Axes) -> None:
    """Ticks at multiples of a power of two, which is a round number of KiB, MiB or GiB."""
    top = ax.get_ylim()[1]
    step = 2.0 ** math.ceil(math.log2(max(top, 1) / 7))
    ax.yaxis.set_major_locator(MultipleLocator(step))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: iec(value) if value else "0"))


@styled
def memory_against_batch(
    sweeps: Mapping[str, pd.DataFrame],
    devices: Sequence[Device] = (),
    ax: Axes | None = None,
    *,
    title: str | None = None,
) -> Axes:
    """Memory against the batch, both on logarithmic scales, a colour a run, with lines where devices' memories end.

    A run is a frame of `costmodel.memory.Scaling.sweep`: its tensors are a full line, what the allocator reserves for
    them a dashed one. Returns the axes. Raises InputError if there is nothing to draw.
    """
    if not sweeps or any(frame.empty for frame in sweeps.values()):
        raise InputError("there is nothing to draw: give at least one sweep over some batches.")
    ax = new_axes(8.2, 5.0, left=0.85, bottom=0.6, right=1.6, top=0.85) if ax is None else ax
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    palette = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#5D3A9B", "#56B4E9", "#7F7F7F")
    batches = sorted({int(batch) for frame in sweeps.values() for batch in frame["batch"]})
    for colour, (name, frame) in zip(palette * (1 + len(sweeps) // len(palette)), sweeps.items(), strict=False):
        across = frame["batch"].tolist()
        ax.plot(across, frame["requested_bytes"].tolist(), color=colour, linewidth=1.6, label=shortened(name, 40))
        held = frame["reserved_bytes"].dropna()
        if len(held):
            ax.plot(
                frame["batch"][held.index].tolist(), held.tolist(), color=colour, linewidth=1.0, linestyle=(0, (4, 2))
            )
    ax.set_xlim(batches[0], max(batches[-1], batches[0] + 1))
    tops = [float(frame[name].max()) for frame in sweeps.values() for name in ("requested_bytes", "reserved_bytes")]
    lowest = min(float(frame["requested_bytes"].min()) for frame in sweeps.values())
    known = [device for device in devices if device.memory_bytes]
    highest = max([top for top in tops if not math.isnan(top)] + [device.memory_bytes or 0 for device in known])
    ax.set_ylim(lowest / 1.6, highest * 1.6)
    _mark_devices(ax, known)
    ax.xaxis.set_major_locator(FixedLocator(batches))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: iec(value)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("batch")
    dress(ax, grid="both")
    handles, _ = ax.get_legend_handles_labels()
    for style, label in (("-", "tensors ask for"), ((0, (4, 2)), "allocator reserves")):
        handles.append(Line2D([], [], color=SOFT, linewidth=1.2, linestyle=style, label=label))  # type: ignore[arg-type]
    ax.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncol=3, fontsize=7.5, borderaxespad=0.2,
        handlelength=1.8, columnspacing=1.2, frameon=False,
    )  # fmt: skip
    rows = -(-len(handles) // 3)
    ax.set_title(title or "Memory against the batch", loc="left", fontsize=11, pad=6 + 12 * rows)
    return ax


def _mark_devices(ax: Axes, devices: Sequence[Device]) -> None:
    """A line where each memory ends, its name beside it; names that would touch are moved apart."""
    height = ax.get_window_extent().height * 72 / ax.figure.dpi
    low, high = (math.log(limit) for limit in ax.get_ylim())
    last = -math.inf
    for device in sorted(devices, key=lambda device: device.memory_bytes or 0):
        size = device.memory_bytes or 0
        ax.axhline(size, color=SOFT, linewidth=0.9, linestyle=(0, (1, 1.5)))
        place = (math.log(size) - low) / (high - low) * height
        text = max(place, last + 10)
        last = text
        name = shortened(device.title.removeprefix("NVIDIA ").removeprefix("GeForce "), 20)
        ax.annotate(
            f"{name}, {iec(size, 2)}", (1, place / height), (6, text - place), xycoords="axes fraction",
            textcoords="offset points", fontsize=7, color=SOFT, va="center", annotation_clip=False,
        )  # fmt: skip
