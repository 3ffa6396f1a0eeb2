"""Which module runs when: a tracker before each module's forward tells the recorder, and notes what came out."""

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
from costmodel.tracer.layer_cache import SETTINGS, LayerCache
from costmodel.tracer.meta_copy import Paths
from costmodel.tracer.recorder import Recorder

_SETTINGS = (
    "dilation", "embed_dim", "embedding_dim", "groups", "hidden_size", "in_channels", "in_features", "inplace",
    "input_size", "kernel_size", "normalized_shape", "num_embeddings", "num_features", "num_heads", "out_channels",
    "out_features", "output_size", "p", "padding", "stride",
)  # fmt: skip
"""What of a layer's settings its formulas need, where it holds parameters."""


class ModuleTracker:
    """Stands before a module's forward."""

    def __init__(
        self, path: str, module: nn.Module, recorder: Recorder, clock: Iterator[int], layer_cache: LayerCache | None
    ) -> None:
        self.path, self.module, self.forward = path, module, module.forward
        self.layer_cache = layer_cache
        self.recorder, self.clock = recorder, clock
        self.calls = 0
        self.first_call: int | None = None
        self.output_shape: tuple[int, ...] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> ModuleTracker:
        """A tracker for a copy that a forward makes of this module; that copy dies when its holder does."""
        copied: Any = weakref.proxy(copy.deepcopy(self.module, memo))
        tracker = copy.copy(self)
        tracker.module, tracker.layer_cache = copied, None
        forward: Any = self.forward
        if getattr(forward, "__self__", None) is self.module:
            tracker.forward = functools.partial(forward.__func__, copied)
        return tracker

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The module's forward."""
        recorder = self.recorder
        self.calls += 1
        if self.first_call is None:
            self.first_call = next(self.clock)
        recorder.enter(self.path)
        try:
            if self.layer_cache is not None and len(args) == 1 and not kwargs:
                output = self.layer_cache.run(self.module, self.forward, args[0])
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


def track_modules(modules: Paths, recorder: Recorder, layer_cache: LayerCache | None) -> list[ModuleTracker]:
    """Put a tracker into each module of a meta copy; with `layer_cache`, plain layers need not be run."""
    clock = itertools.count()
    trackers = []
    for path, module in modules:
        plain = layer_cache is not None and type(module) in SETTINGS and "forward" not in module.__dict__
        tracker = module.__dict__["forward"] = ModuleTracker(
            path, module, recorder, clock, layer_cache if plain else None
        )
        trackers.append(tracker)
    return trackers


def untrack_modules(modules: Paths) -> None:
    """Take the trackers out: a tracker holds its module, and the copy would have to wait for the garbage collector."""
    for _, module in modules:
        module.__dict__.pop("forward", None)


def modules_of(modules: Paths, trackers: list[ModuleTracker]) -> tuple[Module, ...]:
    """In the order of their first calls, then those never called."""
    found = []
    for (path, module), tracker in zip(modules, trackers, strict=True):
        state = module.__dict__
        named = [name for name in _SETTINGS if name in state] if module._parameters else ()
        settings = {name: state[name] for name in named if _is_plain(state[name])}
        leaf = not module._modules or not any(child is not None for child in module._modules.values())
        order = math.inf if tracker.first_call is None else tracker.first_call
        found.append((order, Module(path, type(module).__name__, leaf, tracker.calls, tracker.output_shape, settings)))
    return tuple(module for _, module in sorted(found, key=lambda entry: entry[0]))


_PLAIN = frozenset({bool, int, float, str})


def _is_plain(value: Any) -> bool:
    if type(value) is tuple:
        return bool(value) and _PLAIN.issuperset(map(type, value))
    return type(value) in _PLAIN
