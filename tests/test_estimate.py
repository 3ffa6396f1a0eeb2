"""Estimates: classes, where bytes are found, times by hand, and what must hold of any calibration."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.cost import Cost, Costs, OperationCost, count
from costmodel.devices import Calibration, Device, FittedRates, device
from costmodel.errors import InputError
from costmodel.estimate import Demand, Estimate, class_of, demands, estimate_operations, seconds, total
from costmodel.graph import Module, Operation, Storage, TensorSpec, Trace
from costmodel.roofline import predict

FITTED_RATES = FittedRates(
    fixed_seconds=10e-6,
    cold_seconds=5e-6,
    flops_per_second=1e9,
    near_bytes_per_second=1e9,
    far_bytes_per_second=1e8,
    fresh_bytes_per_second=1e7,
    overlap=1.0,
    low=0.8,
    high=1.5,
    error=0.1,
    shapes=10,
)


def calibration(**classes: FittedRates) -> Calibration:
    return Calibration(1000, 500, 0.9, {name: {"fp32": each} for name, each in classes.items()})


def test_a_time_by_hand() -> None:
    # 2e6 / 1e9 = 2 ms of arithmetic; 1e6 / 1e9 + 1e5 / 1e8 + 1e4 / 1e7 = 3 ms of traffic; 10 us fixed, 5 us if cold
    demand = Demand(2_000_000, 1e6, 1e5, 1e4)
    assert seconds(FITTED_RATES, demand) == pytest.approx(5.010e-3)
    assert seconds(FITTED_RATES, demand._replace(cold=True)) == pytest.approx(5.015e-3)
    # overlapped: the longer of the two; with p = 2 the hypotenuse, sqrt(2^2 + 3^2) = 3.6056 ms
    overlapped = dataclasses.replace(FITTED_RATES, overlap=math.inf)
    assert seconds(overlapped, demand) == pytest.approx(3.010e-3)
    assert seconds(dataclasses.replace(FITTED_RATES, overlap=2.0), demand) == pytest.approx(3.6156e-3, rel=1e-4)


def test_an_interval_of_a_sum() -> None:
    # class a: 1 + 2 s, below by 0.2 + 0.4 (they add up); class b: 4 s, below by 0.8: 7 - sqrt(0.6^2 + 0.8^2) = 6
    # above: a 0.5 + 1.0, b 2.0: 7 + sqrt(1.5^2 + 2^2) = 9.5
    rows = [Estimate(t, 0.8 * t, 1.5 * t, name) for t, name in ((1.0, "a"), (2.0, "a"), (4.0, "b"))]
    whole = total(rows)
    assert whole is not None
    assert (whole.seconds, whole.low_seconds, whole.high_seconds) == pytest.approx((7.0, 6.0, 9.5))
    assert total([*rows, None]) is None and total([]) is None


def spec(storage: int, *shape: int) -> TensorSpec:
    return TensorSpec(shape, "float32", (1,) * len(shape), storage)


def operation(name: str, inputs: dict[str, TensorSpec], *outputs: TensorSpec, **attributes: object) -> Operation:
    return Operation(f"aten.{name}", "layer", "forward", inputs, outputs, attributes)


def entry(made: Operation) -> OperationCost:
    trace = Trace("net", (made,), (), (), (), (), (), "float32")
    return count(trace).operations[0]


@pytest.mark.parametrize(
    ("weight", "groups", "expected"),
    [
        ((64, 32, 1, 1), 1, "1x1"), ((64, 32, 3, 3), 1, "3x3"), ((64, 32, 1, 7), 1, "3x3"),
        ((64, 32, 5, 5), 1, "large"),
        ((64, 3, 11, 11), 1, "stem"), ((64, 1, 3, 3), 64, "depthwise"), ((64, 4, 3, 3), 16, "grouped"),
    ],
)  # fmt: skip
def test_convolutions_are_told_apart_by_their_filters(weight: tuple[int, ...], groups: int, expected: str) -> None:
    x, y = spec(0, 1, weight[1] * groups, 8, 8), spec(2, 1, weight[0], 8, 8)
    forward = operation("convolution", {"input": x, "weight": spec(1, *weight)}, y, groups=groups)
    assert class_of(entry(forward)) == f"conv_{expected}"
    backward = operation(
        "convolution_backward",
        {"grad_output": y, "input": x, "weight": spec(1, *weight)},
        x,
        spec(3, *weight),
        groups=groups,
        output_mask=(True, True, False),
    )
    assert class_of(entry(backward)) == f"conv_backward_{expected}"


def test_other_classes() -> None:
    vector, matrix, batch = spec(0, 1, 64), spec(1, 64, 32), spec(0, 8, 64)
    assert class_of(entry(operation("mm", {"self": vector, "mat2": matrix}, spec(2, 1, 32)))) == "gemv"
    assert class_of(entry(operation("mm", {"self": batch, "mat2": matrix}, spec(2, 8, 32)))) == "gemm"
    assert class_of(entry(operation("relu", {"self": batch}, spec(2, 8, 64)))) == "elementwise"
    assert class_of(entry(operation("relu_", {"self": batch}, batch))) == "elementwise_in_place"
    assert class_of(entry(operation("gelu", {"self": batch}, spec(2, 8, 64)))) == "function"
    assert (
        class_of(entry(operation("gelu_backward", {"grad_output": batch, "self": batch}, spec(2, 8, 64)))) == "function"
    )
    assert class_of(entry(operation("_softmax", {"self": batch}, spec(2, 8, 64), dim=-1))) == "softmax"
    sequence, weights = spec(0, 5, 2, 8), {f"weight{index}": spec(1 + index, 32, 8) for index in range(2)}
    recurrent = operation(
        "mkldnn_rnn_layer", {"input": sequence, **weights}, spec(4, 5, 2, 8), hidden_size=8, has_biases=False
    )
    assert class_of(entry(recurrent)) == "recurrent"
    assert class_of(entry(operation("cat", {"tensors.0": batch, "tensors.1": batch}, spec(2, 16, 64)))) == "copy"
    assert class_of(entry(operation("empty", {}, spec(2, 0)))) == "view"
    view = operation("view", {"self": batch}, batch)._replace(view=True)
    assert class_of(entry(view)) == "view"
    assert class_of(entry(operation("frobnicate", {"self": batch}, spec(2, 8, 64)))) is None


def chain(*sizes: int) -> Costs:
    """ReLUs, each on the output of the one before; sizes in bytes. Storage 0 is the input."""
    tensors = [spec(index, size // 4) for index, size in enumerate(sizes)]
    operations = tuple(
        operation("relu", {"self": tensors[index]}, tensors[index + 1]) for index in range(len(sizes) - 1)
    )
    storages = tuple(
        Storage(size, "input" if not index else "activation", index - 1, index if index else None, f"{index}")
        for index, size in enumerate(sizes)
    )
    return count(Trace("net", operations, storages, (), (), (), (), "float32"))


def test_bytes_are_near_while_the_cache_holds_them() -> None:
    # cache of 1000 bytes: everything stays in it
    assert demands(chain(200, 200, 200), 1000, 10_000) == [Demand(50, 400, 0, 0, False), Demand(50, 400, 0, 0, False)]


def test_what_was_driven_out_is_far() -> None:
    # 400 + 400, then 400 + 400 more: the cache of 1000 has let the input go when the next round reads it
    first, second = demands(chain(400, 400, 400), 1000, 10_000)
    assert (first.near_bytes, first.far_bytes) == (400, 400)
    assert (second.near_bytes, second.far_bytes) == (800, 0)


def test_a_large_new_tensor_is_fresh_and_empties_the_cache() -> None:
    first, second, third = demands(chain(400, 2000, 400, 400), 1000, 1500)
    assert (first.near_bytes, first.far_bytes, first.fresh_bytes) == (0, 400, 2000)
    assert (second.near_bytes, second.far_bytes, second.fresh_bytes) == (400, 2000, 0)
    assert (third.near_bytes, third.far_bytes, third.fresh_bytes) == (800, 0, 0)
    assert [first.cold, second.cold, third.cold] == [False, True, True]


def test_without_a_loop_what_is_resident_is_said() -> None:
    costs = chain(400, 400)
    assert demands(costs, 1000, 10_000, resident=())[0] == Demand(100, 400, 400, 0, True)
    assert demands(costs, 1000, 10_000, resident=("input", "program"))[0] == Demand(100, 800, 0, 0, False)


def test_one_phase_alone_demands_what_it_does_in_the_whole() -> None:
    import costmodel

    torch = pytest.importorskip("torch")
    trace = costmodel.trace(
        torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU()), (4, 8), train=True, target="cpu"
    )
    costs = count(trace)
    whole = demands(costs, 10**6, 10**6)
    backward = demands(costs.phase("backward"), 10**6, 10**6)
    assert backward == [d for d, e in zip(whole, costs.operations, strict=True) if e.operation.phase == "backward"]


TOY = Device(
    "toy", "Toy", "cpu", {"fp32": 1e9}, memory_bandwidth=1e8,
    calibration=calibration(elementwise=FITTED_RATES, view=FITTED_RATES),
)  # fmt: skip


def test_a_prediction_holds_estimates() -> None:
    # 200 bytes read and written near: 50 FLOPs / 1e9 + 400 / 1e9 + 10 us = 10.45 us; two of them
    prediction = predict(chain(200, 200, 200), TOY)
    assert prediction.operations[0].estimate_seconds == pytest.approx(10.45e-6)
    assert prediction.estimate_seconds == prediction.seconds == pytest.approx(20.90e-6)
    assert prediction.basis == "estimate" and prediction.uncovered == ()
    assert prediction.estimate is not None
    assert prediction.estimate.low_seconds == pytest.approx(0.8 * 20.90e-6)
    assert prediction.estimate.high_seconds == pytest.approx(1.5 * 20.90e-6)
    frame = prediction.by("phase")["forward"]
    assert frame.low_seconds == prediction.estimate.low_seconds
    assert "estimated 20.9 µs" in prediction._repr_html_()
    assert predict(chain(200, 200), TOY, estimate=False).estimate is None


def test_an_operation_without_ceilings_leaves_the_sum_unknown() -> None:
    costs = chain(200, 200)
    gelu = costs.trace.operations[0]._replace(operator="aten.gelu")
    both = count(dataclasses.replace(costs.trace, operations=(costs.trace.operations[0], gelu)))
    prediction = predict(both, TOY)
    assert prediction.operations[0].estimate is not None and prediction.operations[1].estimate is None
    assert prediction.estimate is None and prediction.basis == "bound" and prediction.uncovered == ("aten.gelu",)
    with pytest.raises(InputError, match=r"no fitted rates for aten\.gelu in float32"):
        predict(both, TOY, estimate=True)


def test_an_estimate_that_was_demanded_of_a_device_without_calibration() -> None:
    with pytest.raises(InputError, match=r"was not calibrated.*costmodel calibrate"):
        predict(chain(200, 200), device("h200"), estimate=True)
    assert predict(chain(200, 200), device("h200")).estimate is None


rates = st.floats(1e6, 1e12)
ceilings_ = st.builds(
    FittedRates,
    fixed_seconds=st.floats(0, 1e-3),
    cold_seconds=st.floats(0, 1e-3),
    flops_per_second=rates,
    near_bytes_per_second=rates,
    far_bytes_per_second=rates,
    fresh_bytes_per_second=rates,
    overlap=st.sampled_from([1.0, 2.0, math.inf]),
    low=st.floats(0.1, 1.0),
    high=st.floats(1.0, 10.0),
    error=st.just(0.1),
    shapes=st.just(10),
)
demands_ = st.builds(
    Demand,
    st.integers(0, 10**12), st.floats(0, 1e10), st.floats(0, 1e10), st.floats(0, 1e10), st.booleans(),
)  # fmt: skip


@given(ceilings_, demands_, st.floats(1.0, 100.0))
def test_more_of_anything_is_never_slower(each: FittedRates, demand: Demand, times: float) -> None:
    before = seconds(each, demand)
    for name in ("flops", "near_bytes", "far_bytes", "fresh_bytes"):
        rate = f"{name}_per_second"
        faster = dataclasses.replace(each, **{rate: getattr(each, rate) * times})
        assert seconds(faster, demand) <= before * (1 + 1e-9)
        more = demand._replace(**{name: type(getattr(demand, name))(getattr(demand, name) * times)})
        assert seconds(each, more) >= before * (1 - 1e-9)


@given(ceilings_, st.lists(st.integers(1, 500), min_size=2, max_size=6))
def test_an_estimate_is_not_below_the_bound_where_ceilings_are_not_above_peaks(
    each: FittedRates, sizes: Sequence[int]
) -> None:
    """Caches and Winograd's convolution beat the bound by fitted rates above the peaks; here there are none."""
    peak = each.flops_per_second
    bandwidth = max(each.near_bytes_per_second, each.far_bytes_per_second, each.fresh_bytes_per_second)
    on = Device(
        "toy", "Toy", "cpu", {"fp32": max(peak, 1e8)}, memory_bandwidth=max(bandwidth, 1e8),
        calibration=calibration(elementwise=each),
    )  # fmt: skip
    prediction = predict(chain(*(4 * size for size in sizes)), on)
    for row in prediction.operations:
        assert row.estimate is not None
        assert row.estimate.seconds >= row.bound_seconds * (1 - 1e-9)
        assert row.estimate.low_seconds <= row.estimate.seconds <= row.estimate.high_seconds
    assert prediction.estimate is not None
    assert prediction.estimate.low_seconds <= prediction.seconds <= prediction.estimate.high_seconds


def test_estimates_by_path() -> None:
    both = Calibration(1000, 500, 0.9, {"elementwise": {"fp32": FITTED_RATES, "bf16": FITTED_RATES}})
    costs = chain(200, 200)
    assert estimate_operations(costs, ["bf16"], both)[0] is not None
    assert estimate_operations(costs, [""], both)[0] is not None  # what computes nothing is fp32's
    assert estimate_operations(costs, ["fp16"], both) == [None]


def test_module_without_operations_is_no_estimate() -> None:
    trace = dataclasses.replace(
        chain(200, 200).trace,
        modules=(Module("layer", "ReLU", True, 1), Module("drop", "Dropout", True, 1)),
    )
    prediction = predict(count(trace), TOY)
    assert [layer.name for layer in prediction.layers] == ["layer", "drop"]
    assert prediction.layers[1].estimate is None and prediction.estimate is not None
    assert Cost() == prediction.layers[1].cost
