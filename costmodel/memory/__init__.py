"""Which bytes a trace keeps alive when, when they peak, who holds them, what a GPU's allocator makes of them, what fits.

`timeline` is what tensors ask for; `allocator` and `runs` what PyTorch's caching allocator takes for it; `ladder` the way
from the one to what a process holds; `capacity` the same at any batch, and the largest batch that fits.
"""

from __future__ import annotations

from costmodel.memory.capacity import Fit, Scaling, scaling
from costmodel.memory.ladder import Overhead, Rung
from costmodel.memory.runs import Replay, replay
from costmodel.memory.timeline import Holder, Memory, remember

__all__ = ["Fit", "Holder", "Memory", "Overhead", "Replay", "Rung", "Scaling", "remember", "replay", "scaling"]
