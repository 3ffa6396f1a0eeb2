"""Other programs that count, behind one small protocol: a module and its inputs in, a `PeerAnswer` out.

A peer gets a copy of the module, so it may hook, trace and run what it likes: the user's module is not touched.
The copy lives on the meta device where the peer survives that; otherwise on the CPU, with stand-in weights that occupy
no memory. A peer that is not installed or raises has answered too: its `problem` says why.

    answer = ask("fvcore", network, (1, 3, 224, 224))
    answer.total("forward"), answer.convention, answer.problem
"""

from __future__ import annotations

import importlib
import importlib.metadata
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import nn

from costmodel.errors import InputError, missing_extra, nearest
from costmodel.graph import FORWARD
from costmodel.peers.subject import Subject, gradients_enabled, prepare

__all__ = ["PEERS", "Findings", "Peer", "PeerAnswer", "Reading", "ask"]


class Reading(NamedTuple):
    """What a peer counted for one operator in one layer, in the peer's own unit."""

    layer: str
    """Dotted path of the innermost module, as in our own layers."""

    phase: str
    operator: str
    """By the name that the peer gives it."""

    amount: int


@dataclass(frozen=True)
class Findings:
    """A peer's counts for one subject."""

    readings: tuple[Reading, ...]
    parameters: Mapping[str, int] | None = None
    """Parameters by the layer that holds them (those that hold some), if the peer counts them."""

    formulas: frozenset[str] | None = None
    """The operators for which the peer has a formula, if known."""

    unsupported: Mapping[str, Mapping[str, int]] | None = None
    """Operators that it met and did not count: by layer, how often each."""

    uncalled: frozenset[str] = frozenset()
    """Layers that it did not see called (their `forward` was called directly): it gives them to the module above."""


@dataclass(frozen=True)
class Peer:
    """A program that counts, and its convention."""

    name: str
    package: str
    """The distribution that it comes in, whose version is stated."""

    flops_per_mac: int
    """Its count of one multiply-accumulate: 1 or 2."""

    convention: str
    """What it counts, in a sentence."""

    backward: bool
    """Whether it counts a backward pass too."""

    home: str
    """Our module that calls it: its `count` takes a `Subject` and returns `Findings`."""

    extra: str = ""
    """The extra of costmodel that brings it; "" where costmodel needs its package anyway."""

    def count(self, subject: Subject) -> Findings:
        """Call it. Raises whatever the peer raises."""
        return importlib.import_module(self.home).count(subject)


PEERS: Mapping[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer(
            "torch flop counter",
            "torch",
            2,
            "2 FLOPs a multiply-accumulate of convolutions, matrix products and fused attention; nothing else",
            True,
            "costmodel.peers.flop_counter",
        ),
        Peer(
            "fvcore",
            "fvcore",
            1,
            "1 'flop' a multiply-accumulate, and elements of norms, adaptive pools and upsampling; forward only",
            False,
            "costmodel.peers.fvcore",
            "validate",
        ),
        Peer(
            "torch profiler",
            "torch",
            2,
            "2 FLOPs a multiply-accumulate of conv2d and matrix products, 1 an element of add and mul",
            True,
            "costmodel.peers.profiler",
        ),
    )
}
"""The peers by name."""


@dataclass(frozen=True)
class PeerAnswer:
    """A peer's findings, the device they were made on, and its warnings."""

    peer: Peer
    version: str
    device: str = ""
    """Where the copy lived: "meta" or "cpu"; empty if it did not run."""

    findings: Findings = Findings(())
    warnings: tuple[str, ...] = ()
    """What it logged or warned of, each once."""

    problem: str | None = None
    """Why there are no findings."""

    def amounts(self, phase: str) -> dict[str, dict[str, int]]:
        """What it counted in a phase, by layer and operator."""
        layers: dict[str, dict[str, int]] = {}
        for reading in self.findings.readings:
            if reading.phase == phase:
                operators = layers.setdefault(reading.layer, {})
                operators[reading.operator] = operators.get(reading.operator, 0) + reading.amount
        return layers

    def total(self, phase: str = FORWARD) -> int:
        """All that it counted in a phase, in its own unit."""
        return sum(reading.amount for reading in self.findings.readings if reading.phase == phase)


def ask(name: str, module: nn.Module, inputs: Any, *, train: bool = False, run: bool = False) -> PeerAnswer:
    """What a peer counts for `module` on `inputs` (as `trace` takes them).

    With `train` it is in training mode, and a backward pass follows. `run` is for networks whose control flow depends
    on values: they are copied and really run on the CPU. Raises InputError for an unknown peer, or for inputs that
    cannot be used; never what the peer itself raises.
    """
    if name not in PEERS:
        raise InputError(f"unknown peer {name!r}: use {', '.join(PEERS)}.{nearest(name, PEERS)}")
    peer = PEERS[name]
    try:
        answer = PeerAnswer(peer, importlib.metadata.version(peer.package))
    except importlib.metadata.PackageNotFoundError:
        return _missing(peer)
    reasons = []
    for device in ("cpu",) if run else ("meta", "cpu"):
        with _quiet() as messages, gradients_enabled():
            try:
                findings = peer.count(prepare(module, inputs, device=device, train=train, run=run))
            except InputError:
                raise
            except Exception as error:
                if isinstance(error, ImportError) and (error.name or "").partition(".")[0] == peer.package:
                    return _missing(peer)
                text = str(error).strip().partition("\n")[0]
                reasons.append(f"on {device}: {type(error).__name__}: {text}")
                continue
        return replace(answer, device=device, findings=findings, warnings=tuple(dict.fromkeys(messages)))
    return replace(answer, problem=f"could not run: {'; '.join(reasons)}")


def _missing(peer: Peer) -> PeerAnswer:
    return PeerAnswer(peer, "", problem=f"could not run: {missing_extra(peer.package, peer.extra)}")


@contextmanager
def _quiet() -> Iterator[Sequence[str]]:
    """Collect what is logged, warned or printed instead of showing it."""
    messages: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    root, handler = logging.getLogger(), Collect()
    others, root.handlers = root.handlers, [handler]
    output = io.StringIO()
    try:
        with warnings.catch_warnings(record=True) as caught, redirect_stdout(output), redirect_stderr(output):
            warnings.simplefilter("always")
            yield messages
    finally:
        root.handlers = others
        messages.extend(str(warning.message) for warning in caught)
        messages.extend(line for line in output.getvalue().splitlines() if line.strip())
