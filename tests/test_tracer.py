"""The trace: what is written down, that nothing of the user's is touched, and what is said when it cannot be done."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

import costmodel as cm
from costmodel.cost import count
from costmodel.errors import InputError, TraceError
from costmodel.graph import BACKWARD, DTYPE_BYTES, FORWARD, OPTIMIZER, Trace
from costmodel.tracer import Shape, parse_shape, trace
from costmodel.tracer.meta_copy import copy_to_meta


def operators(traced: Trace, layer: str | None = None, phase: str = FORWARD) -> list[str]:
    return [o.operator for o in traced.of_phase(phase) if (layer is None or o.layer == layer) and not o.view]


def macs(model: nn.Module, inputs: object, **options: object) -> int:
    return count(trace(model, inputs, **options)).total.macs


class Functional(nn.Module):
    """Calls operators itself, next to a child."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.conv(x)) + 1


class Failing(nn.Module):
    """Changes itself, then raises."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.seen: list[int] = []
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.seen.append(1)
        self.extra = self.norm(x)
        raise ZeroDivisionError("on purpose")


class TestWhatIsWrittenDown:
    def test_alexnet_by_hand(self) -> None:
        with torch.device("meta"):
            model = torchvision.models.alexnet()
        costs = count(trace(model, (1, 3, 224, 224)))
        by_layer = {layer.name: layer for layer in costs.layers}
        # 64 filters of 3 x 11 x 11 at 55 x 55 places: (224 + 2*2 - 11) // 4 + 1 = 55
        assert by_layer["features.0"].cost.macs == 64 * 55 * 55 * 3 * 11 * 11 == 70_276_800
        assert by_layer["features.0"].output_shape == (1, 64, 55, 55)
        assert by_layer["features.0"].parameters == (11 * 11 * 3 + 1) * 64
        assert by_layer["classifier.1"].cost.macs == 9216 * 4096
        assert by_layer["classifier.1"].parameters == (9216 + 1) * 4096
        # 1x1 layers: reads weight, bias, input; writes output; 4 bytes each
        assert by_layer["classifier.1"].cost.read_bytes == 4 * (9216 * 4096 + 4096 + 9216)
        assert by_layer["classifier.1"].cost.write_bytes == 4 * 4096
        assert costs.parameters == 61_100_840  # torchvision's num_params
        assert costs.total.macs == 714_188_480  # 0.714 GMAC, torchvision's _ops

    def test_a_functional_call_belongs_to_the_innermost_module(self) -> None:
        traced = trace(Functional(), (1, 3, 8, 8))
        assert operators(traced, "conv") == ["aten.convolution"]
        assert operators(traced, "") == ["aten.relu", "aten.add"]

    def test_shared_modules_run_twice_and_hold_their_parameters_once(self) -> None:
        layer = nn.Linear(5, 5)
        costs = count(trace(nn.Sequential(layer, nn.ReLU(), layer), (2, 5)))
        assert costs.parameters == 30
        assert costs.total.macs == 2 * (2 * 5 * 5)
        assert costs.trace.module_by_path["0"].calls == 2

    def test_tied_weights_are_counted_once(self) -> None:
        model = nn.Sequential(nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False))
        model[1].weight = model[0].weight
        assert count(trace(model, (2, 5))).parameters == 25

    def test_several_and_named_inputs_and_dict_outputs(self) -> None:
        class Two(nn.Module):
            def forward(self, a: torch.Tensor, b: torch.Tensor, scale: float = 1.0) -> dict[str, torch.Tensor]:
                return {"product": (a @ b) * scale}

        assert macs(Two(), [(2, 3), (3, 4)]) == 24
        assert macs(Two(), {"b": (3, 4), "a": (2, 3), "scale": 2.0}) == 24
        assert trace(Two(), {"a": (2, 3), "b": (3, 4)}).outputs[0].shape == (2, 4)

    def test_tensors_and_typed_shapes_are_inputs(self) -> None:
        embedding = nn.Sequential(nn.Embedding(100, 8), nn.Linear(8, 2))
        assert macs(embedding, Shape((3, 7), "int64")) == 3 * 7 * 8 * 2
        assert macs(embedding, torch.zeros(3, 7, dtype=torch.int64)) == 3 * 7 * 8 * 2

    def test_texts_are_shapes_with_the_batch(self) -> None:
        class Two(nn.Module):
            def forward(self, a: torch.Tensor, b: torch.Tensor, mode: str = "none") -> torch.Tensor:
                return a @ b if mode == "product" else a

        embedding = nn.Sequential(nn.Embedding(100, 8), nn.Linear(8, 2))
        assert macs(embedding, "3x7:int64") == 3 * 7 * 8 * 2
        assert macs(embedding, cm.Shape((3, 7), "int64")) == 3 * 7 * 8 * 2
        assert macs(Two(), ["2x3", "3x4", "product"]) == 24
        assert macs(Two(), {"a": "2x3", "b": (3, 4), "mode": "product"}) == 24

    def test_whole_numbers_of_any_library_are_sizes(self) -> None:
        linear = nn.Linear(3, 4)
        assert macs(linear, (np.int64(2), 3)) == macs(linear, [np.int32(2), np.int64(3)]) == 24
        assert macs(linear, cm.Shape((np.int64(2), 3))) == 24
        with pytest.raises(InputError, match=r"\(2.0, 3\) must be whole numbers"):
            trace(linear, (2.0, 3))

    def test_python_control_flow_is_followed(self) -> None:
        class Branching(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                for layer in self.layers if x.shape[0] > 2 else self.layers[:1]:
                    x = layer(x)
                return x

        assert macs(Branching(), (2, 4)) == 2 * 16
        assert macs(Branching(), (3, 4)) == 3 * (3 * 16)

    def test_attention_is_one_operator_on_cuda_and_the_same_work_on_cpu(self) -> None:
        attention = nn.MultiheadAttention(32, 4, batch_first=True)

        class Self(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.attention = attention

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.attention(x, x, x, need_weights=False)[0]

        # projections 32 -> 96 and 32 -> 32, then q k^T and the product with v: 2 x 4 heads x 5 x 5 x 8
        expected = 2 * 5 * 32 * 96 + 2 * 5 * 32 * 32 + 2 * (2 * 4 * 5 * 5 * 8)
        for dtype, operator in (("float32", "efficient"), ("bfloat16", "flash")):
            traced = trace(Self(), (2, 5, 32), dtype=dtype)
            assert any(operator in name for name in operators(traced))
            assert count(traced).total.macs == expected
        assert macs(Self(), (2, 5, 32), target="cpu") == expected

    def test_lstm(self) -> None:
        # 6 steps, batch 2, four gates of 8: input 3 and state 8
        assert macs(nn.LSTM(3, 8), (6, 2, 3)) == 6 * 2 * 4 * 8 * (3 + 8)

    def test_dropout_on_cuda_keeps_a_bool_mask_and_on_cpu_a_float_one(self) -> None:
        model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5))
        (cuda,) = (o for o in trace(model, (2, 8), train=True).operations if o.operator == "aten.native_dropout")
        assert cuda.outputs[1].dtype == "bool"
        assert "aten.bernoulli_" in operators(trace(model, (2, 8), train=True, target="cpu"), "1")
        assert operators(trace(model, (2, 8)), "1") == []

    @pytest.mark.parametrize("around", [torch.no_grad, torch.enable_grad, torch.inference_mode])
    def test_the_callers_modes_do_not_matter(self, around: type) -> None:
        with torch.device("meta"):
            model = torchvision.models.vit_b_16()
        with around():
            here = count(trace(model.eval(), (1, 3, 224, 224))).total
        assert here == count(trace(model.train(), (1, 3, 224, 224))).total
        with around():
            assert trace(nn.Linear(2, 2), (1, 2), train=True).phases == (FORWARD, BACKWARD, OPTIMIZER)

    def test_a_forward_in_inference_mode_is_taken_apart_all_the_same(self) -> None:
        class Inference(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = nn.Linear(3, 4)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                with torch.inference_mode():
                    return self.linear(x)

        assert macs(Inference(), (2, 3)) == 2 * 3 * 4

    def test_constants_of_a_forward(self) -> None:
        class Constants(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.scale = torch.tensor([1.0, 2.0, 3.0])  # not registered as a buffer

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                out = torch.zeros(x.shape)
                out[:, 0] = x[:, 0]
                steps = torch.arange(3)
                for step in steps.tolist():
                    out = out + step
                return out * self.scale + torch.tensor([1.0, 2.0, 3.0]) + steps

        assert trace(Constants(), (2, 3)).outputs[0].shape == (2, 3)

    def test_a_trace_survives_json(self) -> None:
        traced = trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout()), (2, 3, 8, 8), train=True)
        assert Trace.from_json(traced.to_json()) == traced

    def test_huge_weights_are_never_allocated(self) -> None:
        # 10^12 weights, 4 TB
        assert macs(nn.Linear(1_000_000, 1_000_000, device="meta"), (1, 1_000_000), train=True) == 2 * 10**12

    def test_channels_last_stays_channels_last(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2)).to(memory_format=torch.channels_last)
        x = torch.empty(2, 3, 10, 10).to(memory_format=torch.channels_last)
        assert trace(model, x).outputs[0].strides == tuple(model(x).stride())


class TestTraining:
    def test_each_phase_and_each_layer_has_its_operations(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
        traced = trace(model, (2, 3, 8, 8), train=True)
        assert operators(traced, "0", BACKWARD) == ["aten.convolution_backward"]
        assert operators(traced, "1", BACKWARD) == ["aten.threshold_backward"]
        assert operators(traced, "3", BACKWARD) == ["aten.mm", "aten.mm", "aten.sum"]
        assert operators(traced, "(optimizer)", OPTIMIZER) == ["aten._foreach_add_"]
        conv, linear = 2 * 4 * 36 * 27, 2 * 144 * 10
        costs = count(traced)
        assert costs.phase(FORWARD).total.macs == conv + linear
        # the input needs no gradient: the first layer's backward is its weight's gradient alone
        assert costs.phase(BACKWARD).total.macs == conv + 2 * linear

    @pytest.mark.parametrize("inplace", [False, True])
    def test_the_backward_belongs_to_the_layer_of_its_forward(self, inplace: bool) -> None:
        # in place, autograd keeps a copy that it makes after the activation's own node
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(inplace=inplace), nn.Conv2d(4, 4, 3))
        traced = trace(model, (1, 3, 8, 8), train=True, loss="sum")
        assert operators(traced, "1", BACKWARD) == ["aten.silu_backward"]
        assert operators(traced, "0", BACKWARD) == ["aten.convolution_backward"]

    def test_optimizers_and_their_state(self) -> None:
        model = nn.Linear(10, 10)

        def state(**options: object) -> int:
            traced = trace(model, (2, 10), train=True, **options)
            return sum(s.nbytes for s in traced.storages if s.role == "optimizer state" and s.nbytes > 4)

        assert state(optimizer="sgd") == 0
        assert state(optimizer="sgd", optimizer_options={"momentum": 0.9}) == 4 * 110
        assert state(optimizer="adam") == state(optimizer="adamw") == 2 * 4 * 110
        assert state(optimizer=lambda p: torch.optim.RMSprop(p, foreach=True)) == 4 * 110
        assert OPTIMIZER not in trace(model, (2, 10), train=True, optimizer=None).phases

    def test_roles(self) -> None:
        traced = trace(nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.BatchNorm1d(20)), (2, 10), train=True)
        nbytes = {
            role: sum(s.nbytes for s in traced.storages if s.role == role and s.birth == -1)
            for role in ("parameter", "buffer", "input")
        }
        # the inputs are 2 x 10 numbers and 2 labels
        assert nbytes == {"parameter": 4 * (220 + 40), "buffer": 4 * 40 + 8, "input": 4 * 20 + 8 * 2}
        gradients = [s for s in traced.storages if s.role == "gradient"]
        assert sum(s.nbytes for s in gradients) == 4 * 260
        assert all(s.death is None for s in gradients)

    def test_lazy_modules_train(self) -> None:
        model = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(10))
        costs = count(trace(model, (2, 3, 8, 8), train=True))
        assert costs.parameters == (27 + 1) * 4 + (144 + 1) * 10
        assert isinstance(model[0].weight, nn.UninitializedParameter)

    def test_frozen_layers_have_no_backward(self) -> None:
        model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 6))
        model[0].requires_grad_(False)
        assert count(trace(model, (1, 4), train=True)).phase(BACKWARD).total.macs == 5 * 6

    def test_a_loss_of_ones_own(self) -> None:
        traced = trace(nn.Linear(4, 5), (1, 4), train=True, loss=lambda out: (out**2).mean())
        assert "aten.pow" in operators(traced, "(loss)")

    def test_two_outputs_share_the_loss(self) -> None:
        with torch.device("meta"):
            model = torchvision.models.segmentation.fcn_resnet50(weights_backbone=None, aux_loss=True)
        traced = trace(model, (2, 3, 64, 64), train=True)
        assert operators(traced, "(loss)").count("aten._log_softmax") == 2


class TestNothingIsTouched:
    def test_a_module_is_left_as_it_was(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.LSTM(6, 6))
        before = {name: (id(t), t._version, t.device.type) for name, t in model.state_dict(keep_vars=True).items()}
        modes = [module.training for module in model.modules()]
        attributes = [set(module.__dict__) for module in model.modules()]
        trace(model[:3], (2, 3, 8, 8), train=True)
        after = {name: (id(t), t._version, t.device.type) for name, t in model.state_dict(keep_vars=True).items()}
        assert after == before
        assert [module.training for module in model.modules()] == modes
        assert [set(module.__dict__) for module in model.modules()] == attributes
        assert all(parameter.grad is None for parameter in model.parameters())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())

    def test_also_when_its_forward_raises(self) -> None:
        model = Failing()
        dropout, fast_path = functional.dropout, torch.backends.mha.get_fastpath_enabled()
        with pytest.raises(TraceError, match="ZeroDivisionError: on purpose"):
            trace(model, (2, 4))
        assert (model.calls, model.seen) == (0, [])
        assert not hasattr(model, "extra")
        assert model.norm.weight.device.type == "cpu"
        assert functional.dropout is dropout
        assert torch.backends.mha.get_fastpath_enabled() is fast_path

    def test_hooks_and_lazy_layers_of_the_user_stay(self) -> None:
        model = nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 4))
        called = []
        model[1].register_forward_hook(lambda module, args, output: called.append(module))
        assert macs(model, (2, 3)) == 2 * 3 * 4 + 2 * 4 * 4
        assert isinstance(model[0], nn.LazyLinear)
        assert len(model[0]._forward_pre_hooks) == 1
        assert len(model[1]._forward_hooks) == 1
        assert model(torch.zeros(2, 5)).shape == (2, 4)  # it can still take another shape

    def test_the_meta_copy_equals_a_deep_copy(self) -> None:
        model = torchvision.models.resnet18()
        on_meta, copied = copy_to_meta(model), copy.deepcopy(model)
        assert [n for n, _ in on_meta.named_modules()] == [n for n, _ in copied.named_modules()]
        for ours, theirs in zip(on_meta.modules(), copied.modules(), strict=True):
            assert type(ours) is type(theirs)
            assert set(ours.__dict__) == set(theirs.__dict__)
        for (name, ours), theirs in zip(
            on_meta.state_dict(keep_vars=True).items(), copied.state_dict().values(), strict=True
        ):
            assert (ours.shape, ours.dtype, ours.device.type) == (theirs.shape, theirs.dtype, "meta"), name
        mutable = {id(v) for m in model.modules() for v in m.__dict__.values() if isinstance(v, (list, dict, set))}
        assert not mutable & {id(v) for m in on_meta.modules() for v in m.__dict__.values()}

    def test_what_cannot_be_copied_is_shared(self) -> None:
        import threading

        model = nn.Linear(2, 2)
        model.lock = threading.Lock()
        assert macs(model, (1, 2)) == 4


class TestRunning:
    class ByValue(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.sum() > 0:
                x = self.linear(x)
            return x[x > 0]

    def test_values_are_refused_with_the_way_out(self) -> None:
        with pytest.raises(TraceError, match=r"the network itself.*--run"):
            trace(self.ByValue(), (2, 4))

    def test_running_follows_values(self) -> None:
        model = self.ByValue()
        weight = model.linear.weight.detach().clone()
        assert macs(model, torch.ones(2, 4), run=True) == 2 * 4 * 4
        assert macs(model, -torch.ones(2, 4), run=True) == 0
        assert torch.equal(model.linear.weight, weight)

    def test_running_needs_weights(self) -> None:
        with pytest.raises(InputError, match="no weights to run with"):
            trace(nn.Linear(2, 2, device="meta"), (1, 2), run=True)

    def test_running_and_tracing_agree(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5))
        real, meta = trace(model, (2, 3, 8, 8), run=True), trace(model, (2, 3, 8, 8), target="cpu")
        assert [o.operator for o in real.operations] == [o.operator for o in meta.operations]
        assert [o.outputs for o in real.operations] == [o.outputs for o in meta.operations]
        assert real.storages == meta.storages


class TestBadInput:
    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            ((1, 4, 8, 8), r"layer '0', Conv2d\(3, 4, kernel_size=\(3, 3\).* given 1x4x8x8, raised RuntimeError"),
            ((1, 3, 2, 2), "Kernel size can't be greater than actual input size"),
            ((0, 3, 8, 8), "at least 1"),
            ((1, -3, 8, 8), "at least 1"),
            ([(1, 3, 8, 8), (1, 3, 8, 8)], "the network, Sequential.. given 1x3x8x8, 1x3x8x8, raised TypeError"),
            ("3 by 8 by 8", r"cannot read the input '3 by 8 by 8': write sizes with the batch, like 8x3x224x224"),
            ("0x3x8x8", "size of zero"),
            ((), "cannot use"),
            (None, "cannot use None"),
        ],
    )
    def test_inputs(self, inputs: object, message: str) -> None:
        with pytest.raises((InputError, TraceError), match=message):
            trace(nn.Sequential(nn.Conv2d(3, 4, 3)), inputs)

    @pytest.mark.parametrize(
        ("network", "inputs"),
        [
            (nn.Conv2d(3, 4, 3), (3, 9, 9)),
            (nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.LazyLinear(2)), [(1, 9, 9)]),
            (nn.Conv1d(3, 4, 3), {"input": Shape((3, 9))}),
        ],
    )
    def test_a_shape_without_a_batch(self, network: nn.Module, inputs: object) -> None:
        with pytest.raises(InputError, match=r"has no batch: .* for a single image. Write \(1, \d, 9"):
            trace(network, inputs)

    def test_a_tensor_without_a_batch_is_a_single_image(self) -> None:
        assert trace(nn.Conv2d(3, 4, 3), torch.empty(3, 9, 9)).outputs[0].shape == (4, 7, 7)

    def test_the_wrong_dtype(self) -> None:
        with pytest.raises(TraceError, match="128:int64"):
            trace(nn.Embedding(10, 4), (2, 3))
        with pytest.raises(InputError, match="cannot run in int64"):
            trace(nn.Linear(2, 2), (1, 2), dtype="int64")
        with pytest.raises(InputError, match="unknown dtype 'float31'"):
            trace(nn.Linear(2, 2), (1, 2), dtype="float31")

    def test_modules_that_cannot_be_traced(self) -> None:
        with pytest.raises(InputError, match="a str, not"):
            trace("alexnet", (1, 2))  # type: ignore[arg-type]
        with pytest.raises(InputError, match="nothing to analyse"):
            trace(nn.Sequential(), (1, 2))
        with pytest.raises(TraceError, match="NotImplementedError"):
            trace(nn.Module(), (1, 2))
        with pytest.raises(InputError, match="TorchScript"):
            trace(torch.jit.script(nn.Linear(2, 2)), (1, 2))

    def test_training_options(self) -> None:
        layer = nn.Linear(2, 2)
        with pytest.raises(InputError, match=r"unknown optimizer 'adamm'.*Did you mean adam"):
            trace(layer, (1, 2), train=True, optimizer="adamm")
        with pytest.raises(InputError, match=r"does not take these options.*momentum"):
            trace(layer, (1, 2), train=True, optimizer="adam", optimizer_options={"momentum": 0.9})
        with pytest.raises(InputError, match="Invalid learning rate"):
            trace(layer, (1, 2), train=True, optimizer_options={"lr": -1.0})
        with pytest.raises(InputError, match="unknown loss"):
            trace(layer, (1, 2), train=True, loss="mse")
        with pytest.raises(InputError, match="nothing to train"):
            trace(nn.ReLU(), (1, 2), train=True)
        with pytest.raises(InputError, match="no classes"):
            trace(layer, (2,), train=True)
        with pytest.raises(InputError, match="target"):
            trace(layer, (1, 2), target="tpu")
        with pytest.raises(InputError, match=r"^optimizer, accumulate: .*train=True"):
            trace(layer, (1, 2), optimizer="adam", accumulate=2)

    def test_a_quantised_network(self) -> None:
        network = nn.Sequential(nn.Linear(4, 3))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantised = torch.ao.quantization.quantize_dynamic(network, {nn.Linear}, dtype=torch.qint8)
        with pytest.raises(TraceError, match=r"layer '0'.* is quantised: .*--run.*costmodel.rule"):
            trace(quantised, (2, 4))
        (missing,) = count(trace(quantised, (2, 4), run=True)).unmodelled
        assert missing.operator == "quantized.linear_dynamic"

    def test_torchs_warnings_are_kept_from_the_user_and_the_users_own_are_not(self) -> None:
        class Talks(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                warnings.warn("mine", UserWarning, stacklevel=1)
                warnings.warn_explicit("torch's", UserWarning, "rnn.py", 1, module="torch.nn.modules.rnn")
                return x + 1

        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            trace(Talks(), (2, 3))
        assert [str(warning.message) for warning in seen] == ["mine"]

    @pytest.mark.parametrize("text", ["", "x", "3x", "3xax4", "3x-4", "0x3", "3x4:", "3x4:flot32", "3.5x4"])
    def test_shapes_as_text(self, text: str) -> None:
        with pytest.raises(InputError):
            parse_shape(text)

    def test_good_shapes_as_text(self) -> None:
        assert parse_shape("3x224x224") == Shape((3, 224, 224))
        assert parse_shape(" 128:int64 ") == Shape((128,), "int64")
        assert parse_shape("3,4:bf16") == Shape((3, 4), "bfloat16")


DTYPES = sorted({value for value in vars(torch).values() if isinstance(value, torch.dtype)}, key=str)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
class TestEveryElementType:
    """Whatever torch can name is either traced or refused in one sentence."""

    def test_its_bytes_are_those_of_torch(self, dtype: torch.dtype) -> None:
        assert DTYPE_BYTES[str(dtype).removeprefix("torch.")] == dtype.itemsize

    @pytest.mark.parametrize("run", [False, True], ids=["static", "run"])
    def test_it_can_be_the_type_of_an_input(self, dtype: torch.dtype, run: bool) -> None:
        shape = cm.Shape((1, 3), dtype)
        assert shape == cm.Shape((1, 3), str(dtype)) == parse_shape(f"1x3:{shape.dtype}")
        try:
            traced = trace(nn.Flatten(0), shape, run=run)
        except (InputError, TraceError) as error:
            assert len(str(error)) < 300
            assert str(dtype) not in FLATTENED
        else:
            assert traced.inputs[0].dtype == traced.outputs[0].dtype == shape.dtype
            assert traced.inputs[0].nbytes == 3 * dtype.itemsize


FLATTENED = {
    f"torch.{name}"
    for name in ("float32", "float16", "bfloat16", "float8_e8m0fnu", "int64", "uint16", "bool", "complex64", "bits8")
}
"""Types that no version may refuse."""
