"""A 3x3 convolution of stride 1 by Winograd's F(m x m, 3 x 3), whose tiles of m x m outputs share multiplications.

    Y = A' [ sum over c of (G w G') (B' d B) ] A      d a tile of (m + 2)² inputs, w a filter; products point by point

takes (m + 2)² multiplications for each tile, input and output channel in place of 9 m², so (m + 2)² matrix products of
tiles by channels; and transforms of 32 additions for each input tile and 24 for each output tile (m = 2), or 144 and
100 (m = 4). Source: Lavin and Gray, Fast algorithms for convolutional neural networks, CVPR 2016, section 4.

Behind a buffer it is a convolution of its own: an output "pixel" is a tile, its window (m + 2) x (m + 2) with stride m.
That window touches the inputs that the tile touches, overlaps of 2 again; its filters are the transformed ones, as they
lie in memory; a partial sum, which stays transformed until it is complete, is (m + 2)² words. The traffic is the least
of that nest with words of those widths. Tiles that hang over the border are whole on the chip, but only the outputs
inside it go to DRAM: their traffic is added here, so their width does not matter in the nest.

Transforms take energy and no time: an array as wide as a tile makes them beside the products.
"""

from __future__ import annotations

from dataclasses import replace

from costmodel.chip.accelerator import Accelerator
from costmodel.chip.layer_demand import LayerDemand, mapped_layer_demand
from costmodel.chip.nests import Nest
from costmodel.chip.shapes import curve_of
from costmodel.chip.tiling import Curve
from costmodel.chip.widths import Widths

TRANSFORM_ADDITIONS = {2: (32, 24), 4: (144, 100)}
"""Of an input tile and of an output tile, by m."""


def has_winograd(nest: Nest, chip: Accelerator, m: int) -> bool:
    """Whether a nest is such a convolution, and the buffer holds a tile of it."""
    window = (nest.filter_rows, nest.filter_columns) == (3, 3) and nest.stride == nest.dilation == (1, 1)
    if nest.kind != "conv" or not window or nest.transposed or nest.depthwise:
        return False
    return _curve(nest, chip, m).smallest_buffer_bytes <= chip.buffer_bytes


def winograd(nest: Nest, chip: Accelerator, m: int) -> LayerDemand:
    """What a convolution asks of a chip by F(m x m, 3 x 3). Raises InputError if the buffer holds no tile of it."""
    rows, columns = _tiles(nest, m)
    tiles, points = nest.batch * rows * columns, (m + 2) ** 2
    product = Nest(
        nest.layer, nest.operator, "linear", batch=tiles, groups=nest.groups * points,
        out_channels=nest.out_channels, in_channels=nest.in_channels,
    )  # fmt: skip
    tiling = _curve(nest, chip, m).at(chip.buffer_bytes)
    written = -(-nest.output_numel * chip.widths.output_bits // 8)
    on_input, on_output = TRANSFORM_ADDITIONS[m]
    channels = nest.groups * (nest.in_channels * on_input + nest.out_channels * on_output)
    return mapped_layer_demand(product, chip, tiling.dram_bytes - tiling.output_bytes + written, tiles * channels)


def _curve(nest: Nest, chip: Accelerator, m: int) -> Curve:
    """The least traffic of the nest whose pixels are tiles."""
    widths, side = chip.widths, m + 2
    rows, columns = _tiles(nest, m)
    tiled = replace(nest, out_rows=rows, out_columns=columns, filter_rows=side, filter_columns=side, stride=(m, m))
    words = Widths(widths.input_bits, widths.weight_bits, widths.output_bits, side**2 * widths.partial_bits)
    return curve_of(tiled, words)


def _tiles(nest: Nest, m: int) -> tuple[int, int]:
    return -(-nest.out_rows // m), -(-nest.out_columns // m)
