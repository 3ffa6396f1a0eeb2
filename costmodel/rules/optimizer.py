"""Optimizers: operators on lists of tensors (foreach), and whole steps in one kernel (fused).

A foreach operator does to each member of a list what its plain namesake does to a tensor: `_foreach_addcmul_`
is addcmul_ over all parameters. The fused steps are those of Kingma and Ba (arXiv:1412.6980) and Loshchilov and Hutter
(arXiv:1711.05101):

    Adam    m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g g; w = w - lr / c1 m / (sqrt(v) / c2 + eps)
            3 + 4 + 6 FLOPs a parameter, and 2 more for weight decay (g + d w, or w - lr d w)
    SGD     w = w - lr g: 2, and 2 more for each of weight decay (g + d w) and momentum (b = mu b + g)
"""

from __future__ import annotations

from costmodel.graph import Operation
from costmodel.rules import Work, rule
from costmodel.rules.pointwise import ARITHMETIC

_PLAIN = {
    name: flops for name, flops in ARITHMETIC.items()
    if name in (
        "add", "sub", "mul", "div", "neg", "abs", "sign", "reciprocal", "pow", "sqrt", "rsqrt", "exp", "log",
        "clamp_min", "clamp_max", "maximum", "minimum", "addcmul", "addcdiv", "lerp", "round", "floor", "ceil", "trunc",
        "frac", "tanh", "erf", "expm1", "log1p",
    )
}  # fmt: skip


@rule(*(f"aten._foreach_{name}{suffix}" for name in _PLAIN for suffix in ("", "_")), kind="elementwise")
def foreach(op: Operation) -> Work:
    """The plain operator's FLOPs on every member of the first list."""
    name = op.operator.removeprefix("aten._foreach_")
    flops = _PLAIN[name] if name in _PLAIN else _PLAIN[name[:-1]]
    return Work(vector_flops=flops * _elements(op, "self"))


@rule("aten._foreach_norm", kind="elementwise")
def foreach_norm(op: Operation) -> Work:
    """A square and an addition an element."""
    return Work(vector_flops=2 * _elements(op, "self"))


@rule("aten._foreach_copy_", "aten._foreach_zero_", "aten._foreach_copy", kind="reshape")
def foreach_copy(op: Operation) -> Work:
    """Reads the sources, if there are any, and writes the destinations, which it does not read."""
    return Work(read_bytes=sum(tensor.nbytes for name, tensor in op.inputs.items() if name.startswith("src.")))


@rule("aten._fused_adam_", "aten._fused_adamw_", "aten._fused_adam", "aten._fused_adamw", kind="optimizer")
def fused_adam(op: Operation) -> Work:
    """13 FLOPs a parameter, 2 more with weight decay, 1 more for the maximum that AMSGrad keeps."""
    flops = 13 + 2 * bool(op.attributes.get("weight_decay")) + bool(op.attributes.get("amsgrad"))
    state = ("self", "exp_avgs", "exp_avg_sqs", "max_exp_avg_sqs", "state_steps")
    return Work(vector_flops=flops * _elements(op, "self"), write_bytes=_bytes(op, *state))


@rule("aten._fused_sgd_", "aten._fused_sgd", kind="optimizer")
def fused_sgd(op: Operation) -> Work:
    """2 FLOPs a parameter, 2 more with momentum, 2 more with weight decay."""
    flops = 2 + 2 * bool(op.attributes.get("momentum")) + 2 * bool(op.attributes.get("weight_decay"))
    written = _bytes(op, "self", "momentum_buffer_list")
    return Work(vector_flops=flops * _elements(op, "self"), write_bytes=written)


@rule("aten._fused_adagrad_", "aten._fused_adagrad", kind="optimizer")
def fused_adagrad(op: Operation) -> Work:
    """s = s + g g; w = w - lr g / (sqrt(s) + eps): 7 FLOPs a parameter, 2 more with weight decay."""
    flops = 7 + 2 * bool(op.attributes.get("weight_decay"))
    return Work(vector_flops=flops * _elements(op, "self"), write_bytes=_bytes(op, "self", "state_sums", "state_steps"))


def _elements(op: Operation, name: str) -> int:
    return sum(tensor.numel for key, tensor in op.inputs.items() if key.startswith(f"{name}."))


def _bytes(op: Operation, *names: str) -> int:
    return sum(tensor.nbytes for key, tensor in op.inputs.items() if key.partition(".")[0] in names)
