"""Placing labels: plain geometry."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.plots.labels import Box, Label, place

AREA = Box(0, 0, 400, 300)

labels_ = st.lists(
    st.builds(
        Label,
        st.floats(0, 400),
        st.floats(0, 300),
        st.floats(0, 20),
        st.floats(5, 90),
        st.floats(5, 30),
    ),
    max_size=7,
)
boxes_ = st.lists(st.builds(lambda x, y: Box(x, y, x + 60, y + 15), st.floats(0, 400), st.floats(0, 300)), max_size=3)


@settings(max_examples=40, deadline=None)
@given(labels_, boxes_)
def test_labels_never_overlap_nor_leave_the_area_nor_touch_what_is_taken(labels: list[Label], taken: list[Box]) -> None:
    boxes = place(labels, AREA, taken)
    assert len(boxes) == len(labels)
    assert boxes == place(labels, AREA, taken)
    placed = [box for box in boxes if box]
    for one, two in itertools.combinations(placed, 2):
        assert one.shared(two) == 0
    for label, box in zip(labels, boxes, strict=True):
        if box:
            assert box.right - box.left == pytest.approx(label.width) and box.top - box.bottom == pytest.approx(
                label.height
            )
            assert box.left >= 0 and box.bottom >= 0 and box.right <= 400 and box.top <= 300
            assert all(box.shared(other) == 0 for other in taken)


def test_a_lone_label_stands_beside_its_point() -> None:
    (box,) = place([Label(200, 150, 5, 60, 10)], AREA)
    assert box is not None
    assert box.distance(Box(195, 145, 205, 155)) <= 4 + 1e-9
    assert box.shared(Box(195, 145, 205, 155)) == 0


def test_a_label_keeps_away_from_markers_and_lines() -> None:
    markers = [Box(195, 145, 205, 155), Box(215, 145, 300, 155)]  # its own, and one at its right
    line = [Box(x, 158, x + 4, 162) for x in range(0, 400, 4)]  # one above
    (box,) = place([Label(200, 150, 5, 60, 10)], AREA, points=markers, lines=line)
    assert box is not None
    assert all(box.shared(other) == 0 for other in markers + line)


def test_a_label_without_room_is_left_out() -> None:
    assert place([Label(200, 150, 5, 500, 10)], AREA) == [None]
    assert place([Label(200, 150, 5, 60, 10)], AREA, taken=[AREA]) == [None]
    assert place([], AREA) == []


def test_distance_and_area_of_boxes() -> None:
    # 3 apart across and 4 up: 5; overlap of [0, 2] x [0, 2] and [1, 3] x [1, 3] is 1
    assert Box(0, 0, 1, 1).distance(Box(4, 5, 6, 6)) == 5
    assert Box(0, 0, 2, 2).shared(Box(1, 1, 3, 3)) == 1
    assert Box(0, 0, 1, 1).shared(Box(1, 0, 2, 1)) == 0
    assert Box(0, 0, 1, 1).padded(1) == Box(-1, -1, 2, 2)
    assert Box(0, 0, 2, 2).nearest(5, 1) == (2, 1)
