"""Numbers with their sources, and the TOML files that hold them: devices, accelerators, technologies.

A number is a fact: `{ value = 282e-12, source = "horowitz", note = "..." }`, where the file has a table
`[sources.horowitz]` with a title and a date. What is wrong with a file is said in one line: file, field, what to do.
"""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from costmodel.errors import InputError, nearest, with_article


class Source(NamedTuple):
    """Where numbers come from."""

    title: str
    date: str
    """When it was published, or read where it bears no date: "2022", "2022-11" or "2022-11-30"."""

    url: str = ""
    via: str = ""
    """Where its figures were read, if not in the document itself."""


class Fact(NamedTuple):
    """A number, and how we know it."""

    value: float
    source: Source
    note: str = ""


class Range(NamedTuple):
    """Limits of a number: one outside is probably in another unit, such as GB/s for bytes/s."""

    low: float
    """The least; 0 where the number may be 0."""

    high: float
    unit: str
    whole: bool = False
    """Whether it counts things."""

    def problem(self, value: Any) -> str:
        """What is wrong with a number, or an empty text."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return f"{value!r} is not a number: give {self.unit}"
        if self.low > 0 and not (math.isfinite(value) and value > 0):
            return f"{value} is not a positive, finite number: give {self.unit}"
        if not (math.isfinite(value) and value >= 0):
            return f"{value} is negative or not finite: give {self.unit}, 0 or more"
        if self.whole and value != int(value):
            return f"{value} is not a whole number: give {self.unit}"
        if self.low <= value <= self.high:
            return ""
        if self.whole:
            return f"{value:,.0f} {self.unit} cannot be: give {self.low:,.0f} to {self.high:,.0f}"
        meant = self._meant(value)
        return f"{value:g} cannot be in {self.unit}: give {_engineering(self.low)} to {_engineering(self.high)}" + (
            f"; was {meant} meant?" if meant else ""
        )

    def _meant(self, value: float) -> str:
        """A number that is too small with the prefix that it was likely thought of in: 800 for Hz as "800e6"."""
        middle = math.sqrt(self.low * self.high)
        fitting = [power for power in (3, 6, 9, 12) if self.low <= value * 10**power <= self.high]
        if not fitting or "e" in f"{value:g}":
            return ""
        return f"{value:g}e{min(fitting, key=lambda power: abs(math.log10(value * 10**power / middle)))}"


_Described = TypeVar("_Described")


def with_other(described: _Described, what: str, changes: Mapping[str, Any]) -> _Described:
    """The same dataclass with other numbers, whose sources it then lacks; its title says what changed.

    Raises InputError for a field that `what` ("a device") does not have.
    """
    old: Any = described
    known = [f.name for f in dataclasses.fields(old) if f.name != "facts"]
    for name in changes:
        if name not in known:
            raise InputError(f"{what} has no {name!r}: it has {', '.join(known)}.{nearest(name, known)}")
    changed = [name for name in changes if changes[name] != getattr(old, name)]
    facts = {name: fact for name, fact in old.facts.items() if name.partition(".")[0] not in changed}
    title = f"{old.title} with other {', '.join(changed)}" if changed else old.title
    return dataclasses.replace(old, **{"title": title, "facts": facts, **changes})


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
            raise InputError(
                f"{path}: cannot be read ({error.strerror}): give {with_article(what)}'s TOML file."
            ) from None
        except ValueError as error:  # not TOML, or not even UTF-8
            reason = " ".join(str(error).split())
            raise InputError(f"{path}: not a TOML file ({reason}): correct it, or copy one of ours.") from None
        sources = self.tables("sources", self.document.get("sources", {}))
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
                raise self.error(f"{prefix}{name}", f"missing: {with_article(self._what)} needs it")

    def table(self, name: str, value: Any) -> Mapping[str, Any]:
        """A table."""
        if not isinstance(value, dict):
            raise self.error(name, f"not a table: write [{name}]")
        return value

    def tables(self, name: str, value: Any) -> dict[str, Mapping[str, Any]]:
        """A table of tables."""
        return {key: self.table(f"{name}.{key}", table) for key, table in self.table(name, value).items()}

    def text(self, name: str, value: Any, choices: Collection[str] = ()) -> str:
        """A text, one of `choices` if there are any."""
        if not isinstance(value, str) or not value.strip():
            raise self.error(name, f"{value!r} is not a text: put it between quotes")
        if choices and value not in choices:
            raise InputError(f"{self.path}: {name}: {value!r} is unknown.{_instead(value, choices)}")
        return value

    def texts(self, name: str, values: Any) -> tuple[str, ...]:
        """A list of texts."""
        if not isinstance(values, list):
            raise self.error(name, f'not a list of texts: write {name} = ["...", "..."]')
        return tuple(self.text(name, value) for value in values)

    def number(self, name: str, value: Any, limits: Range) -> Any:
        """A number that stands alone."""
        if problem := limits.problem(value):
            raise self.error(name, problem)
        return value

    def fact(self, name: str, table: Any, limits: Range) -> Fact:
        """A number with its source."""
        if not isinstance(table, dict):
            raise self.error(name, f'without a source: write {name} = {{ value = {table}, source = "..." }}')
        self.check_names(Fact._fields, ("value", "source"), f"{name}.", table)
        value = self.number(name, table["value"], limits)
        note = self.text(f"{name}.note", table["note"]) if "note" in table else ""
        return Fact(value, self.source(f"{name}.source", table["source"]), note)

    def facts(self, prefix: str, table: Mapping[str, Any], limits: Range) -> Iterator[tuple[str, Fact]]:
        """The numbers of a table, by their names in it."""
        return ((name, self.fact(f"{prefix}{name}", value, limits)) for name, value in table.items())

    def source(self, name: str, key: Any) -> Source:
        """The source that the field `name` refers to by its key."""
        if self.text(name, key) not in self._sources:
            raise InputError(f"{self.path}: {name}: there is no [sources.{key}].{nearest(key, self._sources)}")
        self._used.add(key)
        return self._sources[key]

    def check_sources(self) -> None:
        """Refuse a source that no number refers to."""
        for name in self._sources:
            if name not in self._used:
                raise self.error(f"sources.{name}", "no number refers to it: remove it, or give it to a number")

    def _source(self, name: str, table: Mapping[str, Any]) -> Source:
        self.check_names(Source._fields, ("title", "date"), f"{name}.", table)
        source = Source(**{key: self.text(f"{name}.{key}", value) for key, value in table.items()})
        if not _DATE.fullmatch(source.date):
            raise self.error(f"{name}.date", f'{source.date!r} is not a date: write "2022", "2022-11" or "2022-11-30"')
        return source


def _engineering(value: float) -> str:
    """A number with an exponent of three: 100e3; 0 as it is."""
    power = math.floor(math.log10(value) / 3 + 1e-9) * 3 if value else 0
    return f"{value / 10**power:g}" + (f"e{power}" if power else "")


def _instead(name: str, known: Collection[str]) -> str:
    return nearest(name, known) or f" Use {', '.join(known)}."
