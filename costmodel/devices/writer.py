"""Device -> the text of its TOML file, which `reader` reads back to the same device."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

from costmodel.devices.calibration import Calibration
from costmodel.devices.spec import NUMBERS, PATHS, Device
from costmodel.errors import InputError
from costmodel.facts import Fact, Source


def to_toml(device: Device) -> str:
    """The file that describes a device. Raises InputError if a number of it has no source."""
    names = [name for name in NUMBERS if getattr(device, name) is not None]
    names += [f"peaks.{path}" for path in device.peaks]
    names += ["calibration"] if device.calibration else []
    for name in names:
        if name not in device.facts:
            raise InputError(f"{device.name}: {name} has no source: a device file gives one with every number.")
    keys = _keys(device)
    texts = {name: getattr(device, name) for name in ("title", "kind", "architecture")}
    lines = [f"{name} = {_text(text)}" for name, text in texts.items() if text]
    if device.aliases:
        lines.append(f"aliases = [{', '.join(map(_text, device.aliases))}]")
    lines += ["", *(f"{name} = {_fact(device.facts[name], keys)}" for name in names if name in NUMBERS)]
    lines += ["", "[peaks]  # FLOP/s, dense"]
    lines += [f"{path} = {_fact(device.facts[f'peaks.{path}'], keys)}" for path in PATHS if path in device.peaks]
    if device.calibration:
        lines += ["", *_calibration(device.calibration, keys[device.facts["calibration"].source])]
    for source, key in keys.items():
        lines += ["", f"[sources.{key}]"]
        lines += [f"{name} = {_text(value)}" for name, value in source._asdict().items() if value]
    return "\n".join(lines) + "\n"


def _keys(device: Device) -> dict[Source, str]:
    """A name for each source."""
    sources = list(dict.fromkeys(fact.source for fact in device.facts.values()))
    return {source: f"source{number}" for number, source in enumerate(sources, 1)}


def _fact(fact: Fact, keys: Mapping[Source, str]) -> str:
    note = f", note = {_text(fact.note)}" if fact.note else ""
    return f"{{ value = {_number(fact.value)}, source = {_text(keys[fact.source])}{note} }}"


def _calibration(calibration: Calibration, source: str) -> list[str]:
    lines = [
        "[calibration]",
        f"source = {_text(source)}",
        f"cache_bytes = {calibration.cache_bytes}",
        f"fresh_from_bytes = {calibration.fresh_from_bytes}",
        f"confidence = {_number(calibration.confidence)}",
    ]
    lines += [f"noise = {_number(calibration.noise)}"] if calibration.noise is not None else []
    for name, paths in calibration.classes.items():
        for path, fitted_rates in paths.items():
            lines += ["", f"[calibration.classes.{name}.{path}]"]
            lines += [f"{key} = {_number(value)}" for key, value in dataclasses.asdict(fitted_rates).items()]
    for path, rates in calibration.products.items():
        lines += ["", f"[calibration.products.{path}]  # FLOP/s of n x n matrix products"]
        lines += [f"{size} = {_number(rate)}" for size, rate in rates.items()]
    if calibration.bandwidth:
        lines += ["", "[calibration.bandwidth]  # bytes/s, read and written, by bytes of the working set"]
        lines += [f"{size} = {_number(rate)}" for size, rate in calibration.bandwidth.items()]
    return lines


def _number(value: float) -> str:
    """A number as TOML has it, so that it reads back the same."""
    return str(value) if isinstance(value, int) else repr(float(value))


def _text(value: str) -> str:
    """A text as TOML has it: JSON's escapes are TOML's, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
