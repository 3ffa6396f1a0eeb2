"""Fused attention: softmax(Q K^T * scale + mask) V as one operator, forward and backward.

Q is (batch, heads, L, E), K (batch, heads, S, E), V (batch, heads, S, Ev):

    forward   Q K^T: B H L S E MACs;  P V: B H L S Ev MACs
    backward  dV = P^T dO, dP = dO V^T, dQ = dS K, dK = dS^T Q, and Q K^T once more, which was not kept:
              three products over E and two over Ev

as torch.utils.flop_counter counts them. The softmax between them is vector work on the B H L S scores: scale, maximum,
subtraction, exponential, sum and division are 6 FLOPs each, and a mask one more. A causal mask saves no work here: the
count is that of the whole square, which is what the operator is defined on; what a kernel may skip of it is
`causal_share`, which bounds of time take into account. Scores never reach memory; that is why the
operator is fused (Dao et al., FlashAttention, arXiv:2205.14135), so bytes are those of its inputs and outputs.
"""

from __future__ import annotations

import math

from costmodel.graph import Operation
from costmodel.rules import Work, rule

_SOFTMAX = 6  # scale, maximum, subtract, exponential, sum, divide
_SOFTMAX_BACKWARD = 5  # dP * P, row sum, subtract, * P, scale

_FUSED = (
    "aten._scaled_dot_product_flash_attention",
    "aten._scaled_dot_product_efficient_attention",
    "aten._scaled_dot_product_cudnn_attention",
    "aten._scaled_dot_product_flash_attention_for_cpu",
    "aten._scaled_dot_product_fused_attention_overrideable",
)


@rule(*_FUSED, kind="attention")
def attention(op: Operation) -> Work:
    """Two products and a softmax over L x S scores a head."""
    heads, length, keys, size, size_v = _sizes(op)
    scores = heads * length * keys
    masked = any(name in op.inputs for name in ("attn_bias", "attn_mask"))
    return Work(macs=scores * (size + size_v), vector_flops=scores * (_SOFTMAX + masked))


@rule(*(f"{name}_backward" for name in _FUSED), kind="attention")
def attention_backward(op: Operation) -> Work:
    """Five products: three over the size of a key, two over that of a value."""
    heads, length, keys, size, size_v = _sizes(op)
    scores = heads * length * keys
    # The softmax is recomputed from its saved logarithm: scale, subtract, exponential.
    return Work(macs=scores * (3 * size + 2 * size_v), vector_flops=scores * (3 + _SOFTMAX_BACKWARD))


def causal_share(op: Operation) -> float:
    """What of the scores a fused attention has to compute: under a causal mask, those of each query and the keys up to
    its place (masks are aligned at the first query and key); all of them otherwise."""
    if not op.attributes.get("is_causal") or not op.operator.startswith(_FUSED):
        return 1.0
    _, length, keys, _, _ = _sizes(op)
    square = min(length, keys)
    kept = square * (square + 1) // 2 + (length - square) * keys
    return kept / (length * keys)


def _sizes(op: Operation) -> tuple[int, int, int, int, int]:
    """Batch x heads, queries, keys, size of a key, size of a value."""
    query, key, value = (op.inputs[name].shape for name in ("query", "key", "value"))
    return math.prod(query[:-2]), query[-2], key[-2], query[-1], value[-1]
