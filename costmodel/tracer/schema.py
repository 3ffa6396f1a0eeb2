"""What an operator's schema says: names and defaults of its arguments, and how its outputs relate to its inputs."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Any

import torch

from costmodel.graph import Operation
from costmodel.tracer.inputs import DTYPE_NAMES
from costmodel.tracer.torch_private import has_kernel, operator_schema, overload_name

# Factories whose result may be large and whose values no control flow should hang on; arange and its like stay real.

_TO_META = frozenset({"zeros", "ones", "full", "empty", "empty_strided", "rand", "randn", "randint", "randperm", "eye"})
_NEEDS_VALUES = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


@dataclass(frozen=True, slots=True)
class Schema:
    """What the recorder needs to know of an operator, read once from its schema."""

    name: str
    overload: str
    arguments: tuple[str, ...]
    readers: dict[str, str]
    """How each argument is read."""
    defaults: dict[str, Any]
    view: bool
    """It returns another look at an input's memory."""
    fresh: bool
    """Its outputs are new storages and depend on nothing but the specs of its inputs: they can be made from memory."""
    writes: tuple[str, ...]
    """The arguments that it writes in place."""
    silent: bool
    """It writes in place and returns nothing: optimizers' operators on lists of tensors."""
    several: bool
    """It returns several tensors."""
    composite: bool
    needs_values: bool
    factory: bool


@functools.cache
def schema_of(func: Any) -> Schema:
    """The schema of an operator, as torch hands operators to a dispatch mode."""
    schema = operator_schema(func)
    namespace, name = schema.name.split("::")
    arguments = tuple(argument.name for argument in schema.arguments)
    readers = {argument.name: _reader(str(argument.type)) for argument in schema.arguments}
    tensors = {name for name, reader in readers.items() if reader in (_TENSOR, _TENSORS)}
    given = {a.name: a.default_value for a in schema.arguments if a.has_default_value() and a.name not in tensors}
    defaults = {name: _attribute(value) for name, value in given.items()}
    written = tuple(a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write)
    aliased = any(r.alias_info is not None for r in schema.returns)
    return Schema(
        name=f"{namespace}.{name}",
        overload=overload_name(func),
        arguments=arguments,
        readers=readers,
        defaults={key: value for key, value in defaults.items() if value is not _NO_ATTRIBUTE},
        view=(aliased and not written) or name in ("_unsafe_view", "_reshape_alias", "lift_fresh"),
        fresh=namespace == "aten" and bool(tensors) and not aliased and not written and name not in _ALIASING,
        writes=written,
        silent=bool(written) and not schema.returns,
        several=len(schema.returns) > 1,
        composite=_decomposes(func),
        needs_values=any(tag in func.tags for tag in _NEEDS_VALUES),
        factory=namespace == "aten" and name in _TO_META and not tensors,
    )


def operator_of(operation: Operation) -> Any:
    """The operator that an operation called."""
    namespace, _, name = operation.operator.partition(".")
    return getattr(getattr(getattr(torch.ops, namespace), name), operation.overload)


_ALIASING = frozenset({"_unsafe_view", "_to_copy", "contiguous", "lift_fresh", "_reshape_alias", "set_", "resize_"})
"""Operators whose outputs may share an input's storage, or whose device is an argument, though no schema says so."""


def _decomposes(func: Any) -> bool:
    """Whether the operator reaches us whole only because autograd, which takes it apart, was off (inference mode)."""
    return has_kernel(func, "CompositeImplicitAutograd") and not has_kernel(func, "CPU")


_NO_ATTRIBUTE: Any = object()
_PLAIN = frozenset({bool, int, float, str, type(None)})


def read_arguments(schema: Schema, args: Any, kwargs: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors among the arguments by name, and the other arguments as JSON knows them."""
    tensors: dict[str, torch.Tensor] = {}
    attributes = schema.defaults.copy()
    readers = schema.readers
    named: Any = zip(schema.arguments, args)  # noqa: B905  (trailing defaults are left out)
    for name, value in itertools.chain(named, kwargs.items()) if kwargs else named:
        reader = readers[name]
        if type(value) in _PLAIN:  # a tensor argument may be a number, or missing
            if value is not None or not (reader is _TENSOR or reader is _TENSORS):
                attributes[name] = value
        elif reader is _TENSOR:
            tensors[name] = value
        elif reader is _NUMBERS:
            attributes[name] = tuple(value)
        elif reader is _TENSORS:
            names = _numbered(name, len(value))
            tensors.update((key, item) for key, item in zip(names, value, strict=True) if item is not None)
        else:
            attribute = _attribute(value)
            if attribute is not _NO_ATTRIBUTE:
                attributes[name] = attribute
    return tensors, attributes


@functools.cache
def _numbered(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"{name}.{position}" for position in range(count))


_TENSOR, _TENSORS, _NUMBERS, _OTHER = "tensor", "tensors", "numbers", "other"


def _reader(kind: str) -> str:
    """How an argument of a type is read, by the type's text: "Optional[Tensor]", "List[int]" ..."""
    if "Tensor" in kind:
        return _TENSORS if "List" in kind else _TENSOR
    return _NUMBERS if kind in _LISTS_OF_NUMBERS else _OTHER


_LISTS_OF_NUMBERS = frozenset(
    form.format(number) for number in ("int", "float", "bool", "SymInt") for form in ("List[{}]", "Optional[List[{}]]")
)


def _attribute(value: Any) -> Any:
    """The argument as JSON knows it: lists become tuples, torch's types their names."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, (list, tuple)):
        if _PLAIN.issuperset(map(type, value)):
            return tuple(value)
        items = tuple(_attribute(item) for item in value)
        return _NO_ATTRIBUTE if _NO_ATTRIBUTE in items else items
    if isinstance(value, torch.dtype):
        return DTYPE_NAMES[value]
    if isinstance(value, (torch.layout, torch.memory_format)):
        return str(value).removeprefix("torch.")
    if isinstance(value, torch.device):
        return value.type
    return _NO_ATTRIBUTE
