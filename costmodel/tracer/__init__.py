"""nn.Module + inputs -> Trace, on torch's meta device: no weight is allocated and no arithmetic is done.

A copy of the module (see `meta_copy`) is run once under a dispatch mode (see `recorder`) that notes each operation. For
a training step, loss, backward and optimizer are run on the meta tensors as well, so that what autograd keeps alive
comes from autograd itself.
"""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import itertools
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from costmodel.errors import CostModelError, InputError, TraceError, type_of
from costmodel.graph import BACKWARD, FORWARD, OPTIMIZER, Parameter, Trace
from costmodel.tracer.autocast import autocast_dtype, autocasting
from costmodel.tracer.causes import cause_of
from costmodel.tracer.checkpointing import checkpoint_blocks
from costmodel.tracer.inputs import (
    Shape,
    floating_dtype,
    materialize,
    parse_shape,
    shapes_in,
    shapes_of,
    tensors_in,
)
from costmodel.tracer.layer_cache import LayerCache
from costmodel.tracer.meta_copy import Paths, copy_to_cpu, copy_to_meta, meta_tensor, paths_of
from costmodel.tracer.module_tracker import ModuleTracker, modules_of, track_modules, untrack_modules
from costmodel.tracer.recorder import Recorder, Rehearsal
from costmodel.tracer.recurrent_cuda import flatten_weights
from costmodel.tracer.saved import saved_for_backward
from costmodel.tracer.targets import TARGETS, operators_of
from costmodel.tracer.torch_private import uncompiled
from costmodel.tracer.training import OPTIMIZERS, Training, TrainingStep

__all__ = ["OPTIMIZERS", "Shape", "Training", "parse_shape", "trace"]


def trace(
    model: nn.Module,
    inputs: Any,
    *,
    train: bool | Training = False,
    dtype: str | torch.dtype | None = None,
    autocast: str | torch.dtype | None = None,
    channels_last: bool = False,
    target: str = "cuda",
    run: bool = False,
    name: str | None = None,
    **options: Any,
) -> Trace:
    """Write down what one run of `model` does.

    Torch's fast path for the inference of a TransformerEncoder, which hides a whole layer in one operator, is left off,
    also where the network is really run: its operations are those of training.

    Tensors that the forward makes have no values either: what it keeps of them outside the module (in a table under
    functools.cache, say) is of no use to a real run afterwards.

    Args:
        model: any module. It is neither changed nor copied, also when its forward raises.
        inputs: a shape with the batch first, as sizes or as a text ("8x128:int64"), a tensor, a list of those, or a
            dict from argument names to those.
        train: also run loss, backward and one optimizer step. A `Training` says how, and so do its fields as further
            keyword arguments: loss, optimizer, optimizer_options, first_step, set_to_none, accumulate, checkpoint.
        dtype: the floating-point type to run in; the parameters' own if None.
        autocast: "bfloat16" or "float16" to run forward and loss in mixed precision, as torch.autocast does.
        channels_last: whether 4-dimensional parameters and inputs have their channels innermost in memory.
        target: whose way of running operators to record: "cuda" (no GPU is needed), "cpu", or "meta" to fuse nothing.
        run: really run the network, on the CPU with random inputs, for control flow that depends on values.
        name: what to call the network; its class's name if None.

    Raises:
        InputError: an argument cannot be used.
        TraceError: the forward, backward or step raised, or needs values that a static trace does not have.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"the model is {type_of(model)}, not a torch.nn.Module.")
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError("a TorchScript module hides its Python: give the nn.Module that it was made from.")
    if target not in TARGETS:
        raise InputError(f"unknown target {target!r}: use 'cuda' or 'cpu'.")
    model = uncompiled(model)
    target = "cpu" if run else target
    wanted, lower = floating_dtype(dtype), autocast_dtype(autocast)
    asked, training = Training.asked(train, options), bool(train)
    if options and not training:
        raise InputError(f"{', '.join(options)}: this says how to train, so give train=True with it.")
    step = TrainingStep(asked, target) if training else None
    recorder = Recorder(meta=not run, train=training, target=target)
    saved: Mapping[int, tuple[str, ...]] = {}
    with _ONE_AT_A_TIME, _running_as(target, training, fused=not run), autocasting(lower, target, not run) as region:
        network = _cpu_copy(model, wanted) if run else copy_to_meta(model, wanted)
        modules = paths_of(network)
        if any(module.training is not training for _, module in modules):
            network.train(training)
        if target == "cuda":
            flatten_weights(module for _, module in modules)
        dtype_run = wanted or _own_dtype(network)
        args, kwargs = materialize(inputs, dtype_run, not run, lambda tensor: _adopt(tensor, wanted, not run))
        lazy = any(isinstance(module, LazyModuleMixin) and module.has_uninitialized_params() for _, module in modules)
        with Rehearsal(meta=not run) as rehearsal, _explained(rehearsal, (args, kwargs)):
            if lazy:
                _take_shapes(network, args, kwargs)
            if channels_last:
                _put_channels_last(itertools.chain(network.parameters(), network.buffers(), tensors_in((args, kwargs))))
            if step:
                step.prepare(network, (args, kwargs))
        parameters = _parameters(modules, recorder)
        input_specs = tuple(recorder.assign(tensor, "input", "input") for tensor in tensors_in((args, kwargs)))
        if step:
            step.assign(recorder)
        layer_cache = None if training or run or lower else LayerCache(recorder)
        trackers = track_modules(modules, recorder, layer_cache)
        checkpoint_blocks(modules, asked.checkpoint if step else (), recorder)
        with recorder, _explained(recorder, (args, kwargs)):
            for _ in range(asked.accumulate if step else 1):
                with region():
                    outputs = network(*args, **kwargs)
                    output_specs = tuple(recorder.spec(tensor) for tensor in tensors_in(outputs))
                    value = step.take_loss(outputs, recorder) if step else None
                if step is not None and value is not None:
                    del outputs  # as a training loop lets go of them: loss(network(images), labels)
                    saved = saved or saved_for_backward(value, recorder)  # those of the first micro-batch
                    step.backward(value, recorder)
            if step:
                step.update(recorder)
    if not recorder.operations:
        raise InputError("this network runs no operator on its inputs: there is nothing to analyse.")
    _refuse_missing_batch(inputs, trackers)
    untrack_modules(modules)
    recorder.storages.assign_others("temporary" if training else "activation", alive=False)
    settings = {"autocast": lower and str(lower).removeprefix("torch."), "channels_last": channels_last}
    return Trace(
        model=name or type(model).__name__,
        operations=tuple(recorder.operations),
        storages=recorder.storages.listed(saved),
        modules=modules_of(modules, trackers),
        parameters=parameters,
        inputs=input_specs,
        outputs=output_specs,
        dtype=str(dtype_run).removeprefix("torch."),
        train=training,
        target=target,
        settings={**(step.settings if step else {}), **{key: value for key, value in settings.items() if value}},
        versions=_versions(),
    )


_SPATIAL = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3, nn.LazyConv1d: 1, nn.LazyConv2d: 2, nn.LazyConv3d: 3}


def _refuse_missing_batch(inputs: Any, trackers: list[ModuleTracker]) -> None:
    """Raises InputError if the first convolution took the shape of an image for one without a batch.

    Torch allows that, and a Flatten behind it then takes channels for images: another network would be counted.
    """
    convolutions = [
        tracker for tracker in trackers if tracker.first_call is not None and type(tracker.module) in _SPATIAL
    ]
    if not convolutions:
        return
    first = min(convolutions, key=lambda tracker: tracker.first_call or 0)
    rank = _SPATIAL[type(first.module)] + 1
    bare = next((sizes for sizes in shapes_in(inputs) if len(sizes) == rank), None)
    if bare and len(first.output_shape or ()) == rank:
        raise InputError(
            f"the input {bare} has no batch: {f'layer {first.path!r}' if first.path else 'the network'} took it for a "
            f"single image. Write {(1, *bare)} for one image; an image without a batch can be given as a tensor."
        )


def _parameters(modules: Paths, recorder: Recorder) -> tuple[Parameter, ...]:
    """Parameters and buffers with the first module that holds each."""
    seen: set[int] = set()
    found = []
    for path, module in modules:
        prefix = f"{path}." if path else ""
        for table, role in ((module._parameters, "parameter"), (module._buffers, "buffer")):
            for key, tensor in table.items():
                if tensor is None or id(tensor) in seen:
                    continue
                seen.add(id(tensor))
                name = prefix + key
                spec = recorder.assign(tensor, role, name)
                recorder.layer_of_parameter[id(tensor)] = path
                found.append(Parameter(name, path, spec, tensor.requires_grad, role == "buffer"))
    return tuple(found)


def _take_shapes(network: nn.Module, args: Any, kwargs: Any) -> None:
    """Run a network with lazy modules once, so that they take their shapes from the input."""
    with torch.no_grad():
        network(*args, **kwargs)


def _cpu_copy(model: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    if any(tensor.is_meta for tensor in itertools.chain(model.parameters(), model.buffers())):
        raise InputError("this network has no weights to run with: build it on the CPU, not on the meta device.")
    return copy_to_cpu(model, dtype)


def _own_dtype(network: nn.Module) -> torch.dtype:
    floating = (p.dtype for p in network.parameters() if p.dtype.is_floating_point)
    return next(floating, torch.get_default_dtype())


def _adopt(tensor: torch.Tensor, dtype: torch.dtype | None, meta: bool) -> torch.Tensor:
    """The tensor to run with in place of one of the user's, which a forward must not change."""
    if meta:
        return meta_tensor(tensor.detach(), dtype).requires_grad_(tensor.requires_grad)
    floating = dtype if tensor.dtype.is_floating_point else None
    return tensor.detach().clone().to(device="cpu", dtype=floating).requires_grad_(tensor.requires_grad)


def _put_channels_last(tensors: Iterable[torch.Tensor]) -> None:
    """`module.to(memory_format=torch.channels_last)` for these tensors, each of which stays the object that it is."""
    for tensor in tensors:
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)


_ONE_AT_A_TIME = threading.RLock()
"""Torch's switches are the process's: two threads that trace at once would put each other's settings back."""


@contextmanager
def _running_as(target: str, train: bool, fused: bool) -> Iterator[None]:
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
            operators_of(target) if fused else nullcontext(),
            warnings.catch_warnings(),
        ):
            # Torch's own, also where they point at who called; not the user's.
            warnings.filterwarnings("ignore", module=r"(torch|costmodel)\.")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        if collecting:
            _spare_the_collector()
            gc.enable()


def _spare_the_collector() -> None:
    """Count what lives now as old: a trace is thousands of objects that live together, and none of them is garbage.

    Otherwise the collector looks at all of them as soon as it is allowed to, for as long as a tenth of the trace took.
    """
    if not gc.get_freeze_count():  # or what somebody froze on purpose would thaw
        gc.freeze()
        gc.unfreeze()


@contextmanager
def _explained(recorder: Recorder, inputs: Any) -> Iterator[None]:
    """Turn whatever a network raises into one sentence that says where and what to do."""
    try:
        yield
    except CostModelError:
        raise
    except Exception as error:
        place = recorder.failed_in or "the network"
        text = str(error).strip().partition("\n")[0]
        reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
        cause = cause_of(text)
        if cause is not None:
            raise TraceError(f"{place} {cause}.") from error
        if recorder.meta and "meta" in text.lower():
            raise TraceError(
                f"{place} needs values that a static trace does not have ({reason}): "
                "trace it by running it on the CPU (--run, or run=True)."
            ) from error
        phase = {FORWARD: "forward", BACKWARD: "backward", OPTIMIZER: "optimizer step"}[recorder.phase]
        message = f"the {phase} of {place} raised {reason.rstrip('.')}."
        if "indices" in text and "long" in text.lower():
            message += " Give whole numbers: an input like 128:int64."
        elif recorder.phase == FORWARD:
            message += f" The network's input was {shapes_of(inputs)}: is that what it takes?"
        raise TraceError(message) from error


@functools.cache
def _versions() -> Mapping[str, str]:
    return {package: importlib.metadata.version(package) for package in ("torch", "torchvision")}
