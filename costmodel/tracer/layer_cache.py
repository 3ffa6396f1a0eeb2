"""Layers that are written down without being run.

A network of hundreds of layers has few kinds of layers. One of torch's own that calls a single operator, on its input
and on its own tensors, calls that operator with the same numbers in every layer of its class with the same settings;
only the shapes differ, and what becomes of those `shapes` knows. So where no gradient is asked for, the first layer of
each kind is run, and those after it are written down like it. Whatever is not plain (a hook's, a subclass's or a
mode's doing, a shape that `shapes` is not certain of) is run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import nn

from costmodel.graph import TensorSpec
from costmodel.tracer.autocast import overrides_now
from costmodel.tracer.meta_shapes import IN_PLACE, ShapeFunction
from costmodel.tracer.recorder import Recorder
from costmodel.tracer.schema import Schema, operator_of, schema_of
from costmodel.tracer.torch_private import dispatch_modes, function_modes, no_dispatch, transformation

_CONVOLUTION = ("stride", "padding", "dilation", "groups", "padding_mode")
_BATCH_NORM = ("momentum", "eps", "track_running_stats")
_WINDOW = ("kernel_size", "stride", "padding", "ceil_mode")

SETTINGS: Mapping[type[nn.Module], tuple[str, ...]] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _CONVOLUTION),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), _BATCH_NORM),
    nn.LayerNorm: ("normalized_shape", "eps"),
    **dict.fromkeys((nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.Hardsigmoid), ("inplace",)),
    **dict.fromkeys((nn.Sigmoid, nn.Tanh, nn.Identity), ()),
    nn.GELU: ("approximate",),
    nn.LeakyReLU: ("negative_slope", "inplace"),
    nn.ELU: ("alpha", "inplace"),
    nn.Hardtanh: ("min_val", "max_val", "inplace"),
    nn.Softmax: ("dim",),
    nn.MaxPool2d: (*_WINDOW, "dilation", "return_indices"),
    nn.AvgPool2d: (*_WINDOW, "count_include_pad", "divisor_override"),
    nn.AdaptiveAvgPool2d: ("output_size",),
    **dict.fromkeys((nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d), ("p", "inplace")),
}
"""By class: what decides, beside its tensors, which operators a layer's forward calls and with which numbers."""


class _Pattern(NamedTuple):
    """The one operation of a kind of layers."""

    schema: Schema
    shape_function: ShapeFunction
    attributes: Mapping[str, Any]
    tensors: tuple[tuple[str, str | None], ...]
    """The operator's tensors, each with the name that the layer has for it: None for the layer's input."""


_Kind: TypeAlias = tuple[Any, ...]
Replay: TypeAlias = Callable[[nn.Module, torch.Tensor], torch.Tensor | None]
"""From a layer and its input to its output; None where the layer has to be run."""


class LayerCache:
    """The kinds of layers that one trace has seen."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._replays: dict[_Kind, Replay] = {}

    def run(self, module: nn.Module, forward: Callable[[torch.Tensor], Any], given: Any) -> Any:
        """What `forward`, the plain forward of a module of a class in SETTINGS, returns for one input."""
        if not _is_plain(given):
            return forward(given)
        kind = _kind(module, given)
        try:
            replay = self._replays.get(kind)
        except TypeError:  # a setting is a list, which nothing can be remembered by
            return forward(given)
        if replay is not None:
            output = replay(module, given)
            return forward(given) if output is None else output
        begun = len(self._recorder.operations)
        output = forward(given)
        self._replays[kind] = self._replay_of(module, given, output, begun)
        return output

    def _replay_of(self, module: nn.Module, given: torch.Tensor, output: Any, begun: int) -> Replay:
        """How to do without running a layer like this one, which was just run."""
        operations = self._recorder.operations[begun:]
        if not operations and output is given:
            return _unchanged
        if len(operations) != 1 or not isinstance(output, torch.Tensor):
            return _unknown
        operator = operator_of(operations[0])
        shape_function = self._recorder.shape_functions.get(operator)
        if shape_function is None:
            return _unknown
        operation, spec, own = operations[0], self._recorder.spec, _own_tensors(module)
        names: dict[TensorSpec, str | None] = {spec(tensor): name for name, tensor in own}
        names[spec(given)] = None
        settings = {name: module.__dict__.get(name) for name in SETTINGS[type(module)]}
        if (
            len(names) != len(own) + 1
            or not names.keys() >= set(operation.inputs.values())
            or spec(output) != operation.outputs[0]
            or not _are_settings(operation.attributes, settings)
        ):
            return _unknown
        arguments = tuple((argument, names[tensor]) for argument, tensor in operation.inputs.items())
        pattern = _Pattern(schema_of(operator), shape_function, operation.attributes, arguments)
        return functools.partial(self._write, pattern)

    def _write(self, pattern: _Pattern, module: nn.Module, given: torch.Tensor) -> torch.Tensor | None:
        """Write down the layer's operation and return its output; None if that is not certain."""
        recorder, own = self._recorder, dict(_own_tensors(module))
        spec = recorder.spec(given)
        inputs = {argument: spec if name is None else recorder.spec(own[name]) for argument, name in pattern.tensors}
        results = pattern.shape_function(inputs, pattern.attributes)
        if results is None:
            return None
        recorder.begin()
        if results is IN_PLACE:
            output, kept = given, spec
        else:
            with no_dispatch():
                output, kept = recorder.fill(results[0])
        outputs = (kept, *[recorder.dropped(result) for result in results[1:]])
        recorder.write(pattern.schema, inputs, outputs, pattern.attributes)
        return output


def _unchanged(_: nn.Module, given: torch.Tensor) -> torch.Tensor:
    return given


def _unknown(_: nn.Module, __: torch.Tensor) -> None:
    return None


def _is_plain(given: Any) -> bool:
    """Whether it is a tensor of ours, and nobody else has a say now in what is done to it."""
    return (
        type(given) is torch.Tensor
        and given.is_meta
        and not torch.is_grad_enabled()
        and not torch.is_inference_mode_enabled()
        and not overrides_now()
        and dispatch_modes() == 1
        and not function_modes()
        and transformation() is None
    )


def _kind(module: nn.Module, given: torch.Tensor) -> _Kind:
    """What decides which operator the layer calls, and with which numbers."""
    state, cls, shape = module.__dict__, type(module), given.shape
    return (
        *(cls, state["training"], torch.backends.cudnn.enabled, given.dtype, len(shape), shape[0] if shape else 0),
        *[state.get(name) for name in SETTINGS[cls]],
        *[name for name, _ in _own_tensors(module)],
    )


def _own_tensors(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """The layer's parameters and buffers."""
    state = module.__dict__
    return [
        (name, tensor)
        for table in (state["_parameters"], state["_buffers"])
        if table
        for name, tensor in table.items()
        if tensor is not None
    ]


def _are_settings(attributes: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether the operator's numbers are the layer's settings, not worked out from them and a shape.

    (A convolution that is padded to keep its size works its padding out; so does a pool for a size that is left open.)
    """
    pairs = [(attributes[name], setting) for name, setting in settings.items() if name in attributes]
    return all(
        number == setting or (isinstance(number, tuple) and number == (setting,) * len(number))
        for number, setting in pairs
    )
