"""Writes down every ATen operation that reaches the dispatcher, and the birth and death of every storage.

`Recorder` is a `TorchDispatchMode`: it sees operators below autograd, after composite ones were taken apart, which is
what a device would be asked to run. It neither computes nor prints; `operations` and `storages` are its result.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import torch
from torch.nn.parameter import UninitializedTensorMixin
from torch.utils._python_dispatch import TorchDispatchMode

from costmodel.errors import TraceError
from costmodel.graph import BACKWARD, FORWARD, Operation, TensorSpec
from costmodel.tracer.accumulation import ADD, ADD_IN_PLACE, adds_in_place
from costmodel.tracer.inputs import DTYPE_NAMES
from costmodel.tracer.schema import Schema, read_arguments, schema_of
from costmodel.tracer.shapes import MAKERS
from costmodel.tracer.storages import Storages

_DETACH = torch.ops.aten.detach.default
_new = tuple.__new__
"""Makes a named tuple of a tuple at half the price: there are thousands in a trace."""
_ACCUMULATE_GRAD = 2**64 - 1
"""The sequence number that autograd gives to the nodes that add a gradient to its parameter."""


class Recorder(TorchDispatchMode):
    """Records what runs inside `with recorder:`.

    `meta` is whether the network runs on meta tensors: then values are refused, real constants are turned into meta
    tensors where they meet one, and an operation seen before is not computed again. `train` is whether a backward will
    follow, whose operations belong to the layers whose forward made their nodes.
    """

    def __init__(self, meta: bool = True, train: bool = False) -> None:
        super().__init__()
        self.meta = meta
        self._backward_follows = train
        self.phase = FORWARD
        self.layers = [""]
        """The modules whose forward is running, the innermost last."""
        self.operations: list[Operation] = []
        self.storages = Storages()
        self._made: dict[Any, Any] = {}
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

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Spare every operation a detour through torch's compiler, which this mode has nothing to do with."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator and write it down."""
        kwargs = kwargs or {}
        if func is ADD and self.phase == BACKWARD and not kwargs and adds_in_place(*args) and self._was_there(args[0]):
            func = ADD_IN_PLACE
        schema = schema_of(func)
        if schema.name.startswith("profiler.") or (func is _DETACH and self.phase == BACKWARD):
            return func(*args, **kwargs)  # autograd detaches what it unpacks: no operation of the network's
        if schema.composite:
            with self:
                taken_apart = func.decompose(*args, **kwargs)
            if taken_apart is not NotImplemented:
                return taken_apart
        if self.meta and schema.factory:
            kwargs = {**kwargs, "device": torch.device("meta")}
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
        try:
            if on_meta or (self.meta and schema.factory):
                result = self._result(func, schema, args, kwargs, inputs, attributes)
            else:
                result = func(*args, **kwargs)
        except (RuntimeError, NotImplementedError):
            if on_meta and schema.needs_values:
                raise self._needs_values(schema) from None
            raise

        storages, layer = self.storages, self._layer()
        storages.running, storages.maker = len(self.operations), layer
        outputs = (spec(result),) if isinstance(result, torch.Tensor) else self._specs(result)
        storages.maker = None
        if schema.writes and not outputs:
            outputs = tuple(inputs[name] for name in inputs if name.partition(".")[0] in schema.writes)
        self.operations.append(
            _new(
                Operation,
                (schema.name, layer, self.phase, inputs, outputs, attributes, schema.view, schema.overload),
            )
        )
        return result

    def _result(
        self,
        func: Any,
        schema: Schema,
        args: Any,
        kwargs: Any,
        inputs: dict[str, TensorSpec],
        attributes: dict[str, Any],
    ) -> Any:
        """What the operator returns for meta tensors: nothing, made at once, made again, or asked of torch."""
        if schema.silent:
            return None
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
        if _is_fresh(result, self.storages):
            self._made[key] = _recipe(result)
        return result

    def spec(self, tensor: torch.Tensor) -> TensorSpec:
        """The tensor without its values; its storage is registered on first sight."""
        try:
            storage = tensor.untyped_storage()
        except (NotImplementedError, RuntimeError):
            raise TraceError(
                f"layer {self.layers[-1]!r} uses a {tensor.layout} tensor: only dense ones can be traced."
            ) from None
        index = self._index_of.get(storage._cdata)
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
        self._sequence_starts.append(torch.autograd._get_sequence_nr())
        self._sequence_layers.append(self.layers[-1])

    def _layer(self) -> str:
        """Where an operation belongs: in the backward, to the layer in whose forward its autograd node was made."""
        if self.phase != BACKWARD or len(self.layers) > 1:
            return self.layers[-1]
        node = torch._C._current_autograd_node()
        if node is None:
            return self.operations[-1].layer if self.operations else ""
        number = node._sequence_nr()
        if number != self._node:
            self._node, self._node_from = number, len(self.operations)
        return self.layer_of_node(node)

    def _was_there(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is older than the autograd node that runs, which then did not make it on its way."""
        node = torch._C._current_autograd_node()
        begun = self._node_from if node is not None and node._sequence_nr() == self._node else len(self.operations)
        return self.storages.birth(tensor.untyped_storage()) < begun

    def layer_of_node(self, node: Any) -> str:
        """The layer in whose forward an autograd node was made, or that holds the parameter it adds a gradient to."""
        number = node._sequence_nr()
        if number == _ACCUMULATE_GRAD:
            return self.layer_of_parameter.get(id(getattr(node, "variable", None)), "")
        return self._sequence_layers[bisect_right(self._sequence_starts, number) - 1]

    def _needs_values(self, schema: Schema) -> TraceError:
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


def _is_fresh(result: Any, known: Storages) -> bool:
    """Whether every tensor of the result is a meta tensor that fills a new storage of its own."""
    taken: set[int] = set()
    for tensor in result if isinstance(result, (tuple, list)) else (result,):
        if tensor is None:
            continue
        if not isinstance(tensor, torch.Tensor) or not tensor.is_meta or tensor.storage_offset():
            return False
        storage = tensor.untyped_storage()
        fills = storage.nbytes() == tensor.numel() * tensor.element_size()
        if known.is_known(storage) or storage._cdata in taken or not fills:
            return False
        taken.add(storage._cdata)
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
