"""The Measurement document, `costmodel/measurement/1`: a record as JSON, with a digest of its content, and back.

The dataclasses of `record` are its form: every field is there, under its own name, and nothing else. What is not such a
document, what is damaged and what was changed by hand is refused, and where is said.
"""

from __future__ import annotations

import hashlib
import json
import math
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from costmodel.errors import InputError
from costmodel.files import write_whole
from costmodel.graph import PHASES

SCHEMA = "costmodel/measurement/1"

_Record = TypeVar("_Record")


def to_json(content: dict[str, Any]) -> str:
    """The document of a record's fields, a line a layer, with the digest of its content."""
    return _lines({"schema": SCHEMA, "digest": _digest(content)} | content) + "\n"


def from_json(wanted: type[_Record], text: str) -> _Record:
    """The record that `to_json` wrote. Raises InputError, with the reason, for anything else."""
    try:
        document = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"this is not a JSON document, or not the whole of one: {error}.") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        found = document.get("schema") if isinstance(document, dict) else None
        said = f"its schema is {str(found)[:60]!r}" if found else "it has no schema"
        raise InputError(f"this is not a measurement: {said}, and should be {SCHEMA!r}.")
    digest = document.pop("digest", None)
    del document["schema"]
    try:
        record = _read(wanted, document, "")
        _check(document)
    except _DamagedError as error:
        raise InputError(f"this measurement is damaged: {error}.") from None
    if digest != _digest(document):
        raise InputError("this measurement was changed after it was written (its digest does not fit): measure again.")
    return record


def save(text: str, path: str | PathLike[str]) -> Path:
    """Write a document, whole or not at all. Raises InputError if that fails."""
    target = Path(path)
    try:
        write_whole(target, text.encode())
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror or error}.") from None
    return target


def read(wanted: type[_Record], path: str | PathLike[str]) -> _Record:
    """The record in a file. Raises InputError, with the file's name and the reason, if it cannot be used."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): give a record that `measure` wrote.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: this is not a JSON document.") from None
    try:
        return from_json(wanted, text)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _digest(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _lines(value: Any, indent: str = "") -> str:
    """JSON that a person can read and git can compare: containers of containers a line an item, others on one line."""
    items = list(value.values() if isinstance(value, dict) else value) if isinstance(value, (dict, list, tuple)) else []
    flat = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not items or len(flat) + len(indent) <= 160 or "layer" in value or not any(map(_is_container, items)):
        return flat
    inner = indent + " "
    if isinstance(value, dict):
        lines = [f"{inner}{json.dumps(key, ensure_ascii=False)}: {_lines(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    return "[\n" + ",\n".join(f"{inner}{_lines(item, inner)}" for item in items) + f"\n{indent}]"


def _is_container(value: Any) -> bool:
    return isinstance(value, (dict, list, tuple))


class _DamagedError(Exception):
    """Says where a document is not what it should be."""


def _read(wanted: Any, value: Any, where: str) -> Any:
    """`value`, which came from JSON, as the type that a field declares."""
    if wanted is Any:
        return _read_any(value, where)
    if is_dataclass(wanted):
        return _read_fields(wanted, value, where)
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        rest = next(each for each in arguments if each is not type(None))
        return None if value is None else _read(rest, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise _DamagedError(f"{where} is no list")
        return tuple(_read(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is Mapping:
        if not isinstance(value, dict):
            raise _DamagedError(f"{where} is no object")
        return {key: _read(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    return _read_plain(wanted, value, where)


def _read_any(value: Any, where: str) -> Any:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        raise _DamagedError(f"{where} holds a number that is none") from None
    return value


def _read_fields(wanted: Any, value: Any, where: str) -> Any:
    prefix = f"{where}." if where else ""
    if not isinstance(value, dict):
        raise _DamagedError(f"{where or 'it'} is no object")
    hints = get_type_hints(wanted)
    names = [each.name for each in fields(wanted)]
    for name in value:
        if name not in names:
            raise _DamagedError(f"{prefix}{name} is unknown")
    for name in names:
        if name not in value:
            raise _DamagedError(f"{prefix}{name} is missing")
    return wanted(**{name: _read(hints[name], value[name], f"{prefix}{name}") for name in names})


def _read_plain(wanted: Any, value: Any, where: str) -> Any:
    """A number, truth value or text. Nothing that is measured is below zero."""
    right = isinstance(value, (int, float) if wanted is float else wanted) and isinstance(value, bool) == (
        wanted is bool
    )
    if not right:
        raise _DamagedError(f"{where} is {str(value)[:40]!r}")
    if wanted in (int, float) and not (math.isfinite(value) and value >= 0):
        raise _DamagedError(f"{where} is {value}, which nothing measures")
    return value


def _check(document: Mapping[str, Any]) -> None:
    """What the types do not say."""
    circumstances = document["circumstances"]
    device = circumstances.get("device")
    if not (isinstance(device, dict) and device.get("type") in ("cpu", "cuda") and device.get("name")):
        raise _DamagedError("circumstances.device does not say which device it was")
    for name, kind in (("threads", int), ("date", str), ("versions", dict)):
        if not isinstance(circumstances.get(name), kind):
            raise _DamagedError(f"circumstances.{name} is missing")
    for index, run in enumerate(document["runs"]):
        if not run["failure"] and (run["eager"] is None or run["work"] is None or not run["layers"]):
            raise _DamagedError(f"runs[{index}] has neither times nor a reason why not")
        for layer in run["layers"]:
            if layer["phase"] not in PHASES:
                raise _DamagedError(f"runs[{index}] has a phase {layer['phase'][:20]!r}")
