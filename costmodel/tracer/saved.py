"""What autograd saved in the forward for the backward: each storage, and the layers whose operations saved it.

Read off the graph between forward and backward: a node keeps what it saved in attributes "_raw_saved_...". In a block
under torch.utils.checkpoint placeholders stand there, and the block keeps its inputs instead. The node of an operation
in place on a view (CopySlices) does not show what it saved: that is what the layer made and nothing else explains.

Older versions of torch do not let one look into the graph: there hooks are told of each tensor as it is saved, which
takes longer.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks

from costmodel.tracer.recorder import Recorder

_SAVED_TENSOR = torch._C._autograd.SavedTensor
_GRAPH_SHOWS = hasattr(_SAVED_TENSOR, "unpack_hook")


class Saved:
    """What the first forward that is noted saves for its backward."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._hooked: dict[int, dict[str, None]] = {}
        self.layers: dict[int, tuple[str, ...]] = {}
        """By storage: the layers that saved it, in the order of their operations."""

    def noted(self) -> AbstractContextManager[Any]:
        """Run a forward and its loss inside this, and call `read` before the backward."""
        return nullcontext() if _GRAPH_SHOWS or self.layers else saved_tensors_hooks(self._pack, _unpack)

    def read(self, loss: torch.Tensor) -> None:
        """Note what was saved, if nothing was noted before."""
        if not self.layers:
            found = {storage: tuple(layers) for storage, layers in self._hooked.items()}
            self.layers = saved_for_backward(loss, self._recorder) if _GRAPH_SHOWS else found

    def _pack(self, tensor: torch.Tensor) -> tuple[torch.Tensor, int]:
        recorder = self._recorder
        self._hooked.setdefault(recorder.spec(tensor).storage, {})[recorder.layers[-1]] = None
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


def saved_for_backward(loss: torch.Tensor, recorder: Recorder) -> dict[int, tuple[str, ...]]:
    """By storage: the layers that saved it, in the order of their operations.

    These are the tensors that torch.autograd.graph.saved_tensors_hooks would have been handed, but for those that were
    let go again before the backward.
    """
    found: dict[int, dict[str, None]] = {}
    nodes = sorted(_nodes(loss.grad_fn), key=_number)
    for layer, tensor in _saved(nodes, recorder):
        storage = tensor.untyped_storage()
        if recorder.storages.is_known(storage):  # or it is a number that stands for a tensor
            found.setdefault(recorder.storages.index(storage), {})[layer] = None
    for layer in {recorder.layer_of_node(node): None for node in nodes if node.name().endswith("CopySlices")}:
        for storage in recorder.storages.alive_of(layer):
            found.setdefault(storage, {layer: None})
    return {storage: tuple(layers) for storage, layers in found.items()}


def _saved(nodes: Iterable[Any], recorder: Recorder) -> Iterator[tuple[str, torch.Tensor]]:
    """What was saved with its layer, in the order of the autograd nodes."""
    saved: list[tuple[int, str, Any]] = []
    blocks: dict[Any, list[tuple[int, str]]] = {}
    for node in nodes:
        for one in _saved_by(node):
            if one.unpack_hook is None:
                saved.append((_number(node), recorder.layer_of_node(node), one))
            for block in _checkpoints(one.unpack_hook):
                blocks.setdefault(block, []).append((_number(node), recorder.layer_of_node(node)))
    for block, places in blocks.items():
        first, around = places[0][0], _around([layer for _, layer in places])
        saved += [(first, around, one) for one in _inputs_of(block)]
    for _, layer, one in sorted(saved, key=lambda entry: entry[0]):
        if isinstance(one.data, torch.Tensor):
            yield layer, one.data


def _nodes(root: Any) -> Iterable[Any]:
    """Every node that the backward will run."""
    seen, todo = {root}, [root]
    while todo:
        for node, _ in todo.pop().next_functions:
            if node is not None and node not in seen:
                seen.add(node)
                todo.append(node)
    return seen


def _number(node: Any) -> int:
    return node._sequence_nr()


def _saved_by(node: Any) -> Iterator[Any]:
    kind: Any = type(node)
    for name in _names(kind):
        raw = getattr(node, name)
        for one in raw if isinstance(raw, (tuple, list)) else (raw,):
            if isinstance(one, _SAVED_TENSOR):
                yield one


@functools.cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(name for name in dir(kind) if name.startswith("_raw_saved"))


def _checkpoints(hook: Any) -> Iterator[Any]:
    """The checkpointed block whose placeholder this hook unpacks: torch/utils/checkpoint.py, _checkpoint_hook."""
    for cell in getattr(hook, "__closure__", None) or ():
        if hasattr(cell.cell_contents, "saved_args") or hasattr(cell.cell_contents, "input_saver"):
            yield cell.cell_contents


def _inputs_of(block: Any) -> Iterator[Any]:
    """The inputs that a checkpointed block keeps: in a list of its own, or until torch 2.11 at least in a node's."""
    if hasattr(block, "saved_args"):
        yield from (one for one in block.saved_args if isinstance(one, _SAVED_TENSOR))
    else:
        yield from _saved_by(block.input_saver.grad_fn)


def _around(layers: list[str]) -> str:
    """The innermost module around these layers."""
    common = layers[0].split(".")
    for layer in layers:
        parts = layer.split(".")
        same = [a == b for a, b in zip(common, parts, strict=False)]
        common = common[: same.index(False) if False in same else len(same)]
    return ".".join(common)
