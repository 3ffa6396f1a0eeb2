"""Device -> the text of its TOML file, which `reader` reads back to the same device."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import tomli_w

from costmodel.devices.calibration import Calibration
from costmodel.devices.spec import NUMBERS, PATHS, Device
from costmodel.errors import InputError


def to_toml(device: Device) -> str:
    """The file that describes a device. Raises InputError if a number of it has no source."""
    names = [name for name in NUMBERS if getattr(device, name) is not None]
    peaks = [path for path in PATHS if path in device.peaks]
    for name in (*names, *(f"peaks.{path}" for path in peaks), *(["calibration"] if device.calibration else [])):
        if name not in device.facts:
            raise InputError(f"{device.name}: {name} has no source: a device file gives one with every number.")
    sources = dict.fromkeys(fact.source for fact in device.facts.values())
    keys = {source: f"source{number}" for number, source in enumerate(sources, 1)}

    def fact(name: str) -> dict[str, Any]:
        found = device.facts[name]
        return _given({"value": found.value, "source": keys[found.source], "note": found.note})

    document: dict[str, Any] = {name: getattr(device, name) for name in ("title", "kind", "architecture")}
    document["aliases"] = list(device.aliases)
    document |= {name: fact(name) for name in names}
    document["peaks"] = {path: fact(f"peaks.{path}") for path in peaks}
    if device.calibration:
        document["calibration"] = _calibration(device.calibration, keys[device.facts["calibration"].source])
    document["sources"] = {key: _given(source._asdict()) for source, key in keys.items()}
    return tomli_w.dumps(_given(document))


def _calibration(calibration: Calibration, source: str) -> dict[str, Any]:
    """Sizes, which are keys, as text; a calibration without noise has none in its file."""
    products = {path: _by_size(rates) for path, rates in calibration.products.items()}
    tables = {"products": products, "bandwidth": _by_size(calibration.bandwidth)}
    plain = {name: value for name, value in dataclasses.asdict(calibration).items() if value is not None}
    return {"source": source} | plain | tables


def _by_size(rates: Mapping[int, float]) -> dict[str, float]:
    return {str(size): rate for size, rate in rates.items()}


def _given(table: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a table that are not empty; a value may be 0."""
    return {name: value for name, value in table.items() if value not in ("", [])}
