"""Figures drawn by several processes: all of them, the same bytes as by one, and errors that are not lost."""

from __future__ import annotations

import os

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from costmodel.book import draw
from costmodel.book.model import Figure
from costmodel.errors import InputError


def line(height: float) -> Axes:
    ax = Drawing().add_subplot()
    ax.plot([0, height])
    return ax


FIGURES = [Figure(f"line-{height}", lambda height=height: line(height)) for height in range(5)]  # type: ignore[misc]


def test_as_many_processes_as_there_are_cores_draw_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    found, told = [], []
    for cores in (1, 3):
        monkeypatch.setattr(draw, "_cores", lambda cores=cores: cores)
        names: list[str] = []
        found.append(draw.drawn(FIGURES, lambda figure, names=names: names.append(figure.name)))  # type: ignore[misc]
        told.append(names)
    assert found[0] == found[1]
    assert list(found[0]) == [f"figures/line-{height}.{suffix}" for height in range(5) for suffix in ("svg", "png")]
    assert len(set(found[0].values())) == 10
    assert told == [[f"line-{height}" for height in range(5)], ["line-0", "line-3"]]
    assert draw.drawn([], print) == {}


def test_what_another_process_cannot_draw_this_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw, "_cores", lambda: 2)
    here = os.getpid()

    def only_here() -> Axes:
        if os.getpid() != here:
            raise RuntimeError("not here")
        return line(7)

    told: list[str] = []
    figures = [FIGURES[0], Figure("late", only_here), FIGURES[1]]
    assert len(draw.drawn(figures, lambda figure: told.append(figure.name))) == 6
    assert told == ["line-0", "line-1", "late"]


def test_a_figure_that_cannot_be_drawn_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing() -> Axes:
        raise InputError("there is nothing to draw.")

    for cores in (1, 2):
        monkeypatch.setattr(draw, "_cores", lambda cores=cores: cores)
        for place in (0, 1):
            figures = [*FIGURES[:place], Figure("bad", nothing), *FIGURES[place:2]]
            with pytest.raises(InputError, match="nothing to draw"):
                draw.drawn(figures, lambda figure: None)
