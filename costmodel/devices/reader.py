"""A device's TOML file -> Device. A file that is damaged, incomplete or contradicts itself is refused in one line.

The line names the file, the field and what to do. `costmodel.devices` shows the format.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from costmodel.devices.calibration import Calibration, Ceilings
from costmodel.devices.spec import NUMBERS, PATHS, Device, Fact, Source, implausible
from costmodel.errors import InputError, nearest

_TEXTS = ("title", "kind", "architecture")
_FIELDS = (*_TEXTS, "aliases", *NUMBERS, "peaks", "calibration", "sources")
_REQUIRED = ("title", "kind", "memory_bandwidth", "peaks", "sources")
_DATE = re.compile(r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?")


def read_device(path: Path) -> Device:
    """The device that a TOML file describes; its name is the file's.

    Raises InputError if the file cannot be read, is no TOML, or has an unknown, missing or senseless field.
    """
    document = _load(path)
    _check_names(path, "", document, _FIELDS, _REQUIRED)
    sources = {
        name: _source(path, f"sources.{name}", table) for name, table in _table(path, document, "sources").items()
    }
    peaks = _table(path, document, "peaks")
    _check_names(path, "peaks.", peaks, PATHS, ("fp32",))
    facts = {name: _fact(path, name, document[name], sources) for name in NUMBERS if name in document}
    facts |= {f"peaks.{name}": _fact(path, f"peaks.{name}", peaks[name], sources) for name in PATHS if name in peaks}
    calibration = None
    if "calibration" in document:
        calibration = _calibration(path, _table(path, document, "calibration"))
        facts["calibration"] = Fact(calibration.cache_bytes, _named_source(path, "calibration", document, sources))
    used = {fact.source for fact in facts.values()}
    for name, source in sources.items():
        if source not in used:
            raise _error(path, f"sources.{name}", "no number refers to it: remove it, or give it to a number")
    texts: dict[str, Any] = {name: _text(path, name, document[name]) for name in _TEXTS if name in document}
    numbers: dict[str, Any] = {name: facts[name].value for name in NUMBERS if name in facts}
    try:
        return Device(
            name=path.stem,
            peaks={name: facts[f"peaks.{name}"].value for name in PATHS if name in peaks},
            aliases=_texts(path, "aliases", document.get("aliases", [])),
            facts=facts,
            calibration=calibration,
            **texts,
            **numbers,
        )
    except InputError as error:
        raise InputError(f"{path}: {str(error).removeprefix(f'{path.stem}: ')}") from None


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file. `costmodel devices` lists the devices that need none.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): give a device's TOML file.") from None
    except ValueError as error:  # not TOML, or not even UTF-8
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a TOML file ({reason}): correct it, or copy a device of ours.") from None


def _error(path: Path, name: str, problem: str) -> InputError:
    return InputError(f"{path}: {name}: {problem}.")


def _check_names(
    path: Path, prefix: str, table: Mapping[str, Any], known: Iterable[str], required: Iterable[str]
) -> None:
    for name in table:
        if name not in known:
            hint = nearest(name, known) or f" Use {', '.join(known)}."
            raise InputError(f"{path}: {prefix}{name}: unknown field.{hint}")
    for name in required:
        if name not in table:
            raise _error(path, f"{prefix}{name}", "missing: a device needs it")


def _table(path: Path, document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    if not isinstance(document[name], dict):
        raise _error(path, name, f"not a table: write [{name}]")
    return document[name]


def _text(path: Path, name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _error(path, name, f"{value!r} is not a text: put it between quotes")
    return value


def _texts(path: Path, name: str, values: Any) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise _error(path, name, f'not a list of texts: write {name} = ["...", "..."]')
    return tuple(_text(path, name, value) for value in values)


def _source(path: Path, name: str, table: Any) -> Source:
    if not isinstance(table, dict):
        raise _error(path, name, f"not a table: write [{name}]")
    _check_names(path, f"{name}.", table, Source._fields, ("title", "date"))
    source = Source(**{key: _text(path, f"{name}.{key}", value) for key, value in table.items()})
    if not _DATE.fullmatch(source.date):
        raise _error(path, f"{name}.date", f'{source.date!r} is no date: write "2022", "2022-11" or "2022-11-30"')
    return source


def _fact(path: Path, name: str, table: Any, sources: Mapping[str, Source]) -> Fact:
    if not isinstance(table, dict):
        raise _error(path, name, f'without a source: write {name} = {{ value = {table}, source = "..." }}')
    _check_names(path, f"{name}.", table, Fact._fields, ("value", "source"))
    if problem := implausible(name, table["value"]):
        raise InputError(f"{path}: {problem}.")
    source = _named_source(path, name, {name: table}, sources)
    note = _text(path, f"{name}.note", table["note"]) if "note" in table else ""
    return Fact(table["value"], source, note)


def _named_source(path: Path, name: str, document: Mapping[str, Any], sources: Mapping[str, Source]) -> Source:
    """The source that the table `name` refers to."""
    source = _text(path, f"{name}.source", document[name].get("source"))
    if source not in sources:
        raise InputError(f"{path}: {name}.source: there is no [sources.{source}].{nearest(source, sources)}")
    return sources[source]


_CEILINGS = tuple(f.name for f in dataclasses.fields(Ceilings))


def _calibration(path: Path, table: Mapping[str, Any]) -> Calibration:
    known = ("source", "cache_bytes", "fresh_from_bytes", "confidence", "classes", "products", "bandwidth")
    _check_names(path, "calibration.", table, known, known[:5])
    cache, fresh, confidence = (table[name] for name in known[1:4])
    for name in known[1:3]:
        if problem := implausible("l3_bytes", table[name]):
            raise _error(path, f"calibration.{name}", problem.partition(": ")[2])
    if not isinstance(confidence, float) or not 0 < confidence < 1:
        raise _error(path, "calibration.confidence", f"{confidence!r} is no share: give a number between 0 and 1")
    classes: dict[str, dict[str, Ceilings]] = {}
    for name, paths in _inner(path, "calibration.classes", table["classes"]).items():
        where = f"calibration.classes.{name}"
        _check_names(path, f"{where}.", _inner(path, where, paths), PATHS, ())
        classes[name] = {key: _ceilings(path, f"{where}.{key}", numbers) for key, numbers in paths.items()}
    products = _inner(path, "calibration.products", table.get("products", {}))
    _check_names(path, "calibration.products.", products, PATHS, ())
    return Calibration(
        cache,
        fresh,
        confidence,
        classes,
        {name: _by_size(path, f"calibration.products.{name}", rates, "peaks") for name, rates in products.items()},
        _by_size(path, "calibration.bandwidth", table.get("bandwidth", {}), "memory_bandwidth"),
    )


def _ceilings(path: Path, where: str, table: Any) -> Ceilings:
    _check_names(path, f"{where}.", _inner(path, where, table), _CEILINGS, _CEILINGS)
    try:
        return Ceilings(**table)
    except InputError as error:
        raise _error(path, where, str(error)) from None


def _by_size(path: Path, where: str, table: Any, unit_of: str) -> dict[int, float]:
    found = {}
    for size, value in _inner(path, where, table).items():
        if not size.isdecimal():
            raise _error(path, f"{where}.{size}", "not a size: write a whole number")
        if problem := implausible(unit_of, value):
            raise _error(path, f"{where}.{size}", problem.partition(": ")[2])
        found[int(size)] = value
    return found


def _inner(path: Path, where: str, table: Any) -> Mapping[str, Any]:
    if not isinstance(table, dict):
        raise _error(path, where, f"not a table: write [{where}]")
    return table
