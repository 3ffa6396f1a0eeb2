"""A layer above autograd in which chosen operators run as we say, while a trace lasts.

Composite operators look at the device of their inputs before they choose how to run, and on meta tensors they choose
for no device. torch's dispatcher has, above autograd, a layer for mixed precision of each kind of device; nobody here
has two of those kinds (Graphcore's IPU and Habana's HPU), whose layers are therefore free. A function registered in one
of them sleeps until a thread includes the layer; then it sees every call of its operator, from Python under whatever
name or from inside another composite operator.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import torch

Original = Callable[..., Any]
"""The operator without the override; composite operators inside it do see the override."""

Override = Callable[..., Any]
"""How to run an operator: a function of the original operator and its arguments. Defaults may be left out of these."""

_NONE: Mapping[str, Override] = MappingProxyType({})


class DispatchOverride:
    """One layer of the dispatcher."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._name = f"Autocast{device.upper()}"
        self._key = getattr(torch._C.DispatchKey, self._name)
        self._below = torch._C._dispatch_keyset_full_after(self._key)
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
            with torch._C._IncludeDispatchKeyGuard(self._key):
                yield
        finally:
            torch.set_autocast_enabled(self._device, before)
            self._overrides.reset(token)

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """Inside the override, run something without it."""
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(self._key)):
            yield

    @functools.cached_property
    def _library(self) -> torch.library.Library:
        self._fallback = torch.library.Library("_", "IMPL", self._name)  # type: ignore[misc]
        self._fallback.fallback(torch.library.fallthrough_kernel)
        return torch.library.Library("aten", "IMPL", self._name)  # type: ignore[misc]

    def _register(self, operator: str) -> None:
        name, _, overload = operator.partition(".")
        original = getattr(getattr(torch.ops.aten, name), overload or "default")

        def kernel(keys: Any, *args: Any, **kwargs: Any) -> Any:
            override = self._overrides.get().get(operator)
            below = functools.partial(original.redispatch, keys & self._below)
            return below(*args, **kwargs) if override is None else override(below, *args, **kwargs)

        self._library.impl(operator, kernel, self._name, with_keyset=True)
        self._registered.add(operator)
