"""Published times of AlexNet and VGG on older GPUs beside our bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from costmodel.book.engine import Chapter
from costmodel.book.model import Table
from costmodel.book.study import title_of
from costmodel.validation.published_times import BAND, PublishedTime
from costmodel.view import Column
from costmodel.view import Table as Data


@dataclass(frozen=True)
class Numbers:
    """How published times lie to our bounds; shares are of the rate that the bound allows."""

    times: int
    low_share: float
    """The band that a tuned library lies in."""

    high_share: float
    inside: int
    beaten: int
    """Above the band, and not above the rate that the algorithm's own bound allows."""

    most_share: float
    """The most that any of them reaches."""

    untuned: int
    """Below the band, without a tuned library."""

    unexplained: int


def published(times: Sequence[PublishedTime]) -> Chapter:
    """The table of published times, and how they lie to our bounds."""
    return Chapter("published", numbers(times), {"times": Table("published-times", _table(times), folded=True)})


def numbers(times: Sequence[PublishedTime]) -> Numbers:
    """The chapter's numbers."""
    explained = [each for each in times if each.ok and not each.inside]
    beaten = [each for each in explained if each.attained > BAND[1]]
    return Numbers(
        times=len(times),
        low_share=BAND[0],
        high_share=BAND[1],
        inside=sum(each.inside for each in times),
        beaten=len(beaten),
        most_share=max(each.attained for each in times),
        untuned=len(explained) - len(beaten),
        unexplained=sum(not each.ok for each in times),
    )


_COLUMNS = (
    "network", "batch", "phase",
    Column("machine", "machine", "text", "the GPU"),
    Column("library", "library", "text", "what ran it"),
    "dtype",
    Column("published_seconds", "published", "seconds", "the published time"),
    "bound_seconds",
    Column("attained_share", "of the bound's rate", "percent", "its rate as a share of the bound's"),
    Column("winograd_bound_seconds", "Winograd's bound", "seconds", "the bound with the fewest multiplications"),
    Column("inside", "in the band", "flag", "whether it lies in the band"),
    "explanation",
)  # fmt: skip


def _table(times: Sequence[PublishedTime]) -> Data:
    return Data.of(
        _COLUMNS,
        [
            (
                title_of(each.model), each.batch, each.phase, each.gpu, each.library, each.dtype,
                each.published_seconds, each.bound_seconds, each.attained, each.executed_bound_seconds, each.inside,
                each.explanation,
            )
            for each in times
        ],
    )  # fmt: skip
