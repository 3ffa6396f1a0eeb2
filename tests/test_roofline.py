"""Bounds, by hand on small operations, and what must hold of any device and any work."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.cost import Cost, Costs, OperationCost
from costmodel.devices import Device, device
from costmodel.errors import InputError
from costmodel.graph import Module, Operation, TensorSpec, Trace
from costmodel.roofline import CONVENTION, Prediction, predict

CONV = Cost(macs=115_605_504, read_bytes=802_816 + 147_456, write_bytes=802_816)
"""A 3x3 convolution, 64 -> 64 channels, 56x56 pixels, padding 1, float32, no bias, one image:
64 x 56 x 56 outputs x 64 x 9 products; 64 x 56 x 56 x 4 bytes in and out, 64 x 64 x 9 x 4 bytes of weights."""

LINEAR = Cost(macs=16_777_216, vector_flops=4096, read_bytes=67_141_632, write_bytes=16_384)
"""A fully connected layer, 4096 -> 4096, float32, with a bias, one image: 4096 x 4096 products, 4096 additions;
(4096 x 4096 + 4096 + 4096) x 4 bytes read, 4096 x 4 written."""

TOY = Device("toy", "Toy", "gpu", {"fp64": 1e12, "fp32": 2e12, "fp16": 16e12}, memory_bandwidth=1e12)


def operation(dtype: str, layer: str = "layer", phase: str = "forward", name: str = "aten.convolution") -> Operation:
    tensor = TensorSpec((1,), dtype, (1,), 0)
    return Operation(name, layer, phase, {"input": tensor}, (tensor,), {})


def entry(cost: Cost, kind: str = "conv", dtype: str = "float32", **where: str) -> OperationCost:
    return OperationCost(operation(dtype, **where), kind, cost)


def costs_of(*entries: OperationCost, modules: Sequence[Module] = ()) -> Costs:
    layers = dict.fromkeys(one.operation.layer for one in entries)
    modules = modules or [Module(layer, "Layer", leaf=True, calls=1) for layer in layers]
    operations = tuple(one.operation for one in entries)
    return Costs(Trace("net", operations, (), tuple(modules), (), (), (), "float32"), tuple(entries))


def one(cost: Cost, on: Device, kind: str = "conv", dtype: str = "float32", **switches: bool):
    return predict(costs_of(entry(cost, kind, dtype)), on, **switches).operations[0]


def test_a_convolution_on_an_h200_stands_under_tf32() -> None:
    # 2 x 115 605 504 / 494.7e12 = 0.467376 us of arithmetic; 1 753 088 / 4.8e12 = 0.365227 us of memory
    row = one(CONV, device("h200"))
    assert row.path == "tf32"
    assert row.compute_seconds == pytest.approx(0.467376e-6, rel=1e-5)
    assert row.memory_seconds == pytest.approx(0.365227e-6, rel=1e-5)
    assert row.bound_seconds == row.compute_seconds and row.binding == "compute"
    assert row.estimate_seconds is None


@pytest.mark.parametrize(
    ("length", "keys", "scores"),
    [(4, 4, 1 + 2 + 3 + 4), (3, 5, 1 + 2 + 3), (5, 3, 1 + 2 + 3 + 3 + 3)],  # a row each: the keys that a query sees
)
def test_a_causal_mask_leaves_fewer_scores_to_compute(length: int, keys: int, scores: int) -> None:
    query, key = (TensorSpec((1, 1, n, 8), "float16", (8 * n, 8 * n, 8, 1), 0) for n in (length, keys))
    tensors = {"query": query, "key": key, "value": key}
    seconds = []
    for causal in (False, True):
        name = "aten._scaled_dot_product_flash_attention"
        made = Operation(name, "layer", "forward", tensors, (query,), {"is_causal": causal})
        cost = Cost(macs=length * keys * 16 * 10**9)
        seconds.append(predict(costs_of(OperationCost(made, "attention", cost)), TOY).bound_seconds)
    assert seconds[1] / seconds[0] == pytest.approx(scores / (length * keys))


def test_a_device_may_be_given_by_its_name() -> None:
    costs = costs_of(entry(CONV))
    assert predict(costs, "h200") == predict(costs, device("h200"))
    with pytest.raises(InputError, match=r"takes a network's costs, not an int"):
        predict(3, "h200")  # type: ignore[arg-type]


def test_without_tf32_it_takes_seven_times_as_long() -> None:
    # 2 x 115 605 504 / 66.9e12 = 3.456069 us
    row = one(CONV, device("h200"), allow_tf32_conv=False)
    assert row.path == "fp32" and row.bound_seconds == pytest.approx(3.456069e-6, rel=1e-6)


def test_a_fully_connected_layer_on_an_h200_waits_for_its_weights() -> None:
    # 67 158 016 / 4.8e12 = 13.991253 us of memory; (2 x 16 777 216 + 4096) / 66.9e12 = 0.501623 us on the vector units
    row = one(LINEAR, device("h200"), kind="linear")
    assert row.path == "fp32" and row.binding == "memory"
    assert row.bound_seconds == pytest.approx(13.991253e-6, rel=1e-6)
    assert row.compute_seconds == pytest.approx(0.501623e-6, rel=1e-5)
    assert one(LINEAR, device("h200"), kind="linear", allow_tf32_matmul=True).path == "tf32"


def test_work_on_the_same_units_adds_up_and_on_others_overlaps() -> None:
    cost = Cost(macs=10**12, vector_flops=10**12)
    # float32 on one kind of unit: (2e12 + 1e12) / 2e12 = 1.5 s
    assert one(cost, TOY).compute_seconds == pytest.approx(1.5)
    # float16: max(2e12 / 16e12, 1e12 / 2e12) = max(0.125, 0.5) s
    assert one(cost, TOY, dtype="float16").compute_seconds == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("name", "kind", "dtype", "path"),
    [
        ("h200", "conv", "float32", "tf32"), ("h200", "linear", "float32", "fp32"),
        ("h200", "attention", "float32", "tf32"), ("h200", "conv", "float16", "fp16"),
        ("h200", "linear", "bfloat16", "bf16"), ("h200", "linear", "float64", "fp64_tensor"),
        ("h200", "linear", "int8", "int8"), ("h200", "linear", "float8_e4m3fn", "fp8"),
        ("h200", "linear", "complex64", "fp32"), ("v100", "conv", "float32", "fp32"),
        ("v100", "conv", "float16", "fp16"), ("v100", "linear", "float64", "fp64"),
        ("gtx1080", "conv", "float16", "fp32"), ("gtx1080", "attention", "float32", "fp32"),
        ("xeon-icelake", "linear", "bfloat16", "fp32"), ("xeon-icelake", "linear", "float16", "fp32"),
        ("xeon-icelake", "conv", "int8", "int8"),
    ],
)  # fmt: skip
def test_precision_paths(name: str, kind: str, dtype: str, path: str) -> None:
    assert one(Cost(macs=10), device(name), kind, dtype).path == path


@pytest.mark.parametrize(("name", "dtype"), [("gtx1080", "bfloat16"), ("v100", "bfloat16"), ("v100", "int8")])
def test_a_path_that_a_device_lacks_is_refused(name: str, dtype: str) -> None:
    with pytest.raises(InputError, match=r"arithmetic, only fp64, fp32.*: use another dtype or device"):
        one(Cost(macs=10), device(name), "linear", dtype)
    assert one(Cost(read_bytes=10), device(name), "elementwise", dtype).binding == "memory"  # moving bytes needs none


def test_vector_work_runs_in_float32_or_float64() -> None:
    work = Cost(vector_flops=2 * 10**12)
    for dtype in ("float32", "float16", "bfloat16", "int64"):
        row = one(work, TOY, "activation", dtype)
        assert (row.path, row.compute_seconds) == ("fp32", pytest.approx(1.0))
    row = one(work, TOY, "activation", "float64")
    assert (row.path, row.compute_seconds) == ("fp64", pytest.approx(2.0))


def test_recurrent_networks_follow_the_switch_of_cudnn() -> None:
    costs = costs_of(entry(Cost(macs=10), "linear", layer="rnn"), modules=[Module("rnn", "LSTM", leaf=True, calls=1)])
    assert predict(costs, device("h200")).operations[0].path == "tf32"
    assert predict(costs, device("h200"), allow_tf32_conv=False).operations[0].path == "fp32"


def test_nothing_takes_no_time() -> None:
    row = one(Cost(), TOY, "reshape")
    assert (row.path, row.bound_seconds, row.binding) == ("", 0.0, "none")
    empty = predict(costs_of(), TOY)
    assert empty.bound_seconds == 0 and empty.layers == () and empty.estimate_seconds is None
    assert empty.to_frame().empty
    with pytest.raises(InputError, match="nothing to compare"):
        empty.speedup_over(empty)


def training_step() -> Prediction:
    return predict(
        costs_of(
            entry(Cost(macs=2 * 10**12, write_bytes=10**12), layer="a"),  # 2.0 s against 1.0 s
            entry(Cost(vector_flops=10**12, read_bytes=3 * 10**12), "activation", layer="a"),  # 0.5 s against 3.0 s
            entry(Cost(macs=10**12), "linear", layer="b"),  # 1.0 s
            entry(Cost(macs=4 * 10**12), layer="a", phase="backward"),  # 4.0 s
            entry(Cost(read_bytes=10**12), "optimizer", layer="(optimizer)", phase="optimizer"),  # 1.0 s
            modules=[Module("a", "Conv2d", True, 1), Module("b", "Linear", True, 1)],
        ),
        TOY,
    )


def test_operations_add_up_to_layers_phases_and_the_network() -> None:
    step = training_step()
    assert step.bound_seconds == step.seconds == pytest.approx(2 + 3 + 1 + 4 + 1)
    assert step.basis == "bound" and step.estimate_seconds is None
    assert [(layer.name, layer.kind, layer.path) for layer in step.layers] == [
        ("a", "conv", "fp32"),
        ("b", "linear", "fp32"),
        ("(optimizer)", "optimizer", ""),
    ]
    assert [layer.bound_seconds for layer in step.layers] == pytest.approx([9, 1, 1])
    first = step.layers[0]
    assert first.compute_seconds == pytest.approx(6.5) and first.memory_seconds == pytest.approx(4.0)
    assert first.binding == "compute"  # 6 s of its 9 s
    assert first.flops_per_second == pytest.approx(13e12 / 9)
    assert {name: group.bound_seconds for name, group in step.by("phase").items()} == pytest.approx(
        {"forward": 6, "backward": 4, "optimizer": 1}
    )
    assert {name: group.bound_seconds for name, group in step.by("binding").items()} == pytest.approx(
        {"compute": 7, "memory": 4}
    )
    assert step.phase("forward").bound_seconds == pytest.approx(6)
    assert [layer.name for layer in step.phase("backward").layers if layer.bound_seconds] == ["a"]
    frame = step.to_frame()
    assert frame["bound_seconds"].sum() == pytest.approx(11)
    assert frame["bound_share"].sum() == pytest.approx(1)
    assert frame["flops"].sum() == step.costs.total.flops


def test_a_table_by_hand() -> None:
    # The rows of `training_step`; FLOPs are two a MAC, and 1e12 of the activation. 11 s in all, of which a takes 9.
    table = training_step().table()
    numbers = ("macs", "flops", "read_bytes", "write_bytes", "moved_bytes", "arithmetic_intensity")
    assert [tuple(row[name] for name in numbers) for row in table.records()] == [
        (6e12, 13e12, 3e12, 1e12, 4e12, 3.25), (1e12, 2e12, 0, 0, 0, 0.0), (0, 0, 1e12, 0, 1e12, 0.0),
    ]  # fmt: skip
    times = ("compute_seconds", "memory_seconds", "bound_seconds", "bound_share", "flops_per_second")
    assert [tuple(row[name] for name in times) for row in table.records()] == [
        pytest.approx((6.5, 4.0, 9.0, 9 / 11, 13e12 / 9)), pytest.approx((1.0, 0.0, 1.0, 1 / 11, 2e12)),
        pytest.approx((0.0, 1.0, 1.0, 1 / 11, 0.0)),
    ]  # fmt: skip
    assert table.total is not None
    assert [table.total[name] for name in numbers] == [7e12, 15e12, 4e12, 1e12, 5e12, 3.0]
    assert [table.total[name] for name in times] == pytest.approx([7.5, 5.0, 11.0, 1.0, 15e12 / 11])
    assert table.title == "net on Toy: at least 11.0 s"
    assert repr(training_step()) == "<Prediction of net on Toy: bound of 11.0 s>"


def test_sums_by_any_key() -> None:
    step = training_step()
    for key in ("operator", "layer", "block", "kind", "phase", "path", "binding"):
        assert sum(group.bound_seconds for group in step.by(key).values()) == pytest.approx(11), key
    with pytest.raises(InputError, match=r"Did you mean phase\?"):
        step.by("phases")


def test_speedup() -> None:
    costs = costs_of(entry(LINEAR, "linear"))
    h200 = device("h200")
    slow, fast = predict(costs, h200), predict(costs, h200.replace(memory_bandwidth=6.0e12))
    assert fast.speedup_over(slow) == pytest.approx(6.0 / 4.8)  # bound by memory before and after
    assert slow.speedup_over(slow) == 1.0


def test_html_escapes_names_and_states_the_convention() -> None:
    costs = costs_of(entry(CONV, layer="<b>&</script>"), modules=[Module("<b>&</script>", "Conv2d", True, 1)])
    html = predict(costs, device("h200"))._repr_html_()
    assert "&lt;b&gt;&amp;&lt;/script&gt;" in html and "<b>" not in html and "</script>" not in html
    assert CONVENTION[1:] in html and "0.467 µs" not in html and "467 ns" in html


counts = st.integers(0, 10**15)
costs_ = st.builds(Cost, macs=counts, vector_flops=counts, read_bytes=counts, write_bytes=counts)
entries = st.lists(
    st.builds(
        entry,
        costs_,
        st.sampled_from(["conv", "linear", "attention", "activation"]),
        st.sampled_from(["float32", "float16", "float64"]),
        layer=st.sampled_from(["a", "b", "c"]),
    ),
    max_size=6,
)
devices = st.sampled_from(["h200", "a100-80gb", "v100", "gtx1080", "rtx3090", "xeon-icelake"]).map(device)


@given(entries, devices, st.floats(1.0, 100.0))
def test_more_bandwidth_is_never_slower(work: list[OperationCost], on: Device, times: float) -> None:
    faster = on.replace(memory_bandwidth=on.memory_bandwidth * times)
    assert predict(costs_of(*work), faster).bound_seconds <= predict(costs_of(*work), on).bound_seconds


@given(entries, devices, st.floats(1.0, 100.0))
def test_more_compute_is_never_slower(work: list[OperationCost], on: Device, times: float) -> None:
    faster = on.replace(peaks={path: peak * times for path, peak in on.peaks.items()})
    assert predict(costs_of(*work), faster).bound_seconds <= predict(costs_of(*work), on).bound_seconds


@given(entries, devices)
def test_tf32_is_never_slower(work: list[OperationCost], on: Device) -> None:
    allowed = predict(costs_of(*work), on, allow_tf32_conv=True, allow_tf32_matmul=True)
    assert allowed.bound_seconds <= predict(costs_of(*work), on, allow_tf32_conv=False).bound_seconds


@given(entries, devices)
def test_parts_add_up_and_a_bound_is_at_least_each_of_its_parts(work: list[OperationCost], on: Device) -> None:
    prediction = predict(costs_of(*work), on)
    assert sum(layer.bound_seconds for layer in prediction.layers) == pytest.approx(prediction.bound_seconds)
    total = prediction.costs.total
    assert prediction.bound_seconds >= total.moved_bytes / on.memory_bandwidth * (1 - 1e-12)
    for row in prediction.operations:
        assert row.bound_seconds >= 2 * row.cost.macs / max(on.peaks.values())
        assert row.bound_seconds <= row.compute_seconds + row.memory_seconds
