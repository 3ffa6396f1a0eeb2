"""The numbers of the chapters that show results as they are: derived again from shapes, or counted in plain loops."""

from __future__ import annotations

import pytest
from by_hand import ALEXNET, rows
from holding import hold

from costmodel import device, networks
from costmodel.book.chapters.checks import checks
from costmodel.book.chapters.conventions import conventions
from costmodel.book.chapters.layers import layers
from costmodel.book.chapters.networks import networks as side_by_side
from costmodel.book.chapters.rooflines import rooflines
from costmodel.book.model import Figure
from costmodel.book.study import Study
from costmodel.validation import TOTAL, ComparisonRow, Validation

H200 = device("h200")


@pytest.fixture(scope="module")
def alexnet() -> Study:
    return Study.of(networks.find("alexnet"))


def test_side_by_side(alexnet: Study) -> None:
    chapter = side_by_side([alexnet], H200)
    hold(chapter.numbers, {"device": "NVIDIA H200 SXM", "training_batch": 64})
    table = chapter.tables["networks"].data
    one, many = (sum(row.bound_seconds() for row in rows(ALEXNET, batch)) for batch in (1, 64))
    frame = table.to_frame()
    assert frame["batch"].tolist() == [1, 64]
    assert frame["bound_seconds"].tolist() == pytest.approx([one, many])
    assert frame["macs"].tolist() == [sum(row.macs for row in rows(ALEXNET))] * 2
    shares = chapter.tables["shares"].data
    assert shares is not None
    dense = shares.to_frame().set_index(["part", "batch"]).loc["fully connected layers"]
    fc = [row for row in rows(ALEXNET) if row.kind == "fc"]
    assert dense["parameters_share"].tolist() == pytest.approx([sum(row.parameters for row in fc) / 46_764_746] * 2)
    assert dense.at[1, "time_share"] == pytest.approx(sum(row.bound_seconds() for row in fc) / one)


def test_conventions() -> None:
    hold(
        conventions().numbers,
        {
            "mac": "one multiply-accumulate of a contraction (convolution, matrix product); "
            "of complex numbers it is four",
            "flops": "2 x MACs + vector FLOPs (bias, activation, pooling, normalisation, softmax, loss, optimizer)",
            "moved": "each distinct tensor that an operation takes or makes, once, at its own dtype, "
            "but for what lies between the windows of a convolution; a view moves nothing",
            "arithmetic_intensity": "FLOPs / (read + write bytes)",
            "bound": "bound of unfused execution from memory: "
            "each operation takes the longer of its arithmetic and its traffic",
        },
    )


def test_rooflines(alexnet: Study) -> None:
    chapter = rooflines([alexnet], [H200])
    factors = {
        kind: [
            (many.flops / many.moved_bytes) / (one.flops / one.moved_bytes)
            for one, many in zip(rows(ALEXNET), rows(ALEXNET, 64), strict=True)
            if one.kind == kind
        ]
        for kind in ("conv", "fc")
    }
    hold(
        chapter.numbers,
        {
            "network": "AlexNet (book)",
            "batch": 64,
            "movements": [
                {"part": part, "least_ratio": min(factors[kind]), "most_ratio": max(factors[kind])}
                for kind, part in (("conv", "convolutions"), ("fc", "fully connected layers"))
            ],
            "pictures": [{"figure": "roofline-alexnet-h200", "network": "AlexNet (book)", "device": "NVIDIA H200 SXM"}],
        },
    )
    assert all(isinstance(figure, Figure) for figure in chapter.figures.values())


def test_checks(alexnet: Study) -> None:
    """Seven rows of our own making: two equal, three explained (one of them a total), two not (one of them a total)."""
    said = (
        ("net.0", 0, True), (TOTAL, 0, True), ("net.0", 5, True), ("net.1", 5, True), (TOTAL, 7, True),
        ("net.0", 1, False), (TOTAL, 1, False),
    )  # fmt: skip
    made = [
        ComparisonRow("a peer", "forward", where, "macs", 10, 10 + off, off, "because", ok) for where, off, ok in said
    ]
    chapter = checks({alexnet: Validation("alexnet", tuple(made), ("a note", "a note", "another"))})
    hold(
        chapter.numbers,
        {
            "compared": 7,
            "equal": 2,
            "explained": 3,
            "unexplained": 2,
            "totals_differing": 2,
            "layers_differing": 3,
            "notes": ["a note", "another"],
        },
    )
    assert {name: len(table.data or ()) for name, table in chapter.tables.items()} == {
        "differing": 2, "totals": 3, "layers": 3,
    }  # fmt: skip
    assert [table.data["verdict"] for table in chapter.tables.values() if table.data][1] == (
        "agrees", "explained", "differs",
    )  # fmt: skip
    assert {name: "layer" in table.data.names for name, table in chapter.tables.items()} == {
        "differing": False, "totals": False, "layers": True,
    }  # fmt: skip
    assert tuple(chapter.tables["layers"].data["layer"]) == ("net.0", "net.1", "net.0")
    assert {name: table.folded for name, table in chapter.tables.items()} == {
        "differing": False, "totals": True, "layers": True,
    }  # fmt: skip


def test_layers(alexnet: Study) -> None:
    chapter = layers([alexnet], H200)
    hold(
        chapter.numbers,
        {
            "device": "NVIDIA H200 SXM",
            "networks": [{"table": "alexnet-layers", "title": "AlexNet (book)", "not_counted": []}],
        },
    )
    table = chapter.tables["alexnet-layers"].data
    moving = [index for index, moved in enumerate(table["moved_bytes"]) if moved]  # not the flatten and the dropouts
    for name in ("parameters", "macs", "flops", "moved_bytes"):
        assert [table[name][index] for index in moving] == [getattr(row, name) for row in rows(ALEXNET)]
    bounds = [row.bound_seconds() for row in rows(ALEXNET)]
    assert [table["bound_seconds"][index] for index in moving] == pytest.approx(bounds)
    assert table.total is not None
    assert table.total["parameters"] == 46_764_746
