"""torchvision's models: any of them by name, at the input its weights were trained at, without its weights.

A model is built as `weights=DEFAULT` would have it (torchvision adds or drops auxiliary heads then and freezes batch
norms), so that its parameters are those that torchvision publishes; but nothing is downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import nn

from costmodel.errors import InputError
from costmodel.networks.build import build
from costmodel.networks.heads import KINDS, head_title, replace_head
from costmodel.tracer import Shape

DETECTION = "detection"
"""The purpose of models that take a list of images and whose control flow depends on values."""

_HEADED = ("alexnet", "vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn")

VARIANTS = tuple(f"{name}-{kind}" for name in ("alexnet", "vgg11", "vgg16", "vgg19") for kind in KINDS)
"""Models with the usual cheaper heads; other widths and ranks, and torchvision's other VGGs, are found as well."""

_FRAMES = 16  # what torchvision's published operation counts take for every video model (get_ops in its tests)
_FLOW_SIZE = 512  # likewise the height and width for optical flow
_DETECTION_SIZE = 800  # what most detection models scale an image's shorter side to; else the number in the name


def names() -> list[str]:
    """The names of torchvision's own models, without the quantized ones."""
    from torchvision import models

    return [
        name
        for name in models.list_models()
        if not name.startswith("quantized_") and models.get_model_builder(name).__module__.startswith("torchvision.")
    ]


def split(name: str) -> tuple[str, str]:
    """A name as torchvision's and the head that replaces its own: "vgg16-gap" is ("vgg16", "gap")."""
    base, _, kind = name.partition("-")
    return (base, kind) if kind else (name, "")


def purpose(base: str) -> str:
    """What the model is for: "classification", "segmentation", "detection", "video" or "optical flow"."""
    from torchvision import models

    parts = models.get_model_builder(base).__module__.split(".")
    return parts[2].replace("_", " ") if len(parts) > 3 else "classification"


def title(base: str, kind: str = "") -> str:
    """The model's name for people: "VGG-16 (torchvision), global average pooling"."""
    pretty = re.sub(r"^vgg(\d+)", r"VGG-\1", base).replace("alexnet", "AlexNet")
    return f"{pretty} (torchvision)" + (f", {head_title(kind)}" if kind else "")


def input_shapes(base: str) -> tuple[Shape, ...]:
    """What the model takes, without the batch: the size that its default weights were trained at.

    Where weights of one model differ in size, the default ones count: 224 for ViT-B/16, 518 for ViT-H/14. A video is
    channels x frames x height x width; optical flow takes two images.
    """
    match purpose(base):
        case "detection":
            named = re.search(r"(?:ssd|ssdlite|_)(300|320)_", base)
            size = int(named[1]) if named else _DETECTION_SIZE
            return (Shape((3, size, size)),)
        case "optical flow":
            return (Shape((3, _FLOW_SIZE, _FLOW_SIZE)),) * 2
        case "segmentation":
            size = _weights(base).transforms().resize_size
            return (Shape((3, size[0], size[-1])),)
        case "video":
            size = _weights(base).transforms().crop_size
            return (Shape((3, _FRAMES, size[0], size[-1])),)
        case _:
            size = _weights(base).transforms().crop_size
            return (Shape((3, size[0], size[-1])),)


def class_count(base: str) -> int | None:
    """How many classes its default weights tell apart; None for optical flow."""
    return len(_weights(base).meta.get("categories", ())) or None


def make(base: str, kind: str, classes: int | None, real: bool, inputs: Sequence[Shape]) -> nn.Module:
    """Build a model, with another head if one is named; real weights are those for `inputs`.

    Raises InputError for a head that is unknown or does not fit, and for classes where there are none.
    """
    from torchvision import models

    if kind and base not in _HEADED:
        raise InputError(f"only AlexNet and VGG can have another head, not torchvision:{base}: leave out '-{kind}'.")
    count = class_count(base)
    if classes is not None and count is None:
        raise InputError(f"torchvision:{base} has no classes: leave --classes out.")
    options = _as_trained(base, real)
    if classes is not None:
        options["num_classes"] = classes

    def construct() -> nn.Module:
        model = models.get_model(base, weights=None, **options)
        if _is_frozen(base):
            _freeze_norms(model.backbone)
        return replace_head(model, kind, classes or count or 0) if kind else model

    return build(construct, real, inputs)


def _as_trained(base: str, real: bool) -> dict[str, Any]:
    """The options that a builder sets itself where it is given weights (its calls of `_ovewrite_named_param`)."""
    match purpose(base):
        case "detection":
            return {"weights_backbone": None}
        case "segmentation":
            return {"weights_backbone": None} | ({} if base.startswith("lraspp") else {"aux_loss": True})
    if base in ("googlenet", "inception_v3"):
        return {"aux_logits": base == "inception_v3", "transform_input": True, "init_weights": real}
    if base.startswith("vit_"):
        return {"image_size": input_shapes(base)[0].sizes[-1]}
    return {}


def _is_frozen(base: str) -> bool:
    """Whether the batch norms of the model's backbone have no parameters once it has its weights."""
    return purpose(base) == DETECTION and not base.endswith("_v2") and not base.startswith("ssd")


def _freeze_norms(backbone: nn.Module) -> None:
    from torchvision.ops import FrozenBatchNorm2d

    for parent in list(backbone.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, FrozenBatchNorm2d(child.num_features))


def _weights(base: str) -> Any:
    from torchvision import models

    return models.get_model_weights(base).DEFAULT
