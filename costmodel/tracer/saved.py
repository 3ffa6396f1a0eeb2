"""What autograd saved in the forward for the backward: each storage, and the layers whose operations saved it.

Read off the graph between forward and backward: a node shows what it saved. In a block under torch.utils.checkpoint it
saved placeholders, and the block keeps its inputs instead. The node of an operation in place on a view (CopySlices)
does not show what it saved: that is what the layer made and nothing else explains.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from costmodel.tracer.recorder import Recorder
from costmodel.tracer.torch_private import checkpointed_blocks, node_number, saved_by, saved_by_block


def saved_for_backward(loss: torch.Tensor, recorder: Recorder) -> dict[int, tuple[str, ...]]:
    """By storage: the layers that saved it, in the order of their operations.

    These are the tensors that torch.autograd.graph.saved_tensors_hooks would have been handed, but for those that were
    let go again before the backward.
    """
    found: dict[int, dict[str, None]] = {}
    nodes = sorted(_nodes(loss.grad_fn), key=node_number)
    for layer, tensor in _saved(nodes, recorder):
        storage = tensor.untyped_storage()
        if recorder.storages.is_known(storage):  # or it is a number that stands for a tensor
            found.setdefault(recorder.storages.index(storage), {})[layer] = None
    for layer in {recorder.layer_of_node(node): None for node in nodes if node.name().endswith("CopySlices")}:
        for index in recorder.storages.alive_of(layer):
            found.setdefault(index, {layer: None})
    return {index: tuple(layers) for index, layers in found.items()}


def _saved(nodes: Iterable[Any], recorder: Recorder) -> Iterator[tuple[str, torch.Tensor]]:
    """What was saved with its layer, in the order of the autograd nodes."""
    saved: list[tuple[int, str, Any]] = []
    blocks: dict[Any, list[tuple[int, str]]] = {}
    for node in nodes:
        for one in saved_by(node):
            if one.unpack_hook is None:
                saved.append((node_number(node), recorder.layer_of_node(node), one))
            for block in checkpointed_blocks(one.unpack_hook):
                blocks.setdefault(block, []).append((node_number(node), recorder.layer_of_node(node)))
    for block, places in blocks.items():
        first, around = places[0][0], _around([layer for _, layer in places])
        saved += [(first, around, one) for one in saved_by_block(block)]
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


def _around(layers: list[str]) -> str:
    """The innermost module around these layers."""
    common = layers[0].split(".")
    for layer in layers:
        parts = layer.split(".")
        same = [a == b for a, b in zip(common, parts, strict=False)]
        common = common[: same.index(False) if False in same else len(same)]
    return ".".join(common)
