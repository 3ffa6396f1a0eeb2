"""Results -> JSON documents: raw numbers in base units, under a schema's name and version.

Every document that counts says its conventions and the versions that it was made with. Layers add up to totals.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

import costmodel
from costmodel.compare import compare_table, parts_table
from costmodel.cost import CONVENTIONS, Costs
from costmodel.graph import Trace
from costmodel.roofline import CONVENTION, Prediction, batches_table
from costmodel.view import Table

if TYPE_CHECKING:
    import pandas as pd

    from costmodel.chip.accelerator import Accelerator
    from costmodel.chip.dram import Curves, Traffic
    from costmodel.chip.evaluation import Evaluation
    from costmodel.chip.explore import Exploration
    from costmodel.chip.fusion import Fusion
    from costmodel.chip.whatif import WhatIfs
    from costmodel.devices import Device, Fact
    from costmodel.hardware.suite import Outcome
    from costmodel.memory import Fit, MemoryLevel, MemoryTimeline, MemoryWhatIfs, Overhead
    from costmodel.networks import NetworkInfo
    from costmodel.validation import Validation
    from costmodel.validation.measurement import Comparison

Document = dict[str, Any]


def to_text(document: Mapping[str, Any]) -> str:
    """A document as text that ends in a line break. Raises ValueError for a number that JSON does not have."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def analysis(costs: Costs, memory: MemoryTimeline, by: str = "layer", depth: int | None = None) -> Document:
    """`costmodel/analysis/1`: totals, layers, and what has no rule; also the sums `by` something else."""
    document = _head("analysis", costs.trace) | {
        "totals": _totals(costs) | {"peak_bytes": memory.peak_bytes},
        "layers": costs.table().records(),
        "unmodelled": _unmodelled(costs),
    }
    if by != "layer":
        document["groups"] = {"by": by, "rows": costs.table(by, depth).records()}
    return document


def prediction(
    prediction: Prediction, by: str = "layer", depth: int | None = None, sweep: Mapping[int, Prediction] | None = None
) -> Document:
    """`costmodel/prediction/1`: what each layer takes at least on a device, and what binds it; a row for each batch of
    a sweep."""
    costs, estimate = prediction.costs, prediction.estimate
    document = _head("prediction", costs.trace) | {
        "device": device(prediction.device),
        "basis": prediction.basis,
        "bound_seconds": prediction.bound_seconds,
        "estimate_seconds": prediction.estimate_seconds,
        "interval_seconds": [estimate.low_seconds, estimate.high_seconds] if estimate else None,
        "uncovered": list(prediction.uncovered),
        "totals": _totals(costs),
        "layers": prediction.table().records(),
        "parts": parts_table(costs, prediction).records(),
        "unmodelled": _unmodelled(costs),
    }
    document["conventions"] |= {"bound": CONVENTION}
    if by != "layer":
        document["groups"] = {"by": by, "rows": prediction.table(by, depth).records()}
    if sweep:
        document["sweep"] = batches_table(sweep).records()
    return document


def memory(
    memory: MemoryTimeline,
    levels: Iterable[MemoryLevel] = (),
    beside: Iterable[Overhead] = (),
    *,
    by: str = "tensor",
    depth: int | None = None,
    sweep: Table | None = None,
    fit: Fit | None = None,
    what_ifs: MemoryWhatIfs | None = None,
) -> Document:
    """`costmodel/memory/1`: the peak of live tensors, when it is reached, who holds it, what a process takes for it.

    What else was asked for stands beside it: the peak `by` layer, block or role, other batches, the largest that fits
    a device, what what-ifs save.
    """
    where = memory.peak_operation
    document = _head("memory", memory.trace) | {
        "peak_bytes": memory.peak_bytes,
        "saved_bytes": memory.saved_bytes,
        "levels": [
            {"name": level.name, "bytes": level.nbytes, "added_bytes": level.added_bytes, "assumed": level.assumed}
            for level in levels
        ],
        "assumptions": [
            {"what": overhead.what, "bytes": overhead.nbytes, "source": overhead.source} for overhead in beside
        ],
        "peak": {"operation": where.operator, "layer": where.layer, "phase": where.phase},
        "by_role": dict(memory.by_role),
        "holders": [
            {"name": h.name, "role": h.role, "bytes": h.nbytes, "shape": list(h.shape), "dtype": h.dtype}
            for h in memory.peak_tensors()
        ],
    }
    if by != "tensor":
        document["groups"] = {"by": by, "rows": memory.table(by, depth).records()}
    if sweep is not None:
        document["sweep"] = sweep.records()
    if fit is not None:
        document["fit"] = fit.table().records()[0]
    if what_ifs is not None:
        document["what_ifs"] = what_ifs.table().records()
    return document


def roofline(predictions: Sequence[Prediction], figure: PathLike[str] | None = None) -> Document:
    """`costmodel/roofline/1`: the predictions that a plot shows, and the file that it was drawn into."""
    return _versioned("roofline") | {
        "figure": None if figure is None else fspath(figure),
        "predictions": [prediction(each) for each in predictions],
    }


def comparison(
    costs: Sequence[Costs], memories: Sequence[MemoryTimeline], predictions: Sequence[Prediction] = ()
) -> Document:
    """`costmodel/comparison/1`: two networks' totals, and quantity by quantity the second against the first."""
    a, b = (
        _run(each.trace)
        | {"totals": _totals(each) | {"peak_bytes": memory.peak_bytes}, "unmodelled": _unmodelled(each)}
        for each, memory in zip(costs, memories, strict=True)
    )
    document = _versioned("comparison") | {"conventions": dict(CONVENTIONS), "a": a, "b": b}
    if predictions:
        document |= {"device": device(predictions[0].device)}
        document["conventions"] |= {"bound": CONVENTION}
    return document | {"rows": compare_table(costs, memories, predictions).records()}


def traffic(traffic: Traffic, trace: Trace) -> Document:
    """`costmodel/traffic/1`: each contraction's DRAM traffic behind each buffer, its bounds, schedule and tile."""
    from costmodel.chip.dram import CONVENTION as TRAFFIC

    curves = traffic.curves
    document = _head("traffic", trace) | {
        "word_bits": curves.widths.input_bits,
        "partial_bits": curves.widths.partial_bits,
        "double_buffer": curves.double_buffer,
        "fused": False,
        "totals": [total._asdict() for total in traffic.totals],
        "rows": traffic.table().records(),
        "smallest_buffer_bytes": curves.smallest_buffer_bytes,
        "sufficient_buffer_bytes": curves.sufficient_buffer_bytes,
        "unlowered": [asdict(lost) | {"layers": list(lost.layers)} for lost in traffic.unlowered],
    }
    document["conventions"] |= {"traffic": TRAFFIC, "tile": "batch, out channels, in channels, out rows, out columns"}
    return document


def fusion(fusions: Sequence[Fusion], curves: Curves, trace: Trace) -> Document:
    """`costmodel/traffic/1` of a network whose layers are fused: rows are groups of layers."""
    from costmodel.chip.fusion import CONVENTION as FUSED
    from costmodel.chip.fusion import fusion_table

    names = (
        "buffer_bytes",
        "dram_bytes",
        "bound_bytes",
        "compulsory_bytes",
        "layer_by_layer_bytes",
        "pooling_bytes",
        "recomputed_macs",
    )
    document = traffic(curves.at([each.buffer_bytes for each in fusions]), trace) | {
        "fused": True,
        "totals": [{name: getattr(each, name) for name in names} for each in fusions],
        "rows": fusion_table(fusions).records(),
    }
    document["conventions"] |= {
        "traffic": FUSED,
        "tile": "of one contraction: batch, out channels, in channels, out rows, out columns; of several: the last "
        "one's channels, rows, columns",
    }
    return document


def evaluation(evaluation: Evaluation, what_ifs: WhatIfs | None = None) -> Document:
    """`costmodel/chip/1`: a network on an accelerator, layer by layer: time, what binds it, energy, area."""
    from costmodel.chip.evaluation import CONVENTION as BAND

    area, energised = evaluation.area, all(layer.energy is not None for layer in evaluation.layers)
    document = _versioned("chip") | {
        "model": evaluation.model,
        "images": evaluation.images,
        "conventions": {"band": BAND, "energy": "without leakage and clock wires", "mac": CONVENTIONS["mac"]},
        "accelerator": accelerator(evaluation.accelerator),
        "totals": {
            "macs": evaluation.macs,
            "counted_share": evaluation.counted_share,
            "dram_bytes": evaluation.dram_bytes,
            "unfused_bytes": evaluation.unfused_bytes,
            "overlapped_seconds": evaluation.overlapped_seconds,
            "serial_seconds": evaluation.serial_seconds,
            "frames_per_second": evaluation.frames_per_second,
            "serial_frames_per_second": evaluation.serial_frames_per_second,
            "utilisation": evaluation.utilisation,
            "binding_seconds": evaluation.by_binding(),
            "energy_joules": evaluation.energy._asdict() if energised else None,
            "watts": evaluation.watts if energised else None,
            "frames_per_joule": evaluation.frames_per_joule if energised else None,
            "area_mm2": area._asdict() | {"total": area.total} if area else None,
            "frames_per_second_per_mm2": evaluation.frames_per_second_per_mm2 if area else None,
        },
        "layers": evaluation.table().records(),
    }
    if what_ifs is not None:
        document["what_ifs"] = what_ifs.table().records()
    return document


def designs(found: Exploration, answers: Mapping[str, Document], objective: str = "speed") -> Document:
    """`costmodel/designs/1`: a design space, and for each network its best design, its front and what is asked."""
    space = found.space
    axes = ("arrays", "dataflows", "buffers", "bandwidths", "operands", "clocks")
    return _versioned("designs") | {
        "base": accelerator(space.base),
        "space": {name: [list(v) if isinstance(v, tuple) else v for v in getattr(space, name)] for name in axes},
        "budgets": dict(found.budgets),
        "objective": objective,
        "tried": found.tried,
        "within": len(found.frame),
        "networks": dict(answers),
    }


def accelerators(found: Iterable[Accelerator]) -> Document:
    """`costmodel/accelerators/1`: the accelerators that have a name, every number with its source."""
    return _versioned("accelerators") | {"accelerators": [accelerator(each) for each in found]}


def accelerator(chip: Accelerator) -> Document:
    """One accelerator: its numbers, and their sources by the number's name."""
    own = {name: value for name, value in vars(chip).items() if name not in ("facts", "scratchpads")}
    return own | {
        "scratchpads": chip.scratchpads._asdict() if chip.scratchpads else None,
        "ridge_point": chip.ridge_point,
        "sources": _sources(chip.facts),
    }


def validation(validations: Sequence[Validation]) -> Document:
    """`costmodel/validation/1`: each number of ours beside somebody else's, and whether they agree."""
    return _versioned("validation") | {
        "ok": all(each.ok for each in validations),
        "networks": [
            {"model": each.model, "ok": each.ok, "notes": list(each.notes), "rows": each.table().records()}
            for each in validations
        ],
    }


def measured(comparisons: Sequence[Comparison]) -> Document:
    """`costmodel/measured/1`: predictions beside what was measured, layer by layer and in total."""
    return _versioned("measured") | {
        "ok": all(each.ok for each in comparisons),
        "comparisons": [
            {
                "model": each.run.model,
                "inputs": [list(shape) for shape in each.run.inputs],
                "dtype": each.run.dtype,
                "train": each.run.train,
                "measured_on": each.device_name,
                "device": device(each.prediction.device),
                "ok": each.ok,
                "basis": each.prediction.basis,
                "error": each.error,
                "weighted_error": each.weighted_error,
                "rank_correlation": each.rank_correlation,
                "coverage": each.coverage,
                "weighted_coverage": each.weighted_coverage,
                "noise": each.run.noise,
                "totals": [row._asdict() for row in each.totals],
                "layers": each.table().records(),
                "notes": list(each.notes),
            }
            for each in comparisons
        ],
    }


def suite(device: str, outcomes: Sequence[Outcome]) -> Document:
    """`costmodel/suite/1`: what a hardware suite did, and what failed."""
    from costmodel.hardware.suite import suite_table

    return _versioned("suite") | {"device": device, "steps": suite_table(outcomes).records()}


def benchmark(frame: pd.DataFrame) -> Document:
    """`costmodel/benchmark/1`: what `costmodel.bench.run` measured, and in what circumstances."""
    circumstances = {str(name): value for name, value in frame.attrs.items()}
    return _versioned("benchmark") | circumstances | {"rows": Table.from_frame(frame).records()}


def devices(found: Iterable[Device]) -> Document:
    """`costmodel/devices/1`: what each device can reach, every number with its source."""
    return _versioned("devices") | {"devices": [device(each) for each in found]}


def device(device: Device) -> Document:
    """One device: its numbers, and their sources by the number's name."""
    names = (
        "memory_bandwidth",
        "memory_bytes",
        "usable_bytes",
        "l2_bytes",
        "l3_bytes",
        "units",
        "clock_hertz",
        "launch_seconds",
    )
    return {
        "name": device.name,
        "title": device.title,
        "kind": device.kind,
        "architecture": device.architecture,
        "peaks": dict(device.peaks),
        **{name: getattr(device, name) for name in names},
        "calibration": _finite(asdict(device.calibration)) if device.calibration else None,
        "sources": _sources(device.facts),
    }


def _sources(facts: Mapping[str, Fact]) -> Document:
    """Where numbers come from, by their names."""
    return {
        name: {key: value for key, value in (fact.source._asdict() | {"note": fact.note}).items() if value}
        for name, fact in facts.items()
    }


def _finite(value: Any) -> Any:
    """A value with null for infinity (an overlap of arithmetic and traffic that is whole), which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and math.isinf(value) else value


def networks(infos: Iterable[NetworkInfo]) -> Document:
    """`costmodel/networks/1`: the networks that have a name."""
    from costmodel.networks.listing import networks_table

    return _versioned("networks") | {"networks": networks_table(infos).records()}


def _head(kind: str, trace: Trace) -> Document:
    return _versioned(kind) | _run(trace) | {"conventions": dict(CONVENTIONS), "versions": _versions(trace)}


def _versioned(kind: str) -> Document:
    return {"schema": f"costmodel/{kind}/1", "versions": _versions()}


def _run(trace: Trace) -> Document:
    """What was run on what."""
    return {
        "model": trace.model,
        "inputs": [list(spec.shape) for spec in trace.inputs],
        "dtype": trace.dtype,
        "phases": list(trace.phases),
        "target": trace.target,
        "settings": dict(trace.settings),
    }


def _versions(trace: Trace | None = None) -> dict[str, str]:
    own = {"costmodel": costmodel.__version__, "python": platform.python_version()}
    return own | dict(trace.versions if trace else {})


def _totals(costs: Costs) -> Document:
    total = costs.total
    return {
        "parameters": costs.parameters,
        "parameter_bytes": costs.parameter_bytes,
        "macs": total.macs,
        "flops": total.flops,
        "read_bytes": total.read_bytes,
        "write_bytes": total.write_bytes,
    }


def _unmodelled(costs: Costs) -> list[Document]:
    return [
        {"operator": entry.operator, "count": entry.count, "layers": list(entry.layers)} for entry in costs.unmodelled
    ]
