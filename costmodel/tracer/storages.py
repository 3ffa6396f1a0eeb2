"""The blocks of memory that tensors look at, from the operation that makes each to the release of its last holder.

Torch keeps one Python object for a storage as long as anything holds it, autograd's saved tensors included, so a weak
reference to that object tells when the storage is let go.
"""

from __future__ import annotations

import weakref
from typing import Any

from costmodel.graph import Storage


class Storages:
    """A register of storages, in the order in which they were first seen."""

    def __init__(self) -> None:
        self.running = -1
        """Index of the operation that runs, or ran last; -1 before the first."""
        self.maker: str | None = None
        """The layer whose operation is handing out its results: what is first seen now was made by it."""
        self._born: list[tuple[int, int, str]] = []
        self._died: dict[int, int] = {}
        self._roles: dict[int, tuple[str, str | None]] = {}
        self._index_of: dict[int, int] = {}
        self._watch: dict[int, weakref.ref[Any]] = {}

    def index(self, storage: Any) -> int:
        """The storage's number; it is given one on first sight."""
        address = storage._cdata
        index = self._index_of.get(address)
        return self._register(storage, address) if index is None else index

    def is_known(self, storage: Any) -> bool:
        """Whether it was seen before."""
        return storage._cdata in self._index_of

    def assign(self, index: int, role: str, name: str | None = None) -> None:
        """Say what a storage is for and, if not by the layer that made it, what it is called."""
        self._roles[index] = (role, name)

    def assign_others(self, role: str, alive: bool = True) -> None:
        """Give a role to those made by operations that have none yet: to those alive now, or to all."""
        for index in list(self._index_of.values()) if alive else range(len(self._born)):
            if self._born[index][1] >= 0:
                self._roles.setdefault(index, (role, None))

    def listed(self) -> tuple[Storage, ...]:
        """Every storage, by its number."""
        return tuple(self._storage(index, *born) for index, born in enumerate(self._born))

    def _storage(self, index: int, nbytes: int, birth: int, maker: str) -> Storage:
        role, name = self._roles.get(index, ("temporary", None))
        return Storage(nbytes, role, birth, self._died.get(index), maker if name is None else name)

    def _register(self, storage: Any, address: int) -> int:
        index = self._index_of[address] = len(self._born)
        made = self.maker is not None
        self._born.append((storage.nbytes(), self.running if made else -1, self.maker or ""))

        def gone(_: Any) -> None:
            self._died[index] = self.running
            del self._index_of[address], self._watch[index]

        self._watch[index] = weakref.ref(storage, gone)
        return index
