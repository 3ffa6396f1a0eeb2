"""Building networks without their weights, or with reproducible ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import init
from torch.nn.modules.lazy import LazyModuleMixin
from torch.overrides import TorchFunctionMode

from costmodel.errors import InputError
from costmodel.tracer import Shape
from costmodel.tracer.inputs import DTYPES
from costmodel.tracer.meta_copy import meta_tensor

_ALLOCATIONS = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn})
_FILLS = frozenset(
    {getattr(init, name) for name in dir(init) if name.endswith("_") and not name.startswith("_")}
    | {
        getattr(torch.Tensor, name)
        for name in ("normal_", "uniform_", "fill_", "zero_", "clamp_", "erfinv_", "mul_", "add_")
    }
)


def build(make: Callable[[], nn.Module], real: bool = False, inputs: Sequence[Shape] = ()) -> nn.Module:
    """The module that `make` returns, on the meta device or with `real` weights drawn from a fixed seed.

    A constructor that cannot do without values, so that it fails on the meta device, is called again for real. Lazy
    layers of a real network take their shapes from `inputs` (without the batch), if there are any. Torch's random
    numbers go on as if nothing had been built. Raises what `make` raises, and InputError if `inputs` do not fit.
    """
    if not real:
        try:
            with seeded(), _Weightless():
                return _all_meta(make())
        except Exception:  # and if the mode is not to blame, the second call says so
            pass
    with seeded():
        network = make()
        if inputs and any(isinstance(module, LazyModuleMixin) for module in network.modules()):
            _settle(network, inputs)
        return network


@contextmanager
def seeded() -> Iterator[None]:
    """Inside, torch's random numbers are always the same; afterwards they go on as if none had been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would seed the GPUs as well
        yield


def _settle(network: nn.Module, inputs: Sequence[Shape]) -> None:
    """Run a network with lazy layers once, so that they take their shapes from the input."""
    zeros = (torch.zeros(1, *shape.sizes, dtype=DTYPES[shape.dtype] if shape.dtype else None) for shape in inputs)
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(*zeros)
    except Exception as error:
        text = ", ".join("x".join(map(str, shape.sizes)) for shape in inputs)
        raise InputError(f"the network does not take an input of {text}: {error}.") from error
    network.train(training)


class _Weightless(TorchFunctionMode):
    """While on, what a constructor allocates is on the meta device, and filling that does nothing.

    `torch.device("meta")` as a context does more and less: it moves also the index tables and stochastic-depth rates
    whose values constructors read (torchvision's RegNet fails), and it runs every initialization, which takes three to
    ten times as long (VGG-19 34 against 8 ms, DenseNet-201 680 against 160 ms on the same machine).
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _ALLOCATIONS and kwargs.get("device") is None:
            return func(*args, **{**kwargs, "device": "meta"})
        if func in _FILLS:
            tensor = args[0] if args else kwargs.get("tensor")
            if tensor is not None and tensor.is_meta:
                return tensor
        return func(*args, **kwargs)


def _all_meta(network: nn.Module) -> nn.Module:
    """Move also what the mode leaves (counters, index tables); shared tensors stay shared.

    A module without a meta tensor was not built here, but handed out, and is left as it is.
    """
    tables: list[dict[str, Any]] = [
        table for module in network.modules() for table in (module._parameters, module._buffers)
    ]
    if not any(tensor.is_meta for table in tables for tensor in table.values() if tensor is not None):
        return network
    moved: dict[torch.Tensor, torch.Tensor] = {}
    for table in tables:
        for name, tensor in table.items():
            if tensor is not None and not tensor.is_meta:
                if tensor not in moved:
                    moved[tensor] = meta_tensor(tensor)
                table[name] = moved[tensor]
    return network
