"""Plots: labels that do not collide, hostile names, the caller's axes and settings, the same bytes on every run."""

from __future__ import annotations

import itertools
import re
from functools import cache
from pathlib import Path

import matplotlib as mpl
import pytest
import torch
import torchvision
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.path import Path as MplPath
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from costmodel import plots
from costmodel.cost import Cost, Costs, OperationCost, count
from costmodel.devices import device
from costmodel.errors import InputError
from costmodel.graph import Module, Operation, Parameter, TensorSpec, Trace
from costmodel.roofline import Prediction, predict
from costmodel.tracer import trace

HOSTILE = (
    "<b>&amp;",
    "</script><script>alert(1)</script>",
    "$\\frac{1}{",
    "a|b",
    "x" * 300,
    "line\nbreak",
    "_^{}%--> ]]>",
    "",
)


@cache
def costs(name: str, batch: int = 1, train: bool = False) -> Costs:
    with torch.device("meta"):
        network = getattr(torchvision.models, name)()
    return count(trace(network, (batch, 3, 224, 224), train=train, name=name))


def made(names: tuple[str, ...], model: str = "net") -> Costs:
    """Layers with these names, of every intensity from 0.1 to 1000 FLOPs a byte."""
    tensor = TensorSpec((1,), "float32", (1,), 0)
    entries = []
    for index, name in enumerate(names):
        operation = Operation("aten.convolution", name, "forward", {"input": tensor}, (tensor,), {})
        bytes_ = 10 ** (10 - index % 5)
        entries.append(OperationCost(operation, "conv", Cost(macs=5 * 10**8, read_bytes=bytes_)))
    modules = tuple(Module(name, "Conv2d", True, 1) for name in names)
    parameters = tuple(Parameter(f"{name}.weight", name, tensor) for name in names)
    operations = tuple(entry.operation for entry in entries)
    return Costs(Trace(model, operations, (), modules, parameters, (tensor,), (), "float32"), tuple(entries))


def texts(ax: Axes) -> list[Annotation]:
    """What is written inside the axes, upright: labels of layers and of roofs."""
    inside = [child for child in ax.get_children() if isinstance(child, Annotation) and child.get_text()]
    return [text for text in inside if text.xycoords == "data" and not text.get_rotation()]


def box_of(text: Annotation) -> Bbox:
    """Where a text stands on the canvas, without its leader."""
    text.get_window_extent()  # moves it to its place
    return Text.get_window_extent(text)


def overlapping(ax: Axes) -> list[tuple[str, str]]:
    """The pairs of texts of which one covers the other, on the drawn figure."""
    ax.figure.draw_without_rendering()
    boxes = [(text.get_text(), box_of(text)) for text in texts(ax)]
    return [
        (one, two)
        for (one, a), (two, b) in itertools.combinations(boxes, 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 0.5 and min(a.y1, b.y1) - max(a.y0, b.y0) > 0.5
    ]


@pytest.mark.parametrize("on", ["h200", "v100", "gtx1080", "xeon-icelake"])
@pytest.mark.parametrize(("name", "batch", "train"), [("alexnet", 1, False), ("vgg19", 64, False), ("vgg19", 1, True)])
def test_no_two_labels_of_a_roofline_overlap(name: str, batch: int, train: bool, on: str) -> None:
    ax = plots.roofline(predict(costs(name, batch, train), device(on)))
    assert not overlapping(ax)
    frame = ax.get_window_extent()
    for text in texts(ax):
        box = box_of(text)
        assert box.x0 >= frame.x0 - 1 and box.x1 <= frame.x1 + 1 and box.y1 <= frame.y1 + 1, text.get_text()


def leaders(ax: Axes) -> dict[str, MplPath]:
    """The lines from labels to their points, on the drawn figure."""
    ax.figure.draw_without_rendering()
    found = {}
    for text in texts(ax):
        if text.arrow_patch is not None:
            found[text.get_text()] = text.arrow_patch.get_transform().transform_path(text.arrow_patch.get_path())
    return found


@pytest.mark.parametrize("on", ["h200", "v100", "xeon-icelake"])
def test_no_leader_crosses_another_or_runs_through_a_label(on: str) -> None:
    ax = plots.roofline([predict(costs("vgg19", batch), device(on)) for batch in (1, 64)])
    lines = leaders(ax)
    assert lines
    for (one, a), (two, b) in itertools.combinations(lines.items(), 2):
        assert not a.intersects_path(b, filled=False), (one, two)
    for text in texts(ax):
        inside = box_of(text).padded(-2)
        others = {name: line for name, line in lines.items() if name != text.get_text()}
        assert not [name for name, line in others.items() if line.intersects_bbox(inside, filled=False)]


@pytest.mark.parametrize("on", ["h200", "gtx1080"])
@pytest.mark.parametrize("batch", [1, 64])
def test_every_heavy_layer_of_alexnet_is_named(on: str, batch: int) -> None:
    prediction = predict(costs("alexnet", batch), device(on))
    written = " ".join(text.get_text() for text in texts(plots.roofline(prediction)))
    for layer in prediction.layers:
        if layer.cost.macs and layer.bound_seconds > 0.005 * prediction.bound_seconds:
            assert re.search(rf"\b{re.escape(layer.name)} ", written), layer.name


def test_each_layer_stands_under_its_roof_and_its_area_is_its_share() -> None:
    # half an image's work at 1 FLOP/byte, memory-bound: 1e9 FLOPs / (1e9 bytes / 4.8e12 B/s) = 4.8e12 FLOP/s;
    # the other at 1000 FLOP/byte under TF32: 494.7e12 FLOP/s. Times 208.333 us and 2.021427 us: shares 99.04 %, 0.96 %
    pair = made(("slow", "fast"))
    tensor = TensorSpec((1,), "float32", (1,), 0)
    operation = {
        name: Operation("aten.convolution", name, "forward", {"x": tensor}, (tensor,), {}) for name in ("slow", "fast")
    }
    work = {"slow": Cost(macs=5 * 10**8, read_bytes=10**9), "fast": Cost(macs=5 * 10**8, read_bytes=10**6)}
    entries = tuple(OperationCost(operation[name], "conv", work[name]) for name in work)
    ax = plots.roofline(predict(Costs(pair.trace, entries), device("h200")))
    markers = sorted((tuple(c.get_offsets()[0]), float(c.get_sizes()[0])) for c in ax.collections)
    assert [point for point, _ in markers] == [pytest.approx((1.0, 4.8e12)), pytest.approx((1000.0, 494.7e12))]
    assert markers[0][1] / 2200 == pytest.approx(208.3333 / (208.3333 + 2.021427), rel=1e-5)


def test_roofs_and_ridges_are_labelled_with_what_stands_under_them() -> None:
    written = [text.get_text() for text in texts(plots.roofline(predict(costs("alexnet"), device("h200"))))]
    assert "TF32 tensor 495 TFLOP/s (convolutions)" in written
    assert any(text.startswith("FP32 66.9 TFLOP/s (matrix products") for text in written)
    assert {"ridge 103 FLOP/byte", "ridge 13.9 FLOP/byte"} <= set(written)


def test_roofs_with_one_peak_are_one_line() -> None:
    # an RTX 3090 has 35.6 TFLOP/s in float32 and in TF32
    written = [text.get_text() for text in texts(plots.roofline(predict(costs("alexnet"), device("rtx3090"))))]
    assert sum("35.6 TFLOP/s" in text for text in written) == 1
    assert sum(text.startswith("ridge") for text in written) == 1


def test_the_convention_stands_under_the_plot_unless_told_otherwise() -> None:
    prediction = predict(costs("alexnet"), device("h200"))

    def notes(ax: Axes) -> list[str]:
        return [" ".join(child.get_text().split()) for child in ax.texts if "unfused" in child.get_text()]

    (note,) = notes(plots.roofline(prediction))
    assert "2 x MACs + vector FLOPs" in note and "bound 53.5 µs" in note
    assert not notes(plots.roofline(prediction, note=False))


def test_several_predictions_share_the_axes() -> None:
    h200, v100 = (predict(costs("alexnet"), device(name)) for name in ("h200", "v100"))
    ax = plots.roofline([h200, v100])
    assert not overlapping(ax)
    written = " ".join(text.get_text() for text in texts(ax))
    assert "h200: " in written and "v100: " in written
    assert "h200: classifier.1" in written and "v100: classifier.1" in written  # whose a layer is
    for wrong in ([], [h200] * 4):
        with pytest.raises(InputError, match="one to 3"):
            plots.roofline(wrong)


def every_plot(prediction: Prediction) -> list[Axes]:
    return [
        plots.roofline(prediction),
        plots.roofline([prediction, prediction]),
        plots.shares([prediction, prediction]),
        plots.layers(prediction, "bound_seconds"),
        *plots.layer_panels(prediction),
        plots.compare({prediction.costs.trace.model: prediction.costs}),
    ]


def test_hostile_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    prediction = predict(made(HOSTILE, model="<script>$x$\n" * 20), device("h200"))
    for index, ax in enumerate(every_plot(prediction)):
        svg, png = plots.save(ax.figure, tmp_path / f"plot{index}")
        text = svg.read_text(encoding="utf-8")
        assert "<script" not in text and "<b>" not in text
        assert png.read_bytes().startswith(b"\x89PNG")
        longest = max((len(line) for child in ax.texts for line in child.get_text().split("\n")), default=0)
        assert longest < 250


def test_networks_without_layers_or_without_arithmetic() -> None:
    for layers in ((), ("a",)):
        nothing = Costs(made(layers).trace, ())
        prediction = predict(nothing, device("h200"))
        assert plots.roofline(prediction) and plots.shares(prediction) and plots.layers(prediction)
        with pytest.raises(InputError, match="arithmetic"):
            plots.compare([nothing])


def test_saving_twice_writes_the_same_bytes_and_leaves_nothing_else(tmp_path: Path) -> None:
    prediction = predict(costs("alexnet"), device("h200"))
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for draw in (plots.roofline, plots.shares):
            plots.save(draw(prediction).figure, tmp_path / folder / draw.__name__)
    one, two = (sorted((tmp_path / folder).iterdir()) for folder in ("one", "two"))
    assert [path.name for path in one] == ["roofline.png", "roofline.svg", "shares.png", "shares.svg"]
    assert [path.name for path in one] == [path.name for path in two]
    for first, second in zip(one, two, strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name
    assert "<dc:date>" not in one[1].read_text(encoding="utf-8")


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write"):
        plots.save(Figure(), tmp_path / "missing" / "plot")
    occupied = tmp_path / "plot.svg"
    occupied.mkdir()
    with pytest.raises(InputError, match="cannot write"):
        plots.save(Figure(), tmp_path / "plot")
    assert list(tmp_path.iterdir()) == [occupied]


def test_plots_draw_on_the_axes_they_are_given_and_leave_the_settings_alone() -> None:
    prediction = predict(costs("alexnet"), device("h200"))
    before = dict(mpl.rcParams)
    for draw in (plots.roofline, plots.shares, plots.layers):
        ax = Figure().add_subplot()
        assert draw(prediction, ax=ax) is ax
        assert ax.get_title(loc="left")
    ax = Figure().add_subplot()
    assert plots.compare([prediction.costs], ax=ax) is ax
    assert dict(mpl.rcParams) == before


def test_shares_of_alexnet() -> None:
    # 58 631 144 of AlexNet's 61 100 840 parameters are in its fully connected layers (torchvision): 96.0 %
    written = [text.get_text() for text in plots.shares(predict(costs("alexnet"), device("h200"))).texts]
    assert "96.0 %" in written and "convolutional 4.0 %" in written and "61.1 M" in written
    named = plots.shares({"AlexNet (torchvision)": predict(costs("alexnet"), device("h200"))})
    assert "AlexNet (torchvision) on NVIDIA H200 SXM" in [text.get_text() for text in named.texts]


def test_bars_of_layers() -> None:
    # classifier.1 has (9216 + 1) x 4096 = 37 752 832 parameters, features.0 (3 x 11 x 11 + 1) x 64 = 23 296
    ax = plots.layers(costs("alexnet"), "parameters")
    written = [text.get_text() for text in ax.texts]
    assert "37.8 M" in written and "23.3 k" in written
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names[0] == "features.0"
    for unknown in ("bound_seconds", "parametres"):
        with pytest.raises(InputError, match="cannot show"):
            plots.layers(costs("alexnet"), unknown)
    few = plots.layers(costs("vgg19"), "macs", most=5)
    assert [label.get_text() for label in few.get_yticklabels()][-1] == "14 more"  # 16 + 3 layers multiply


def test_labels_say_which_batch_a_layer_is_of() -> None:
    one, many = (predict(costs("vgg19", batch), device("h200")) for batch in (1, 64))
    ax = plots.roofline([one, many])
    labels = [text.get_text().split("\n") for text in texts(ax) if "%" in text.get_text()]
    assert labels and all(line.startswith(("b1: ", "b64: ")) for label in labels for line in label)
    assert {line.partition(":")[0] for label in labels for line in label} == {"b1", "b64"}
    legends = [text.get_text() for each in ax.get_children() if isinstance(each, Legend) for text in each.get_texts()]
    assert {"b1: 1 × 3 × 224 × 224", "b64: 64 × 3 × 224 × 224"} <= set(legends)
    sums = [line for label in labels for line in label if "more" in line]
    assert all("together" in line for line in sums)


def test_layers_of_a_block_with_one_share_take_one_line() -> None:
    # VGG-19's features.12, .14 and .16 convolve 56 x 56 pixels from 256 to 256 channels: the same work
    written = [text.get_text() for text in texts(plots.roofline(predict(costs("vgg19"), device("h200"))))]
    assert any("features.12, .14, .16  " in text and " % each" in text for text in written)


def test_comparison_has_a_marker_for_each_form() -> None:
    forms = ("book", "torchvision")
    ax = plots.compare({f"{name} ({form})": costs(name) for name in ("alexnet", "vgg19") for form in forms})
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(forms)
    assert len({bytes(dots.get_paths()[0].vertices) for dots in ax.collections}) == 2
    assert plots.compare({"a": costs("alexnet")}).get_legend() is None


def test_comparison_names_every_network() -> None:
    networks = {name: costs(name) for name in ("alexnet", "vgg19")}
    ax = plots.compare(networks)
    written = " ".join(text.get_text() for text in texts(ax))
    assert "alexnet\n61.1 M parameters" in written and "vgg19\n144 M parameters" in written
    assert not overlapping(ax)
