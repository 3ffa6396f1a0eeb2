"""The report's title, what matters most about its networks, and its last line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from costmodel.book.engine import Chapter
from costmodel.book.study import BATCH, CONV, FC, Study, heaviest, same_form
from costmodel.devices import Device


@dataclass(frozen=True)
class Heaviest:
    """The network that computes most, as multiples of the first one."""

    network: str
    parameters_ratio: float
    flops_ratio: float
    peak_ratio: float


@dataclass(frozen=True)
class Numbers:
    """What the opening says; times are bounds on the device, shares are of the fully connected layers."""

    networks: tuple[str, ...]
    """All of them, without where they are from, each name once."""

    network: str
    dtype: str
    parameters: int
    flops: int
    fc_parameters_share: float
    conv_flops_share: float
    device: str
    batch: int
    bound_seconds: float
    batch_bound_seconds: float
    fc_time_share: float
    batch_fc_time_share: float
    fc_once: bool
    """Whether what they move once a batch is why their share falls: memory binds most of their time at batch 1."""

    peak_bytes: int
    """Of a training step of that batch."""

    peak_ratio: float | None
    """The same as a multiple of the parameters' bytes."""

    heaviest: Heaviest | None
    versions: Mapping[str, str]


def opening(studies: Sequence[Study], device: Device) -> Chapter:
    """The title, the lead and the footer of a report."""
    first = studies[0]
    last = heaviest(same_form(studies))
    return Chapter("opening", numbers(studies, first, None if last is first else last, device))


def numbers(studies: Sequence[Study], first: Study, last: Study | None, device: Device) -> Numbers:
    """What it says of the first network, and of the heaviest, if that is another."""
    costs, peak = first.costs(), first.memory(BATCH, train=True).peak_bytes
    shares = first.time_share(FC, device), first.time_share(FC, device, BATCH)
    more = (
        None
        if last is None
        else Heaviest(
            last.title,
            last.costs().parameters / costs.parameters,
            last.costs().total.flops / costs.total.flops,
            last.memory(BATCH, train=True).peak_bytes / peak,
        )
    )
    return Numbers(
        networks=tuple(dict.fromkeys(study.short for study in studies)),
        network=first.title,
        dtype=first.trace().dtype,
        parameters=costs.parameters,
        flops=costs.total.flops,
        fc_parameters_share=first.share("parameters", FC),
        conv_flops_share=first.share("flops", CONV),
        device=device.title,
        batch=BATCH,
        bound_seconds=first.prediction(device).bound_seconds,
        batch_bound_seconds=first.prediction(device, BATCH).bound_seconds,
        fc_time_share=shares[0],
        batch_fc_time_share=shares[1],
        fc_once=shares[0] > shares[1] and first.memory_share(FC, device) > 0.5,
        peak_bytes=peak,
        peak_ratio=peak / costs.parameter_bytes if costs.parameter_bytes else None,
        heaviest=more,
        versions=first.trace().versions,
    )
