"""How autograd adds up the gradients of a tensor that was used more than once.

It adds the second into the first where nobody else holds that (torch/csrc/autograd/input_buffer.cpp, accumulate), which
saves a tensor: but not while a dispatch mode is on, as one always is in a trace. Without a mode it does, so here it is
made up for.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

ADD, ADD_IN_PLACE = torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor

_HOLDERS = 4
"""Who holds a tensor that is being added to and that only autograd's buffer keeps: that buffer and the dispatcher."""

_STORAGE_HOLDERS = 2
"""Who holds its storage: the tensor, and whoever asks."""


def adds_in_place(first: torch.Tensor, second: Any) -> bool:
    """Whether autograd itself adds these two, and would add the second into the first if no mode were on.

    To be asked by a mode's `__torch_dispatch__`.
    """
    storage = first.untyped_storage()  # held, or older versions of torch would not count who asks
    return (
        sys._getframe(2).f_code.co_name == "_engine_run_backward"  # not a backward that somebody wrote
        and isinstance(second, torch.Tensor)
        and first.shape == second.shape
        and not torch.is_grad_enabled()
        and _is_dense(first)
        and first._use_count() == _HOLDERS  # type: ignore[attr-defined]
        and torch._C._storage_Use_Count(storage._cdata) == _STORAGE_HOLDERS  # type: ignore[attr-defined]
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
