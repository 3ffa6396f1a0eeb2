"""What PyTorch does on the target's device and would not do on meta tensors: the operators that it fuses there.

cuda    attention is one operator: flash for 16-bit types, memory-efficient for float32 and wherever a mask is
        given, as in aten/src/ATen/native/transformers/cuda/sdp_utils.cpp (what neither takes runs the plain
        mathematics there as well);
        dropout is one operator that keeps a bool mask (aten/src/ATen/native/Dropout.cpp, is_fused_kernel_acceptable);
        batch norm is cuDNN's (aten/src/ATen/native/Normalization.cpp, _select_batch_norm_backend);
        a recurrent layer is one operator (see `recurrent_cuda`)
cpu     attention is one operator without dropout
        (aten/src/ATen/native/transformers/sdp_utils_cpp.cpp, use_flash_attention_cpp);
        recurrent layers are oneDNN's, or multiply all steps' inputs at once (see `recurrent_cpu`)
meta    nothing is fused
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn import functional

from costmodel.tracer.dispatch_override import DispatchOverride, Original, Override
from costmodel.tracer.recurrent_cpu import overrides_on_cpu
from costmodel.tracer.recurrent_cuda import overrides_on_cuda
from costmodel.tracer.torch_private import fused_attention, no_modes

TARGETS = ("cuda", "cpu", "meta")

_FUSED = DispatchOverride("ipu")


def operators_of(target: str) -> AbstractContextManager[None]:
    """While this lasts, meta tensors run composite operators as the target does."""
    overrides = _OVERRIDES[target]
    return _FUSED(overrides) if overrides else nullcontext()


def _dropout_on_cuda(original: Original, input: torch.Tensor, p: float, train: bool) -> torch.Tensor:
    """Zero each element with probability `p`."""
    if train and 0 < p < 1 and input.is_meta and input.numel():
        return torch.ops.aten.native_dropout(input, p, True)[0]
    return original(input, p, train)


def _batch_norm_on_cuda(
    original: Original,
    input: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> torch.Tensor:
    """Normalise each channel of a batch of shape (batch, channels, ...)."""
    dtype, rank = input.dtype, input.dim()
    on_cudnn = (
        cudnn_enabled
        and rank > 2
        and weight is not None
        and bias is not None
        and ((running_mean is None) == (running_var is None))
        and (training or running_mean is not None)
        and dtype in _CUDNN_NORMALISES
        and weight.dtype == _CUDNN_NORMALISES[dtype]
        and input.is_meta
        and 0 < len(input) <= (880_801 if training else 65_535)
        and input.numel()
    )
    if not on_cudnn:
        return original(input, weight, bias, running_mean, running_var, training, momentum, eps, cudnn_enabled)
    if not input.is_contiguous():
        layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(rank)
        as_it_is = layout is not None and input.is_contiguous(memory_format=layout)
        input = input if as_it_is else input.contiguous()
    return torch.ops.aten.cudnn_batch_norm(input, weight, bias, running_mean, running_var, training, momentum, eps)[0]


_CUDNN_NORMALISES = {torch.float32: torch.float32, torch.float64: torch.float64, torch.float16: torch.float32}
"""The types of an input that cuDNN normalises, with the type of the weight that it takes beside each."""


def _attention_on_cuda(
    original: Original,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """softmax(query @ key.T * scale + mask) @ value, the tensors of shape (batch, heads, tokens, head size)."""
    fits = query.dim() == key.dim() == value.dim() == 4 and query.dtype == key.dtype == value.dtype
    known = query.dtype in (torch.float32, torch.float16, torch.bfloat16) and query.is_meta
    if not (fits and known) or enable_gqa:
        return original(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    head = query.shape[-1]
    if query.dtype != torch.float32 and attn_mask is None and head <= 256 and head == value.shape[-1]:
        return _flash(query, key, value, dropout_p, is_causal, scale)
    return _efficient(query, key, value, attn_mask, dropout_p, is_causal, scale)


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
        mask = _aligned(_added(mask, query.dtype).expand(*query.shape[:3], key.shape[2]))
    keeps_logsumexp = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (query, key, value))
    return torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, mask, keeps_logsumexp, dropout_p, is_causal, scale=scale
    )[0]


def _aligned(mask: torch.Tensor) -> torch.Tensor:
    """The kernel takes rows of a mask in sixteens: PyTorch pads and cuts them (attention.cpp, preprocess_mask)."""
    keys = mask.shape[-1]
    if keys % 16:
        return functional.pad(mask, (0, 16 - keys % 16))[..., :keys]
    return mask.contiguous() if any(stride % 16 for stride in mask.stride()[:3]) else mask


def _attention_on_cpu(
    original: Original,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """The same; three dimensions are a batch of one, where this torch sees it so."""
    alone = query.dim() == key.dim() == value.dim() == 3 and _three_dimensions_are_fused()
    tensors = (query.unsqueeze(0), key.unsqueeze(0), value.unsqueeze(0)) if alone else (query, key, value)
    mask = attn_mask
    while alone and mask is not None and mask.dim() < 4:
        mask = mask.unsqueeze(0)
    if not (query.is_meta and is_fused_on_cpu(*tensors, mask, dropout_p, enable_gqa)):
        return original(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    if mask is not None:
        mask = _added(mask, query.dtype)
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    result = fused(*tensors, 0.0, is_causal, attn_mask=mask, scale=scale)[0]
    return result.squeeze(0) if alone else result


@functools.cache
def _three_dimensions_are_fused() -> bool:
    """Whether this torch makes a batch of one of attention without one: 2.14 does, 2.11 does not."""
    with no_modes(), _FUSED.lifted():
        alone = torch.empty(1, 1, 8)
        return bool(fused_attention(alone, alone, alone))


def _added(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What is added to the scores for a mask: attention.cpp, convert_boolean_attn_mask."""
    if mask.dtype != torch.bool:
        return mask
    nothing, shut = (torch.scalar_tensor(number, dtype=dtype, device=mask.device) for number in (0.0, -math.inf))
    return torch.where(mask, nothing, shut)


def is_fused_on_cpu(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    enable_gqa: bool = False,
) -> bool:
    """Whether a CPU runs this attention as one operator. (torch's own function for this looks at the device.)"""
    tensors = (query, key, value)
    if dropout_p or any(tensor.dim() != 4 for tensor in tensors):
        return False
    (batch, heads, length, size), (_, key_heads, keys, _) = query.shape, key.shape
    divisible = key_heads == value.shape[1] and key_heads and heads % key_heads == 0
    fits = mask is None or (
        not mask.requires_grad
        and mask.dim() in (2, 4)
        and all(given in (1, wanted) for given, wanted in zip(reversed(mask.shape), (keys, length, heads, batch)))  # noqa: B905
    )
    return bool(
        fits
        and torch.backends.cuda.flash_sdp_enabled()
        and query.dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16)
        and all(t.dtype == query.dtype and t.shape[0] == batch and t.shape[-1] == size for t in tensors)
        and all(t.shape[2] and t.stride(-1) == 1 for t in tensors)
        and (divisible if enable_gqa else key_heads == value.shape[1] == heads)
    )


_OVERRIDES: Mapping[str, Mapping[str, Override]] = {
    "cuda": {
        "scaled_dot_product_attention": _attention_on_cuda,
        "dropout": _dropout_on_cuda,
        "batch_norm": _batch_norm_on_cuda,
        **overrides_on_cuda(),
    },
    "cpu": {"scaled_dot_product_attention": _attention_on_cpu, **overrides_on_cpu()},
    "meta": {},
}
