"""A prediction beside a record: every number derived by hand from made-up times, never a measurement."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs
from torch import nn

import costmodel as cm
from costmodel.cli import documents
from costmodel.devices import Calibration, Device, Fact, FittedRates, Source
from costmodel.errors import InputError
from costmodel.estimate import Estimate
from costmodel.hardware.record import (
    DEFAULTS,
    Kernel,
    LayerTime,
    Measurement,
    PeerEstimate,
    PrecisionSettings,
    Run,
    Spread,
)
from costmodel.validation.measurement import against, compare, device_of
from costmodel.view import Table
from costmodel.view.markdown import to_markdown
from costmodel.view.terminal import to_terminal

HOSTILE = "<b>|</script>\n`" + "x" * 300
NS, US = 1e-9, 1e-6

SLOW_MEMORY = Device("toy", "A toy", "gpu", {"fp32": 1e12}, memory_bandwidth=1e9)
SLOW_UNITS = Device("slow", "Slow units", "gpu", {"fp32": 1e9}, memory_bandwidth=1e14)


def layer(name: str, seconds: float, *kernels: str, noise: float = 0.0, phase: str = "forward") -> LayerTime:
    half = seconds * noise / 2
    named = tuple(Kernel(each, seconds / len(kernels), 1) for each in kernels)
    return LayerTime(name, phase, seconds, seconds - half, seconds + half, named or (Kernel("kernel", seconds, 1),))


def run_of(trace: cm.Trace, *layers: LayerTime, **changes) -> Run:
    whole = sum(each.seconds for each in layers)
    run = Run(
        trace.model,
        tuple(spec.shape for spec in trace.inputs),
        trace.inputs[0].shape[0],
        trace.dtype,
        trace.train,
        dict(trace.settings),
        eager=Spread(2 * whole, 2 * whole, 2 * whole, 3),
        rounds=(2 * whole,),
        kernel_time=Spread(whole, whole, whole, 3),
        layers=layers,
    )
    return structs.replace(run, **changes)


@pytest.fixture(scope="module")
def perceptron() -> cm.Trace:
    return cm.trace(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), (2, 4), name="perceptron")


@pytest.fixture(scope="module")
def convolution() -> cm.Trace:
    return cm.trace(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False)), (1, 4, 8, 8), name="convolution")


def test_errors_by_hand(perceptron) -> None:
    """Linear: reads 2x4 + 3x4 + 3 and writes 2x3 floats: 116 bytes, 116 ns at 1 GB/s. ReLU: 24 + 24 bytes, 48 ns."""
    prediction = cm.predict(cm.count(perceptron), SLOW_MEMORY)
    assert prediction.bound_seconds == pytest.approx(164 * NS)
    found = compare(prediction, run_of(perceptron, layer("0", 145 * NS), layer("1", 96 * NS)), "toy")
    assert [row.error for row in found.rows] == pytest.approx([116 / 145 - 1, 48 / 96 - 1])  # -20 % and -50 %
    assert found.error == pytest.approx(164 / 241 - 1)
    assert found.weighted_error == pytest.approx((29 + 48) / 241)
    assert found.rank_correlation == pytest.approx(1.0)
    assert found.coverage is None and found.weighted_coverage is None, "a bound has no interval"
    assert found.ok


def estimated(prediction, *limits):
    """The prediction with a made-up estimate for each operation that computes: seconds, from, to."""
    given = iter(limits)
    operations = tuple(
        replace(row, estimate=Estimate(*(next(given) if row.cost.flops else (0.0, 0.0, 0.0)), row.kind))
        for row in prediction.operations
    )
    return replace(prediction, operations=operations)


def test_estimates_have_intervals(perceptron) -> None:
    """150 ns (120 to 180) against 145, and 80 ns (70 to 90) against 96: one of two layers, 145 of 241 ns."""
    bounds = cm.predict(cm.count(perceptron), SLOW_MEMORY)
    prediction = estimated(bounds, (150 * NS, 120 * NS, 180 * NS), (80 * NS, 70 * NS, 90 * NS))
    found = compare(prediction, run_of(perceptron, layer("0", 145 * NS), layer("1", 96 * NS)), "toy")
    assert found.coverage == 0.5 and found.weighted_coverage == pytest.approx(145 / 241)
    assert found.error == pytest.approx(230 / 241 - 1)
    assert found.weighted_error == pytest.approx((5 + 16) / 241)
    assert [row.explanation for row in found.rows] == ["", "launch-bound: 1 kernel of 96.0 ns"]
    assert [row.source for row in found.totals] == ["our estimate", "our bound"]
    assert "intervals hold 50 % of the layers" in found.verdict
    assert {"predicted_seconds", "low_seconds", "high_seconds"} <= set(found.table().names)


def test_faster_than_the_estimate_and_not_than_the_bound(perceptron) -> None:
    device = SLOW_MEMORY.replace(l2_bytes=1024)
    limits = (300 * NS, 290 * NS, 310 * NS), (48 * NS, 48 * NS, 48 * NS)
    run = run_of(perceptron, layer("0", 200 * NS), layer("1", 48 * NS))
    for machine, reason in ((SLOW_MEMORY, "faster kernel"), (device, "cache-resident")):
        found = compare(estimated(cm.predict(cm.count(perceptron), machine), *limits), run, "toy")
        assert found.ok and found.rows[0].explanation == reason


def test_three_totals_and_a_peer(perceptron) -> None:
    prediction = cm.predict(cm.count(perceptron), SLOW_MEMORY)
    run = run_of(
        perceptron,
        layer("0", 145 * NS),
        layer("1", 96 * NS),
        graph=Spread(328 * NS, 328 * NS, 328 * NS, 3),
        peers={"a peer": PeerEstimate(482 * NS), "another": PeerEstimate(problem="not installed")},
    )
    bound, peer, silent = compare(prediction, run, "toy").totals
    assert (bound.work_error, bound.graph_error, bound.eager_error) == pytest.approx(
        (164 / 241 - 1, 164 / 328 - 1, 164 / 482 - 1)
    )
    assert (peer.work_error, peer.eager_error) == pytest.approx((1.0, 0.0))
    assert silent.seconds is None and silent.explanation == "says nothing: not installed"


def test_ranks_share_ties() -> None:
    """Predicted 116, 48 and 48 ns, measured 3, 1 and 2 us: ranks 3, 1.5, 1.5 against 3, 1, 2.

    Less their means 1, -0.5, -0.5 and 1, -1, 0: the correlation is 1.5 / sqrt(1.5 x 2) = 0.866.
    """
    trace = cm.trace(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.ReLU()), (2, 4), name="ties")
    prediction = cm.predict(cm.count(trace), SLOW_MEMORY)
    run = run_of(trace, layer("0", 3 * US), layer("1", 1 * US), layer("2", 2 * US))
    assert compare(prediction, run, "toy").rank_correlation == pytest.approx(1.5 / 3**0.5)
    alone = compare(prediction, run_of(trace, layer("1", 1 * US), layer("2", 2 * US)), "toy")
    assert alone.rank_correlation is None, "two equal predictions do not vary"


def test_a_bound_that_is_beaten_fails(perceptron) -> None:
    prediction = cm.predict(cm.count(perceptron), SLOW_MEMORY)
    found = compare(prediction, run_of(perceptron, layer("0", 100 * NS, noise=0.02), layer("1", 96 * NS)), "toy")
    assert (found.rows[0].ok, found.rows[0].explanation) == (False, "beats the bound, unexplained")
    assert not found.ok
    assert "1 of 2 bounds fail" in found.title


def test_noise_does_not_beat_a_bound(perceptron) -> None:
    """Its median is 110 ns, below 116; but the third quartile is 110 + 11."""
    prediction = cm.predict(cm.count(perceptron), SLOW_MEMORY)
    found = compare(prediction, run_of(perceptron, layer("0", 110 * NS, noise=0.2), layer("1", 48 * NS)), "toy")
    assert found.ok and [row.explanation for row in found.rows] == ["", ""]


def test_a_cache_may_beat_the_memory(perceptron) -> None:
    """2 x 1024 bytes of cache hold all of it, so arithmetic alone is the roof: 48 + 6 FLOPs at 1 TFLOP/s, 54 ps."""
    device = SLOW_MEMORY.replace(l2_bytes=1024)
    prediction = cm.predict(cm.count(perceptron), device)
    found = compare(prediction, run_of(perceptron, layer("0", 100 * NS), layer("1", 96 * NS)), "toy")
    assert found.ok
    assert found.rows[0].explanation == "cache-resident"
    assert found.rows[0].executed_bound_seconds == pytest.approx(54e-12)


def test_a_cache_holds_no_more_than_its_size() -> None:
    """Linear(1000, 10): 4 x (1000 + 10000 + 10 + 10) = 44 080 bytes. Of them 2 x 1024 may stay in the cache."""
    trace = cm.trace(nn.Sequential(nn.Linear(1000, 10)), (1, 1000), name="wide")
    prediction = cm.predict(cm.count(trace), SLOW_MEMORY.replace(l2_bytes=1024))
    roof = (44_080 - 2048) * NS
    above, below = (
        compare(prediction, run_of(trace, layer("0", seconds)), "toy").rows[0] for seconds in (43 * US, 42 * US)
    )
    assert (above.ok, above.explanation, above.executed_bound_seconds) == (True, "cache-resident", pytest.approx(roof))
    assert (below.ok, below.explanation) == (False, "beats the bound, unexplained")


def test_a_cache_does_not_explain_everything() -> None:
    """Those 44 080 bytes in 10 us where memory takes 44: a cache that holds them all can, one that holds 30 000 cannot.

    A third of the bound is 14.7 us: at 20 us such a cache may still do, for 2 x 30 000 bytes need not go to memory.
    """
    trace = cm.trace(nn.Sequential(nn.Linear(1000, 10)), (1, 1000), name="wide")

    def row(seconds: float, cache: int):
        prediction = cm.predict(cm.count(trace), SLOW_MEMORY.replace(l2_bytes=cache))
        return compare(prediction, run_of(trace, layer("0", seconds)), "toy").rows[0]

    assert row(10 * US, 50_000).explanation == row(20 * US, 30_000).explanation == "cache-resident"
    far = row(10 * US, 30_000)
    assert (far.ok, far.explanation) == (False, "beats the bound, unexplained")


def test_of_noise_nothing_is_said(perceptron) -> None:
    """Quartiles 60 % of the median apart: neither right nor wrong. ReLU, at 96 ns, is told as ever."""
    prediction = estimated(
        cm.predict(cm.count(perceptron), SLOW_MEMORY), (150 * NS, 120 * NS, 180 * NS), (90 * NS, 70 * NS, 100 * NS)
    )
    run = run_of(perceptron, layer("0", 145 * NS, noise=0.6), layer("1", 96 * NS))
    found = compare(prediction, run, "toy")
    assert [row.ok for row in found.rows] == [None, True] and found.ok
    assert found.rows[0].explanation == "too noisy to say: repetitions lie 60 % apart"
    assert found.verdict.endswith("; 1 of 2 layers too noisy to say")
    assert found.coverage == 1.0, "of one layer"
    assert list(found.table()["ok"]) == [None, True]
    assert documents.measured([found])["comparisons"][0]["layers"][0]["ok"] is None
    whole = compare(prediction, structs.replace(run, rounds=(200 * NS, 400 * NS)), "toy")
    assert [row.ok for row in whole.rows] == [None, None], "its rounds lie 200 of 300 ns apart"
    fast = compare(prediction, run_of(perceptron, layer("0", 50 * NS, noise=0.8), layer("1", 96 * NS)), "toy")
    assert fast.rows[0].ok is False, "noise adds to a time: 50 + 20 ns beat the 116 ns of the bound all the same"


def test_a_wide_interval_is_told(perceptron) -> None:
    """110 ns (40 to 400) against 50: 120 % off, and inside; 40 / 110 = 0.36 and 400 / 110 = 3.6."""
    bounds = cm.predict(cm.count(perceptron), SLOW_MEMORY)
    prediction = estimated(bounds, (150 * NS, 120 * NS, 180 * NS), (110 * NS, 40 * NS, 400 * NS))
    found = compare(prediction, run_of(perceptron, layer("0", 145 * NS), layer("1", 50 * NS)), "toy")
    assert [row.explanation for row in found.rows] == ["", "inside a wide interval: 0.36 to 3.6 times the estimate"]
    assert found.coverage == 1.0


def test_winograd_has_a_roof_of_its_own(convolution) -> None:
    """8 x 8 x 4 outputs of 3 x 3 x 4 products: 9216 MACs, 18.432 us at 1 GFLOP/s; a quarter of it is 4.608 us."""
    prediction = cm.predict(cm.count(convolution), SLOW_UNITS)
    assert prediction.bound_seconds == pytest.approx(18.432 * US)

    def row(seconds: float, name: str):
        return compare(prediction, run_of(convolution, layer("0", seconds, name)), "slow").rows[0]

    fast = row(8 * US, "maxwell_scudnn_winograd_128x128_ldg1_ldg4_tile148n_nt")
    assert (fast.ok, fast.explanation) == (True, "Winograd's fewer multiplications")
    assert fast.executed_bound_seconds == pytest.approx(4.608 * US)
    assert not row(4 * US, "winograd_nonfused").ok, "it multiplies a quarter as often, and no less"
    assert not row(8 * US, "implicit_convolve_sgemm").ok, "and this does not at all"
    # Along a row of 8 with a pixel of padding at both ends 22 of 24 products are with the image: (22 / 24)^2.
    without = row(16 * US, "implicit_convolve_sgemm")
    assert (without.ok, without.explanation) == (True, "products with padding left out")
    assert without.executed_bound_seconds == pytest.approx(18.432 * US * (22 / 24) ** 2)
    assert row(1 * US, "fft2d_r2c_32x32").explanation == "Fourier transform's fewer multiplications"


def test_a_measured_peak_is_no_datasheets(convolution) -> None:
    """Held-out shapes of its class reached 1.2 / 0.8 = 1.5 times the peak: 18.432 us become 12.288, and no less."""
    run_there, datasheet = Source("a calibration", "2026"), Source("a datasheet", "2026")
    fitted_rates = FittedRates(0.0, 0.0, 1.2e9, 1e14, 1e14, 1e14, 1.0, 0.8, 1.2, 0.1, 10)
    calibration = Calibration(1, 1, 0.9, {"conv_stem": {"fp32": fitted_rates}})

    def row(seconds: float, source: Source):
        facts = {"peaks.fp32": Fact(1e9, source), "calibration": Fact(1, run_there)}
        device = replace(SLOW_UNITS, calibration=calibration, facts=facts)
        return compare(cm.predict(cm.count(convolution), device), run_of(convolution, layer("0", seconds)), "x").rows[0]

    found = row(13 * US, run_there)
    assert (found.ok, found.explanation) == (True, "faster than the measured peak")
    assert found.executed_bound_seconds == pytest.approx(12.288 * US)
    assert row(11 * US, run_there).explanation == "faster than the measured peak and products with padding left out"
    assert not row(9 * US, run_there).ok
    assert not row(13 * US, datasheet).ok, "nothing is faster than a datasheet's peak"


@pytest.mark.parametrize(
    ("kernels", "seconds", "expected"),
    [
        (("a", "b"), 10 * US, "launch-bound: 2 kernels of 5.00 µs"),
        (("implicit_convolve_sgemm",), 1.8432e-3, "slow kernel: 1 % of what the bound allows, implicit_convolve_sgemm"),
        (("nchwToNhwcKernel", "gemm"), 1e-3, "layout conversion: 50 % of its time"),
    ],
)
def test_why_a_layer_is_slow(convolution, kernels, seconds, expected) -> None:
    device = SLOW_UNITS.replace(peaks={"fp32": 1e9}, memory_bandwidth=1e14)
    prediction = cm.predict(
        cm.count(convolution), device if seconds > 20 * US else device.replace(peaks={"fp32": 1e10})
    )
    found = compare(prediction, run_of(convolution, layer("0", seconds, *kernels)), "slow")
    assert found.rows[0].explanation == expected


def test_what_nothing_is_predicted_for_and_what_nothing_ran_for(perceptron) -> None:
    prediction = cm.predict(cm.count(perceptron), SLOW_MEMORY)
    found = compare(prediction, run_of(perceptron, layer("0", 145 * NS), layer("stranger", 1e-3)), "toy")
    rows = {row.layer: row for row in found.rows}
    assert rows["stranger"].explanation == "unmodelled: nothing is predicted for it"
    assert rows["1"].measured_seconds is None and rows["1"].explanation == "nothing ran for it"
    assert not found.ok, "a layer of a third of the bound cannot be missing"


def record(run: Run, target: str = "cuda", **precision_settings) -> Measurement:
    environment = {
        "device": {"type": target, "name": "NVIDIA A100-SXM4-80GB" if target == "cuda" else "No such CPU"},
        "versions": {"torch": "2.11.0"},
        "threads": 1,
        "date": "2026-11-24",
    }
    return Measurement(environment, structs.replace(DEFAULTS, **precision_settings), (run,))


def test_the_records_switches_count(convolution) -> None:
    run = run_of(convolution, layer("0", 1e-3))
    device = cm.device("a100-80gb")
    assert against(record(run), convolution, device).prediction.layers[0].path == "tf32"
    assert against(record(run, cudnn_allow_tf32=False), convolution, device).prediction.layers[0].path == "fp32"
    assert PrecisionSettings() == DEFAULTS == PrecisionSettings(True, False, False, "contiguous")


def test_another_run_or_device_is_refused(perceptron, convolution) -> None:
    ours = record(run_of(perceptron, layer("0", 1e-3)))
    with pytest.raises(InputError, match="no run of convolution"):
        against(ours, convolution, cm.device("a100-80gb"))
    with pytest.raises(InputError, match=r"a GPU, and Intel .* is none"):
        against(ours, perceptron, cm.device("xeon-icelake"))
    on_cpu = record(run_of(perceptron, layer("0", 1e-3)), "cpu")
    with pytest.raises(InputError, match="ran cpu operators and the trace cuda's"):
        against(on_cpu, perceptron, cm.device("xeon-icelake"))
    failed = record(structs.replace(run_of(perceptron), failure="out of memory: 80 GiB", kernel_time=None, eager=None))
    with pytest.raises(InputError, match=r"failed .out of memory"):
        against(failed, perceptron, cm.device("a100-80gb"))


def test_the_device_of_a_record(perceptron) -> None:
    run = run_of(perceptron, layer("0", 1e-3))
    assert device_of(record(run)).name == "a100-80gb"
    with pytest.raises(InputError, match="no description of No such CPU: give -d"):
        device_of(record(run, "cpu"))


@pytest.mark.parametrize("form", [to_terminal, to_markdown, Table.csv, Table._repr_html_])
def test_tables_of_hostile_names(form) -> None:
    trace = cm.trace(nn.Sequential(nn.Linear(4, 3)), (2, 4), name=HOSTILE)
    run = run_of(
        trace, layer("0", 1e-6, HOSTILE), layer(HOSTILE, 1e-3, HOSTILE), peers={HOSTILE: PeerEstimate(problem=HOSTILE)}
    )
    found = compare(cm.predict(cm.count(trace), SLOW_MEMORY), run, HOSTILE)
    for table in (found.table(), found.totals_table(), record(run).table()):
        assert table.title and table.notes
        assert form(table)
    assert "<b>" not in found._repr_html_()
    assert documents.to_text(documents.measured([found]))


def test_a_training_steps_table_says_the_phase(perceptron) -> None:
    trace = cm.trace(nn.Sequential(nn.Linear(4, 3)), (2, 4), name="step", train=True)
    run = run_of(trace, layer("0", 1e-6), layer("0", 2e-6, phase="backward"))
    found = compare(cm.predict(cm.count(trace), SLOW_MEMORY), run, "toy")
    assert "phase" in found.table().names
    assert [row.measured_seconds for row in found.rows if row.layer == "0"] == [1e-6, 2e-6]
