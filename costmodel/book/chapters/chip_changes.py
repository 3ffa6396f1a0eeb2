"""What changing the network, its types or its batch would do on the same chip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from costmodel.book.chapters.chip_study import Designed
from costmodel.book.engine import Chapter
from costmodel.book.model import Table
from costmodel.chip.whatif import WhatIfOutcome


@dataclass(frozen=True)
class Helped:
    """The change that helps a network most; other resolutions, which see less, are none."""

    network: str
    key: str
    change: str
    speedup: float


@dataclass(frozen=True)
class Numbers:
    """What helps most."""

    networks: tuple[Helped, ...]


def changes(designed: Sequence[Designed]) -> Chapter:
    """What each change would do, and which one helps a network most."""
    tables = {each.study.slug: Table(f"{each.study.slug}-what-if", each.what_ifs.table()) for each in designed}
    return Chapter("chip_changes", Numbers(tuple(map(_helped, designed))), tables)


def _helped(each: Designed) -> Helped:
    def speedup(outcome: WhatIfOutcome) -> float:
        return outcome.speedup

    best = max((outcome for outcome in each.what_ifs.outcomes[1:] if "resolution" not in outcome.change), key=speedup)
    return Helped(each.study.title, each.study.slug, best.change, best.speedup)
