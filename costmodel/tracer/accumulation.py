"""How autograd adds up the gradients of a tensor that was used more than once.

It adds the second into the first where nobody else holds that (torch/csrc/autograd/input_buffer.cpp, accumulate), which
saves a tensor: but not while a dispatch mode is on, as one always is in a trace. Without a mode it does, so here it is
made up for.
"""

from __future__ import annotations

from typing import Any

import torch

from costmodel.tracer.torch_private import counts_in_buffer, is_called_by_engine, use_counts

ADD, ADD_IN_PLACE = torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor


def adds_in_place(first: torch.Tensor, second: Any) -> bool:
    """Whether autograd itself adds these two, and would add the second into the first if no mode were on.

    To be called by a mode's `__torch_dispatch__`.
    """
    return (
        is_called_by_engine(depth=2)  # and not by a backward that somebody wrote
        and isinstance(second, torch.Tensor)
        and first.shape == second.shape
        and not torch.is_grad_enabled()
        and _is_dense(first)
        and use_counts(first) == counts_in_buffer()  # nobody else holds it
    )


def _is_dense(tensor: torch.Tensor) -> bool:
    """Whether its elements lie side by side in some order, each once."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True
