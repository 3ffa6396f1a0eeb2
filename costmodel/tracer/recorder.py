"""Writes down every ATen operation that reaches the dispatcher, and the birth and death of every storage.

`Recorder` is a `DispatchMode`: it sees operators below autograd, after composite ones were taken apart, which is
what a device would be asked to run. It neither computes nor prints; `operations` and `storages` are its result.
"""

from __future__ import annotations

import gc
import math
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch.nn.parameter import is_lazy

from costmodel.errors import TraceError
from costmodel.graph import BACKWARD, DTYPE_BYTES, FORWARD, Operation, TensorSpec
from costmodel.tracer.accumulation import ADD, ADD_IN_PLACE, adds_in_place
from costmodel.tracer.inputs import DTYPE_NAMES, DTYPES
from costmodel.tracer.meta_kernels import META_KERNELS
from costmodel.tracer.meta_shapes import IN_PLACE, META_SHAPES, MetaTensor, ShapeFunction
from costmodel.tracer.meta_shapes_on_cpu import META_SHAPES_ON_CPU
from costmodel.tracer.schema import Schema, read_arguments, schema_of
from costmodel.tracer.storages import Storages
from costmodel.tracer.torch_private import (
    ADDS_TO_PARAMETER,
    DispatchMode,
    NestedTensor,
    address,
    counts_in_buffer,
    next_number,
    node_number,
    running_node,
)

_DETACH = torch.ops.aten.detach.default
_new = tuple.__new__
"""Makes a named tuple of a tuple at half the price: there are thousands in a trace."""
_META = torch.device("meta")


class Recorder(DispatchMode):
    """Records what runs inside `with recorder:`.

    `meta` is whether the network runs on meta tensors: then values are refused, real constants are turned into meta
    tensors where they meet one, and an operation seen before is not computed again. `train` is whether a backward will
    follow, whose operations belong to the layers whose forward made their nodes. `target` is whose layouts are meant.
    """

    def __init__(self, meta: bool = True, train: bool = False, target: str = "cuda") -> None:
        super().__init__()
        if train:
            counts_in_buffer()  # measured before the first backward, which `adds_in_place` needs it in
        self.meta = meta
        self.shape_functions: Mapping[Any, ShapeFunction] = META_SHAPES_ON_CPU if target == "cpu" else META_SHAPES
        """What says the shapes of an operator's results without asking torch, by operator."""
        self._backward_follows = train
        self.phase = FORWARD
        self.layers = [""]
        """The modules whose forward is running, the innermost last."""
        self.operations: list[Operation] = []
        self.storages = Storages()
        self._cached_results: dict[Any, _CachedResult] = {}
        self._index_of = self.storages.index_of
        self._sequence_starts: list[int] = [0]
        """The numbers of autograd's next node whenever the layer changed; below, the layer from there on."""
        self._sequence_layers: list[str] = [""]
        self.layer_of_parameter: dict[int, str] = {}
        """The module that holds a parameter, by the parameter's id."""
        self._node: int | None = None
        """The sequence number of the autograd node whose operations were the last."""
        self._node_from = 0
        """The first of its operations."""
        self._recomputed_from = 0
        """In the backward, the first operation of a forward that runs again."""
        self.failed_in: str | None = None
        """The innermost module whose forward raised, in words."""

    def assign(self, tensor: torch.Tensor, role: str, name: str) -> TensorSpec:
        """Say what a tensor's storage is for, and what it is called."""
        spec = self.spec(tensor)
        self.storages.assign(spec.storage, role, name)
        return spec

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator and write it down."""
        kwargs = kwargs or {}
        if func is ADD and self.phase == BACKWARD and not kwargs and adds_in_place(*args) and self._was_there(args[0]):
            func = ADD_IN_PLACE
        if types and any(issubclass(cls, NestedTensor) for cls in types):
            raise TraceError(f"layer {self._here()} uses nested tensors, which cannot be traced: pad them.")
        schema = schema_of(func)
        if schema.name.startswith("profiler.") or (func is _DETACH and self.phase == BACKWARD):
            return func(*args, **kwargs)  # autograd detaches what it unpacks: no operation of the network's
        if schema.composite:
            with self:
                taken_apart = func.decompose(*args, **kwargs)
            if taken_apart is not NotImplemented:
                return taken_apart
        on_meta_by_order = self.meta and schema.factory
        if on_meta_by_order:
            if "pin_memory" in kwargs:  # it comes from Python
                kwargs = {**kwargs, "device": _META}
            else:  # and this from torch itself, which will look at what it asked for on the CPU
                on_meta_by_order = kwargs.get("device") == _META
        tensors, attributes = read_arguments(schema, args, kwargs)
        spec = self.spec
        on_meta = False
        if self.meta and tensors:
            places = [tensor.is_meta for tensor in tensors.values()]
            on_meta = True in places
            if on_meta and False in places:
                args, kwargs, tensors = self._all_meta(schema, args, kwargs, tensors)

        # Inputs first: an operation may free or replace what it was given.
        inputs = {name: spec(tensor) for name, tensor in tensors.items()}
        static = on_meta or on_meta_by_order
        cached, key = self._known_result(func, schema, inputs, attributes) if static else (None, None)
        result = None
        if cached is None and not (static and schema.silent):
            result = self._run(func, schema, args, kwargs, on_meta)
            if key is not None and _is_fresh(result, self.storages):
                self._cached_results[key] = _to_cache(result)

        self.begin()
        if cached is None:
            outputs = self._specs(result)
        else:
            result, outputs = self._rebuild(cached, args, inputs)
        if schema.writes and not outputs:
            outputs = tuple(inputs[name] for name in inputs if name.partition(".")[0] in schema.writes)
        self.write(schema, inputs, outputs, attributes)
        return result

    def begin(self) -> None:
        """From here on storages that are seen first are the results of the operation that is written next."""
        self.storages.running, self.storages.producer = len(self.operations), self._layer()

    def write(
        self, schema: Schema, inputs: Mapping[str, TensorSpec], outputs: tuple[TensorSpec, ...], attributes: Any
    ) -> None:
        """Write down the operation that began."""
        storages = self.storages
        layer, storages.producer = storages.producer, None
        self.operations.append(
            _new(
                Operation,
                (schema.name, layer, self.phase, inputs, outputs, attributes, schema.view, schema.overload),
            )
        )

    def _known_result(
        self, func: Any, schema: Schema, inputs: dict[str, TensorSpec], attributes: dict[str, Any]
    ) -> tuple[_CachedResult | None, Any]:
        """What the operator returns for meta tensors, if that is plain or was seen before; else torch must be asked.

        Beside it what decides the results, if they are nothing but new tensors and were not seen yet.
        """
        shape_function = self.shape_functions.get(func)
        results = shape_function(inputs, attributes) if shape_function is not None else None
        if results is not None:
            return (tuple if schema.several else None, results), None
        if not schema.fresh or func in META_KERNELS:
            return None, None
        specs = tuple((name, spec.shape, spec.dtype, spec.strides) for name, spec in inputs.items())
        key = (func, specs, tuple(attributes.items()))
        return self._cached_results.get(key), key

    def _run(self, func: Any, schema: Schema, args: Any, kwargs: Any, on_meta: bool) -> Any:
        """Ask torch. Raises TraceError if an operator on meta tensors needs values."""
        try:
            return (META_KERNELS.get(func, func) if on_meta else func)(*args, **kwargs)
        except (RuntimeError, NotImplementedError):
            if on_meta and schema.needs_values:
                raise self._needs_values(schema) from None
            raise
        finally:
            if func not in _ASKED:
                _ASKED.add(func)
                gc.collect(0)

    def _rebuild(
        self, cached: _CachedResult, args: Any, inputs: dict[str, TensorSpec]
    ) -> tuple[Any, tuple[TensorSpec, ...]]:
        """New tensors like an operator's cached result, and their specs."""
        container, results = cached
        if results is IN_PLACE:
            return args[0], (next(iter(inputs.values())),)
        made = [(None, None) if result is None else self.fill(result) for result in results]
        specs = tuple([spec for _, spec in made if spec is not None])
        return made[0][0] if container is None else container(tensor for tensor, _ in made), specs

    def fill(self, result: MetaTensor) -> tuple[torch.Tensor, TensorSpec]:
        """A new meta tensor, and its spec."""
        shape, dtype, strides = result
        tensor = torch.empty_strided(shape, strides, dtype=DTYPES[dtype], device=_META)
        return tensor, _new(TensorSpec, (shape, dtype, strides, self.storages.register(tensor.untyped_storage()), 0))

    def dropped(self, result: MetaTensor) -> TensorSpec:
        """The spec of a result that nobody keeps."""
        shape, dtype, strides = result
        index = self.storages.register_dropped(math.prod(shape) * DTYPE_BYTES[dtype])
        return _new(TensorSpec, (shape, dtype, strides, index, 0))

    def spec(self, tensor: torch.Tensor) -> TensorSpec:
        """The tensor without its values; its storage is registered on first sight."""
        try:
            storage = tensor.untyped_storage()
        except (NotImplementedError, RuntimeError):
            raise TraceError(
                f"layer {self._here()} uses a {tensor.layout} tensor: only dense ones can be traced."
            ) from None
        index = self._index_of.get(address(storage))
        if index is None:
            index = self.storages.register(storage)
        dtype = DTYPE_NAMES[tensor.dtype]
        return _new(TensorSpec, (tuple(tensor.shape), dtype, tensor.stride(), index, tensor.storage_offset()))

    def _specs(self, result: Any) -> tuple[TensorSpec, ...]:
        if isinstance(result, torch.Tensor):
            return (self.spec(result),)
        if isinstance(result, (tuple, list)):
            return tuple([spec for item in result for spec in self._specs(item)])
        return ()

    def _all_meta(
        self, schema: Schema, args: Any, kwargs: Any, tensors: dict[str, Any]
    ) -> tuple[Any, Any, dict[str, Any]]:
        """Real tensors (constants that the forward made) as meta tensors, where an operation mixes them with those."""
        for name, tensor in tensors.items():
            if name in schema.writes and not tensor.is_meta:
                raise self._needs_values(schema)
        stay = {id(tensor) for name, tensor in tensors.items() if tensor.dim() == 0 or name in _SIZES}
        others = {id(t): t if t.is_meta or id(t) in stay else t.to("meta") for t in tensors.values()}
        return _swapped(args, others), _swapped(kwargs, others), _swapped(tensors, others)

    def enter(self, layer: str) -> None:
        """From here on operations belong to `layer`, until `leave`."""
        if self.phase == BACKWARD and len(self.layers) == 1:
            self._recomputed_from = len(self.operations)
        self.layers.append(layer)
        if self._backward_follows:
            self._note_sequence()

    def leave(self) -> None:
        """Operations belong to the layer around this one again."""
        self.layers.pop()
        if self._backward_follows:
            self._note_sequence()
            if self.phase == BACKWARD and len(self.layers) == 1:  # a checkpointed block has been recomputed
                self.storages.assign_others("activation", since=self._recomputed_from)

    def _note_sequence(self) -> None:
        self._sequence_starts.append(next_number())
        self._sequence_layers.append(self.layers[-1])

    def _layer(self) -> str:
        """Where an operation belongs: in the backward, to the layer in whose forward its autograd node was made."""
        if self.phase != BACKWARD or len(self.layers) > 1:
            return self.layers[-1]
        node = running_node()
        if node is None:
            return self.operations[-1].layer if self.operations else ""
        number = node_number(node)
        if number != self._node:
            self._node, self._node_from = number, len(self.operations)
        return self.layer_of_node(node)

    def _was_there(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is older than the autograd node that runs, which then did not make it on its way."""
        node = running_node()
        begun = self._node_from if node is not None and node_number(node) == self._node else len(self.operations)
        return self.storages.birth(tensor.untyped_storage()) < begun

    def layer_of_node(self, node: Any) -> str:
        """The layer in whose forward an autograd node was made, or that holds the parameter it adds a gradient to."""
        number = node_number(node)
        if number == ADDS_TO_PARAMETER:
            return self.layer_of_parameter.get(id(getattr(node, "variable", None)), "")
        return self._sequence_layers[bisect_right(self._sequence_starts, number) - 1]

    def _here(self) -> str:
        return repr(self.layers[-1] or "(the network itself)")

    def _needs_values(self, schema: Schema) -> TraceError:
        return TraceError(
            f"layer {self._here()} needs the values of a tensor ({schema.name}), "
            "which a static trace does not have: trace it by running it on the CPU (--run, or run=True)."
        )


class Rehearsal(Recorder):
    """A recorder for the run in which lazy modules take their shapes: it lets alone what has none yet."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator, and write it down if its tensors have shapes."""
        if any(is_lazy(value) for value in args):
            return func(*args, **(kwargs or {}))
        return super().__torch_dispatch__(func, types, args, kwargs)


_ASKED: set[Any] = set()
"""The operators that torch was asked for in this process. The first time, it imports and compiles what it needs, which
leaves cycles that hold the frames of all who called, with the tensors in them: they are to be collected at once."""

_SIZES = frozenset({"lengths", "batch_sizes"})
"""Arguments whose values say what shape the results have: torch wants them real beside meta tensors."""

_CachedResult: TypeAlias = tuple[type | None, tuple[MetaTensor | None, ...]]
"""A tuple, a list or a tensor alone, and what is in it."""


def _swapped(value: Any, others: Mapping[int, torch.Tensor]) -> Any:
    """Arguments with other tensors in place of theirs, by id."""
    if isinstance(value, torch.Tensor):
        return others[id(value)]
    if isinstance(value, dict):
        return {name: _swapped(item, others) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_swapped(item, others) for item in value)
    return value


def _is_fresh(result: Any, known: Storages) -> bool:
    """Whether the result is meta tensors, one at least, that each fill a new storage of their own."""
    taken: set[int] = set()
    for tensor in result if isinstance(result, (tuple, list)) else (result,):
        if tensor is None:
            continue
        if not isinstance(tensor, torch.Tensor) or not tensor.is_meta or tensor.storage_offset():
            return False
        storage = tensor.untyped_storage()
        fills = storage.nbytes() == tensor.numel() * tensor.element_size()
        if known.is_known(storage) or address(storage) in taken or not fills:
            return False
        taken.add(address(storage))
    return bool(taken)


def _to_cache(result: Any) -> _CachedResult:
    if isinstance(result, torch.Tensor):
        return None, (_meta_tensor(result),)
    return type(result), tuple(None if item is None else _meta_tensor(item) for item in result)


def _meta_tensor(tensor: torch.Tensor) -> MetaTensor:
    return MetaTensor(tuple(tensor.shape), DTYPE_NAMES[tensor.dtype], tensor.stride())
