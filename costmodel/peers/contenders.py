"""Programs that analyse a network, each as its README says to call it, and as an expert would: on the meta device.

What is timed is the call alone: the network is built and the program imported before. Printing is switched off where a
program has a switch for it. What each reports is normalised to multiply-accumulates, so that none wins by counting
less.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.metadata
import io
import itertools
import logging
import resource
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from costmodel.cost import count
from costmodel.errors import InputError, nearest
from costmodel.networks import Network, find
from costmodel.tracer import Shape, trace

README, EXPERT = WAYS = ("readme", "expert")
"""Real weights on the CPU and a real input; both on the meta device."""

OURSELVES, FLOOR = "costmodel", "bare forward"


@dataclass(frozen=True)
class Contender:
    """A program and how it is called."""

    name: str
    package: str
    """The distribution that it comes in."""

    analyse: Callable[[nn.Module, Shape, torch.Tensor], int]
    """From the network, its input's shape (batch included) and an input on its device to multiply-accumulates."""

    ways: tuple[str, ...] = WAYS

    @property
    def version(self) -> str | None:
        """The installed version; None if it is not installed."""
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return None


def _costmodel(module: nn.Module, shape: Shape, _: torch.Tensor) -> int:
    costs = count(trace(module, (shape,)))
    return len(costs.layers) and costs.total.macs  # the table of layers belongs to the answer


def _bare_forward(module: nn.Module, _: Shape, given: torch.Tensor) -> int:
    """No answer at all: what it takes to run the network once on the meta device."""
    with torch.no_grad():
        module(given)
    return 0


def _flop_counter(module: nn.Module, _: Shape, given: torch.Tensor) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        module(given)
    return counter.get_total_flops() // 2


def _fvcore(module: nn.Module, _: Shape, given: torch.Tensor) -> int:
    from fvcore.nn import FlopCountAnalysis

    return int(FlopCountAnalysis(module, given).total())


def _torchinfo(module: nn.Module, shape: Shape, given: torch.Tensor) -> int:
    from torchinfo import summary

    return int(summary(module, input_size=shape.sizes, verbose=0, device=given.device).total_mult_adds)


def _ptflops(backend: str) -> Callable[[nn.Module, Shape, torch.Tensor], int]:
    def analyse(module: nn.Module, shape: Shape, given: torch.Tensor) -> int:
        from ptflops import get_model_complexity_info

        options: dict[str, Any] = {"as_strings": False, "print_per_layer_stat": False, "backend": backend}
        if given.is_meta:
            options["input_constructor"] = lambda _: given
        macs, _ = get_model_complexity_info(module, shape.sizes[1:], **options)
        if macs is None:
            raise RuntimeError("it gave no answer")
        return int(macs)

    return analyse


def _calflops(module: nn.Module, shape: Shape, given: torch.Tensor) -> int:
    from calflops import calculate_flops

    fed: dict[str, Any] = {"args": [given]} if given.is_meta else {"input_shape": shape.sizes}
    _, macs, _ = calculate_flops(module, print_results=False, output_as_string=False, **fed)
    return int(macs)


CONTENDERS: Mapping[str, Contender] = {
    contender.name: contender
    for contender in (
        Contender(OURSELVES, "costmodel", _costmodel),
        Contender(FLOOR, "torch", _bare_forward, (EXPERT,)),
        Contender("torch flop counter", "torch", _flop_counter),
        Contender("fvcore", "fvcore", _fvcore),
        Contender("torchinfo", "torchinfo", _torchinfo),
        Contender("ptflops", "ptflops", _ptflops("pytorch")),
        Contender("ptflops (aten)", "ptflops", _ptflops("aten")),
        Contender("calflops", "calflops", _calflops),
    )
}
"""By name; we ourselves and a bare forward come first."""


def contender(name: str) -> Contender:
    """The contender of that name. Raises InputError, with the nearest names, if there is none."""
    if name not in CONTENDERS:
        raise InputError(f"unknown program {name!r}: use {', '.join(CONTENDERS)}.{nearest(name, CONTENDERS)}")
    return CONTENDERS[name]


def network_for(model: str, way: str) -> Network:
    """The network that a way of calling is given: with real weights, or without."""
    network = find(model, real=way == README)
    if len(network.input_shapes) != 1 or network.needs_run:
        raise InputError(f"{network.name} cannot be compared: not every program takes its inputs.")
    network.module.eval()
    return network


def ready(name: str, network: Network) -> Callable[[], int]:
    """A call that analyses `network` and returns multiply-accumulates, quietly.

    Each gets modules of its own (with the same weights), because some programs leave hooks and attributes behind.
    """
    tensors = itertools.chain(network.module.parameters(), network.module.buffers())
    module = copy.deepcopy(network.module, {id(tensor): tensor for tensor in tensors})
    (one,) = network.input_shapes
    shape = Shape((1, *one.sizes), one.dtype)
    on_meta = any(tensor.is_meta for tensor in module.parameters())
    given = torch.zeros(shape.sizes, device="meta") if on_meta else torch.rand(shape.sizes)
    analyse = contender(name).analyse
    return lambda: analyse(module, shape, given)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Silence what programs print, log and warn."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        output = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def peak_memory(name: str, model: str, way: str) -> int:
    """Bytes by which building and analysing a network raise this process's memory at most.

    The program is imported and warmed up on a small network before. Meant for a process of its own.
    """
    with silence():
        ready(name, network_for(_SMALL, way))()
        before = _resident()
        _forget_peak()
        ready(name, network_for(model, way))()
        return max(0, _peak() - before)


_SMALL = "torchvision:squeezenet1_1"
_STATUS = Path("/proc/self/status")


def _resident() -> int:
    """Bytes of memory that this process holds now, or the most it ever held where the system does not say."""
    return _status("VmRSS") or _peak()


def _peak() -> int:
    """The most bytes that it held since `_forget_peak`, or ever."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return _status("VmHWM") or used * (1 if sys.platform == "darwin" else 1024)


def _status(key: str) -> int:
    if not _STATUS.exists():
        return 0
    line = next((line for line in _STATUS.read_text().splitlines() if line.startswith(f"{key}:")), f"{key}: 0 kB")
    return int(line.split()[1]) * 1024


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
