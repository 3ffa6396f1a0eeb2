"""The demand of each operation on a device: arithmetic, and bytes by where they are found.

An operation finds recently touched tensors in the last-level cache, and the rest in memory. Which is which follows from
the trace: an LRU cache of whole tensors is run through the operations twice, and the second time counts, which is the
steady state. The memory of a tensor that dies is reused by the next one, so its bytes leave the cache with it.

A large new tensor lies in fresh memory. On a CPU that is memory which the process did not have before: the system maps
it page by page, each filled with zeros, at a fraction of the memory's bandwidth. glibc's malloc does
so for every block of 32 MiB and more, once it is settled (see `costmodel.hardware.clock.settle_allocator`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import NamedTuple

from costmodel.cost import Costs, OperationCost
from costmodel.graph import TensorSpec


class Demand(NamedTuple):
    """The demand of one operation."""

    flops: int
    """2 x MACs + vector FLOPs."""

    near_bytes: float
    """Found in the last-level cache, or written there."""

    far_bytes: float
    """Read from memory, or written over there."""

    fresh_bytes: float
    """Written to newly mapped memory, by a large tensor."""

    cold: bool = False
    """Whether the operation before it left nothing in the cache, not even the program."""


PROGRAM = "program"
"""The role of what runs the operations: the interpreter, the framework, the kernels."""


def demands(
    costs: Costs, cache_bytes: int, fresh_from_bytes: int, *, resident: Collection[str] | None = None
) -> list[Demand]:
    """The demand of each operation of a trace, with a last-level cache of `cache_bytes`.

    New tensors of `fresh_from_bytes` and more are written to fresh memory.

    `resident` is for a trace that is not a loop: the roles of those storages that are in the cache when it starts
    (see `costmodel.graph.ROLES`), and PROGRAM; everything else that was there before is in memory.
    """
    cache = _Cache(cache_bytes)
    if resident is None:
        _run(costs, cache, fresh_from_bytes)
    else:
        if PROGRAM in resident:
            cache.touch(_PROGRAM, 0)
        for index, storage in enumerate(costs.trace.storages):
            if storage.birth < 0 and storage.role in resident:
                cache.touch(index, storage.nbytes)
    return _run(costs, cache, fresh_from_bytes)


_PROGRAM = -1
"""The program as a storage: it stays cached unless the operation before flushed everything."""


class _Cache:
    """An LRU cache of whole tensors, the most recently touched last."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.held, self.storages = capacity, 0, dict[int, int]()

    def holds(self, storage: int) -> bool:
        """Whether a storage is in it."""
        return storage in self.storages

    def touch(self, storage: int, nbytes: int) -> None:
        """Insert a tensor and evict what does not fit; one larger than the cache flushes it."""
        nbytes = max(nbytes, self.drop(storage))
        if nbytes > self.capacity:
            self.storages.clear()
            self.held = 0
            return
        self.storages[storage] = nbytes
        self.held += nbytes
        while self.held > self.capacity:
            self.drop(next(iter(self.storages)))

    def drop(self, storage: int) -> int:
        """Evict a storage, and return how many bytes of it were held."""
        nbytes = self.storages.pop(storage, 0)
        self.held -= nbytes
        return nbytes


def _run(costs: Costs, cache: _Cache, fresh_from_bytes: int) -> list[Demand]:
    trace = costs.trace
    dying: dict[int, list[int]] = defaultdict(list)
    for index, storage in enumerate(trace.storages):
        if storage.death is not None and storage.birth >= 0:
            dying[storage.death].append(index)
    entries = {id(entry.operation): entry for entry in costs.operations}  # of one phase alone, perhaps
    operation_demands = []
    for index, operation in enumerate(trace.operations):
        if id(operation) in entries:
            operation_demands.append(_demand(entries[id(operation)], cache, fresh_from_bytes))
        tensors = () if operation.view else (*operation.inputs.values(), *operation.outputs)
        if any(tensor.nbytes for tensor in tensors):
            cache.touch(_PROGRAM, 0)
        for tensor in tensors:
            cache.touch(tensor.storage, tensor.nbytes)
        for dead in dying[index]:
            cache.drop(dead)
    return operation_demands


def _demand(entry: OperationCost, cache: _Cache, fresh_from_bytes: int) -> Demand:
    operation, cost = entry.operation, entry.cost
    inputs = set(operation.inputs.values())
    taken = {tensor.storage for tensor in inputs}
    far_read = cost.read_bytes * _share(inputs, [t for t in inputs if not cache.holds(t.storage)])
    outputs = set(operation.outputs)
    over = [t for t in outputs if t.storage in taken and not cache.holds(t.storage)]
    fresh = [t for t in outputs if t.storage not in taken and t.nbytes >= fresh_from_bytes]
    far_write = cost.write_bytes * _share(outputs, over)
    fresh_write = cost.write_bytes * _share(outputs, fresh)
    far = far_read + far_write
    near = cost.moved_bytes - far - fresh_write
    return Demand(cost.flops, near, far, fresh_write, not cache.holds(_PROGRAM))


def _share(all_tensors: Iterable[TensorSpec], some: Iterable[TensorSpec]) -> float:
    whole = sum(tensor.nbytes for tensor in all_tensors)
    return sum(tensor.nbytes for tensor in some) / whole if whole else 0.0
