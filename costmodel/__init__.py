"""What a neural network costs (parameters, memory, arithmetic, time, energy, silicon) and why, without running it.

import costmodel as cm

trace = cm.trace(cm.networks.vgg16(), (32, 1, 224, 224), train=True)
costs = cm.count(trace)
prediction = cm.predict(costs, cm.device("h200"))

Names are loaded on first use: importing costmodel imports neither torch nor pandas.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "CostModelError": "costmodel.errors",
    "Trace": "costmodel.graph",
    "trace": "costmodel.tracer",
    "Training": "costmodel.tracer",
    "Shape": "costmodel.tracer",
    "rule": "costmodel.rules",
    "Work": "costmodel.rules",
    "Cost": "costmodel.cost",
    "Costs": "costmodel.cost",
    "count": "costmodel.cost",
    "remember": "costmodel.memory",
    "scaling": "costmodel.memory",
    "savings": "costmodel.memory",
    "device": "costmodel.devices",
    "predict": "costmodel.roofline",
    "fuse": "costmodel.chip.fusion",
    "lower": "costmodel.chip.lowering",
    "traffic": "costmodel.chip.dram",
    "traffic_curves": "costmodel.chip.dram",
    "accelerator": "costmodel.chip.accelerator",
    "evaluate": "costmodel.chip.evaluation",
    "Space": "costmodel.chip.space",
    "explore": "costmodel.chip.explore",
    "balance": "costmodel.chip.balance",
    "what_ifs": "costmodel.chip.whatif",
    "validate": "costmodel.validation",
}
_MODULES = {"networks": "costmodel.networks", "plot": "costmodel.plots"}

__all__ = [
    "Cost",
    "CostModelError",
    "Costs",
    "Shape",
    "Space",
    "Trace",
    "Training",
    "Work",
    "accelerator",
    "balance",
    "count",
    "device",
    "evaluate",
    "explore",
    "fuse",
    "lower",
    "networks",
    "plot",
    "predict",
    "remember",
    "rule",
    "savings",
    "scaling",
    "trace",
    "traffic",
    "traffic_curves",
    "validate",
    "what_ifs",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    raise AttributeError(f"module 'costmodel' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
