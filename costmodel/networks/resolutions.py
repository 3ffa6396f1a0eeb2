"""A network on images of other sizes, beside itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from costmodel.graph import Trace
    from costmodel.networks.reference import Reference
    from costmodel.networks.resolve import Network

_RESOLUTIONS = {"images of half the resolution": 0.5, "images of twice the resolution": 2.0}
_DOES_NOTHING = "to convolutions' weights, and to FC layers behind adaptive pooling"


def other_resolutions(network: Network | Reference, batch: int = 1, **options: Any) -> list[tuple[str, Trace, str]]:
    """What `costmodel.what_ifs` takes as `extra`: images of other sizes, without those that the network does not take.

    The options are those of `costmodel.trace`.
    """
    found = ((name, network.resized(factor, batch, **options)) for name, factor in _RESOLUTIONS.items())
    return [(name, trace, _DOES_NOTHING) for name, trace in found if trace is not None]
