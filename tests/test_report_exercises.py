"""The answers: numbers by hand where they can be, and none that stays when the network is another."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pandas as pd
import pytest

from costmodel import device, networks, plots
from costmodel.book.chapters import arithmetic as arithmetics
from costmodel.book.chapters import bandwidth as bandwidths
from costmodel.book.chapters import comparison as comparisons
from costmodel.book.chapters import footprint as footprints
from costmodel.book.chapters import heads as cheaper
from costmodel.book.chapters.batch import batch
from costmodel.book.chapters.blocks import depth, hides_layers, stages, summary
from costmodel.book.chapters.blocks import hidden_layers as hidden
from costmodel.book.compose import answers
from costmodel.book.engine import section as said
from costmodel.book.model import Bullets, Figure, Formula, Paragraph, Section, Table
from costmodel.book.study import CONV, FC, PARTS, REST, Study, distinct, heaviest, same_form
from costmodel.devices import Device
from costmodel.errors import InputError

H200 = device("h200")


def batch_size(studies: list[Study], machine: Device) -> Section:
    return said(batch(studies, machine))


def footprint(one: Study) -> Section:
    return said(footprints.footprint(one))


def arithmetic(one: Study) -> Section:
    return said(arithmetics.arithmetic(one))


def bandwidth(one: Study, machine: Device) -> Section:
    return said(bandwidths.bandwidth(one, machine))


def comparison(one: Study, others: list[Study]) -> Section:
    return said(comparisons.comparison(one, others))


def heads(variants: dict[Study, list[Study]], machine: Device) -> Section:
    return said(cheaper.heads(variants, machine))


def deeper(studies: list[Study], machine: Device) -> Section:
    return said(depth(studies, machine))


def hidden_layers(one: Study) -> Section:
    return said(hidden(one))


_STUDIES: dict[str, Study] = {}


def study(name: str) -> Study:
    """A study, traced once for all tests."""
    if name not in _STUDIES:
        _STUDIES[name] = Study.of(networks.find(name))
    return _STUDIES[name]


def texts(section: Section) -> Iterator[str]:
    """Every sentence and formula of an answer."""
    yield section.answer
    for block in section.blocks:
        if isinstance(block, Paragraph):
            yield block.text
        elif isinstance(block, Bullets):
            yield from block.items
        elif isinstance(block, Formula):
            yield from block.lines
    for inner in section.sections:
        yield from texts(inner)


def table(section: Section, title: str) -> pd.DataFrame:
    """The table of a section whose title has `title` in it."""
    (found,) = [block for block in section.blocks if isinstance(block, Table) and title in block.title]
    frame, across = found.data.to_frame(), found.data.across
    if not across:
        return frame
    fixed = [name for name in found.data.names if name not in (across, *found.data.spread)]
    values = {value: rows.set_index(fixed)[list(found.data.spread)] for value, rows in frame.groupby(across)}
    wide = [rows.add_suffix(f"_{across}_{value}") for value, rows in values.items()]
    return pd.concat(wide, axis="columns").reset_index()


def numbers(section: Section) -> set[str]:
    """The numbers with three digits or more in a section's sentences: computed ones."""
    found = (number for text in texts(section) for number in re.findall(r"(?<![A-Za-z])\d[\d,.]*\d", text))
    return {number for number in found if len(number) > 2}


# AlexNet in the book's form, by hand.
# Parameters: (11²·1+1)·96 = 11,712; (5²·96+1)·256 = 614,656; (3²·256+1)·384 = 885,120; (3²·384+1)·384 = 1,327,488;
#   (3²·384+1)·256 = 884,992: 3,723,968 in convolutions. (6400+1)·4096 = 26,218,496; (4096+1)·4096 = 16,781,312;
#   (4096+1)·10 = 40,970: 43,040,778 in fully connected layers, 92.04 % of 46,764,746.
# MACs: 54²·11²·96 = 33,872,256; 26²·5²·96·256 = 415,334,400; 12²·3²·256·384 = 127,401,984;
#   12²·3²·384·384 = 191,102,976; 12²·3²·384·256 = 127,401,984: 895,113,600.
#   6400·4096 + 4096² + 4096·10 = 43,032,576. Together 938,146,176.


def test_memory_footprint_of_alexnet_by_hand() -> None:
    section = footprint(study("alexnet"))
    frame = table(section, "memory of its parts").set_index("part")
    assert frame["parameters"].to_dict() == {CONV: 3_723_968, FC: 43_040_778, REST: 0}
    assert frame.at[FC, "parameter_bytes"] == 4 * 43_040_778
    # outputs of the convolutions: 96·54² + 256·26² + (384 + 384 + 256)·12² = 600,448 numbers of 4 bytes
    assert frame.at[CONV, "output_bytes"] == 4 * 600_448
    assert frame.at[FC, "output_bytes"] == 4 * (4096 + 4096 + 10)
    assert section.answer.startswith("The fully connected layers hold 92.0 % of the parameters (164 MiB of 178 MiB).")
    assert "    parameters  (6,400+1)·4,096 = 26,218,496  →  100 MiB" in set(texts(section))


def test_training_memory_counts_every_copy_of_the_parameters() -> None:
    frame = table(footprint(study("alexnet")), "at its peak").set_index(["run", "batch"])
    parameters = 4 * 46_764_746
    step = frame.loc[("training step", 1)]
    assert step["parameter_bytes"] == step["optimizer_state_bytes"] == parameters
    assert frame.loc[("inference", 1), "optimizer_state_bytes"] == 0
    roles = [name for name in frame.columns if name.endswith("_bytes") and name != "peak_bytes"]
    assert (frame[roles].sum(axis="columns") == frame["peak_bytes"]).all()


def test_arithmetic_of_alexnet_by_hand() -> None:
    section = arithmetic(study("alexnet"))
    frame = table(section, "arithmetic")
    macs = [33_872_256, 415_334_400, 127_401_984, 191_102_976, 127_401_984, 26_214_400, 16_777_216, 40_960]
    assert list(frame["macs"]) == macs
    assert sum(macs) == 938_146_176
    assert list(frame["macs_per_weight"]) == [54**2, 26**2, 144, 144, 144, 1, 1, 1]
    assert "    MACs   26·26·5²·96·256 = 415,334,400" in set(texts(section))
    assert "(938 MMAC): 95.3 % in the convolutions, 4.6 % in the fully connected layers" in section.answer


def test_the_batch_at_which_alexnets_first_fc_layer_turns() -> None:
    """Arithmetic: B·(2·6400·4096 + 4096) / 66.9e12 = B·0.78376 µs. Memory: (26,218,496 + B·10,496)·4 / 4.8e12 =
    21.849 µs + B·0.00875 µs. They meet at B = 28.2.
    """
    section = batch_size([study("alexnet")], H200)
    assert "`net.14`, is bound by memory up to batch 28 and by arithmetic from 29 on" in section.answer
    frame = table(section, "batch against").set_index("batch")
    assert frame.at[1, "bound_seconds"] == study("alexnet").prediction(H200).bound_seconds
    assert frame["images_per_second"].is_monotonic_increasing
    assert frame["limit_share"].between(0, 1).all()
    # the weights are read once, so their share of the traffic follows from batch 1 alone
    moved = study("alexnet").costs().total.moved_bytes
    assert frame.at[1, "fixed_share"] == pytest.approx(4 * 46_764_746 / moved)


def test_bandwidth_levers() -> None:
    section = bandwidth(study("alexnet"), H200)
    frame = table(section, "better").set_index("machine")
    assert frame.loc["as it is", ["speedup_batch_1", "speedup_batch_64"]].tolist() == [1, 1]
    better = frame.drop(index="as it is")
    assert ((better["speedup_batch_1"] >= 1) & (better["speedup_batch_1"] <= 8)).all()
    twice = frame.loc["twice the bandwidth"]
    assert 1 < twice["speedup_batch_64"] < twice["speedup_batch_1"] < 2  # weights matter most at batch 1
    bounds = table(section, "what binds").set_index("layer")
    assert bounds.at["net.14", "binding_batch_1"] == "memory"
    assert bounds.at["net.14", "binding_batch_64"] == "compute"
    assert any("`net.14` (100 MiB) and `net.17` (64.0 MiB)" in text for text in texts(section))  # an L2 of 50 MiB


def test_a_device_that_knows_its_launch_time_is_told_its_latency() -> None:
    slow = H200.replace(launch_seconds=5e-6)
    unknown, known = (" ".join(texts(bandwidth(study("lenet"), machine))) for machine in (H200, slow))
    # 2 convolutions, 4 sigmoids, 2 pools and 3 fully connected layers; the flatten is a view
    assert "Starting the 11 operations of a pass is not included" in unknown
    assert "what a start costs on this device is not known" in unknown
    assert "at 5.00 µs each that is 55.0 µs" in known


def test_the_answer_on_throughput_says_that_starts_are_not_in_it() -> None:
    # 42.37 µs at batch 1 (1 / 23,601 s) for 8 layers with weights, 7 ReLUs and 3 pools: 2.354 µs for each of 18
    answer = batch_size([study("alexnet")], H200).answer
    assert "Starting the 18 operations of a pass is not included" in answer
    assert "at 2.35 µs each the starts alone take as long as the bound at batch 1" in answer


def test_the_batch_figure_shows_every_network_up_to_its_bound_and_memory() -> None:
    pair = [study("alexnet"), study("lenet")]
    (figure,) = [block for block in batch_size(pair, H200).blocks if isinstance(block, Figure)]
    left, right = figure.draw().figure.axes
    assert "bound" in left.get_title(loc="left")
    for ax in (left, right):
        assert {text.get_text() for text in ax.texts} == {"LeNet-5 (book)", "AlexNet (book)"}
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    # one image in 42.37 µs; a step with momentum holds parameters, gradients, momentum and a temporary: 4 x 178.4 MiB
    assert left.lines[0].get_ydata()[0] == pytest.approx(23_601, rel=1e-4)
    assert right.lines[0].get_ydata()[0] == pytest.approx(4 * 4 * 46_764_746, rel=1e-3)
    with pytest.raises(InputError, match="nothing to draw"):
        plots.batches({}, "a device")


def test_float16_changes_the_bytes_and_the_peak() -> None:
    """More than twice as fast is not the bytes alone: FP16 tensor cores do 989.4 TFLOP/s, TF32 ones 494.7."""
    section = bandwidth(study("alexnet"), H200)
    frame = table(section, "better").set_index("machine")
    name = "float16"
    assert frame.at[name, "speedup_batch_64"] > 2
    assert frame.at[name, "speedup_batch_1"] <= 2  # memory binds nearly all of it
    (note,) = [block.note for block in section.blocks if isinstance(block, Table) and "better" in block.title]
    assert "changes two" in note
    assert "(FP16 tensor 989 TFLOP/s)" in note


def test_comparison_of_alexnet_and_vgg() -> None:
    section = comparison(study("alexnet"), [study("vgg11"), study("vgg16")])
    frame = table(section, "one image").set_index("network")
    # VGG-16 for 10 classes and grey images: 138,357,544 (torchvision's, 1000 classes, RGB) less 990·4097 less 2·9·64
    assert frame.at["VGG-16 (book)", "parameters"] == 138_357_544 - 990 * 4097 - 2 * 9 * 64
    assert frame.at["VGG-16 (book)", "parameters_ratio"] == frame.at["VGG-16 (book)", "parameters"] / 46_764_746
    assert (frame["conv_flops"] + frame["fc_flops"] + frame["other_flops"] == frame["flops"]).all()
    assert section.answer.startswith("VGG-16 has 2.87× the parameters of AlexNet (134 M against 46.8 M)")


def test_cheaper_heads() -> None:
    names = ["alexnet-gap", "alexnet-conv1x1", "alexnet-fullconv", "alexnet-width1024", "alexnet-lowrank256"]
    section = heads({study("alexnet"): [study(name) for name in names]}, H200)
    frame = table(section, "other heads").set_index("head")
    gap = frame.loc["global average pooling"]
    assert gap["parameters"] == 3_723_968 + (256 + 1) * 10
    assert gap["parameters_saved_share"] == pytest.approx(1 - (3_723_968 + 2570) / 46_764_746)
    published = frame.loc["as published"]
    assert published.filter(like="saved").tolist() == [0, 0, 0]
    assert published.filter(like="speedup").tolist() == [1, 1]
    assert frame.at["FC layers as convolutions", "parameters"] == 46_764_746
    assert frame.at["FC layers of width 1024", "parameters"] == 3_723_968 + 6401 * 1024 + 1025 * 1024 + 1025 * 10
    assert gap["training_peak_bytes"] < published["training_peak_bytes"]
    assert "With global average pooling, AlexNet keeps 3.73 M of 46.8 M parameters (92.0 % saved)" in section.answer
    assert any("accuracy" in text for text in texts(section))


def test_where_vgg11s_layers_went() -> None:
    rows = [row for row in summary(study("vgg11")) if row.inside]
    assert [(row.module.path, len(row.inside)) for row in rows] == [
        ("net.0", 1), ("net.1", 1), ("net.2", 2), ("net.3", 2), ("net.4", 2), ("net.6", 1), ("net.9", 1), ("net.12", 1),
    ]  # fmt: skip
    section = hidden_layers(study("vgg11"))
    assert section.title == "Where did VGG-11's layers go when its summary shows only 8 rows?"
    assert "VGG-11 has 11 layers with weights" in section.answer
    assert "5 blocks and 3 layers" in section.answer
    assert "8 − 5 = 3" in section.answer
    assert sum("conv 3×3" in text for text in texts(section)) == 8


def test_only_networks_of_blocks_hide_layers() -> None:
    assert hides_layers(study("vgg11"))
    assert not hides_layers(study("alexnet"))
    assert not hides_layers(study("lenet"))


@pytest.mark.parametrize("name", ["vgg16", "torchvision:vgg16"])
def test_the_table_of_vgg16_is_read_off_the_trace(name: str) -> None:
    assert stages(study(name)) == [(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)]


def test_what_depth_costs() -> None:
    section = deeper([study("vgg11"), study("vgg16")], H200)
    frame = table(section, "depth").set_index("network")
    assert frame["convolutions"].tolist() == [8, 13]
    assert frame["weighted_layers"].tolist() == [11, 16]
    # five more 3x3 convolutions: 64→64, 128→128, 256→256, 512→512, 512→512
    more = sum((9 * c + 1) * c for c in (64, 128, 256, 512, 512))
    assert frame["parameters"].diff().iloc[1] == more == 5_494_208
    assert "The 5 more cost 5.49 M parameters (4.3 % more)" in section.answer
    assert any(text.endswith("vgg(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)))") for text in texts(section))


@pytest.mark.parametrize("ask", [footprint, arithmetic, lambda s: bandwidth(s, H200), lambda s: batch_size([s], H200)])
def test_every_number_comes_from_the_network(ask: object) -> None:
    """A number in AlexNet's answer that LeNet's has as well was typed in, or is the device's."""
    first, second = numbers(ask(study("alexnet"))), numbers(ask(study("lenet")))  # type: ignore[operator]
    of_the_device = {"4.80", "66.9", "495", "13.9", "103", "50.0"}
    assert len(first) > 5
    assert first & second <= of_the_device


def test_every_number_of_time_comes_from_the_device() -> None:
    slow = H200.replace(name="slow", memory_bandwidth=1e12, peaks={path: p / 3 for path, p in H200.peaks.items()})
    first, second = (study("alexnet").prediction(machine).bound_seconds for machine in (H200, slow))
    assert first != second
    answer, other = (batch_size([study("alexnet")], machine).answer for machine in (H200, slow))
    assert {"23,601", "148,395"} <= set(re.findall(r"[\d,]+", answer))
    assert not {"23,601", "148,395"} & set(re.findall(r"[\d,]+", other))


def test_which_questions_are_asked() -> None:
    titles = [section.title for section in answers([study("lenet")], {}, H200)]
    assert [title.split("LeNet-5")[0] for title in titles] == [
        "How much memory do ",
        "How much do ",
        "How does memory affect ",
        "What does the batch do to ",
    ]
    titles = [section.title for section in answers([study("alexnet"), study("vgg11"), study("vgg16")], {}, H200)]
    assert "How do AlexNet, VGG-11 and VGG-16 compare in parameters and FLOPs?" in titles
    assert "How is VGG-16 built, and what does it cost?" in titles
    assert len(titles) == 7


def test_shares_add_up() -> None:
    for name in ("alexnet", "vgg11", "lenet"):
        for quantity in ("parameters", "parameter_bytes", "output_bytes", "flops"):
            assert sum(study(name).share(quantity, part) for part in PARTS) == pytest.approx(1)
        assert sum(study(name).time_share(part, H200) for part in PARTS) == pytest.approx(1)
        assert sum(part.flops for part in study(name).parts().values()) == study(name).costs().total.flops


def test_studies_keep_what_they_computed() -> None:
    once = study("lenet")
    assert once.trace(2) is once.trace(2)
    assert once.costs(2) is once.costs(2)
    assert once.prediction(H200) is once.prediction(device("h200"))
    faster = H200.replace(memory_bandwidth=2 * H200.memory_bandwidth)
    fastest = H200.replace(memory_bandwidth=3 * H200.memory_bandwidth)
    assert len({once.prediction(machine).bound_seconds for machine in (H200, faster, fastest)}) == 3


def test_studies_are_told_apart() -> None:
    def unused(batch: int, train: bool, dtype: str | None) -> object:
        raise AssertionError

    same = [Study(name, "make", unused) for name in ("a.py:make", "b.py:make", "a-py-make")]  # type: ignore[arg-type]
    apart = distinct(same)
    assert [each.title for each in apart] == ["a.py:make", "b.py:make", "a-py-make"]
    assert [each.slug for each in apart] == ["a-py-make", "b-py-make", "a-py-make2"]
    assert [each.title for each in same] == ["make"] * 3


def test_networks_of_one_form() -> None:
    book, vision = study("alexnet"), study("torchvision:alexnet")
    assert same_form([book, study("vgg11"), vision]) == [book, study("vgg11")]
    assert same_form([vision, book]) == [vision, book]  # alone in its form: compared with all
    assert heaviest([book, study("vgg11")]) is study("vgg11")
