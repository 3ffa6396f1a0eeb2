"""What torch's own RuntimeEstimator expects: a roofline of operators on fake tensors, which needs an accelerator.

Its peaks are the device's as torch knows them, tensor cores included, for every operator of a dtype; see
torch/distributed/_tools/runtime_estimator.py and torch/utils/_runtime_estimation.py.
"""

from __future__ import annotations

import io
import math
from contextlib import redirect_stdout
from typing import Any

import torch
from torch import nn

from costmodel.hardware.record import PeerEstimate, Run
from costmodel.hardware.workload import RandomLabels
from costmodel.tracer.meta_copy import copy_to_meta
from costmodel.tracer.torch_private import device_tflops, dram_gbps, fake_mode, runtime_estimator
from costmodel.tracer.training import CrossEntropy, Training, TrainingStep


def torch_estimate(network: nn.Module, run: Run, training: Training | None, device: torch.device) -> PeerEstimate:
    """What torch's RuntimeEstimator says of a run, or why it says nothing. Never raises."""
    if device.type == "cpu":
        return PeerEstimate(problem="it has no CPU: it needs an accelerator")
    try:
        fake, tool = fake_mode(), runtime_estimator()
        _look_up_peaks(getattr(torch, run.dtype))
        copied = copy_to_meta(network, getattr(torch, run.dtype)).train(run.train)
        with fake(), redirect_stdout(io.StringIO()):
            seconds = _estimated(tool(), copied, run, training, device)
        return PeerEstimate(seconds) if math.isfinite(seconds) else PeerEstimate(problem=f"it says {seconds} seconds")
    except Exception as error:
        return PeerEstimate(problem=" ".join(f"{type(error).__name__}: {error}".split())[:200])


def _look_up_peaks(dtype: torch.dtype) -> None:
    """Let torch find the device's peaks, which it remembers. It may call Triton, which may need a C compiler.

    Where that fails, it must fail here: an exception inside of autograd's C++ would end the process.
    """
    device_tflops()(dtype)
    dram_gbps()()


def _estimated(tool: Any, copied: nn.Module, run: Run, training: Training | None, device: torch.device) -> float:
    """Its seconds, under a mode in which tensors are fake."""
    _put_on(copied, device)
    inputs = [torch.empty(shape, dtype=getattr(torch, run.dtype), device=device) for shape in run.inputs]
    with tool("operator-level-cost-model"), torch.set_grad_enabled(run.train):
        outputs = copied(*inputs)
        if training is not None:
            step = TrainingStep(training, device.type)
            loss = RandomLabels() if isinstance(step.loss, CrossEntropy) else step.loss
            loss(outputs).backward()
            if step.make_optimizer:
                step.make_optimizer([each for each in copied.parameters() if each.requires_grad]).step()
    return tool.total_runtime / 1e3


def _put_on(copied: nn.Module, device: torch.device) -> None:
    """Give a copy fake tensors on a device in place of its parameters and buffers."""
    made: dict[int, torch.Tensor] = {}
    for module in copied.modules():
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is not None:
                    if id(tensor) not in made:
                        new = torch.empty(tuple(tensor.shape), dtype=tensor.dtype, device=device)
                        is_parameter = isinstance(tensor, nn.Parameter)
                        made[id(tensor)] = nn.Parameter(new, tensor.requires_grad) if is_parameter else new
                    table[name] = made[id(tensor)]  # type: ignore[assignment]
