"""The data model: tensors, operations and the trace of one run. Plain frozen values without a torch object.

A `Trace` is what everything else reads: costs, memory, loop nests. It is written by `costmodel.trace`, survives a round
trip through JSON (`Trace.to_json`, `Trace.from_json`) and needs no torch to be read.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from costmodel.errors import InputError
from costmodel.typed import decode, schema_of
from costmodel.view import Table, show

FORWARD, BACKWARD, OPTIMIZER = PHASES = ("forward", "backward", "optimizer")

LOSS_LAYER, OPTIMIZER_LAYER = "(loss)", "(optimizer)"
"""Where a training step's operations stand that no module made."""

ROLES = ("parameter", "buffer", "input", "activation", "gradient", "optimizer state", "temporary")
"""What memory is used for. An activation is what the forward leaves to the backward."""

HOST = "host"
"""The role of host memory beside a network on CUDA: an optimizer's step counters."""

DTYPE_BYTES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2,
    "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1, "float8_e8m0fnu": 1,
    "float4_e2m1fn_x2": 1,
    "bcomplex32": 4, "complex32": 4, "complex64": 8, "complex128": 16,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint64": 8, "uint32": 4, "uint16": 2, "uint8": 1, "bool": 1,
    **{f"{kind}{bits}": 1 for kind in ("int", "uint") for bits in range(1, 8)},
    "bits16": 2, "bits8": 1, "bits4x2": 1, "bits2x4": 1, "bits1x8": 1,
    "qint32": 4, "qint8": 1, "quint8": 1, "quint4x2": 1, "quint2x4": 1,
}  # fmt: skip
"""Bytes of an element, as torch stores it: a byte at least. Of the packed types ("x2", "x4", "x8") one element is the
byte with several numbers in it."""

SCHEMA = "costmodel/trace/2"


if TYPE_CHECKING:
    Value = Any
else:
    _Plain = bool | int | float | str | None
    Value = _Plain | tuple[_Plain | tuple[_Plain, ...], ...]
    """What attributes and settings may be. JSON has no tuples: this says where its lists become some again."""


class TensorSpec(NamedTuple):
    """A tensor without its values."""

    shape: tuple[int, ...]
    """Its sizes, in elements."""

    dtype: str
    """Its element type, by torch's name: "float32"."""

    strides: tuple[int, ...]
    """Elements from one index to the next, a dimension each; 0 where an expanded dimension repeats one element."""

    storage: int
    """The storage that it is a view of: an index into `Trace.storages`. Two specs with one storage share memory."""

    offset: int = 0
    """Its first element's place in the storage, in elements."""

    @property
    def numel(self) -> int:
        """How many elements it shows, repeated ones included."""
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return DTYPE_BYTES[self.dtype]

    @property
    def nbytes(self) -> int:
        """Bytes that reading it once touches: an expanded dimension (stride 0) holds its element only once."""
        if 0 in self.strides:
            distinct = math.prod(n for n, stride in zip(self.shape, self.strides, strict=True) if stride or n == 0)
            return distinct * DTYPE_BYTES[self.dtype]
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


class Operation(NamedTuple):
    """One operator call, as the dispatcher saw it."""

    operator: str
    """The operator's name without its overload: "aten.convolution"."""

    layer: str
    """Dotted path of the innermost module that made the call ("" is the network itself); in the backward phase the
    module whose forward it differentiates, in the optimizer phase the module that owns the parameter."""

    phase: str
    """"forward", "backward" or "optimizer"."""

    inputs: Mapping[str, TensorSpec]
    """The tensor arguments by their name in the operator's schema; those of a list argument are "name.0", "name.1"."""

    outputs: tuple[TensorSpec, ...]
    """The tensors it returned, or wrote in place when it returned none."""

    attributes: Mapping[str, Value]
    """The other arguments by name, where they are numbers, truth values, texts or lists of them."""

    view: bool = False
    """Whether the outputs are views of an input: nothing is moved."""

    overload: str = "default"
    """The operator's overload: "Tensor", "dim_IntList", "out" ..."""


class Storage(NamedTuple):
    """A block of memory: when it was allocated and freed, and what it was used for."""

    nbytes: int
    """Its size as requested from the allocator."""

    role: str
    """One of ROLES, or HOST."""

    birth: int
    """Index of the operation that made it; -1 if it existed before the first."""

    death: int | None
    """Index of the operation after which nothing refers to it; None if it outlives the last."""

    name: str = ""
    """The parameter's or buffer's name, or the layer that made it."""

    saved_by: tuple[str, ...] = ()
    """The layers whose operations saved it for the backward, in order (of the first micro-batch, if there are more)."""


class Parameter(NamedTuple):
    """A parameter or buffer of a module, once per storage: a shared one belongs to the first module that holds it."""

    name: str
    """Dotted path of the tensor: "features.0.weight"."""

    layer: str
    """Dotted path of the module that holds it."""

    tensor: TensorSpec
    trainable: bool = True
    buffer: bool = False


class Module(NamedTuple):
    """A module of the network."""

    path: str
    """Dotted path; "" is the network itself."""

    type: str
    """Its class's name: "Conv2d"."""

    leaf: bool
    """Whether it has no submodules."""

    calls: int = 0
    """How often its forward was called."""

    output_shape: tuple[int, ...] | None = None
    """Shape of the first tensor that its last call returned."""

    settings: Mapping[str, Value] = {}
    """The settings of its class that formulas need: in_channels, kernel_size, groups ..."""


@dataclass(frozen=True, repr=False)
class Trace:
    """One run of a network, written down."""

    model: str
    """The network's name."""

    operations: tuple[Operation, ...]
    storages: tuple[Storage, ...]
    modules: tuple[Module, ...]
    """Every module: in the order of their first calls, then those never called."""

    parameters: tuple[Parameter, ...]
    """Parameters and buffers, shared ones once."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    dtype: str
    """The floating-point type that the network ran in."""

    train: bool = False
    """Whether backward and optimizer step were run."""

    target: str = "cuda"
    """Whose operators were recorded: "cuda", "cpu", or "meta" where nothing is fused."""

    settings: Mapping[str, Value] = field(default_factory=dict)
    """The other options of the run: loss, optimizer and its options, mixed precision ..."""

    versions: Mapping[str, str] = field(default_factory=dict)
    """The versions of torch and torchvision that dispatched the operators."""

    def __repr__(self) -> str:
        return f"<Trace of {self.model}: {len(self.operations)} operations in {', '.join(self.phases)}>"

    def _repr_html_(self) -> str:
        """What ran, for a notebook: how much of it by phase, and what went in and came out."""
        counts = Counter(operation.phase for operation in self.operations)
        rows = [
            *(("operations", f"{phase}: {counts[phase]:,}") for phase in self.phases),
            ("parameters", f"{sum(p.tensor.numel for p in self.parameters if not p.buffer):,}"),
            *(("input", f"{show(tensor.shape, 'shape')} {tensor.dtype}") for tensor in self.inputs),
            *(("output", f"{show(tensor.shape, 'shape')} {tensor.dtype}") for tensor in self.outputs),
            ("operators of", self.target),
            *((name.replace("_", " "), str(value)) for name, value in self.settings.items()),
        ]
        notes = ("cm.count(trace) says what it costs, cm.memory_timeline(trace) which memory it holds.",)
        return Table.of(("number", "amount"), rows, title=f"Trace of {self.model}", notes=notes)._repr_html_()

    @cached_property
    def phases(self) -> tuple[str, ...]:
        """The phases that occur, in order."""
        present = {operation.phase for operation in self.operations}
        return tuple(phase for phase in PHASES if phase in present)

    @cached_property
    def module_by_path(self) -> Mapping[str, Module]:
        """The modules by their dotted path."""
        return {module.path: module for module in self.modules}

    def of_phase(self, phase: str) -> Iterator[Operation]:
        """The operations of one phase."""
        return (operation for operation in self.operations if operation.phase == phase)

    def to_json(self) -> str:
        """The trace as a JSON document (schema costmodel/trace/2): named tuples are arrays."""
        document = {f.name: getattr(self, f.name) for f in fields(self)}
        return json.dumps({"schema": SCHEMA} | document, separators=(",", ":"), default=dict)

    @classmethod
    def from_json(cls, text: str) -> Trace:
        """The trace that `to_json` wrote. Raises InputError if the text is not such a document."""
        if schema_of(text) != SCHEMA:
            raise InputError(f"this is not a trace: its schema should be {SCHEMA!r}.")
        try:
            trace = decode(text, cls)
        except InputError as error:
            raise InputError(f"this trace is damaged: {error}.") from None
        specs = chain(trace.inputs, trace.outputs, (p.tensor for p in trace.parameters), _operands(trace))
        if unknown := {spec.dtype for spec in specs} - DTYPE_BYTES.keys():
            raise InputError(f"this trace is damaged: it has no dtype {', '.join(sorted(unknown))}.")
        return trace


def _operands(trace: Trace) -> Iterator[TensorSpec]:
    for operation in trace.operations:
        yield from operation.inputs.values()
        yield from operation.outputs
