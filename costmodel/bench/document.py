"""A benchmark's frame as a markdown page: who comes closest, then a table for each network and way of calling."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costmodel.errors import InputError
from costmodel.files import write_whole
from costmodel.units import iec, seconds

if TYPE_CHECKING:
    import pandas as pd

STARTUP = "start-up"
"""The way of the rows that time an interpreter instead of an analysis."""

BARE = "python -c pass"
"""The interpreter that does nothing, with which the others are compared."""

_TITLE = "# Benchmark: how long an analysis takes"
_WAYS = {"readme": "as the README says", "expert": "on the meta device"}
_HEADINGS = ("program", "version", "best", "median", "quartile range", "times ours", "reports", "memory added", "")
_EXPLANATION = (
    "A row's time is that of the call alone; the network was built before. *As the README says*: real weights on the",
    "CPU, a real input. *On the meta device*: network and input have no values, which takes an expert; some programs",
    "do not survive it. *Times ours* divides best times. *Reports* is normalised to multiply-accumulates: a program",
    "that says something else than we do is marked, since it is easy to be fast and wrong (`costmodel validate` names",
    "each cause). *Memory added* is the most by which building and analysing the network raise a process that has",
    "everything loaded.",
    "",
)


def write(frame: pd.DataFrame, path: str | os.PathLike[str], *, force: bool = False) -> Path:
    """Write what `run` returned as a markdown report, whole or not at all, and return its path.

    Raises InputError if the folder cannot be written to, or if a file is there that is no such report and `force` is
    not set.
    """
    target = Path(path)
    try:
        if not force and target.exists() and not target.read_text(errors="replace").startswith(_TITLE):
            raise InputError(f"{target} is not a benchmark of ours: write elsewhere, or overwrite it with --force.")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, _document(frame).encode())
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror or error}.") from error
    return target


Record = Mapping[str, Any]
"""A row of the frame."""


def _document(frame: pd.DataFrame) -> str:
    records = [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
    races: dict[tuple[str, str], list[Record]] = {}
    for row in records:
        if row["way"] != STARTUP:
            races.setdefault((row["model"], row["way"]), []).append(row)
    unknown = dict.fromkeys(("command", "date", "rounds", "machine", "python"), "unknown")
    circumstances = unknown | {str(name): value for name, value in frame.attrs.items()}
    lines = [
        _TITLE,
        "",
        "Written by `{command}` on {date}: {rounds} rounds of three calls, {machine}, Python {python}.".format(
            **circumstances
        ),
        "",
        *_EXPLANATION,
        "## The closest program",
        "",
        *_table(
            ("network", "way", "closest", "times ours"),
            ((model, _WAYS[way], *_closest(rows)) for (model, way), rows in races.items()),
        ),
    ]
    for (model, way), rows in races.items():
        lines += [f"## {model}, {_WAYS[way]}", "", *_table(_HEADINGS, map(_cells, rows))]
    starts = [row for row in records if row["way"] == STARTUP]
    if starts:
        bare = next((row["best_seconds"] for row in starts if row["program"] == BARE), None)
        headings = ("what", "best", "median", "quartile range", f"times `{BARE}`", "")
        cells = (
            (*_cells(row), f"{row['best_seconds'] / bare:.1f}" if bare and _is_there(row["best_seconds"]) else "")
            for row in starts
        )
        lines += ["## Start-up", "", *_table(headings, ((row[0], *row[2:5], row[-1], row[-2]) for row in cells))]
    return "\n".join(lines)


def _closest(race: Sequence[Record]) -> tuple[str, str]:
    """The program whose best time comes closest to ours, whatever it reports; a bare forward reports nothing."""
    others = [row for row in race if row["program"] != "costmodel" and _is_there(row["macs"])]
    if not others:
        return "none ran", ""
    near = min(others, key=lambda row: row["times_ours"])
    return near["program"], f"{near['times_ours']:.1f}"


def _cells(row: Record) -> tuple[str, ...]:
    """A row as texts, empty where there is no value."""

    def shown(name: str, text: Callable[[Any], str]) -> str:
        return text(row[name]) if _is_there(row[name]) else ""

    verdict = shown("agrees", lambda agrees: "" if agrees else " (differs)")
    return (
        row["program"],
        shown("version", str),
        shown("best_seconds", seconds),
        shown("median_seconds", seconds),
        shown("quartile_range_seconds", seconds),
        shown("times_ours", lambda value: f"{value:.1f}"),
        shown("macs", lambda value: f"{value:,} MACs{verdict}"),
        shown("peak_bytes", iec),
        shown("problem", str),
    )


def _is_there(value: Any) -> bool:
    import pandas as pd

    return not pd.isna(value)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    escaped = ([cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows)
    body = [f"| {' | '.join(row)} |" for row in escaped]
    return [f"| {' | '.join(headings)} |", f"|{' --- |' * len(headings)}", *body, ""]
