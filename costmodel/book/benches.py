"""The measurements that a report shows: folders of records, each of one device, and what is predicted for their runs.

They are the records that come with costmodel, where they are of the report's networks, and those in the report's own
folder (`measurements/NAME/*.json`, beside `device.toml`, the calibrated device), as `costmodel suite` writes them. They
are only read: a report is the same bytes on every run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from costmodel.book.model import plain
from costmodel.devices import Device, read_device
from costmodel.errors import InputError
from costmodel.hardware import records
from costmodel.hardware.document import SCHEMA
from costmodel.hardware.record import Measurement, Run, read
from costmodel.hardware.retrace import traced
from costmodel.memory import memory_timeline
from costmodel.networks import find
from costmodel.units import plural
from costmodel.validation.measurement import Comparison, against, device_of

DEVICE_FILE = "device.toml"


class Compared(NamedTuple):
    """A run beside its prediction."""

    record: Measurement
    comparison: Comparison
    peak_bytes: int
    """The predicted peak of requested memory."""


class LeftOut(NamedTuple):
    """A run that cannot be compared, and why."""

    run: Run
    reason: str


@dataclass(frozen=True)
class Bench:
    """A folder of records: what one device did."""

    name: str
    device: Device | None
    """What is known of it, calibrated or not; None if nothing is."""

    records: tuple[Measurement, ...]

    @property
    def title(self) -> str:
        """The device's own name, and the CPU's threads."""
        first = self.records[0]
        threads = f", {plural(first.threads, 'thread')}" if first.target == "cpu" else ""
        return plain(first.device_name) + threads

    @property
    def runs(self) -> tuple[Run, ...]:
        """Every run, also those that failed."""
        return tuple(run for record in self.records for run in record.runs)

    @property
    def compared(self) -> tuple[Compared, ...]:
        """Each run that can be compared."""
        return tuple(each for each in self._outcomes if isinstance(each, Compared))

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """The others, but for those that failed."""
        return tuple(each for each in self._outcomes if isinstance(each, LeftOut))

    @cached_property
    def _outcomes(self) -> tuple[Compared | LeftOut, ...]:
        if self.device is None:
            return ()
        return tuple(
            _compared(record, run, self.device) for record in self.records for run in record.runs if not run.failure
        )


def _compared(record: Measurement, run: Run, device: Device) -> Compared | LeftOut:
    try:
        found = traced(run, find(run.model), record.target)
        return Compared(record, against(record, found, device), memory_timeline(found).peak_bytes)
    except InputError as error:  # an unknown network, other inputs than it takes, a type that the device lacks
        return LeftOut(run, str(error))


def benches_for(models: Iterable[str], folder: Path) -> tuple[Bench, ...]:
    """The benches in a report's folder, and the packaged ones that measured one of its networks, by name.

    Of two with the same name the folder's is shown: in a checkout they are the same.
    """
    wanted = set(models)
    packaged = {
        bench.name: bench for bench in benches(records.packaged()) if any(run.model in wanted for run in bench.runs)
    }
    found = packaged | {bench.name: bench for bench in benches(folder)}
    return tuple(found[name] for name in sorted(found))


def benches(folder: Path) -> tuple[Bench, ...]:
    """The records in a folder's subfolders. Raises InputError for a damaged record or device file."""
    found = []
    for place in sorted(path for path in folder.glob("*") if path.is_dir()):
        read_here = tuple(read(path) for path in sorted(place.glob("*.json")) if _is_record(path))
        if read_here:
            found.append(Bench(place.name, _device(place, read_here[0]), read_here))
    return tuple(found)


def _is_record(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as file:
        return f'"{SCHEMA}"' in file.read(200)


def _device(place: Path, record: Measurement) -> Device | None:
    if (place / DEVICE_FILE).exists():
        return read_device(place / DEVICE_FILE)
    try:
        return device_of(record)
    except InputError:
        return None
