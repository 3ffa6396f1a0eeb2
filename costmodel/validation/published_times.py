"""Published timings of AlexNet and VGG on older GPUs beside our bounds: sanity bands, not calibrations.

The times are of jcjohnson/cnn-benchmarks (batch 16) and soumith/convnet-benchmarks (batch 64 and 128), in
data/published_gpu_times.csv; a library that is well tuned reaches 60 to 100 % of what the bound allows. What lies
outside does so for a reason that is known: cuDNN from version 5 on, and neon, multiply 3x3 filters by Winograd's
algorithm, which beats the definition's bound and has one of its own (see `reasons`); Torch without cuDNN unrolls
each image and multiplies matrices. The clocks that these GPUs ran at are not known; the bounds are for the listed ones.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from costmodel.cost import Costs, count
from costmodel.devices import device
from costmodel.graph import BACKWARD, FORWARD
from costmodel.roofline import Prediction, predict
from costmodel.validation.reasons import winograd_factor

BAND = (0.6, 1.0)
"""What a tuned library reaches of the bound's rate."""

_DEVICES = {
    "GeForce GTX 1080": "gtx1080",
    "GeForce GTX 1080 Ti": "gtx1080ti",
    "GeForce GTX Titan X (Maxwell)": "titan-x-maxwell",
    "Titan X (Pascal)": "titan-x-pascal",
}
_DTYPES = {"fp32": "float32", "fp16": "float16"}
_UNTUNED = ("cuDNN none", "Torch-7")


class PublishedTime(NamedTuple):
    """One published time beside our bound."""

    model: str
    """Which network of ours it is: "alexnet-grouped", "torchvision:vgg16"."""

    gpu: str
    library: str
    dtype: str
    batch: int
    phase: str
    published_seconds: float
    bound_seconds: float
    executed_bound_seconds: float
    """The bound if each 3x3 and 5x5 filter is multiplied as rarely as Winograd's algorithm allows."""

    inside: bool
    """Whether it lies in BAND."""

    explanation: str
    ok: bool
    """Whether it lies in the band, or outside for a known reason."""

    source: str

    @property
    def attained(self) -> float:
        """Its rate as a share of the bound's."""
        return self.bound_seconds / self.published_seconds


CostsOf = Callable[[str, int, str], Costs]


def published_times(costs_of: CostsOf | None = None) -> tuple[PublishedTime, ...]:
    """Every published time; `costs_of` gives the costs of a network's forward and backward at a batch in a dtype."""
    costs_of = costs_of or _traced
    kept: dict[tuple[str, int, str], Costs] = {}
    rows = []
    with (Path(__file__).parent / "data" / "published_gpu_times.csv").open(encoding="utf-8", newline="") as file:
        for entry in csv.DictReader(file):
            key = _network(entry["model"]), int(entry["batch"]), _DTYPES[entry["dtype"]]
            if key not in kept:
                kept[key] = costs_of(*key)
            prediction = predict(kept[key], device(_DEVICES[entry["gpu"]]))
            rows += [_row(key, entry, prediction, phase) for phase in (FORWARD, BACKWARD) if entry[f"{phase}_ms"]]
    return tuple(rows)


def _network(model: str) -> str:
    """Ours: BVLC's AlexNet has grouped convolutions, and "one weird trick" is the one that torchvision took over."""
    if model.startswith("alexnet"):
        return "alexnet-grouped" if "BVLC" in model else "torchvision:alexnet"
    return f"torchvision:{model}"


def _row(key: tuple[str, int, str], entry: dict[str, str], prediction: Prediction, phase: str) -> PublishedTime:
    model, batch, dtype = key
    operations = prediction.phase(phase).operations
    bound = math.fsum(each.bound_seconds for each in operations)
    winograd_bound = math.fsum(
        max(each.compute_seconds / winograd_factor(each.operation), each.memory_seconds) for each in operations
    )
    seconds, library = float(entry[f"{phase}_ms"]) / 1e3, entry["library"].strip()
    attained = bound / seconds
    inside = BAND[0] <= attained <= BAND[1]
    explanation, ok = _explained(attained, winograd_bound, seconds, library) if not inside else ("", True)
    return PublishedTime(
        model, entry["gpu"], library, dtype, batch, phase, seconds, bound, winograd_bound, inside, explanation, ok,
        entry["source"],
    )  # fmt: skip


def _explained(attained: float, winograd_bound: float, seconds: float, library: str) -> tuple[str, bool]:
    if attained > BAND[1]:
        if winograd_bound > seconds:
            return "faster than any algorithm that we know", False
        return "fewer multiplications than the definition's: Winograd, or Fourier transforms", True
    if library in _UNTUNED:
        return "no tuned library: each image is unrolled (im2col) and multiplied", True
    return "slower than the band, unexplained", False


def _traced(model: str, batch: int, dtype: str) -> Costs:
    from costmodel.networks import find
    from costmodel.tracer import trace

    network = find(model)
    step = trace(network.module, network.inputs(batch), train=True, loss="sum", optimizer=None, dtype=dtype, name=model)
    return count(step)
