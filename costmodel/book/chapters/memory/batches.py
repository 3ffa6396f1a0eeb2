"""What the batch does to memory, and the largest batch that a device runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from costmodel import plots
from costmodel.book.model import Block, Figure, Section, Table
from costmodel.book.study import Study
from costmodel.devices import Device
from costmodel.memory import Fit, Scaling
from costmodel.report.captions import NOT_COUNTED

BATCHES = tuple(2**power for power in range(13))
EFFORT = 40_000
"""Operations that a search may replay: a report asks for many."""


def batch_section(growths: Mapping[Study, Mapping[bool, Scaling]], gpus: Sequence[Device]) -> Section:
    """Memory against the batch, and the largest batches that fit."""
    names = {False: "inference", True: "training"}
    sweeps = {
        f"{study.title}, {names[train]}": growth.sweep(BATCHES) for study, both in growths.items()
        for train, growth in both.items()
    }  # fmt: skip
    blocks: list[Block] = [
        Figure(
            "memory-batch",
            title="Memory against the batch, and where devices end",
            draw=lambda: plots.memory_against_batch(sweeps, gpus),
            note="Two traces give every point: bytes are affine in the batch, tensor by tensor.",
        )
    ]
    answer = ""
    if gpus:
        fits = {
            (study, train, gpu.name): growth.fit(gpu, effort=EFFORT)
            for study, both in growths.items() for train, growth in both.items() for gpu in gpus
        }  # fmt: skip
        rows = [
            {"network": study.title, "run": names[train]} | _fit_row(fit) for (study, train, _), fit in fits.items()
        ]
        blocks.append(
            Table(
                "memory-largest-batches",
                title="The largest batches that run",
                frame=pd.DataFrame(rows),
                note="The largest batch whose tensors the caching allocator still places in what the CUDA context and "
                f"cuBLAS's workspaces leave (assumed, see below). {NOT_COUNTED}{_shown(gpus)} Without retries: no "
                "segment has to be given back and asked for again in every step. By tensors alone: where their bytes "
                "fill the memory, which no batch exceeds; dividing the memory by an image's bytes gives that number, "
                "and training does not reach it. Larger ones: whether each batch up to that was tried, or only some, "
                "by bisection, so that one between them may fit.",
                labels={"bound_batch": "by tensors alone", "searched": "larger ones"},
            )
        )
        study = next(iter(growths))
        fit = fits[study, True, gpus[0].name]
        answer = (
            f"The {gpus[0].title} trains {study.short} with up to {fit.batch:,} images at once, and takes "
            f"{fits[study, False, gpus[0].name].batch:,} in inference. {NOT_COUNTED} Its tensors alone would allow "
            f"{fit.bound:,} in training: what is between is lost to gaps in the allocator's segments."
        )
    return Section(
        "What does the batch do to memory, and which one fits?",
        tuple(blocks),
        answer=answer,
        anchor="memory-batch-size",
    )


def _fit_row(fit: Fit) -> dict[str, Any]:
    return {
        "device": fit.device.title,
        "available_bytes": fit.device.available_bytes,
        "largest_batch": fit.batch,
        "batch_without_retries": fit.batch_without_retries,
        "bound_batch": fit.bound,
        "searched": "all tried" if fit.exhaustive else "bisected",
    }


def _shown(gpus: Sequence[Device]) -> str:
    """Whose memory is what the driver leaves of it."""
    known = [gpu.title for gpu in gpus if gpu.usable_bytes]
    return f" Of the {' and the '.join(known)} it is what the driver shows." if known else ""
