"""Real hardware: what was measured beside what is predicted, and published times of old GPUs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from costmodel.book.benches import Bench
from costmodel.book.chapters import published
from costmodel.book.chapters.gpu_traces import gpu_traces
from costmodel.book.chapters.measured import Accuracy, accuracy, measured
from costmodel.book.engine import Chapter, section
from costmodel.book.model import Section
from costmodel.validation.published_times import published_times


@dataclass(frozen=True)
class Numbers:
    """How far off whole networks are on each device, and how published times lie to our bounds."""

    devices: tuple[Accuracy, ...]
    """Those with runs that can be compared."""

    gpus: int
    """GPUs among the devices that were measured."""

    published: published.Numbers | None


def hardware_chapter(benches: Sequence[Bench], models: Iterable[str]) -> Section:
    """The chapter; what others measured where the report's networks are theirs. Empty if there is nothing to say."""
    times = published_times() if any("alexnet" in model or "vgg" in model for model in models) else ()
    if not benches and not times:
        return Section("", ())
    others = [gpu_traces(), published.published(times)] if times else []
    sections = [*map(measured, benches), *others]
    return section(
        Chapter(
            "hardware",
            Numbers(
                devices=tuple(accuracy(bench) for bench in benches if bench.compared),
                gpus=sum(bench.records[0].target == "cuda" for bench in benches),
                published=published.numbers(times) if times else None,
            ),
        ),
        map(section, sections),
    )
