"""Nests by their shape: what does not depend on a layer's name is computed once for all layers and designs."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from costmodel.chip.nests import Nest
from costmodel.chip.schedules import Pool
from costmodel.chip.tiling import Curve, least_traffic
from costmodel.chip.widths import Widths
from costmodel.graph import FORWARD


def shape_of(nest: Nest) -> Nest:
    """The nest without its names: nests of one shape are equal."""
    return replace(nest, layer="", operator="", kind="", phase=FORWARD)


def curve_of(nest: Nest, widths: Widths, double_buffer: bool = False, pool: Pool | None = None) -> Curve:
    """`least_traffic`, kept for the next nest of this shape."""
    return replace(_curve(shape_of(nest), widths, double_buffer, pool), nest=nest)


@lru_cache(maxsize=2048)
def _curve(shape: Nest, widths: Widths, double_buffer: bool, pool: Pool | None) -> Curve:
    return least_traffic(shape, widths, double_buffer, pool)
