"""Functions of torch's that are replaced for the thread that traces, and for no other.

Torch asks some questions, such as which devices have autocast, of functions that a trace has to answer otherwise. There
is one such function in a process, and other threads may use torch meanwhile: what stands in its place looks at the
thread that calls.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from costmodel.tracer.torch_private import Replaceable


@contextmanager
def replaced_here(*replacements: tuple[Replaceable, Callable[..., Any]]) -> Iterator[None]:
    """While this lasts, this thread calls each replacement with the original and its arguments; others the original."""
    thread = threading.get_ident()
    with ExitStack() as undo:
        for place, replacement in replacements:
            original = getattr(place.owner, place.name, place.original)  # somebody else's, if it was replaced before
            undo.callback(setattr, place.owner, place.name, original)
            setattr(place.owner, place.name, _for_thread(thread, original, replacement))
        yield


def _for_thread(thread: int, original: Callable[..., Any], replacement: Callable[..., Any]) -> Callable[..., Any]:
    def choose(*args: Any, **kwargs: Any) -> Any:  # a plain function, which a class makes a method of
        if threading.get_ident() == thread:
            return replacement(original, *args, **kwargs)
        return original(*args, **kwargs)

    return choose
