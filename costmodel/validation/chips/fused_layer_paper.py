"""Our pyramids against a published accelerator: VGG's first five convolutions as one.

Alwani, Chen, Ferdman and Milder, "Fused-layer CNN accelerators", MICRO 2016, abstract: "by using 362KB of on-chip
storage, our fused-layer accelerator minimizes off-chip feature map data transfer, reducing the total transfer by 95%,
from 77MB down to 3.6MB per image" (VGGNet-E, 32-bit words; http://pmilder.ece.stonybrook.edu/blog/?p=173).

What their numbers are, to the digit printed:

    77 MB    every convolution writes its outputs, and the next reads them before pooling: 77.1 MiB
    3.6 MB   the picture comes in, the fifth convolution's outputs go out: 3.64 MiB
    362 KB   two rows of each convolution's input, and two columns over the rows that a tile adds and the two above
             them, for tiles of one pixel at the tip: 361,872 bytes

Ours keeps 1.6 % more: it is the most that any tile needs, and the first row of tiles adds more rows than the others,
having nothing above it to take over.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from costmodel.chip.chains import Stage
from costmodel.chip.nests import Nest
from costmodel.chip.pyramids import levels, pyramids
from costmodel.chip.widths import Widths
from costmodel.chip.windows import Window

_WORD_BYTES = 4
_CONVOLUTIONS = ((3, 64, 224), (64, 64, 224), (64, 128, 112), (128, 128, 112), (128, 256, 56))
"""Channels in and out, and size; all windows are 3x3. Where the size changes stands a 2x2 pooling."""


class Anchor(NamedTuple):
    """A published number beside ours, in bytes."""

    quantity: str
    theirs: int
    """As printed: MB are 2^20 bytes, KB are 1000."""

    ours: int
    explanation: str


def stages() -> list[Stage]:
    """VGG's first five convolutions and two poolings, for a picture of 3 x 224 x 224."""
    found: list[Stage] = []
    for number, (of, out, size) in enumerate(_CONVOLUTIONS, start=1):
        if found and found[-1].rows.outputs != size:
            window = Window(size, 2 * size, 2, 2)
            found.append(Stage(f"pool{number - 1}", "pool", 1, of, of, window, window))
        nest = Nest(
            f"conv{number}", "aten.convolution", "conv", 1, 1, out, of, size, size, 3, 3,
            padding=((1, 1), (1, 1)), in_rows=size, in_columns=size,
        )  # fmt: skip
        found.append(Stage(nest.layer, "conv", 1, of, out, nest.rows, nest.columns, nest.weight_numel, nest, 1))
    return found


def anchors() -> tuple[Anchor, ...]:
    """The paper's three numbers and ours."""
    run = stages()
    convolutions = [stage for stage in run if stage.nest]
    inner = sum(stage.output_words for stage in convolutions[:-1])
    apart = convolutions[0].input_words + 2 * inner + convolutions[-1].output_words
    one = np.array([1])
    rows, columns = levels([stage.rows for stage in run], one), levels([stage.columns for stage in run], one)
    fused = pyramids(run, rows, columns, True, Widths.of(8 * _WORD_BYTES))
    return (
        Anchor(
            "feature maps, layer by layer", 77 * 2**20, _WORD_BYTES * apart,
            "each convolution's outputs written, and read again before they are pooled",
        ),
        Anchor(
            "feature maps, fused", round(3.6 * 2**20), _WORD_BYTES * (fused.input_words.item() + fused.output_words),
            "the picture in, the fifth convolution's outputs out",
        ),
        Anchor(
            "kept on the chip", 362_000, _WORD_BYTES * fused.kept_words.item(),
            "theirs is a tile's in the middle of the picture (361,872 bytes), ours the first row's, which adds more",
        ),
    )  # fmt: skip
