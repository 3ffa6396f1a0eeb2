"""The book's analytic questions about AlexNet and VGG, answered for whatever networks the report is about.

They are those of Dive into Deep Learning, sections 8.1 and 8.2, asked where they make sense.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from costmodel.book.engine import Chapter
from costmodel.book.study import Study, same_form
from costmodel.devices import Device


@dataclass(frozen=True)
class Numbers:
    """What is asked about."""

    networks: tuple[str, ...]
    network: str
    image: str
    dtype: str
    device: str


def questions(studies: Sequence[Study], device: Device) -> Chapter:
    """What stands above the questions."""
    first = studies[0]
    titles = tuple(study.title for study in same_form(studies))
    return Chapter("questions", Numbers(titles, first.title, first.image, first.trace().dtype, device.title))
