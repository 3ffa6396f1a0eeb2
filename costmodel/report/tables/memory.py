"""A run's memory: who holds the peak, what a process needs for it, which batch fits a device, and what saves some."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from costmodel.memory import PeakTensor
from costmodel.report.tables.frames import frame_of, share

if TYPE_CHECKING:
    import pandas as pd

    from costmodel.memory import Fit, MemoryLevel, MemoryTimeline, MemoryWhatIfs


def memory_table(memory: MemoryTimeline, most: int | None = None) -> pd.DataFrame:
    """One row a tensor that is alive at the peak, the largest first; beyond `most`, one row for the rest."""
    held = memory.peak_tensors()
    shown, rest = held[:most], held[len(held[:most]) :]
    rows = [*shown]
    if rest:
        rows.append(PeakTensor(f"{len(rest)} more", "", sum(tensor.nbytes for tensor in rest)))
    return frame_of(
        ("tensor", "role", "shape", "dtype", "held_bytes", "held_share"),
        (
            (
                *(held.name, held.role, held.shape or None, held.dtype, held.nbytes),
                share(held.nbytes, memory.peak_bytes),
            )
            for held in rows
        ),
    )


def peak_table(memory: MemoryTimeline, by: str, depth: int | None = None, most: int | None = None) -> pd.DataFrame:
    """One row a layer, block or role that holds bytes at the peak, the largest first; beyond `most`, the rest in one.

    Raises InputError for another `by`.
    """
    held = list(memory.by(by, depth).items())
    rest = held[len(held[:most]) :]
    rows = held[:most] + ([(f"{len(rest)} more", sum(nbytes for _, nbytes in rest))] if rest else [])
    return frame_of(
        (by, "held_bytes", "held_share"), ((name, nbytes, share(nbytes, memory.peak_bytes)) for name, nbytes in rows)
    )


def levels_table(levels: Iterable[MemoryLevel]) -> pd.DataFrame:
    """One row a way of counting the peak, from what tensors ask for to what the process holds."""
    names = ("level", "level_bytes", "added_bytes", "adds")
    return frame_of(names, ((level.name, level.nbytes, level.added_bytes, level.adds) for level in levels))


def fits_table(fits: Iterable[Fit]) -> pd.DataFrame:
    """One row a device: the largest batch that it runs, and what that takes."""
    names = (
        "device", "available_bytes", "largest_batch", "batch_without_retries", "bound_batch", "requested_bytes",
        "reserved_bytes", "process_bytes",
    )  # fmt: skip
    return frame_of(
        names,
        (
            (
                fit.device.title,
                fit.device.available_bytes,
                fit.batch,
                fit.batch_without_retries,
                fit.bound,
                fit.point.requested_bytes,
                fit.point.reserved_bytes,
                fit.point.process_bytes,
            )
            for fit in fits
        ),
    )


def memory_what_ifs_table(what_ifs: MemoryWhatIfs) -> pd.DataFrame:
    """One row a what-if, the largest saving first; what could not be run has no numbers."""
    return frame_of(
        ("what_if", "how", "saving_bytes", "peak_bytes", "reserved_bytes", "saved_bytes", "why"),
        (
            (s.what_if.name, s.what_if.how, s.saving_bytes, s.peak_bytes, s.reserved_bytes, s.saved_bytes, s.why)
            for s in what_ifs.largest_first()
        ),
    )
