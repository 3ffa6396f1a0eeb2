"""Which bytes a trace keeps alive when, when they peak, who holds them, and what a GPU has to have for it.

`timeline` is what tensors ask for; `allocator` and `runs` are what PyTorch's caching allocator takes for it; `ladder`
leads from the one to what a process holds; `capacity` is the same at any batch, and the largest batch that fits;
`levers` is what would lower it; `export` takes it to a viewer.
"""

from __future__ import annotations

from costmodel.memory.capacity import Fit, Scaling, scaling
from costmodel.memory.export import chrome_trace
from costmodel.memory.ladder import Overhead, Rung
from costmodel.memory.levers import Lever, Saving, Savings, TraceWith, savings
from costmodel.memory.runs import Replay, replay
from costmodel.memory.timeline import Holder, Memory, Saved, remember

__all__ = [
    "Fit",
    "Holder",
    "Lever",
    "Memory",
    "Overhead",
    "Replay",
    "Rung",
    "Saved",
    "Saving",
    "Savings",
    "Scaling",
    "TraceWith",
    "chrome_trace",
    "remember",
    "replay",
    "savings",
    "scaling",
]
