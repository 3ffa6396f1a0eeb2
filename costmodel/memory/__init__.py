"""Which bytes a trace keeps alive when, when they peak, and who holds them."""

from __future__ import annotations

from costmodel.memory.timeline import Holder, Memory, Saved, remember

__all__ = ["Holder", "Memory", "Saved", "remember"]
