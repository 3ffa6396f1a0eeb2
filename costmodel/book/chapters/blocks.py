"""Networks of blocks: where a summary hides their layers, and how VGG-16 and VGG-19 are built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from costmodel import view
from costmodel.book.columns import TRAINING_PEAK
from costmodel.book.engine import Chapter
from costmodel.book.model import Table
from costmodel.book.study import BATCH, Study
from costmodel.devices import Device
from costmodel.formulas import Weighted
from costmodel.graph import Module
from costmodel.view import Column


class Row(NamedTuple):
    """A line of a summary that looks at a network's top level only."""

    module: Module
    inside: tuple[Weighted, ...]
    """The convolutions and fully connected layers in it."""


def summary(study: Study) -> list[Row]:
    """The lines of a summary one level deep: the children of the outermost module that has more than one."""
    modules, path = study.trace().modules, ""
    while True:
        children = [module for module in modules if module.path and module.path.rpartition(".")[0] == path]
        if len(children) != 1:
            break
        path = children[0].path
    return [Row(child, tuple(x for x in study.weighted() if _inside(x.layer.name, child.path))) for child in children]


def _inside(name: str, path: str) -> bool:
    return name == path or name.startswith(f"{path}.")


def hides_layers(study: Study) -> bool:
    """Whether a summary one level deep shows some weighted layers and hides others in blocks."""
    rows = summary(study)
    return any(len(row.inside) > 1 for row in rows) and any(row.module.leaf and row.inside for row in rows)


@dataclass(frozen=True)
class Inside:
    """A layer in a block."""

    layer: str
    what: str
    image: str
    """The size of its output."""


@dataclass(frozen=True)
class HiddenNumbers:
    """The layers with weights that a summary of a network's top level shows, and those that it hides."""

    network: str
    layers: int
    rows: int
    """The summary's lines with weights: blocks, and layers of their own."""

    blocks: int
    shown: int
    inside: tuple[Inside, ...]
    """What stands in the blocks."""

    hidden: int


def hidden_layers(study: Study) -> Chapter:
    """Where the layers went that a summary does not show."""
    rows = [
        (
            *(row.module.path, row.module.type, row.module.output_shape, len(row.inside)),
            *("; ".join(x.short for x in row.inside), sum(x.layer.parameters for x in row.inside)),
        )
        for row in summary(study)
        if row.inside
    ]
    table = view.Table.of((_ROW, "type", "output_shape", _LAYERS, _WHAT, "parameters"), rows)
    return Chapter("hidden_layers", hidden_numbers(study), {"rows": Table(f"{study.slug}-rows", table)})


def hidden_numbers(study: Study) -> HiddenNumbers:
    """What the sentences say of a network."""
    rows = [row for row in summary(study) if row.inside]
    blocks = [row for row in rows if not row.module.leaf]
    inside = [entry for row in blocks for entry in row.inside]
    return HiddenNumbers(
        network=study.title,
        layers=sum(len(row.inside) for row in rows),
        rows=len(rows),
        blocks=len(blocks),
        shown=len(rows) - len(blocks),
        inside=tuple(Inside(entry.layer.name, entry.short, entry.image) for entry in inside),
        hidden=len(inside) - len(blocks),
    )


_ROW = Column("row", "row", "term", "dotted path of the module that a summary shows")
_LAYERS = Column("weighted_layers", "layers with weights", "count", "convolutions and fully connected layers")
_WHAT = Column("what", "what they are", "prose", "what people call such layers")


def stages(study: Study) -> list[tuple[int, int]]:
    """The convolutions and filters of each stage, a stage being what ends with a pool: the book's `arch` of a VGG."""
    found, current = [], []
    for layer in study.costs().layers:
        if layer.kind == "conv" and layer.output_shape:
            current.append(layer.output_shape[1])
        elif layer.kind == "pool" and current:
            found.append((len(current), current[-1]))
            current = []
    return found


@dataclass(frozen=True)
class Architecture:
    """A network's stages."""

    network: str
    stages: tuple[tuple[int, int], ...]
    """Convolutions and filters of each."""


@dataclass(frozen=True)
class DepthNumbers:
    """The deepest of a family against the shallowest; numbers of one image."""

    networks: tuple[Architecture, ...]
    device: str
    batch: int
    deep_convolutions: int
    shallow_convolutions: int
    more_convolutions: int
    more_parameters: int
    more_parameters_share: float
    more_flops: int
    more_flops_share: float


def depth(studies: Sequence[Study], device: Device) -> Chapter:
    """How the deeper networks of a family are built from its table, and what they cost."""
    table = Table(f"{studies[-1].slug}-family", _family(studies, device))
    return Chapter("depth", depth_numbers(studies, device), {"family": table})


def depth_numbers(studies: Sequence[Study], device: Device) -> DepthNumbers:
    """What the sentences say of a family."""
    own, more = studies[0].costs(), studies[-1].costs()
    shallow, deep = (_convolutions(study) for study in (studies[0], studies[-1]))
    return DepthNumbers(
        networks=tuple(Architecture(study.title, tuple(stages(study))) for study in studies),
        device=device.title,
        batch=BATCH,
        deep_convolutions=deep,
        shallow_convolutions=shallow,
        more_convolutions=deep - shallow,
        more_parameters=more.parameters - own.parameters,
        more_parameters_share=more.parameters / own.parameters - 1,
        more_flops=more.total.flops - own.total.flops,
        more_flops_share=more.total.flops / own.total.flops - 1,
    )


def _convolutions(study: Study) -> int:
    return sum(number for number, _ in stages(study))


def _family(studies: Sequence[Study], device: Device) -> view.Table:
    convolutions = Column("convolutions", "convolutions", "count", "how many it has")
    columns = ("network", convolutions, _LAYERS, "parameters", "macs", "flops", TRAINING_PEAK, "batch", "bound_seconds")
    rows = []
    for study in studies:
        costs = study.costs()
        work = (costs.parameters, costs.total.macs, costs.total.flops, study.memory(BATCH, train=True).peak_bytes)
        for batch in (1, BATCH):
            bound = study.prediction(device, batch).bound_seconds
            rows.append((study.title, _convolutions(study), len(study.weighted()), *work, batch, bound))
    return view.Table.of(columns, rows, across="batch")
