"""The sections of a report that show results as they are: tables, rooflines, checks, and what the words mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from costmodel import plots
from costmodel.book.exercises.words import BATCH, BEATEN, listed, times
from costmodel.book.model import Block, Bullets, Figure, Paragraph, Section, Table, code, slug
from costmodel.book.study import PARTS, Study, heaviest, same_form
from costmodel.cost import CONVENTIONS
from costmodel.devices import Device
from costmodel.report.tables import layers_table, prediction_table, total_of
from costmodel.roofline import CONVENTION
from costmodel.validation import TOTAL, ComparisonRow, Validation


def side_by_side(studies: Sequence[Study], device: Device) -> Section:
    """The networks beside each other, and what convolutions and fully connected layers have of each."""
    networks = [
        {
            "network": study.title,
            "input": study.image,
            "parameters": study.costs().parameters,
            "parameter_bytes": study.costs().parameter_bytes,
            "macs": study.costs().total.macs,
            "flops": study.costs().total.flops,
            "inference_peak_bytes": study.memory().peak_bytes,
            "training_peak_bytes": study.memory(BATCH, train=True).peak_bytes,
            "bound_seconds_batch_1": study.prediction(device).bound_seconds,
            f"bound_seconds_batch_{BATCH}": study.prediction(device, BATCH).bound_seconds,
        }
        for study in studies
    ]
    shares = [
        {"network": study.title, "part": part}
        | {f"{name}_share": study.share(name, part) for name in ("parameters", "output_bytes", "flops")}
        | {f"time_share_batch_{batch}": study.time_share(part, device, batch) for batch in (1, BATCH)}
        for study in studies
        for part in PARTS
    ]
    form = same_form(studies)
    shown = {study.title: study.prediction(device) for study in dict.fromkeys((form[0], heaviest(form)))}
    return Section(
        "The networks side by side",
        (
            Table(
                "networks",
                title="One image, unless a batch is given",
                frame=pd.DataFrame(networks),
                note=f"Inference and training are peaks of requested memory, training at batch {BATCH} with SGD, "
                f"momentum and weight decay. The bound is the least time on the {device.title}. {BEATEN}",
                labels={"inference_peak_bytes": "inference", "training_peak_bytes": "training"},
            ),
            Figure(
                "compare",
                title="Parameters against arithmetic, one image",
                draw=lambda: plots.compare({study.title: study.costs() for study in studies}),
            ),
            Table(
                "shares",
                title="What convolutions and fully connected layers have of each network",
                frame=pd.DataFrame(shares),
                note=f"Outputs are what the layers write in a forward pass; time is the bound on the {device.title}.",
                labels={"output_bytes_share": "of outputs"}
                | {f"time_share_batch_{batch}": f"of time, batch\u00a0{batch}" for batch in (1, BATCH)},
                folded=True,
            ),
            Figure(
                "shares",
                title=f"Shares of one image's parameters, traffic, arithmetic and time on the {device.title}",
                draw=lambda: plots.shares(shown),
            ),
        ),
    )


def conventions() -> Section:
    """What the words and numbers mean."""
    names = {
        "mac": "MAC",
        "flops": "FLOPs",
        "bytes": "Bytes read and written",
        "arithmetic_intensity": "Arithmetic intensity",
    }
    words = (
        *(f"**{name}**: {CONVENTIONS[key]}." for key, name in names.items() if key in CONVENTIONS),
        f"**Bound**: {CONVENTION}. No run beats it that multiplies as the definition does and moves each tensor to and "
        "from memory. Convolutions by Winograd's algorithm or by FFT multiply less and may beat it; so may data that "
        "stays in a cache; and where a device was calibrated its peaks are measured rates, which a lucky run can beat. "
        "Starting operations takes time that no bound has in.",
        "**Memory**: bytes that the program requests of the allocator; the allocator's rounding and libraries' "
        "workspaces come on top.",
        "FLOPs and rates have SI prefixes (k = 1000), memory has IEC ones (Ki = 1024).",
    )
    return Section("Conventions", (Bullets(words),))


def rooflines(studies: Sequence[Study], devices: Sequence[Device]) -> Section:
    """The networks of the first one's form on the first device, the first and the heaviest on the others."""
    form = same_form(studies)
    ends = dict.fromkeys((form[0], heaviest(form)))
    pairs = [(study, device) for device in devices for study in (form if device is devices[0] else ends)]

    def figure(study: Study, device: Device) -> Figure:
        batches = [study.prediction(device, batch) for batch in (1, BATCH)]
        return Figure(
            f"roofline-{study.slug}-{slug(device.name)}",
            title=f"{study.title} on the {device.title}, batch 1 and {BATCH}",
            draw=lambda: plots.roofline(batches, title=f"{study.title} on the {device.title}"),
        )

    return Section(
        "Rooflines",
        (
            Paragraph(
                "A point is a layer: across, the FLOPs it does for a byte it moves; up, the rate that its bound "
                "allows. Left of the ridge point memory binds it, right of it arithmetic. Filled points are one "
                f"image, hollow ones a batch of {BATCH}. {_movement(form[0])}"
            ),
            *(figure(study, device) for study, device in pairs),
            *_facts(devices),
        ),
    )


def _facts(devices: Sequence[Device]) -> list[Table]:
    """Every number of the devices, with its source."""
    rows = [
        {
            "device": device.title,
            "quantity": name.removeprefix("peaks."),
            "value": int(fact.value) if fact.value >= 1 else fact.value,
        }
        | {"source": fact.source.title, "date": fact.source.date, "note": fact.note}
        for device in devices
        for name, fact in device.facts.items()
    ]
    if not rows:
        return []
    title = "The devices' numbers and where they come from"
    note = "Peaks are those of dense arithmetic. The CSV has FLOP/s, B/s, bytes, Hz and seconds."
    return [
        Table("devices", title=title, frame=pd.DataFrame(rows), note=note, labels={"source": "source"}, folded=True)
    ]


def _movement(study: Study) -> str:
    """How far a larger batch moves the layers to the right."""
    factors: dict[str, list[float]] = {}
    for one, many in zip(study.weighted(), study.weighted(BATCH), strict=True):
        factor = many.layer.cost.arithmetic_intensity / one.layer.cost.arithmetic_intensity
        factors.setdefault(one.part, []).append(factor)
    moved = [f"its {part} by {times(min(found))} to {times(max(found))}" for part, found in factors.items()]
    if not moved:
        return ""
    return (
        f"The batch moves {study.short} to the right, {listed(moved)}: the further, the larger the weights' part of a "
        "layer's traffic."
    )


def checks(validations: Mapping[Study, Validation]) -> Section:
    """Our counts against other programs' and published numbers; the section is empty if nothing was compared."""
    rows = [(study, row) for study, validation in validations.items() for row in validation.rows]
    totals = [(study, row) for study, row in rows if row.layer == TOTAL]
    tables = {
        "checks-differing": ("Totals that differ", [(study, row) for study, row in totals if row.difference]),
        "checks-totals": ("All totals", totals),
        "checks-layers": ("Layers that differ", [(s, row) for s, row in rows if row.difference and row.layer != TOTAL]),
    }
    blocks: list[Block] = [
        Table(
            name,
            title=title,
            frame=pd.DataFrame([_check(*entry) for entry in chosen]),
            folded=name != "checks-differing",
        )
        for name, (title, chosen) in tables.items()
        if chosen
    ]
    notes = dict.fromkeys(f"{note}." for validation in validations.values() for note in validation.notes)
    blocks += [Bullets(tuple(notes))] if notes else []
    equal = sum(not row.difference for _, row in rows)
    explained = sum(row.ok for _, row in rows) - equal
    return Section(
        "Checks against other programs and published numbers",
        tuple(blocks),
        answer=f"Of {len(rows):,} numbers, layer by layer and in total, {equal:,} are equal, {explained:,} differ for "
        f"a reason that is known to the unit, and {len(rows) - equal - explained:,} are unexplained.",
    )


def _check(study: Study, row: ComparisonRow) -> dict[str, object]:
    verdict = "agrees" if not row.difference else "explained" if row.ok else "differs"
    where = {} if row.layer == TOTAL else {"layer": row.layer}
    numbers = {"ours": row.ours, "peer": row.peer, "difference": row.difference}
    what = {"quantity": f"{row.quantity} {row.phase}".strip().replace("_", " "), "source": row.source}
    return {"network": study.title, **where, **what, **numbers, "verdict": verdict, "explanation": row.explanation}


def layer_tables(studies: Sequence[Study], device: Device) -> Section:
    """Every layer of every network, with the book's formula for its parameters."""
    return Section(
        "Layer by layer",
        (
            Paragraph(
                "One image. Beside the parameters of a convolution stands (F²·C+1)·K, for K filters of F×F over C "
                "input channels, and beside those of a fully connected layer (I+1)·O, for I inputs and O outputs; "
                "the 1 is the bias."
            ),
            *(
                Table(
                    f"{study.slug}-layers",
                    title=study.title,
                    frame=_layers_frame(study, device),
                    note=f"{_unmodelled(study)}Bound: one image on the {device.title}.",
                    total=True,
                    folded=True,
                )
                for study in studies
            ),
        ),
    )


def _layers_frame(study: Study, device: Device) -> pd.DataFrame:
    counts, bounds = layers_table(study.costs()), prediction_table(study.prediction(device))
    own = ["layer", "type", "output_shape", "parameter_formula", "parameters", "macs", "flops"]
    timed = ["moved_bytes", "arithmetic_intensity", "bound_seconds", "binding"]
    frame = pd.concat([counts[own], bounds[timed]], axis="columns").astype(object)
    return pd.concat([frame, pd.DataFrame([total_of(frame)], dtype=object)], ignore_index=True)


def _unmodelled(study: Study) -> str:
    missing = study.costs().unmodelled
    if not missing:
        return ""
    names = listed([f"{code(entry.operator)} ({entry.count} times)" for entry in missing])
    return f"**Not counted**, for want of a rule: {names}; the sums are too low by what these compute. "
