"""Operators that treat each element alone, and reductions: activations, arithmetic, losses, softmax, sums.

A table gives the FLOPs an output element, read off the operator's definition: each addition, multiplication, division,
comparison and elementary function is one. What an operator does in place ("relu_") costs what it costs otherwise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping

from costmodel.graph import Operation
from costmodel.rules import Work, is_complex, rule

ACTIVATIONS: Mapping[str, int] = {
    "relu": 1,  # max(x, 0)
    "relu6": 2,  # min(max(x, 0), 6)
    "hardtanh": 2,
    "leaky_relu": 2,  # x > 0 ? x : a x
    "_prelu_kernel": 2,
    "rrelu_with_noise": 2,
    "threshold": 1,
    "sigmoid": 4,  # 1 / (1 + exp(-x))
    "log_sigmoid_forward": 5,
    "hardsigmoid": 4,  # min(max(x + 3, 0), 6) / 6
    "hardswish": 5,  # x min(max(x + 3, 0), 6) / 6
    "silu": 5,  # x sigmoid(x)
    "mish": 6,  # x tanh(log(1 + exp(x)))
    "softplus": 5,  # log(1 + exp(b x)) / b, with a comparison
    "gelu": 5,  # x / 2 (1 + erf(x / sqrt 2))
    "elu": 4,  # x > 0 ? x : a (exp(x) - 1)
    "celu": 5,
    "selu": 5,
    "tanh": 1,
    "hardshrink": 2,
    "softshrink": 3,
    "softsign": 3,
    "glu": 5,  # a sigmoid(b)
    "threshold_backward": 1,  # x > 0 ? dy : 0
    "hardtanh_backward": 2,
    "leaky_relu_backward": 2,
    "_prelu_kernel_backward": 4,
    "rrelu_with_noise_backward": 2,
    "sigmoid_backward": 3,  # dy y (1 - y)
    "log_sigmoid_backward": 6,
    "hardsigmoid_backward": 3,
    "hardswish_backward": 6,
    "silu_backward": 9,  # dy s (1 + x (1 - s)), s = sigmoid(x)
    "mish_backward": 12,
    "softplus_backward": 5,
    "gelu_backward": 12,  # dy (cdf(x) + x pdf(x))
    "elu_backward": 4,
    "tanh_backward": 3,  # dy (1 - y y)
    "hardshrink_backward": 2,
    "softshrink_backward": 2,
    "glu_backward": 9,
}

ARITHMETIC: Mapping[str, int] = {
    "add": 1, "sub": 1, "rsub": 1, "mul": 1, "div": 1, "true_divide": 1, "floor_divide": 2, "remainder": 3, "fmod": 3,
    "neg": 1, "abs": 1, "sign": 1, "sgn": 1, "reciprocal": 1, "square": 1, "pow": 1, "sqrt": 1, "rsqrt": 2, "exp": 1,
    "exp2": 1, "expm1": 1, "log": 1, "log1p": 1, "log2": 1, "log10": 1, "sin": 1, "cos": 1, "tan": 1, "asin": 1,
    "acos": 1, "atan": 1, "atan2": 2, "sinh": 1, "cosh": 1, "erf": 1, "erfc": 1, "erfinv": 1, "lgamma": 1, "digamma": 1,
    "floor": 1, "ceil": 1, "round": 1, "trunc": 1, "frac": 2, "sinc": 3, "xlogy": 2, "special_xlog1py": 3, "hypot": 4,
    "clamp": 2, "clamp_min": 1, "clamp_max": 1, "maximum": 1, "minimum": 1, "fmax": 1, "fmin": 1, "logaddexp": 4,
    "eq": 1, "ne": 1, "lt": 1, "le": 1, "gt": 1, "ge": 1, "isnan": 1, "isinf": 1, "isfinite": 1, "nan_to_num": 3,
    "logical_and": 1, "logical_or": 1, "logical_not": 1, "logical_xor": 1,
    "bitwise_and": 1, "bitwise_or": 1, "bitwise_not": 1, "bitwise_xor": 1,
    "bitwise_left_shift": 1, "bitwise_right_shift": 1, "__and__": 1, "__or__": 1, "__xor__": 1,
    "__lshift__": 1, "__rshift__": 1,
    "addcmul": 3, "addcdiv": 3, "lerp": 3, "where": 0, "masked_fill": 0,
    "asinh": 1, "acosh": 1, "atanh": 1, "i0": 1, "special_i0e": 1, "special_i1": 1, "special_i1e": 1,
    "special_bessel_j0": 1, "special_bessel_j1": 1, "special_bessel_y0": 1, "special_bessel_y1": 1,
    "special_erfcx": 1, "special_ndtri": 1, "special_zeta": 1, "polygamma": 1, "igamma": 1, "igammac": 1,
    "copysign": 1, "nextafter": 1, "signbit": 1, "frexp": 1, "ldexp": 2, "logaddexp2": 4, "addr": 2,
    "real": 0, "imag": 0, "conj_physical": 1, "complex": 0, "polar": 4, "angle": 1, "heaviside": 2,
}  # fmt: skip

COMPLEX: Mapping[str, int] = {
    "mul": 6, "square": 6, "prod": 6, "cumprod": 6,  # four products, a difference and a sum
    "div": 11,  # a b* (6), |b|^2 (3), and two divisions
    "reciprocal": 6,  # |a|^2, two divisions and a sign
    "abs": 4,  # sqrt(x^2 + y^2)
    "angle": 2,  # as atan2
    "exp": 5,  # exp(x), cos(y), sin(y), and two products
    "log": 7,  # log |a|, and the angle
    "sqrt": 10,  # |a|; roots of (|a| + x) / 2 and of (|a| - x) / 2
    "pow": 18,  # exp(b log(a))
    "conj_physical": 1,
    "polar": 4,
    "addcmul": 10, "addcdiv": 15, "lerp": 10,
}  # fmt: skip
"""Real FLOPs on complex numbers, where they are not two for each on real ones."""

REDUCTIONS: Mapping[str, int] = {
    "sum": 1, "nansum": 2, "mean": 1, "prod": 1, "amax": 1, "amin": 1, "max": 1, "min": 1, "aminmax": 2, "argmax": 1,
    "argmin": 1, "all": 1, "any": 1, "var": 4, "var_mean": 4, "std": 4, "std_mean": 4, "logsumexp": 4,
    "linalg_vector_norm": 2, "norm": 2, "cumsum": 1, "cumprod": 1, "cummax": 1, "cummin": 1, "logcumsumexp": 4,
    "count_nonzero": 2, "median": 1, "nanmedian": 1, "segment_reduce": 1,
}  # fmt: skip
"""FLOPs an input element; a mean's one division an output is left out as a sum's missing first addition is."""

SOFTMAXES: Mapping[str, int] = {
    "_softmax": 5,  # maximum, subtract, exponential, sum, divide
    "_log_softmax": 5,  # maximum, subtract, exponential, sum, subtract the logarithm
    "_safe_softmax": 6,  # and a look for rows that are masked altogether
    "_softmax_backward_data": 4,  # y (dy - sum(dy y))
    "_log_softmax_backward_data": 4,  # dx = dy - exp(y) sum(dy)
    "_masked_softmax": 6,
    "_masked_softmax_backward": 4,
}

LOSSES: Mapping[str, int] = {
    "mse_loss": 3,  # subtract, square, and the mean's addition
    "smooth_l1_loss": 6,
    "huber_loss": 6,
    "soft_margin_loss": 5,
    "binary_cross_entropy": 7,
    "binary_cross_entropy_with_logits": 8,
    "multilabel_margin_loss_forward": 4,
    "multi_margin_loss": 4,
    "mse_loss_backward": 3,
    "smooth_l1_loss_backward": 4,
    "huber_loss_backward": 4,
    "soft_margin_loss_backward": 5,
    "binary_cross_entropy_backward": 6,
    "multilabel_margin_loss_backward": 3,
    "multi_margin_loss_backward": 3,
}
"""FLOPs an element of the prediction."""


def _names(table: Mapping[str, int]) -> list[str]:
    """The operators of a table, with their in-place forms."""
    return [f"aten.{name}{suffix}" for name in table for suffix in ("", "_")]


def _per_output(table: Mapping[str, int]) -> Callable[[Operation], Work]:
    def work(op: Operation) -> Work:
        return Work(vector_flops=_flops(op, table) * sum(o.numel for o in op.outputs[:1]))

    return work


def _per_input(table: Mapping[str, int]) -> Callable[[Operation], Work]:
    def work(op: Operation) -> Work:
        return Work(vector_flops=_flops(op, table) * next(iter(op.inputs.values())).numel)

    return work


def _flops(op: Operation, table: Mapping[str, int]) -> int:
    """FLOPs an element by a table for real numbers, or by that for complex ones."""
    name = _base(op.operator, table)
    return COMPLEX.get(name, 2 * table[name]) if is_complex(op) else table[name]


def _base(operator: str, table: Mapping[str, int]) -> str:
    name = operator.removeprefix("aten.")
    return name if name in table else name[:-1]


for _operators, _kind, _work in (
    (_names(ACTIVATIONS), "activation", _per_output(ACTIVATIONS)),
    (_names(ARITHMETIC), "elementwise", _per_output(ARITHMETIC)),
    ([f"aten.{name}" for name in REDUCTIONS], "elementwise", _per_input(REDUCTIONS)),
    ([f"aten.{name}" for name in SOFTMAXES], "activation", _per_input(SOFTMAXES)),
    ([f"aten.{name}" for name in LOSSES], "loss", _per_input(LOSSES)),
    (["aten.cumsum_", "aten.cumprod_"], "elementwise", _per_output({"cumsum": 1, "cumprod": 1})),
):
    rule(*_operators, kind=_kind, complex_flops=1)(_work)


@rule("aten.nll_loss_forward", "aten.nll_loss2d_forward", "aten.nll_loss_nd", kind="loss")
def nll_loss(op: Operation) -> Work:
    """Picks one score for each target, negates and adds it: it reads no other score."""
    target, scores = op.inputs["target"], op.inputs["self"]
    weight = op.inputs["weight"].nbytes if "weight" in op.inputs else 0
    picked = target.numel * scores.itemsize
    return Work(vector_flops=2 * target.numel, read_bytes=target.nbytes + picked + weight)


@rule("aten.nll_loss_backward", "aten.nll_loss2d_backward", kind="loss")
def nll_loss_backward(op: Operation) -> Work:
    """Zeros, with -1 / N at each target's place: the scores are named for their shape alone."""
    named = [tensor for name, tensor in op.inputs.items() if name != "self"]
    return Work(vector_flops=op.inputs["target"].numel, read_bytes=sum(tensor.nbytes for tensor in named))


@rule("aten._ctc_loss", "aten._ctc_loss_backward", kind="loss")
def ctc_loss(op: Operation) -> Work:
    """The recursion over time and 2 S + 1 states: three log-sum-exps (4 FLOPs) a state (Graves et al., ICML 2006)."""
    scores, targets = op.inputs["log_probs"], op.inputs["targets"]
    batch = scores.shape[1] if len(scores.shape) == 3 else 1
    states = 2 * targets.numel // max(1, batch) + 1
    return Work(vector_flops=12 * scores.shape[0] * batch * states)


@rule("aten.native_dropout", kind="dropout")
def dropout(op: Operation) -> Work:
    """A comparison of a random number with p, and two multiplications: by the mask and by 1 / (1 - p)."""
    return Work(vector_flops=3 * op.outputs[0].numel)


@rule("aten.native_dropout_backward", kind="dropout")
def dropout_backward(op: Operation) -> Work:
    """By the mask and by 1 / (1 - p)."""
    return Work(vector_flops=2 * op.outputs[0].numel)


@rule("aten._thnn_fused_lstm_cell", kind="activation")
def lstm_cell(op: Operation) -> Work:
    """Four gates (a sum of two products and two biases, then sigmoid or tanh), and c = f c + i g, h = o tanh(c)."""
    cells, gates = op.inputs["cx"].numel, op.inputs["input_gates"].numel
    sums = 1 + ("input_bias" in op.inputs) + ("hidden_bias" in op.inputs)
    return Work(vector_flops=gates * sums + cells * (3 * 4 + 1) + cells * (3 + 2))


@rule("aten._thnn_fused_gru_cell", kind="activation")
def gru_cell(op: Operation) -> Work:
    """Two sigmoid gates and a tanh one, and h = (1 - z) n + z h."""
    cells, gates = op.inputs["hx"].numel, op.inputs["input_gates"].numel
    sums = 1 + ("input_bias" in op.inputs) + ("hidden_bias" in op.inputs)
    return Work(vector_flops=gates * sums + cells * (2 * 4 + 2) + cells * 4)


@rule("aten.cross", "aten.linalg_cross", kind="elementwise")
def cross(op: Operation) -> Work:
    """Two multiplications and a subtraction an element."""
    return Work(vector_flops=3 * op.outputs[0].numel)


@rule("aten._cdist_forward", "aten._euclidean_dist", kind="elementwise")
def pairwise_distance(op: Operation) -> Work:
    """Subtract, square and add along each pair's features, and a root."""
    output = op.outputs[0]
    return Work(vector_flops=output.numel * (3 * op.inputs["x1"].shape[-1] + 1))


@rule("aten._pdist_forward", kind="elementwise")
def pairwise_distance_of_rows(op: Operation) -> Work:
    """The same between all pairs of rows, each once."""
    return Work(vector_flops=op.outputs[0].numel * (3 * op.inputs["self"].shape[-1] + 1))


@rule("aten.dist", kind="elementwise")
def distance(op: Operation) -> Work:
    """Subtract, square and add each pair of elements; sizes of 1 are repeated."""
    sizes = itertools.zip_longest(*(reversed(tensor.shape) for tensor in op.inputs.values()), fillvalue=1)
    return Work(vector_flops=3 * math.prod(map(max, sizes)))


@rule("aten.trace", kind="elementwise")
def trace(op: Operation) -> Work:
    """Adds the diagonal, and reads no more."""
    matrix = op.inputs["self"]
    return Work(vector_flops=min(matrix.shape), read_bytes=min(matrix.shape) * matrix.itemsize)


@rule("aten._fft_r2c", "aten._fft_c2r", "aten._fft_c2c", kind="other", complex_flops=1)
def fft(op: Operation) -> Work:
    """5 N log2 N FLOPs a complex transform of N points, half of it for a real one (fftw.org/speed)."""
    x = op.inputs["self"]
    points = max(x.shape[dim] for dim in op.attributes["dim"]) if x.shape else 1
    whole = max(x.numel, op.outputs[0].numel)
    flops = 5 * whole * max(1, (points - 1).bit_length()) * len(op.attributes["dim"])
    return Work(vector_flops=flops if "c2c" in op.operator else flops // 2)
