"""Operations between contractions, whose tensors pass through DRAM unless they are fused.

Bias, batch normalization, activation and dropout of a contraction's outputs, element by element, are applied as the
outputs leave the array, on every accelerator described here. What comes after something else, or needs more
than one element (an addition of two tensors, pooling, softmax), reads its tensors and writes them again, unless the
chip fuses it with the contraction before it.
"""

from __future__ import annotations

from costmodel.cost import Costs
from costmodel.graph import FORWARD, TensorSpec

_ON_THE_WAY = ("activation", "dropout")


def unfused_numel(costs: Costs) -> int:
    """Elements moved by a forward's operations that are neither contractions nor elementwise behind one.

    A tensor's elements count once for each operation that reads or writes them; parameters, which are small there, and
    integer tensors (a pooling's indices) do not.
    """
    parameters = {parameter.tensor.storage for parameter in costs.trace.parameters}
    leaving: set[int] = set()  # storages that hold outputs on their way
    numel = 0
    for entry in costs.operations:
        operation = entry.operation
        if operation.phase != FORWARD:
            break
        first = next(iter(operation.inputs.values()), None)
        outputs = [tensor for tensor in operation.outputs if _is_data(tensor)]
        storages = {tensor.storage for tensor in outputs}
        elementwise = entry.kind in _ON_THE_WAY or "batch_norm" in operation.operator
        if entry.cost.macs:
            leaving |= storages
        elif operation.view:
            continue
        elif elementwise and first is not None and first.storage in leaving:
            leaving |= storages
        else:
            leaving -= storages
            read = {tensor for tensor in operation.inputs.values() if tensor.storage not in parameters}
            numel += sum(tensor.numel for tensor in read if _is_data(tensor)) if entry.cost.moved_bytes else 0
            numel += sum(tensor.numel for tensor in outputs) if entry.cost.moved_bytes else 0
    return numel


def _is_data(tensor: TensorSpec) -> bool:
    return "float" in tensor.dtype and len(tensor.shape) > 1
