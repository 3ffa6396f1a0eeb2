"""A report's figures as files, drawn by as many processes as there are cores.

Processes are forked, as what a figure is drawn from is in memory and need not travel; where a system cannot fork, or a
process fails, this one draws. Drawing runs no arithmetic in torch, whose threads a fork would not have.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from costmodel import plots
from costmodel.book.model import Figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

SUFFIXES = ("svg", "png")


def drawn(figures: Sequence[Figure], tell: Callable[[Figure], None]) -> dict[str, bytes]:
    """Each figure's files, by their paths in the report's folder; `tell` is called with what this process draws."""
    with tempfile.TemporaryDirectory() as scratch:
        _draw_all(figures, Path(scratch), tell)
        return {
            f"figures/{figure.name}.{suffix}": (Path(scratch) / f"{figure.name}.{suffix}").read_bytes()
            for figure in figures
            for suffix in SUFFIXES
        }


def _draw_all(figures: Sequence[Figure], folder: Path, tell: Callable[[Figure], None]) -> None:
    forks = "fork" in multiprocessing.get_all_start_methods()
    count = max(1, min(_cores(), len(figures))) if forks else 1
    shares = [figures[start::count] for start in range(1, count)]
    context = multiprocessing.get_context("fork" if forks else None)
    others = [context.Process(target=_draw_quietly, args=(share, folder)) for share in shares]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads: no lock of theirs is taken
        for process in others:
            process.start()
    try:
        for figure in figures[::count]:
            tell(figure)
            _draw(figure, folder)
        for process in others:
            process.join()
    finally:
        for process in others:
            process.kill()
    for figure in figures:
        if not all((folder / f"{figure.name}.{suffix}").exists() for suffix in SUFFIXES):
            tell(figure)
            _draw(figure, folder)


def _draw(figure: Figure, folder: Path) -> None:
    plots.save(cast("Drawing", figure.draw().figure), folder / figure.name)


def _draw_quietly(figures: Sequence[Figure], folder: Path) -> None:
    """Draw until one fails: what is missing is drawn, and its error raised, by the process that waits."""
    try:
        for figure in figures:
            _draw(figure, folder)
    except Exception:
        os._exit(1)


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
