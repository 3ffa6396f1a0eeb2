"""Documents of others -> typed data, by msgspec; what does not fit is refused in one line that names the place."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn, TypeVar

import msgspec

from costmodel.errors import InputError

_Typed = TypeVar("_Typed")

_PLACE = re.compile(r" - at `(?:key in )?\$?(?P<place>[^`]*)`$")

_NOT_STRICT = (msgspec.DecodeError, UnicodeError, RecursionError)
"""What msgspec's parser, ten times as fast as Python's, raises for Infinity and for text that is not JSON."""


class _Header(msgspec.Struct):
    schema: Any = None


def parse_json(text: str) -> Any:
    """The value of a JSON text. Raises InputError for anything else, NaN and Infinity included."""
    return _loads(text, parse_constant=_refuse, parse_float=_finite)


def convert(value: Any, wanted: type[_Typed]) -> _Typed:
    """`value`, of plain lists and dictionaries, as an object of the type `wanted`.

    Raises InputError such as "runs[0].batch: expected `int`, got `str`".
    """
    try:
        return msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        raise InputError(explained(error)) from None


def decode(text: str, wanted: type[_Typed]) -> _Typed:
    """A JSON text as an object of the type `wanted`; Infinity and NaN, which Python's `json` writes, are numbers.

    Raises InputError for a text that is not JSON, or not of that type.
    """
    try:
        return msgspec.json.decode(text, type=wanted)
    except msgspec.ValidationError as error:
        raise InputError(explained(error)) from None
    except _NOT_STRICT:
        return convert(_loads(text), wanted)


def schema_of(text: str) -> Any:
    """The schema that a JSON document names; None if it names none. Raises InputError for a text that is not JSON."""
    try:
        return msgspec.json.decode(text, type=_Header).schema
    except msgspec.ValidationError:
        return None
    except _NOT_STRICT:
        document = _loads(text)
        return document.get("schema") if isinstance(document, dict) else None


def explained(error: msgspec.ValidationError) -> str:
    """What msgspec says is wrong, with the place first: "runs[0].batch: expected `int`, got `str`"."""
    text = str(error)
    found = _PLACE.search(text)
    problem = text[: found.start()] if found else text
    place = found["place"].lstrip(".") if found else ""
    return f"{place}: {problem[:1].lower()}{problem[1:]}" if place else problem[:1].lower() + problem[1:]


def _loads(text: str, **hooks: Any) -> Any:
    try:
        return json.loads(text, **hooks)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"this is not a JSON document, or not the whole of one: {error}.") from None


def _finite(text: str) -> float:
    """A number with a fraction or an exponent; 1e999 would be infinite."""
    return value if math.isfinite(value := float(text)) else _refuse(text)


def _refuse(constant: str) -> NoReturn:
    raise InputError(f"this is not a JSON document: it holds {constant}, which JSON does not have.")
