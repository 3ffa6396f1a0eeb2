"""What the chapters on chips work out about a network, once for all of them, and from which accelerator."""

from __future__ import annotations

from typing import NamedTuple

from costmodel.book.study import Study
from costmodel.chip.accelerator import Accelerator
from costmodel.chip.balance import Balance, Elasticities, balance, elasticities
from costmodel.chip.dram import Curves, traffic_curves
from costmodel.chip.evaluation import Evaluation, evaluate
from costmodel.chip.lowering import lower
from costmodel.chip.nests import Nests
from costmodel.chip.whatif import WhatIfs, what_ifs
from costmodel.errors import InputError
from costmodel.networks.resolutions import other_resolutions

BASE = "edge-npu"
"""The accelerator that designs start from: its technology, clock and types."""

AREAS = (3.0, 10.0, 30.0, 100.0)
"""Chips that an area is divided for, in mm²: a corner of a phone's chip to a small chip of its own."""

BUDGET = 10.0
"""The area that the answer speaks of."""


class Designed(NamedTuple):
    """A network and what the chapters work out about it."""

    study: Study
    nests: Nests
    curves: Curves
    balances: tuple[Balance, ...]
    evaluation: Evaluation
    elasticities: Elasticities
    what_ifs: WhatIfs

    @property
    def at_budget(self) -> Balance:
        """The division of BUDGET."""
        return self.balances[AREAS.index(BUDGET)]


def design(study: Study, base: Accelerator) -> Designed | None:
    """All of it for one image of the study's network; None if it has no contractions."""
    try:
        nests = lower(study.trace())
    except InputError:  # nothing to multiply
        return None
    ideal = base.replace(dataflow="ideal", title=base.title)
    return Designed(
        study,
        nests,
        traffic_curves(nests, widths=base.widths),
        tuple(balance(nests, ideal, area) for area in AREAS),
        evaluate(study.trace(), base),
        elasticities(nests, base),
        what_ifs(
            study.trace(), base, operands=("int16",), extra=other_resolutions(study.network) if study.network else ()
        ),
    )


def short_name(chip: Accelerator) -> str:
    """A chip's name within a sentence: what stands before its brackets, its article in lower case."""
    name = chip.title.partition(" (")[0]
    return name[0].lower() + name[1:] if name.startswith(("A ", "An ", "The ")) else name
