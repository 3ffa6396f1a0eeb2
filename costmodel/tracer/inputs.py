"""What a network is fed: shapes, specs or real tensors in; meta (or random) tensors out."""

from __future__ import annotations

import dataclasses
import numbers
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from costmodel.errors import InputError

DTYPES: Mapping[str, torch.dtype] = {
    str(value).removeprefix("torch."): value for value in vars(torch).values() if isinstance(value, torch.dtype)
}
DTYPE_NAMES: Mapping[torch.dtype, str] = {dtype: str(dtype).removeprefix("torch.") for dtype in DTYPES.values()}
_SHORT = {"fp64": "float64", "fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "half": "float16"}


@dataclass(frozen=True, slots=True, init=False)
class Shape:
    """The shape and element type of one input, with the batch."""

    sizes: tuple[int, ...]
    dtype: str | None = None
    """The element type by torch's name; None for the network's own."""

    name: str | None = None
    """The forward's name for the argument, where inputs go by their names."""

    def __init__(self, sizes: tuple[int, ...], dtype: str | torch.dtype | None = None, name: str | None = None) -> None:
        """The type may be a torch.dtype. Raises InputError for a type that torch does not have."""
        object.__setattr__(self, "sizes", sizes)
        object.__setattr__(self, "dtype", None if dtype is None else dtype_name(dtype))
        object.__setattr__(self, "name", name)


_SHAPE = re.compile(r"\s*(?:([^\W\d]\w*)\s*=\s*)?(\d+(?:[x,]\d+)*)\s*(?::\s*(\w+))?\s*")


def parse_shape(text: str, batch: bool = False) -> Shape:
    """Sizes, an optional element type and an optional name: "3x224x224", "128:int64", "input_ids=128:int64".

    `batch` is whether the batch is among them, as in Python and not on the command line; it shows in errors alone.
    Raises InputError with the form to write.
    """
    match = _SHAPE.fullmatch(text)
    if match is None:
        form = "with the batch, like 8x3x224x224 or 8x128" if batch else "without the batch, like 3x224x224 or 128"
        raise InputError(f"cannot read the input {text!r}: write sizes {form}:int64.")
    name, numerals, dtype = match.groups()
    sizes = tuple(int(size) for size in re.split("[x,]", numerals))
    if 0 in sizes:
        raise InputError(f"the input {text!r} has a size of zero: every size must be at least 1.")
    return Shape(sizes, dtype_name(dtype) if dtype else None, name)


def dtype_name(name: str | torch.dtype) -> str:
    """The full name of an element type. Raises InputError for a name that torch does not have."""
    full = str(name).removeprefix("torch.")
    full = _SHORT.get(full, full)
    if full not in DTYPES:
        raise InputError(f"unknown dtype {name!r}: use float32, float16, bfloat16, float64, int64, ...")
    return full


def floating_dtype(name: str | torch.dtype | None) -> torch.dtype | None:
    """The torch dtype of that name, which must be a floating-point one for a network to run in it."""
    if name is None:
        return None
    dtype = DTYPES[dtype_name(name)]
    if not dtype.is_floating_point:
        raise InputError(f"a network cannot run in {name}: use float32, float16, bfloat16 or float64.")
    return dtype


def materialize(inputs: Any, dtype: torch.dtype, meta: bool, adopt: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Positional and keyword arguments for a forward, `(args, kwargs)`.

    `inputs` is a shape (a tuple of sizes or a text like "8x128:int64", batch included), a tensor, a `Shape`, a sequence
    of those for several inputs, or a mapping from the forward's argument names to them. Anything else inside a sequence
    or a mapping (numbers, flags, nested lists of tensors) is handed on. `adopt` turns a tensor of the user's into the
    one to run with. Raises InputError for anything else, and for sizes that are not whole numbers from 1.
    """

    def make(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return adopt(value)
        shape = _shape_of(value)
        if shape is not None:
            return _tensor(shape.sizes, DTYPES[shape.dtype] if shape.dtype else dtype, meta)
        if isinstance(value, (list, tuple)):
            return type(value)(make(item) for item in value)
        if isinstance(value, Mapping):
            return {key: make(item) for key, item in value.items()}
        return value

    if isinstance(inputs, Mapping):
        return (), {str(key): make(value) for key, value in inputs.items()}
    if isinstance(inputs, str):
        inputs = parse_shape(inputs, batch=True)
    if isinstance(inputs, torch.Tensor) or _shape_of(inputs) is not None:
        return (make(inputs),), {}
    if isinstance(inputs, Sequence) and len(inputs):
        if all(isinstance(size, numbers.Real) and not isinstance(size, bool) for size in inputs):
            raise InputError(f"the input's shape {tuple(inputs)} must be whole numbers, like (1, 3, 224, 224).")
        return tuple(make(value) for value in inputs), {}
    raise InputError(
        f"cannot use {inputs!r} as inputs: give a shape like (1, 3, 224, 224), a tensor, a list of those, "
        "or a dict from the forward's argument names to those."
    )


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors inside outputs or arguments, depth first."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors_in(getattr(value, field.name))


def shapes_in(inputs: Any) -> Iterator[tuple[int, ...]]:
    """The inputs that were given as shapes, not as tensors; with the batch."""
    shape = _shape_of(inputs)
    if shape is not None:
        yield shape.sizes
    elif isinstance(inputs, (Mapping, list, tuple)):
        for value in inputs.values() if isinstance(inputs, Mapping) else inputs:
            yield from shapes_in(value)


def shapes_of(value: Any) -> str:
    """The shapes of the tensors inside outputs or arguments, for a message: "1x3x224x224"."""
    return ", ".join("x".join(map(str, tensor.shape)) or "a number" for tensor in tensors_in(value)) or "no tensor"


def _shape_of(value: Any) -> Shape | None:
    """The shape that a value means, if it means one: numbers of any library's that are whole, and texts of them."""
    if isinstance(value, Shape):
        return Shape(tuple(operator.index(size) for size in value.sizes), value.dtype)
    if isinstance(value, str):
        return parse_shape(value, batch=True) if _SHAPE.fullmatch(value) else None
    if isinstance(value, (tuple, list)) and value and all(map(_is_size, value)):
        return Shape(tuple(operator.index(size) for size in value))
    return None


def _is_size(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _tensor(sizes: tuple[int, ...], dtype: torch.dtype, meta: bool) -> torch.Tensor:
    if any(size < 1 for size in sizes):
        raise InputError(f"the input's shape {sizes} has a size below 1: batch and sizes must be at least 1.")
    if meta:
        return torch.empty(sizes, dtype=dtype, device="meta")
    generator = torch.Generator().manual_seed(0)
    try:
        if dtype.is_floating_point:
            return torch.rand(sizes, generator=generator).to(dtype)
        return torch.zeros(sizes, dtype=dtype)
    except RuntimeError:  # quantised types, and packed ones
        raise InputError(
            f"torch cannot fill a tensor of {DTYPE_NAMES[dtype]}: give the input as a tensor, or trace without --run."
        ) from None
