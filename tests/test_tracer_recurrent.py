"""Recurrent layers: on a CPU against real runs, on CUDA against hand counts and what cuDNN says of itself."""

from __future__ import annotations

import copy
import json
import random
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from costmodel.cost import Costs, count
from costmodel.graph import BACKWARD, FORWARD, Trace
from costmodel.memory import memory_timeline
from costmodel.tracer import trace
from costmodel.tracer.meta_kernels import reserve_bytes, workspace_bytes
from costmodel.tracer.recurrent_cuda import MODES

SHAPE = (5, 2, 8)
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "LSTM": lambda: nn.LSTM(8, 16),
    "two layers, both ways": lambda: nn.LSTM(8, 16, 2, bidirectional=True, batch_first=True),
    "dropped between": lambda: nn.LSTM(8, 16, 3, dropout=0.5),
    "without biases": lambda: nn.LSTM(8, 16, 2, bias=False),
    "projected": lambda: nn.LSTM(8, 16, 2, bidirectional=True, proj_size=4),
    "projected without biases": lambda: nn.LSTM(8, 16, proj_size=4, bias=False),
    "GRU": lambda: nn.GRU(8, 16),
    "GRU of three layers": lambda: nn.GRU(8, 16, 3, bidirectional=True, batch_first=True),
    "tanh": lambda: nn.RNN(8, 16, 2, bidirectional=True),
    "relu": lambda: nn.RNN(8, 16, nonlinearity="relu", dropout=0.5, num_layers=2),
}
of_each_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
SUM: dict[str, Any] = {"train": True, "loss": "sum"}


def written(traced: Trace) -> list[tuple[Any, ...]]:
    return [(o.operator, o.phase, [(t.shape, t.dtype, t.strides) for t in o.outputs]) for o in traced.operations]


def costs_of(make: Callable[[], nn.Module], target: str, **options: Any) -> Costs:
    costs = count(trace(make(), SHAPE, target=target, **options))
    assert not costs.unmodelled
    return costs


class TestOnCpu:
    @pytest.mark.parametrize("train", [False, True])
    @of_each_layer
    def test_it_is_what_a_cpu_runs(self, make: Callable[[], nn.Module], train: bool) -> None:
        options = {**SUM, "optimizer": "adam"} if train else {}
        ours, real = (trace(make(), SHAPE, **how, **options) for how in ({"target": "cpu"}, {"run": True}))
        assert written(ours) == written(real)
        assert memory_timeline(ours).peak_bytes == memory_timeline(real).peak_bytes

    @pytest.mark.parametrize(
        ("dtype", "autocast"), [("float64", None), ("bfloat16", None), ("float16", None), (None, "bfloat16")]
    )
    @pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
    def test_in_other_types(self, kind: type[nn.Module], dtype: str | None, autocast: str | None) -> None:
        options = {**SUM, "dtype": dtype, "autocast": autocast}
        ours, real = (trace(kind(8, 16, 2), SHAPE, **how, **options) for how in ({"target": "cpu"}, {"run": True}))
        assert written(ours) == written(real)
        assert memory_timeline(ours).peak_bytes == memory_timeline(real).peak_bytes

    def test_a_checkpointed_layer_keeps_nothing_the_first_time(self) -> None:
        options = {**SUM, "checkpoint": "0"}
        ours, real = (
            trace(nn.Sequential(nn.LSTM(8, 16), First()), SHAPE, **how, **options)
            for how in ({"target": "cpu"}, {"run": True})
        )
        assert written(ours) == written(real)

    @pytest.mark.parametrize("sizes", [(1, 1, 8, 16), (20, 8, 64, 128), (3, 5, 70, 33), (7, 2, 512, 256)])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_onednns_workspace(self, sizes: tuple[int, int, int, int], dtype: torch.dtype) -> None:
        if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            pytest.skip("this CPU has no bfloat16")
        steps, batch, inputs, hidden = sizes
        shapes = ((steps, batch, inputs), (4 * hidden, inputs), (4 * hidden, hidden), (4 * hidden,), (4 * hidden,))
        tensors = [torch.zeros(shape, dtype=dtype) for shape in (*shapes, (batch, hidden), (batch, hidden))]
        kept = torch.ops.aten.mkldnn_rnn_layer(*tensors, False, (), 2, hidden, 1, True, False, False, True)[3]
        assert kept.numel() == workspace_bytes(steps, batch, inputs, hidden, dtype.itemsize)


class First(nn.Module):
    """The first of several outputs."""

    def forward(self, outputs: tuple[torch.Tensor, Any]) -> torch.Tensor:
        return outputs[0]


class TestOnCuda:
    @of_each_layer
    def test_the_work_is_that_of_the_steps(self, make: Callable[[], nn.Module]) -> None:
        whole, steps = costs_of(make, "cuda"), costs_of(make, "meta")
        assert list(whole.by("operator")).count("aten._cudnn_rnn") == 1
        assert (whole.total.macs, whole.total.vector_flops) == (steps.total.macs, steps.total.vector_flops)
        assert whole.parameters == steps.parameters

    def test_by_hand(self) -> None:
        # 10 steps of 4 gates: 8 inputs and 16 states each. Weights are read once, whatever the number of steps
        cost = costs_of(LAYERS["LSTM"], "cuda").by("operator")["aten._cudnn_rnn"]
        weights = 4 * 16 * (8 + 16) + 2 * 4 * 16
        assert cost.macs == 10 * 4 * 16 * (8 + 16)
        assert cost.read_bytes == 4 * (10 * 8 + 2 * 2 * 16 + weights)
        assert cost.write_bytes == 4 * (10 * 16 + 2 * 2 * 16)

    def test_the_backward_differentiates_every_product_twice(self) -> None:
        forward = 10 * 4 * 16 * (8 + 16)
        assert costs_of(LAYERS["LSTM"], "cuda", **SUM).phase(BACKWARD).total.macs == 2 * forward
        # step by step nobody asks for the gradient of the input, nor for that of the first state of both samples
        spared = 10 * 4 * 16 * 8 + 2 * 4 * 16 * 16
        assert costs_of(LAYERS["LSTM"], "meta", **SUM).phase(BACKWARD).total.macs == 2 * forward - spared

    def test_dropout_between_layers(self) -> None:
        # 3 FLOPs for each output of two layers, beside the 22 of a unit and its 8 biases
        cost = costs_of(LAYERS["dropped between"], "cuda", **SUM).phase(FORWARD).by("operator")["aten._cudnn_rnn"]
        assert cost.vector_flops == 10 * 16 * (3 * (22 + 8) + 2 * 3)

    def test_one_operator_however_long(self) -> None:
        lengths = [len(trace(nn.LSTM(8, 16), (steps, 2, 8), **SUM).operations) for steps in (2, 500)]
        assert lengths[0] == lengths[1]

    @pytest.mark.parametrize("bias", [True, False])
    def test_weights_and_their_gradients_lie_in_one_block(self, bias: bool) -> None:
        traced = trace(nn.Sequential(nn.LSTM(8, 16, bias=bias), First()), SHAPE, **SUM)
        room = 4 * (4 * 16 * (8 + 16) + 2 * 4 * 16)  # cuDNN's has biases, whatever the layer has
        found = {
            role: [(s.name, s.nbytes) for s in traced.storages if s.role == role] for role in ("parameter", "gradient")
        }
        assert found["parameter"] == [("0.*", room)]
        # without biases the gradients are copied out of it
        copies = [("0.weight_ih_l0", 4 * 64 * 8), ("0.weight_hh_l0", 4 * 64 * 16)]
        assert sorted(found["gradient"]) == ([("0.*", room)] if bias else sorted(copies))
        assert [p.tensor.offset for p in traced.parameters][:2] == [0, 4 * 16 * 8]
        # gates and state of 10 steps, in whole 32 bytes, and 256
        kept = next(o for o in traced.operations if o.operator == "aten._cudnn_rnn").outputs[3]
        assert kept.nbytes == 10 * 16 * 5 * 4 + 256 and traced.storages[kept.storage].saved_by == ("0",)

    def test_the_users_weights_stay_where_they_are(self) -> None:
        layer = nn.LSTM(8, 16)
        before = [(p.data_ptr(), p.untyped_storage().nbytes()) for p in layer.parameters()]
        trace(layer, SHAPE, **SUM)
        assert [(p.data_ptr(), p.untyped_storage().nbytes()) for p in layer.parameters()] == before

    def test_weights_that_are_used_twice_are_copied_together(self) -> None:
        layer = nn.LSTM(16, 16)
        layer.weight_hh_l0 = layer.weight_ih_l0
        operation = next(o for o in trace(layer, (5, 2, 16)).operations if o.operator == "aten._cudnn_rnn")
        assert "weight_buf" not in operation.inputs
        assert operation.outputs[4].numel == 2 * 4 * 16 * 16 + 2 * 4 * 16

    def test_outputs_lie_as_cudnns_do_where_the_batch_comes_first(self) -> None:
        assert trace(nn.GRU(8, 16, batch_first=True), (2, 5, 8)).outputs[0].strides == (16, 32, 1)

    @pytest.mark.parametrize("autocast", ["float16", "bfloat16"])
    def test_autocast_means_float16(self, autocast: str) -> None:
        costs = costs_of(LAYERS["two layers, both ways"], "cuda", **SUM, autocast=autocast)
        operation = next(o for o in costs.trace.operations if o.operator == "aten._cudnn_rnn")
        assert {t.dtype for t in (*operation.inputs.values(), *operation.outputs)} == {"float16", "uint8"}
        plain = costs_of(LAYERS["two layers, both ways"], "cuda", **SUM)
        assert costs.total.macs == plain.total.macs
        gradients = {s.nbytes for s in costs.trace.storages if s.role == "gradient"}
        assert gradients == {4 * 64 * 8, 4 * 64 * 32, 4 * 64 * 16, 4 * 64}  # each of its own, as copies have them

    def test_without_cudnn_it_goes_step_by_step(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.backends.cudnn, "enabled", False)
        assert "aten._cudnn_rnn" not in costs_of(LAYERS["LSTM"], "cuda").by("operator")

    def test_what_cudnn_keeps(self) -> None:
        library = Path(sysconfig.get_path("purelib")) / "nvidia/cudnn/lib/libcudnn.so.9"
        if not library.exists():
            pytest.skip("needs cuDNN's library")
        draw = random.Random(0)

        def case(mode: int, projected: int, p: float) -> tuple[Any, ...]:
            rows, inputs, hidden = 2 * draw.randint(1, 50), draw.randint(1, 200), draw.randint(100, 200)
            return (
                mode,
                rows,
                inputs,
                hidden,
                projected,
                draw.randint(1, 4),
                draw.randint(1, 2),
                p,
                draw.random() < 0.5,
            )

        cases = [case(mode, 0, p) for mode in MODES.values() for p in (0.0, 0.5) for _ in range(10)]
        cases += [case(MODES["lstm"], draw.randint(1, 99), 0.0) for _ in range(20)]
        oracle = Path(__file__).parent / "oracles/reserve_of_cudnn.py"
        asked = [sys.executable, str(oracle), str(library), json.dumps(cases)]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        if done.returncode or json.loads(done.stdout)["version"] // 100 != 924:
            pytest.skip(f"this cuDNN does not say, or is not the one that the formula was fitted to: {done.stderr}")
        for case, (weights, kept) in zip(cases, json.loads(done.stdout)["sizes"], strict=True):
            mode, rows, inputs, hidden, projected, layers, directions, p, half = case
            size = 2 if half else 4
            assert reserve_bytes(mode, rows, hidden, projected, layers, directions, p > 0, size) == kept, case
            kind = {2: nn.LSTM, 3: nn.GRU}.get(mode, nn.RNN)
            only = {"proj_size": projected} if projected else {}
            layer = kind(inputs, hidden, layers, bidirectional=directions == 2, device="meta", **only)
            assert size * sum(p.numel() for p in layer.parameters()) == weights


def test_the_module_is_left_alone() -> None:
    layer = nn.GRU(8, 16, 2)
    state = copy.deepcopy(layer.state_dict())
    trace(layer, SHAPE, **SUM)
    assert all(torch.equal(state[name], tensor) for name, tensor in layer.state_dict().items())
