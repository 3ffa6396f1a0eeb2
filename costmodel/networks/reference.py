"""A network by the text that names it. Its traces are kept (see `cache`): with them, neither it nor torch is needed.

What a network prints while it is built and traced is kept as well, and printed again. Real runs are not kept.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from costmodel import errors
from costmodel.errors import CostModelError
from costmodel.graph import Trace
from costmodel.networks.cache import keep, question, recall
from costmodel.networks.ingredients import watched

if TYPE_CHECKING:
    from costmodel.networks.resolve import Network
    from costmodel.tracer import Shape


def traced(
    spec: str,
    batch: int = 1,
    *,
    classes: int | None = None,
    shapes: Sequence[Shape | str] | None = None,
    kept: bool = True,
    **options: Any,
) -> Trace:
    """What a network does, by its name; from the user's cache folder, if it was traced so before.

    Args:
        spec: the network, as for `find`.
        batch: samples at once.
        classes: as for `find`.
        shapes: as for `find`.
        kept: whether to look into the cache, and to keep a new trace there.
        options: those of `costmodel.trace`.

    Raises what `find` and `costmodel.trace` raise.
    """
    return Reference(spec, classes=classes, shapes=shapes, kept=kept).trace(batch, **options)


class Reference:
    """A network by its name. It is built (see `network`) when nothing that is kept answers a question."""

    def __init__(
        self,
        spec: str,
        *,
        classes: int | None = None,
        real: bool = False,
        shapes: Sequence[Shape | str] | None = None,
        kept: bool = True,
    ) -> None:
        """As for `find`; `kept` is whether to look into the cache, and to keep new traces there."""
        self._spec = spec.strip()
        self._classes = classes
        self._real = real
        self._shapes = shapes
        self._kept = kept
        self._names: tuple[str, str] | None = None
        self._printed: str | None = None  # while the network was built, also by the process that built it

    def __repr__(self) -> str:
        return f"<Reference to {self._spec}>"

    @property
    def name(self) -> str:
        """The network's name in full."""
        return self._called()[0]

    @property
    def title(self) -> str:
        """The network's name for people."""
        return self._called()[1]

    @cached_property
    def network(self) -> Network:
        """The network itself. Raises InputError if there is none of that name."""
        from costmodel.networks.resolve import find

        with self._watched(), _overheard(quiet=self._printed is not None) as heard:
            network = find(self._spec, classes=self._classes, real=self._real, shapes=self._shapes)
        self._printed = heard.getvalue()
        return network

    def trace(self, batch: int = 1, *, inplace: bool | None = None, **options: Any) -> Trace:
        """What the network does with a batch: as `Network.trace`."""
        trace = self._answer(lambda network: network.trace(batch, inplace=inplace, **options), options, batch, inplace)
        assert trace is not None
        return trace

    def resized(self, factor: float, batch: int = 1, **options: Any) -> Trace | None:
        """What it does with images of another size: as `Network.resized`."""
        return self._answer(
            lambda network: network.resized(factor, batch, **options), options, batch, "resized", factor
        )

    def _called(self) -> tuple[str, str]:
        if self._names is None:
            self._names = self.network.name, self.network.title
        return self._names

    @property
    def _place(self) -> str | None:
        """Where the network's code is, if it is neither ours nor torchvision's."""
        place, colon, _ = self._spec.rpartition(":")
        return place if colon and place.lower() != "torchvision" else None

    def _watched(self) -> contextlib.AbstractContextManager[None]:
        return watched(self._place) if self._place is not None else contextlib.nullcontext()

    def _answer(self, make: Callable[[Network], Trace | None], options: dict[str, Any], *how: Any) -> Trace | None:
        """What `make` gives or raises, from the cache if it is there."""
        if not self._kept or options.get("run"):
            return make(self.network)
        shapes = [shape if isinstance(shape, str) else repr(shape) for shape in self._shapes or ()]
        asked = question(self._place, "trace", self._spec, self._classes, self._real, shapes, options, how)
        answer = recall(asked, _Answer) if asked else None
        if answer is not None:
            return self._repeated(answer)
        network, trace, error = self.network, None, None
        with self._watched(), _overheard() as heard:
            try:
                trace = make(network)
            except CostModelError as raised:
                error = raised
        if asked and not isinstance(error and error.__cause__, (OSError, MemoryError)):  # which may be gone next time
            text = None if trace is None else trace.to_json()
            failure = None if error is None else (type(error).__name__, str(error))
            keep(asked, _Answer(network.name, network.title, self._printed or "", heard.getvalue(), text, failure))
        if error is not None:
            raise error
        return trace

    def _repeated(self, answer: _Answer) -> Trace | None:
        """What was found out in an earlier process, with what was printed then."""
        self._names = answer.name, answer.title
        if self._printed is None:
            self._printed = answer.building
            sys.stderr.write(answer.building)
        sys.stderr.write(answer.tracing)
        if answer.error is not None:
            kind, message = answer.error
            raise getattr(errors, kind)(message)
        return None if answer.trace is None else Trace.from_json(answer.trace)


class _Answer(NamedTuple):
    """What is kept of a trace."""

    name: str
    title: str
    building: str
    """What was printed while the network was built."""

    tracing: str
    """What was printed while it was traced."""

    trace: str | None
    error: tuple[str, str] | None
    """The class and the message of what was raised."""


class _Overheard(io.StringIO):
    """Writes on to standard error, and keeps what was written."""

    def __init__(self, quiet: bool) -> None:
        super().__init__()
        self._onward = None if quiet else sys.stderr

    def write(self, text: str) -> int:
        if self._onward is not None:
            self._onward.write(text)
        return super().write(text)

    def fileno(self) -> int:
        return sys.__stderr__.fileno() if sys.__stderr__ is not None else super().fileno()


@contextmanager
def _overheard(quiet: bool = False) -> Iterator[io.StringIO]:
    """Standard output and error, which go to standard error, or nowhere if `quiet`."""
    heard = _Overheard(quiet)
    with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
        yield heard
