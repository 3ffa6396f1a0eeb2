"""A suite's folder: what may lie in it before the suite begins.

That is nothing but the suite's own files, all made where it runs now: on the same device, with as many threads and the
same torch. Otherwise what is there already would be taken for what is measured now.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from costmodel.devices import read_device
from costmodel.errors import InputError
from costmodel.hardware.clock import device_title
from costmodel.hardware.record import read

DEVICE_FILE = "device.toml"
"""The calibrated device, beside the records that were made on it."""

LOG_FILE, TESTS_FILE = "suite.json", "tests.txt"


def check_folder(folder: Path, records: Collection[str], circumstances: Mapping[str, Any]) -> None:
    """Raises InputError, before anything runs, for a folder that a suite cannot go on with.

    Args:
        folder: where it is to go on.
        records: the names of the files that it may write there; a damaged one is left to the step that wants it.
        circumstances: those of now, as `clock.circumstances` reads them.
    """
    now = _text(device_title(circumstances), circumstances["versions"].get("torch"))
    for path in sorted(folder.iterdir()):
        if path.name in (LOG_FILE, TESTS_FILE) or path.name.startswith("."):
            continue
        try:
            made = _of_device(path) if path.name == DEVICE_FILE else _of_record(path)
        except InputError:
            if path.name in (DEVICE_FILE, *records):
                continue
            made = ""
        if not made:
            raise InputError(f"{folder} holds {path.name}, which no suite wrote: give a folder of its own (--output).")
        if made != now:
            raise InputError(f"{path} was made on {made}, and this is {now}: give another folder (--output).")


def _of_device(path: Path) -> str:
    """In what circumstances a device was calibrated; "" if it was not."""
    device = read_device(path)
    if "calibration" not in device.facts:
        return ""
    said = [each for each in device.facts["calibration"].source.via.split(", ") if each.startswith("torch ")]
    return _text(device.title.removesuffix(", calibrated"), said[0].removeprefix("torch ") if said else None)


def _of_record(path: Path) -> str:
    record = read(path)
    return _text(device_title(record.circumstances), record.circumstances["versions"].get("torch"))


def _text(device: str, torch: str | None) -> str:
    return f"{device}, with torch {torch}"
