"""Every number of a chapter beside one that was derived another way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """The values of nested dataclasses, mappings and sequences by their paths: "devices[0].batch"."""
    value = msgspec.to_builtins(value)
    if isinstance(value, Mapping):
        inner = {f"{path}.{key}".removeprefix("."): item for key, item in value.items()}
    elif isinstance(value, list | tuple):
        inner = {f"{path}[{index}]": item for index, item in enumerate(value)}
    else:
        return {path: value}
    return {where: leaf for name, item in inner.items() for where, leaf in leaves(item, name).items()}


def hold(numbers: Any, derived: Any) -> None:
    """Every leaf of `numbers` is what `derived` says, and `derived` says every one: integers and texts are equal,
    floating-point numbers to within rounding."""
    ours, others = leaves(numbers), leaves(derived)
    assert ours.keys() == others.keys(), "not derived, or not there: " + ", ".join(sorted(ours.keys() ^ others.keys()))
    for path, value in ours.items():
        other = others[path]
        assert value == (pytest.approx(other, rel=1e-9) if isinstance(value, float) else other), path
