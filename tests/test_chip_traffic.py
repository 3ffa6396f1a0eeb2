# ruff: noqa: F811  (fixtures are imported)
"""A network's DRAM traffic: sums, sizes of buffers, the knee, the command, its document and its plot."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from test_cli import Cli, cli, file  # noqa: F401
from torch import nn

import costmodel as cm
from costmodel.book import markdown
from costmodel.book.chapters.traffic import traffic_section
from costmodel.book.model import Figure as Block
from costmodel.book.model import Report, Table
from costmodel.book.study import Study
from costmodel.chip.bounds import compulsory_bytes
from costmodel.chip.dram import Curves, Traffic
from costmodel.chip.widths import Widths
from costmodel.errors import InputError
from costmodel.networks import find
from costmodel.units import iec


def trace(module: nn.Module, *shape: int) -> cm.Trace:
    return cm.trace(module, shape, name="net")


def small() -> nn.Module:
    """A convolution of 3 to 8 channels on 8 x 8 pixels, the same of 8 to 8 twice, and a classifier."""
    convolutions = [nn.Conv2d(3, 8, 3, padding=1), *(nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))]
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(512, 10))


def test_rows_add_up_and_nests_of_one_shape_share_a_curve() -> None:
    curves = cm.traffic_curves(trace(small(), 1, 3, 8, 8))
    assert curves.curves[1].footprint_bits is curves.curves[2].footprint_bits
    assert curves.curves[1].nest.layer == "1" and curves.curves[2].nest.layer == "2"
    traffic = curves.at([4096, 512])
    assert [row.layer for row in traffic.rows] == ["0", "1", "2", "4"] * 2
    for total in traffic.totals:
        own = [row for row in traffic.rows if row.buffer_bytes == total.buffer_bytes]
        assert total.dram_bytes == sum(row.dram_bytes for row in own) == curves.dram_bytes(total.buffer_bytes)
        assert total.bound_bytes == sum(row.bound_bytes for row in own) == curves.bound_bytes(total.buffer_bytes)
        assert total.compulsory_bytes == curves.compulsory_bytes
        assert all(row.compulsory_bytes <= row.bound_bytes <= row.dram_bytes for row in own)
        assert all(row.footprint_bytes <= row.buffer_bytes for row in own)
    assert traffic.totals[0].dram_bytes < traffic.totals[1].dram_bytes


def test_the_steps_are_all_there_is_to_know() -> None:
    curves = cm.traffic_curves(trace(small(), 1, 3, 8, 8), word_bits=8, double_buffer=True)
    buffers, moved = curves.steps
    assert buffers[0] == curves.smallest_buffer_bytes and buffers[-1] == curves.sufficient_buffer_bytes
    assert moved[-1] == curves.compulsory_bytes
    assert (curves.dram_bytes(buffers[1:] - 1) == moved[:-1]).all()
    assert curves.dram_bytes(10**9) == curves.compulsory_bytes


def test_the_knee_by_hand() -> None:
    # 1 x 7 weights, an input and 7 outputs of 2 bytes are moved once behind three words: no larger buffer saves any
    assert cm.traffic_curves(trace(nn.Linear(1, 7, bias=False), 1, 1)).knee() == (6, 2 * (7 + 1 + 7))
    # 5 x 7: of 154 bytes behind 6 a doubling saves 124 / 154, so no half; of 114 behind 14 it saves all but 94, more
    # than a tenth, and of 104 behind 18 as well all but 94, less than a tenth
    curves = cm.traffic_curves(trace(nn.Linear(5, 7, bias=False), 1, 5))
    assert [curves.dram_bytes(size) for size in (6, 12, 14, 18, 28)] == [154, 124, 114, 104, 94]
    assert (curves.knee(0.5), curves.knee(0.1)) == ((6, 154), (18, 104))


def test_behind_the_knee_no_doubling_saves_a_tenth() -> None:
    curves = cm.traffic_curves(trace(small(), 1, 3, 8, 8))
    knee, there = curves.knee()
    assert there == curves.dram_bytes(knee)
    sizes = np.arange(curves.smallest_buffer_bytes, 2 * curves.sufficient_buffer_bytes)
    saving = 1 - curves.dram_bytes(2 * sizes) / curves.dram_bytes(sizes)
    assert (saving[sizes >= knee] <= 0.1).all()
    assert saving[sizes == knee - 1] > 0.1


def test_widths_and_double_buffering_reach_the_search() -> None:
    net = trace(small(), 1, 3, 8, 8)
    plain = cm.traffic_curves(net)
    assert cm.traffic_curves(net, word_bits=8).compulsory_bytes * 2 == plain.compulsory_bytes
    for worse in (cm.traffic_curves(net, partial_bits=32), cm.traffic_curves(net, double_buffer=True)):
        assert worse.compulsory_bytes == plain.compulsory_bytes
        assert worse.dram_bytes(512) > plain.dram_bytes(512)
    mixed = cm.traffic_curves(net, widths=Widths(8, 4, 8, 24))
    assert mixed.compulsory_bytes == sum(compulsory_bytes(nest, mixed.widths) for nest in mixed.nests)


def test_a_training_step_is_lowered_too() -> None:
    step = cm.trace(small(), (2, 3, 8, 8), train=True, name="net")
    rows = cm.traffic(step, 65536).rows
    # Forward 4; backward: of the first layer the weight's gradient only, of the others the input's as well.
    assert [row.phase for row in rows] == ["forward"] * 4 + ["backward"] * 7


@pytest.mark.parametrize(
    ("buffers", "message"),
    [
        (37, r"37 bytes is too small: layer '0' needs at least 38 bytes"),
        ([4096, 37], "too small"),
        (0, "positive whole number of bytes"),
        (-32768, "positive whole number"),
        (1000.5, "positive whole number"),
        ([], "no size of a buffer"),
        ("32KiB", "whole number of bytes, not '32KiB'"),
        (["32KiB"], "whole number of bytes, not '32KiB'"),
    ],
)
def test_a_buffer_that_cannot_be_is_refused(buffers: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        cm.traffic(trace(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1)), 1, 3, 8, 8), buffers)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"word_bits": 0}, {"word_bits": -16}, {"word_bits": 7.5}, {"partial_bits": 8}])
def test_a_width_that_cannot_be_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"positive whole number of bits|narrower"):
        cm.traffic(trace(small(), 1, 3, 8, 8), 4096, **options)


def test_a_network_without_contractions_is_refused() -> None:
    with pytest.raises(InputError, match="net has no contraction"):
        cm.traffic(trace(nn.ReLU(), 1, 3), 4096)


def test_it_shows_itself() -> None:
    traffic: Traffic = cm.traffic(trace(small(), 1, 3, 8, 8), 4096)
    frame = traffic.to_frame()
    assert frame["dram_bytes"].sum() == traffic.totals[0].dram_bytes
    assert frame["tile"][0] == tuple(traffic.rows[0].tile)
    page = traffic._repr_html_()
    assert "<caption>net: DRAM traffic</caption>" in page and "total" in page
    curves = traffic.curves
    steps = curves.to_frame()
    assert len(steps) == sum(map(len, curves.curves))
    last = steps[steps["layer"] == "4"].iloc[-1]
    assert last["dram_bytes"] == compulsory_bytes(curves.nests[3])
    assert "buffer of any size" in curves._repr_html_()
    assert repr(traffic).startswith("<Traffic of net: ") and "4.00 KiB" in repr(traffic)


def curves_of(name: str) -> Curves:
    network = find(name)
    return cm.traffic_curves(cm.trace(network.module, network.inputs(1), name=name))


def test_the_plot_draws_each_kind_with_its_bound_and_its_knee() -> None:
    curves = curves_of("alexnet")
    ax = Figure().subplots()
    assert cm.plot.traffic(curves, ax, buffers=[110592]) is ax
    stairs = ax.get_lines()[0]
    assert stairs.get_ydata()[-1] == curves.only("conv").compulsory_bytes
    assert [text.get_text() for text in ax.get_legend().get_texts()][:2] == ["convolution", "fully connected"]
    texts = [text.get_text() for text in ax.texts]
    assert "108 KiB" in texts and any(text.startswith("knee: ") for text in texts)
    low, high = ax.get_xlim()
    assert low < 110592 < high


def test_the_chapter_says_what_the_curves_say() -> None:
    studies = [Study.of(find(name)) for name in ("lenet", "vgg11-slim", "torchvision:alexnet")]
    section = traffic_section(studies)
    text = markdown.render(Report("report", (), (section,)))
    linear = cm.traffic_curves(studies[1].trace()).only("linear")
    assert iec(linear.compulsory_bytes) in section.answer
    # torchvision's AlexNet: 9216 x 4096 + 4096 x 4096 + 4096 x 1000 weights, 111.8 MiB of 16-bit words
    assert "AlexNet (torchvision): 58,621,952 weights × 2 B = 112 MiB" in text
    # 1.95 nJ for 64 bits are 487.5 pJ a word; the mean of 0.2 and 3.1 pJ is 0.787: 619 times
    assert "some 600 multiplications of 16 bits (488 pJ against 0.787 pJ" in text
    assert "No schedule of a layer by itself moves less" in text
    assert not re.search(r"\d (M|G|k)B\b", text.split("Fusing layers")[0])  # memory in KiB, MiB, GiB
    assert "77.1 MiB" in text and "3.64 MiB" in text  # the fused-layer paper's, ours
    figures = [block for block in section.blocks if isinstance(block, Block)]
    assert [figure.name for figure in figures] == ["traffic-lenet", "traffic-vgg11-slim"]
    for figure in figures:
        assert figure.draw().get_legend() is not None
    tables = [block for each in section.walk() for block in each.blocks if isinstance(block, Table)]
    sizes = next(table.data.to_frame() for table in tables if table.name == "traffic-buffers")
    mine = sizes[sizes["network"] == studies[1].title].set_index("buffer_bytes")
    assert mine["dram_bytes"][110592] == cm.traffic_curves(studies[1].trace()).dram_bytes(110592)
    assert (sizes["conv_bound_bytes"] <= sizes["conv_bytes"]).all()


def test_the_chapter_is_empty_without_contractions() -> None:
    study = Study("pool", "Pool", lambda batch, train, dtype: trace(nn.MaxPool2d(2), batch, 1, 4, 4))
    section = traffic_section([study])
    assert section.blocks == () and section.answer == ""


class TestCommand:
    def test_the_document(self, cli: Cli) -> None:
        """Issue 4's contract, and its anchors: torchvision's VGG-16, batch 1, 16-bit words."""
        sizes = [1024 * kib for kib in (32, 64, 108, 256, 512, 1024)]
        options = [word for size in sizes for word in ("--buffer-bytes", size)]
        code, out, err = cli("traffic", "torchvision:vgg16", *options, "--format", "json")
        document = json.loads(out)
        assert (code, err, document["schema"]) == (0, "", "costmodel/traffic/1")
        most = dict(zip(sizes, (208.5, 156.1, 121.4, 96.3, 82.8, 77.2), strict=True))
        for size in sizes:
            rows = [row for row in document["rows"] if row["buffer_bytes"] == size]
            assert len(rows) == 16
            assert sum(row["dram_bytes"] for row in rows if row["kind"] == "conv") <= 1e6 * most[size]
            # 25088 x 4096 + 4096 x 4096 + 4096 x 1000 weights of 2 bytes are 247.3 MB
            linear = sum(row["dram_bytes"] for row in rows if row["kind"] == "linear")
            assert linear == pytest.approx(247.27e6, rel=5e-4)
            (total,) = (total for total in document["totals"] if total["buffer_bytes"] == size)
            assert total["dram_bytes"] == sum(row["dram_bytes"] for row in rows)
        assert set(document["rows"][0]) == {
            "layer", "kind", "buffer_bytes", "dram_bytes", "bound_bytes", "compulsory_bytes", "schedule", "tile",
            "input_bytes", "weight_bytes", "output_bytes", "partial_bytes", "operator", "phase", "footprint_bytes",
        }  # fmt: skip
        for row in document["rows"]:  # by operand, each rounded up to whole bytes
            parts = sum(row[f"{name}_bytes"] for name in ("input", "weight", "output", "partial"))
            assert 0 <= parts - row["dram_bytes"] <= 3
        assert (document["word_bits"], document["partial_bits"], document["double_buffer"]) == (16, 16, False)
        assert document["unlowered"] == []

    def test_alexnet_of_2012_at_batch_4(self, cli: Cli) -> None:
        out = cli("traffic", "alexnet-grouped", "--batch", 4, "--buffer-bytes", "108KiB", "-f", "csv").out
        rows = list(csv.DictReader(io.StringIO(out)))
        assert sum(int(row["dram_bytes"]) for row in rows if row["kind"] == "conv") <= 17.7e6
        # 58.6 million weights of 2 bytes are 117.2 MB: batch 4 does not change that
        assert sum(int(row["dram_bytes"]) for row in rows if row["kind"] == "linear") == pytest.approx(
            117.4e6, rel=1e-3
        )

    def test_the_table_says_what_it_is(self, cli: Cli) -> None:
        code, out, err = cli("traffic", "lenet", "--buffer-bytes", "1KiB", "--word-bits", 8, "--partial-bits", 32)
        assert (code, err) == (0, "")
        assert "8-bit words, partial sums of 32 bits" in " ".join(out.split()) and "Behind 1.00 KiB" in out
        assert next(line for line in out.splitlines() if line.startswith("total"))
        assert max(map(len, out.splitlines())) <= 120

    def test_fused_layers_may_move_less_than_the_bound_of_layers_one_by_one(self, cli: Cli) -> None:
        """So the bound says what it is of."""
        options = ("lenet", "--buffer-bytes", "1MiB", "-f", "json")
        alone, fused = (json.loads(cli("traffic", *options, *more).out) for more in ([], ["--fuse"]))
        assert fused["totals"][0]["dram_bytes"] < alone["totals"][0]["bound_bytes"]
        assert "by itself" in alone["conventions"]["traffic"]
        said = " ".join(cli("traffic", "lenet", "--buffer-bytes", "1MiB").out.split())
        assert "no schedule of contractions one by one moves less than" in said

    def test_hostile_names(self, cli: Cli, file: Path) -> None:
        for form in ("table", "md"):
            code, out, _ = cli("traffic", f"{file}:Noisy", "--input", "4", "--buffer-bytes", 4096, "-f", form)
            assert code == 0 and "\x1b" not in out
            assert "<b>" not in out or form == "table"
        rows = json.loads(cli("traffic", f"{file}:Noisy", "--input", "4", "--buffer-bytes", 4096, "-f", "json").out)
        assert [row["layer"] for row in rows["rows"]][1:3] == ["a|b", "[bold]y"]

    def test_the_plot_is_written_whole(self, cli: Cli, tmp_path: Path) -> None:
        target = tmp_path / "plot.png"
        assert cli("traffic", "lenet", "--buffer-bytes", 1024, "--plot", target).code == 0
        assert target.read_bytes().startswith(b"\x89PNG")
        again = cli("traffic", "lenet", "--buffer-bytes", 1024, "--plot", target)
        assert again.code == 2 and "--force" in again.err

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--buffer-bytes", 40], "at least"),
            (["--buffer-bytes", 0], "positive whole number"),
            (["--buffer-bytes", "-5"], "cannot read a size"),
            (["--buffer-bytes", "many"], "cannot read a size"),
            (["--buffer-bytes", 4096, "--word-bits", 0], "positive whole number of bits"),
            (["--buffer-bytes", 4096, "--word-bits", "7.5"], "valid integer"),
            (["--buffer-bytes", 4096, "--partial-bits", 8], "narrower"),
            (["--buffer-bytes", 4096, "--plot", "plot.pdf"], r".png or .svg"),
            ([], "buffer-bytes"),
        ],
    )
    def test_bad_usage(self, cli: Cli, options: list[object], message: str) -> None:
        code, out, err = cli("traffic", "lenet", *options)
        assert (code, out) == (2, "")
        assert message in err and "Traceback" not in err and len(err.splitlines()) <= 2

    def test_what_is_not_counted_is_said(self, cli: Cli, tmp_path: Path, capsys: Callable[..., object]) -> None:
        net = tmp_path / "net.py"
        net.write_text(
            "from torch import nn\n"
            "def both():\n"
            "    return nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(108, 3))\n"
            "def none():\n"
            "    return nn.ReLU()\n"
        )
        options = ("--input", "1x3x3x6", "--buffer-bytes", 4096)
        code, out, err = cli("traffic", f"{net}:both", *options)
        assert code == 3 and "overlap along 3 dimensions" in err and "Not counted" in out
        assert cli("traffic", f"{net}:both", *options, "--allow-unmodelled").code == 0
        code, out, err = cli("traffic", f"{net}:none", *options)
        assert (code, out) == (2, "") and "no contraction" in err
