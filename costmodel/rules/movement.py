"""Operators that move data and compute nothing: copies, concatenations, gathers, padding, new tensors, random numbers.

Bytes are those of the inputs and outputs unless an operator reads less than the tensors it is given, or does not
read the tensor that it writes.
"""

from __future__ import annotations

import math

from costmodel.graph import Operation
from costmodel.rules import Work, rule


@rule(
    "aten.clone", "aten.contiguous", "aten.cat", "aten.stack", "aten.constant_pad_nd", "aten.roll", "aten.flip",
    "aten.repeat", "aten.tile", "aten._to_copy", "aten.reflection_pad1d", "aten.reflection_pad2d",
    "aten.reflection_pad3d", "aten.replication_pad1d", "aten.replication_pad2d", "aten.replication_pad3d",
    "aten.pixel_shuffle", "aten.pixel_unshuffle", "aten.channel_shuffle", "aten.tril", "aten.triu", "aten.diag_embed",
    "aten.tril_", "aten.triu_",
    "aten.block_diag", "aten.im2col", "aten.unfold_copy", "aten.rot90", "aten._reshape_copy",
    "aten.native_channel_shuffle", "aten._pin_memory", "aten._local_scalar_dense", "aten.repeat_interleave",
    "aten.combinations", "aten.cartesian_prod", "aten._pack_padded_sequence", "aten._pad_packed_sequence",
    "aten.view_as_real_copy", "aten.view_copy", "aten.permute_copy", "aten.narrow_copy", "aten.unsafe_split",
    "aten.unsafe_split_with_sizes", "aten.unsafe_chunk", "aten.split_with_sizes_copy",
    kind="reshape",
)  # fmt: skip
def copy(op: Operation) -> Work:
    """Reads its inputs and writes its outputs."""
    return Work()


@rule("aten.as_strided_", "aten.squeeze_", "aten.unsqueeze_", "aten.t_", "aten.transpose_", "aten.set_", "aten.detach_",
      "aten.resize_", "aten.resize_as_", "aten.sym_size", "aten.sym_numel", "aten.sym_stride",
      kind="reshape")  # fmt: skip
def look(op: Operation) -> Work:
    """Changes how memory is looked at, and moves nothing."""
    return Work(read_bytes=0, write_bytes=0)


@rule("aten.copy_", "aten._copy_from", "aten.copy", kind="reshape")
def copy_over(op: Operation) -> Work:
    """Reads the source and writes the destination, which it does not read."""
    return Work(read_bytes=op.inputs["src"].nbytes)


@rule("aten.index", "aten._unsafe_index", "aten.index_select", "aten.gather", "aten.take", "aten.take_along_dim",
      "aten.masked_select", kind="reshape")  # fmt: skip
def gather(op: Operation) -> Work:
    """Reads the places and, of the source, the elements that it returns."""
    picked = op.outputs[0].nbytes
    places = [tensor for name, tensor in op.inputs.items() if name not in ("self", "input")]
    return Work(read_bytes=picked + sum(tensor.nbytes for tensor in places))


@rule("aten.embedding", kind="reshape")
def embedding(op: Operation) -> Work:
    """Reads the places and the rows of the table that they name."""
    return Work(read_bytes=op.inputs["indices"].nbytes + op.outputs[0].nbytes)


@rule("aten.embedding_dense_backward", kind="reshape")
def embedding_backward(op: Operation) -> Work:
    """Adds each gradient to its row of a table of zeros."""
    return Work(vector_flops=op.inputs["grad_output"].numel)


@rule("aten._embedding_bag", "aten._embedding_bag_forward_only", kind="reshape")
def embedding_bag(op: Operation) -> Work:
    """Reads the rows that the places name, and adds those of a bag."""
    table, places = op.inputs["weight"], op.inputs["indices"]
    rows = places.numel * math.prod(table.shape[1:])
    named = sum(tensor.nbytes for name, tensor in op.inputs.items() if name != "weight")
    return Work(vector_flops=rows, read_bytes=named + rows * table.itemsize)


@rule("aten._embedding_bag_dense_backward", "aten._embedding_bag_backward", kind="reshape")
def embedding_bag_backward(op: Operation) -> Work:
    """Adds the gradient of its bag to each row."""
    gradient = op.inputs["grad"]
    return Work(vector_flops=op.inputs["indices"].numel * math.prod(gradient.shape[1:]))


@rule("aten._embedding_bag_per_sample_weights_backward", kind="reshape")
def embedding_bag_weights_backward(op: Operation) -> Work:
    """A product of each named row with the gradient of its bag: a multiplication and an addition a number."""
    table = op.inputs["weight"]
    rows = op.inputs["indices"].numel * math.prod(table.shape[1:])
    named = sum(tensor.nbytes for name, tensor in op.inputs.items() if name != "weight")
    return Work(vector_flops=2 * rows, read_bytes=named + rows * table.itemsize)


@rule("aten.index_put", "aten.index_put_", "aten._unsafe_index_put", "aten._index_put_impl_", "aten.index_add",
      "aten.index_add_", "aten.scatter_add", "aten.scatter_add_", "aten.index_copy", "aten.index_copy_",
      "aten.index_fill", "aten.index_fill_", "aten.scatter", "aten.scatter_", "aten.scatter_reduce",
      "aten.scatter_reduce_", "aten.index_reduce", "aten.index_reduce_", "aten.masked_scatter", "aten.masked_scatter_",
      "aten.put_", kind="reshape")  # fmt: skip
def scatter(op: Operation) -> Work:
    """Writes (adds, multiplies ...) the values at the places: in place it touches no other of the destination."""
    destination = op.inputs["self"] if "self" in op.inputs else next(iter(op.inputs.values()))
    given = [tensor for name, tensor in op.inputs.items() if tensor is not destination]
    values = [op.inputs[name] for name in ("values", "value", "src", "source", "tensor") if name in op.inputs]
    touched = values[0].numel if values else max((tensor.numel for tensor in given), default=0)
    adds = "add" in op.operator or "reduce" in op.attributes or bool(op.attributes.get("accumulate", False))
    read = sum(tensor.nbytes for tensor in given) + adds * touched * destination.itemsize
    if op.operator.endswith("_"):
        return Work(vector_flops=adds * touched, read_bytes=read, write_bytes=touched * destination.itemsize)
    return Work(vector_flops=adds * touched, read_bytes=read + destination.nbytes)


@rule("aten.slice_backward", "aten.select_backward", "aten.diagonal_backward", "aten.as_strided_scatter",
      "aten.unfold_backward", "aten.slice_scatter", "aten.select_scatter", "aten.constant_pad_nd_backward",
      "aten.reflection_pad1d_backward", "aten.reflection_pad2d_backward", "aten.reflection_pad3d_backward",
      "aten.replication_pad1d_backward", "aten.replication_pad2d_backward", "aten.replication_pad3d_backward",
      "aten.col2im", "aten._pack_padded_sequence_backward", kind="reshape")  # fmt: skip
def put_back(op: Operation) -> Work:
    """Puts what was cut out into zeros, or adds it where windows overlap."""
    overlapping = ("unfold" in op.operator) or ("col2im" in op.operator) or ("pad" in op.operator)
    given = next(iter(op.inputs.values()))
    read = sum(tensor.nbytes for name, tensor in op.inputs.items() if not (name == "self" and "pad" in op.operator))
    return Work(vector_flops=given.numel if overlapping else 0, read_bytes=read)


@rule("aten.empty", "aten.empty_like", "aten.empty_strided", "aten.new_empty", "aten.new_empty_strided",
      "aten.empty_permuted", kind="other")  # fmt: skip
def reserve(op: Operation) -> Work:
    """Takes memory and leaves it as it is."""
    return Work(read_bytes=0, write_bytes=0)


@rule("aten.zeros", "aten.zeros_like", "aten.ones", "aten.ones_like", "aten.full", "aten.full_like", "aten.new_zeros",
      "aten.new_ones", "aten.new_full", "aten.arange", "aten.linspace", "aten.eye", "aten.scalar_tensor", "aten.fill_",
      "aten.zero_", "aten.fill", "aten.tril_indices", "aten.triu_indices", "aten.logspace", "aten._efficientzerotensor",
      "aten.range", "aten.zero", kind="other")  # fmt: skip
def fill(op: Operation) -> Work:
    """Writes a new tensor, or over one that it does not read."""
    value = op.inputs.get("value")
    return Work(read_bytes=value.nbytes if value else 0)


@rule("aten.rand", "aten.randn", "aten.randint", "aten.randperm", "aten.rand_like", "aten.randn_like",
      "aten.randint_like", "aten.bernoulli_", "aten.bernoulli", "aten.uniform_", "aten.normal_", "aten.normal",
      "aten.random_", "aten.exponential_", "aten.multinomial", "aten.log_normal_", "aten.cauchy_", "aten.geometric_",
      "aten.poisson", kind="other")  # fmt: skip
def random(op: Operation) -> Work:
    """Writes random numbers; only probabilities that are a tensor are read. Making them is not counted."""
    probabilities = [tensor for name, tensor in op.inputs.items() if _is_read(op, name)]
    return Work(read_bytes=sum(tensor.nbytes for tensor in probabilities))


@rule("aten.sort", "aten.argsort", "aten.msort", "aten.topk", "aten.kthvalue", "aten.mode", "aten._unique2",
      "aten.unique_dim", "aten.unique_consecutive", kind="other")  # fmt: skip
def sort(op: Operation) -> Work:
    """n log2 n comparisons along the sorted dimension of n: what sorting by comparison takes, and no kernel's count."""
    x = op.inputs["self"]
    dim = op.attributes.get("dim", -1)
    n = x.shape[dim] if x.shape and isinstance(dim, int) else x.numel
    return Work(vector_flops=x.numel * max(1, (n - 1).bit_length()) if n > 1 else 0)


@rule("aten._assert_async", "aten._functional_assert_async", kind="other")
def check(op: Operation) -> Work:
    """Reads whether something holds."""
    return Work()


@rule("aten.nonzero", "aten.nonzero_static", "aten.searchsorted", "aten.bucketize", "aten.bincount", "aten.histc",
      "aten.isin", "aten.equal", "aten.is_nonzero", kind="other")  # fmt: skip
def compare(op: Operation) -> Work:
    """A comparison an element (a search takes log2 n of them)."""
    x = next((op.inputs[name] for name in ("input", "elements", "self") if name in op.inputs), op.outputs[0])
    sequence = next((op.inputs[name] for name in _SEQUENCES if name in op.inputs), None)
    return Work(vector_flops=x.numel * (max(1, sequence.shape[-1].bit_length()) if sequence and sequence.shape else 1))


_SEQUENCES = ("sorted_sequence", "boundaries", "test_elements")
"""What a search looks through, by name."""


def _is_read(op: Operation, name: str) -> bool:
    in_place = op.operator.endswith("_")
    return name == "p" or (name == "self" and not in_place and not op.operator.endswith("_like"))
