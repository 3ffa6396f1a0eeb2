"""How long other programs took for the questions that the chip model answers: programs.toml, a record of runs."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import NamedTuple


class ProgramRun(NamedTuple):
    """A program, what it answered, and in which time."""

    program: str
    answer: str
    obtained: str
    """How the times were obtained."""

    low_seconds: float | None = None
    high_seconds: float | None = None
    """None beside a low end: it had not ended by then."""

    command: str = ""
    date: str = ""


def program_runs() -> tuple[ProgramRun, ...]:
    """The recorded runs, ours first."""
    text = (resources.files("costmodel.validation.chips") / "programs.toml").read_text(encoding="utf-8")
    return tuple(ProgramRun(**run) for run in tomllib.loads(text)["programs"])
