"""Why a peer's count differs: each known convention or mistake of a peer, as a number derived from our trace.

An explanation must predict the number: its `expected` computes, from the operations of one layer, how much the peer
counts beyond our MACs. A difference counts as explained only if the explanations of its peer add up to exactly that
difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from costmodel.cost import OperationCost
from costmodel.graph import BACKWARD, Module, Operation


@dataclass(frozen=True)
class CountedLayer:
    """One layer in one phase: what we recorded there, and what the peer counted."""

    ours: tuple[OperationCost, ...]
    """The operations of our trace."""

    plain: tuple[OperationCost, ...]
    """The operations with nothing fused, which is what peers see on the meta device."""

    counted: Mapping[str, int]
    """The peer's amounts by its operators' names."""

    unsupported: Mapping[str, int]
    """The operators that the peer reports as not counted."""

    formulas: frozenset[str] | None
    """The operators that the peer has a formula for, if known."""

    flops_per_mac: int

    module: Module | None = None
    """The layer's module, unless it is gone."""


@dataclass(frozen=True)
class Explanation:
    """A named reason for a peer's difference, and how large it makes it."""

    name: str
    peer: str
    source: str
    """Where in the peer's code it can be read."""

    expected: Callable[[CountedLayer], int]
    """What the peer counts beyond our MACs because of it, in the peer's unit."""


def explain(peer: str, case: CountedLayer) -> dict[str, int]:
    """The expected differences by name, those that are not zero."""
    found = {e.name: e.expected(case) for e in EXPLANATIONS if e.peer == peer}
    return {name: amount for name, amount in found.items() if amount}


# fvcore: fvcore/nn/flop_count.py and jit_handles.py.


def _batch_norms(case: CountedLayer) -> int:
    """2 an element with scale and shift, 1 without; in training 5 and 4."""
    if "batch_norm" not in case.counted:
        return 0
    return sum(
        op.inputs["input"].numel * ((4 if op.attributes.get("training", True) else 1) + ("weight" in op.inputs))
        for op in _called(case.ours, "native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm")
    )


def _other_norms(case: CountedLayer) -> int:
    """5 an element with scale and shift, 4 without."""
    names = {"layer_norm": "native_layer_norm", "group_norm": "native_group_norm", "instance_norm": "native_batch_norm"}
    return sum(
        op.inputs["input"].numel * (4 + ("weight" in op.inputs))
        for peers_name, our_name in names.items()
        if peers_name in case.counted
        for op in _called(case.ours, our_name)
    )


def _adaptive_pools(case: CountedLayer) -> int:
    """1 an element of the input. A pool to 1 x 1 is a mean over the last two dimensions that keeps them."""
    if "adaptive_avg_pool2d" not in case.counted:
        return 0
    pools = [
        *_called(case.ours, "_adaptive_avg_pool2d"),
        *(op for op in _called(case.ours, "mean") if op.attributes.get("keepdim") and _spatial(op)),
    ]
    return sum(op.inputs["self"].numel for op in pools)


def _spatial(op: Operation) -> bool:
    rank = len(op.inputs["self"].shape)
    return {dim % rank for dim in op.attributes.get("dim") or ()} == {rank - 2, rank - 1}


def _upsampling(case: CountedLayer) -> int:
    """1 an element of the output for the nearest neighbour, 4 for bilinear interpolation and grid samples."""
    factors = {"upsample_nearest2d": 1, "upsample_bilinear2d": 4, "grid_sampler": 4}
    ours = {"grid_sampler": "grid_sampler_2d"}
    return sum(
        op.outputs[0].numel * factor
        for name, factor in factors.items()
        if name in case.counted
        for op in _called(case.ours, ours.get(name, name))
    )


def _rounded_einsum(case: CountedLayer) -> int:
    """Read off numpy's report of an einsum, which prints twice the MACs with four digits ("Optimized FLOP count")."""
    if "einsum" not in case.counted or case.counted.keys() & {"matmul", "bmm"}:
        return 0
    products = [entry.cost.macs for entry in case.ours if entry.operation.operator == "aten.bmm"]
    return sum(int(float(f"{2 * macs:.3e}") / 2) - macs for macs in products)


def _fused_attention(case: CountedLayer) -> int:
    """Its two products are inside an operator that fvcore does not know."""
    if "aten::scaled_dot_product_attention" not in case.unsupported:
        return 0
    fused = sum(entry.cost.macs for entry in case.ours if "scaled_dot_product" in entry.operation.operator)
    if fused or case.counted.keys() & {"matmul", "bmm", "einsum"}:
        return -fused
    return -_macs(case.ours, "aten.bmm")  # CUDA does not fuse it either: float64, grouped queries


def _recurrent(case: CountedLayer) -> int:
    """A recurrent layer is one operator, which fvcore does not know."""
    names = {"aten::lstm", "aten::gru", "aten::rnn_tanh", "aten::rnn_relu"}
    return -sum(entry.cost.macs for entry in case.ours) if names & case.unsupported.keys() else 0


def _padding_by_name(case: CountedLayer) -> int:
    """padding="same" is an operator of its own, `_convolution_mode`, without a formula."""
    met = "aten::_convolution_mode" in case.unsupported and "conv" not in case.counted
    return -_macs(case.ours, "aten.convolution") if met else 0


def _unknown_products(case: CountedLayer) -> int:
    """Other contractions that fvcore says it met and has no formula for."""
    ours = {"aten::bilinear": "aten._trilinear"}
    return -_macs(case.ours, *(ours.get(name, name.replace("::", ".")) for name in case.unsupported))


# torch's flop counter: torch/utils/flop_counter.py.


def _grouped_backward(case: CountedLayer) -> int:
    """The weight's gradient multiplies all input by all output channels: with g groups, g times too many."""
    extra = 0
    for entry in case.plain:
        op = entry.operation
        if op.operator == "aten.convolution_backward" and op.attributes["output_mask"][1]:
            gradients = sum(op.attributes["output_mask"][:2])
            extra += (op.attributes["groups"] - 1) * 2 * (entry.cost.macs // gradients)
    return extra


def _recomputed_scores(case: CountedLayer) -> int:
    """CUDA's fused attention computes the scores again in its backward; the peers ran attention as plain products."""
    fused = list(_backward_of_attention(case.ours))
    if not fused or any(_backward_of_attention(case.plain)):
        return 0
    return -case.flops_per_mac * sum(op.inputs["query"].numel * op.inputs["key"].shape[-2] for op in fused)


def _backward_of_attention(entries: tuple[OperationCost, ...]) -> Iterator[Operation]:
    for entry in entries:
        name = entry.operation.operator
        if "scaled_dot_product" in name and name.endswith("_backward"):
            yield entry.operation


def _no_formula(case: CountedLayer) -> int:
    """Contractions by operators outside the peer's table; the profiler's convolutions are the next ones' business."""
    known = (case.formulas or frozenset()) | {"aten.convolution", "aten.convolution_backward"}
    return -case.flops_per_mac * sum(e.cost.macs for e in case.plain if e.operation.operator not in known)


# torch.profiler: torch/csrc/profiler/util.cpp.


def _element_wise(case: CountedLayer) -> int:
    """1 an element of the first operand of each add and mul that is not in place.

    Gradients that autograd adds up are among them: it does so in place, but not while we watch it with a mode.
    """
    summed = [op for op in _called(case.plain, "add_") if op.phase == BACKWARD]
    operations = [*_called(case.plain, "add", "mul"), *summed]
    return sum(next(iter(op.inputs.values())).numel for op in operations if op.inputs)


def _other_convolutions(case: CountedLayer) -> int:
    """Only conv2d has a formula, and only for a batch of images padded by numbers: not 1-d, 3-d, transposed."""
    refused = case.module is not None and (
        isinstance(case.module.settings.get("padding"), str) or len(case.module.output_shape or ()) == 3
    )
    return -case.flops_per_mac * sum(
        entry.cost.macs
        for entry in case.plain
        if entry.operation.operator == "aten.convolution"
        and (refused or len(entry.operation.inputs["input"].shape) != 4 or entry.operation.attributes.get("transposed"))
    )


def _convolution_backward(case: CountedLayer) -> int:
    """A convolution's backward has no formula."""
    return -case.flops_per_mac * _macs(case.plain, "aten.convolution_backward")


def _macs(entries: tuple[OperationCost, ...], *operators: str) -> int:
    """The MACs of these operators."""
    return sum(entry.cost.macs for entry in entries if entry.operation.operator in operators)


def _called(entries: tuple[OperationCost, ...], *names: str) -> Iterator[Operation]:
    """The operations of these operators."""
    wanted = {f"aten.{name}" for name in names}
    return (entry.operation for entry in entries if entry.operation.operator in wanted)


_FVCORE, _COUNTER, _PROFILER = "fvcore", "torch flop counter", "torch profiler"
_HANDLES, _TABLE, _UTIL = "fvcore/nn/jit_handles.py", "torch/utils/flop_counter.py", "torch/csrc/profiler/util.cpp"

EXPLANATIONS = (
    Explanation("batch norm counted by element", _FVCORE, _HANDLES, _batch_norms),
    Explanation("norm counted by element", _FVCORE, _HANDLES, _other_norms),
    Explanation("adaptive pool counted by element", _FVCORE, "fvcore/nn/flop_count.py", _adaptive_pools),
    Explanation("upsampling counted by element", _FVCORE, "fvcore/nn/flop_count.py", _upsampling),
    Explanation("einsum rounded to four digits", _FVCORE, _HANDLES, _rounded_einsum),
    Explanation("no formula for fused attention", _FVCORE, "fvcore/nn/flop_count.py", _fused_attention),
    Explanation("no formula for recurrent layers", _FVCORE, "fvcore/nn/flop_count.py", _recurrent),
    Explanation("no formula for padding by name", _FVCORE, "fvcore/nn/flop_count.py", _padding_by_name),
    Explanation("no formula for this product", _FVCORE, "fvcore/nn/flop_count.py", _unknown_products),
    Explanation("grouped convolution's weight gradient counted g times", _COUNTER, _TABLE, _grouped_backward),
    Explanation("attention's backward not fused", _COUNTER, _TABLE, _recomputed_scores),
    Explanation("no formula for this product", _COUNTER, _TABLE, _no_formula),
    Explanation("element-wise add and mul counted", _PROFILER, _UTIL, _element_wise),
    Explanation("no formula for this convolution", _PROFILER, _UTIL, _other_convolutions),
    Explanation("no formula for a convolution's backward", _PROFILER, _UTIL, _convolution_backward),
    Explanation("attention's backward not fused", _PROFILER, _UTIL, _recomputed_scores),
    Explanation("no formula for this product", _PROFILER, _UTIL, _no_formula),
)
"""Every known convention and mistake of the peers."""
