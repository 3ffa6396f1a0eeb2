"""The blocks of memory that tensors look at, from the operation that makes each to the release of its last holder.

Torch keeps one Python object for a storage as long as anything holds it, autograd's saved tensors included, so a weak
reference to that object tells when the storage is let go.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Mapping
from typing import Any

from costmodel.graph import Storage
from costmodel.tracer.torch_private import address


class _Watch(weakref.ref[Any]):
    """A weak reference to a storage that knows which one it was."""

    __slots__ = ("address", "index")
    index: int
    address: int


class Storages:
    """A register of storages, in the order in which they were first seen."""

    def __init__(self) -> None:
        self.running = -1
        """Index of the operation that runs, or ran last; -1 before the first."""
        self.producer: str | None = None
        """The layer whose operation is handing out its results: what is first seen now was made by it."""
        self.index_of: dict[int, int] = {}
        """The number of each living storage, by its address."""
        self._nbytes: list[int] = []
        self._births: list[int] = []
        self._deaths: list[int | None] = []
        self._roles: list[str | None] = []
        self._names: list[str] = []
        self._watches: list[_Watch] = []

    def index(self, storage: Any) -> int:
        """The storage's number; it is given one on first sight."""
        index = self.index_of.get(address(storage))
        return self.register(storage) if index is None else index

    def is_known(self, storage: Any) -> bool:
        """Whether it was seen before."""
        return address(storage) in self.index_of

    def birth(self, storage: Any) -> int:
        """The index of the operation that made it; -1 if it was there before the first."""
        return self._births[self.index(storage)]

    def alive_of(self, layer: str) -> list[int]:
        """The living storages that this layer's operations made."""
        return [i for i in self.index_of.values() if self._births[i] >= 0 and self._names[i] == layer]

    def assign(self, index: int, role: str, name: str | None = None) -> None:
        """Say what a storage is for and, if not by the layer that made it, what it is called.

        Where several tensors of one role lie in it, it is called by what their names have in common: "rnn.*".
        """
        before = self._names[index]
        if name is not None and name != before:
            several = self._roles[index] == role
            self._names[index] = _common(before, name) if several else name
        self._roles[index] = role

    def assign_others(self, role: str, alive: bool = True, since: int = 0) -> None:
        """Give a role to those made by operations (from `since` on) that have none: to those alive now, or to all."""
        for index in list(self.index_of.values()) if alive else range(len(self._roles)):
            if self._roles[index] is None and self._births[index] >= since:
                self._roles[index] = role

    def listed(self, saved: Mapping[int, tuple[str, ...]]) -> tuple[Storage, ...]:
        """Every storage, by its number; `saved` names the layers that saved one for the backward."""
        roles = [role or "temporary" for role in self._roles]
        savers = [saved.get(index, ()) for index in range(len(roles))]
        return tuple(map(Storage, self._nbytes, roles, self._births, self._deaths, self._names, savers))

    def register(self, storage: Any) -> int:
        """Give a storage that was not seen before its number."""
        index = self._add(storage.nbytes(), None)
        watch = _Watch(storage, self._gone)
        watch.index = index
        place = watch.address = address(storage)
        self._watches.append(watch)
        self.index_of[place] = index
        return index

    def register_dropped(self, nbytes: int) -> int:
        """Give a storage a number that the running operation makes and nobody keeps."""
        return self._add(nbytes, self.running)

    def _add(self, nbytes: int, death: int | None) -> int:
        index = len(self._nbytes)
        self._nbytes.append(nbytes)
        if self.producer is None:
            self._births.append(-1)
            self._names.append("")
        else:
            self._births.append(self.running)
            self._names.append(self.producer)
        self._deaths.append(death)
        self._roles.append(None)
        return index

    def _gone(self, watch: _Watch) -> None:
        self._deaths[watch.index] = self.running
        del self.index_of[watch.address]


def _common(first: str, second: str) -> str:
    """What two dotted names have in common: "rnn.*" for "rnn.weight" and "rnn.bias"."""
    pairs = zip(first.split("."), second.split("."), strict=False)
    return ".".join([*(part for part, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)), "*"])
