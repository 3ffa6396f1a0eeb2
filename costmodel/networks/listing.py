"""The networks that have a name: ours, ours with cheaper heads, torchvision's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from costmodel.networks.cache import keep, question, recall
from costmodel.view import Table


class NetworkInfo(NamedTuple):
    """A line in the list of networks."""

    name: str
    """What `find` takes."""

    title: str
    """Its name for people."""

    group: str
    """"book", "variants", "torchvision classification" ..."""

    input: str
    """Its inputs without the batch: "1x224x224"; several with a comma between."""

    classes: int | None
    """How many classes it tells apart; None if it has none."""


def networks_table(networks: Iterable[NetworkInfo]) -> Table:
    """One row a network that has a name."""
    return Table.of(NetworkInfo._fields, networks, title="Networks that have a name")


def names(kept: bool = True) -> list[NetworkInfo]:
    """The networks that have a name; from the user's cache folder if the list was made before, unless not `kept`."""
    asked = question(None, "names") if kept else None
    listed = recall(asked, list[NetworkInfo]) if asked else None
    if listed is None:
        from costmodel.networks.resolve import list_names

        listed = list_names()
        if asked:
            keep(asked, listed)
    return listed
