"""How to cut the cost of the fully connected layers: each way as a network that is counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from costmodel.book.exercises.words import BATCH, times
from costmodel.book.model import Bullets, Paragraph, Section, Table
from costmodel.book.study import Study
from costmodel.devices import Device
from costmodel.units import iec, percent, si


def heads(variants: Mapping[Study, Sequence[Study]], device: Device) -> Section:
    """What cheaper heads save: for each network, those that differ from it in their head alone."""
    first, others = next(iter(variants.items()))
    smallest = min(others, key=lambda study: study.costs().parameters)
    own, cut = first.costs(), smallest.costs()
    peaks = first.memory(BATCH, train=True).peak_bytes, smallest.memory(BATCH, train=True).peak_bytes
    answer = (
        f"By letting fewer weights make the scores. With {_head(first, smallest)}, {first.short} keeps "
        f"{si(cut.parameters)} of {si(own.parameters)} parameters ({percent(_saved(own.parameters, cut.parameters))} "
        f"saved) and {si(cut.total.flops, 'FLOP')} of {si(own.total.flops, 'FLOP')} "
        f"({percent(_saved(own.total.flops, cut.total.flops))} saved), runs "
        f"{times(_speedup(first, smallest, device, 1))} as fast at batch 1 and "
        f"{times(_speedup(first, smallest, device, BATCH))} at batch {BATCH} (bounds on the {device.title}), and "
        f"trains in {iec(peaks[1])} in place of {iec(peaks[0])} at batch {BATCH}."
    )
    return Section(
        "How can the cost of the fully connected layers be cut?",
        (
            Bullets(
                (
                    "**Global average pooling**: each of the C last feature maps becomes one number, and one layer "
                    "with (C+1)·classes parameters scores them, in place of layers whose every output sees all "
                    "C·H·W numbers.",
                    "**1×1 convolutions**: score every pixel, then average the scores (Network in Network). FLOPs "
                    "grow with the pixels, parameters do not.",
                    "**FC layers as convolutions**: the same parameters and products, written for images of any "
                    "size. Where its bound is lower, that is a convolution's leave to use TF32, which PyTorch does "
                    "not give a matrix product.",
                    "**Smaller width**: a layer between two hidden layers shrinks with the square of their width.",
                    "**Low rank**: an O×I weight as the product of O×R and R×I, R·(I+O) in place of I·O.",
                )
            ),
            *(
                Table(
                    f"{study.slug}-heads",
                    title=f"{study.title} with other heads",
                    frame=_frame(study, cuts, device),
                    note=f"Bounds on the {device.title}; training is the peak of a step with SGD, momentum and weight "
                    f"decay at batch {BATCH}. Each saving and speed-up is against the first row.",
                    labels=_LABELS,
                )
                for study, cuts in variants.items()
            ),
            Paragraph(
                "What a cheaper head costs in accuracy is not computed here: that takes training. The widths and "
                "ranks are usual ones, not tuned ones."
            ),
        ),
        answer=answer,
        anchor="cheaper-heads",
    )


_LABELS = {
    "parameters_saved_share": "saved",
    "flops_saved_share": "saved",
    "training_peak_bytes": "training",
    "training_saved_share": "saved",
}


def _frame(study: Study, cuts: Sequence[Study], device: Device) -> pd.DataFrame:
    own, peak = study.costs(), study.memory(BATCH, train=True).peak_bytes
    return pd.DataFrame(
        [
            {
                "head": _head(study, cut),
                "parameters": cut.costs().parameters,
                "parameters_saved_share": _saved(own.parameters, cut.costs().parameters),
                "flops": cut.costs().total.flops,
                "flops_saved_share": _saved(own.total.flops, cut.costs().total.flops),
                "bound_seconds_batch_1": cut.prediction(device).bound_seconds,
                "speedup_ratio_batch_1": _speedup(study, cut, device, 1),
                f"bound_seconds_batch_{BATCH}": cut.prediction(device, BATCH).bound_seconds,
                f"speedup_ratio_batch_{BATCH}": _speedup(study, cut, device, BATCH),
                "training_peak_bytes": cut.memory(BATCH, train=True).peak_bytes,
                "training_saved_share": _saved(peak, cut.memory(BATCH, train=True).peak_bytes),
            }
            for cut in (study, *cuts)
        ]
    )


def _head(study: Study, cut: Study) -> str:
    """What distinguishes a network from the one it was made from, by their titles."""
    return "as published" if cut is study else cut.title.removeprefix(study.title).removeprefix(",").strip()


def _saved(before: float, after: float) -> float:
    return 1 - after / before


def _speedup(study: Study, cut: Study, device: Device, batch: int) -> float:
    return cut.prediction(device, batch).speedup_over(study.prediction(device, batch))
