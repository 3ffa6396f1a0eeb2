"""Memory: "AlexNet has a big memory overhead", the book says. How big, when, for whom, and what would change it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from costmodel import plots
from costmodel.book.engine import Chapter
from costmodel.book.model import Figure, Table
from costmodel.book.study import BATCH, TRAINING, Study, heaviest, same_form
from costmodel.devices import Device, device
from costmodel.graph import LOSS_LAYER, OPTIMIZER_LAYER, ROLES, Trace
from costmodel.memory import Fit, MemoryTimeline, MemoryWhatIfs, Scaling, memory_what_ifs, scaling
from costmodel.memory.levels import overheads
from costmodel.memory.what_ifs import phase_peaks
from costmodel.view import Column
from costmodel.view import Table as Data

ALSO = ("rtx3090", "gtx1080ti")
"""GPUs whose largest batches are given beside those of the report's."""

BATCHES = tuple(2**power for power in range(13))
EFFORT = 40_000
"""Operations that a search for the largest batch may replay."""

_PEAK_IN = Column("peak_in", "peak in", "text", "the operation in which the peak is reached")
_STATE = ("parameter", "gradient", "optimizer state")


@dataclass(frozen=True)
class Held:
    """What a role holds at the peak."""

    role: str
    bytes: int


@dataclass(frozen=True)
class Peak:
    """The peak of a training step."""

    batch: int
    bytes: int
    parameter_ratio: float
    """As a multiple of the parameters."""

    state_share: float
    """What parameters, gradients and momentum have of it."""

    phase: str
    operator: str
    layer: str | None
    """None for the loss and the optimizer."""

    by_role: tuple[Held, ...]


@dataclass(frozen=True)
class Others:
    """The first network beside the heaviest."""

    network: str
    image_bytes: int
    """What one more image adds to the first network's peak."""

    other_image_bytes: int
    image_ratio: float
    parameter_ratio: float
    other_state_share: float


@dataclass(frozen=True)
class Largest:
    """The largest batches of the first network on the first GPU."""

    device: str
    training_batch: int
    inference_batch: int
    tensors_batch: int
    """What the tensors alone would allow in training."""

    usable: tuple[str, ...]
    """The GPUs of which a source says what the driver leaves to programs."""


@dataclass(frozen=True)
class Saving:
    """What a change saves of the peak."""

    name: str
    bytes: int


@dataclass(frozen=True)
class WhatIfs:
    """What changes to a network's training step do to its peak."""

    network: str
    peak_bytes: int
    reserved_bytes: int
    best: tuple[Saving, ...]
    useless: tuple[str, ...]
    """The names of those that save nothing."""


@dataclass(frozen=True)
class Assumed:
    """What a process is assumed to hold beside its tensors."""

    what: tuple[str, ...]
    bytes: int
    source: str


@dataclass(frozen=True)
class Numbers:
    """What the chapter says."""

    network: str
    name: str
    dtype: str
    momentum: float
    weight_decay: float
    parameter_bytes: int
    peaks: tuple[Peak, ...]
    """With one image, and with a batch."""

    activation_share: float
    saved_bytes: int
    """What autograd saves for the backward, of the batch."""

    reserved_bytes: int
    others: Others | None
    pictures: tuple[str, ...]
    """Whose timelines are drawn beside the first network's."""

    largest: Largest | None
    what_ifs: tuple[WhatIfs, ...]
    in_place_reason: str | None
    """Why an activation in place saves nothing, where it does not."""

    levels_of: tuple[str, ...]
    gpu: str | None
    """Whose levels are shown."""

    heaviest: str
    heaviest_reserved_bytes: int
    heaviest_fragmentation: float
    """The share of its reserved bytes that holds no tensor at the peak."""

    assumed: tuple[Assumed, ...]


@dataclass(frozen=True)
class Found:
    """What the chapter's numbers and tables are made of, each computed once."""

    form: Sequence[Study]
    gpus: Sequence[Device]
    growth: Mapping[tuple[Study, bool], Scaling]
    """Of the first network and the heaviest, in inference and in training."""

    fits: Mapping[tuple[Study, bool, str], Fit]
    what_ifs: Mapping[Study, MemoryWhatIfs]

    @property
    def pair(self) -> list[Study]:
        """The first network and the heaviest."""
        return list(dict.fromkeys((self.form[0], heaviest(self.form))))

    @property
    def drawn(self) -> list[Study]:
        """The networks whose timelines are drawn."""
        return list(dict.fromkeys((*self.form[:3], heaviest(self.form))))


def memory(studies: Sequence[Study], devices: Sequence[Device]) -> Chapter | None:
    """The chapter; None for a first network without weights."""
    if not same_form(studies)[0].weighted():
        return None
    found = find(studies, devices)
    return Chapter("memory", numbers(found), dict(_tables(found)), dict(_figures(found)))


def find(studies: Sequence[Study], devices: Sequence[Device]) -> Found:
    """All that the chapter needs of the networks of the first one's form."""
    form = same_form(studies)
    pair = dict.fromkeys((form[0], heaviest(form)))
    known = [each for each in (*devices, *map(device, ALSO)) if each.kind == "gpu" and each.memory_bytes]
    gpus = list({each.name: each for each in known}.values())
    growth = {(study, train): _scaling(study, train) for study in pair for train in (False, True)}
    return Found(
        form,
        gpus,
        growth,
        {(*key, gpu.name): grown.fit(gpu, effort=EFFORT) for key, grown in growth.items() for gpu in gpus},
        {study: _what_ifs(study) for study in pair if study.network is not None},
    )


def numbers(found: Found) -> Numbers:
    """The chapter's numbers."""
    first, last = found.form[0], heaviest(found.form)
    step, gpu = first.memory(BATCH, train=True), found.gpus[0] if found.gpus else None
    heavy = last.memory(BATCH, train=True).replay
    idle = [each for all_of_one in found.what_ifs.values() for each in all_of_one if each.what_if.because]
    assumed: dict[tuple[str, int], list[str]] = {}
    for each in overheads(step.trace, gpu):
        assumed.setdefault((each.source, each.nbytes), []).append(each.what)
    return Numbers(
        network=first.title,
        name=first.name,
        dtype=first.trace().dtype,
        **TRAINING["optimizer_options"],
        parameter_bytes=step.by_role["parameter"],
        peaks=tuple(_peak(first, batch) for batch in (1, BATCH)),
        activation_share=step.by_role.get("activation", 0) / step.peak_bytes,
        saved_bytes=step.saved_bytes,
        reserved_bytes=step.replay.peak_reserved_bytes,
        others=_others(found) if len(found.form) > 1 else None,
        pictures=tuple(study.title for study in found.drawn[1:]),
        largest=_largest(found) if gpu else None,
        what_ifs=tuple(_savings(study, all_of_one) for study, all_of_one in found.what_ifs.items()),
        in_place_reason=next((each.what_if.because for each in idle if not each.saving_bytes), None),
        levels_of=tuple(study.title for study in found.pair),
        gpu=gpu.title if gpu else None,
        heaviest=last.title,
        heaviest_reserved_bytes=heavy.peak_reserved_bytes,
        heaviest_fragmentation=heavy.fragmentation,
        assumed=tuple(Assumed(tuple(what), nbytes, source) for (source, nbytes), what in assumed.items()),
    )


def _peak(study: Study, batch: int) -> Peak:
    step = study.memory(batch, train=True)
    where = step.peak_operation
    roles = sorted(step.by_role.items(), key=lambda item: -item[1])
    return Peak(
        batch,
        step.peak_bytes,
        step.peak_bytes / step.by_role["parameter"],
        _state_share(study, batch),
        where.phase,
        where.operator,
        None if where.layer in (LOSS_LAYER, OPTIMIZER_LAYER) else where.layer or "the network",
        tuple(Held(role, nbytes) for role, nbytes in roles if nbytes),
    )


def _state_share(study: Study, batch: int = BATCH) -> float:
    step = study.memory(batch, train=True)
    return sum(step.by_role.get(role, 0) for role in _STATE) / step.peak_bytes


def _others(found: Found) -> Others:
    first, last = found.form[0], heaviest(found.form)
    image, other = (_image_bytes(study) for study in (first, last))
    weights, more = (study.costs().parameter_bytes for study in (first, last))
    return Others(last.title, image, other, other / image, more / weights, _state_share(last))


def _largest(found: Found) -> Largest:
    first, gpu = found.form[0], found.gpus[0]
    training, inference = (found.fits[first, train, gpu.name] for train in (True, False))
    usable = tuple(each.title for each in found.gpus if each.usable_bytes)
    return Largest(gpu.title, training.batch, inference.batch, training.bound, usable)


def _savings(study: Study, what_ifs: MemoryWhatIfs) -> WhatIfs:
    best = [each for each in what_ifs.largest_first() if (each.saving_bytes or 0) > 0][:3]
    return WhatIfs(
        study.title,
        what_ifs.memory.peak_bytes,
        what_ifs.memory.replay.peak_reserved_bytes,
        tuple(Saving(each.what_if.name, each.saving_bytes or 0) for each in best),
        tuple(each.what_if.name for each in what_ifs if each.saving_bytes == 0),
    )


def _image_bytes(study: Study) -> int:
    """What one more image than BATCH adds to the peak of a training step."""
    grown = _scaling(study, train=True)
    return grown.peak_bytes(BATCH + 1) - grown.peak_bytes(BATCH)


def _scaling(study: Study, train: bool) -> Scaling:
    return study.keep(("scaling", train), lambda: scaling(lambda batch: study.trace(batch, train)))


def _what_ifs(study: Study) -> MemoryWhatIfs:
    from costmodel.networks.variants import in_place
    from costmodel.tracer import trace

    def run(batch: int, *, inplace: bool | None = None, **options: Any) -> Trace:
        with in_place(study.network.module, inplace):  # type: ignore[union-attr]
            inputs = study.network.inputs(batch)  # type: ignore[union-attr]
            return trace(study.network.module, inputs, name=study.name, **options)  # type: ignore[union-attr]

    return memory_what_ifs(run, BATCH, train=True, **TRAINING)


def _tables(found: Found) -> Iterator[tuple[str, Table]]:
    first = found.form[0]
    present = [role for role in ROLES if any(role in first.memory(b, train=True).timeline for b in (1, BATCH))]
    roles = [Column(f"{role}_bytes".replace(" ", "_"), role, "bytes", f"bytes held as {role}") for role in present]
    phases = [
        (batch, phase, peak, *(held.get(role, 0) for role in present), place)
        for batch in (1, BATCH)
        for phase, peak, place, held in _moments(first.memory(batch, train=True))
    ]
    columns: tuple[str | Column, ...] = ("batch", "phase", "peak_bytes", *roles, _PEAK_IN)
    yield "phases", Table(f"{first.slug}-memory-phases", Data.of(columns, phases))
    holders = first.memory(BATCH, train=True).table(most=12)
    yield "holders", Table(f"{first.slug}-memory-holders", holders, folded=True)
    if len(found.form) > 1:
        image = Column("image_bytes", "an image", "bytes", "what one more image adds to the peak at the larger batch")
        columns = ("network", "parameter_bytes", image, "batch", "peak_bytes", "saved_bytes", "reserved_bytes")
        networks = [
            (study.title, study.costs().parameter_bytes, _image_bytes(study), batch, *_step(study.memory(batch, True)))
            for study in found.form
            for batch in (1, BATCH)
        ]
        yield "networks", Table("memory-networks", Data.of(columns, networks, across="batch"))
    if found.gpus:
        tensors = Column("tensors_batch", "by tensors alone", "count", "the batch whose tensors fill the memory")
        every = Column("exhaustive", "all larger tried", "flag", "whether every larger batch up to that was tried")
        fitting = ("available_bytes", "largest_batch", "batch_without_retries")
        columns = ("network", "run", "device", *fitting, tensors, every)
        fits = [
            (
                *(study.title, "training" if train else "inference", fit.device.title, fit.device.available_bytes),
                *(fit.batch, fit.batch_without_retries, fit.bound, fit.exhaustive),
            )
            for (study, train, _), fit in found.fits.items()
        ]
        yield "largest", Table("memory-largest-batches", Data.of(columns, fits))
    for study, what_ifs in found.what_ifs.items():
        yield f"what-ifs {study.title}", Table(f"{study.slug}-memory-what-ifs", _what_ifs_table(what_ifs))
    for study in found.pair:
        levels = study.memory(BATCH, train=True).levels(found.gpus[0] if found.gpus else None)
        rows = [(level.name, level.nbytes, level.added_bytes, level.adds) for level in levels]
        columns = ("level", "level_bytes", "added_bytes", "adds")
        yield f"levels {study.title}", Table(f"{study.slug}-memory-levels", Data.of(columns, rows))


def _what_ifs_table(what_ifs: MemoryWhatIfs) -> Data:
    return Data.of(
        ("what_if", "how", "saving_bytes", "peak_bytes", "reserved_bytes", "saved_bytes", "why"),
        [
            (
                *(each.what_if.name, each.what_if.how, each.saving_bytes, each.peak_bytes),
                *(each.reserved_bytes, each.saved_bytes, each.why),
            )
            for each in what_ifs.largest_first()
        ],
    )


def _step(step: MemoryTimeline) -> tuple[int, int, int]:
    return step.peak_bytes, step.saved_bytes, step.replay.peak_reserved_bytes


def _moments(step: MemoryTimeline) -> Iterator[tuple[str, int, str, Mapping[str, int]]]:
    """The first highest moment of each phase: the phase, its bytes, its place, its roles."""
    for phase, peak in phase_peaks(step).items():
        index = next(
            index
            for index, operation in enumerate(step.trace.operations)
            if operation.phase == phase and step.live_bytes[index] == peak
        )
        operation = step.trace.operations[index]
        layer = "" if operation.layer in (LOSS_LAYER, OPTIMIZER_LAYER) else f" of {operation.layer}"
        place = operation.operator.removeprefix("aten.") + layer
        yield phase, peak, place, {role: live[index] for role, live in step.timeline.items()}


def _figures(found: Found) -> Iterator[tuple[str, Figure]]:
    def timeline(study: Study) -> Figure:
        title = f"{study.title}, batch {BATCH}"
        return Figure(f"memory-{study.slug}", lambda: plots.memory(study.memory(BATCH, train=True), title=title))

    for study in found.drawn:
        yield study.title, timeline(study)
    sweeps = {
        f"{study.title}, {'training' if train else 'inference'}": grown.sweep(BATCHES).to_frame()
        for (study, train), grown in found.growth.items()
    }
    yield "batch", Figure("memory-batch", lambda: plots.memory_against_batch(sweeps, found.gpus))
