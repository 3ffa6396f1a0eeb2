"""Which module runs when: a spy before each module's forward tells the recorder, and notes what came out."""

from __future__ import annotations

import copy
import functools
import itertools
import math
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from costmodel.graph import FORWARD, Module
from costmodel.tracer.inputs import shapes_of, tensors_in
from costmodel.tracer.leaves import SETTINGS, Leaves
from costmodel.tracer.recorder import Recorder
from costmodel.tracer.twin import Paths

_SETTINGS = (
    "dilation", "embed_dim", "embedding_dim", "groups", "hidden_size", "in_channels", "in_features", "inplace",
    "input_size", "kernel_size", "normalized_shape", "num_embeddings", "num_features", "num_heads", "out_channels",
    "out_features", "output_size", "p", "padding", "stride",
)  # fmt: skip
"""What of a layer's settings its formulas need, where it holds parameters."""


class Spy:
    """Stands before a module's forward."""

    def __init__(
        self, path: str, module: nn.Module, recorder: Recorder, clock: Iterator[int], leaves: Leaves | None
    ) -> None:
        self.path, self.module, self.forward = path, module, module.forward
        self.leaves = leaves
        self.recorder, self.clock = recorder, clock
        self.calls = 0
        self.first_call: int | None = None
        self.output_shape: tuple[int, ...] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Spy:
        """A spy of the same layer for a copy that a forward makes of its module; the copy dies when its holder does."""
        copied = weakref.proxy(copy.deepcopy(self.module, memo))
        spy = copy.copy(self)
        spy.module, spy.leaves = copied, None
        if getattr(self.forward, "__self__", None) is self.module:
            spy.forward = functools.partial(self.forward.__func__, copied)
        return spy

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The module's forward."""
        recorder = self.recorder
        self.calls += 1
        if self.first_call is None:
            self.first_call = next(self.clock)
        recorder.enter(self.path)
        try:
            if self.leaves is not None and len(args) == 1 and not kwargs:
                output = self.leaves.run(self.module, self.forward, args[0])
            else:
                output = self.forward(*args, **kwargs)
        except Exception:
            if recorder.failed_in is None and recorder.phase == FORWARD:  # a checkpoint ends a recomputation by raising
                recorder.failed_in = _describe(self.path, self.module, (args, kwargs))
            raise
        finally:
            recorder.leave()
        first = output if isinstance(output, torch.Tensor) else next(tensors_in(output), None)
        if first is not None:
            self.output_shape = tuple(first.shape)
        return output


def _describe(path: str, module: nn.Module, arguments: Any) -> str:
    """A layer and what it was given, for an error message."""
    settings = module.extra_repr() if "\n" not in module.extra_repr() else "..."
    name = f"layer {path!r}" if path else "the network"
    return f"{name}, {type(module).__name__}({settings}) given {shapes_of(arguments)},"


def spy_on(modules: Paths, recorder: Recorder, leaves: Leaves | None) -> list[Spy]:
    """Put a spy into each module of a twin, which nobody else has; with `leaves`, plain layers need not be run."""
    clock = itertools.count()
    spies = []
    for path, module in modules:
        plain = leaves is not None and type(module) in SETTINGS and "forward" not in module.__dict__
        spy = module.__dict__["forward"] = Spy(path, module, recorder, clock, leaves if plain else None)
        spies.append(spy)
    return spies


def dismiss(modules: Paths) -> None:
    """Take the spies out: a spy holds its module, and the twin would have to wait for the garbage collector."""
    for _, module in modules:
        module.__dict__.pop("forward", None)


def modules_of(modules: Paths, spies: list[Spy]) -> tuple[Module, ...]:
    """In the order of their first calls, then those never called."""
    found = []
    for (path, module), spy in zip(modules, spies, strict=True):
        state = module.__dict__
        named = [name for name in _SETTINGS if name in state] if module._parameters else ()
        settings = {name: state[name] for name in named if _is_plain(state[name])}
        leaf = not module._modules or not any(child is not None for child in module._modules.values())
        order = math.inf if spy.first_call is None else spy.first_call
        found.append((order, Module(path, type(module).__name__, leaf, spy.calls, spy.output_shape, settings)))
    return tuple(module for _, module in sorted(found, key=lambda entry: entry[0]))


_PLAIN = frozenset({bool, int, float, str})


def _is_plain(value: Any) -> bool:
    if type(value) is tuple:
        return bool(value) and _PLAIN.issuperset(map(type, value))
    return type(value) in _PLAIN
