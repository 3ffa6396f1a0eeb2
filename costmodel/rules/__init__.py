"""What an operator costs: one short function an operator, from shapes to multiply-accumulates and vector FLOPs.

A rule takes an `Operation` and returns its `Work`. It is registered under the operator's name as text ("aten.addmm"),
so that it does not depend on a version of torch, and a name has one rule: a second registration raises.

    @rule("mylib.scale", kind="elementwise")
    def scale(op: Operation) -> Work:
        return Work(vector_flops=op.outputs[0].elements)

Conventions. One MAC is one multiply-accumulate of a contraction (a bias is vector work). One vector FLOP is one
addition, multiplication, division, comparison or elementary function (exp, tanh, sqrt ...) on one element, as the
operator's mathematical definition writes it. Copying, indexing and random numbers move bytes and compute nothing.

All of these are operations on real numbers. A complex multiply-accumulate is four real ones (8 FLOPs: 6 for the
product, 2 for the sum), and a complex vector FLOP two real ones, as an addition is, unless its rule says otherwise.
Rules count as if numbers were real; `Rule.work` multiplies.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import NamedTuple

from costmodel.errors import InputError
from costmodel.graph import DTYPE_BYTES, Operation

KINDS = (
    "conv", "linear", "attention", "norm", "activation", "pool", "dropout", "elementwise", "reshape", "loss",
    "optimizer", "other",
)  # fmt: skip


class Work(NamedTuple):
    """What one operation computes, and what it moves where that is not simply its inputs and outputs."""

    macs: int = 0
    """Multiply-accumulates of contractions."""

    vector_flops: int = 0
    """Everything else that it computes."""

    read_bytes: int | None = None
    """Bytes read, if not each distinct input once."""

    write_bytes: int | None = None
    """Bytes written, if not each distinct output once."""


@dataclass(frozen=True, slots=True)
class Rule:
    """An operator's kind, and the function that says what it costs."""

    kind: str
    count: Callable[[Operation], Work]
    complex_flops: int = 2
    """The real FLOPs that one vector FLOP on complex numbers is; 1 where `count` looks at the type itself."""

    def work(self, operation: Operation) -> Work:
        """What the operation computes, in real numbers."""
        work = self.count(operation)
        if not (work.macs or work.vector_flops) or not is_complex(operation):
            return work
        return work._replace(macs=4 * work.macs, vector_flops=self.complex_flops * work.vector_flops)


def is_complex(operation: Operation) -> bool:
    """Whether it makes complex numbers, or works on some: its first result or its first input are."""
    if operation.outputs and operation.outputs[0].dtype in _COMPLEX:
        return True
    first = next(iter(operation.inputs.values()), None)
    return first is not None and first.dtype in _COMPLEX


_COMPLEX = frozenset(name for name in DTYPE_BYTES if "complex" in name)

_RULES: dict[str, Rule] = {}


def rule(
    *operators: str, kind: str, complex_flops: int = 2
) -> Callable[[Callable[[Operation], Work]], Callable[[Operation], Work]]:
    """Register the decorated function as the rule of `operators`, with the real FLOPs that one of its FLOPs is in
    complex numbers. Raises InputError if one of them has a rule."""
    if kind not in KINDS:
        raise InputError(f"unknown kind {kind!r}: use one of {', '.join(KINDS)}.")

    def register(work: Callable[[Operation], Work]) -> Callable[[Operation], Work]:
        for operator in operators:
            if operator in _RULES:
                raise InputError(f"{operator} has a rule already: a name has one rule.")
            _RULES[operator] = Rule(kind, work, complex_flops)
        return work

    return register


def rules() -> Mapping[str, Rule]:
    """Every rule by its operator's name."""
    _load()
    return MappingProxyType(_RULES)


@cache
def _load() -> None:
    for name in (
        "conv",
        "matmul",
        "attention",
        "recurrent",
        "linalg",
        "normalization",
        "pooling",
        "pointwise",
        "movement",
        "optimizer",
        "vision",
    ):
        importlib.import_module(f"costmodel.rules.{name}")
