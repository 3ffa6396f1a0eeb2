"""The chip-design chapter and its plots: numbers that were computed for the network that is asked about."""

from __future__ import annotations

import pytest
from matplotlib.axes import Axes

from costmodel import accelerator, balance, evaluate, networks, plots
from costmodel.book.chapters.chip import chip_chapter
from costmodel.book.chapters.chip_study import AREAS, BASE
from costmodel.book.model import Figure, Section, Table
from costmodel.book.study import Study
from costmodel.chip.explore import explore
from costmodel.chip.lowering import lower
from costmodel.chip.space import Space
from costmodel.errors import InputError


@pytest.fixture(scope="module")
def studies() -> list[Study]:
    return [Study.of(networks.find(name)) for name in ("lenet", "alexnet28")]


@pytest.fixture(scope="module")
def chapter(studies: list[Study]) -> Section:
    return chip_chapter(studies)


def frame(chapter: Section, name: str):
    return next(
        block.data.to_frame()
        for section in chapter.walk()
        for block in section.blocks
        if isinstance(block, Table) and block.name == name
    )


def test_the_answer_has_the_balances_numbers(chapter: Section, studies: list[Study]) -> None:
    ideal = accelerator(BASE).replace(dataflow="ideal")
    best = balance(lower(studies[1].trace()), ideal, 10.0)
    assert f"{100 * best.pes_mm2 / best.area_mm2:.0f} % on PEs for" in chapter.answer
    assert "10 mm² (16 nm by derived numbers, int8, 800 MHz)" in chapter.answer
    assert len(chapter.answer) < 450
    table = frame(chapter, "alexnet28-balance")
    assert len(table) == len(AREAS)
    shares = table[["pes_share", "sram_share", "interface_share"]].sum(axis="columns")
    assert list(shares) == pytest.approx([1] * len(AREAS))


def test_what_if_and_where_are_the_accelerators(chapter: Section, studies: list[Study]) -> None:
    found = evaluate(studies[1].trace(), accelerator(BASE))
    first = frame(chapter, "alexnet28-what-if").iloc[0]
    assert first["overlapped_seconds"] == pytest.approx(found.overlapped_seconds)
    assert first["macs"] == found.macs


def test_the_anchors_are_there(chapter: Section) -> None:
    table = frame(chapter, "chip-anchors")
    assert set(table["chip"]) >= {"Eyeriss", "NVDLA, 2,048 MACs", "TPU v1", "SCALE-Sim"}
    optimistic = (table["chip"] == "Eyeriss") & table["compared"].str.contains("VGG-16|energy|area")
    assert table["off_share"][~optimistic].abs().max() <= 0.15
    assert (table["off_share"][optimistic] < 0).sum() >= 5  # shown, not left out


def test_the_trust_section_says_where_the_model_is_optimistic(chapter: Section) -> None:
    section = next(section for section in chapter.walk() if section.title.startswith("How far"))
    assert "on AlexNet" in section.answer and "as fast as the chip" in section.answer
    assert "VGG-16" in section.answer and "energy" in section.answer and "area" in section.answer


def test_every_figure_draws(chapter: Section) -> None:
    figures = [block for section in chapter.walk() for block in section.blocks if isinstance(block, Figure)]
    assert len({figure.name for figure in figures}) == len(figures) == 7
    for figure in figures:
        assert isinstance(figure.draw(), Axes)


def test_networks_without_contractions_make_no_chapter() -> None:
    pooled = Study("pool", "Pool", lambda batch, train, dtype: _pooling(batch))
    assert chip_chapter([pooled]).blocks == ()


def _pooling(batch: int):
    from torch import nn

    import costmodel as cm

    return cm.trace(nn.MaxPool2d(2), (batch, 1, 8, 8))


def test_plots_take_axes_and_refuse_nothing(studies: list[Study]) -> None:
    base = accelerator(BASE)
    nests = lower(studies[0].trace())
    ax = plots.fronts({"lenet": explore(nests, Space(base, arrays=((8, 8), (16, 16)))).pareto(nests.model)})
    assert plots.iso_throughput(nests, base.replace(dataflow="ideal"), [balance(nests, base, 5.0)], ax=ax) is ax
    assert len(plots.chip_layers(evaluate(nests, base))) == 2
    assert len(plots.chip_layers(evaluate(nests, accelerator("h200")), most=3)) == 1  # it has no energy
    with pytest.raises(InputError, match="at least one"):
        plots.fronts({})
    with pytest.raises(InputError, match="at least one"):
        plots.iso_throughput(nests, base, [])
