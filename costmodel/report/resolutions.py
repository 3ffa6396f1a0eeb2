"""A network beside itself on images of other sizes: what-ifs that take the network, not its trace alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from costmodel.graph import Trace
    from costmodel.networks import Network

_FACTORS = {"images of half the resolution": 0.5, "images of twice the resolution": 2.0}
_WHY = "to convolutions' weights, and to FC layers behind adaptive pooling"


def other_resolutions(network: Network, batch: int = 1, **options: Any) -> list[tuple[str, Trace, str]]:
    """What `what_ifs` takes as `extra`, without the sizes that the network does not take.

    The options are those of `costmodel.trace`.
    """
    from costmodel.networks.variants import resized

    found = ((name, resized(network, factor, batch, **options)) for name, factor in _FACTORS.items())
    return [(name, trace, _WHY) for name, trace in found if trace is not None]
