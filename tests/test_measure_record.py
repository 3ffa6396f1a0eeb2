"""The Measurement document: round trip, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from costmodel.errors import InputError
from costmodel.hardware.record import (
    DEFAULTS,
    Kernel,
    LayerTime,
    Measurement,
    MemoryPeaks,
    PeerEstimate,
    Run,
    Spread,
    read,
)

HOSTILE = "<b>&\"'|</script>\n`" + "x" * 300

ENVIRONMENT = {
    "device": {"type": "cuda", "name": "A made-up GPU", "memory_bytes": 1 << 30},
    "versions": {"torch": "2.11.0"},
    "threads": 4,
    "date": "2026-11-24T00:00:00+00:00",
}

RUN = Run(
    model="net",
    inputs=((2, 3, 8, 8),),
    batch=2,
    dtype="float32",
    train=True,
    settings={"loss": "cross_entropy", "optimizer": "sgd", "momentum": 0.9},
    eager=Spread(2e-3, 1.9e-3, 2.2e-3, 12),
    rounds=(2e-3, 2.1e-3, 1.9e-3),
    kernel_time=Spread(1e-3, 1e-3, 1.1e-3, 5),
    profiled=Spread(4e-3, 4e-3, 4e-3, 5),
    layers=(LayerTime("conv", "forward", 6e-4, 5e-4, 7e-4, (Kernel("winograd", 5e-4, 1), Kernel("copy", 1e-4, 2))),),
    memory=MemoryPeaks(1000, 1024, 2048, 4096, 512),
    peers={"torch runtime estimator": PeerEstimate(3e-3)},
)
RECORD = Measurement(ENVIRONMENT, DEFAULTS, (RUN, replace(RUN, batch=1, inputs=((1, 3, 8, 8),))))


def damaged(**changes) -> str:
    """The document with other fields of its first run, and a digest that is not for it."""
    document = json.loads(RECORD.to_json())
    document["runs"][0] |= changes
    return json.dumps(document)


def test_round_trip() -> None:
    assert Measurement.from_json(RECORD.to_json()) == RECORD


def test_save_and_read(tmp_path) -> None:
    path = RECORD.save(tmp_path / "record.json")
    assert read(path) == RECORD
    assert [each.name for each in tmp_path.iterdir()] == ["record.json"]


@given(
    st.floats(0, 1e6, allow_nan=False),
    st.integers(0, 2**60),
    st.text(max_size=40),
    st.one_of(st.none(), st.integers(0, 10**15)),
)
def test_any_value_survives(seconds: float, count: int, name: str, nbytes: int | None) -> None:
    layer = LayerTime(name, "forward", seconds, seconds, seconds, (Kernel(name, seconds, count),))
    run = replace(RUN, model=name, layers=(layer,), memory=MemoryPeaks(nbytes))
    record = Measurement(ENVIRONMENT, DEFAULTS, (run,))
    assert Measurement.from_json(record.to_json()) == record


def test_derived_numbers() -> None:
    assert RUN.noise == pytest.approx(0.2 / 2.0)  # from 1.9 to 2.1 ms, of the median 2.0
    assert RUN.profiler_ratio == pytest.approx(4 / 2)
    assert RUN.samples_per_second == pytest.approx(2 / 2e-3)
    assert RUN.layers[0].launches == 3
    assert RUN.layers[0].noise == pytest.approx(2 / 6)


def test_spread() -> None:
    # Inclusive quartiles of 1 2 3 4 5 are 2 and 4.
    assert Spread.of([5, 1, 3, 2, 4]) == Spread(3, 2, 4, 5)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0, 1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a JSON document"),
        (RECORD.to_json()[:400], "not the whole of one"),
        ("[1, 2]", "it has no schema"),
        ('{"schema": "costmodel/trace/1"}', "its schema is 'costmodel/trace/1'"),
        ('{"schema": "costmodel/measurement/2"}', "should be 'costmodel/measurement/1'"),
        ('{"schema": "costmodel/measurement/1"}', "object missing required field `circumstances`"),
        (damaged(batch="two"), r"runs\[0\].batch: expected `int`, got `str`"),
        (damaged(batch=True), r"runs\[0\].batch: expected `int`, got `bool`"),
        (damaged(rounds=[0.1, -1.0]), r"runs\[0\].rounds\[1\]: expected `float` >= 0"),
        (damaged(rounds=[float("nan")]), "it holds NaN"),
        (damaged(rounds=[0.25]).replace("0.25", "1e999"), "it holds 1e999"),
        (damaged(layers=[]), r"runs\[0\] has neither times nor a reason"),
        (damaged(speed=1), r"runs\[0\]: object contains unknown field `speed`"),
        (damaged(layers=[{"layer": "a"}]), r"runs\[0\].layers\[0\]: object missing required field `phase`"),
        (damaged(memory=None), r"runs\[0\].memory: expected `object`, got `null`"),
        (damaged(inputs={"a": 1}), r"runs\[0\].inputs: expected `array`, got `object`"),
        (damaged(batch=3), "changed after it was written"),
    ],
)
def test_what_is_damaged_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Measurement.from_json(text)


def test_a_record_must_say_on_what_it_was_made() -> None:
    for name in ("device", "threads", "date", "versions"):
        missing = Measurement({key: value for key, value in ENVIRONMENT.items() if key != name}, DEFAULTS, (RUN,))
        with pytest.raises(InputError, match=f"circumstances.{name}"):
            Measurement.from_json(missing.to_json())


def test_circumstances_hold_no_number_that_is_none() -> None:
    text = RECORD.to_json().replace('"threads": ', '"temperature": NaN, "threads": ', 1)
    with pytest.raises(InputError, match="it holds NaN"):
        Measurement.from_json(text)


def test_a_file_that_cannot_be_read_is_named(tmp_path) -> None:
    with pytest.raises(InputError, match=r"nothing.json: cannot be read"):
        read(tmp_path / "nothing.json")
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"binary.json: this is not a JSON document"):
        read(binary)
    with pytest.raises(InputError, match="cannot write"):
        RECORD.save(tmp_path / "no" / "such" / "folder.json")


def test_the_run_that_was_asked_for() -> None:
    settings = RUN.settings
    assert RECORD.run("net", [(2, 3, 8, 8)], "float32", True, settings) is RECORD.runs[0]
    with pytest.raises(InputError, match=r"no run of vgg16 on 2x3x8x8 in float32, training step. It has net, batch 2"):
        RECORD.run("vgg16", [(2, 3, 8, 8)], "float32", True, settings)
    with pytest.raises(InputError, match="no run of net on 4x3x8x8"):
        RECORD.run("net", [(4, 3, 8, 8)], "float32", True, settings)
    with pytest.raises(InputError, match="in bfloat16"):
        RECORD.run("net", [(2, 3, 8, 8)], "bfloat16", True, settings)
    with pytest.raises(InputError, match=r"forward. It has"):
        RECORD.run("net", [(2, 3, 8, 8)], "float32", False, {})
    with pytest.raises(InputError, match=r"trained with loss cross_entropy, optimizer sgd, momentum 0.9"):
        RECORD.run("net", [(2, 3, 8, 8)], "float32", True, {"loss": "cross_entropy", "optimizer": "adam"})


def test_it_shows_itself() -> None:
    record = Measurement(ENVIRONMENT, DEFAULTS, (replace(RUN, model=HOSTILE),))
    html = record._repr_html_()
    assert "<b>" not in html and "&lt;b&gt;" in html
    frame = record.to_frame()
    assert frame.loc[0, "eager_seconds"] == 2e-3 and frame.loc[0, "requested_bytes"] == 1000
    assert repr(RECORD) == "<Measurement of 2 runs on A made-up GPU>"


def test_reading_needs_no_torch(tmp_path) -> None:
    path = RECORD.save(tmp_path / "record.json")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import costmodel.validation.measurement, costmodel.hardware.profiles.join\n"
        f"from costmodel.hardware.record import read; print(read({str(path)!r}).runs[0].model)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "net\n"
