"""The Measurement document, `costmodel/measurement/1`: a record as JSON, with a digest of its content, and back.

The types of `record` are its form: every field is there, under its own name, and nothing else. Other documents, damaged
ones and those that were edited by hand are refused, with the place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from costmodel.errors import InputError
from costmodel.files import write_whole
from costmodel.typed import convert, parse_json

SCHEMA = "costmodel/measurement/1"

_Record = TypeVar("_Record")


def to_json(record: Any) -> str:
    """The document of a record, a line a layer, with the digest of its content."""
    content = msgspec.to_builtins(record)
    return _lines({"schema": SCHEMA, "digest": _digest(content)} | content) + "\n"


def from_json(wanted: type[_Record], text: str, check: Callable[[_Record], None]) -> _Record:
    """The record that `to_json` wrote; `check` raises InputError for what its types do not exclude.

    Raises InputError, with the reason, for anything else.
    """
    document = parse_json(text)
    found = document.get("schema") if isinstance(document, dict) else None
    if found != SCHEMA:
        says = f"its schema is {str(found)[:60]!r}" if found else "it has no schema"
        raise InputError(f"this is not a measurement: {says}, and should be {SCHEMA!r}.")
    del document["schema"]
    digest = document.pop("digest", None)
    try:
        record = convert(document, wanted)
        check(record)
    except InputError as error:
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


def read(wanted: type[_Record], path: str | PathLike[str], check: Callable[[_Record], None]) -> _Record:
    """The record in a file. Raises InputError, with the file's name and the reason, if it cannot be used."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): give a record that `measure` wrote.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: this is not a JSON document.") from None
    try:
        return from_json(wanted, text, check)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _digest(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _lines(value: Any, indent: str = "") -> str:
    """JSON that a person can read and git can compare: containers of containers a line an item, others on one line."""
    items = list(value.values() if isinstance(value, dict) else value) if isinstance(value, (dict, list)) else []
    flat = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if len(flat) + len(indent) <= 160 or "layer" in value or not any(isinstance(item, (dict, list)) for item in items):
        return flat
    inner = indent + " "
    if isinstance(value, dict):
        lines = [f"{inner}{json.dumps(key, ensure_ascii=False)}: {_lines(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    return "[\n" + ",\n".join(f"{inner}{_lines(item, inner)}" for item in items) + f"\n{indent}]"
