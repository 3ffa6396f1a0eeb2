"""What torchvision publishes with its weights: parameters, and multiply-accumulates in billions with three decimals.

They are in the metadata of each weights entry as `num_params` and `_ops` (torchvision writes "GFLOPS" there and counts
one for a multiply-accumulate). Nothing is downloaded. What the models were fed is not in the metadata: it is what the
entry's transforms make of an image, 16 frames of them for video and 512 x 512 for optical flow, as torchvision's own
check of these numbers has it (test/common_extended_utils.py, get_ops).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_FRAMES, _FLOW_SIZE = 16, 512


@dataclass(frozen=True)
class Published:
    """The numbers of one weights entry."""

    source: str
    """"torchvision VGG16_Weights.IMAGENET1K_V1"."""

    parameters: int
    gigamacs: float
    """Multiply-accumulates of one forward in billions, rounded to three decimals."""

    sizes: tuple[tuple[int, ...], ...] | None
    """The inputs that they hold for, without the batch; None where that is not known (detection)."""

    classes: int | None
    """How many classes the weights tell apart, if they do."""


def published(name: str) -> tuple[Published, ...]:
    """What is published for a model of torchvision's, one entry for each of its weights; empty for other names."""
    from torchvision import models

    if name not in models.list_models():
        return ()
    return tuple(
        Published(
            f"torchvision {weights}",
            weights.meta["num_params"],
            weights.meta["_ops"],
            _sizes(weights.transforms()),
            len(weights.meta.get("categories") or ()) or None,
        )
        for weights in models.get_model_weights(name)
    )


def _sizes(transforms: Any) -> tuple[tuple[int, ...], ...] | None:
    match type(transforms).__name__:
        case "ImageClassification":
            return ((3, *_square(transforms.crop_size)),)
        case "VideoClassification":
            return ((3, _FRAMES, *_square(transforms.crop_size)),)
        case "SemanticSegmentation":
            return ((3, *_square(transforms.resize_size)),)
        case "OpticalFlow":
            return ((3, _FLOW_SIZE, _FLOW_SIZE),) * 2
        case _:
            return None


def _square(size: list[int]) -> tuple[int, int]:
    """Height and width from a list of one or two sizes."""
    return size[0], size[-1]
