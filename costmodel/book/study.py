"""One network and what is computed about it, each thing once: what the sections of a report read."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from costmodel.book.model import plain, slug
from costmodel.cost import Costs, count
from costmodel.devices import Device
from costmodel.errors import InputError
from costmodel.formulas import CONV, FC, PARTS, REST, Weighted
from costmodel.graph import DTYPE_BYTES, Trace
from costmodel.memory import MemoryTimeline, memory_timeline
from costmodel.parts import Part, part_of_operation, parts, share, time_shares, weighted
from costmodel.roofline import Prediction, predict

if TYPE_CHECKING:
    from costmodel.networks import Network

__all__ = [
    "BATCH",
    "CONV",
    "FC",
    "PARTS",
    "REST",
    "Part",
    "Study",
    "distinct",
    "heaviest",
    "same_form",
    "title_of",
]

_T = TypeVar("_T")

BATCH = 64
"""The larger batch: big enough for the weights' traffic to be shared, small enough for every device here."""

TRAINING: Mapping[str, Any] = {"optimizer": "sgd", "optimizer_options": {"momentum": 0.9, "weight_decay": 5e-4}}
"""How a training step is taken: as AlexNet and VGG were trained, by SGD with momentum and weight decay."""


@dataclass(frozen=True, eq=False)
class Study:
    """A network at any batch: traces, costs, memory and predictions, each computed when it is first needed and kept."""

    name: str
    title: str
    trace_of: Callable[[int, bool, str | None], Trace]
    """(batch, train, dtype) -> a trace, from which all else follows."""

    network: Network | None = None
    number: str = ""
    """What tells its files from those of another network whose name gives the same ones."""

    kept: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    @property
    def short(self) -> str:
        """Its title without where it is from: "AlexNet"."""
        return self.title.partition(" (")[0]

    @property
    def slug(self) -> str:
        """Its name for files and links."""
        return slug(self.name) + self.number

    @classmethod
    def of(cls, network: Network, name: str = "", title: str = "") -> Study:
        """The study of a network that `costmodel.networks.find` found, under another name if one is given.

        Raises InputError for one that can only be traced by running it.
        """
        from costmodel.tracer import trace

        if network.needs_run:
            raise InputError(
                f"a report traces its networks without running them, which {network.name} does not allow: leave it "
                f"out, or use `costmodel analyze {network.name} --run`."
            )

        name = name or re.split(r"[/\\]", network.name)[-1]  # a file's name without its folders

        def trace_of(batch: int, train: bool, dtype: str | None) -> Trace:
            inputs = network.inputs(batch)
            training = TRAINING if train else {}
            return trace(network.module, inputs, train=train, dtype=dtype, name=name, **training)

        title = title or (network.title if network.title != network.name else name)
        return cls(name, plain(title), trace_of, network)

    @property
    def image(self) -> str:
        """The size of its first input without the batch: "1×224×224"."""
        return "×".join(map(str, self.trace().inputs[0].shape[1:]))

    @property
    def element_bytes(self) -> int:
        """The bytes of a number of the type that it runs in."""
        return DTYPE_BYTES[self.trace().dtype]

    def trace(self, batch: int = 1, train: bool = False, dtype: str | None = None) -> Trace:
        """The trace at a batch."""
        return self._once(("trace", batch, train, dtype), lambda: self.trace_of(batch, train, dtype))

    def costs(self, batch: int = 1, train: bool = False, dtype: str | None = None) -> Costs:
        """The costs at a batch."""
        return self._once(("costs", batch, train, dtype), lambda: count(self.trace(batch, train, dtype)))

    def memory(self, batch: int = 1, train: bool = False) -> MemoryTimeline:
        """Bytes over time at a batch."""
        return self._once(("memory", batch, train), lambda: memory_timeline(self.trace(batch, train)))

    def prediction(self, device: Device, batch: int = 1, train: bool = False, dtype: str | None = None) -> Prediction:
        """The bounds on a device at a batch."""
        key = ("prediction", device.title, device.memory_bandwidth, *device.peaks.items(), batch, train, dtype)
        return self._once(key, lambda: predict(self.costs(batch, train, dtype), device))

    def weighted(self, batch: int = 1) -> tuple[Weighted, ...]:
        """The convolutions and fully connected layers that ran, in order."""
        return self._once(("weighted", batch), lambda: weighted(self.costs(batch), batch))

    def parts(self) -> Mapping[str, Part]:
        """One image's convolutions, fully connected layers and the rest; they add up to the totals."""
        return self._once(("parts",), lambda: parts(self.costs()))

    def share(self, quantity: str, part: str) -> float:
        """What a part has of the whole: of "parameters", "parameter_bytes", "output_bytes" or "flops"."""
        return share(getattr(self.parts()[part], quantity), sum(getattr(p, quantity) for p in self.parts().values()))

    def time_share(self, part: str, device: Device, batch: int = 1) -> float:
        """What a part has of the forward's bound."""
        rows = self.prediction(device, batch).operations
        return time_shares(self.costs(batch), ((row.operation, row.kind, row.bound_seconds) for row in rows))[part]

    def memory_share(self, part: str, device: Device, batch: int = 1) -> float:
        """What memory binds of the time that a part has of the forward's bound."""
        part_of = part_of_operation(self.costs(batch))
        mine = [row for row in self.prediction(device, batch).operations if part_of(row.operation, row.kind) == part]
        bound = math.fsum(row.bound_seconds for row in mine if row.binding == "memory")
        return share(bound, math.fsum(row.bound_seconds for row in mine))

    def keep(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """What `make` gives, made once: for chapters that compute something of their own about a network."""
        return cast("_T", self._once(("kept", key), make))

    def _once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]


def distinct(studies: Sequence[Study]) -> list[Study]:
    """The studies with titles and slugs that tell them apart, where they had the same."""
    titles = Counter(study.title for study in studies)
    slugs: set[str] = set()
    found = []
    for study in studies:
        title = plain(study.name) if titles[study.title] > 1 else study.title
        numbers = ("" if number == 1 else str(number) for number in itertools.count(1))
        found.append(replace(study, title=title, number=next(n for n in numbers if slug(study.name) + n not in slugs)))
        slugs.add(found[-1].slug)
    return found


def same_form(studies: Sequence[Study]) -> list[Study]:
    """The networks from where the first one is (ours, torchvision, a package), or all if it is alone there."""
    form = studies[0].name.rpartition(":")[0]
    alike = [study for study in studies if study.name.rpartition(":")[0] == form]
    return alike if len(alike) > 1 else list(studies)


def heaviest(studies: Sequence[Study]) -> Study:
    """The one that computes most."""
    return max(studies, key=lambda study: study.costs().total.flops)


def title_of(model: str) -> str:
    """A network's name for people, as everywhere in a report: "VGG-16 (torchvision)"; its own where there is none."""
    return plain(_titles().get(model, model))


@cache
def _titles() -> Mapping[str, str]:
    from costmodel.networks import names

    return {info.name: info.title for info in names()}
