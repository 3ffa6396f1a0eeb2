"""Tensors and traces as plain data."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from costmodel.errors import InputError
from costmodel.graph import DTYPE_BYTES, Module, Operation, Parameter, Storage, TensorSpec, Trace
from costmodel.tracer import trace

names = st.text(max_size=12)
plain = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | names
values = st.one_of(plain, st.tuples(plain), st.tuples(plain, st.tuples(plain, plain)))
specs = st.builds(
    lambda shape, dtype, storage: TensorSpec(tuple(shape), dtype, tuple(range(len(shape))), storage),
    st.lists(st.integers(0, 99), max_size=4), st.sampled_from(sorted(DTYPE_BYTES)), st.integers(0, 9),
)  # fmt: skip
operations = st.builds(
    Operation, names, names, st.sampled_from(["forward", "backward"]), st.dictionaries(names, specs, max_size=3),
    st.lists(specs, max_size=2).map(tuple), st.dictionaries(names, values, max_size=3), st.booleans(), names,
)  # fmt: skip
traces = st.builds(
    Trace,
    model=names,
    operations=st.lists(operations, max_size=3).map(tuple),
    storages=st.lists(
        st.builds(Storage, st.integers(0), names, st.integers(-1), st.none() | st.integers(0), names), max_size=2
    ).map(tuple),
    modules=st.lists(
        st.builds(
            Module, names, names, st.booleans(), st.integers(0, 3),
            st.none() | st.lists(st.integers(0)).map(tuple), st.dictionaries(names, values, max_size=2),
        ),
        max_size=2,
    ).map(tuple),
    parameters=st.lists(st.builds(Parameter, names, names, specs, st.booleans(), st.booleans()), max_size=2).map(tuple),
    inputs=st.lists(specs, max_size=2).map(tuple),
    outputs=st.lists(specs, max_size=2).map(tuple),
    dtype=names,
)  # fmt: skip


@given(traces)
def test_a_trace_survives_json(trace: Trace) -> None:
    assert Trace.from_json(trace.to_json()) == trace


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "{}", '{"schema": "costmodel/trace/2"}', '{"schema": "costmodel/trace/1"}', "null",
        '{"schema": "costmodel/trace/2", "model": 1, "operations": 3}',
    ],
)  # fmt: skip
def test_what_is_not_a_trace_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"trace|JSON"):
        Trace.from_json(text)


def test_a_damaged_trace_is_refused() -> None:
    trace = Trace("m", (), (), (), (), (TensorSpec((2,), "float32", (1,), 0),), (), "float32")
    document = json.loads(trace.to_json())
    document["inputs"][0][1] = "float31"
    with pytest.raises(InputError, match=r"damaged.*float31"):
        Trace.from_json(json.dumps(document))


def test_bytes_of_an_expanded_tensor_are_those_of_its_elements() -> None:
    expanded = TensorSpec((8, 5, 3), "float32", (0, 3, 1), 0)
    assert expanded.numel == 120
    assert expanded.nbytes == 4 * 15
    assert TensorSpec((), "float64", (), 0).nbytes == 8
    assert TensorSpec((0, 4), "int64", (0, 1), 0).nbytes == 0


def test_a_notebook_shows_what_ran() -> None:
    html = trace(nn.Linear(3, 2), (4, 3), train=True, name="<net>")._repr_html_()
    assert "Trace of &lt;net&gt;" in html and "backward: " in html and "4x3 float32" in html
    assert ">8</td>" in html  # 3 x 2 weights and 2 biases
