"""How something that takes long says how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many steps are done and how many there are."""


def silent(text: str, done: int, total: int) -> None:
    """Says nothing."""
