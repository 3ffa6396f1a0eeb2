"""What a neural network costs (parameters, memory, arithmetic, time, energy, silicon) and why, without running it.

import costmodel as cm

trace = cm.trace(cm.networks.vgg16(), (32, 1, 224, 224), train=True)
costs = cm.count(trace)
prediction = cm.predict(costs, cm.device("h200"))

Names are loaded on first use: importing costmodel imports neither torch nor pandas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "Accelerator", "Balance", "Calibration", "Cost", "CostModelError", "Costs", "Curves", "Device", "Evaluation",
    "Exploration", "Fit", "Fusion", "HardwareError", "InputError", "LayerCost", "Measurement", "MemoryTimeline",
    "MemoryWhatIfs", "Nest", "Nests", "Network", "Operation", "OperationCost", "OperationPrediction", "Prediction",
    "Replay", "Scaling", "Shape", "Space", "Storage", "Table", "Technology", "TensorSpec", "Trace", "TraceError",
    "Traffic", "Training", "Validation", "WhatIfs", "Work", "accelerator", "balance", "count", "device", "evaluate",
    "explore", "fuse", "lower", "memory_timeline", "memory_what_ifs", "networks", "plot", "predict", "remember", "rule",
    "scaling", "trace", "traffic", "traffic_curves", "validate", "what_ifs",
]  # fmt: skip

if TYPE_CHECKING:
    from costmodel import networks
    from costmodel import plots as plot
    from costmodel.chip.accelerator import Accelerator, accelerator
    from costmodel.chip.balance import Balance, balance
    from costmodel.chip.dram import Curves, Traffic, traffic, traffic_curves
    from costmodel.chip.evaluation import Evaluation, evaluate
    from costmodel.chip.explore import Exploration, explore
    from costmodel.chip.fusion import Fusion, fuse
    from costmodel.chip.lowering import lower
    from costmodel.chip.nests import Nest, Nests
    from costmodel.chip.space import Space
    from costmodel.chip.technology import Technology
    from costmodel.chip.whatif import WhatIfs, what_ifs
    from costmodel.cost import Cost, Costs, LayerCost, OperationCost, count
    from costmodel.devices import Calibration, Device, device
    from costmodel.errors import CostModelError, HardwareError, InputError, TraceError
    from costmodel.graph import Operation, Storage, TensorSpec, Trace
    from costmodel.hardware.record import Measurement
    from costmodel.memory import (
        Fit,
        MemoryTimeline,
        MemoryWhatIfs,
        Replay,
        Scaling,
        memory_timeline,
        memory_what_ifs,
        scaling,
    )
    from costmodel.memory import memory_timeline as remember  # its old name
    from costmodel.networks import Network
    from costmodel.roofline import OperationPrediction, Prediction, predict
    from costmodel.rules import Work, rule
    from costmodel.tracer import Shape, Training, trace
    from costmodel.validation import Validation, validate
    from costmodel.view import Table
else:
    import functools

    @functools.cache
    def _homes() -> dict[str, tuple[str, str]]:
        """The module of each public name and the name that it has there, read off the imports above."""
        import ast
        from pathlib import Path

        body = ast.parse(Path(__file__).read_text(encoding="utf-8")).body
        imports = next(node.body for node in body if isinstance(node, ast.If))
        return {alias.asname or alias.name: (node.module, alias.name) for node in imports for alias in node.names}

    def __getattr__(name: str) -> object:
        import importlib

        if name not in __all__:
            raise AttributeError(f"module 'costmodel' has no attribute {name!r}")
        module, original = _homes()[name]
        if module == __name__:
            return importlib.import_module(f"costmodel.{original}")
        return getattr(importlib.import_module(module), original)

    def __dir__() -> list[str]:
        return __all__
