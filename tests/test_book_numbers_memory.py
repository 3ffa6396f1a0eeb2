"""The chapter on memory and its plots: numbers by hand where they can be, and none that stays with another network."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from holding import hold
from matplotlib.figure import Figure as Drawing

from costmodel import device, networks, plots
from costmodel.book import html, markdown
from costmodel.book.chapters.memory import find, memory, numbers
from costmodel.book.chapters.memory_measured import memory_measured
from costmodel.book.engine import section as written
from costmodel.book.model import Bullets, Paragraph, Report, Section, Table
from costmodel.book.study import Study
from costmodel.cli import run
from costmodel.devices import Device
from costmodel.errors import InputError
from costmodel.graph import ROLES
from costmodel.hardware.record import Measurement, MemoryPeaks, PrecisionSettings, Run
from costmodel.memory import MemoryTimeline, memory_timeline, replay, scaling
from costmodel.tracer import trace

H200 = device("h200")


@pytest.fixture(scope="module")
def studies() -> list[Study]:
    return [Study.of(networks.find(name)) for name in ("alexnet", "vgg11")]


@pytest.fixture(scope="module")
def chapter(studies: list[Study]) -> Section:
    return memory_chapter(studies, [H200, device("xeon-icelake")])


def memory_chapter(studies: list[Study], devices: list[Device]) -> Section:
    chapter = memory(studies, devices)
    assert chapter is not None
    return written(chapter, [measured_section([], studies)])


def measured_section(records: list[Measurement], studies: list[Study] | None = None) -> Section:
    return written(memory_measured(records, studies or []))


def texts(section: Section) -> str:
    found = [section.answer]
    for block in section.blocks:
        found += [block.text] if isinstance(block, Paragraph) else []
        found += block.items if isinstance(block, Bullets) else ()
    return " ".join([*found, *map(texts, section.sections)])


def table(section: Section, name: str) -> pd.DataFrame:
    (found,) = [b for s in section.walk() for b in s.blocks if isinstance(b, Table) and b.name == name]
    return found.data.to_frame()


def test_alexnets_overhead_by_hand(chapter: Section) -> None:
    # AlexNet in the book's form has 46,764,746 parameters. With one image the optimizer's step is the peak: weights,
    # gradients, momentum and the temporaries of weight decay, one whole set each.
    frame = table(chapter, "alexnet-memory-phases").set_index(["batch", "phase"])
    row = frame.loc[(1, "optimizer")]
    for role in ("parameter", "gradient", "optimizer state", "temporary"):
        assert row[f"{role}_bytes".replace(" ", "_")] == 4 * 46_764_746
    assert row["peak_bytes"] == frame.loc[1]["peak_bytes"].max()
    assert "4.00× its parameters (178 MiB): in the optimizer, `aten._foreach_add`." in texts(chapter)
    # with 64 the backward is
    assert frame.loc[64]["peak_bytes"].idxmax() == "backward"


def test_holders_add_up(chapter: Section, studies: list[Study]) -> None:
    frame = table(chapter, "alexnet-memory-holders")
    peak = table(chapter, "alexnet-memory-phases").set_index("batch").loc[64, "peak_bytes"].max()
    assert frame["held_bytes"].sum() == peak
    assert frame["held_share"].sum() == pytest.approx(1)


def test_the_networks_beside_one_another(chapter: Section, studies: list[Study]) -> None:
    every = table(chapter, "memory-networks").set_index("network")
    frame = every[every["batch"] == 64]
    for name, row in frame.iterrows():
        study = next(study for study in studies if study.title == name)
        more, fewer = (study.memory(batch, train=True).peak_bytes for batch in (65, 64))
        assert row["image_bytes"] == more - fewer
        assert row["reserved_bytes"] > row["peak_bytes"]
    assert frame.at["VGG-11 (book)", "image_bytes"] > 10 * frame.at["AlexNet (book)", "image_bytes"]


def test_the_largest_batches_run_and_are_the_searchs(chapter: Section, studies: list[Study]) -> None:
    frame = table(chapter, "memory-largest-batches")
    assert set(frame["device"]) == {"NVIDIA H200 SXM", "NVIDIA GeForce RTX 3090", "NVIDIA GeForce GTX 1080 Ti"}
    assert (frame["batch_without_retries"] <= frame["largest_batch"]).all()
    assert (frame["largest_batch"] <= frame["tensors_batch"]).all()
    row = frame[(frame["network"] == "AlexNet (book)") & (frame["run"] == "inference")].set_index("device")
    batch = int(row.at["NVIDIA H200 SXM", "largest_batch"])
    traced = studies[0].trace(batch)
    limit = (H200.memory_bytes or 0) - 300_000_000 - (32 << 20)  # the context, and cuBLAS's workspace
    assert replay(traced, limit_bytes=limit).peak_reserved_bytes <= limit


def test_what_saves_nothing_is_named(chapter: Section) -> None:
    text = texts(chapter)
    assert "An activation in place saves nothing in training: a ReLU keeps its output" in text
    frame = table(chapter, "alexnet-memory-what-ifs").set_index("what_if")
    assert frame.at["activations in place", "saving_bytes"] == 0
    assert frame.at["no momentum", "saving_bytes"] == 4 * 46_764_746


def test_each_lever_is_a_setting_and_its_peak_has_a_place(chapter: Section) -> None:
    frame = table(chapter, "alexnet-memory-what-ifs").set_index("what_if")
    assert frame.at["optimizer tensor by tensor", "how"] == "optim.SGD(..., foreach=False)"
    assert frame["how"].all()
    # 32 images: the backward's peak falls below the optimizer's, which belongs to no layer
    assert frame.at["half the batch", "why"].endswith("; the peak moves to the optimizer.")


def test_largest_batches_say_what_they_leave_out(chapter: Section) -> None:
    missing = "Not counted: cuDNN's workspaces, and what the driver keeps of a memory for itself, where no source says"
    (section,) = [section for section in chapter.walk() if section.link == "memory-batch-size"]
    (shown,) = [block for block in section.blocks if isinstance(block, Table)]
    assert missing in chapter.answer and missing in section.answer and missing in shown.note
    assert "For the NVIDIA H200 SXM the memory is what the driver shows of it." in shown.note
    assert shown.data.to_frame().set_index("device").loc["NVIDIA H200 SXM", "available_bytes"].iloc[0] == 143_771 << 20


def test_the_command_that_is_printed_gives_the_number_beside_it(
    chapter: Section, capsys: pytest.CaptureFixture[str]
) -> None:
    found = re.search(r"`costmodel (memory [^`]+)` gives the peak of ([\d.]+ MiB)", texts(chapter))
    assert found is not None
    assert "--momentum 0.9 --weight-decay 0.0005" in found[1] and found[2] == "788 MiB"
    assert run(found[1].split()) == 0
    assert "Peak of 788 MiB" in capsys.readouterr().out


def test_the_ladder_climbs(chapter: Section) -> None:
    frame = table(chapter, "alexnet-memory-levels")
    assert frame["level"].tolist() == ["requested", "allocated", "reserved", "process"]
    assert frame["level_bytes"].is_monotonic_increasing
    assert frame["added_bytes"].sum() == frame["level_bytes"].iloc[-1]
    assert "Assumed: CUDA context" in texts(chapter)


def test_every_number_comes_from_the_network(chapter: Section) -> None:
    other = memory_chapter([Study.of(networks.find("lenet"))], [H200])

    def numbers(section: Section) -> set[str]:
        return {n for n in re.findall(r"(?<![A-Za-z])\d[\d,.]*\d", texts(section)) if len(n) > 3}

    first, second = numbers(chapter), numbers(other)
    of_the_rules = {"512", "0.9", "0.0005", "286", "300", "11.7", "32.0", "2.14", "107667", "2023", "8,519,680"}
    assert len(first - second) > 20
    assert first & second <= of_the_rules


def test_it_is_drawn_and_rendered(chapter: Section) -> None:
    report = Report("memory", (), (chapter,))
    drawings = {}
    for figure in report.figures:
        drawn = figure.draw().figure
        assert isinstance(drawn, Drawing)
        drawings[figure.name] = "<svg></svg>"
    assert "memory-alexnet" in drawings
    assert "memory-batch" in drawings
    names = [block.name for block in (*report.tables, *report.figures)]
    assert len(names) == len(set(names))
    assert "No GPU's memory has been measured yet." in markdown.render(report)
    assert "No GPU&#39;s memory has been measured yet." in html.render(report, drawings).replace("&#x27;", "&#39;")


def test_every_number_of_the_chapter_is_derived_again(studies: list[Study]) -> None:
    """From the births and deaths in the trace, from traces at neighbouring batches, and by hand."""
    found = find(studies, [H200])
    steps = {(s, b): s.trace(b, train=True) for s in studies for b in (1, 64, 65)}
    first, last = studies
    weights, momentum = 4 * 46_764_746, 4 * 46_764_746

    def peak(study: Study, batch: int) -> dict[str, Any]:
        step = steps[study, batch]
        alive = [
            [x for x in step.storages if x.birth <= at and (x.death is None or x.death >= at) and x.role != "host"]
            for at in range(len(step.operations))
        ]
        sums = [sum(x.nbytes for x in now) for now in alive]
        at = sums.index(max(sums))
        roles = Counter[str]()
        for storage in alive[at]:
            roles[storage.role] += storage.nbytes
        state = roles["parameter"] + roles["gradient"] + roles["optimizer state"]
        where = step.operations[at]
        largest = sorted(roles.items(), key=lambda item: (-item[1], ROLES.index(item[0])))
        return {
            "batch": batch,
            "bytes": max(sums),
            "parameter_ratio": max(sums) / roles["parameter"],
            "state_share": state / max(sums),
            "phase": where.phase,
            "operator": where.operator,
            "layer": where.layer if where.layer.startswith("net") else None,
            "by_role": [{"role": role, "bytes": held} for role, held in largest if held],
        }

    one, many = peak(first, 1), peak(first, 64)
    other = peak(last, 64)
    image, more = peak(first, 65)["bytes"] - many["bytes"], peak(last, 65)["bytes"] - other["bytes"]
    # VGG-11: 8 convolutions' 9,219,328 parameters, and 25088·4096 + 4096·4096 + 4096·10 weights with their biases
    vgg = 4 * (9_219_328 + 25_089 * 4096 + 4097 * 4096 + 4097 * 10)
    sizes = [memory_timeline(steps[s, 64]) for s in studies]
    fits = {train: scaling(lambda b, t=train: first.trace(b, t)).fit(H200, effort=40_000) for train in (True, False)}
    saved = sum(x.nbytes for x in steps[first, 64].storages if x.saved_by and x.role not in ("parameter", "buffer"))
    holds = {r: next((x["bytes"] for x in many["by_role"] if x["role"] == r), 0) for r in ("activation", "parameter")}
    ours = numbers(found)
    hold(
        ours,
        {
            "network": "AlexNet (book)",
            "name": "alexnet",
            "dtype": "float32",
            "momentum": 0.9,
            "weight_decay": 0.0005,
            "parameter_bytes": weights,
            "peaks": [one, many],
            "activation_share": holds["activation"] / many["bytes"],
            "saved_bytes": saved,
            "reserved_bytes": replay(steps[first, 64]).peak_reserved_bytes,
            "others": {
                "network": "VGG-11 (book)",
                "image_bytes": image,
                "other_image_bytes": more,
                "image_ratio": more / image,
                "parameter_ratio": vgg / weights,
                "other_state_share": other["state_share"],
            },
            "pictures": ["VGG-11 (book)"],
            "largest": {
                "device": "NVIDIA H200 SXM",
                "training_batch": fits[True].batch,
                "inference_batch": fits[False].batch,
                "tensors_batch": fits[True].bound,
                "usable": ["NVIDIA H200 SXM"],
            },
            "what_ifs": [
                {
                    "network": study.title,
                    "peak_bytes": peak(study, 64)["bytes"],
                    "reserved_bytes": size.replay.peak_reserved_bytes,
                    "best": [{"name": e.name, "bytes": e.bytes} for e in of.best],
                    "useless": list(of.useless),
                }
                for study, size, of in zip(studies, sizes, ours.what_ifs, strict=True)
            ],
            "in_place_reason": ours.in_place_reason,
            "levels_of": ["AlexNet (book)", "VGG-11 (book)"],
            "gpu": "NVIDIA H200 SXM",
            "heaviest": "VGG-11 (book)",
            "heaviest_reserved_bytes": replay(steps[last, 64]).peak_reserved_bytes,
            "heaviest_fragmentation": 1
            - replay(steps[last, 64]).peak_allocated_bytes / replay(steps[last, 64]).peak_reserved_bytes,
            "assumed": [{"what": list(a.what), "bytes": a.bytes, "source": a.source} for a in ours.assumed],
        },
    )
    # without momentum its tensors go; half the batch saves half of what grows with it, up to the optimizer's peak
    savings = {each.name: each.bytes for each in ours.what_ifs[0].best}
    assert savings["no momentum"] == momentum
    assert "activations in place" in ours.what_ifs[0].useless
    # CUDA's context, and for each of the two threads a workspace of 32 MiB
    assert [each.bytes for each in ours.assumed][-1] == 32 << 20 and len(ours.assumed[-1].what) == 2


# What was measured


def record(target: str = "cuda", failure: str = "", **memory: int) -> Measurement:
    settings = {"loss": "cross_entropy", "optimizer": "sgd", "momentum": 0.9}
    run = Run("lenet", ((4, 1, 28, 28),), 4, "float32", True, settings, failure, memory=MemoryPeaks(**memory))
    return Measurement({"device": {"type": target, "name": "A GPU"}, "threads": 1}, PrecisionSettings(), (run,))


def test_measured_peaks_stand_beside_the_predicted() -> None:
    network = networks.find("lenet")
    options = {"optimizer": "sgd", "optimizer_options": {"momentum": 0.9}}
    ours = memory_timeline(trace(network.module, network.inputs(4), train=True, **options)).levels()
    # a workspace for the forward's thread and one for the backward's: 8,519,680 B each, in a segment of 20 MiB
    workspaces = [2 * 8_519_680, 2 * 8_519_680, 2 * 20 * 2**20]
    beside = [level.nbytes + more for level, more in zip(ours[:3], workspaces, strict=True)]
    theirs = {f"{level.name}_bytes": most + 1000 for level, most in zip(ours[:3], beside, strict=True)}
    others = [record(), record("cpu", **theirs), record(failure="out of memory", **theirs)]
    frame = table(measured_section([*others, record(**theirs)]), "memory-measured")
    assert frame["level"].tolist() == ["requested", "allocated", "reserved"]
    assert frame["predicted_bytes"].tolist() == beside
    assert frame["workspace_bytes"].tolist() == workspaces
    assert frame["more_bytes"].tolist() == [1000] * 3
    assert set(frame["device"]) == {"A GPU"}


@pytest.mark.parametrize("records", [[], [record()], [record("cpu", requested_bytes=1)]])
def test_nothing_was_measured(records: list[Measurement]) -> None:
    section = measured_section(records)
    assert all(isinstance(block, Paragraph) for block in section.blocks)
    left_out = "or of a trace here: lenet, batch 4, float32, training step."
    assert (left_out in texts(section)) == any(each.target == "cuda" for each in records)


def test_the_trackers_peaks_stand_beside_the_predicted(studies: list[Study]) -> None:
    frame = table(measured_section([], studies), "memory-tracked")
    assert frame["batch"].tolist() == [1, 8] * 2
    assert (frame["difference_bytes"] == 0).all()
    assert (frame["predicted_bytes"] == frame["tracked_bytes"]).all()
    assert "4 training steps" in texts(measured_section([], studies))


def test_without_the_tracker_there_is_a_reason(monkeypatch: pytest.MonkeyPatch, studies: list[Study]) -> None:
    monkeypatch.setitem(sys.modules, "torch.distributed._tools.mem_tracker", None)
    section = measured_section([], studies)
    assert not [block for block in section.blocks if isinstance(block, Table)]
    assert "AlexNet is not in the comparison with torch's MemTracker: torch" in texts(section)


# Plots


def hostile(name: str) -> MemoryTimeline:
    from torch import nn

    network = nn.Sequential()
    for _ in range(3):
        network.add_module(name.replace(".", "") or "x", nn.Linear(8, 8))
    return memory_timeline(trace(network, (2, 8), train=True, loss="sum", name=name))


@pytest.mark.parametrize("name", ["<b>&amp;", "$\\frac{1}{", "line\nbreak", "x" * 300, "_^{}%--> ]]>"])
def test_hostile_names_in_plots(name: str, tmp_path: Path) -> None:
    memory = hostile(name)
    plots.save(plots.memory(memory).figure, tmp_path / "timeline")  # type: ignore[arg-type]
    swept = scaling(lambda batch: trace(networks.find("lenet").module, (batch, 1, 28, 28))).sweep([1, 2]).to_frame()
    plots.save(plots.memory_against_batch({name: swept}, [H200.replace(title=name)]).figure, tmp_path / "batch")  # type: ignore[arg-type]


def test_it_draws_on_the_axes_it_is_given() -> None:
    figure = Drawing()
    ax = figure.add_subplot()
    memory = hostile("net")
    assert plots.memory(memory, ax) is ax
    assert plots.memory(memory, reserved=False).get_ylim()[1] < plots.memory(memory).get_ylim()[1]
    with pytest.raises(InputError, match="nothing to draw"):
        plots.memory_against_batch({})


def test_the_areas_reach_the_peak() -> None:
    memory = hostile("net")
    ax = plots.memory(memory)
    tops = [float(area.get_datalim(ax.transData).y1) for area in ax.collections]
    assert max(tops) == pytest.approx(memory.peak_bytes)
