"""Matrix products: an (m x k) times a (k x n) matrix takes m k n multiply-accumulates.

A fully connected layer is one of these, with m the batch. What is added to the product (a bias) is one vector FLOP an
output element.
"""

from __future__ import annotations

import math

from costmodel.graph import Operation
from costmodel.rules import Work, rule


@rule("aten.mm", "aten.bmm", "aten.mv", "aten.dot", "aten.vdot", "aten._scaled_mm", "aten._int_mm", kind="linear")
def product(op: Operation) -> Work:
    """Output elements times the summed dimension, the last of the first factor."""
    first = next(iter(op.inputs.values()))
    return Work(macs=op.outputs[0].numel * first.shape[-1])


@rule(
    *("aten.addmm", "aten._addmm_activation", "aten.baddbmm", "aten.addmv", "aten.addbmm"),
    *("aten.addmm_", "aten.baddbmm_", "aten.addmv_", "aten.addbmm_"),
    kind="linear",
)
def product_and_sum(op: Operation) -> Work:
    """A product with something added. `addbmm` sums over its batch, which the first factor's size holds."""
    first = next(op.inputs[name] for name in ("mat1", "batch1", "mat") if name in op.inputs)
    output = op.outputs[0]
    summed = first.shape[-1] * (first.shape[0] if op.operator.startswith("aten.addbmm") else 1)
    return Work(macs=output.numel * summed, vector_flops=output.numel)


@rule("aten._weight_int8pack_mm", kind="linear")
def product_and_scale(op: Operation) -> Work:
    """A product whose columns each have a scale: one multiplication an output."""
    output = op.outputs[0]
    return Work(macs=output.numel * op.inputs["self"].shape[-1], vector_flops=output.numel)


@rule("aten._grouped_mm", "aten._scaled_grouped_mm", kind="linear")
def grouped_product(op: Operation) -> Work:
    """A product a group, as of a mixture of experts: each row, or column, meets the matrix of its own group.

    Between two matrices it is the summed dimension that is divided among the groups, and each has a product of its own.
    """
    first, second, output = op.inputs["self"], op.inputs["mat2"], op.outputs[0]
    matrices = len(first.shape) == len(second.shape) == 2
    return Work(macs=math.prod(output.shape[1:] if matrices else output.shape) * first.shape[-1])


@rule("aten._trilinear", kind="linear")
def product_of_three(op: Operation) -> Work:
    """Three tensors, each with sizes of 1 put in, multiplied and summed: two multiplications and an addition a triple.

    A bilinear layer is one: x W y, with N x O x I x J triples.
    """
    shapes = [_expanded(op.inputs[f"i{n}"].shape, op.attributes[f"expand{n}"]) for n in (1, 2, 3)]
    triples = math.prod(max(sizes) for sizes in zip(*shapes, strict=True))
    return Work(macs=triples, vector_flops=triples)


def _expanded(shape: tuple[int, ...], places: tuple[int, ...]) -> list[int]:
    sizes = list(shape)
    for place in places:
        sizes.insert(place, 1)
    return sizes
