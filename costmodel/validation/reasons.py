"""Why a layer took longer or shorter than predicted, by name, from the kernels that ran and the bytes that it moves.

Three things beat a bound of unfused execution from memory, and each has a bound of its own that nothing beats:
- a convolution that leaves out the products with padding, which the definition counts: 18 % of them for 3 x 3 filters
  on 7 x 7 images;
- an algorithm that multiplies less than the definition: Winograd's, F(m x m, r x r), takes (m + r - 1)^2 products where
  the definition takes m^2 r^2 (Lavin and Gray, arXiv:1509.09308): a quarter for the 4 x 4 tiles of 3 x 3 filters; a
  Fourier transform's products grow with the logarithm only, so that memory alone bounds it;
- a cache that still holds what the operation before wrote: of what one operation moves, at most the cache's size can be
  found there, and as much left there. Bound: (moved - 2 x cache) / bandwidth;

and where the peak itself was measured, a faster moment than that of the calibration: as fast as the fastest held-out
shapes of the operation's class were there, and no faster.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from costmodel.chip.windows import Window, met
from costmodel.cost import OperationCost
from costmodel.devices import Device
from costmodel.estimate import class_of
from costmodel.graph import Operation
from costmodel.hardware.record import LayerTime
from costmodel.roofline import OperationPrediction
from costmodel.units import percent, seconds

LAUNCH_BOUND, CACHE_RESIDENT, PADDING = "launch-bound", "cache-resident", "products with padding left out"
FASTER_MOMENT = "faster than the measured peak"
WINOGRAD, FOURIER = "Winograd's fewer multiplications", "Fourier transform's fewer multiplications"
SLOW, LAYOUT, UNMODELLED, FASTER = "slow kernel", "layout conversion", "unmodelled", "faster kernel"
BEATEN, UNMEASURED = "beats the bound, unexplained", "nothing ran for it"
TOO_NOISY, WIDE = "too noisy to say", "inside a wide interval"

_CACHE_GAIN = 3.0
"""How many times faster than memory a layer may be by a cache that does not hold its tensors: some are in memory."""

_SHORT_SECONDS = {"gpu": 6e-6, "cpu": 15e-6}
"""A kernel (on a CPU: an operator) no longer than this is mostly its own start; 1.5 launches where those are longer."""

_WINOGRAD_FACTORS: Mapping[tuple[int, ...], float] = {(3, 3): 144 / 36, (5, 5): 625 / 81}

_LAYOUT_WORDS = ("nchwtonhwc", "nhwctonchw", "transpose", "nchw2nhwc", "nhwc2nchw", "aten::to_mkldnn", "contiguous")


class MeasuredLayer(NamedTuple):
    """A layer in one phase: what was predicted and what was measured."""

    operations: Sequence[OperationPrediction]
    measured: LayerTime
    device: Device
    bound_seconds: float
    predicted_seconds: float
    modelled: bool
    """Whether every operation of it has a rule."""


def executed_bound(case: MeasuredLayer) -> tuple[float, str] | None:
    """The bound of what really ran, where the definition's is beaten, and what explains it; None if nothing does.

    A bound is beaten if even the third quartile of the repetitions lies below it. Far below the bound no cache explains
    tensors that it cannot hold.
    """
    algorithm = _algorithm(case.measured)
    ways = [(PADDING,), (CACHE_RESIDENT,), (PADDING, CACHE_RESIDENT)]
    ways += [(algorithm,), (algorithm, CACHE_RESIDENT)] if algorithm else []
    if is_measured(case.device):
        ways += [(FASTER_MOMENT, *way) for way in ((), *ways)]
    if case.measured.high * _CACHE_GAIN < case.bound_seconds and _tensor_bytes(case) > cache_bytes(case.device):
        ways = [way for way in ways if CACHE_RESIDENT not in way or algorithm in way]
    for way in ways:
        bound = math.fsum(_executed_bound(each, case.device, way) for each in case.operations)
        if bound <= case.measured.high:
            return bound, " and ".join(way)
    return None


def reason(case: MeasuredLayer) -> str:
    """Why the measured time is not the predicted one, in a few words."""
    measured = case.measured.seconds
    if measured < case.predicted_seconds:
        fits = sum(each.cost.moved_bytes for each in case.operations) <= cache_bytes(case.device)
        return _algorithm(case.measured) or (CACHE_RESIDENT if fits else FASTER)
    if not case.modelled:
        return f"{UNMODELLED}: not every operation of it has a rule"
    launches = case.measured.launches
    if launches and measured / launches <= _short(case.device):
        what, each = "operator" if case.device.kind == "cpu" else "kernel", seconds(measured / launches)
        return (
            f"{LAUNCH_BOUND}: {launches} {what}s of {each}" if launches > 1 else f"{LAUNCH_BOUND}: 1 {what} of {each}"
        )
    if not case.bound_seconds:
        return f"{UNMODELLED}: nothing is predicted for it"
    converting = math.fsum(
        kernel.seconds for kernel in case.measured.kernels if any(w in kernel.name.lower() for w in _LAYOUT_WORDS)
    )
    if converting >= 0.2 * measured:
        return f"{LAYOUT}: {percent(converting / measured, 0)} of its time"
    share = case.bound_seconds / measured
    attained = percent(share, 0) if share >= 0.01 else "less than 1 %"
    return f"{SLOW}: {attained} of what the bound allows, {_longest(case.measured)}"


def cache_bytes(device: Device) -> int:
    """The size of the last-level cache; 0 if the device file does not give it."""
    return device.l3_bytes or device.l2_bytes or 0


def _tensor_bytes(case: MeasuredLayer) -> int:
    """Bytes of all the tensors that a layer takes or makes, each once."""
    tensors = [each for row in case.operations for each in (*row.operation.inputs.values(), *row.operation.outputs)]
    return sum({tensor.storage: tensor.nbytes for tensor in tensors}.values())


def is_measured(device: Device) -> bool:
    """Whether a device's peaks are what its calibration measured, and not a datasheet's."""
    own = device.facts.get("calibration")
    return own is not None and any(
        fact.source == own.source for name, fact in device.facts.items() if name.startswith("peaks.")
    )


def _faster(row: OperationPrediction, device: Device) -> float:
    """How many times the peak the fastest held-out shapes of an operation's class reached in the calibration."""
    if device.calibration is None or not row.path:
        return 1.0
    fitted_rates = device.calibration.fitted_rates(class_of(OperationCost(row.operation, row.kind, row.cost)), row.path)
    return max(1.0, fitted_rates.flops_per_second / fitted_rates.low / device.peaks[row.path]) if fitted_rates else 1.0


def winograd_factor(operation: Operation) -> float:
    """How many times fewer multiplications Winograd's algorithm needs at most for a convolution, or its gradients.

    For 3x3 filters F(4x4, 3x3): 16 x 9 products by 36. For 5x5 filters F(5x5, 5x5): 25 x 25 by 81, cuDNN's largest
    tiles. 1 for everything else: other filters, strides, dilation.
    """
    weight = operation.inputs.get("weight")
    steps = (operation.attributes.get("stride"), operation.attributes.get("dilation"))
    if "convolution" not in operation.operator or weight is None or any(set(step or (1,)) != {1} for step in steps):
        return 1.0
    return _WINOGRAD_FACTORS.get(weight.shape[2:], 1.0)


def padding_factor(operation: Operation) -> float:
    """How many times fewer multiplications a convolution, or its gradients, needs without those by padding."""
    weight, image = operation.inputs.get("weight"), operation.inputs.get("input")
    if "convolution" not in operation.operator or weight is None or image is None:
        return 1.0
    if operation.attributes.get("transposed"):
        return 1.0
    output = operation.inputs.get("grad_output") or operation.outputs[0]
    counted = needed = 1
    for axis, taps in enumerate(weight.shape[2:]):
        stride, dilation, before = (
            _along(operation.attributes.get(name), axis, default)
            for name, default in (("stride", 1), ("dilation", 1), ("padding", 0))
        )
        window = Window(output.shape[2 + axis], image.shape[2 + axis], taps, stride, dilation, before)
        counted, needed = counted * window.outputs * taps, needed * int(met(window).sum())
    return counted / needed if needed else 1.0


def _along(sizes: Sequence[int] | None, axis: int, default: int) -> int:
    """A setting along one dimension; one size may stand for all."""
    return sizes[axis if len(sizes) > 1 else 0] if sizes else default


def _algorithm(measured: LayerTime) -> str:
    """The algorithm that the kernels' names reveal, if it is one that multiplies less."""
    names = " ".join(kernel.name.lower() for kernel in measured.kernels)
    return WINOGRAD if "winograd" in names else FOURIER if "fft" in names else ""


def _executed_bound(row: OperationPrediction, device: Device, way: Sequence[str]) -> float:
    """The least time of an operation that runs this way."""
    fewer = 1.0
    if PADDING in way:
        fewer = padding_factor(row.operation)
    elif WINOGRAD in way:
        fewer = winograd_factor(row.operation)
    elif FOURIER in way and row.kind == "conv":
        fewer = math.inf
    if FASTER_MOMENT in way:
        fewer *= _faster(row, device)
    moved = row.cost.moved_bytes - 2 * cache_bytes(device) * (CACHE_RESIDENT in way)
    return max(row.compute_seconds / fewer, moved / device.memory_bandwidth, 0.0)


def _short(device: Device) -> float:
    return max(_SHORT_SECONDS[device.kind], 1.5 * (device.launch_seconds or 0.0))


def _longest(measured: LayerTime) -> str:
    name = measured.kernels[0].name if measured.kernels else "nothing"
    return name if len(name) <= 60 else f"{name[:59]}…"
