"""What PyTorch does on CUDA and would not do on meta tensors: the operators that it fuses there.

Composite operators look at the device of their input before they choose how to run, and on meta tensors they choose
the way of the CPU. For a trace of the CUDA target two functions of `torch.nn.functional` are therefore replaced
while the trace runs, for meta tensors only (who imported them by name keeps the CPU's way, with the same MACs):
- attention is one operator: flash for 16-bit types, memory-efficient for float32 and wherever a mask is given, as in
  aten/src/ATen/native/transformers/cuda/sdp_utils.cpp (what neither takes runs the plain mathematics there as well);
- dropout is one operator that keeps a bool mask (aten/src/ATen/native/Dropout.cpp, is_fused_kernel_acceptable).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional


@contextmanager
def cuda_operators() -> Iterator[None]:
    """While this lasts, `torch.nn.functional`'s attention and dropout take CUDA's way for meta tensors."""
    attention, dropout = functional.scaled_dot_product_attention, functional.dropout
    functional.scaled_dot_product_attention = _fused_attention(attention)
    functional.dropout = _fused_dropout(dropout)
    try:
        yield
    finally:
        functional.scaled_dot_product_attention, functional.dropout = attention, dropout


def _fused_attention(plain: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def scaled_dot_product_attention(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        """softmax(query @ key.T * scale + mask) @ value, the tensors of shape (batch, heads, tokens, head size)."""
        fits = query.dim() == key.dim() == value.dim() == 4 and query.dtype == key.dtype == value.dtype
        known = query.dtype in (torch.float32, torch.float16, torch.bfloat16) and query.is_meta
        if not (fits and known) or enable_gqa:
            grouped = {"enable_gqa": True} if enable_gqa else {}
            return plain(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, **grouped)
        head = query.shape[-1]
        if query.dtype != torch.float32 and attn_mask is None and head <= 256 and head == value.shape[-1]:
            return _flash(query, key, value, dropout_p, is_causal, scale)
        return _efficient(query, key, value, attn_mask, dropout_p, is_causal, scale)

    return scaled_dot_product_attention


def _flash(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, dropout_p: float, is_causal: bool, scale: float | None
) -> torch.Tensor:
    head = query.shape[-1]
    scale = 1 / math.sqrt(head) if scale is None else scale
    flash = torch.ops.aten._scaled_dot_product_flash_attention
    if head % 8 == 0:
        return flash(query, key, value, dropout_p, is_causal, scale=scale)[0]
    # The kernel takes heads in multiples of 8: PyTorch pads them and cuts the result.
    padded = (functional.pad(tensor, (0, 8 - head % 8)) for tensor in (query, key, value))
    return flash(*padded, dropout_p, is_causal, scale=scale)[0][..., :head]


def _efficient(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
) -> torch.Tensor:
    if mask is not None:
        if mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(mask.logical_not(), -math.inf)
        mask = mask.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])
    keeps_logsumexp = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (query, key, value))
    return torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, mask, keeps_logsumexp, dropout_p, is_causal, scale=scale
    )[0]


def _fused_dropout(plain: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
        """Zero each element with probability `p`."""
        if training and not inplace and 0 < p < 1 and input.is_meta and input.numel():
            return torch.ops.aten.native_dropout(input, p, True)[0]
        return plain(input, p, training, inplace)

    return dropout
