"""The trace of what a run measured: its network, with the run's inputs, type and settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costmodel.hardware.record import Run

if TYPE_CHECKING:
    from costmodel.graph import Trace
    from costmodel.networks import Network

_WAYS = ("autocast", "channels_last", "accumulate", "checkpoint", "first_step", "set_to_none")
"""Settings of a run that are no options of its optimizer."""


def traced(run: Run, network: Network, target: str = "cuda") -> Trace:
    """The trace of what a run measured."""
    from costmodel.tracer import trace

    settings = dict(run.settings)
    ways: dict[str, Any] = {name: settings.pop(name) for name in _WAYS if name in settings}
    if run.train:
        ways |= {name: settings.pop(name) for name in ("loss", "optimizer") if name in settings}
        ways |= {"train": True, "optimizer_options": settings}
    return trace(network.module, network.inputs(run.batch), dtype=run.dtype, target=target, name=run.model, **ways)
