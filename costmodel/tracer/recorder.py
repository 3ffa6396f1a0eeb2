"""Writes down every ATen operation that reaches the dispatcher, and the birth and death of every storage.

`Recorder` is a `TorchDispatchMode`: it sees operators below autograd, after composite ones were taken apart, which is
what a device would be asked to run. It neither computes nor prints; `operations` and `storages` are its result.
"""

from __future__ import annotations

import functools
import itertools
import weakref
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.parameter import UninitializedTensorMixin
from torch.utils._python_dispatch import TorchDispatchMode

from costmodel.errors import TraceError
from costmodel.graph import BACKWARD, FORWARD, Operation, Storage, TensorSpec
from costmodel.tracer.shapes import MAKERS

# Factories whose result may be large and whose values no control flow should hang on; arange and its like stay real.
_TO_META = frozenset({"zeros", "ones", "full", "empty", "empty_strided", "rand", "randn", "randint", "randperm", "eye"})
_Specs = dict[str, TensorSpec]
_NEEDS_VALUES = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
_ACCUMULATE_GRAD = 2**64 - 1
"""The sequence number that autograd gives to the nodes that add a gradient to its parameter."""


@dataclass(frozen=True, slots=True)
class _Schema:
    """What the recorder needs to know of an operator, read once from its schema."""

    name: str
    overload: str
    arguments: tuple[str, ...]
    tensors: frozenset[str]
    """The arguments that are tensors, or None."""
    defaults: dict[str, Any]
    view: bool
    """It returns another look at an input's memory."""
    fresh: bool
    """Its outputs are new storages and depend on nothing but the specs of its inputs: they can be made from memory."""
    writes: tuple[str, ...]
    """The arguments that it writes in place."""
    composite: bool
    needs_values: bool
    factory: bool


@functools.cache
def _schema(func: Any) -> _Schema:
    schema = func._schema
    namespace, name = schema.name.split("::")
    arguments = tuple(argument.name for argument in schema.arguments)
    tensors = frozenset(a.name for a in schema.arguments if "Tensor" in str(a.type))
    given = {a.name: a.default_value for a in schema.arguments if a.has_default_value() and a.name not in tensors}
    defaults = {name: _attribute(value) for name, value in given.items()}
    written = tuple(a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write)
    aliased = any(r.alias_info is not None for r in schema.returns)
    return _Schema(
        name=f"{namespace}.{name}",
        overload=func._overloadname,
        arguments=arguments,
        tensors=tensors,
        defaults={key: value for key, value in defaults.items() if value is not _NO_ATTRIBUTE},
        view=(aliased and not written) or name in ("_unsafe_view", "_reshape_alias", "lift_fresh"),
        fresh=namespace == "aten" and bool(tensors) and not aliased and not written and name not in _ALIASING,
        writes=written,
        composite=_decomposes(func),
        needs_values=any(tag in func.tags for tag in _NEEDS_VALUES),
        factory=namespace == "aten" and name in _TO_META and not tensors,
    )


_ALIASING = frozenset({"_unsafe_view", "_to_copy", "contiguous", "lift_fresh", "_reshape_alias", "set_", "resize_"})
"""Operators whose outputs may share an input's storage, or whose device is an argument, though no schema says so."""


def _decomposes(func: Any) -> bool:
    """Whether the operator reaches us whole only because autograd, which takes it apart, was off (inference mode)."""
    composite = torch._C.DispatchKey.CompositeImplicitAutograd
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), composite)


class Recorder(TorchDispatchMode):
    """Records what runs inside `with recorder:`.

    `meta` is whether the network runs on meta tensors: then values are refused, real constants are turned into meta
    tensors where they meet one, and an operation seen before is not computed again.
    """

    def __init__(self, meta: bool = True) -> None:
        super().__init__()
        self.meta = meta
        self.phase = FORWARD
        self.layers = [""]
        """The modules whose forward is running, the innermost last."""
        self.operations: list[Operation] = []
        self._births: list[tuple[int, int, str]] = []
        self._deaths: dict[int, int] = {}
        self._roles: dict[int, tuple[str, str | None]] = {}
        self._index_of: dict[int, int] = {}
        self._watch: dict[int, weakref.ref[Any]] = {}
        self._made: dict[Any, Any] = {}
        self._dtypes: dict[torch.dtype, str] = {}
        self._sequence: dict[int, str] = {}
        self._sequence_order: list[int] | None = None
        self.layer_of_parameter: dict[int, str] = {}
        """The module that holds a parameter, by the parameter's id."""
        self.failed_in: str | None = None
        """The innermost module whose forward raised, in words."""

    # What the tracer tells the recorder.

    def assign(self, tensor: torch.Tensor, role: str, name: str | None = None) -> TensorSpec:
        """Say what a tensor's storage is for, and who it belongs to."""
        spec = self.spec(tensor)
        self._roles[spec.storage] = (role, name)
        return spec

    def alive(self) -> list[int]:
        """The storages that somebody holds now."""
        return list(self._index_of.values())

    def storages(self) -> tuple[Storage, ...]:
        """Every storage seen so far."""
        result = []
        for index, (nbytes, birth, layer) in enumerate(self._births):
            role, name = self._roles.get(index, ("temporary", None))
            result.append(Storage(nbytes, role, birth, self._deaths.get(index), layer if name is None else name))
        return tuple(result)

    def born_in(self, phase: str) -> Iterator[int]:
        """The storages whose first operation belongs to a phase."""
        for index, (_, birth, _) in enumerate(self._births):
            if birth >= 0 and self.operations[birth].phase == phase:
                yield index

    def assign_storage(self, index: int, role: str) -> None:
        """Like `assign`, for a storage whose tensor is gone; a role given before stays."""
        self._roles.setdefault(index, (role, None))

    # What torch calls.

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Spare every operation a detour through torch's compiler, which this mode has nothing to do with."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator and write it down."""
        kwargs = kwargs or {}
        schema = _schema(func)
        if schema.name.startswith("profiler."):
            return func(*args, **kwargs)
        if schema.composite:
            with self:
                taken_apart = func.decompose(*args, **kwargs)
            if taken_apart is not NotImplemented:
                return taken_apart
        if self.meta and schema.factory:
            kwargs = {**kwargs, "device": torch.device("meta")}
        tensors, attributes = _read(schema, args, kwargs)
        on_meta = False
        if self.meta and tensors:
            metas = sum(tensor.is_meta for tensor in tensors.values())
            on_meta = metas > 0
            if on_meta and metas < len(tensors):
                args, kwargs, tensors = self._all_meta(schema, args, kwargs, tensors)

        # Inputs first: an operation may free or replace what it was given.
        inputs = {name: self.spec(tensor) for name, tensor in tensors.items()}
        try:
            result = self._result(func, schema, args, kwargs, inputs, attributes) if on_meta else func(*args, **kwargs)
        except (RuntimeError, NotImplementedError):
            if on_meta and schema.needs_values:
                raise self._needs_values(schema) from None
            raise

        layer = self._layer()
        self.operations.append(_PLACEHOLDER)  # so that storages born now know their operation
        self._now_layer = layer
        outputs = (self.spec(result),) if isinstance(result, torch.Tensor) else self._specs(result)
        if schema.writes and not outputs:
            outputs = tuple(inputs[name] for name in inputs if name.partition(".")[0] in schema.writes)
        self.operations[-1] = Operation(
            schema.name, layer, self.phase, inputs, outputs, attributes, schema.view, schema.overload
        )
        return result

    def _result(
        self,
        func: Any,
        schema: _Schema,
        args: Any,
        kwargs: Any,
        inputs: dict[str, TensorSpec],
        attributes: dict[str, Any],
    ) -> Any:
        """What the operator returns for meta tensors: made at once, made again, or asked of torch."""
        maker = MAKERS.get(func)
        made = maker(*args, **kwargs) if maker is not None else None
        if made is not None:
            return made
        if not schema.fresh:
            return func(*args, **kwargs)
        specs = tuple((name, spec.shape, spec.dtype, spec.strides) for name, spec in inputs.items())
        key = (func, specs, tuple(attributes.items()))
        recipe = self._made.get(key)
        if recipe is not None:
            return _make(recipe)
        result = func(*args, **kwargs)
        if _is_fresh(result, self._index_of):
            self._made[key] = _recipe(result)
        return result

    # Tensors and storages.

    def spec(self, tensor: torch.Tensor) -> TensorSpec:
        """The tensor without its values; its storage is registered on first sight."""
        dtype = self._dtypes.get(tensor.dtype)
        if dtype is None:
            dtype = self._dtypes[tensor.dtype] = str(tensor.dtype).removeprefix("torch.")
        try:
            storage = tensor.untyped_storage()
        except (NotImplementedError, RuntimeError):
            raise TraceError(
                f"layer {self.layers[-1]!r} uses a {tensor.layout} tensor: only dense ones can be traced."
            ) from None
        address = storage._cdata
        index = self._index_of.get(address)
        if index is None:
            index = self._register(storage, address)
        return TensorSpec(tuple(tensor.shape), dtype, tensor.stride(), index, tensor.storage_offset())

    _now_layer = ""

    def _register(self, storage: Any, address: int) -> int:
        index = self._index_of[address] = len(self._births)
        newborn = bool(self.operations) and self.operations[-1] is _PLACEHOLDER
        self._births.append(
            (storage.nbytes(), len(self.operations) - 1 if newborn else -1, self._now_layer if newborn else "")
        )

        def gone(_: Any) -> None:
            self._deaths[index] = len(self.operations) - 1
            self._index_of.pop(address, None)
            self._watch.pop(index, None)

        self._watch[index] = weakref.ref(storage, gone)
        return index

    def _specs(self, result: Any) -> tuple[TensorSpec, ...]:
        if isinstance(result, torch.Tensor):
            return (self.spec(result),)
        if isinstance(result, (tuple, list)):
            return tuple(spec for item in result for spec in self._specs(item))
        return ()

    # Arguments.

    def _all_meta(
        self, schema: _Schema, args: Any, kwargs: Any, tensors: dict[str, Any]
    ) -> tuple[Any, Any, dict[str, Any]]:
        """Real tensors (constants that the forward made) as meta tensors, where an operation mixes them with those."""
        for name, tensor in tensors.items():
            if name in schema.writes and not tensor.is_meta:
                raise self._needs_values(schema)
        swapped = {id(t): t if t.is_meta or t.dim() == 0 else t.to("meta") for t in tensors.values()}

        def swap(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                return swapped[id(value)]
            if isinstance(value, (list, tuple)):
                return type(value)(swap(item) for item in value)
            return value

        args = tuple(swap(value) for value in args)
        kwargs = {name: swap(value) for name, value in kwargs.items()}
        return args, kwargs, {name: swapped[id(tensor)] for name, tensor in tensors.items()}

    # Layers.

    def _layer(self) -> str:
        if len(self.layers) > 1 or self.phase != BACKWARD:
            if self.phase == FORWARD:
                self._sequence.setdefault(torch.autograd._get_sequence_nr() - 1, self.layers[-1])
            return self.layers[-1]
        node = torch._C._current_autograd_node()
        if node is None:
            return self.operations[-1].layer if self.operations else ""
        number = node._sequence_nr()
        if number == _ACCUMULATE_GRAD:
            return self.layer_of_parameter.get(id(getattr(node, "variable", None)), "")
        layer = self._sequence.get(number)
        if layer is None:  # a node without an operation of its own: the one before it made it
            if self._sequence_order is None:
                self._sequence_order = sorted(self._sequence)
            place = bisect_right(self._sequence_order, number)
            layer = self._sequence[self._sequence_order[max(0, place - 1)]] if self._sequence_order else ""
        return layer

    def _needs_values(self, schema: _Schema) -> TraceError:
        return TraceError(
            f"layer {self.layers[-1] or '(the network itself)'!r} needs the values of a tensor ({schema.name}), "
            "which a static trace does not have: trace it by running it on the CPU (--run, or run=True)."
        )


class Rehearsal(Recorder):
    """A recorder for the run in which lazy modules take their shapes: it lets alone what has none yet."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator, and write it down if its tensors have shapes."""
        if any(isinstance(value, UninitializedTensorMixin) for value in args):
            return func(*args, **(kwargs or {}))
        return super().__torch_dispatch__(func, types, args, kwargs)


_PLACEHOLDER = Operation("", "", FORWARD, {}, (), {})
_NO_ATTRIBUTE: Any = object()
_PLAIN = frozenset({bool, int, float, str, type(None)})


def _read(schema: _Schema, args: Any, kwargs: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors among the arguments by name, and the other arguments as JSON knows them."""
    tensors: dict[str, torch.Tensor] = {}
    attributes = schema.defaults.copy()
    named: Any = zip(schema.arguments, args, strict=False)
    for name, value in itertools.chain(named, kwargs.items()) if kwargs else named:
        kind = type(value)
        if kind in _PLAIN:
            if value is not None or name not in schema.tensors:
                attributes[name] = value
        elif isinstance(value, torch.Tensor):
            tensors[name] = value
        elif kind in (list, tuple) and value and any(isinstance(item, torch.Tensor) for item in value):
            for position, item in enumerate(value):
                if isinstance(item, torch.Tensor):
                    tensors[f"{name}.{position}"] = item
        else:
            attribute = _attribute(value)
            if attribute is not _NO_ATTRIBUTE:
                attributes[name] = attribute
    return tensors, attributes


def _attribute(value: Any) -> Any:
    """The argument as JSON knows it: lists become tuples, torch's types their names."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, (list, tuple)):
        if _PLAIN.issuperset(map(type, value)):
            return tuple(value)
        items = tuple(_attribute(item) for item in value)
        return _NO_ATTRIBUTE if _NO_ATTRIBUTE in items else items
    if isinstance(value, (torch.dtype, torch.layout, torch.memory_format)):
        return str(value).removeprefix("torch.")
    if isinstance(value, torch.device):
        return value.type
    return _NO_ATTRIBUTE


def _is_fresh(result: Any, known: dict[int, int]) -> bool:
    """Whether every tensor of the result is a meta tensor that fills a new storage of its own."""
    taken: set[int] = set()
    for tensor in result if isinstance(result, (tuple, list)) else (result,):
        if tensor is None:
            continue
        if not isinstance(tensor, torch.Tensor) or not tensor.is_meta or tensor.storage_offset():
            return False
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in known or address in taken or storage.nbytes() != tensor.numel() * tensor.element_size():
            return False
        taken.add(address)
    return True


def _recipe(result: Any) -> Any:
    if result is None:
        return _NOTHING
    if isinstance(result, torch.Tensor):
        return (result.shape, result.stride(), result.dtype)
    return [type(result), *(_recipe(item) for item in result)]


_NOTHING = ()


def _make(recipe: Any) -> Any:
    """New meta tensors by the recipe of an earlier result."""
    if recipe is _NOTHING:
        return None
    if isinstance(recipe, list):
        kind, *items = recipe
        return kind(_make(item) for item in items)
    shape, stride, dtype = recipe
    return torch.empty_strided(shape, stride, dtype=dtype, device="meta")
