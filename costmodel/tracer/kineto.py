"""Kineto, the library under torch.profiler: it talks a lot."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silent_kineto() -> Iterator[None]:
    """While this lasts, Kineto does not write to stderr that it starts, stops and finds no GPU."""
    before = os.environ.get("KINETO_LOG_LEVEL")
    os.environ["KINETO_LOG_LEVEL"] = before or "99"
    try:
        yield
    finally:
        if before is None:
            del os.environ["KINETO_LOG_LEVEL"]
