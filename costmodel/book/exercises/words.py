"""Small pieces of sentences that the answers share, and the batch that they compare with one image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from costmodel.book.model import plain
from costmodel.book.study import BATCH as BATCH
from costmodel.display import show
from costmodel.formulas import Weighted
from costmodel.graph import OPTIMIZER, Operation

BEATEN = "A run that multiplies less than the definition (Winograd, FFT) or finds tensors in a cache may beat it."
"""What a bound is not, in one sentence; `Conventions` says the whole."""


def times(ratio: float) -> str:
    """A ratio: "2.87×", "156×"."""
    return show(ratio, "times").replace("x", "×")


def listed(items: Sequence[str]) -> str:
    """Items as a phrase: "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)


def counted(number: int, noun: str) -> str:
    """A number and its noun: "1 layer", "8 layers"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def largest(layers: Iterable[Weighted], key: Callable[[Weighted], float]) -> list[Weighted]:
    """The largest convolution and the largest fully connected layer, where there are such."""
    by_kind: dict[str, Weighted] = {}
    for entry in layers:
        kind = entry.layer.kind
        if kind not in by_kind or key(entry) > key(by_kind[kind]):
            by_kind[kind] = entry
    return list(by_kind.values())


def place(operation: Operation) -> str:
    """Where an operation runs: "backward of net.4", "optimizer"."""
    return operation.phase if operation.phase == OPTIMIZER else f"{operation.phase} of {plain(operation.layer)}"
