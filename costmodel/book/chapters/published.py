"""Published times of AlexNet and VGG on older GPUs beside our bounds, as a section of the chapter on hardware."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from costmodel.book.model import Section, Table
from costmodel.book.study import title_of
from costmodel.units import percent
from costmodel.validation.published_times import BAND, PublishedTime


def published_brief(times: Sequence[PublishedTime]) -> str:
    """How published times lie to our bounds, in a sentence."""
    beaten = sum(each.attained > BAND[1] for each in times)
    return (
        f"Of {len(times)} published times on GPUs of 2015 and 2016, {beaten} beat our bound, by multiplying less than "
        f"the definition (Winograd, FFT); {sum(not each.ok for each in times)} are unexplained."
    )


def published_section(times: Sequence[PublishedTime]) -> Section:
    """The table of published times, and how they lie to our bounds."""
    rows = [
        {
            "network": title_of(each.model),
            "batch": each.batch,
            "phase": each.phase,
            "machine": each.gpu,
            "library": each.library,
            "dtype": each.dtype,
            "published_seconds": each.published_seconds,
            "bound_seconds": each.bound_seconds,
            "attained_share": each.attained,
            "winograd_bound_seconds": each.executed_bound_seconds,
            "inside": "inside" if each.inside else "outside",
            "explanation": each.explanation,
        }
        for each in times
    ]
    inside = sum(each.inside for each in times)
    unexplained = sum(not each.ok for each in times)
    beaten = [each for each in times if each.attained > BAND[1]]
    fastest = max(times, key=lambda each: each.attained)
    answer = (
        f"Of {len(times)} published times of AlexNet and VGG on GPUs of 2015 and 2016, {inside} lie between "
        f"{percent(BAND[0], 0)} and {percent(BAND[1], 0)} of what our bound allows, {len(beaten)} beat the bound by "
        f"multiplying less than the definition asks for (up to {percent(fastest.attained, 0)} of its rate, and never "
        f"more than the algorithm's own roof), {len(times) - inside - len(beaten) - unexplained} ran without a tuned "
        f"library, and {unexplained} are unexplained."
    )
    return Section(
        "Published times of older GPUs",
        (
            Table(
                "published-times",
                title="Published times beside our bounds",
                frame=pd.DataFrame(rows),
                note="Sources: jcjohnson/cnn-benchmarks (batch 16; AlexNet is BVLC's with grouped convolutions) and "
                "soumith/convnet-benchmarks (batch 64 and 128; AlexNet is torchvision's). Forward and backward "
                "without an optimizer. Winograd's bound is that with every 3×3 and 5×5 filter multiplied as seldom as "
                f"his algorithm allows. Band: {percent(BAND[0], 0)} to {percent(BAND[1], 0)} of the bound's rate.",
                labels={
                    "inside": "band",
                    "attained_share": "of the bound's rate",
                    "winograd_bound_seconds": "Winograd's bound",
                },
                folded=True,
            ),
        ),
        answer=answer,
        anchor="hardware-published",
    )
