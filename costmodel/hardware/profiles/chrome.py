"""torch.profiler's Chrome trace -> events, read in pieces, and of a trace of gigabytes the first million of them.

The format is the Trace Event Format (https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU)
as Kineto writes it (https://github.com/pytorch/kineto, libkineto/src/output_json.cpp): an object with "traceEvents",
and the GPUs' properties beside it. Until torch 1.11 categories had other names ("Operator", "Kernel") and kernels an
"external id"; both are read as today's. Of a trace's other metadata (environment, host, paths) nothing is kept.
"""

from __future__ import annotations

import gzip
import math
import re
import statistics
import zlib
from collections.abc import Callable, Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import msgspec

from costmodel.errors import InputError
from costmodel.hardware.profiles.events import (
    ANNOTATION,
    LAUNCHES,
    MODULE,
    MODULE_PREFIX,
    ON_DEVICE,
    OPERATOR,
    Allocation,
    Dims,
    Event,
    Profile,
    Properties,
)
from costmodel.typed import explained


def read(path: str | PathLike[str]) -> Profile:
    """The trace in a file, plain or gzipped.

    Raises InputError, with the file's name, for a file that cannot be read, is cut off, or is no trace of
    torch.profiler.
    """
    try:
        with Path(path).open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            return _read((gzip.open(raw) if packed else raw).read)
    except OSError as error:  # BadGzipFile too
        raise InputError(f"{path}: cannot be read: {error.strerror or error}.") from None
    except (EOFError, zlib.error):
        raise InputError(f"{path}: {_CUT_OFF}") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


class _Args(msgspec.Struct):
    external: Any = msgspec.field(default=None, name="External id")
    external_until_1_11: Any = msgspec.field(default=None, name="external id")
    correlation: Any = None
    sequence: Any = msgspec.field(default=None, name="Sequence number")
    dims: msgspec.Raw = msgspec.field(default=msgspec.Raw(b""), name="Input Dims")
    dims_until_2_0: msgspec.Raw = msgspec.field(default=msgspec.Raw(b""), name="Input dims")
    device: Any = None
    stream: Any = None
    device_type: Any = msgspec.field(default=None, name="Device Type")
    copied: Any = msgspec.field(default=None, name="bytes")
    nbytes: Any = msgspec.field(default=None, name="Bytes")
    allocated: Any = msgspec.field(default=None, name="Total Allocated")
    reserved: Any = msgspec.field(default=None, name="Total Reserved")


class _Raw(msgspec.Struct):
    ph: Any = ""
    cat: Any = ""
    name: Any = ""
    pid: Any = None
    tid: Any = None
    ts: float = 0.0
    dur: float | None = None
    args: _Args | None = None


class _Header(msgspec.Struct):
    devices: list[Properties] = msgspec.field(default=[], name="deviceProperties")
    distributed: Any = msgspec.field(default=None, name="distributedInfo")


_CHUNK = 8 << 20
_LONGEST_HEAD = 64 << 20
_OPENING = re.compile(rb'"traceEvents"\s*:\s*\[')
_BETWEEN = re.compile(rb"\}\s*,\s*(?=\{)")
_AT_THE_END = re.compile(rb"\}\s*\]")
_NO_NUMBER = re.compile(rb"(:\s*)-?(?:nan|inf|Infinity|NaN)\b")
_TRIES = 200

_MOST_EVENTS = 1_000_000
"""Of a longer trace the beginning is kept: some hundred steps of a network, in half a gigabyte of memory."""

_CUT_OFF = "this trace is cut off: its JSON ends in the middle. Let the profiler finish, and export it again."
_OTHER = "this is no trace of torch.profiler: give what `export_chrome_trace` or `tensorboard_trace_handler` wrote."

_CATEGORIES = {
    "Operator": OPERATOR, "Runtime": "cuda_runtime", "Kernel": "kernel", "Memcpy": "gpu_memcpy", "Memset": "gpu_memset",
    **{name: name for name in (OPERATOR, ANNOTATION, *LAUNCHES, *ON_DEVICE)},
}  # fmt: skip
"""Of the categories that are kept, also by their names until torch 1.11."""

_NEEDED = re.compile(r"Launch|Memcpy|Memset|Synchronize|Malloc|Free|Graph")
"""The runtime's calls that start or hold up work; of the others there are as many as of these."""

_decode = msgspec.json.Decoder(list[_Raw]).decode


def _read(read: Callable[[int], bytes]) -> Profile:
    head = b""
    while not (opening := _OPENING.search(head)):
        more = read(_CHUNK)
        head += more
        if not more or len(head) > _LONGEST_HEAD:
            raise InputError(
                _CUT_OFF if more == b"" and head.lstrip()[:1] == b"{" and b"schemaVersion" in head else _OTHER
            )
    found = _Found()
    tail = b""
    for raw, rest in _pieces(read, head[opening.end() :]):
        found.add(raw)
        tail = rest
    try:
        header = msgspec.json.decode(_numbers(head[: opening.start()] + b'"traceEvents": []' + tail), type=_Header)
    except msgspec.DecodeError:
        raise InputError(_OTHER) from None
    if not found.events and not header.devices:
        raise InputError(_OTHER)
    world = header.distributed.get("world_size") if isinstance(header.distributed, dict) else None
    return Profile(
        tuple(found.events),
        tuple(found.allocations),
        tuple(header.devices),
        found.origin or 0.0,
        world if isinstance(world, int) else 1,
        found.until,
    )


def _pieces(read: Callable[[int], bytes], buffer: bytes) -> Iterator[tuple[list[_Raw], bytes]]:
    """The events chunk by chunk, and what stands behind the last."""
    while more := read(_CHUNK):
        buffer += more
        events, end = _until(
            buffer, [each.start() + 1 for each in _BETWEEN.finditer(buffer, len(buffer) - _CHUNK)][::-1]
        )
        yield events, b""
        buffer = buffer[end:].lstrip(b", \r\n\t") if end else buffer
    yield _to_the_end(buffer)


def _to_the_end(buffer: bytes) -> tuple[list[_Raw], bytes]:
    if buffer.lstrip()[:1] == b"]":
        return [], buffer.lstrip()[1:]
    events, end = _until(buffer, (each.end() - 1 for each in _AT_THE_END.finditer(buffer)))
    if not end:
        raise InputError(_CUT_OFF)
    return events, buffer[end + 1 :]


def _until(buffer: bytes, places: Iterable[int]) -> tuple[list[_Raw], int]:
    """The events before the first of some places that lies between two events, and that place; 0 if none does.

    A place inside an event or a text leaves a bracket or a quote open, so that parsing decides.
    """
    for tries, place in enumerate(places):
        if tries >= _TRIES:
            break
        piece = b"[" + buffer[:place] + b"]"
        try:
            return _decode(piece), place
        except msgspec.ValidationError as error:
            raise InputError(f"{_OTHER} ({explained(error)})") from None
        except (msgspec.DecodeError, UnicodeError):
            repaired = _numbers(piece)
            if repaired != piece:
                try:
                    return _decode(repaired), place
                except (msgspec.DecodeError, UnicodeError):
                    pass
    return [], 0


def _numbers(piece: bytes) -> bytes:
    """JSON without what profilers write and JSON does not have: inf, nan, and bytes that are no UTF-8."""
    return _NO_NUMBER.sub(rb"\1null", piece).decode(errors="replace").encode()


class _Found:
    """What was read so far."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.allocations: list[Allocation] = []
        self.origin: float | None = None
        """The first event's time, subtracted from all: the times have 16 digits."""
        self.until = math.inf
        """What begins later is left out."""
        self._known: dict[Any, Any] = {}

    def add(self, raw: Iterable[_Raw]) -> None:
        """Keep what is needed of some events."""
        if len(self.events) > _MOST_EVENTS:
            self.until = statistics.median_low(each.start for each in self.events if each.category not in ON_DEVICE)
            self.events = [each for each in self.events if each.start <= self.until]
        for event in raw:
            if event.ph == "X":
                self._add(event)
            elif event.name == "[memory]" and event.args is not None:
                self._add_allocation(event, event.args)

    def _add(self, event: _Raw) -> None:
        category = _CATEGORIES.get(event.cat) if isinstance(event.cat, str) else None
        if category is None and event.cat == MODULE and str(event.name).startswith(MODULE_PREFIX):
            category = MODULE
        if category is None or event.dur is None or not isinstance(event.name, str):
            return
        if category in LAUNCHES and not _NEEDED.search(event.name):
            return
        start = self._time(event.ts)
        if start > self.until:
            return
        args = event.args or _Args()
        if category == OPERATOR and event.name.startswith(("ProfilerStep#", "Optimizer.", "enumerate(")):
            category = ANNOTATION  # as which they came until torch 1.11
        thread = (event.pid, event.tid)
        if category in ON_DEVICE and args.device is not None:
            thread = (args.device, args.stream)
        self.events.append(
            Event(
                category,
                self._once(event.name),
                self._once(thread),
                start,
                event.dur / 1e6,
                args.external if args.external is not None else args.external_until_1_11,
                args.correlation,
                args.sequence,
                self._dims(args),
                args.copied if isinstance(args.copied, int) else None,
            )
        )

    def _add_allocation(self, event: _Raw, args: _Args) -> None:
        if args.device_type == 1 and isinstance(args.nbytes, int):  # CUDA's number among c10's device types
            moment = self._time(event.ts)
            self.allocations.append(Allocation(moment, args.nbytes, args.allocated, args.reserved))

    def _time(self, microseconds: float) -> float:
        if self.origin is None:
            self.origin = microseconds
        return (microseconds - self.origin) / 1e6

    def _once(self, value: Any) -> Any:
        return self._known.setdefault(value, value)

    def _dims(self, args: _Args) -> Dims | None:
        raw = bytes(args.dims) or bytes(args.dims_until_2_0)
        if not raw:
            return None
        if raw not in self._known:
            try:
                self._known[raw] = tuple(map(_sizes, msgspec.json.decode(raw)))
            except (msgspec.DecodeError, TypeError):
                self._known[raw] = None
        found: Dims | None = self._known[raw]
        return found


def _sizes(shape: Any) -> tuple[int, ...]:
    """The shape of an input; () for a list of tensors, too."""
    return tuple(shape) if isinstance(shape, list) and all(isinstance(each, int) for each in shape) else ()
