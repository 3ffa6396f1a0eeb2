"""nn.Module + inputs -> Trace, on torch's meta device: no weight is allocated and no arithmetic is done.

A twin of the module (see `twin`) is run once under a dispatch mode (see `recorder`) that notes each operation. For
a training step, loss, backward and optimizer are run on the meta tensors as well, so that what autograd keeps alive
comes from autograd itself.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import importlib.metadata
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.lazy import LazyModuleMixin

from costmodel.errors import CostModelError, InputError, TraceError, nearest
from costmodel.graph import BACKWARD, FORWARD, LOSS_LAYER, OPTIMIZER, OPTIMIZER_LAYER, Module, Parameter, Trace
from costmodel.tracer.cuda import cuda_operators
from costmodel.tracer.inputs import Shape, floating_dtype, materialize, parse_shape
from costmodel.tracer.recorder import Recorder, Rehearsal
from costmodel.tracer.twin import meta_tensor, meta_twin, real_twin

__all__ = ["OPTIMIZERS", "Shape", "parse_shape", "trace"]

Loss = Callable[[Any], torch.Tensor]
_Paths = list[tuple[str, nn.Module]]
MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]

OPTIMIZERS: Mapping[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
_SETTINGS = frozenset({
    "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "in_features",
    "out_features", "num_features", "normalized_shape", "num_embeddings", "embedding_dim", "embed_dim", "num_heads",
    "hidden_size", "input_size", "output_size", "p", "inplace",
})  # fmt: skip


def trace(
    model: nn.Module,
    inputs: Any,
    *,
    train: bool = False,
    loss: str | Loss = "cross_entropy",
    optimizer: str | MakeOptimizer | None = "sgd",
    optimizer_options: Mapping[str, Any] | None = None,
    dtype: str | torch.dtype | None = None,
    target: str = "cuda",
    run: bool = False,
    name: str | None = None,
) -> Trace:
    """Write down what one run of `model` does.

    Args:
        model: any module. It is neither changed nor copied, also when its forward raises.
        inputs: a shape with the batch first, a tensor, a list of those, or a dict from argument names to those.
        train: also run loss, backward and one optimizer step (that of the steady state: its state exists already).
        loss: "cross_entropy" (against class indices), "sum", or a function from the outputs to a scalar.
        optimizer: "sgd", "adam", "adamw", a function from parameters to an optimizer, or None to stop after backward.
        optimizer_options: keyword arguments of a named optimizer: lr, momentum, weight_decay ...
        dtype: the floating-point type to run in; the parameters' own if None.
        target: whose way of running operators to record: "cuda" (no GPU is needed) or "cpu".
        run: really run the network, on the CPU with random inputs, for control flow that depends on values.
        name: what to call the network; its class's name if None.

    Raises:
        InputError: an argument cannot be used.
        TraceError: the forward, backward or step raised, or needs values that a static trace does not have.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"the model is a {type(model).__name__}, not a torch.nn.Module.")
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError("a TorchScript module hides its Python: give the nn.Module that it was made from.")
    if target not in ("cuda", "cpu"):
        raise InputError(f"unknown target {target!r}: use 'cuda' or 'cpu'.")
    model = getattr(model, "_orig_mod", model)  # what torch.compile wrapped
    wanted = floating_dtype(dtype)
    step = _Training(loss, optimizer, optimizer_options or {}, target) if train else None
    recorder = Recorder(meta=not run)
    with _way_of(target if not run else "cpu", train):
        network = _weighty_twin(model, wanted) if run else meta_twin(model, wanted)
        if any(module.training != train for module in network.modules()):
            network.train(train)
        dtype_run = wanted or _own_dtype(network)
        args, kwargs = materialize(inputs, dtype_run, not run, lambda tensor: _adopt(tensor, wanted, not run))
        with Rehearsal(meta=not run) as rehearsal, _explained(rehearsal):
            _take_shapes(network, args, kwargs)
            if step:
                step.prepare(network)
        modules = list(network.named_modules())
        parameters = _parameters(modules, recorder)
        input_specs = tuple(recorder.assign(tensor, "input", "input") for tensor in _tensors((args, kwargs)))
        if step:
            step.assign_state(recorder)
        spies = _spy_on(modules, recorder)
        with recorder, _explained(recorder):
            outputs = network(*args, **kwargs)
            if step:
                step.run(network, outputs, recorder)
    if not recorder.operations:
        raise InputError("this network runs no operator on its inputs: there is nothing to analyse.")
    for _, module in modules:
        # A spy holds its module: without this the twin would wait for the garbage collector.
        module.__dict__.pop("forward", None)
    for index in recorder.born_in(FORWARD):
        recorder.assign_storage(index, "temporary" if train else "activation")
    return Trace(
        model=name or type(model).__name__,
        operations=tuple(recorder.operations),
        storages=recorder.storages(),
        modules=_modules(modules, spies),
        parameters=parameters,
        inputs=input_specs,
        outputs=tuple(recorder.spec(tensor) for tensor in _tensors(outputs)),
        dtype=str(dtype_run).removeprefix("torch."),
        train=train,
        target=target if not run else "cpu",
        settings=step.settings if step else {},
        versions=_versions(),
    )


class _Training:
    """What a training step does beyond the forward: loss, backward, optimizer step."""

    def __init__(
        self, loss: str | Loss, optimizer: str | MakeOptimizer | None, options: Mapping[str, Any], target: str
    ) -> None:
        self.loss = _loss(loss)
        self.make_optimizer = _optimizer(optimizer, options, target)
        self.optimizer: torch.optim.Optimizer | None = None
        self.settings = {"loss": _name_of(loss), "optimizer": _name_of(optimizer), **options}

    def prepare(self, network: nn.Module) -> None:
        """Make the optimizer and take its first step, so that the state of the steady state is there."""
        trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
        if not trainable:
            raise InputError("no parameter of this network requires a gradient: there is nothing to train.")
        self.optimizer = self.make_optimizer(trainable) if self.make_optimizer else None
        if self.optimizer is not None:
            for parameter in trainable:
                parameter.grad = torch.zeros_like(parameter)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    def assign_state(self, recorder: Recorder) -> None:
        """Tell the recorder which storages are the optimizer's."""
        for state in self.optimizer.state.values() if self.optimizer else ():
            for tensor in _tensors(state):
                recorder.assign(tensor, "optimizer state", OPTIMIZER_LAYER)

    def run(self, network: nn.Module, outputs: Any, recorder: Recorder) -> None:
        """Loss, backward and optimizer step, after the forward."""
        recorder.layers.append(LOSS_LAYER)
        value = self.loss(outputs)
        recorder.layers.pop()
        if not (isinstance(value, torch.Tensor) and value.numel() == 1 and value.requires_grad):
            raise InputError("the loss is not a single number that depends on a trainable parameter.")
        for index in recorder.alive():
            recorder.assign_storage(index, "activation")
        recorder.phase = BACKWARD
        value.backward()
        for parameter in network.parameters():
            if parameter.grad is not None:
                recorder.assign(parameter.grad, "gradient", recorder.layer_of_parameter.get(id(parameter)))
        if self.optimizer is not None:
            recorder.phase = OPTIMIZER
            recorder.layers.append(OPTIMIZER_LAYER)
            self.optimizer.step()
            recorder.layers.pop()


class _Spy:
    """Stands before a module's forward: tells the recorder where it is, and notes what came out."""

    def __init__(self, path: str, module: nn.Module, recorder: Recorder, clock: Iterator[int]) -> None:
        self.path, self.forward = path, module.forward
        self.recorder, self.clock = recorder, clock
        self.calls = 0
        self.first_call: int | None = None
        self.output_shape: tuple[int, ...] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        recorder = self.recorder
        self.calls += 1
        if self.first_call is None:
            self.first_call = next(self.clock)
        recorder.layers.append(self.path)
        try:
            output = self.forward(*args, **kwargs)
        except Exception:
            if recorder.failed_in is None:
                recorder.failed_in = _describe(self.path, self.forward.__self__, (args, kwargs))
            raise
        finally:
            recorder.layers.pop()
        first = output if isinstance(output, torch.Tensor) else next(_tensors(output), None)
        if first is not None:
            self.output_shape = tuple(first.shape)
        return output


def _describe(path: str, module: nn.Module, arguments: Any) -> str:
    """A layer and what it was given, for an error message."""
    shapes = ", ".join("x".join(map(str, tensor.shape)) or "a number" for tensor in _tensors(arguments)) or "no tensor"
    settings = module.extra_repr() if "\n" not in module.extra_repr() else "..."
    name = f"layer {path!r}" if path else "the network"
    return f"{name}, {type(module).__name__}({settings}) given {shapes},"


def _spy_on(modules: _Paths, recorder: Recorder) -> list[_Spy]:
    """Put a spy into each module of the twin, which nobody else has; shared modules go by their first path."""
    clock = itertools.count()
    spies = []
    for path, module in modules:
        spy = module.__dict__["forward"] = _Spy(path, module, recorder, clock)
        spies.append(spy)
    return spies


def _modules(modules: _Paths, spies: list[_Spy]) -> tuple[Module, ...]:
    """In the order of their first calls, then those never called."""
    found = []
    for (path, module), spy in zip(modules, spies, strict=True):
        state = module.__dict__
        settings = {name: state[name] for name in sorted(_SETTINGS & state.keys()) if _is_plain(state[name])}
        leaf = not any(child is not None for child in module._modules.values())
        order = math.inf if spy.first_call is None else spy.first_call
        found.append((order, Module(path, type(module).__name__, leaf, spy.calls, spy.output_shape, settings)))
    return tuple(module for _, module in sorted(found, key=lambda entry: entry[0]))


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return bool(value) and all(isinstance(item, int) for item in value)
    return isinstance(value, (bool, int, float, str))


def _parameters(modules: _Paths, recorder: Recorder) -> tuple[Parameter, ...]:
    """Parameters and buffers with the first module that holds each."""
    seen: set[int] = set()
    found = []
    for path, module in modules:
        for table, buffer in ((module._parameters, False), (module._buffers, True)):
            for key, tensor in table.items():
                if tensor is None or id(tensor) in seen:
                    continue
                seen.add(id(tensor))
                name = f"{path}.{key}" if path else key
                spec = recorder.assign(tensor, "buffer" if buffer else "parameter", name)
                recorder.layer_of_parameter[id(tensor)] = path
                found.append(Parameter(name, path, spec, tensor.requires_grad, buffer))
    return tuple(found)


def _take_shapes(network: nn.Module, args: Any, kwargs: Any) -> None:
    """Run a network with lazy modules once, so that they take their shapes from the input."""
    if any(isinstance(module, LazyModuleMixin) and module.has_uninitialized_params() for module in network.modules()):
        with torch.no_grad():
            network(*args, **kwargs)


def _weighty_twin(model: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    if any(tensor.is_meta for tensor in itertools.chain(model.parameters(), model.buffers())):
        raise InputError("this network has no weights to run with: build it on the CPU, not on the meta device.")
    return real_twin(model, dtype)


def _own_dtype(network: nn.Module) -> torch.dtype:
    floating = (p.dtype for p in network.parameters() if p.dtype.is_floating_point)
    return next(floating, torch.get_default_dtype())


def _adopt(tensor: torch.Tensor, dtype: torch.dtype | None, meta: bool) -> torch.Tensor:
    """The tensor to run with in place of one of the user's, which a forward must not change."""
    if meta:
        return meta_tensor(tensor.detach(), dtype).requires_grad_(tensor.requires_grad)
    floating = dtype if tensor.dtype.is_floating_point else None
    return tensor.detach().clone().to(device="cpu", dtype=floating).requires_grad_(tensor.requires_grad)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors inside outputs or arguments, depth first."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _tensors(getattr(value, field.name))


def _loss(loss: str | Loss) -> Loss:
    if callable(loss):
        return loss
    if loss == "cross_entropy":
        return _cross_entropy
    if loss == "sum":
        return lambda outputs: _total(tensor.sum() for tensor in _floating(outputs))
    raise InputError(f"unknown loss {loss!r}: use 'cross_entropy', 'sum' or a function.{nearest(loss, _LOSSES)}")


_LOSSES = ("cross_entropy", "sum")


def _cross_entropy(outputs: Any) -> torch.Tensor:
    """Cross entropy of every output of at least two dimensions against class indices (dimension 1 is the classes)."""

    def against_classes(scores: torch.Tensor) -> torch.Tensor:
        target = torch.zeros(scores.shape[:1] + scores.shape[2:], dtype=torch.int64, device=scores.device)
        return functional.cross_entropy(scores, target)

    scores = [tensor for tensor in _floating(outputs) if tensor.dim() >= 2]
    if not scores:
        raise InputError(
            "the network's output has no classes for a cross entropy: use loss='sum' or a function of yours."
        )
    return _total(against_classes(tensor) for tensor in scores)


def _floating(outputs: Any) -> list[torch.Tensor]:
    return [tensor for tensor in _tensors(outputs) if tensor.is_floating_point() and tensor.requires_grad]


def _total(values: Iterable[torch.Tensor]) -> torch.Tensor:
    return functools.reduce(torch.add, values)


def _optimizer(optimizer: str | MakeOptimizer | None, options: Mapping[str, Any], target: str) -> MakeOptimizer | None:
    if optimizer is None:
        return None
    if not isinstance(optimizer, str):
        return optimizer
    if optimizer not in OPTIMIZERS:
        raise InputError(
            f"unknown optimizer {optimizer!r}: use {', '.join(OPTIMIZERS)}.{nearest(optimizer, OPTIMIZERS)}"
        )
    make = OPTIMIZERS[optimizer]
    settings = {"lr": 1e-3, "foreach": target == "cuda", **options}
    try:
        make([nn.Parameter(torch.zeros(1))], **settings)
    except (TypeError, ValueError) as error:
        raise InputError(f"{optimizer} does not take these options: {error}.") from None
    return lambda parameters: make(parameters, **settings)


def _name_of(value: Any) -> str | None:
    return value if isinstance(value, str) or value is None else getattr(value, "__name__", type(value).__name__)


@contextmanager
def _way_of(target: str, train: bool) -> Iterator[None]:
    """Run as the target would, whatever modes the caller is in; every switch is put back.

    The garbage collector rests meanwhile: a cycle that holds tensors would die at another moment in every run.
    """
    fast_path, collecting = torch.backends.mha.get_fastpath_enabled(), gc.isenabled()
    gc.disable()
    torch.backends.mha.set_fastpath_enabled(False)  # it hides a whole attention layer from autograd's operators
    try:
        with (
            torch.inference_mode(False),
            torch.set_grad_enabled(train),
            cuda_operators() if target == "cuda" else nullcontext(),
        ):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        if collecting:
            gc.enable()


@contextmanager
def _explained(recorder: Recorder) -> Iterator[None]:
    """Turn whatever a network raises into one sentence that says where and what to do."""
    try:
        yield
    except CostModelError:
        raise
    except Exception as error:
        place = recorder.failed_in or "the network"
        text = str(error).strip().partition("\n")[0]
        reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
        if recorder.meta and "meta" in text.lower():
            raise TraceError(
                f"{place} needs values that a static trace does not have ({reason}): "
                "trace it by running it on the CPU (--run, or run=True)."
            ) from error
        if "indices" in text and "long" in text.lower():
            reason += " Give whole numbers: an input like 128:int64."
        phase = {FORWARD: "forward", BACKWARD: "backward", OPTIMIZER: "optimizer step"}[recorder.phase]
        raise TraceError(f"the {phase} of {place} raised {reason}") from error


@functools.cache
def _versions() -> Mapping[str, str]:
    return {package: importlib.metadata.version(package) for package in ("torch", "torchvision")}
