"""A copy of a module whose parameters and buffers are meta tensors: all of its Python, none of its weights.

The copy shares nothing that a forward could change with the original, so whatever happens to it (a forward that raises,
lazy layers that take their shapes, counters, hooks that remove themselves) the user's module does not see.
"""

from __future__ import annotations

import copy
import functools
import itertools
import operator
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from costmodel.tracer.torch_private import as_parameter

_ATOMIC = frozenset(
    {type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size, types.FunctionType}
    | {type, types.ModuleType, types.BuiltinFunctionType, torch.memory_format}
)
_CONTAINERS = frozenset({list, dict, set, OrderedDict})
_TENSOR_TABLES = ("_parameters", "_buffers")
_META = torch.device("meta")

Paths = list[tuple[str, nn.Module]]
"""The modules of a network with their dotted paths."""


def copy_to_meta(model: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """A copy of `model` on the meta device, its floating-point tensors in `dtype` if one is given.

    Shared parameters and shared modules stay shared. Nothing is allocated and `model` is only read.
    """
    return _MetaCopies(dtype).module(model)


def paths_of(model: nn.Module) -> Paths:
    """A network's modules in the order of `named_modules`, each under its first path."""
    found: Paths = []
    seen: set[int] = set()

    def visit(path: str, module: nn.Module) -> None:
        seen.add(id(module))
        found.append((path, module))
        prefix = f"{path}." if path else ""
        for name, child in module._modules.items():
            if child is not None and id(child) not in seen:
                visit(prefix + name, child)

    visit("", model)
    return found


def copy_to_cpu(model: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """A full copy of `model` with weights on the CPU, for networks that can only be traced by running them."""
    known: dict[int, Any] = {}
    for _, module in paths_of(model):
        for tensor in _tensors_of(module):  # deepcopy refuses a lazy layer's, and one that was computed
            if is_lazy(tensor):
                known[id(tensor)] = _uninitialized(tensor, torch.device("cpu"), tensor.dtype)
            elif not tensor.is_leaf:
                known[id(tensor)] = tensor.detach().clone()
    return copy.deepcopy(model, known).to(device="cpu", dtype=dtype)


def _tensors_of(module: nn.Module) -> Iterator[torch.Tensor]:
    """A module's parameters, buffers, and what other tensors it holds as attributes."""
    state = module.__dict__
    values = itertools.chain(state.values(), *(state[name].values() for name in _TENSOR_TABLES))
    return (value for value in values if isinstance(value, torch.Tensor))


def _uninitialized(tensor: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """A lazy layer's parameter or buffer, which has no shape yet."""
    return type(tensor)(requires_grad=tensor.requires_grad, device=device, dtype=dtype)


def surround(network: nn.Module, around: Callable[[str], AbstractContextManager[Any]]) -> None:
    """Let each module of a copy run its forward inside `around(its path)`; shared modules go by their first path."""

    def call(forward: Callable[..., Any], path: str, *args: Any, **kwargs: Any) -> Any:
        with around(path):
            return forward(*args, **kwargs)

    for path, module in network.named_modules():
        module.__dict__["forward"] = functools.partial(call, module.forward, path)


def meta_tensor(tensor: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    """The meta tensor of the same class, shape and strides; `dtype` replaces a floating-point type."""
    wanted = dtype if dtype is not None and tensor.dtype.is_floating_point else tensor.dtype
    cls = type(tensor)
    plain = cls is nn.Parameter or cls is torch.Tensor  # as nearly all are: isinstance takes its time with tensors
    if not plain and is_lazy(tensor):
        return _uninitialized(tensor, _META, wanted)
    if tensor.layout is torch.strided:
        meta = torch.empty_strided(tensor.shape, tensor.stride(), dtype=wanted, device=_META)
    else:
        meta = torch.empty(tensor.shape, dtype=wanted, device=_META)
    if cls is nn.Parameter or (not plain and isinstance(tensor, nn.Parameter)):
        return as_parameter(meta, tensor.requires_grad)
    return meta.requires_grad_(tensor.is_leaf) if tensor.requires_grad else meta


class _MetaCopies:
    """The copies of a network's modules and tensors so far: each original has one."""

    def __init__(self, dtype: torch.dtype | None) -> None:
        self._dtype = dtype
        self._known: dict[int, Any] = {}

    def tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        """The meta tensor of the same class, shape and strides."""
        copied = self._known.get(id(tensor))
        if copied is None:
            copied = self._known[id(tensor)] = meta_tensor(tensor, self._dtype)
        return copied

    def module(self, module: nn.Module) -> nn.Module:
        """`copy.deepcopy` for modules, many times faster where a module's state is plain, and the same elsewhere."""
        known = self._known.get(id(module))
        if known is not None:
            return known
        cls: type[nn.Module] = type(module)
        state = module.__dict__.copy()
        if _copies_itself(cls) or state["_forward_pre_hooks"] or state["_forward_hooks"]:
            return self._deep_copy(module)
        copied: nn.Module = object.__new__(cls)
        self._known[id(module)] = copied
        new = tuple(itertools.islice(state, len(_BASE))) == _BASE and not any(_hooks_of(state))
        if new:  # nobody hooked anything to it, as nearly always: what every module has need not be looked through
            state.update([(name, kind()) for name, kind in _HOOKS])
        for name, value in itertools.islice(module.__dict__.items(), len(_BASE) if new else 0, None):
            kind = type(value)
            if kind in _ATOMIC or name in _CHILDREN:
                continue
            state[name] = kind() if kind in _CONTAINERS and not value else self._value(value)
        for name in _TENSOR_TABLES:
            tensors = state[name]
            state[name] = {key: None if item is None else self.tensor(item) for key, item in tensors.items()}
        modules = state["_modules"]
        children = [(key, None if child is None else self.module(child)) for key, child in modules.items()]
        state["_modules"] = type(modules)(children)
        object.__setattr__(copied, "__dict__", state)
        return copied

    def _deep_copy(self, module: nn.Module) -> nn.Module:
        """Hooks may hold bound methods of the module and handles to remove themselves (lazy modules do both)."""
        for child in module._modules.values():
            if child is not None:
                self.module(child)
        for tensor in _tensors_of(module):  # weight_norm's result is one that deepcopy would refuse
            self.tensor(tensor)
        return copy.deepcopy(module, self._known)

    def _value(self, value: Any) -> Any:
        """A copy of an attribute, its tensors on meta; what cannot be copied (locks, files, loggers) is shared."""
        kind = type(value)
        if kind in _ATOMIC:
            return value
        if kind is tuple and _ATOMIC.issuperset(map(type, value)):
            return value
        if id(value) in self._known:
            return self._known[id(value)]
        if kind in (list, tuple, set):
            copied: Any = kind(self._value(item) for item in value)
        elif kind is dict:
            copied = {key: self._value(item) for key, item in value.items()}
        elif isinstance(value, torch.Tensor):
            return self.tensor(value)
        elif isinstance(value, nn.Module):
            return self.module(value)
        else:
            try:
                return copy.deepcopy(value, self._known)
            except Exception:
                return value
        self._known[id(value)] = copied
        return copied


_CHILDREN = (*_TENSOR_TABLES, "_modules")
_EMPTY = nn.Module().__dict__
_BASE = tuple(_EMPTY)
"""What every module has, in order."""
_HOOKS = [(name, type(value)) for name, value in _EMPTY.items() if type(value) in _CONTAINERS - {dict}]
"""Of that the tables of hooks, with the class of each."""
_hooks_of = operator.itemgetter(*[name for name, _ in _HOOKS])


def _copies_itself(cls: type) -> bool:
    plain = all(getattr(cls, name) is getattr(object, name) for name in ("__reduce_ex__", "__reduce__"))
    return not plain or hasattr(cls, "__deepcopy__")
