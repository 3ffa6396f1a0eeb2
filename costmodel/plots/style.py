"""How plots look and how they are saved: one palette, one typeface, and files that are the same bytes on every run.

Colours are Okabe and Ito's, which people with any colour vision tell apart (https://jfly.uni-koeln.de/color/); every
kind has a marker of its own beside its colour, so that a print in grey says the same.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from costmodel.errors import InputError
from costmodel.files import write_whole
from costmodel.units import si

INK, SOFT, FAINT = "#222222", "#666666", "#d9d9d9"

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "text.color": INK,
    "text.parse_math": False,
    "hatch.linewidth": 0.4,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "legend.frameon": False,
}


class KindStyle(NamedTuple):
    """How a kind of layer is drawn."""

    colour: str
    marker: str
    title: str


KINDS: Mapping[str, KindStyle] = {
    "conv": KindStyle("#0072B2", "o", "convolution"),
    "linear": KindStyle("#D55E00", "s", "fully connected"),
    "attention": KindStyle("#CC79A7", "D", "attention"),
    "norm": KindStyle("#009E73", "^", "normalisation"),
    "activation": KindStyle("#56B4E9", "v", "activation"),
    "pool": KindStyle("#E69F00", "p", "pooling"),
    "dropout": KindStyle("#7F7F7F", "d", "dropout"),
    "elementwise": KindStyle("#F0E442", "P", "elementwise"),
    "reshape": KindStyle("#BBBBBB", "h", "reshape"),
    "loss": KindStyle("#000000", "X", "loss"),
    "optimizer": KindStyle("#5D3A9B", "*", "optimizer"),
    "mixed": KindStyle("#882255", "8", "several kinds"),
    "other": KindStyle("#999999", "H", "other"),
}

_P = ParamSpec("_P")
_T = TypeVar("_T")


def styled(draw: Callable[_P, _T]) -> Callable[_P, _T]:
    """Draw in our style, whatever matplotlib's settings are, and leave them as they were."""

    @wraps(draw)
    def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapper


def new_axes(width: float, height: float, left: float, bottom: float, right: float, top: float) -> Axes:
    """Axes in a figure of their own, with the given size and margins in inches. No pyplot, no window."""
    figure = Figure(figsize=(width, height), dpi=100)
    box = (left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height)
    return figure.add_axes(box)


def dress(ax: Axes, grid: str = "") -> None:
    """Give axes, which may be somebody else's, our spines, ticks and a thin grid along "x", "y" or "both"."""
    for side, spine in ax.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=SOFT, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(which="both", color=SOFT, labelcolor=INK)
    if grid:
        ax.grid(True, which="major", axis=grid, color=FAINT, linewidth=0.5)  # type: ignore[arg-type]


def dress_roofline(ax: Axes, rate: str) -> None:
    """Make axes those of a roofline: logarithmic, intensity across, and up a rate that is called so."""
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("arithmetic intensity (FLOP / byte)")
    ax.set_ylabel(rate)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: si(value, digits=1)))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(10))
        axis.set_minor_formatter(NullFormatter())
    ax.tick_params(which="minor", length=0)
    dress(ax, grid="both")


def shortened(text: str, limit: int = 30, end: bool = False) -> str:
    """A text that fits a label: on one line, cut at `limit` letters; with `end`, of a longer one its end is kept."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    if len(line) <= limit:
        return line
    return f"…{line[1 - limit :]}" if end else f"{line[: limit - 1]}…"


def layer_name(name: str) -> str:
    """How a layer is called in a plot: of a long path, the end."""
    return shortened(name, 30, end=True) or "(network)"


@styled
def save(figure: Figure, path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write a figure as PATH.svg and PATH.png, each whole or not at all, the same bytes on every run.

    Returns the two paths. Raises InputError if the folder cannot be written.
    """
    with mpl.rc_context({"svg.hashsalt": "costmodel", "svg.fonttype": "path"}):
        svg = _rendered(figure, "svg", {"Date": None, "Creator": None})
        png = _rendered(figure, "png", {"Software": None})
    return _written(Path(f"{os.fspath(path)}.svg"), svg), _written(Path(f"{os.fspath(path)}.png"), png)


def _rendered(figure: Figure, suffix: str, metadata: Mapping[str, None]) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format=suffix, dpi=160, metadata=metadata)
    return content.getvalue()


def _written(target: Path, content: bytes) -> Path:
    try:
        write_whole(target, content)
    except OSError as error:
        raise InputError(f"cannot write {target} ({error.strerror}): choose a folder that can be.") from None
    return target
