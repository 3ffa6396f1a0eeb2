"""Devices by name: what each can reach at most, with the source and date of every number.

A device is a TOML file beside this one, or anybody's own: copy one, and give every number with its source.

    title = "My GPU"
    kind = "gpu"                                                  # or "cpu"
    memory_bandwidth = { value = 1.0e12, source = "datasheet" }   # bytes/s
    memory_bytes = { value = 17179869184, source = "datasheet" }

    [peaks]                                                       # FLOP/s, dense; a multiply-accumulate is two
    fp32 = { value = 20e12, source = "datasheet", note = "derived: 5120 cores x 2 x 1.95 GHz" }
    fp16 = { value = 160e12, source = "datasheet" }

    [sources.datasheet]
    title = "My GPU, datasheet"
    url = "https://example.com/my-gpu.pdf"
    date = "2026-11"

`title`, `kind`, `memory_bandwidth` and `peaks.fp32` are required; `aliases`, `architecture` and the other numbers of
`Device` are optional. A table `[calibration]` (see `calibration.py`), which `costmodel calibrate` writes, holds the
measured rates of the device; without one a device gives bounds and no estimates.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from os import PathLike, fspath
from pathlib import Path

from costmodel.devices.calibration import Calibration, FittedRates
from costmodel.devices.reader import read_device
from costmodel.devices.spec import PATHS, Device
from costmodel.devices.writer import to_toml
from costmodel.errors import InputError, nearest
from costmodel.facts import Fact, Source

__all__ = [
    "PATHS",
    "Calibration",
    "Device",
    "Fact",
    "FittedRates",
    "Source",
    "device",
    "names",
    "read_device",
    "to_toml",
]  # fmt: skip


def names() -> list[str]:
    """The names of the devices that come with costmodel."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.toml"))


def device(name_or_path: str | PathLike[str] | Device) -> Device:
    """A device by its name ("h200", "RTX 3090", "NVIDIA A100-SXM4-80GB"), or read from a TOML file of yours.

    A device is returned as it is, so that a function that takes a device also takes its name.

    Names ignore case, spaces, dashes and the vendor; what ends in ".toml" or holds a path separator is a file.
    Raises InputError for an unknown name, with the nearest ones, and for a file that cannot be read or makes no sense.
    """
    if isinstance(name_or_path, Device):
        return name_or_path
    if not isinstance(name_or_path, (str, PathLike)):
        raise InputError(f"{name_or_path!r} is not a device: give a name like 'h200', or a TOML file's path.")
    text = fspath(name_or_path)
    if not isinstance(name_or_path, str) or text.lower().endswith(".toml") or "/" in text or "\\" in text:
        return read_device(Path(text))
    found = _catalogue().get(_key(text))
    if found is None:
        hint = nearest(text, names()) or " `costmodel devices` lists them."
        raise InputError(f"unknown device {text!r}.{hint} A device file of your own ends in .toml.")
    return found


@cache
def _catalogue() -> Mapping[str, Device]:
    """Our devices by every name they answer to."""
    ours = [read_device(Path(__file__).with_name(f"{name}.toml")) for name in names()]
    return {_key(name): found for found in ours for name in (found.name, found.title, *found.aliases)}


def _key(name: str) -> str:
    """The part of a name that is compared: letters and digits, without the vendor and its product lines."""
    words = name.lower()
    for noise in ("nvidia", "geforce", "tesla", "intel"):
        words = words.replace(noise, "")
    return "".join(character for character in words if character.isalnum())
