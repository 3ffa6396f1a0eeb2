"""The training step that the chapter is about, of any network at any batch, traced once each."""

from __future__ import annotations

from typing import Any

from costmodel.book.exercises.words import BATCH
from costmodel.book.study import TRAINING, Study
from costmodel.graph import Trace
from costmodel.memory import MemoryWhatIfs, Scaling, TraceWith, memory_what_ifs, scaling

_STATE = ("parameter", "gradient", "optimizer state")


def state_share(study: Study, batch: int = BATCH) -> float:
    """What parameters, gradients and optimizer state have of the peak."""
    memory = study.memory(batch, train=True)
    return sum(memory.by_role.get(role, 0) for role in _STATE) / memory.peak_bytes


def growth(study: Study, train: bool) -> Scaling:
    """What inference or such a step takes at any batch."""
    return scaling(lambda batch: study.trace(batch, train))


def what_ifs_on(study: Study) -> MemoryWhatIfs:
    """What each what-if saves of the step with BATCH images."""
    return memory_what_ifs(_trace_with(study), BATCH, train=True, **TRAINING)


def _trace_with(study: Study) -> TraceWith:
    from costmodel.networks.variants import in_place
    from costmodel.tracer import trace

    network = study.network

    def run(batch: int, *, inplace: bool | None = None, **options: Any) -> Trace:
        assert network is not None
        with in_place(network.module, inplace):
            return trace(network.module, network.inputs(batch), name=study.name, **options)

    return run
