"""Which bytes a trace keeps alive when, when they peak, who holds them, and what a GPU has to have for it.

`timeline` is what tensors ask for; `allocator` and `runs` are what PyTorch's caching allocator takes for it; `levels`
leads from the one to what a process holds; `capacity` is the same at any batch, and the largest batch that fits;
`what_ifs` is what would lower it; `export` takes it to a viewer.
"""

from __future__ import annotations

from costmodel.memory.capacity import Fit, Scaling, scaling
from costmodel.memory.export import chrome_trace
from costmodel.memory.levels import MemoryLevel, Overhead
from costmodel.memory.runs import Replay, replay
from costmodel.memory.timeline import MemoryTimeline, PeakTensor, SavedStorage, memory_timeline
from costmodel.memory.what_ifs import MemoryWhatIf, MemoryWhatIfs, Saving, TraceWith, memory_what_ifs

__all__ = [
    "Fit",
    "MemoryLevel",
    "MemoryTimeline",
    "MemoryWhatIf",
    "MemoryWhatIfs",
    "Overhead",
    "PeakTensor",
    "Replay",
    "SavedStorage",
    "Saving",
    "Scaling",
    "TraceWith",
    "chrome_trace",
    "memory_timeline",
    "memory_what_ifs",
    "replay",
    "scaling",
]
