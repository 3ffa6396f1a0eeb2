"""Joining of profiler events to layers, on synthetic events whose sums are derived by hand. Nothing here is a
measurement: the events below were written to have round numbers."""

from __future__ import annotations

import json

import pytest

from costmodel.hardware.profiles.chrome import read
from costmodel.hardware.profiles.events import Event
from costmodel.hardware.profiles.host import LAYER, PHASE, REPETITION
from costmodel.hardware.profiles.join import OTHERS, join

MAIN, ENGINE, STREAM = (1, 1), (1, 2), (0, 7)
NODE = "autograd::engine::evaluate_function: "
US = 1e-6


def host(name, start, end, external=None, sequence=None, thread=MAIN, category="cpu_op", correlation=None) -> Event:
    return Event(category, name, thread, start * US, (end - start) * US, external, correlation, sequence)


def note(name, start, end) -> Event:
    return host(name, start, end, category="user_annotation")


def kernel(name, seconds, external=None, correlation=None, category="kernel") -> Event:
    return Event(category, name, STREAM, 0.5, seconds * US, external, correlation)


def training_step(at: float, scale: float, ids: int) -> list[Event]:
    """One repetition of a synthetic step on CUDA: convolution and linear layer, loss, backward, optimizer."""
    events = [
        note(REPETITION, 0, 900),
        note(LAYER, 5, 205),
        note(LAYER + "conv", 10, 100),
        host("aten::conv2d", 12, 90, 1, sequence=ids),
        host("aten::convolution", 14, 88, 2, sequence=ids),
        host("aten::cudnn_convolution", 20, 80, 3, sequence=ids + 1),  # a number that the next node will have
        note(LAYER + "fc", 110, 200),
        host("aten::addmm", 115, 190, 4, sequence=ids + 1),
        host("cudaLaunchKernel", 120, 125, category="cuda_runtime", correlation=ids + 103),
        note(LAYER + "(loss)", 210, 300),
        host("aten::nll_loss_forward", 215, 290, 5, sequence=ids + 2),
        note(PHASE + "backward", 310, 700),
        host("aten::ones_like", 312, 330, 6),
        host(NODE + "NllLossBackward0", 340, 380, 7, sequence=ids + 2, thread=ENGINE),
        host("aten::nll_loss_backward", 345, 375, 8, thread=ENGINE),
        host(NODE + "AddmmBackward0", 390, 450, 9, sequence=ids + 1, thread=ENGINE),
        host("aten::mm", 395, 410, 10, thread=ENGINE),
        host("aten::mm", 415, 440, 11, thread=ENGINE),
        host(NODE + "torch::autograd::AccumulateGrad", 455, 460, 12, thread=ENGINE),
        host("aten::add_", 456, 459, 13, thread=ENGINE),
        host(NODE + "ConvolutionBackward0", 470, 600, 14, sequence=ids, thread=ENGINE),
        host("aten::cudnn_convolution_backward", 480, 590, 15, thread=ENGINE),
        note(PHASE + "optimizer", 710, 800),
        note(LAYER + "(optimizer)", 711, 799),
        host("aten::_foreach_add_", 715, 790, 16),
    ]
    kernels = [
        kernel("nchwToNhwcKernel", 5, 3),
        kernel("sm90_xmma_fprop_implicit_gemm", 40, 3),
        kernel("ampere_sgemm_128x64_tn", 20, correlation=ids + 103),  # only its launch tells where it belongs
        kernel("nll_loss_forward_reduce", 3, 5),
        kernel("fill", 1, 6),
        kernel("nll_loss_backward_reduce", 4, 8),
        kernel("ampere_sgemm_128x64_nn", 21, 10),
        kernel("ampere_sgemm_128x64_nt", 22, 11),
        kernel("vectorized_elementwise_kernel", 2, 13),
        kernel("dgrad", 50, 15),
        kernel("wgrad", 60, 15),
        kernel("multi_tensor_apply_kernel", 7, 16),
    ]
    at_first = 0.5 if ids == 0 else 1.5
    kernels = [each._replace(start=at_first + 1e-3 * index) for index, each in enumerate(kernels)]
    moved = [event._replace(start=event.start + at * US, external=(event.external or 0) + ids) for event in events]
    ran = [
        each._replace(seconds=each.seconds * scale, external=None if each.external is None else each.external + ids)
        for each in kernels
    ]
    return moved + ran


def two_steps() -> list[Event]:
    """The second repetition takes twice as long as the first."""
    warm_up = [host("aten::addmm", -500, -400, 7001), kernel("warm_up", 1000, 7001)]  # belongs to no repetition
    return [*warm_up, *training_step(0, 1, 0), *training_step(10_000, 2, 1000)]


def test_kernels_reach_their_layers_and_phases() -> None:
    found = {(layer.layer, layer.phase): layer for layer in join(two_steps()).layers}
    # Each number is 1.5 times the first repetition's: the median of t and 2 t.
    expected = {
        ("conv", "forward"): 1.5 * (5 + 40),
        ("fc", "forward"): 1.5 * 20,
        ("(loss)", "forward"): 1.5 * 3,
        ("(loss)", "backward"): 1.5 * (1 + 4),  # the gradient's first one, and the node's own
        ("fc", "backward"): 1.5 * (21 + 22 + 2),  # both products, and the gradient that is added up
        ("conv", "backward"): 1.5 * (50 + 60),
        ("(optimizer)", "optimizer"): 1.5 * 7,
    }
    assert {key: layer.seconds / US for key, layer in found.items()} == pytest.approx(expected)
    assert list(found) == list(expected), "they stand in the order of execution"


def test_quartiles_and_kernels_of_a_layer() -> None:
    conv = join(two_steps()).layers[0]
    # Of 45 and 90 the inclusive quartiles are 56.25 and 78.75.
    assert (conv.low / US, conv.high / US) == pytest.approx((56.25, 78.75))
    assert conv.noise == pytest.approx((78.75 - 56.25) / 67.5)
    assert [(each.name, each.count) for each in conv.kernels] == [
        ("sm90_xmma_fprop_implicit_gemm", 1),
        ("nchwToNhwcKernel", 1),
    ]
    assert conv.launches == 2


def test_the_sum_of_kernels_counts_each_once() -> None:
    # 5+40+20+3+1+4+21+22+2+50+60+7 = 235, and twice that; the warm-up's 1000 are in neither.
    assert [each / US for each in join(two_steps()).kernel_time] == pytest.approx([235, 470])


def test_a_kernel_without_an_operator_is_told_and_counted() -> None:
    copy = Event("gpu_memcpy", "Memcpy HtoD", STREAM, 100 * US, 9 * US, 999)
    found = join([*training_step(0, 1, 0), copy])
    assert [(each.name, each.seconds / US) for each in found.unattributed] == [("Memcpy HtoD", pytest.approx(9))]
    assert found.kernel_time[0] / US == pytest.approx(235 + 9)


def test_recomputation_inside_the_backward_belongs_to_the_layer_that_runs_again() -> None:
    events = [
        note(REPETITION, 0, 500),
        note(LAYER + "block", 10, 90),
        host("CheckpointFunction", 15, 85, 1, sequence=0),
        note(PHASE + "backward", 100, 400),
        host(NODE + "CheckpointFunctionBackward", 110, 300, 2, sequence=0, thread=ENGINE),
        host(LAYER + "block.conv", 120, 200, thread=ENGINE, category="user_annotation"),
        host("aten::cudnn_convolution", 130, 190, 3, thread=ENGINE),
        host("aten::mul", 220, 250, 4, thread=ENGINE),
        kernel("conv", 30, 3),
        kernel("mul", 10, 4),
    ]
    found = {(layer.layer, layer.phase): layer.seconds / US for layer in join(events).layers}
    assert found == pytest.approx({("block.conv", "backward"): 30, ("block", "backward"): 10})


def test_an_operator_that_makes_two_nodes() -> None:
    """It carries the number of the first; the second's belongs to it as well."""
    events = [
        note(REPETITION, 0, 500),
        note(LAYER + "first", 10, 50),
        host("aten::relu_", 15, 45, 1, sequence=4),
        note(LAYER + "next", 60, 90),
        host("aten::mm", 65, 85, 2, sequence=6),
        note(PHASE + "backward", 100, 400),
        host(NODE + "MmBackward0", 110, 120, 3, sequence=6, thread=ENGINE),
        host(NODE + "AsStridedBackward0", 130, 140, 4, sequence=5, thread=ENGINE),
        host("aten::as_strided", 131, 139, 5, thread=ENGINE),
        kernel("copy", 3, 5),
    ]
    assert [(each.layer, each.phase) for each in join(events).layers] == [("first", "backward")]


def test_on_the_cpu_an_operators_own_time_counts() -> None:
    events = [
        note(REPETITION, 0, 200),
        note(LAYER + "conv", 5, 150),
        host("aten::conv2d", 10, 110, 1),
        host("aten::mkldnn_convolution", 20, 90, 2),
        host("aten::empty", 25, 35, 3),
        note("somebody's range", 92, 108),
        host("aten::as_strided", 95, 105, 4),  # inside the range, and so inside conv2d as well
        host("aten::relu", 160, 180, 5),  # a functional call of the network itself
    ]
    found = join(events)
    layers = {layer.layer: layer for layer in found.layers}
    # conv2d 100 - 70 - 10 = 20, mkldnn_convolution 70 - 10 = 60, empty 10, as_strided 10: together 100.
    assert layers["conv"].seconds / US == pytest.approx(100)
    assert {each.name: each.seconds / US for each in layers["conv"].kernels} == pytest.approx(
        {"aten::mkldnn_convolution": 60, "aten::conv2d": 20, "aten::empty": 10, "aten::as_strided": 10}
    )
    assert layers[""].seconds / US == pytest.approx(20)
    assert found.kernel_time[0] / US == pytest.approx(120)


def test_negligible_kernels_are_summed_up() -> None:
    events = [note(REPETITION, 0, 2000), note(LAYER + "conv", 1, 1999)]
    events += [host("aten::main", 10, 1010, 1)]
    events += [host(f"aten::small{index}", 1100 + 20 * index, 1110 + 20 * index, 2 + index) for index in range(4)]
    (layer,) = join(events).layers
    # 1000 and four times 10, each less than 3 % of 1040.
    assert [(each.name, each.count) for each in layer.kernels] == [("aten::main", 1), (OTHERS, 4)]
    assert layer.kernels[1].seconds / US == pytest.approx(40)


def test_a_chrome_trace_is_read(tmp_path) -> None:
    """In the form that torch writes (torch/profiler/_chrome_trace_export.py); times are microseconds of 16 digits."""
    common = {"ph": "X", "pid": 10, "tid": 10}
    base = 4646560705000.5
    document = {
        "schemaVersion": 1,
        "traceEvents": [
            {"ph": "M", "name": "process_name", "pid": 10, "args": {"name": "python"}},
            common | {"cat": "user_annotation", "name": REPETITION, "ts": base, "dur": 100.0},
            common
            | {"cat": "cpu_op", "name": "aten::mm", "ts": base + 10, "dur": 20.25, "args": {"External id": 5}},
            {
                "ph": "X", "cat": "kernel", "name": "gemm", "pid": 0, "tid": 7, "ts": base + 500, "dur": 12.125,
                "args": {"External id": 5, "correlation": 77, "stream": 7},
            },
            {"ph": "X", "cat": "gpu_user_annotation", "name": REPETITION, "pid": 0, "tid": 7, "ts": base, "dur": 9.0},
            {"ph": "s", "id": 77, "cat": "ac2g", "name": "ac2g", "pid": 10, "tid": 10, "ts": base},
        ],
    }  # fmt: skip
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(document))
    events = read(path).events
    assert [event.category for event in events] == ["user_annotation", "cpu_op", "kernel"]
    assert events[1].seconds == pytest.approx(20.25e-6)
    assert join(events).kernel_time == (pytest.approx(12.125e-6),)


def test_nothing_recorded_is_nothing_found() -> None:
    found = join([])
    assert (found.layers, found.kernel_time, found.unattributed) == ((), (), ())
