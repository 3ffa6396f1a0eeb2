"""Pareto fronts against their definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from costmodel.chip.pareto import pareto


def by_definition(points: np.ndarray) -> list[bool]:
    def beats(a: np.ndarray, b: np.ndarray) -> bool:
        return bool((a <= b).all() and (a < b).any())

    return [not np.isnan(p).any() and not any(beats(q, p) for q in points) for p in points]


values = st.one_of(
    st.integers(0, 4).map(float), st.floats(allow_nan=False), st.sampled_from([np.nan, np.inf, -np.inf, -0.0])
)


@given(st.integers(1, 5).flatmap(lambda d: arrays(float, st.tuples(st.integers(0, 30), st.just(d)), elements=values)))
def test_the_front_is_what_its_definition_says(points: np.ndarray) -> None:
    assert pareto(points).tolist() == by_definition(points)


@pytest.mark.parametrize("columns", [2, 3, 4])
def test_random_points(columns: int) -> None:
    points = np.random.default_rng(0).integers(0, 30, (400, columns)).astype(float)
    assert pareto(points).tolist() == by_definition(points)


def test_a_point_alone_and_none() -> None:
    assert pareto([[1.0, 2.0]]).tolist() == [True]
    assert pareto(np.empty((0, 3))).tolist() == []
    assert pareto([[1, 1], [1, 1], [1, 2], [0, 3]]).tolist() == [True, True, False, True]
    with pytest.raises(ValueError, match="rows and columns"):
        pareto([1.0, 2.0])
