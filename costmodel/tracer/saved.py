"""What autograd saves in the forward for the backward: each tensor, and the layer whose operation saved it.

`torch.autograd.graph.saved_tensors_hooks` hands over every tensor that an autograd node saves. Here a hook notes it and
gives it back unchanged. A block under torch.utils.checkpoint has hooks of its own and saves nothing but its inputs, in
a trace as in a real run.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks

from costmodel.tracer.recorder import Recorder


class SavedTensors:
    """Notes what is saved inside `with saved.noted():`."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._layers: dict[int, dict[str, None]] = {}

    def noted(self) -> AbstractContextManager[Any]:
        """While this lasts, what autograd saves is noted."""
        return saved_tensors_hooks(self._pack, _unpack)

    def layers(self) -> dict[int, tuple[str, ...]]:
        """By storage: the layers that saved it, in order."""
        return {storage: tuple(layers) for storage, layers in self._layers.items()}

    def _pack(self, tensor: torch.Tensor) -> tuple[torch.Tensor, int]:
        recorder = self._recorder
        storage = recorder.spec(tensor).storage
        self._layers.setdefault(storage, {})[recorder.layers[-1]] = None
        # Not the tensor itself, which may be the node's own output and would keep the node alive; and without
        # detach(), which is an operation.
        return torch.Tensor._make_subclass(torch.Tensor, tensor), tensor._version


def _unpack(packed: tuple[torch.Tensor, int]) -> torch.Tensor:
    tensor, version = packed
    if tensor._version != version:  # autograd leaves this check to the hooks
        raise RuntimeError(
            "one of the variables needed for gradient computation has been modified by an inplace operation"
        )
    return tensor
