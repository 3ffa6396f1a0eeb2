"""Calibration: the fit finds fitted rates that are known, files round-trip, and the command runs end to end."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from costmodel.cli import run
from costmodel.cost import count
from costmodel.devices import Calibration, Device, Fact, FittedRates, Source, device, to_toml
from costmodel.errors import InputError, TraceError
from costmodel.estimate import CLASSES, Demand, class_of, seconds
from costmodel.hardware import calibrate as module
from costmodel.hardware import samples
from costmodel.hardware.clock import Clock, Timing
from costmodel.hardware.fit import Guess, Sample, fit
from costmodel.hardware.rates import PATHS, Reference, disturbance
from costmodel.hardware.samples import unpadded_share
from costmodel.hardware.shapes import SAMPLERS, Gradients, Limits, cases
from costmodel.tracer import trace

TRUE = FittedRates(
    fixed_seconds=20e-6,
    cold_seconds=40e-6,
    flops_per_second=100e9,
    near_bytes_per_second=50e9,
    far_bytes_per_second=10e9,
    fresh_bytes_per_second=2e9,
    overlap=1.0,
    low=0.9,
    high=1.1,
    error=0.0,
    shapes=1,
)
GUESS = Guess(flops_per_second=200e9, near_bytes_per_second=20e9, far_bytes_per_second=20e9)


def synthetic(true: FittedRates, number: int = 60, noise: float = 0.0) -> list[Sample]:
    """Shapes whose times are those of known fitted rates, each number of which some shapes depend on."""
    source = random.Random(1)
    samples = []
    for _ in range(number):
        near, far, fresh = (10 ** source.uniform(4, 7.5) * source.choice((0, 1)) for _ in range(3))
        demand = Demand(int(10 ** source.uniform(4, 10)), near, far, fresh, source.random() < 0.5)
        samples.append(Sample(demand, seconds(true, demand) * math.exp(source.gauss(0, noise))))
    return samples


@pytest.mark.parametrize("overlap", [1.0, 2.0, math.inf])
def test_known_ceilings_are_found(overlap: float) -> None:
    true = dataclasses.replace(TRUE, overlap=overlap)
    found = fit(synthetic(true), GUESS)
    assert found.overlap == overlap
    for name in ("fixed_seconds", "cold_seconds", "flops_per_second", "near_bytes_per_second", "far_bytes_per_second"):
        assert getattr(found, name) == pytest.approx(getattr(true, name), rel=0.05), name
    assert found.fresh_bytes_per_second == pytest.approx(2e9, rel=0.05)
    assert found.error < 0.01 and 0.95 < found.low <= 1 <= found.high < 1.05 and found.shapes == 60


def test_noise_is_what_the_interval_holds_and_an_odd_shape_does_not_bend_the_fit() -> None:
    # times scattered by a factor e^(0.1 g): nine of ten lie within e^(-0.164) = 0.85 and e^(0.164) = 1.18
    samples = synthetic(TRUE, 200, noise=0.1)
    samples[0] = samples[0]._replace(seconds=samples[0].seconds * 50)
    found = fit(samples, GUESS)
    assert found.flops_per_second == pytest.approx(100e9, rel=0.1)
    assert found.low == pytest.approx(0.85, abs=0.05) and found.high == pytest.approx(1.18, abs=0.08)


def test_what_the_shapes_say_nothing_about_stays_at_its_guess() -> None:
    samples = [Sample(Demand(10**n, 0, 0, 0), 10**n / 100e9 + 1e-5) for n in range(5, 11)]
    found = fit(samples, GUESS)
    assert found.near_bytes_per_second == pytest.approx(20e9, rel=1e-3)
    assert found.far_bytes_per_second == pytest.approx(20e9, rel=1e-3)


def test_the_vector_form_is_the_formula() -> None:
    import numpy as np

    from costmodel.hardware.fit import estimated

    samples = synthetic(TRUE, 20)
    for overlap in (1.0, 2.0, math.inf):
        true = dataclasses.replace(TRUE, overlap=overlap)
        numbers = np.log(dataclasses.astuple(true)[:6])
        expected = [seconds(true, sample.demand) for sample in samples]
        assert estimated(numbers, np.array([s.demand for s in samples], float), overlap) == pytest.approx(expected)


def test_too_little_to_fit_is_refused() -> None:
    with pytest.raises(InputError, match="two or more shapes"):
        fit(synthetic(TRUE, 1), GUESS)
    with pytest.raises(InputError, match="time that it took"):
        fit([sample._replace(seconds=0.0) for sample in synthetic(TRUE, 5)], GUESS)


LIMITS = Limits(1e4, 1e7, 2**20)


def test_every_class_has_shapes_and_no_shape_is_of_an_unknown_class() -> None:
    assert set(CLASSES) == set(SAMPLERS)


@pytest.mark.parametrize("name", SAMPLERS)
def test_drawn_operations_are_of_their_class_and_within_the_limits(name: str) -> None:
    drawn = list(cases(name, 3, LIMITS))
    assert [case.shapes for case in drawn] == [case.shapes for case in cases(name, 3, LIMITS)]  # the same each time
    for case in drawn:
        assert max(4 * math.prod(shape) for shape in case.shapes) <= LIMITS.most_bytes * 2
        shapes = case.shapes[0] if len(case.shapes) == 1 else list(case.shapes)
        target, real = "cuda" if name.startswith("attention") else "cpu", name.startswith("recurrent")
        found = {class_of(entry) for entry in count(trace(case.make(), shapes, target=target, run=real)).operations}
        if name != "pool_mean":  # to one place is a mean
            assert name in found


def test_gradients_are_timed_apart_from_their_forward() -> None:
    """y = w x: what is traced is both; in time, `begin` is the forward and `finish` gives x's and w's gradients."""
    linear = torch.nn.Linear(3, 2, bias=False)
    both = Gradients(linear).eval()
    assert linear.training, "cuDNN's recurrent layers have gradients only then"
    x = torch.randn(1, 3)
    with torch.no_grad():
        both.begin(x)
        of_x, of_weight = both.finish()
    assert torch.allclose(of_x, linear.weight.sum(0)) and torch.equal(of_weight, x.expand(2, 3))
    assert not x.requires_grad and linear.weight.grad is None
    with pytest.raises(RuntimeError, match="has not run"):
        both.finish()
    assert [each.shape for each in both(x)] == [(1, 3), (2, 3)]


def test_what_this_torch_cannot_trace_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any, **options: Any) -> None:
        raise TraceError("no meta kernel")

    monkeypatch.setattr(samples, "trace", fails)
    case = next(cases("elementwise", 1, LIMITS))
    assert samples._subject(Clock("cpu"), 2**20, "elementwise", PATHS["cpu"][0], case, frozenset()) is None


def test_limits_that_nothing_fits() -> None:
    with pytest.raises(InputError, match="give wider limits"):
        next(cases("conv_3x3", 1, Limits(1e12, 1e13, 1024)))


RUN = Source("Measured by costmodel: a test", "2026-11-24", via="torch 9")
FULL = Device(
    "toy", 'A "toy"\n', "cpu", {"fp32": 1e11}, 2e10, launch_seconds=2e-6,
    calibration=Calibration(
        2**25, 2**25, 0.9,
        {"conv_3x3": {"fp32": TRUE, "bf16": dataclasses.replace(TRUE, overlap=math.inf)}, "view": {"fp32": TRUE}},
        {"fp32": {128: 9e10, 256: 1e11}},
        {65536: 1e11, 2**27: 2e10},
        0.04,
    ),
    facts={
        "memory_bandwidth": Fact(2e10, RUN, "the highest"), "launch_seconds": Fact(2e-6, RUN),
        "peaks.fp32": Fact(1e11, RUN), "calibration": Fact(2**25, RUN),
    },
)  # fmt: skip


def test_a_calibrated_device_file_reads_back_the_same(tmp_path: Path) -> None:
    path = tmp_path / "toy.toml"
    path.write_text(to_toml(FULL))
    again = device(path)
    assert again == FULL and again.facts == FULL.facts
    assert again.calibration == FULL.calibration
    assert to_toml(again) == to_toml(FULL)


@pytest.mark.parametrize("name", ["h200", "xeon-icelake", "gtx1080"])
def test_our_devices_read_back_the_same(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.toml"
    path.write_text(to_toml(device(name)))
    assert device(path) == device(name) and device(path).facts == device(name).facts


def test_a_number_without_a_source_is_not_written() -> None:
    with pytest.raises(InputError, match="memory_bandwidth has no source"):
        to_toml(device("h200").replace(memory_bandwidth=1e12))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("cache_bytes", "cash_bytes"), ["calibration.cash_bytes: unknown field", "cache_bytes"]),
        (("cache_bytes = 33554432\n", ""), ["calibration.cache_bytes: missing"]),
        (("cache_bytes = 33554432", "cache_bytes = 3.5"), ["calibration.cache_bytes", "whole"]),
        (("cache_bytes = 33554432", 'cache_bytes = "32 MiB"'), ["calibration.cache_bytes", "not a number"]),
        (("confidence = 0.9", "confidence = 90"), ["calibration.confidence", "between 0 and 1"]),
        (("noise = 0.04", "noise = -0.1"), ["calibration.noise", "0.0 or more"]),
        (("noise = 0.04", "noise = true"), ["calibration.noise", "not a share"]),
        (('[calibration]\nsource = "source1"\n', "[calibration]\n"), ["calibration.source"]),
        (('[calibration]\nsource = "source1"', '[calibration]\nsource = "s"'), ["calibration.source", "sources.s"]),
        (("conv_3x3.bf16", "conv_3x3.bf61"), ["calibration.classes.conv_3x3.bf61: unknown field", "bf16"]),
        (("fixed_seconds", "fixd_seconds"), ["conv_3x3.fp32.fixd_seconds", "Did you mean fixed_seconds"]),
        (("fixed_seconds = 2e-05\n", ""), ["conv_3x3.fp32.fixed_seconds: missing"]),
        (("fixed_seconds = 2e-05", "fixed_seconds = -1.0"), ["conv_3x3.fp32: fixed_seconds", "between 0 and 1"]),
        (("fixed_seconds = 2e-05", "fixed_seconds = true"), ["fixed_seconds", "not a number"]),
        (("flops_per_second = 100000000000.0", "flops_per_second = nan"), ["flops_per_second", "not a number"]),
        (("flops_per_second = 100000000000.0", "flops_per_second = 100"), ["flops_per_second", "cannot be"]),
        (("overlap = 1.0", "overlap = 0.5"), ["overlap", "cannot be"]),
        (("low = 0.9", "low = 1.2"), ["low", "cannot be"]),
        (("128 = ", "large = "), ["calibration.products.fp32.large", "whole number"]),
        (("128 = 90000000000.0", "128 = 90"), ["calibration.products.fp32.128", "FLOP/s"]),
        (("65536 = 100000000000.0", "65536 = 100"), ["calibration.bandwidth.65536", "bytes/s"]),
        (("[calibration.bandwidth]", "[calibration]"), ["not a TOML file"]),
    ],
)  # fmt: skip
def test_damaged_calibrations_are_refused_in_one_line(
    tmp_path: Path, change: tuple[str, str], expected: list[str]
) -> None:
    text = to_toml(FULL)
    assert change[0] in text
    path = tmp_path / "toy.toml"
    path.write_text(text.replace(*change, 1))
    with pytest.raises(InputError) as caught:
        device(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    for part in expected:
        assert part in message


TINY = module.Effort(
    shapes=4, rounds=1, classes=("conv_1x1", "gemv", "attention_backward", "elementwise", "view"), most_seconds=1e-4,
    sizes=(64,), most_bytes=2**18,
)  # fmt: skip


def test_a_real_calibration_of_this_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUICK", TINY)
    path = tmp_path / "mine.toml"
    before = torch.get_num_threads()
    assert run(["calibrate", "--device", "cpu", "--threads", "1", "--effort", "quick", "-o", str(path)]) == 0
    assert torch.get_num_threads() == before
    found = device(path)
    assert found.name == "mine" and found.kind == "cpu" and found.units == 1
    assert "costmodel calibrate --device cpu --threads 1" in found.source and found.date >= "2026"
    assert found.calibration is not None and set(found.calibration.classes) == set(TINY.classes)
    assert found.calibration.noise is not None and found.calibration.noise > 0
    assert found.calibration.classes["gemv"]["fp32"].shapes == 4
    assert set(found.calibration.products["fp32"]) == {64}
    assert run(["calibrate", "--device", "cpu", "-o", str(path)]) == 2  # it is there already
    prediction = ["predict", "alexnet", "-d", str(path), "--target", "cpu"]
    assert run(prediction) == 0
    assert run([*prediction, "--estimate"]) == 2  # no fitted rates for 11x11 filters


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_without_a_cuda_device_it_says_what_to_do(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["calibrate", "-o", str(tmp_path / "gpu.toml")]) == 4
    assert "--device cpu" in capsys.readouterr().err
    assert not (tmp_path / "gpu.toml").exists()


def test_wrong_usage(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    new = ["-o", str(tmp_path / "new.toml")]
    assert run(["calibrate", "--device", "tpu", *new]) == 2
    assert "use cpu, cuda" in capsys.readouterr().err
    assert run(["calibrate", "--device", "cpu", "-o", str(tmp_path / "file.json")]) == 2
    assert "ends in .toml" in capsys.readouterr().err
    assert run(["calibrate", "--threads", "2", *new]) == 2
    assert "--device cpu" in capsys.readouterr().err
    assert run(["calibrate", "--device", "cpu"]) == 2, "before anything is measured"
    assert "--output" in capsys.readouterr().err
    assert run(["predict", "alexnet", "-d", "h200", "--estimate"]) == 2
    assert "costmodel calibrate" in capsys.readouterr().err


def test_a_disturbed_calibration_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Medians of 1.02, 1.5 and 1.1 ms, the shortest time ever 1 ms: the slowest moment took half as long again."""
    times = iter([(1e-3,), (1e-3, 1.02e-3, 9e-3), (1.5e-3, 1.4e-3, 1.6e-3), (1.1e-3, 1.0e-3, 1.2e-3)])
    clock = SimpleNamespace(device="cpu", on_cuda=False, time=lambda calls, **options: Timing(next(times), "warm"))
    found = Reference(clock, 64)  # type: ignore[arg-type]
    assert found.noise == 0.0
    for _ in range(3):
        found.run()
    assert found.noise == pytest.approx(0.5)
    for noise, said in ((0.5, "took up to 1.5 times as long"), (0.2, ""), (None, "")):
        each = dataclasses.replace(FULL, calibration=dataclasses.replace(FULL.calibration, noise=noise))
        assert said in disturbance(each) and bool(said) == bool(disturbance(each))
    assert disturbance(device("h200")) == "", "nothing was calibrated"


def test_products_with_padding_are_told_apart() -> None:
    # 3x3 on 4x4, padding 1: along a side 4 x 3 - 2 of 12 places lie inside, so (10 / 12)^2; without padding all do
    padded, plain = (
        count(trace(torch.nn.Conv2d(8, 8, 3, padding=padding), (1, 8, 4, 4))).operations[0].operation
        for padding in (1, 0)
    )
    assert unpadded_share(padded) == pytest.approx(100 / 144)
    assert unpadded_share(plain) == 1.0
    linear = count(trace(torch.nn.Linear(8, 8), (1, 8))).operations[-1].operation
    assert unpadded_share(linear) == 1.0


def test_the_calibrated_device_that_ships_is_what_the_command_wrote() -> None:
    found = device("amd-epyc-1thread")
    assert "costmodel calibrate --device cpu --threads 1" in found.source
    assert found.calibration is not None and set(SAMPLERS) - set(found.calibration.classes) == {
        "attention_backward", "recurrent", "recurrent_backward",
    }, "what came later is missing, and the file goes on working"  # fmt: skip
    assert all(set(paths) == {"fp32"} for paths in found.calibration.classes.values())
    assert found.launch_seconds and found.units == 1
    # 32 FLOPs a cycle (two 256-bit FMA pipes, Zen 4) at up to 3.7 GHz are 118e9: no measured rate may be above
    assert 80e9 < found.peaks["fp32"] < 118.4e9
    # one channel of DDR5-4800 gives 38 GB/s, the socket's twelve 461 GB/s: one core lies between
    assert 20e9 < found.memory_bandwidth < 461e9


@pytest.mark.parametrize("train", [False, True])
def test_it_estimates_every_operation_of_common_networks(train: bool) -> None:
    import torchvision

    import costmodel

    for name in ("alexnet", "resnet18", "mobilenet_v2"):
        network = getattr(torchvision.models, name)(weights=None)
        made = costmodel.trace(network, (2, 3, 224, 224), train=train, target="cpu")
        prediction = costmodel.predict(costmodel.count(made), device("amd-epyc-1thread"), estimate=True)
        assert prediction.estimate is not None and prediction.uncovered == ()
        assert prediction.estimate.low_seconds < prediction.seconds < prediction.estimate.high_seconds
        assert sum(layer.estimate_seconds or 0.0 for layer in prediction.layers) == pytest.approx(prediction.seconds)


def test_a_transformer_trains_by_the_gradients_of_attention() -> None:
    """A file that lacks a class names the operator; one that has it estimates the whole."""
    import costmodel

    layer = torch.nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
    costs = costmodel.count(costmodel.trace(layer, (2, 8, 32), train=True, target="cpu"))
    ours = device("amd-epyc-1thread")
    missing = costmodel.predict(costs, ours)
    assert missing.uncovered == ("aten._scaled_dot_product_flash_attention_for_cpu_backward",)
    assert missing.estimate is None
    assert ours.calibration is not None
    more = {**ours.calibration.classes, "attention_backward": {"fp32": TRUE}}
    found = costmodel.predict(costs, ours.replace(calibration=dataclasses.replace(ours.calibration, classes=more)))
    assert found.uncovered == () and found.estimate is not None


def test_whole_overlap_is_null_in_json() -> None:
    import json

    from costmodel.cli import documents

    found = json.loads(documents.to_text(documents.devices([FULL])))["devices"][0]["calibration"]
    assert found["classes"]["conv_3x3"]["bf16"]["overlap"] is None
    assert found["classes"]["conv_3x3"]["fp32"]["overlap"] == 1.0 and found["cache_bytes"] == 2**25


def test_what_a_device_cannot_run_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        """A clock on whose device one operation in `every` does not run."""

        def __init__(self, every: int) -> None:
            self.every = every

        def once(self, call: Callable[[], int], before: Callable[[], None]) -> float:
            before()
            if call() % self.every == 0:
                raise RuntimeError("no kernel image is available for execution on the device")
            return 1e-3

    def subjects(count: int) -> list[Any]:
        path = SimpleNamespace(tf32=None, name="fp32", dtype="float32")
        return [SimpleNamespace(path=path, call=partial(int, i), prepare=lambda: None) for i in range(count)]

    monkeypatch.setattr(samples, "precision", lambda path: nullcontext())
    first, *rest = samples._timed(Broken(3), subjects(3), 2)  # type: ignore[arg-type]
    assert isinstance(first, RuntimeError) and rest == [1e-3, 1e-3]


@pytest.mark.parametrize("most", [False, True])
def test_most_that_a_device_cannot_run_is_an_error(monkeypatch: pytest.MonkeyPatch, most: bool) -> None:
    def timed(clock: Clock, subjects: list[Any], rounds: int) -> list[Any]:
        broken = len(subjects) // 2 + most
        return [RuntimeError("no kernel image")] * broken + [1e-3] * (len(subjects) - broken)

    monkeypatch.setattr(samples, "_timed", timed)
    products, path = {"fp32": {64: 1e11}}, PATHS["cpu"][0]
    effort = samples.QUICK._replace(classes=("gemv", "copy"), shapes=2, most_bytes=2**18)
    with pytest.raises(RuntimeError, match="no kernel image") if most else nullcontext():
        found = samples.sampled(Clock("cpu"), [path], products, 2**20, effort, lambda text, done, total: None)
        assert len(found) == 2
