"""Anybody's network: `package.module:callable` or `path/to/file.py:callable`.

The name behind the colon is a class or a function that makes a network, or a network. What it prints goes to stderr.

A network, or what makes it, may say what it is fed: `input_shape` (sizes without the batch, like (3, 224, 224)) or
`example_input` (a tensor with the batch first); several inputs as a list of those.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from types import ModuleType
from typing import Any

import torch
from torch import nn

from costmodel.errors import CostModelError, InputError, nearest, type_of
from costmodel.networks.build import build, seeded
from costmodel.networks.places import in_one_line, visit
from costmodel.tracer import Shape, parse_shape

_CLASSES = ("classes", "num_classes")


def load(spec: str, classes: int | None = None, real: bool = False) -> tuple[nn.Module, tuple[Shape, ...]]:
    """The network behind "place:name", and the inputs that it declares (none if it does not).

    Raises InputError that says which part of the way failed.
    """
    place, _, name = spec.rpartition(":")
    if not place or not name:
        raise InputError(f"{spec!r} is not package.module:NAME or path/file.py:NAME: both parts are needed.")
    with seeded(), contextlib.redirect_stdout(sys.stderr), visit(place) as module:
        target = _attribute(module, name, place)
        network = _network(target, spec, classes, real)
        return network, _declared(network) or _declared(target)


def _attribute(module: ModuleType, name: str, place: str) -> Any:
    """The object at a dotted name inside a module."""
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            choices = [choice for choice in dir(found) if not choice.startswith("_")]
            raise InputError(f"{place} has no {name!r}.{nearest(part, choices)}") from None
        except Exception as error:
            raise InputError(f"reading {name!r} from {place} failed: {in_one_line(error)}.") from error
    return found


def _network(target: Any, spec: str, classes: int | None, real: bool) -> nn.Module:
    if isinstance(target, nn.Module):
        if classes is not None:
            raise InputError(f"{spec} is a network, already built: it does not take --classes.")
        return target
    if not callable(target):
        raise InputError(f"{spec} is {type_of(target)}: neither a network nor something that makes one.")
    options = _options(target, spec, classes)
    try:
        network = build(lambda: target(**options), real)
    except CostModelError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"calling {spec} raised {in_one_line(error)}.") from error
    if not isinstance(network, nn.Module):
        raise InputError(f"{spec} returned {type_of(network)}, not a torch.nn.Module.")
    return network


def _options(target: Any, spec: str, classes: int | None) -> dict[str, int]:
    """The arguments to call `target` with; it must need none but the classes."""
    try:
        parameters = dict(inspect.signature(target).parameters)
    except (TypeError, ValueError):
        parameters = {}  # a builtin that does not say what it takes
    option = next((name for name in _CLASSES if name in parameters), None)
    if classes is not None and option is None:
        raise InputError(f"{spec} takes no argument called classes or num_classes: leave --classes out.")
    options = {option: classes} if option and classes is not None else {}
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and parameter.kind not in variadic and name not in options
    ]
    if missing == [option]:
        raise InputError(f"{spec} needs {option}: give --classes N.")
    if missing:
        raise InputError(f"{spec} needs {', '.join(missing)}: name a function that can be called without arguments.")
    return options


def _declared(holder: Any) -> tuple[Shape, ...]:
    """What a network or its maker says that it takes; what cannot be read as that says nothing."""
    for name in ("input_shape", "example_input"):
        try:
            shapes = _shapes(getattr(holder, name, None))
        except Exception:  # a property of the user's that raises
            continue
        if shapes:
            return shapes
    return ()


def _shapes(value: Any) -> tuple[Shape, ...]:
    if isinstance(value, Shape):
        return (value,)
    if isinstance(value, str):
        return (parse_shape(value),)
    if isinstance(value, torch.Tensor):
        dtype = None if value.is_floating_point() else str(value.dtype).removeprefix("torch.")
        return (Shape(tuple(value.shape[1:]), dtype),) if value.dim() else ()
    if isinstance(value, (list, tuple)):
        if value and all(type(size) is int and size > 0 for size in value):
            return (Shape(tuple(value)),)
        each = [_shapes(item) for item in value]
        return tuple(shape for shapes in each for shape in shapes) if all(each) else ()
    return ()
