"""What torch does on a CUDA device, as JSON: operators with their shapes, and its allocator's peaks. Run by tests."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from msgspec.structs import replace
from torch.utils._python_dispatch import TorchDispatchMode

from costmodel.hardware.measure import measure
from costmodel.hardware.record import DEFAULTS
from costmodel.hardware.workload import Workload
from costmodel.networks import find
from costmodel.tracer.inputs import tensors_in
from costmodel.tracer.training import Training

BESIDE = ("aten.detach", "aten.randint", "profiler._record_function_enter_new", "profiler._record_function_exit")
"""What is no operation of a network's, in a trace neither: aliases, labels, the optimizer's marks for the profiler."""


class Operators(TorchDispatchMode):
    """Every operator below autograd, composite ones taken apart."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[list[int]]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self:
                taken_apart = func.decompose(*args, **kwargs)
            if taken_apart is not NotImplemented:
                return taken_apart
        result = func(*args, **kwargs)
        name = func._schema.name.replace("::", ".")
        if name not in BESIDE:
            self.seen.append((name, [list(each.shape) for each in tensors_in(result)]))
        return result


def step(name: str, size: list[int], train: bool, ways: dict[str, Any], layout: str) -> dict[str, Any]:
    """One run of a network in the steady state, once watched and once measured."""
    network = find(name, real=True)
    training = Training.asked(True, ways) if train else None
    device = torch.device("cuda", 0)
    workload = Workload(network.module, tuple(size), device, training=training, memory_format=layout)
    for _ in range(2):
        workload.run()
    with Operators() as operators:
        workload.run()
    del workload
    found = measure(
        network.module, tuple(size), device="cuda", batch=size[0], train=training or False, seconds=0.0, name=name,
        precision_settings=replace(DEFAULTS, memory_format=layout),
    )  # fmt: skip
    memory = found.memory
    peaks = {level: getattr(memory, f"{level}_bytes") for level in ("requested", "allocated", "reserved")}
    layers = sorted({(layer.layer, layer.phase) for layer in found.layers})
    return {"operators": operators.seen, "peaks": peaks, "layers": layers, "graph_problem": found.graph_problem}


if __name__ == "__main__":
    json.dump([step(*asked) for asked in json.loads(sys.argv[1])], sys.stdout)
