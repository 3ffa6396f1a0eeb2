"""PyTorch's CUDA caching allocator, replayed: from the bytes that tensors request to those taken from the GPU.

The rules are those of DeviceCachingAllocator in c10/cuda/CUDACachingAllocator.cpp with the constants of
c10/core/AllocatorConfig.h, in the default configuration (PYTORCH_ALLOC_CONF unset) and on one stream:
- a request is rounded up to a multiple of 512 B (get_round_size), a request of 0 B gets no block;
- up to 1 MiB it is served from the small pool, beyond from the large one (get_pool);
- it takes the smallest free block that is large enough, of equal ones that at the lowest address (get_free_block);
- without one, the driver allocates a segment: 2 MiB in the small pool, 20 MiB for less than 10 MiB, else the size
  rounded up to a multiple of 2 MiB (get_allocation_size);
- the rest of a block is split off if it is at least 512 B (small pool) or more than 1 MiB (large pool), else it stays
  part of the block (should_split);
- a freed block merges with free neighbours in its segment (free_block);
- segments are kept until the driver has no memory left: then those that are wholly free are released and the request
  is retried (release_cached_blocks); if that fails too, it is out of memory.

Two things depend on the driver and are assumed: later segments lie at higher addresses (which decides between blocks of
equal size only: other orders changed the reserved bytes by 1.3 % at most, in six networks at four batches), and the
driver can allocate all of a limit.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import NamedTuple

from costmodel.errors import CostModelError

MIN_BLOCK = 512
"""kMinBlockSize: every block is a multiple of it."""

SMALL_SIZE = 1 << 20
"""kSmallSize: the largest request that the small pool serves."""

SMALL_SEGMENT = 2 << 20
"""kSmallBuffer: the small pool's segments."""

LARGE_SEGMENT = 20 << 20
"""large_segment_size: the segments for requests of less than MIN_LARGE in the large pool."""

MIN_LARGE = 10 << 20
"""kMinLargeAlloc: from here on a request gets a segment of its own size."""

ROUND_LARGE = 2 << 20
"""kRoundLarge: such a segment is a multiple of it."""


class MemoryLimitError(CostModelError):
    """A request does not fit the limit, even after every wholly free segment was released."""


class Block:
    """A piece of a segment: in use, or free for the next request."""

    __slots__ = ("address", "after", "before", "free", "requested", "size", "small")

    def __init__(self, address: int, size: int, small: bool) -> None:
        self.address, self.size, self.small = address, size, small
        self.requested = 0
        """Requested bytes; the rest up to `size` is rounding."""
        self.free = False
        self.before: Block | None = None
        """Its neighbour in the segment, at lower addresses."""
        self.after: Block | None = None


class Segment(NamedTuple):
    """One allocation from the driver."""

    address: int
    size: int
    small: bool
    """Whether it belongs to the small pool."""


class Allocator:
    """The state of the allocator: segments, their blocks, and the sums that `torch.cuda.memory_stats` reports."""

    def __init__(self, limit_bytes: int | None = None) -> None:
        """`limit_bytes` is the most that the driver can allocate; None for no limit."""
        self.limit_bytes = limit_bytes
        self.requested_bytes = 0
        """`requested_bytes.all.current`: the requests that the blocks in use serve."""
        self.allocated_bytes = 0
        """`allocated_bytes.all.current`: the sizes of the blocks in use."""
        self.reserved_bytes = 0
        """`reserved_bytes.all.current`: the sizes of the segments."""
        self.retries = 0
        """`num_alloc_retries`: how often free segments were released because the driver had no memory left."""
        self.segments: dict[int, Segment] = {}
        """By address."""
        self._heads: dict[int, Block] = {}
        """Each segment's first block."""
        self._free: dict[bool, list[tuple[int, int, Block]]] = {True: [], False: []}
        """The free blocks of the small (True) and the large pool, as (size, address, block), in that order."""
        self._end = 0

    def malloc(self, nbytes: int) -> Block | None:
        """A block for a request; None for 0 bytes. Raises MemoryLimitError."""
        if not nbytes:
            return None
        size = round_size(nbytes)
        small = size <= SMALL_SIZE
        block = self._best_fit(size, small) or self._new_segment(size, small)
        rest = block.size - size
        if rest >= MIN_BLOCK if small else rest > SMALL_SIZE:
            self._split(block, size)
        block.free, block.requested = False, nbytes
        self.requested_bytes += nbytes
        self.allocated_bytes += block.size
        return block

    def free(self, block: Block) -> None:
        """Free a block and merge it with its free neighbours."""
        self.requested_bytes -= block.requested
        self.allocated_bytes -= block.size
        before, after = block.before, block.after
        # Merging keeps `block` and drops its neighbour, so a segment's head may change.
        if before is not None and before.free:
            self._remove(before)
            block.address, block.size = before.address, block.size + before.size
            block.before = before.before
            if block.before is None:
                self._heads[block.address] = block
            else:
                block.before.after = block
        if after is not None and after.free:
            self._remove(after)
            block.size += after.size
            block.after = after.after
            if block.after is not None:
                block.after.before = block
        self._insert(block)

    def blocks(self) -> Iterator[tuple[Segment, tuple[Block, ...]]]:
        """Every segment with its blocks, by address."""
        for address, segment in sorted(self.segments.items()):
            block: Block | None = self._heads[address]
            blocks = []
            while block is not None:
                blocks.append(block)
                block = block.after
            yield segment, tuple(blocks)

    def _best_fit(self, size: int, small: bool) -> Block | None:
        """The smallest free block that is large enough, at the lowest address; it is taken out of the pool."""
        pool = self._free[small]
        index = bisect_left(pool, (size,))
        return pool.pop(index)[2] if index < len(pool) else None

    def _new_segment(self, size: int, small: bool) -> Block:
        """A new segment from the driver, as one block."""
        whole = segment_size(size)
        if self._lacks(whole):
            self.retries += 1
            self._release_free_segments()
            if self._lacks(whole):
                raise MemoryLimitError(
                    f"out of memory: {whole:,} B more than the {self.reserved_bytes:,} B that are reserved do not fit "
                    f"{self.limit_bytes:,} B."
                )
        block = Block(self._end, whole, small)
        self.segments[block.address] = Segment(block.address, whole, small)
        self._heads[block.address] = block
        self._end += whole
        self.reserved_bytes += whole
        return block

    def _lacks(self, whole: int) -> bool:
        return self.limit_bytes is not None and self.reserved_bytes + whole > self.limit_bytes

    def _release_free_segments(self) -> None:
        """Return every segment without a block in use to the driver."""
        for pool in self._free.values():
            kept = []
            for entry in pool:
                _, address, block = entry
                if block.before is None and block.after is None:
                    self.reserved_bytes -= block.size
                    del self.segments[address], self._heads[address]
                else:
                    kept.append(entry)
            pool[:] = kept

    def _split(self, block: Block, size: int) -> None:
        """Keep the first `size` bytes of a block; the rest becomes a free block behind it."""
        rest = Block(block.address + size, block.size - size, block.small)
        rest.before, rest.after = block, block.after
        if rest.after is not None:
            rest.after.before = rest
        block.after, block.size = rest, size
        self._insert(rest)

    def _insert(self, block: Block) -> None:
        block.free = True
        insort(self._free[block.small], (block.size, block.address, block))

    def _remove(self, block: Block) -> None:
        pool = self._free[block.small]
        del pool[bisect_left(pool, (block.size, block.address))]


def round_size(nbytes: int) -> int:
    """A request, rounded up to whole blocks of 512 B."""
    return -(-nbytes // MIN_BLOCK) * MIN_BLOCK


def segment_size(size: int) -> int:
    """The segment that is allocated when no free block fits a rounded request."""
    if size <= SMALL_SIZE:
        return SMALL_SEGMENT
    if size < MIN_LARGE:
        return LARGE_SEGMENT
    return -(-size // ROUND_LARGE) * ROUND_LARGE
