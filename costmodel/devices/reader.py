"""A device's TOML file -> Device. A file that is damaged, incomplete or contradicts itself is refused in one line.

`costmodel.devices` shows the format.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from costmodel.devices.calibration import Calibration, FittedRates
from costmodel.devices.spec import NUMBERS, PATHS, RATES, Device
from costmodel.errors import InputError
from costmodel.facts import Fact, Range, SourcedFile

_TEXTS = ("title", "kind", "architecture")
_FIELDS = (*_TEXTS, "aliases", *NUMBERS, "peaks", "calibration", "sources")
_REQUIRED = ("title", "kind", "memory_bandwidth", "peaks", "sources")
_FITTED_RATES = tuple(f.name for f in dataclasses.fields(FittedRates))


def read_device(path: Path) -> Device:
    """The device that a TOML file describes; its name is the file's.

    Raises InputError if the file cannot be read, is not TOML, or has an unknown, missing or implausible field.
    """
    file = SourcedFile(path, "device", "`costmodel devices` lists the devices that need none.")
    document = file.document
    file.check_names(_FIELDS, _REQUIRED)
    texts: dict[str, Any] = {name: file.text(name, document[name]) for name in _TEXTS if name in document}
    peaks = file.table("peaks", document["peaks"])
    file.check_names(PATHS, ("fp32",), "peaks.", peaks)
    facts = {name: file.fact(name, document[name], limits) for name, limits in NUMBERS.items() if name in document}
    numbers: dict[str, Any] = {name: fact.value for name, fact in facts.items()}
    facts |= {f"peaks.{name}": file.fact(f"peaks.{name}", peaks[name], RATES) for name in PATHS if name in peaks}
    calibration = None
    if "calibration" in document:
        table = file.table("calibration", document["calibration"])
        calibration = _calibration(file, table)
        facts["calibration"] = Fact(calibration.cache_bytes, file.source("calibration.source", table["source"]))
    file.check_sources()
    try:
        return Device(
            name=path.stem,
            peaks={name: facts[f"peaks.{name}"].value for name in PATHS if name in peaks},
            aliases=file.texts("aliases", document.get("aliases", [])),
            facts=facts,
            calibration=calibration,
            **texts,
            **numbers,
        )
    except InputError as error:
        raise InputError(f"{path}: {str(error).removeprefix(f'{path.stem}: ')}") from None


def _calibration(file: SourcedFile, table: Mapping[str, Any]) -> Calibration:
    known = ("source", "cache_bytes", "fresh_from_bytes", "confidence", "classes", "products", "bandwidth", "noise")
    file.check_names(known, known[:5], "calibration.", table)
    cache, fresh = (file.number(f"calibration.{name}", table[name], NUMBERS["l3_bytes"]) for name in known[1:3])
    confidence = table["confidence"]
    if not isinstance(confidence, float) or not 0 < confidence < 1:
        raise file.error("calibration.confidence", f"{confidence!r} is not a share: give a number between 0 and 1")
    noise = table.get("noise")
    if noise is not None and (not isinstance(noise, float) or not 0 <= noise < math.inf):
        raise file.error("calibration.noise", f"{noise!r} is not a share: give 0.0 or more")
    classes: dict[str, dict[str, FittedRates]] = {}
    for name, paths in file.tables("calibration.classes", table["classes"]).items():
        where = f"calibration.classes.{name}"
        file.check_names(PATHS, (), f"{where}.", paths)
        measured = file.tables(where, paths)
        classes[name] = {path: _fitted_rates(file, f"{where}.{path}", numbers) for path, numbers in measured.items()}
    products = file.tables("calibration.products", table.get("products", {}))
    file.check_names(PATHS, (), "calibration.products.", products)
    bandwidth = file.table("calibration.bandwidth", table.get("bandwidth", {}))
    return Calibration(
        cache,
        fresh,
        confidence,
        classes,
        {path: _by_size(file, f"calibration.products.{path}.", rates, RATES) for path, rates in products.items()},
        _by_size(file, "calibration.bandwidth.", bandwidth, NUMBERS["memory_bandwidth"]),
        noise,
    )


def _fitted_rates(file: SourcedFile, where: str, table: Mapping[str, Any]) -> FittedRates:
    file.check_names(_FITTED_RATES, _FITTED_RATES, f"{where}.", table)
    try:
        return FittedRates(**table)
    except InputError as error:
        raise file.error(where, str(error)) from None


def _by_size(file: SourcedFile, prefix: str, table: Mapping[str, Any], limits: Range) -> dict[int, float]:
    found = {}
    for size, value in table.items():
        if not size.isdecimal():
            raise file.error(f"{prefix}{size}", "not a size: write a whole number")
        found[int(size)] = file.number(f"{prefix}{size}", value, limits)
    return found
