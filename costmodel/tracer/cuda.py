"""What PyTorch does on CUDA and would not do on meta tensors: the operators that it fuses there.

Composite operators look at the device of their input before they choose how to run. On meta tensors they choose the way
of the CPU, so for a trace of the CUDA target these two are sent the way that CUDA goes:
- attention is one operator: flash for 16-bit types, memory-efficient for float32 (and where a mask is given), as chosen in
  aten/src/ATen/native/transformers/cuda/sdp_utils.cpp; float64 runs the plain mathematics there as well;
- dropout is one operator that keeps a bool mask (aten/src/ATen/native/Dropout.cpp, is_fused_kernel_acceptable).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_DROPOUTS = (torch.dropout, functional.dropout)


class CudaOperators(TorchFunctionMode):
    """Inside `with CudaOperators():` attention and dropout take CUDA's way."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`, or what CUDA would run in its place."""
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            return _attention(*args, **kwargs)
        if func in _DROPOUTS:
            return _dropout(*args, **kwargs)
        return func(*args, **kwargs)


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    plain = functional.scaled_dot_product_attention
    fits = query.dim() == key.dim() == value.dim() == 4 and query.is_meta
    if not fits or enable_gqa or query.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        with torch._C.DisableTorchFunctionSubclass():
            return plain(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    same_heads = query.shape[-1] == value.shape[-1]
    if query.dtype != torch.float32 and attn_mask is None and query.shape[-1] <= 256 and same_heads:
        return _flash(query, key, value, dropout_p, is_causal, scale)
    needs_grad = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (query, key, value))
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(attn_mask.logical_not(), -math.inf)
    if attn_mask is not None:
        attn_mask = attn_mask.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])
    return torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, attn_mask, needs_grad, dropout_p, is_causal, scale=scale
    )[0]


def _flash(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, dropout_p: float, is_causal: bool, scale: float | None
) -> torch.Tensor:
    head = query.shape[-1]
    scale = 1 / math.sqrt(head) if scale is None else scale
    if head % 8:  # the kernel takes heads in multiples of 8: PyTorch pads them
        query, key, value = (functional.pad(tensor, (0, 8 - head % 8)) for tensor in (query, key, value))
    out = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, scale=scale)[0]
    return out[..., :head]


def _dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, **_: Any) -> torch.Tensor:
    training = _.get("train", training)
    if training and not inplace and 0 < p < 1 and input.is_meta and input.numel():
        return torch.ops.aten.native_dropout(input, p, True)[0]
    with torch._C.DisableTorchFunctionSubclass():
        return functional.dropout(input, p, training, inplace)
