"""Fused layers: pyramids row by row against sets, the paper's figures, and cuts against every way to cut."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from literal_walk import met
from test_cli import Cli, cli  # noqa: F401
from torch import nn

import costmodel as cm
from costmodel.chip.chains import Chain, Stage, chains
from costmodel.chip.fusion import KEPT, RECOMPUTED, Group, _Cutter, _subset_sums
from costmodel.chip.nests import Nest
from costmodel.chip.pyramids import levels, of_run, pyramids
from costmodel.chip.tiling import least_traffic
from costmodel.chip.widths import Widths
from costmodel.chip.windows import Window
from costmodel.errors import InputError
from costmodel.validation.chips import fused_layer_paper


@st.composite
def runs(draw: st.DrawFn) -> list[Window]:
    """Two to four windows, the outputs of each being the inputs of the next."""
    rows = draw(st.integers(4, 14))
    windows = []
    for _ in range(draw(st.integers(2, 4))):
        taps, stride, gap = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
        before = draw(st.integers(0, taps // 2 * gap))
        outputs = (rows + 2 * before - gap * (taps - 1) - 1) // stride + 1
        assume(outputs > 0)
        windows.append(Window(outputs, rows, taps, stride, gap, before))
        rows = outputs
    return windows


@settings(max_examples=150, deadline=None)
@given(runs(), st.data())
def test_levels_are_what_sets_of_rows_say(windows: list[Window], data: st.DataObject) -> None:
    extent = windows[-1].outputs
    size = data.draw(st.integers(1, extent))
    found = levels(windows, np.array([size]))
    spans = [set(range(at, min(at + size, extent))) for at in range(0, extent, size)]
    pyramid, fresh = spans, spans  # of each tile: all that it needs; what it adds where all is kept
    touched = set().union(*spans)
    assert found.touched[-1] == extent and found.fresh[-1, 0] == max(map(len, spans))
    for tensor, window in reversed(list(enumerate(windows))):
        pyramid = [met(window, rows) for rows in pyramid]
        reach = [met(window, rows) for rows in fresh]
        fresh = [rows - set().union(*reach[:tile]) for tile, rows in enumerate(reach)]
        touched = met(window, touched)
        carried = [set().union(*reach[: tile + 1]) & set().union(*reach[tile + 1 :]) for tile in range(len(reach))]
        assert found.touched[tensor] == len(touched)
        assert found.window[tensor, 0] == max(map(len, pyramid))
        assert found.all_windows[tensor, 0] == sum(map(len, pyramid))
        assert found.fresh[tensor, 0] == max(map(len, fresh))
        assert found.reach[tensor, 0] == max(map(len, reach))
        assert found.carried[tensor, 0] == max(map(len, carried))


@settings(max_examples=30, deadline=None)
@given(runs())
def test_levels_of_all_sizes_at_once_are_those_of_each(windows: list[Window]) -> None:
    every = levels(windows)
    for index, size in enumerate(every.sizes.tolist()):
        one = levels(windows, np.array([size]))
        assert one.trips[0] == every.trips[index] and (one.touched == every.touched).all()
        for name in ("window", "all_windows", "fresh", "reach", "carried"):
            assert (getattr(one, name)[:, 0] == getattr(every, name)[:, index]).all()
    later = levels(windows[1:])
    for whole, part in zip(of_run(every, 1), later, strict=True):
        assert (whole == part).all()


def test_vggs_early_convolutions_as_the_fused_layer_paper_has_them() -> None:
    """Alwani et al., MICRO 2016: from 77 MB to 3.6 MB a picture with 362 KB, 32-bit words; their MB are MiB.

    Layer by layer they write each convolution's outputs and read them unpooled:
    150528 + 2 x (3211264 + 3211264 + 1605632 + 1605632) + 802816 = 20 220 928 words: 77.1 MiB.
    Fused, the picture comes in and the fifth convolution's outputs go out: 150528 + 802816 words: 3.64 MiB.

    Kept between tiles of one tip pixel: two rows of each convolution's input over its width,
    2 x (224 x 3 + 224 x 64 + 112 x 64 + 112 x 128 + 56 x 128) = 87 360 words, and two columns over the height of a
    window, 2 rows and those that a tile adds, 1 at the tip, 2 before the second pooling, 4 before the first:
    2 x (3 x 128 + 4 x 128 + 4 x 64 + 6 x 64 + 6 x 3) = 3 108 words: 361 872 bytes, their 362 KB.
    Ours is the most that any tile needs, and the first row of tiles adds more, having nothing from above: 4 rows before
    the second pooling, 12 before the first. Windows are 3 high at the tip, then 5, 6, 13 and 14 (the border cuts one
    row off): 2 x (3 x 128 + 5 x 128 + 6 x 64 + 13 x 64 + 14 x 3) = 4 564 words.
    """
    stages = fused_layer_paper.stages()
    convolutions = [stage for stage in stages if stage.nest]
    outputs = [stage.output_words for stage in convolutions]
    apart = convolutions[0].input_words + 2 * sum(outputs[:-1]) + outputs[-1]
    assert apart == 20_220_928 and round(4 * apart / 2**20, 1) == 77.1

    one = np.array([1])
    rows, columns = (levels([getattr(stage, axis) for stage in stages], one) for axis in ("rows", "columns"))
    kept = pyramids(stages, rows, columns, True, Widths.of(32))
    assert round(4 * (kept.input_words.item() + kept.output_words) / 2**20, 2) == 3.64
    assert kept.macs.item() == sum(stage.macs for stage in stages)  # nothing is recomputed
    heights = [rows.reach[tensor, 0] for tensor, stage in enumerate(stages) if stage.nest]
    assert heights == [14, 13, 6, 5, 3]
    widths = [stage.columns.inputs * stage.in_channels for stage in convolutions]
    assert 2 * sum(widths) == 87_360
    steady = [6, 6, 4, 4, 3]
    theirs = 2 * (sum(widths) + sum(h * stage.in_channels for h, stage in zip(steady, convolutions, strict=True)))
    ours = 2 * (sum(widths) + sum(h * stage.in_channels for h, stage in zip(heights, convolutions, strict=True)))
    assert 4 * theirs == 361_872
    assert kept.kept_words.item() == ours == 87_360 + 4_564

    ours_bytes = [anchor.ours for anchor in fused_layer_paper.anchors()]
    assert ours_bytes == [4 * apart, 4 * (150_528 + 802_816), 4 * ours]
    for anchor in fused_layer_paper.anchors():
        assert abs(anchor.ours / anchor.theirs - 1) < 0.017

    again = pyramids(stages, rows, columns, False, Widths.of(32))
    assert again.kept_words.item() == 0
    assert again.macs.item() > 13 * kept.macs.item()  # what making everything again costs at a tip of one pixel


def test_a_pyramid_of_the_whole_map_makes_and_reads_everything_once() -> None:
    stages = fused_layer_paper.stages()
    whole = np.array([56])
    rows, columns = (levels([getattr(stage, axis) for stage in stages], whole) for axis in ("rows", "columns"))
    for keep in (True, False):
        found = pyramids(stages, rows, columns, keep, Widths())
        assert (found.trips.item(), found.kept_words.item()) == (1, 0)
        assert found.input_words.item() == 3 * 224 * 224
        # Inputs and partial sums of the second convolution, and a window of its weights.
        assert found.working_bits.item() == 16 * (2 * 64 * 224 * 224 + 9)


def test_a_tip_tile_that_cannot_be_is_refused() -> None:
    for size in (0, 57):
        with pytest.raises(InputError, match="1 to 56 rows"):
            levels([stage.rows for stage in fused_layer_paper.stages()], np.array([size]))


def network() -> nn.Module:
    """Convolutions, a pooling whose windows overlap, batch normalization, and two fully connected layers."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(8, 12, 3, padding=1),
        nn.BatchNorm2d(12), nn.ReLU(inplace=True), nn.Conv2d(12, 16, 3), nn.Flatten(), nn.Linear(16 * 25, 20),
        nn.Dropout(), nn.Linear(20, 10),
    )  # fmt: skip


def trace(module: nn.Module, *shape: int, train: bool = False) -> cm.Trace:
    return cm.trace(module, shape, train=train, name="net")


def test_a_chain_is_what_follows_what() -> None:
    (chain,) = chains(trace(network(), 2, 3, 16, 16))
    named = [(stage.layer, stage.kind, stage.elementwise) for stage in chain.stages]
    assert named == [
        ("0", "conv", 1), ("2", "pool", 0), ("3", "conv", 2), ("6", "conv", 0), ("8", "linear", 0), ("10", "linear", 0),
    ]  # fmt: skip
    assert chain.units == ((0, 2), (2, 3), (3, 4), (4, 5), (5, 6))
    assert chain.stages[1].rows == Window(7, 16, 3, 2)
    flat = chain.stages[4]  # a fully connected layer on whole maps: a window of 5 x 5 over 16 channels
    assert (flat.in_channels, flat.rows) == (16, Window(1, 5, 5))
    for stage, after in itertools.pairwise(chain.stages):
        assert stage.output_words == after.input_words
    # ReLU reads and writes 2 x 8 x 16 x 16 words; the pooling reads them and writes 2 x 8 x 7 x 7.
    assert chain.stages[0].apart_words == 2 * 4096 and chain.stages[1].apart_words == 4096 + 784


class Branch(nn.Module):
    """A sum of two, an activation that two read, and an activation that goes out."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.a, self.b, self.c = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))

    def forward(self, x: torch.Tensor) -> object:
        y = torch.relu(self.a(x))
        if self.kind == "sum":
            return self.c(self.b(y) + x)
        if self.kind == "two":
            return self.b(y) + self.c(y)
        return y, self.b(y)


@pytest.mark.parametrize(
    ("kind", "expected"), [("sum", [["a", "b"], ["c"]]), ("two", [["a"], ["b"], ["c"]]), ("out", [["a"], ["b"]])]
)
def test_branches_and_sums_end_a_chain(kind: str, expected: list[list[str]]) -> None:
    found = chains(trace(Branch(kind), 1, 4, 8, 8))
    assert [[stage.layer for stage in chain.stages] for chain in found] == expected


def test_a_pooling_may_differ_by_axis() -> None:
    # windows of 2 rows and 3 columns, which start 2 and 4 apart, from one column before the map's: 8 and 16 pixels are
    # (8 - 2) / 2 + 1 = 4 rows and (16 + 2 - 3) // 4 + 1 = 4 columns
    pool = nn.MaxPool2d((2, 3), (2, 4), (0, 1))
    (chain,) = chains(trace(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), pool), 1, 3, 8, 16))
    assert chain.stages[1].rows == Window(4, 8, 2, 2)
    assert chain.stages[1].columns == Window(4, 16, 3, 4, 1, 1)


class Reshaped(nn.Module):
    """Pools maps of 4 x 8 in 8 channels, which the convolution left as 8 x 8 in 4."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(self.conv(x).reshape(1, 8, 4, 8))


def test_a_pooling_of_other_channels_ends_a_chain() -> None:
    assert [[stage.layer for stage in chain.stages] for chain in chains(trace(Reshaped(), 1, 3, 8, 8))] == [["conv"]]


def test_every_contraction_is_in_one_group() -> None:
    network = cm.networks.find("torchvision:swin_t")
    run = cm.trace(network.module, network.inputs(1), name="swin")
    fusion = cm.fuse(run, 256 * 1024)
    nests = cm.lower(run)
    assert sum(group.macs for group in fusion.groups) == nests.macs
    assert fusion.layer_by_layer_bytes == cm.traffic_curves(nests).dram_bytes(256 * 1024)
    assert fusion.dram_bytes <= fusion.layer_by_layer_bytes


def all_cuts(cutter: _Cutter, chain: Chain) -> int:
    """The least traffic over every set of cuts, each group by the cheapest of its schedules."""
    count = len(chain.units)
    groups: dict[tuple[int, int], int] = {}
    for end in range(1, count + 1):
        found = [(end - 1, group) for group in cutter.unit(chain, end - 1)] + list(cutter.runs(chain, end))
        for start, group in found:
            groups[start, end] = min(group.dram_bytes, groups.get((start, end), group.dram_bytes))
    totals = []
    for cuts in itertools.chain.from_iterable(itertools.combinations(range(1, count), n) for n in range(count)):
        spans = list(itertools.pairwise((0, *cuts, count)))
        if all(span in groups for span in spans):
            totals.append(sum(groups[span] for span in spans))
    return min(totals)


@pytest.mark.parametrize("buffer", [400, 1000, 2000, 4000, 10_000, 100_000])
def test_the_cuts_are_the_cheapest_of_all(buffer: int) -> None:
    run = trace(network(), 1, 3, 16, 16)
    (chain,) = chains(run)
    fusion = cm.fuse(run, buffer)
    assert fusion.dram_bytes == all_cuts(_Cutter(buffer, Widths(), False, True), chain)
    assert all(group.footprint_bytes <= buffer for group in fusion.groups)
    assert all(group.compulsory_bytes <= group.bound_bytes <= group.dram_bytes for group in fusion.groups)
    assert [layer for group in fusion.groups for layer in group.layers] == [stage.layer for stage in chain.stages]


def test_more_buffer_never_moves_more_and_enough_moves_the_ends_only() -> None:
    run = trace(network(), 1, 3, 16, 16)
    moved = [cm.fuse(run, size).dram_bytes for size in (200, 300, 500, 800, 1300, 2100, 3400, 5500, 9000, 40_000)]
    assert moved == sorted(moved, reverse=True)
    everything = cm.fuse(run, 10**6)
    (group,) = everything.groups
    weights = 8 * 27 + 12 * 72 + 16 * 108 + 400 * 20 + 200
    assert group.dram_bytes == 2 * (3 * 16 * 16 + weights + 10)
    assert group.kind == "fused" and group.schedule in (KEPT, RECOMPUTED)
    assert everything.on_chip == ("0", "2", "3", "6", "8")


def test_without_fusing_contractions_only_poolings_go_along() -> None:
    """Behind a large buffer every contraction moves its words once, the first one's outputs pooled."""
    run = trace(network(), 1, 3, 16, 16)
    fusion = cm.fuse(run, 10**6, contractions=False)
    assert [group.layers for group in fusion.groups] == [("0", "2"), ("3",), ("6",), ("8",), ("10",)]
    assert fusion.layer_by_layer_bytes - fusion.dram_bytes == 2 * (8 * 16 * 16 - 8 * 7 * 7)
    # ReLU 2 x 2048 words, pooling 2048 + 392, batch normalization and ReLU 2 x 2 x 588 (12 x 7 x 7)
    assert fusion.pooling_bytes == 2 * (2 * 2048 + 2048 + 392 + 4 * 588)


def test_overlapping_poolings_make_rows_again() -> None:
    """3x3 pooling with stride 2 over tiles of one pooled row: two neighbours share a row of outputs."""
    run = trace(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(3, 2)), 1, 1, 9, 9)
    (chain,) = chains(run)
    cutter = _Cutter(10**6, Widths(), False, False)
    (plain, pooled) = cutter.unit(chain, 0)
    assert plain.recomputed_macs == pooled.recomputed_macs == 0
    assert plain.schedule.endswith("pooled apart") and not pooled.schedule.endswith("pooled apart")
    assert plain.dram_bytes - pooled.dram_bytes == 2 * (2 * 4 * 81 + 4 * 16) - 2 * 4 * 16
    pool = (chain.stages[1].rows, chain.stages[1].columns)
    nest = chain.stages[0].nest
    assert nest is not None
    curve = least_traffic(nest, pool=pool)
    small = _Cutter(curve.smallest_buffer_bytes, Widths(), False, False)
    groups: list[Group] = list(small.unit(chain, 0))
    tile = groups[-1].tile
    assert tile[3:] == (1, 1)
    # 4 x 4 tiles of 3 x 3 outputs instead of 9 x 9: 144 x 4 channels x 9 products
    assert groups[-1].macs == 144 * 36 and groups[-1].recomputed_macs == (144 - 81) * 36


def test_subset_sums() -> None:
    assert _subset_sums((3, 5)).tolist() == [0, 3, 5, 8]
    assert _subset_sums((2, 1) * 7).tolist() == [0, *np.cumsum([1] * 7 + [2] * 7)]


@pytest.mark.parametrize("buffer", [0, -1, 2.5])
def test_a_buffer_that_cannot_be_is_refused(buffer: float) -> None:
    with pytest.raises(InputError, match="positive whole number of bytes"):
        cm.fuse(trace(network(), 1, 3, 16, 16), buffer)  # type: ignore[arg-type]


def test_what_cannot_be_fused_is_refused() -> None:
    with pytest.raises(InputError, match=r"too small: layer '[0-9]+' needs at least"):
        cm.fuse(trace(network(), 1, 3, 16, 16), 20)
    with pytest.raises(InputError, match="keeps activations"):
        cm.fuse(trace(network(), 2, 3, 16, 16, train=True), 4096)
    with pytest.raises(InputError, match="no contraction"):
        cm.fuse(trace(nn.ReLU(), 1, 3), 4096)


def test_it_shows_itself() -> None:
    fusion = cm.fuse(trace(network(), 1, 3, 16, 16), 4096)
    assert fusion.to_frame()["dram_bytes"].sum() == fusion.dram_bytes
    assert "of the traffic saved" in fusion._repr_html_()
    assert repr(fusion).startswith("<Fusion of net behind 4.00 KiB")


def test_the_command(cli: Cli) -> None:  # noqa: F811
    options = ("traffic", "vgg11", "--buffer-bytes", "64KiB", "--buffer-bytes", "1MiB", "--fuse")
    document = json.loads(cli(*options, "-f", "json").out)
    assert (document["schema"], document["fused"]) == ("costmodel/traffic/1", True)
    for total in document["totals"]:
        rows = [row for row in document["rows"] if row["buffer_bytes"] == total["buffer_bytes"]]
        for name in ("dram_bytes", "bound_bytes", "layer_by_layer_bytes", "pooling_bytes", "recomputed_macs"):
            assert sum(row[name] for row in rows) == total[name]
        assert total["bound_bytes"] <= total["dram_bytes"] < total["layer_by_layer_bytes"]
    assert document["rows"][0]["layers"][0] == "net.0.0"
    code, out, err = cli(*options)
    assert (code, err) == (0, "") and "instead of" in out
    assert max(map(len, out.splitlines())) <= 120


@st.composite
def chains_of_stages(draw: st.DrawFn) -> Chain:
    """One to four convolutions and poolings that follow one another, the first a convolution."""
    sizes = (draw(st.integers(3, 9)), draw(st.integers(3, 9)))
    channels = draw(st.integers(1, 3))
    stages: list[Stage] = []
    for index in range(draw(st.integers(1, 4))):
        windows = []
        for inputs in sizes:
            taps, stride = draw(st.integers(1, min(3, inputs))), draw(st.integers(1, 3))
            before = draw(st.integers(0, taps // 2))
            windows.append(Window((inputs + 2 * before - taps) // stride + 1, inputs, taps, stride, 1, before))
        rows, columns = windows
        if index and draw(st.booleans()):
            stages.append(Stage(f"pool{index}", "pool", 2, channels, channels, rows, columns))
        else:
            out = draw(st.integers(1, 3))
            nest = Nest(
                f"conv{index}", "aten.convolution", "conv", 2, 1, out, channels, rows.outputs, columns.outputs,
                rows.taps, columns.taps, (rows.stride, columns.stride), (1, 1),
                ((rows.before, rows.before), (columns.before, columns.before)), rows.inputs, columns.inputs,
            )  # fmt: skip
            stages.append(Stage(nest.layer, "conv", 2, channels, out, nest.rows, nest.columns, nest.weight_numel, nest))
            channels = out
        sizes = (rows.outputs, columns.outputs)
    return Chain(tuple(stages))


@settings(max_examples=200, deadline=None)
@given(chains_of_stages(), st.integers(60, 2000))
def test_no_group_moves_less_than_its_bound(chain: Chain, buffer: int) -> None:
    cutter = _Cutter(buffer, Widths(), False, True)
    for end in range(1, len(chain.units) + 1):
        for group in [*cutter.unit(chain, end - 1), *(group for _, group in cutter.runs(chain, end))]:
            assert group.compulsory_bytes <= group.bound_bytes <= group.dram_bytes


def test_inputs_that_only_a_dropped_row_touches_are_not_compulsory() -> None:
    """7x7 under 3x3 windows are 5x5 outputs, of which a 2x2 pooling takes 4x4: those touch 6x6 of the 7x7 inputs."""
    run = trace(nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2)), 1, 1, 7, 7)
    (group,) = cm.fuse(run, 10_000).groups
    assert group.compulsory_bytes == group.bound_bytes == group.dram_bytes == 2 * (36 + 2 * 9 + 2 * 4)


def test_what_follows_a_convolution_over_three_dimensions_begins_anew() -> None:
    """Frames are images to the first, rows to the second: 4 of each, yet no tile of one is a tile of the other."""
    video = nn.Sequential(
        nn.Conv3d(3, 8, (1, 3, 3), padding=(0, 1, 1)), nn.ReLU(), nn.Conv3d(8, 8, (3, 1, 1), padding=(1, 0, 0))
    )
    groups = cm.fuse(cm.trace(video, (1, 3, 4, 4, 4)), 1 << 16).groups
    assert [group.layers for group in groups] == [("0",), ("2",)]
