"""TOML files of numbers with sources: technologies and accelerators. What is wrong with one is said in one line.

A number is a fact: `{ value = 282e-12, source = "horowitz", note = "..." }`, where the file has a table
`[sources.horowitz]` with a title and a date, as device files have (`costmodel.devices`).
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from costmodel.devices import Fact, Source
from costmodel.errors import InputError, nearest

_DATE = re.compile(r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?")


class SourcedFile:
    """A TOML file whose numbers name their sources. Every method raises InputError for what cannot be."""

    def __init__(self, path: Path, what: str, listed_by: str) -> None:
        """Read `path`; `what` it describes ("technology") and what lists those that come with costmodel."""
        self.path = path
        self._what = what
        self._used: set[str] = set()
        try:
            self.document = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{path}: no such file. {listed_by}") from None
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}): give a {what}'s TOML file.") from None
        except ValueError as error:  # not TOML, or not even UTF-8
            reason = " ".join(str(error).split())
            raise InputError(f"{path}: not a TOML file ({reason}): correct it, or copy one of ours.") from None
        sources = self.table("sources") if "sources" in self.document else {}
        self._sources = {name: self._source(f"sources.{name}", table) for name, table in sources.items()}

    def error(self, name: str, problem: str) -> InputError:
        """An error about one field."""
        return InputError(f"{self.path}: {name}: {problem}.")

    def check_names(self, known: Collection[str], required: Iterable[str], prefix: str = "", table: Any = None) -> None:
        """Refuse a table (the file itself if None) with a field that is unknown, or without one that is needed."""
        table = self.document if table is None else table
        for name in table:
            if name not in known:
                raise InputError(f"{self.path}: {prefix}{name}: unknown field.{_instead(name, known)}")
        for name in required:
            if name not in table:
                raise self.error(f"{prefix}{name}", f"missing: {_a(self._what)} needs it")

    def table(self, name: str, within: Mapping[str, Any] | None = None, prefix: str = "") -> Mapping[str, Any]:
        """A table of the file, or of a table in it."""
        table = (self.document if within is None else within)[name]
        if not isinstance(table, dict):
            raise self.error(f"{prefix}{name}", f"not a table: write [{prefix}{name}]")
        return table

    def text(self, name: str, value: Any, choices: Collection[str] = ()) -> str:
        """A text, one of `choices` if there are any."""
        if not isinstance(value, str) or not value.strip():
            raise self.error(name, f"{value!r} is not a text: put it between quotes")
        if choices and value not in choices:
            raise InputError(f"{self.path}: {name}: {value!r} is unknown.{_instead(value, choices)}")
        return value

    def fact(self, name: str, table: Any, limits: tuple[float, float, str], whole: bool = False) -> Fact:
        """A number with its source; `limits` are the least and the most that it can be, and its unit."""
        if not isinstance(table, dict):
            raise self.error(name, f'without a source: write {name} = {{ value = {table}, source = "..." }}')
        self.check_names(Fact._fields, ("value", "source"), f"{name}.", table)
        if problem := implausible(table["value"], limits, whole):
            raise self.error(name, problem)
        source = self.text(f"{name}.source", table["source"])
        if source not in self._sources:
            raise InputError(
                f"{self.path}: {name}.source: there is no [sources.{source}].{nearest(source, self._sources)}"
            )
        self._used.add(source)
        note = self.text(f"{name}.note", table["note"]) if "note" in table else ""
        return Fact(table["value"], self._sources[source], note)

    def facts(
        self, prefix: str, table: Mapping[str, Any], limits: tuple[float, float, str]
    ) -> Iterator[tuple[str, Fact]]:
        """The numbers of a table, by their names in it."""
        return ((name, self.fact(f"{prefix}{name}", value, limits)) for name, value in table.items())

    def check_sources(self) -> None:
        """Refuse a source that no number refers to."""
        for name in self._sources:
            if name not in self._used:
                raise self.error(f"sources.{name}", "no number refers to it: remove it, or give it to a number")

    def _source(self, name: str, table: Any) -> Source:
        if not isinstance(table, dict):
            raise self.error(name, f"not a table: write [{name}]")
        self.check_names(Source._fields, ("title", "date"), f"{name}.", table)
        source = Source(**{key: self.text(f"{name}.{key}", value) for key, value in table.items()})
        if not _DATE.fullmatch(source.date):
            raise self.error(f"{name}.date", f'{source.date!r} is no date: write "2022", "2022-11" or "2022-11-30"')
        return source


def implausible(value: Any, limits: tuple[float, float, str], whole: bool = False) -> str:
    """What about a number cannot be, or an empty text."""
    low, high, unit = limits
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"{value!r} is not a number: give {unit}"
    if not math.isfinite(value) or value < 0 or (value == 0 and low > 0):
        return f"{value} is not a positive, finite number: give {unit}"
    if whole and value != int(value):
        return f"{value} is not a whole number: give {unit}"
    if not low <= value <= high:
        return f"{value:g} cannot be in {unit}: give it in that unit"
    return ""


def _instead(name: str, known: Collection[str]) -> str:
    return nearest(name, known) or f" Use {', '.join(known)}."


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
