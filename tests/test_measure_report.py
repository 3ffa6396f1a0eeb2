"""Plots and the report's chapter of predictions beside records: made-up times, never measurements, unless said."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import matplotlib.text
import pytest
from msgspec.structs import replace
from torch import nn

import costmodel as cm
from costmodel import plots
from costmodel.book.benches import benches
from costmodel.book.chapters.hardware import hardware_chapter
from costmodel.book.model import Table
from costmodel.book.write import write_report
from costmodel.devices import Device
from costmodel.errors import InputError
from costmodel.hardware.record import DEFAULTS, Kernel, LayerTime, Measurement, MemoryPeaks, Run, Spread
from costmodel.validation.measurement import Comparison, compare
from costmodel.validation.sweep import BatchPoint, Sweep, bend, sweep

HOSTILE = "<b>|</script>\n`$x_1$" + "x" * 300


def measured(trace: cm.Trace, device: Device, times: float = 2.0, **changes) -> Run:
    """A run that takes `times` the bound, layer by layer."""
    prediction = cm.predict(cm.count(trace), device)
    rows: dict[tuple[str, str], float] = {}
    for each in prediction.operations:
        key = each.operation.layer, each.operation.phase
        rows[key] = rows.get(key, 0.0) + times * each.bound_seconds
    layers = tuple(
        LayerTime(*key, each, each, each, (Kernel("kernel", each, 1),)) for key, each in rows.items() if each
    )
    whole = Spread(*[sum(layer.seconds for layer in layers)] * 3, 3)
    shapes = tuple(spec.shape for spec in trace.inputs)
    run = Run(
        trace.model, shapes, shapes[0][0], trace.dtype, trace.train, dict(trace.settings),
        eager=whole, rounds=(whole.median,), kernel_time=whole, profiled=whole, layers=layers,
    )  # fmt: skip
    return replace(run, **changes)


def record(*runs: Run, name: str = "A made-up GPU", target: str = "cuda") -> Measurement:
    environment = {
        "device": {"type": target, "name": name},
        "versions": {"torch": "2.11.0"},
        "threads": 1,
        "date": "2026-11-24T00:00:00+00:00",
        "command": "costmodel measure",
    }
    return Measurement(environment, DEFAULTS, runs)


@pytest.fixture(scope="module")
def lenet() -> Comparison:
    found = cm.networks.find("lenet")
    trace = cm.trace(found.module, found.inputs(4), name="lenet")
    device = cm.device("h100")
    return compare(cm.predict(cm.count(trace), device), measured(trace, device, 4.0), "A made-up GPU")


def texts(ax) -> str:
    return "\n".join(text.get_text() for text in ax.figure.findobj(matplotlib.text.Text))


def test_each_layer_is_drawn_twice_and_joined(lenet) -> None:
    ax = plots.gaps(lenet)
    whole = sum(row.measured_seconds for row in lenet.rows)
    computing = [row for row in lenet.rows if row.measured_seconds > 0.004 * whole]
    joints = [line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_linewidth() == 0.9]
    assert len(ax.collections) == 2 * len(joints) and len(joints) == len(computing)
    for line in joints:
        predicted, seen = line.get_ydata()
        assert predicted == pytest.approx(4 * seen), "it took four times the bound"
    assert "25 %" in texts(ax) and "predicted (bound)" in texts(ax)


def test_gaps_takes_axes_and_hostile_names() -> None:
    device = cm.device("h100")
    network = nn.Sequential()
    network.add_module(HOSTILE.replace(".", ""), nn.Linear(64, 64))
    trace = cm.trace(network, (4, 64), name=HOSTILE, train=True)
    found = compare(cm.predict(cm.count(trace), device), measured(trace, device), HOSTILE)
    ax = plots.gaps(found)
    ax.figure.canvas.draw()
    assert plots.gaps(found, ax, title="mine") is ax
    nothing = compare(found.prediction, replace(found.run, layers=()), "x")
    with pytest.raises(InputError, match="nothing to draw"):
        plots.gaps(nothing)


def test_the_bend_by_hand() -> None:
    """1 ms fixed and 0.25 ms a sample: the two are equal at batch 4."""
    times = [(batch, 1e-3 + batch * 0.25e-3) for batch in (1, 2, 4, 8, 16)]
    assert bend(times) == pytest.approx(4)
    assert bend(times[:2]) is None, "two points have no bend"
    assert bend([(1, 1.0), (2, 2.0), (4, 4.0)]) is None, "nothing is fixed"
    assert bend([(1, 1.0), (2, 1.0), (4, 1.0)]) is None, "and here a sample takes no time"


def test_a_sweep_of_comparisons() -> None:
    device, module = cm.device("h100"), nn.Sequential(nn.Linear(512, 512))
    found = []
    for batch in (8, 1, 64):
        trace = cm.trace(module, (batch, 512), name="linear")
        run = measured(trace, device, 2.0, memory=MemoryPeaks(requested_bytes=1000 * batch))
        found.append((compare(cm.predict(cm.count(trace), device), run, "gpu"), 900 * batch))
    curve = sweep([each for each, _ in found], [peak for _, peak in found])
    assert [point.batch for point in curve.points] == [1, 8, 64]
    for point in curve.points:
        assert point.measured_seconds == pytest.approx(2 * point.predicted_seconds)
        assert (point.predicted_bytes, point.measured_bytes) == (900 * point.batch, 1000 * point.batch)
    assert curve.measured_bend == pytest.approx(curve.predicted_bend)
    assert curve.to_frame()["batch"].tolist() == [1, 8, 64]


def test_sweeps_mark_the_bend_and_show_memory() -> None:
    points = tuple(
        BatchPoint(batch, 1e-3 + batch * 0.25e-3, 2e-3 + batch * 0.25e-3, 2**20 * batch, 2**21 * batch)
        for batch in (1, 4, 16, 64)
    )
    throughput, memory = plots.sweeps([Sweep(HOSTILE, HOSTILE, "bound", False, points)])
    diamonds = [line.get_xdata()[0] for line in throughput.lines if line.get_marker() == "D"]
    assert diamonds == pytest.approx([4, 8])
    assert len(memory.lines) == 2
    low, high = memory.get_ylim()
    write = memory.yaxis.get_major_formatter()
    shown = [write(at) for at in memory.yaxis.get_majorticklocs() if low <= at <= high]
    assert shown == ["1 MiB", "2 MiB", "4 MiB", "8 MiB", "16 MiB", "32 MiB", "64 MiB", "128 MiB"]
    (alone,) = plots.sweeps(
        [Sweep("net", "gpu", "bound", False, tuple(p._replace(measured_bytes=None) for p in points))]
    )  # a legend that says "measured" has nothing to show there
    assert alone.get_title(loc="left") == "samples / s"
    with pytest.raises(InputError, match="at least one sweep"):
        plots.sweeps([])


@pytest.fixture
def folder(tmp_path) -> Path:
    """A report's folder with made-up records of one GPU."""
    place = tmp_path / "measurements" / "made-up"
    place.mkdir(parents=True)
    device, runs = cm.device("h100"), []
    for model, batch, train in (
        ("alexnet", 1, False),
        ("alexnet", 8, False),
        ("alexnet", 64, False),
        ("lenet", 8, True),
    ):
        network = cm.networks.find(model)
        trace = cm.trace(network.module, network.inputs(batch), name=model, train=train)
        memory = MemoryPeaks(requested_bytes=10**9, reserved_bytes=2 * 10**9)
        runs.append(measured(trace, device, 1.25, memory=memory))
    lost = replace(runs[0], model=HOSTILE)  # nobody knows this network here
    failed = replace(
        runs[0],
        batch=4096,
        inputs=((4096, 1, 224, 224),),
        failure="out of memory: 900 GiB",
        layers=(),
        kernel_time=None,
        eager=None,
    )
    record(*runs, lost, failed, name="NVIDIA H100 80GB HBM3").save(place / "record.json")
    (place / "suite.json").write_text('{"schema": "costmodel/suite/1"}')
    return tmp_path


def test_the_chapter(folder) -> None:
    (bench,) = benches(folder / "measurements")
    assert bench.device is not None and bench.device.name == "h100"
    chapter = hardware_chapter([bench], ["alexnet"])
    section, traces, published = chapter.sections
    assert traces.anchor == "gpu-traces"
    assert "is 20.0 % off on average and 20.0 % at worst" in section.answer, "1 / 1.25 - 1"
    assert "over 4 runs" in section.answer
    assert "AlexNet (book), batch " in section.answer
    assert chapter.answer.startswith(
        "On the NVIDIA H100 80GB HBM3, the bound of a whole network is 20.0 % off on average"
    )
    assert "Of 74 published times on GPUs of 2015 and 2016, 30 beat our bound" in chapter.answer
    tables = {block.name: block for block in section.blocks if isinstance(block, Table)}
    assert set(tables["measured-made-up"].data["network"]) == {"AlexNet (book)", "LeNet-5 (book)"}
    titles = [column.title for column in tables["measured-alexnet-layers-made-up"].data.columns]
    assert "bound holds" in titles and "phase" not in titles
    (curve,) = [block for block in section.blocks if getattr(block, "name", "") == "measured-batches-made-up"]
    assert re.search(r"AlexNet \(book\) from batch \d+ on, measured and predicted\.$", curve.note)
    names = {block.name for block in section.blocks if hasattr(block, "name")}
    assert names == {
        "measured-made-up", "measured-alexnet-made-up", "measured-batches-made-up", "measured-alexnet-layers-made-up",
    }  # fmt: skip
    facts = next(block for block in section.blocks if hasattr(block, "items")).items
    assert any(fact.startswith("Failed") and "4,096" in fact for fact in facts)
    (lost,) = [fact for fact in facts if "is not compared" in fact]
    assert "batch 1 forward is not compared" in lost
    assert "Of 74 published times" in published.answer and "0 are unexplained" in published.answer
    assert "No GPU" not in " ".join(getattr(block, "text", "") for block in chapter.blocks)


def test_without_records(tmp_path) -> None:
    assert benches(tmp_path / "measurements") == ()
    chapter = hardware_chapter([], ["vgg16"])
    assert "No GPU has been measured for this report yet" in " ".join(
        getattr(block, "text", "") for block in chapter.blocks
    )
    assert not hardware_chapter([], ["lenet"]).blocks


def test_a_device_that_nobody_describes(tmp_path) -> None:
    place = tmp_path / "unknown"
    place.mkdir()
    trace = cm.trace(nn.Linear(4, 4), (1, 4), name="net")
    record(measured(trace, cm.device("h100")), name=HOSTILE).save(place / "r.json")
    (bench,) = benches(tmp_path)
    assert bench.device is None
    assert any("No device file" in fact for fact in hardware_chapter([bench], []).sections[0].blocks[0].items)
    shutil.copy(Path(cm.__file__).parent / "devices" / "h100.toml", place / "device.toml")
    assert benches(tmp_path)[0].device is not None


def test_a_damaged_record_is_named(folder) -> None:
    path = folder / "measurements" / "made-up" / "record.json"
    path.write_text(path.read_text().replace('"batch": 64', '"batch": 65'))
    with pytest.raises(InputError, match=r"record.json: this measurement was changed"):
        benches(folder / "measurements")


def test_the_report_shows_them_and_is_the_same_on_every_run(folder) -> None:
    paths = write_report(["lenet"], folder, devices=["h100"])
    first = {path: path.read_bytes() for path in paths}
    assert (folder / "figures" / "measured-alexnet-made-up.png") in first
    page = (folder / "report.html").read_text()
    assert "On real hardware" in page and "<b>|" not in page
    assert write_report(["lenet"], folder, devices=["h100"]) == paths
    assert {path: path.read_bytes() for path in paths} == first
    assert (folder / "measurements" / "made-up" / "record.json").exists()
