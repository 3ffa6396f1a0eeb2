"""The memory of a network's convolutions and fully connected layers: parameters, outputs, and a training step."""

from __future__ import annotations

from dataclasses import dataclass

from costmodel import view
from costmodel.book.chapters.arithmetic import largest
from costmodel.book.columns import OUTPUT_SHARE
from costmodel.book.engine import Chapter
from costmodel.book.model import Table
from costmodel.book.study import BATCH, CONV, FC, PARTS, Study
from costmodel.graph import OPTIMIZER, ROLES, Operation
from costmodel.memory import MemoryTimeline
from costmodel.view import Column

_STATE = ("parameter", "gradient", "optimizer state")


@dataclass(frozen=True)
class Layer:
    """What a layer holds, and what it writes for one image."""

    layer: str
    what: str
    formula: str
    parameters: int
    parameter_bytes: int
    output_sizes: tuple[int, ...]
    outputs: int
    output_bytes: int


@dataclass(frozen=True)
class Step:
    """A training step's peak."""

    batch: int
    phase: str
    state_share: float
    """Parameters, gradients and momentum."""

    next_role: str
    """What holds most of the rest."""

    next_share: float


@dataclass(frozen=True)
class Numbers:
    """The memory of one image, and of training steps."""

    network: str
    dtype: str
    holder: str
    """The part that holds most of the parameters."""

    holder_bytes: int
    holder_share: float
    parameter_bytes: int
    output_bytes: int
    conv_output_bytes: int
    fc_output_bytes: int
    parameters_ratio: float | None
    """The parameters as a multiple of one image's outputs."""

    crossing_batch: int | None
    """From how many images on the outputs are more than the parameters; None if there are no outputs."""

    largest: tuple[Layer, ...]
    steps: tuple[Step, ...]


def footprint(study: Study) -> Chapter:
    """How much memory the convolutions and fully connected layers take, and which of them dominates."""
    tables = {
        "parts": Table(f"{study.slug}-footprint", _parts(study)),
        "peaks": Table(f"{study.slug}-peaks", _peaks(study)),
    }
    return Chapter("footprint", numbers(study), tables)


def numbers(study: Study) -> Numbers:
    """What the sentences say of a network."""
    parts = study.parts()
    parameters = sum(part.parameter_bytes for part in parts.values())
    outputs = sum(part.output_bytes for part in parts.values())
    holder = max(PARTS, key=lambda name: parts[name].parameter_bytes)
    layers = []
    for entry in largest(study.weighted(), key=lambda entry: entry.layer.parameter_bytes):
        layer, sizes = entry.layer, (entry.layer.output_shape or ())[1:]
        layers.append(
            Layer(
                *(layer.name, entry.short, entry.parameter_formula, layer.parameters, layer.parameter_bytes),
                *(sizes, layer.cost.write_bytes // study.element_bytes, layer.cost.write_bytes),
            )
        )
    return Numbers(
        network=study.title,
        dtype=study.trace().dtype,
        holder=holder,
        holder_bytes=parts[holder].parameter_bytes,
        holder_share=study.share("parameter_bytes", holder),
        parameter_bytes=parameters,
        output_bytes=outputs,
        conv_output_bytes=parts[CONV].output_bytes,
        fc_output_bytes=parts[FC].output_bytes,
        parameters_ratio=parameters / outputs if outputs else None,
        crossing_batch=parameters // outputs + 1 if outputs else None,
        largest=tuple(layers),
        steps=tuple(_step(batch, study.memory(batch, train=True)) for batch in (1, BATCH)),
    )


def _step(batch: int, memory: MemoryTimeline) -> Step:
    held = memory.by_role
    rest = {role: nbytes for role, nbytes in held.items() if role not in _STATE}
    role = max(rest, key=lambda role: rest[role])
    state = sum(held.get(name, 0) for name in _STATE)
    return Step(batch, memory.peak_operation.phase, state / memory.peak_bytes, role, rest[role] / memory.peak_bytes)


def _parts(study: Study) -> view.Table:
    columns = ("part", "parameters", "parameter_bytes", "parameters_share", _OUTPUTS, OUTPUT_SHARE._replace(adds=True))
    rows = [
        (
            *(name, part.parameters, part.parameter_bytes, study.share("parameter_bytes", name)),
            *(part.output_bytes, study.share("output_bytes", name)),
        )
        for name, part in study.parts().items()
    ]
    return view.Table.of(columns, rows).summed()


_OUTPUTS = Column("output_bytes", "outputs", "bytes", "bytes that its operations write", adds=True)


def _peaks(study: Study) -> view.Table:
    """Peaks of inference and of a training step, by what holds them."""
    cases = [(batch, train) for train in (False, True) for batch in (1, BATCH)]
    memories = {case: study.memory(*case) for case in cases}
    roles = [role for role in ROLES if any(memory.by_role.get(role) for memory in memories.values())]
    held = [Column(f"{role.replace(' ', '_')}_bytes", role, "bytes", "bytes of them at the peak") for role in roles]
    peak_in = Column("peak_in", "peak in the", "text", "where the peak is")
    columns: tuple[str | Column, ...] = ("run", "batch", "peak_bytes", *held, peak_in)
    rows = [
        (
            *("training step" if train else "inference", batch, memory.peak_bytes),
            *(memory.by_role.get(role, 0) for role in roles),
            place(memory.peak_operation),
        )
        for (batch, train), memory in memories.items()
    ]
    return view.Table.of(columns, rows)


def place(operation: Operation) -> str:
    """Where an operation runs: "backward of net.4", "optimizer"."""
    return operation.phase if operation.phase == OPTIMIZER else f"{operation.phase} of {operation.layer}"
