"""Which bytes a trace keeps alive when, when they peak, who holds them, and how much memory a GPU needs for it.

`timeline` counts the bytes that tensors request; `allocator` and `runs` what PyTorch's caching allocator takes for
them; `levels` leads from the one to the memory of a process; `capacity` has the same at any batch, and the largest
batch that fits; `what_ifs` is what would lower the peak; `export` writes the timeline for a viewer.
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
