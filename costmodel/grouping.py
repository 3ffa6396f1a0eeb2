"""What costs, predictions, memory and evaluations are summed by: layer, block, kind, operator, phase ..."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from costmodel.errors import InputError, nearest
from costmodel.graph import Trace

T = TypeVar("T")


def grouped(
    entries: Iterable[T], by: str, names: Mapping[str, Callable[[T], str]], trace: Trace, depth: int | None = None
) -> dict[str, list[T]]:
    """Entries by the name of their group, in the order of first occurrence.

    Args:
        entries: what is grouped.
        by: a key of `names`; or "block", the module that a layer stands in, where `names` has "layer".
        names: how an entry's group is found.
        trace: whose modules the layers are.
        depth: with "block", cuts the layer's path to that many components instead.

    Raises InputError for another `by`.
    """
    known = (*names, "block") if "layer" in names else (*names,)
    if by not in known:
        raise InputError(f"cannot sum by {by!r}: use one of {', '.join(known)}.{nearest(by, known)}")
    name_of, modules = names["layer" if by == "block" else by], trace.module_by_path
    groups: dict[str, list[T]] = {}
    for entry in entries:
        name = name_of(entry)
        if by == "block":
            name = block_of(name, name in modules and modules[name].leaf, depth)
        groups.setdefault(name, []).append(entry)
    return groups


def block_of(layer: str, leaf: bool, depth: int | None = None) -> str:
    """The block that a layer belongs to: the module around a leaf, or the first `depth` components of the path."""
    if depth is not None:
        return ".".join(layer.split(".")[:depth])
    return layer.rpartition(".")[0] if leaf else layer


def some(layers: Sequence[str], limit: int = 3) -> str:
    """The first layers of several in words: "features.0, classifier.1 and 4 more layers"."""
    shown = ", ".join(name or "the network itself" for name in layers[:limit])
    return shown + (f" and {len(layers) - limit} more layers" if len(layers) > limit else "")
