"""Operators that run another way while a trace lasts: overrides, which come before autograd.

Composite operators look at the device of their inputs before they choose how to run, and on meta tensors they choose
for no device. Torch's dispatcher has, above autograd, a dispatch key for the mixed precision of each kind of device.
Two of those kinds (Graphcore's IPU and Habana's HPU) are not in the machine that traces, so their keys are free. A
kernel that is registered for such a key does nothing until a thread includes the key; then it gets every call of its
operator in this thread, whether from Python or from inside another composite operator.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import torch

from costmodel.tracer.torch_private import dispatch_key, excluding, including, keys_below, redispatch

Original = Callable[..., Any]
"""The operator without the override; composite operators inside it do see the override."""

Override = Callable[..., Any]
"""How to run an operator: a function of the original operator and its arguments. Defaults may be left out of these."""

_NONE: Mapping[str, Override] = MappingProxyType({})


class DispatchOverride:
    """The overrides of one dispatch key."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._name = f"Autocast{device.upper()}"
        self._key = dispatch_key(self._name)
        self._below = keys_below(self._key)
        self._overrides: ContextVar[Mapping[str, Override]] = ContextVar(f"overrides of {device}", default=_NONE)
        self.overrides_now = self._overrides.get
        """The overrides in which this thread runs operators now, by operator."""
        self._registered: set[str] = set()

    @contextmanager
    def __call__(self, overrides: Mapping[str, Override]) -> Iterator[None]:
        """While this lasts, this thread runs each named operator ("dropout", "lstm.input") by its override."""
        for operator in overrides.keys() - self._registered:
            self._register(operator)
        before = torch.is_autocast_enabled(self._device)
        token = self._overrides.set(overrides)
        torch.set_autocast_enabled(self._device, True)
        try:
            with including(self._key):
                yield
        finally:
            torch.set_autocast_enabled(self._device, before)
            self._overrides.reset(token)

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """Inside the override, run something without it."""
        with excluding(self._key):
            yield

    @functools.cached_property
    def _library(self) -> torch.library.Library:
        self._fallback = torch.library.Library("_", "IMPL", self._name)  # type: ignore[misc]
        self._fallback.fallback(torch.library.fallthrough_kernel)
        return torch.library.Library("aten", "IMPL", self._name)  # type: ignore[misc]

    def _register(self, operator: str) -> None:
        name, _, overload = operator.partition(".")
        below_us = redispatch(getattr(getattr(torch.ops.aten, name), overload or "default"))

        def kernel(keys: Any, *args: Any, **kwargs: Any) -> Any:
            override = self._overrides.get().get(operator)
            below = functools.partial(below_us, keys & self._below)
            return below(*args, **kwargs) if override is None else override(below, *args, **kwargs)

        self._library.impl(operator, kernel, self._name, with_keyset=True)
        self._registered.add(operator)
