"""Whether torch's internals still do what costmodel relies on: a probe for each name in `torch_private`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import costmodel as cm
from costmodel.errors import TraceError
from costmodel.tracer import torch_private
from costmodel.tracer.autocast import _CASTS
from costmodel.tracer.thread_patches import replaced_here
from costmodel.tracer.torch_private import (
    ADDS_TO_PARAMETER,
    AUTOCAST_AVAILABLE,
    FOREACH_DEVICES,
    FUSED_DEVICES,
    INTERNALS,
    DispatchMode,
    NestedTensor,
    address,
    as_parameter,
    autocast_enabled,
    checkpointed_blocks,
    clear_cublas_workspaces,
    counts_in_buffer,
    device_tflops,
    dispatch_key,
    dispatch_modes,
    dram_gbps,
    enable_autocast,
    excluding,
    fake_mode,
    function_modes,
    fused_attention,
    has_kernel,
    including,
    is_called_by_engine,
    is_onednn_enabled,
    is_view,
    keys_below,
    map_tensors,
    mem_tracker,
    next_number,
    no_dispatch,
    no_modes,
    node_number,
    operator_schema,
    operators_in,
    overload_name,
    recurrent_weights,
    redispatch,
    running_node,
    runtime_estimator,
    saved_by,
    saved_by_block,
    transformation,
    uncompiled,
    use_counts,
)

aten = torch.ops.aten
HPU = "AutocastHPU"


class Listener(DispatchMode):
    """Hands on what it sees."""

    def __init__(self, hear: Callable[..., Any]) -> None:
        super().__init__()
        self.hear = hear

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.hear(func, *args)
        return func(*args, **(kwargs or {}))


def meta(*size: int, grad: bool = False) -> torch.Tensor:
    return torch.empty(size, device="meta", requires_grad=grad)


def heard(action: Callable[[], Any]) -> list[str]:
    names: list[str] = []
    with Listener(lambda func, *_: names.append(func.name())):
        action()
    return [name for name in names if not name.startswith("profiler::")]


def inside(context: AbstractContextManager[Any], action: Callable[[], Any]) -> Any:
    with context:
        return action()


def modes() -> None:
    assert heard(lambda: meta(1).neg()) == ["aten::empty.memory_format", "aten::neg"]


def without_dispatch() -> None:
    assert heard(lambda: inside(no_dispatch(), lambda: meta(1))) == []


def without_modes() -> None:
    assert heard(lambda: inside(no_modes(), lambda: meta(1))) == []


def count_of_dispatch_modes() -> None:
    assert (dispatch_modes(), inside(Listener(lambda *_: None), dispatch_modes)) == (0, 1)


def count_of_function_modes() -> None:
    assert (function_modes(), inside(torch.device("meta"), function_modes)) == (0, 1)


def transformations() -> None:
    found: list[Any] = []
    torch.func.vmap(lambda tensor: (found.append(transformation()), tensor)[1])(meta(2, 1))
    assert transformation() is None and found[0] is not None


def schemas() -> None:
    assert [argument.name for argument in operator_schema(aten.mm.default).arguments] == ["self", "mat2"]


def overloads() -> None:
    assert overload_name(aten.mean.dim) == "dim" and overload_name(aten.mm.default) == "default"


def kernels_below_a_key() -> None:
    with _CASTS({"neg": lambda original, tensor: original(tensor).exp()}):
        assert torch.ones(1).neg() == torch.ones(1).neg().log().exp() == torch.tensor(-1.0).exp()
    assert torch.ones(1).neg() == -1
    assert callable(redispatch(aten.neg.default))


def operators_of_a_key() -> None:
    assert {"aten::mm", "aten::linear"} < set(operators_in("AutocastCUDA"))
    assert "aten::neg" not in operators_in("AutocastCUDA")


def kernels_of_a_key() -> None:
    assert has_kernel(aten.matmul.default, "CompositeImplicitAutograd")
    assert not has_kernel(aten.mm.default, "CompositeImplicitAutograd")


def keys() -> None:
    assert dispatch_key(HPU).name == HPU
    below = keys_below(dispatch_key(HPU))
    assert below.has(dispatch_key("Meta")) and not below.has(dispatch_key(HPU))


def included(key: str) -> bool:
    return torch._C._dispatch_tls_is_dispatch_key_included(dispatch_key(key))


def including_a_key() -> None:
    assert inside(including(dispatch_key(HPU)), lambda: included(HPU)) and not included(HPU)


def excluding_a_key() -> None:
    def excluded() -> bool:
        return torch._C._dispatch_tls_is_dispatch_key_excluded(dispatch_key(HPU))

    torch.set_autocast_enabled("hpu", True)  # or the key is excluded anyhow
    try:
        before = excluded()
        assert inside(excluding(dispatch_key(HPU)), excluded) and not before
    finally:
        torch.set_autocast_enabled("hpu", False)


def addresses() -> None:
    one, other = meta(2, 2), meta(2, 2)
    assert address(one.untyped_storage()) == address(one.view(4).untyped_storage())
    assert address(one.untyped_storage()) != address(other.untyped_storage())


def views() -> None:
    assert is_view(meta(4).view(2, 2)) and not is_view(meta(4))


def parameters() -> None:
    tensor = meta(2)
    parameter = as_parameter(tensor, False)
    assert type(parameter) is nn.Parameter and not parameter.requires_grad and as_parameter(tensor, True).requires_grad
    assert address(parameter.untyped_storage()) == address(tensor.untyped_storage())


def nested_tensors() -> None:
    assert isinstance(torch.nested.nested_tensor([torch.zeros(1)], layout=torch.jagged), NestedTensor)
    assert not isinstance(meta(1), NestedTensor)


def holders_of_a_tensor() -> None:
    tensor = meta(2)
    tensors, storages = use_counts(tensor)
    held = tensor * meta(2, grad=True)  # whose node saves the tensor
    assert use_counts(tensor) == (tensors + 1, storages)
    del held
    assert use_counts(tensor) == (tensors, storages)


def holders_of_a_storage() -> None:
    tensor = meta(2)
    tensors, storages = use_counts(tensor)
    held = tensor.detach()
    assert use_counts(tensor) == (tensors, storages + 1)
    del held
    assert counts_in_buffer() is not None


def nodes_that_run() -> None:
    names: list[str] = []
    loss, gradient = meta(1, grad=True).neg(), meta(1)
    with Listener(lambda *_: names.append(running_node().name())):
        loss.backward(gradient)
    assert running_node() is None and "NegBackward0" in names


def numbers_of_nodes() -> None:
    expected = next_number()
    node = meta(1, grad=True).neg().grad_fn
    assert node_number(node) == expected < next_number()


def number_of_a_parameters_node() -> None:
    leaf = meta(1, grad=True)
    node: Any = leaf.neg().grad_fn
    (to_leaf, _), *_ = node.next_functions
    assert node_number(to_leaf) == ADDS_TO_PARAMETER and to_leaf.variable is leaf


def saved_tensors() -> None:
    assert [(one.data.shape, one.unpack_hook) for one in saved_by(meta(3, grad=True).exp().grad_fn)] == [((3,), None)]
    given = meta(3, grad=True)
    node = checkpoint(torch.exp, given, use_reentrant=False).grad_fn
    (placeholder,) = saved_by(node)
    (block,) = checkpointed_blocks(placeholder.unpack_hook)
    held = [one.data.shape for one in saved_by_block(block) if isinstance(one.data, torch.Tensor)]
    assert [shape for shape in held if shape.numel()] == [(3,)]  # torch 2.11 holds an empty one as well


def the_engine() -> None:
    calls: list[bool] = []

    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
            return tensor.clone()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            return gradient.sin()

    loss = Own.apply(meta(1, grad=True).neg())
    names: list[str] = []
    with Listener(lambda func, *_: (names.append(func.name()), calls.append(is_called_by_engine(depth=2)))):
        loss.backward(torch.empty_like(loss))
    answers = dict(zip(names, calls, strict=True))
    assert answers["aten::neg"] and not answers["aten::sin"]


def availability_of_autocast() -> None:
    assert AUTOCAST_AVAILABLE.original("cuda") and not AUTOCAST_AVAILABLE.original("meta")
    with replaced_here((AUTOCAST_AVAILABLE, lambda original, device: True)):
        assert torch.amp.is_autocast_available("meta")


def fused_steps() -> None:
    parameter = nn.Parameter(meta(1))
    parameter.grad = meta(1)
    optimizer = torch.optim.SGD([parameter], fused=True)
    with pytest.raises(RuntimeError, match="fused"):
        optimizer.step()
    with (
        replaced_here((FUSED_DEVICES, lambda original: [*original(), "meta"])),
        pytest.raises(NotImplementedError, match="aten::_fused_sgd_"),  # chosen; it takes meta tensors in a trace only
    ):
        optimizer.step()


def foreach_steps() -> None:
    parameter = nn.Parameter(meta(1))
    parameter.grad = meta(1)
    optimizer = torch.optim.SGD([parameter])
    assert heard(optimizer.step) == ["aten::add_.Tensor"]
    with replaced_here((FOREACH_DEVICES, lambda original: [*original(), "meta"])):
        assert heard(optimizer.step) == ["aten::_foreach_add_.List"]


def onednn() -> None:
    with torch.backends.mkldnn.flags(enabled=False):
        assert not is_onednn_enabled()


def fused_attention_on_a_cpu() -> None:
    tensor = torch.empty(1, 1, 1, 8)
    assert fused_attention(tensor, tensor, tensor) != 0
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        assert fused_attention(tensor, tensor, tensor) == 0


def recurrent_layers() -> None:
    layer = nn.LSTM(2, 3)
    assert [tuple(weight.shape) for weight in recurrent_weights(layer)] == [(12, 2), (12, 3), (12,), (12,)]


def compiled_modules() -> None:
    module = nn.Linear(1, 1)
    assert uncompiled(torch.compile(module)) is module and uncompiled(module) is module


def switches_of_autocast() -> None:
    region = torch.autocast("cpu")
    assert autocast_enabled(region)
    enable_autocast(region, False)
    assert not inside(region, lambda: torch.is_autocast_enabled("cpu"))


def trees() -> None:
    assert map_tensors()(int, lambda number: -number, ([1], {"a": 2.0})) == ([-1], {"a": 2.0})


def fakes() -> None:
    with fake_mode()():
        assert torch.ones(1).device.type == "cpu"


PROBES: dict[str, Callable[[], Any]] = {
    "utils._python_dispatch.TorchDispatchMode": modes,
    "_C._DisableTorchDispatch": without_dispatch,
    "utils._python_dispatch._disable_current_modes": without_modes,
    "_C._len_torch_dispatch_stack": count_of_dispatch_modes,
    "_C._len_torch_function_stack": count_of_function_modes,
    "_C._functorch.peek_interpreter_stack": transformations,
    "_ops.OpOverload._schema": schemas,
    "_ops.OpOverload._overloadname": overloads,
    "_ops.OpOverload.redispatch": kernels_below_a_key,
    "_C._dispatch_get_registrations_for_dispatch_key": operators_of_a_key,
    "_C._dispatch_has_kernel_for_dispatch_key": kernels_of_a_key,
    "_C.DispatchKey": keys,
    "_C.DispatchKeySet": excluding_a_key,
    "_C._dispatch_keyset_full_after": keys,
    "_C._IncludeDispatchKeyGuard": including_a_key,
    "_C._ExcludeDispatchKeyGuard": excluding_a_key,
    "UntypedStorage._cdata": addresses,
    "Tensor._is_view": views,
    "Tensor._make_subclass": parameters,
    "Tensor._use_count": holders_of_a_tensor,
    "_C._storage_Use_Count": holders_of_a_storage,
    "nested._internal.nested_tensor.NestedTensor": nested_tensors,
    "_C._current_autograd_node": nodes_that_run,
    "autograd._get_sequence_nr": numbers_of_nodes,
    "autograd.graph.Node._sequence_nr": number_of_a_parameters_node,
    "_C._autograd.SavedTensor": saved_tensors,
    "utils.checkpoint._checkpoint_hook": saved_tensors,
    "autograd.graph._engine_run_backward": the_engine,
    "_C._is_autocast_available": availability_of_autocast,
    "autocast._enabled": switches_of_autocast,
    "optim.optimizer._get_fused_kernels_supported_devices": fused_steps,
    "optim.optimizer._get_foreach_kernels_supported_devices": foreach_steps,
    "_C._get_mkldnn_enabled": onednn,
    "_fused_sdp_choice": fused_attention_on_a_cpu,
    "_C._cuda_clearCublasWorkspaces": clear_cublas_workspaces,
    "nn.RNNBase._flat_weights_names": recurrent_layers,
    "_dynamo.OptimizedModule._orig_mod": compiled_modules,
    "utils._pytree.tree_map_only": trees,
    "_subclasses.fake_tensor.FakeTensorMode": fakes,
    "distributed._tools.mem_tracker.MemTracker": lambda: mem_tracker()(),
    "distributed._tools.runtime_estimator.RuntimeEstimator": lambda: runtime_estimator()(),
    "_inductor.utils.get_device_tflops": device_tflops,
    "_inductor.utils.get_gpu_dram_gbps": dram_gbps,
}


def test_every_internal_has_a_probe() -> None:
    assert PROBES.keys() == INTERNALS.keys()
    assert all(purpose and not purpose.endswith(".") for purpose in INTERNALS.values())


@pytest.mark.parametrize("name", PROBES)
def test_it_behaves(name: str) -> None:
    PROBES[name]()


def test_what_is_missing_says_so_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(INTERNALS, "_C._no_such_name", "")
    missing = torch_private._internal("_C._no_such_name", "count sheep")
    version = rf"torch {torch.__version__} has no torch\._C\._no_such_name".replace("+", r"\+")
    with pytest.raises(TraceError, match=version + ", which costmodel needs to count sheep: use torch 2.11 to 2.14"):
        missing(1)
    assert torch_private._internal("_C._no_such_name", "count sheep", len) is len
    monkeypatch.setitem(INTERNALS, "no_such.module", "")
    with pytest.raises(TraceError, match=r"has no torch\.no_such\.module"):
        torch_private._lazily("no_such.module", "count sheep")()


class Regions(nn.Module):
    """Opens its own regions of autocast, on the device of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.linear(x)


def test_other_threads_see_plain_torch_while_traces_run() -> None:
    """A region of autocast, its answers, and an optimizer's kernels, in a thread beside the one that traces."""
    names = ("AutocastCPU", "AutocastCUDA", HPU, "AutocastIPU")
    problems: list[str] = []
    begun, stop, rounds = threading.Event(), threading.Event(), 0

    def expect(what: str, found: Any, wanted: Any) -> None:
        if found != wanted:
            problems.append(f"{what}: {found} is not {wanted}")

    def other() -> None:
        nonlocal rounds
        before = {name: included(name) for name in names}
        weight = nn.Parameter(torch.ones(4, 4))
        weight.grad = torch.ones(4, 4)
        on_meta = nn.Parameter(meta(1))
        on_meta.grad = meta(1)
        optimizer = torch.optim.SGD([on_meta])
        while not stop.is_set():
            with torch.autocast("cpu", torch.bfloat16):
                begun.set()
                time.sleep(0)  # a trace may begin or end in here
                expect("product in a region", (weight @ weight).dtype, torch.bfloat16)
                expect("answer in a region", torch.is_autocast_enabled("cpu"), True)
            expect("product", (weight @ weight).dtype, torch.float32)
            expect("availability", torch.amp.is_autocast_available("meta"), False)
            try:
                torch.autocast("meta")
                problems.append("a region on meta was possible")
            except RuntimeError:
                pass
            expect("step on meta", heard(optimizer.step), ["aten::add_.Tensor"])
            rounds += 1
        expect("keys", {name: included(name) for name in names}, before)

    originals = [torch.autocast.__init__, torch.autocast.__enter__, torch.autocast.__exit__, torch.is_autocast_enabled]
    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    begun.wait(10)
    end = time.monotonic() + 1
    traces = 0
    while time.monotonic() < end or traces < 10:
        for options in ({}, {"autocast": "bfloat16"}, {"train": True, "optimizer": "adam"}):
            traced = cm.trace(Regions(), (2, 4), **options)
            cast = [operation for operation in traced.operations if operation.operator == "aten.addmm"]
            assert [operation.outputs[0].dtype for operation in cast] == ["bfloat16"]
            traces += 1
    stop.set()
    thread.join(10)
    assert problems == [] and rounds > 1
    now = [torch.autocast.__init__, torch.autocast.__enter__, torch.autocast.__exit__, torch.is_autocast_enabled]
    assert now == originals
