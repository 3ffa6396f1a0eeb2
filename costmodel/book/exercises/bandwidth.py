"""How memory affects computation: its bandwidth, the batch, the memory on chip, and training against inference."""

from __future__ import annotations

import pandas as pd

from costmodel.book.exercises.words import BATCH, counted, listed, times
from costmodel.book.model import Block, Formula, Paragraph, Section, Table, code, slug
from costmodel.book.study import FC, Study
from costmodel.devices import PATHS, Device
from costmodel.roofline import Prediction
from costmodel.units import iec, percent, seconds, si

_HALF = "float16"


def bandwidth(study: Study, device: Device) -> Section:
    """How memory bandwidth and size affect the computation, in inference and in training."""
    one, many = study.prediction(device), study.prediction(device, BATCH)
    wider = device.replace(memory_bandwidth=2 * device.memory_bandwidth)
    answer = (
        f"On the {device.title}, memory traffic bounds {percent(_memory_share(one))} of {study.short}'s time at "
        f"batch 1 and {percent(_memory_share(many))} at batch {BATCH}; twice the bandwidth makes the first "
        f"{times(study.prediction(wider).speedup_over(one))} and the second "
        f"{times(study.prediction(wider, BATCH).speedup_over(many))} as fast. The fully connected layers, which move "
        f"their weights once however many images share them, take {percent(study.time_share(FC, device))} of the "
        f"bound at batch 1 and {percent(study.time_share(FC, device, BATCH))} at batch {BATCH}."
    )
    blocks: list[Block] = [
        Paragraph(
            "An operation ends neither before its arithmetic is done nor before its bytes have moved, so its bound "
            "is the longer of FLOPs / peak and bytes / bandwidth. Which of them binds is read from its arithmetic "
            "intensity, FLOPs a byte: below the ridge point, peak / bandwidth, it is memory."
        ),
        Formula(tuple(_ridges(one))),
        Table(
            f"{study.slug}-{slug(device.name)}-bounds",
            title=f"{study.title} on the {device.title}: what binds each layer",
            frame=_bounds_frame(study, device),
            note="ReLU and pooling move bytes and compute next to nothing: memory binds them at any batch. Layers that "
            "take no time are left out.",
        ),
        Table(
            f"{study.slug}-{slug(device.name)}-what-ifs",
            title=f"{study.title} on a better {device.title}",
            frame=_levers_frame(study, device),
            note=f"Two rows change one thing of the machine. {_HALF} changes two: a number is half as many bytes, and "
            "convolutions and matrix products run at another peak.",
        ),
        *_size(study, device),
        Paragraph(f"**Latency.** Operations start one after another, whatever the batch. {launches(study, device)}"),
        Paragraph(_training(study, device)),
    ]
    return Section(
        f"How does memory affect {study.short}'s computation?", tuple(blocks), answer=answer, anchor="memory-and-time"
    )


def _memory_share(prediction: Prediction) -> float:
    bound = prediction.by("binding").get("memory")
    return bound.bound_seconds / prediction.bound_seconds if bound else 0.0


def _ridges(prediction: Prediction) -> list[str]:
    """The ridge points of the paths that the network takes."""
    device = prediction.device
    used = {row.path for row in prediction.operations if row.path}
    return [
        f"{PATHS[path]:<12} {si(device.peaks[path], 'FLOP/s')} / {si(device.memory_bandwidth, 'B/s')} = "
        f"{device.ridge_points[path]:.3g} FLOP/B"
        for path in device.peaks
        if path in used
    ]


def _bounds_frame(study: Study, device: Device) -> pd.DataFrame:
    batches = {batch: study.prediction(device, batch).layers for batch in (1, BATCH)}
    return pd.DataFrame(
        [
            {"layer": layers[0].name, "kind": layers[0].kind, "path": PATHS.get(layers[0].path, "")}
            | {
                f"{name}_batch_{batch}": value
                for batch, layer in zip(batches, layers, strict=True)
                for name, value in (
                    ("arithmetic_intensity", layer.cost.arithmetic_intensity),
                    ("compute_seconds", layer.compute_seconds),
                    ("memory_seconds", layer.memory_seconds),
                    ("binding", layer.binding),
                )
            }
            for layers in zip(*batches.values(), strict=True)
            if any(layer.bound_seconds for layer in layers)
        ]
    )


def _levers_frame(study: Study, device: Device) -> pd.DataFrame:
    machines = {
        "as it is": device,
        "twice the bandwidth": device.replace(memory_bandwidth=2 * device.memory_bandwidth),
        "twice the arithmetic": device.replace(peaks={path: 2 * peak for path, peak in device.peaks.items()}),
    }
    rows = {
        name: {batch: study.prediction(machine, batch) for batch in (1, BATCH)} for name, machine in machines.items()
    }
    rows[f"{_HALF}: half the bytes a number, and {_peaks(study, device)}"] = {
        batch: study.prediction(device, batch, dtype=_HALF) for batch in (1, BATCH)
    }
    base = rows["as it is"]
    return pd.DataFrame(
        [
            {"machine": name}
            | {
                key: value
                for batch, prediction in predictions.items()
                for key, value in (
                    (f"bound_seconds_batch_{batch}", prediction.bound_seconds),
                    (f"speedup_ratio_batch_{batch}", prediction.speedup_over(base[batch])),
                )
            }
            for name, predictions in rows.items()
        ]
    )


def _peaks(study: Study, device: Device) -> str:
    """The peaks of the precision paths that contractions take in _HALF: "FP16 tensor 989 TFLOP/s"."""
    rows = study.prediction(device, dtype=_HALF).operations
    used = dict.fromkeys(row.path for row in rows if row.path and row.cost.macs)
    return listed([f"{PATHS[path]} {si(device.peaks[path], 'FLOP/s')}" for path in used])


def _size(study: Study, device: Device) -> list[Block]:
    """Which weights a cache could keep from one batch to the next."""
    cache = device.l3_bytes or device.l2_bytes
    if not cache:
        return []
    fitting = [entry for entry in study.weighted() if entry.layer.parameter_bytes <= cache]
    larger = [entry for entry in study.weighted() if entry.layer.parameter_bytes > cache]
    parameters = study.costs().parameter_bytes
    text = (
        f"**Size.** The largest cache of the {device.title} holds {iec(cache)}; the parameters take {iec(parameters)}. "
    )
    if larger:
        text += (
            "It cannot keep "
            f"{listed([f'{code(x.layer.name)} ({iec(x.layer.parameter_bytes)})' for x in larger])} from one batch to "
            f"the next; the other {len(fitting)} layers together take "
            f"{iec(sum(x.layer.parameter_bytes for x in fitting))}."
        )
    else:
        text += f"Each layer alone fits; all of them {'do' if parameters <= cache else 'do not'}."
    return [Paragraph(text + " The bounds here let nothing stay in a cache between two operations.")]


def _training(study: Study, device: Device) -> str:
    inference, step = study.costs(BATCH).total, study.costs(BATCH, train=True).total
    one, many = study.prediction(device, BATCH), study.prediction(device, BATCH, train=True)
    update = many.by("phase").get("optimizer")
    alone = study.prediction(device, 1, train=True)
    update_alone = alone.by("phase").get("optimizer")
    text = (
        "**Training.** A training step (loss, backward, and SGD with momentum and weight decay) takes "
        f"{times(step.flops / inference.flops)} the FLOPs of inference at batch {BATCH} and moves "
        f"{times(step.moved_bytes / inference.moved_bytes)} the bytes, so its bound is "
        f"{times(many.bound_seconds / one.bound_seconds)} as long, and memory binds {percent(_memory_share(many))} "
        f"of it in place of {percent(_memory_share(one))}."
    )
    if update and update_alone:
        text += (
            f" The optimizer reads and writes every parameter whatever the batch: "
            f"{percent(update_alone.bound_seconds / alone.bound_seconds)} of a step with one image, "
            f"{percent(update.bound_seconds / many.bound_seconds)} of a step with {BATCH}."
        )
    return text


def launches(study: Study, device: Device) -> str:
    """What starting the operations costs, which no bound has in: what is known of it, in a sentence or two."""
    one = study.prediction(device)
    started = sum(row.binding != "none" for row in one.operations)
    text = f"Starting the {counted(started, 'operation')} of a pass is not in it"
    if device.launch_seconds is None:
        return (
            f"{text}: what a start costs on this device is not known, but at "
            f"{seconds(one.bound_seconds / started)} each the starts alone take as long as the bound at batch 1."
        )
    taken = started * device.launch_seconds
    return (
        f"{text}: at {seconds(device.launch_seconds)} each that is {seconds(taken)}, "
        f"{times(taken / one.bound_seconds)} the bound at batch 1."
    )
