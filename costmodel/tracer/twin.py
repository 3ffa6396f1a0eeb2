"""A twin of a module whose parameters and buffers are meta tensors: all of its Python, none of its weights.

The twin shares nothing that a forward could change with the original, so whatever happens to it (a forward that raises,
lazy layers that take their shapes, counters, hooks that remove themselves) the user's module does not see.
"""

from __future__ import annotations

import copy
import functools
import types
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedTensorMixin

_ATOMIC = frozenset(
    {type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size, types.FunctionType}
    | {type, types.ModuleType, types.BuiltinFunctionType, torch.memory_format}
)
_CONTAINERS = frozenset({list, dict, set, OrderedDict})
_TENSOR_TABLES = ("_parameters", "_buffers")
_META = torch.device("meta")

Paths = list[tuple[str, nn.Module]]
"""The modules of a network with their dotted paths."""


def meta_twin(model: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """A copy of `model` on the meta device, its floating-point tensors in `dtype` if one is given.

    Shared parameters and shared modules stay shared. Nothing is allocated and `model` is only read.
    """
    memo: dict[int, Any] = {}
    for _, module in paths_of(model):
        state = module.__dict__
        for table in _TENSOR_TABLES:
            for tensor in state[table].values():
                if tensor is not None and id(tensor) not in memo:
                    memo[id(tensor)] = meta_tensor(tensor, dtype)
    return _copy_module(model, memo, lambda tensor: meta_tensor(tensor, dtype))


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


def real_twin(model: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """A full copy of `model` with weights on the CPU, for networks that can only be traced by running them."""
    return copy.deepcopy(model).to(device="cpu", dtype=dtype)


def surround(network: nn.Module, around: Callable[[str], AbstractContextManager[Any]]) -> None:
    """Let each module of a twin run its forward inside `around(its path)`; shared modules go by their first path."""

    def call(forward: Callable[..., Any], path: str, *args: Any, **kwargs: Any) -> Any:
        with around(path):
            return forward(*args, **kwargs)

    for path, module in network.named_modules():
        module.__dict__["forward"] = functools.partial(call, module.forward, path)


def meta_tensor(tensor: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    """The meta tensor of the same class, shape and strides; `dtype` replaces a floating-point type."""
    wanted = dtype if dtype is not None and tensor.dtype.is_floating_point else tensor.dtype
    if type(tensor) is nn.Parameter and tensor.layout is torch.strided:  # as nearly all are: spare the checks below
        twin = torch.empty_strided(tensor.shape, tensor.stride(), dtype=wanted, device=_META)
        return torch.Tensor._make_subclass(nn.Parameter, twin, tensor.requires_grad)
    if isinstance(tensor, UninitializedTensorMixin):
        options: dict[str, Any] = {"device": "meta", "dtype": wanted}
        return type(tensor)(requires_grad=tensor.requires_grad, **options)
    if tensor.layout is torch.strided:
        twin = torch.empty_strided(tensor.shape, tensor.stride(), dtype=wanted, device="meta")
    else:
        twin = torch.empty(tensor.shape, dtype=wanted, device="meta")
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(twin, requires_grad=tensor.requires_grad)
    return twin.requires_grad_(tensor.requires_grad and tensor.is_leaf)


def _copy_module(module: nn.Module, memo: dict[int, Any], meta: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    """`copy.deepcopy` for modules, ten times faster where a module's state is plain, and the same thing elsewhere."""
    known = memo.get(id(module))
    if known is not None:
        return known
    cls: type[nn.Module] = type(module)
    if _copies_itself(cls) or module._forward_pre_hooks or module._forward_hooks:
        # Hooks may hold bound methods of the module and handles to remove themselves (lazy modules do both).
        for child in module._modules.values():
            if child is not None:
                _copy_module(child, memo, meta)
        for value in module.__dict__.values():  # torch.nn.utils.weight_norm computes one, which deepcopy would refuse
            if isinstance(value, torch.Tensor) and id(value) not in memo:
                memo[id(value)] = meta(value)
        return copy.deepcopy(module, memo)
    twin: nn.Module = object.__new__(cls)
    memo[id(module)] = twin
    state = module.__dict__.copy()
    for name, value in module.__dict__.items():
        kind = type(value)
        if kind in _ATOMIC:
            continue
        if kind in _CONTAINERS and not value:  # most modules have a dozen empty tables of hooks
            state[name] = kind()
        elif name in _TENSOR_TABLES:
            state[name] = {key: None if tensor is None else memo[id(tensor)] for key, tensor in value.items()}
        elif name == "_modules":
            children = {key: None if child is None else _copy_module(child, memo, meta) for key, child in value.items()}
            state[name] = type(value)(children)
        else:
            state[name] = _copy_value(value, memo, meta)
    object.__setattr__(twin, "__dict__", state)
    return twin


def _copies_itself(cls: type) -> bool:
    plain = cls.__reduce_ex__ is object.__reduce_ex__ and cls.__reduce__ is object.__reduce__
    return not plain or hasattr(cls, "__deepcopy__")


def _copy_value(value: Any, memo: dict[int, Any], meta: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A copy of an attribute, its tensors on meta; what cannot be copied (locks, files, loggers) is shared."""
    kind = type(value)
    if kind in _ATOMIC:
        return value
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, nn.Module):
        return _copy_module(value, memo, meta)
    if isinstance(value, torch.Tensor):
        copied: Any = meta(value)
    elif kind in (list, tuple, set):
        plain = _ATOMIC.issuperset(map(type, value))
        if plain and kind is tuple:
            return value
        copied = kind(value) if plain else kind(_copy_value(item, memo, meta) for item in value)
    elif kind is dict:
        copied = {key: _copy_value(item, memo, meta) for key, item in value.items()}
    else:
        try:
            return copy.deepcopy(value, memo)
        except Exception:
            return value
    memo[id(value)] = copied
    return copied
