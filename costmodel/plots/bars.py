"""Bars: which layers hold the parameters, do the arithmetic, move the bytes and take the time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from costmodel.cost import Costs
from costmodel.errors import InputError, nearest
from costmodel.plots.style import INK, KINDS, SOFT, dress, layer_name, new_axes, shortened, styled
from costmodel.roofline import Prediction
from costmodel.units import iec, percent, seconds, si

_PARTS = {"conv": "convolutional layers", "linear": "fully connected layers", "other": "other layers"}
_HATCHES = {"conv": "", "linear": "//", "other": ""}
_COLOURS = {"conv": KINDS["conv"].colour, "linear": KINDS["linear"].colour, "other": "#C8C8C8"}


class _Quantity(NamedTuple):
    """What can be shown of a layer."""

    title: str
    write: Callable[[float], str]


_QUANTITIES: Mapping[str, _Quantity] = {
    "parameters": _Quantity("parameters", lambda value: si(value)),
    "parameter_bytes": _Quantity("bytes of parameters", lambda value: iec(value)),
    "macs": _Quantity("multiply-accumulates", lambda value: si(value, "MAC")),
    "flops": _Quantity("FLOPs (2 x MACs + vector FLOPs)", lambda value: si(value, "FLOP")),
    "moved_bytes": _Quantity("bytes read and written", lambda value: iec(value)),
    "bound_seconds": _Quantity("bound on time", lambda value: seconds(value)),
}


class _Row(NamedTuple):
    """A layer and its quantities."""

    name: str
    kind: str
    values: Mapping[str, float]


def _rows(source: Costs | Prediction) -> list[_Row]:
    costs = source.costs if isinstance(source, Prediction) else source
    bounds = [layer.bound_seconds for layer in source.layers] if isinstance(source, Prediction) else []
    rows = []
    for index, layer in enumerate(costs.layers):
        values: dict[str, float] = {
            "parameters": layer.parameters,
            "parameter_bytes": layer.parameter_bytes,
            "macs": layer.cost.macs,
            "flops": layer.cost.flops,
            "moved_bytes": layer.cost.moved_bytes,
        }
        rows.append(_Row(layer.name, layer.kind, values | ({"bound_seconds": bounds[index]} if bounds else {})))
    return rows


def _model(source: Costs | Prediction) -> str:
    return shortened((source.costs if isinstance(source, Prediction) else source).trace.model, 48)


@styled
def shares(
    predictions: Prediction | Sequence[Prediction] | Mapping[str, Prediction],
    ax: Axes | None = None,
    *,
    title: str | None = None,
) -> Axes:
    """Whose the parameters, bytes, FLOPs and time are: a bar each, split into convolutional, fully connected and other.

    Several predictions stand under one another, by the name to show or just so. Returns the axes.
    """
    listed = [predictions] if isinstance(predictions, Prediction) else predictions
    pairs = listed.items() if isinstance(listed, Mapping) else ((_model(each), each) for each in listed)
    several = [(shortened(name, 48), each) for name, each in pairs]
    if not several:
        raise InputError("there is nothing to show: give at least one prediction.")
    shown = ("parameters", "moved_bytes", "flops", "bound_seconds")
    height = len(several) * (len(shown) + 0.9)
    ax = new_axes(9.6, 1.2 + 0.42 * height, left=1.75, bottom=0.55, right=1.0, top=0.65) if ax is None else ax
    ticks: list[tuple[float, str]] = []
    up = 0.0
    for name, prediction in several:
        rows = _rows(prediction)
        heading = f"{name} on {prediction.device.title}"
        ax.annotate(heading, (0, up), (0, -3), textcoords="offset points", fontsize=9, fontweight="bold", va="center")
        for quantity in shown:
            up -= 1
            _draw_shares(ax, up, rows, quantity)
            ticks.append((up, _QUANTITIES[quantity].title.partition(" (")[0]))
        up -= 1.25
    ax.set_xlim(0, 1)
    ax.set_ylim(up + 0.55, 0.5)
    ax.set_yticks([tick for tick, _ in ticks], [text for _, text in ticks])
    dress(ax)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value, 0)))
    ax.set_xlabel("share")
    ax.set_title(title or "Where parameters, bytes, arithmetic and time are", loc="left", fontsize=11, pad=22)
    handles = [Patch(facecolor=_COLOURS[p], hatch=_HATCHES[p], edgecolor="white", label=_PARTS[p]) for p in _PARTS]
    ax.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncol=3, fontsize=8, borderaxespad=0.2, frameon=False
    )
    return ax


def _draw_shares(ax: Axes, up: float, rows: Sequence[_Row], name: str) -> None:
    """One bar, its whole at the right; parts too small for their number are named under the end that they lie at."""
    whole = sum(row.values[name] for row in rows)
    small: dict[str, list[str]] = {"left": [], "right": []}
    left = 0.0
    for part in _PARTS:
        mine = sum(row.values[name] for row in rows if (row.kind if row.kind in _PARTS else "other") == part)
        share = mine / whole if whole else 0.0
        ax.barh(up, share, 0.62, left, color=_COLOURS[part], hatch=_HATCHES[part], edgecolor="white", linewidth=0.8)
        if share >= 0.05:
            ink = INK if part == "other" else "white"
            text = ax.annotate(percent(share), (left + share / 2, up), ha="center", va="center", fontsize=8, color=ink)
            if _HATCHES[part]:
                text.set_bbox({"facecolor": _COLOURS[part], "edgecolor": "none", "pad": 1.2})
        elif share >= 0.0005:
            small["left" if left < 0.5 else "right"].append(f"{_PARTS[part].partition(' layers')[0]} {percent(share)}")
        left += share
    for side, texts in small.items():
        ax.annotate(
            ", ".join(texts), (float(side == "right"), up - 0.31), (0, -1), textcoords="offset points",
            ha=side, va="top", fontsize=6.5, color=SOFT,
        )  # fmt: skip
    ax.annotate(
        _QUANTITIES[name].write(whole), (1, up), (6, 0), textcoords="offset points",
        va="center", fontsize=8, annotation_clip=False,
    )  # fmt: skip


@styled
def layers(
    source: Costs | Prediction,
    quantity: str = "macs",
    ax: Axes | None = None,
    *,
    title: str | None = None,
    most: int = 40,
) -> Axes:
    """A bar a layer: its parameters, parameter_bytes, macs, flops, moved_bytes or (of a prediction) bound_seconds.

    Layers stand in the order of execution; of more than `most`, the smallest are summed up in the last bar. Returns the
    axes. Raises InputError for an unknown quantity.
    """
    rows = _rows(source)
    _check(quantity, rows)
    shown, rest = _largest(rows, (quantity,), most)
    if ax is None:
        ax = new_axes(8.2, 0.9 + 0.2 * (len(shown) + bool(rest)), left=1.9, bottom=0.15, right=0.75, top=0.7)
    _draw_layers(ax, shown, rest, quantity, names=True)
    _kinds_legend(ax, shown)
    ax.set_title(title or f"{_model(source)}: {_QUANTITIES[quantity].title} by layer", loc="left", fontsize=11, pad=22)
    return ax


@styled
def layer_panels(
    source: Costs | Prediction,
    quantities: Sequence[str] = ("parameters", "macs", "moved_bytes"),
    *,
    title: str | None = None,
    most: int = 40,
) -> tuple[Axes, ...]:
    """The bars of `layers` for several quantities beside one another, in a figure of their own. Returns their axes."""
    rows = _rows(source)
    for quantity in quantities:
        _check(quantity, rows)
    shown, rest = _largest(rows, quantities, most)
    width, height = 2.4 + 3.0 * len(quantities), 1.15 + 0.2 * (len(shown) + bool(rest))
    figure = Figure(figsize=(width, height), dpi=100)
    axes = []
    for index, quantity in enumerate(quantities):
        box = ((1.9 + 3.0 * index) / width, 0.15 / height, 2.2 / width, (height - 1.05) / height)
        ax = figure.add_axes(box)
        _draw_layers(ax, shown, rest, quantity, names=index == 0)
        ax.set_title(_QUANTITIES[quantity].title.partition(" (")[0], loc="left", fontsize=9, pad=5)
        axes.append(ax)
    _kinds_legend(axes[0], shown, above=18)
    figure.text(0.15 / width, 1 - 0.3 / height, title or f"{_model(source)}: layer by layer", fontsize=11)
    return tuple(axes)


def _check(quantity: str, rows: Sequence[_Row]) -> None:
    known = list(rows[0].values) if rows else list(_QUANTITIES)
    if quantity not in known:
        raise InputError(f"cannot show {quantity!r} by layer: use {', '.join(known)}.{nearest(quantity, known)}")


def _largest(rows: Sequence[_Row], quantities: Sequence[str], most: int) -> tuple[list[_Row], list[_Row]]:
    """The layers to show, in their order, and those that there is no room for; layers without a value are neither."""
    wholes = {name: sum(row.values[name] for row in rows) or 1 for name in quantities}
    sizes = [max(row.values[name] / wholes[name] for name in quantities) for row in rows]
    ranked = sorted(range(len(rows)), key=lambda index: -sizes[index])
    chosen = {index for index in ranked[:most] if sizes[index] > 0}
    return [rows[i] for i in sorted(chosen)], [row for i, row in enumerate(rows) if i not in chosen and sizes[i] > 0]


def _draw_layers(ax: Axes, shown: Sequence[_Row], rest: Sequence[_Row], quantity: str, names: bool) -> None:
    write = _QUANTITIES[quantity].write
    rows = [(layer_name(row.name), row.kind, row.values[quantity]) for row in shown]
    if rest:
        rows.append((f"{len(rest)} more", "other", sum(row.values[quantity] for row in rest)))
    for place_, (_, kind, value) in enumerate(rows):
        ax.barh(-place_, value, 0.72, color=KINDS.get(kind, KINDS["other"]).colour, linewidth=0)
        ax.annotate(
            write(value) if value else "0", (value, -place_), (3, 0), textcoords="offset points",
            va="center", fontsize=7, color=INK if value else SOFT, annotation_clip=False,
        )  # fmt: skip
    ax.set_ylim(-len(rows) + 0.4, 0.6)
    ax.set_xlim(0, max((value for *_, value in rows), default=0) or 1)
    ax.set_yticks(
        [-i for i in range(len(rows))], [name for name, *_ in rows] if names else [""] * len(rows), fontsize=7.5
    )
    dress(ax)
    ax.tick_params(axis="y", length=0)
    ax.set_xticks([])  # each bar says its value
    ax.spines["bottom"].set_visible(False)


def _kinds_legend(ax: Axes, rows: Sequence[_Row], above: float = 0) -> None:
    present = [kind for kind in KINDS if any(row.kind == kind for row in rows)]
    handles = [Patch(facecolor=KINDS[kind].colour, label=KINDS[kind].title) for kind in present]
    if handles:
        up = 1 + above / (ax.get_window_extent().height * 72 / ax.figure.dpi)
        ax.legend(
            handles=handles, loc="lower left", bbox_to_anchor=(0, up), ncol=min(len(handles), 6), fontsize=7.5,
            borderaxespad=0.2, handlelength=1.0, handletextpad=0.4, columnspacing=1.2, frameon=False,
        )  # fmt: skip
