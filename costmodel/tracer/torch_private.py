"""The only file that names torch's internals. The rest of costmodel uses the names that are defined here.

Each is looked up once. Where this torch lacks one that has a fallback, that takes its place; where it lacks another,
the first use raises TraceError, which names it, its purpose and the versions of torch that have it. Whether each still
behaves is tested by tests/test_torch_private.py, which has a probe for every entry of INTERNALS and judges a new torch
in a second. All behave in torch 2.11 and 2.14, the oldest and the newest tested; where the two differ, the function
says so.

Not counted as internal are torch's operators (torch.ops.aten._softmax, torch._foreach_add_), nor a module's tables
`_parameters`, `_buffers`, `_modules`, `_forward_hooks` and `_forward_pre_hooks`: they have had these names since the
first versions, and too much software depends on them for that to change.
"""

from __future__ import annotations

import functools
import importlib
import operator
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import nn

from costmodel.errors import TraceError

VERSIONS = "2.11 to 2.14"

INTERNALS: dict[str, str] = {}
"""What each internal is needed for, by its dotted path below `torch`. A method stands behind its class."""

_MISSING: Any = object()


def _find(path: str) -> Any:
    """What a dotted path below `torch` names; modules are imported if need be."""
    found: Any = torch
    at = "torch"
    for name in path.split("."):
        at += f".{name}"
        if hasattr(found, name):
            found = getattr(found, name)
            continue
        try:
            found = importlib.import_module(at)
        except (ImportError, AttributeError):  # the latter where torch was built without a part of it
            return _MISSING
    return found


def _refuse(path: str, *_: Any, **__: Any) -> Any:
    version = f"torch {torch.__version__} has no torch.{path}"
    raise TraceError(f"{version}, which costmodel needs to {INTERNALS[path]}: use torch {VERSIONS}.")


def _internal(path: str, purpose: str, fallback: Any = _MISSING) -> Any:
    """What a path names, or its fallback, or a function that raises TraceError."""
    INTERNALS[path] = purpose
    found = _find(path)
    if found is _MISSING:
        return functools.partial(_refuse, path) if fallback is _MISSING else fallback
    return found


def _lazily(path: str, purpose: str) -> Callable[[], Any]:
    """A function that imports what a path names and returns it, or raises TraceError."""
    INTERNALS[path] = purpose
    module, _, name = path.rpartition(".")

    def find() -> Any:
        try:
            return getattr(importlib.import_module(f"torch.{module}"), name)
        except (ImportError, AttributeError):
            return _refuse(path)

    return find


def _method(path: str, purpose: str) -> Any:
    """A function that calls a method of its argument. It is written in C, as a trace has thousands of such calls."""
    INTERNALS[path] = purpose
    return operator.methodcaller(path.rpartition(".")[2])


def _attribute(path: str, purpose: str) -> Any:
    """A function that returns an attribute of its argument."""
    INTERNALS[path] = purpose
    return operator.attrgetter(path.rpartition(".")[2])


# Modes


class _NoMode:
    def __init__(self) -> None:
        _refuse("utils._python_dispatch.TorchDispatchMode")


_Mode: Any = _internal("utils._python_dispatch.TorchDispatchMode", "see the operators that a network calls", _NoMode)


class DispatchMode(_Mode):  # type: ignore[misc]
    """A context in which `__torch_dispatch__` is called in place of each operator, below autograd."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Spare every operator a detour through torch's compiler, which our modes have nothing to do with."""
        return False


no_dispatch: Callable[[], AbstractContextManager[Any]] = _internal(
    "_C._DisableTorchDispatch", "make tensors that are not part of a network's run"
)
"""A context in which dispatch modes see nothing."""
no_modes: Callable[[], AbstractContextManager[Any]] = _internal(
    "utils._python_dispatch._disable_current_modes", "try an operator out while a trace lasts"
)
"""A context without modes of any kind."""
dispatch_modes: Callable[[], int] = _internal(
    "_C._len_torch_dispatch_stack", "know whether another mode sees the operators too"
)
function_modes: Callable[[], int] = _internal(
    "_C._len_torch_function_stack", "know whether a mode replaces torch's functions"
)
transformation: Callable[[], Any] = _internal(
    "_C._functorch.peek_interpreter_stack", "know whether torch.func transforms the network"
)
"""The transformation that is being applied, such as vmap; or None."""

# Operators, and the keys by which the dispatcher chooses their kernels

operator_schema: Callable[[Any], Any] = _attribute("_ops.OpOverload._schema", "read an operator's arguments")
overload_name: Callable[[Any], str] = _attribute("_ops.OpOverload._overloadname", "tell an operator's overloads apart")
redispatch: Callable[[Any], Callable[..., Any]] = _attribute(
    "_ops.OpOverload.redispatch", "call an operator's kernel below a dispatch key"
)
"""An operator as a function whose first argument is the dispatch keys to choose its kernel by."""
operators_in: Callable[[str], list[str]] = _internal(
    "_C._dispatch_get_registrations_for_dispatch_key", "know for which operators autocast has a policy"
)
"""The operators with a kernel of their own for the dispatch key of this name."""
keys_below: Callable[[Any], Any] = _internal(
    "_C._dispatch_keyset_full_after", "call an operator's kernel below a dispatch key"
)
including: Callable[[Any], AbstractContextManager[Any]] = _internal(
    "_C._IncludeDispatchKeyGuard", "include a dispatch key"
)
"""A context in which this thread's calls pass by this key's kernels."""
_has_kernel = _internal("_C._dispatch_has_kernel_for_dispatch_key", "know whether an operator is made of others")
_Excluding = _internal("_C._ExcludeDispatchKeyGuard", "exclude a dispatch key")
_DispatchKey = _internal("_C.DispatchKey", "name a dispatch key")
_DispatchKeySet = _internal("_C.DispatchKeySet", "name dispatch keys")


def dispatch_key(name: str) -> Any:
    """A dispatch key by its name, such as "AutocastCUDA"."""
    return getattr(_DispatchKey, name)


def excluding(key: Any) -> AbstractContextManager[Any]:
    """A context in which this thread's calls skip this key's kernels."""
    return _Excluding(_DispatchKeySet(key))  # type: ignore[no-any-return]


def has_kernel(function: Any, name: str) -> bool:
    """Whether an operator has a kernel for the dispatch key of this name."""
    return bool(_has_kernel(function.name(), dispatch_key(name)))


# Tensors, storages, and who holds them

address: Callable[[Any], int] = _attribute("UntypedStorage._cdata", "tell storages apart")
"""The number of a storage; another may have it when this one is gone."""
is_view: Callable[[torch.Tensor], bool] = _method("Tensor._is_view", "know which casts autocast keeps")
as_parameter: Callable[[torch.Tensor, bool], nn.Parameter] = functools.partial(
    _internal("Tensor._make_subclass", "make parameters fast", lambda cls, *arguments: cls(*arguments)), nn.Parameter
)
"""A parameter of this tensor's memory, and whether it requires a gradient."""
NestedTensor: type = _internal(
    "nested._internal.nested_tensor.NestedTensor", "name the layer that uses a nested tensor", type("None_", (), {})
)
_use_count = _method("Tensor._use_count", "know who holds a gradient")
_storage_use_count = _internal("_C._storage_Use_Count", "know who holds a gradient's memory")


def use_counts(tensor: torch.Tensor) -> tuple[int, int]:
    """How many hold a tensor, and its storage; whoever asks is one of them."""
    storage = tensor.untyped_storage()  # held meanwhile: torch 2.11 would else not count who asks
    return _use_count(tensor), _storage_use_count(address(storage))


@functools.cache
def counts_in_buffer() -> tuple[int, int] | None:
    """`use_counts` of a gradient that only autograd's buffer holds, as seen by a mode that is asked to add to it.

    Measured on a small backward, once; None if that shows no such sum. To be called first while no backward runs.
    """
    with no_modes(), torch.inference_mode(False), torch.enable_grad(), _Sums() as sums:
        twice = torch.empty(2, device="meta", requires_grad=True).exp()
        (twice.exp() + twice.exp()).backward(torch.empty(2, device="meta"))
    return sums.counts[-1] if len(sums.counts) > 1 else None  # the first sum is the forward's


class _Sums(DispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts: list[tuple[int, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.add.Tensor:
            self.counts.append(use_counts(args[0]))
        return func(*args, **(kwargs or {}))


# Autograd

running_node: Callable[[], Any] = _internal(
    "_C._current_autograd_node", "know which layer an operation of the backward belongs to"
)
"""The node of autograd's graph that runs; None outside of a backward."""
next_number: Callable[[], int] = _internal("autograd._get_sequence_nr", "number the nodes that a layer's forward makes")
node_number: Callable[[Any], int] = _method(
    "autograd.graph.Node._sequence_nr", "know which layer's forward made a node of autograd's graph"
)
ADDS_TO_PARAMETER = 2**64 - 1
"""The number of the nodes that add a gradient to their parameter, `node.variable`."""
_SavedTensor = _internal("_C._autograd.SavedTensor", "know what the forward leaves to the backward")
_ENGINE = "_engine_run_backward"
INTERNALS[f"autograd.graph.{_ENGINE}"] = "tell autograd's own sums from those of a backward that somebody wrote"


def is_called_by_engine(depth: int) -> bool:
    """Whether the caller so many frames up was itself called by autograd's engine, not by Python."""
    return sys._getframe(depth + 1).f_code.co_name == _ENGINE


def saved_by(node: Any) -> Iterator[Any]:
    """What a node saved: objects with the tensor (`data`) and the hook that unpacks it, if any (`unpack_hook`)."""
    kind: Any = type(node)
    for name in _saved_names(kind):
        raw = getattr(node, name)
        for one in raw if isinstance(raw, (tuple, list)) else (raw,):
            if isinstance(one, _SavedTensor):
                yield one


@functools.cache
def _saved_names(kind: Any) -> tuple[str, ...]:
    return tuple(name for name in dir(kind) if name.startswith("_raw_saved"))


INTERNALS["utils.checkpoint._checkpoint_hook"] = "know which inputs a checkpointed block keeps"


def checkpointed_blocks(unpack_hook: Any) -> Iterator[Any]:
    """The block under torch.utils.checkpoint whose placeholder this hook unpacks (checkpoint.py, _checkpoint_hook)."""
    for cell in getattr(unpack_hook, "__closure__", None) or ():
        if hasattr(cell.cell_contents, "saved_args") or hasattr(cell.cell_contents, "input_saver"):
            yield cell.cell_contents


def saved_by_block(block: Any) -> Iterator[Any]:
    """What a checkpointed block saved of its inputs: torch 2.14 has a list of its own for it, 2.11 a node."""
    if hasattr(block, "saved_args"):
        yield from (one for one in block.saved_args if isinstance(one, _SavedTensor))
    else:
        yield from saved_by(block.input_saver.grad_fn)


# Switches


class Replaceable(NamedTuple):
    """A function of torch's that takes another's place while a trace lasts: see `thread_patches`."""

    owner: Any
    name: str
    original: Callable[..., Any]


def _replaceable(path: str, purpose: str) -> Replaceable:
    owner, _, name = path.rpartition(".")
    return Replaceable(_find(owner), name, _internal(path, purpose))


AUTOCAST_AVAILABLE = _replaceable("_C._is_autocast_available", "let a network use autocast on the meta device")
"""Whether a device has autocast."""
_KERNELS = "let optimizers choose the target's kernels on the meta device"
FUSED_DEVICES = _replaceable("optim.optimizer._get_fused_kernels_supported_devices", _KERNELS)
"""The devices for which optimizers have fused kernels."""
FOREACH_DEVICES = _replaceable("optim.optimizer._get_foreach_kernels_supported_devices", _KERNELS)
"""The devices on which optimizers step on lists of tensors by default."""

is_onednn_enabled: Callable[[], bool] = _internal("_C._get_mkldnn_enabled", "know whether oneDNN runs an LSTM")
fused_attention: Callable[..., int] = _internal(
    "_fused_sdp_choice", "know whether attention of three dimensions is fused on a CPU", lambda *_: 0
)
"""The number of the kernel that runs this attention; 0 for the plain mathematics."""
clear_cublas_workspaces: Callable[[], None] = _internal(  # missing where torch was built without CUDA
    "_C._cuda_clearCublasWorkspaces", "give memory back between measurements", lambda: None
)


INTERNALS["autocast._enabled"] = "let CUDA's autocast be on without a GPU"


def autocast_enabled(region: Any) -> bool:
    """Whether a region of torch.autocast switches autocast on, or off."""
    return bool(region._enabled)


def enable_autocast(region: Any, enabled: bool) -> None:
    """Let a region switch autocast on, or off."""
    region._enabled = enabled


# Modules

INTERNALS["nn.RNNBase._flat_weights_names"] = "lay the weights of a recurrent layer out as cuDNN wants them"
INTERNALS["_dynamo.OptimizedModule._orig_mod"] = "trace what was compiled"


def recurrent_weights(module: nn.RNNBase) -> list[Any]:
    """A recurrent layer's weights in cuDNN's order; None for a missing one."""
    return [getattr(module, name, None) for name in module._flat_weights_names]


def uncompiled(module: nn.Module) -> nn.Module:
    """The module that torch.compile wrapped, or this one."""
    return getattr(module, "_orig_mod", module)


# Tools of torch's that we compare with

map_tensors = _lazily("utils._pytree.tree_map_only", "run MemTracker")
fake_mode = _lazily("_subclasses.fake_tensor.FakeTensorMode", "run torch's own estimators")
mem_tracker = _lazily("distributed._tools.mem_tracker.MemTracker", "compare peaks with torch's MemTracker")
runtime_estimator = _lazily("distributed._tools.runtime_estimator.RuntimeEstimator", "ask torch's RuntimeEstimator")
device_tflops = _lazily("_inductor.utils.get_device_tflops", "let RuntimeEstimator look up a device's peaks")
dram_gbps = _lazily("_inductor.utils.get_gpu_dram_gbps", "let RuntimeEstimator look up a device's peaks")
