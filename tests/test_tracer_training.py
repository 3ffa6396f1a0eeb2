"""The ways of taking a training step, and what cannot be asked for."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

import costmodel as cm
from costmodel.errors import CostModelError, InputError
from costmodel.graph import BACKWARD, FORWARD, HOST, OPTIMIZER, Trace
from costmodel.memory import memory_timeline
from costmodel.tracer import Training, trace

MLP = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5))
PARAMETERS = 10 * 20 + 20 + 20 * 5 + 5
SHAPE = (4, 10)


def step(**options: Any) -> Trace:
    return trace(MLP, SHAPE, train=True, **options)


def of_role(traced: Trace, role: str, *, born: bool | None = None) -> int:
    """Bytes of one role; those there before the first operation, or made by one."""
    return sum(s.nbytes for s in traced.storages if s.role == role and born in (None, s.birth >= 0))


class TestOptions:
    def test_a_training_and_its_options_are_the_same(self) -> None:
        options: dict[str, Any] = {"optimizer": "adam", "accumulate": 2, "set_to_none": False}
        assert step(**options) == trace(MLP, SHAPE, train=Training(**options))
        assert trace(MLP, SHAPE, train=Training(optimizer="adam"), accumulate=2, set_to_none=False) == step(**options)
        assert cm.Training is Training

    def test_settings_say_what_was_asked_for(self) -> None:
        assert step().settings == {"loss": "cross_entropy", "optimizer": "sgd"}
        asked = step(
            optimizer_options={"momentum": 0.9},
            first_step=True,
            set_to_none=False,
            accumulate=2,
            checkpoint="0",
            autocast=torch.bfloat16,
        )
        assert asked.settings == {
            "loss": "cross_entropy",
            "optimizer": "sgd",
            "momentum": 0.9,
            "first_step": True,
            "set_to_none": False,
            "accumulate": 2,
            "checkpoint": ("0",),
            "autocast": "bfloat16",
        }
        assert Trace.from_json(asked.to_json()) == asked
        assert trace(nn.Conv2d(3, 4, 3), (1, 3, 8, 8), channels_last=True).settings == {"channels_last": True}

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"optimizer": "adamm"}, "unknown optimizer 'adamm'.*Did you mean adam"),
            ({"optimizer": "adam", "optimizer_options": {"momentum": 0.9}}, "adam does not take these options"),
            ({"optimizer_options": {"fused": True, "foreach": True}}, "cannot be `True` together"),
            ({"optimizer": None, "optimizer_options": {"lr": 0.1}}, "belong to an optimizer given by its name"),
            ({"loss": "mse"}, "unknown loss 'mse'"),
            ({"accumulate": 0}, "cannot accumulate 0 micro-batches"),
            ({"accumulate": 1.5}, "cannot accumulate 1.5 micro-batches"),
            ({"accumulate": True}, "cannot accumulate True"),
            ({"acumulate": 2}, "there is no option 'acumulate'.*Did you mean accumulate"),
            ({"checkpoint": "layer"}, "there is no module 'layer' to checkpoint. It has 0, 1, 2"),
            ({"checkpoint": ("0", "10")}, "there is no module '10' to checkpoint"),
            ({"checkpoint": ""}, "there is no module ''"),
            ({"autocast": "float32"}, "autocast runs in bfloat16 or float16, not in float32"),
            ({"autocast": "bf61"}, "unknown dtype 'bf61'"),
        ],
    )
    def test_what_cannot_be_asked_for(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError, match=message):
            step(**options)

    def test_nearest_names_of_modules(self) -> None:
        model = nn.Sequential()
        model.features, model.classifier = nn.Sequential(nn.Linear(10, 20)), nn.Linear(20, 5)
        with pytest.raises(InputError, match=r"'feature' to checkpoint\. Did you mean features"):
            trace(model, SHAPE, train=True, checkpoint="feature")

    @pytest.mark.parametrize("loss", ["sum", "cross_entropy"])
    def test_outputs_that_nothing_was_kept_for(self, loss: str) -> None:
        class Detached(nn.Linear):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return super().forward(x).detach()

        with pytest.raises(InputError, match="no output of this network depends on a trainable parameter"):
            trace(Detached(10, 5), SHAPE, train=True, loss=loss)

    def test_nothing_to_train(self) -> None:
        frozen = nn.Linear(10, 5).requires_grad_(False)
        with pytest.raises(InputError, match="no parameter of this network requires a gradient"):
            trace(frozen, SHAPE, train=True)

    def test_the_users_module_is_untouched(self) -> None:
        model = nn.Sequential(nn.Linear(10, 20), nn.Linear(20, 5))
        before = [set(module.__dict__) for module in model.modules()]
        trace(model, SHAPE, train=True, checkpoint="*", autocast="float16", set_to_none=False, channels_last=True)
        assert [set(module.__dict__) for module in model.modules()] == before
        assert all(parameter.grad is None for parameter in model.parameters())
        with pytest.raises(CostModelError):
            trace(model, (4, 11), train=True, checkpoint="*", autocast="float16")
        assert [set(module.__dict__) for module in model.modules()] == before


class TestClasses:
    """What a cross entropy takes for classes in an output of shape (batch, tokens or channels, ...)."""

    def test_a_language_models_are_the_last_dimension(self) -> None:
        model = nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 50))
        traced = trace(model, "4x16:int64", train=True)
        assert traced.settings["classes_last"] is True
        (labels,) = [s for s in traced.storages if s.name == "labels"]
        assert labels.nbytes == 8 * 4 * 16
        (loss,) = [o for o in traced.operations if o.operator == "aten.nll_loss_forward"]
        assert (loss.inputs["self"].shape, loss.inputs["target"].shape) == ((64, 50), (64,))

    def test_otherwise_dimension_1(self) -> None:
        segments = trace(nn.Conv1d(3, 7, 1), (4, 3, 16), train=True)
        (labels,) = [s for s in segments.storages if s.name == "labels"]
        assert labels.nbytes == 8 * 4 * 16 and "classes_last" not in segments.settings
        # of tokens too, where there are not three dimensions
        pooled = trace(nn.Sequential(nn.EmbeddingBag(50, 8), nn.Linear(8, 5)), "4x16:int64", train=True)
        assert "classes_last" not in pooled.settings


class TestGradients:
    def test_kept_gradients_are_there_from_the_start_and_zeroed_at_the_end(self) -> None:
        traced = step(set_to_none=False)
        assert of_role(traced, "gradient", born=False) == of_role(traced, "gradient") == 4 * PARAMETERS
        assert traced.operations[-1].operator == "aten.zero_"
        assert traced.operations[-1].phase == OPTIMIZER
        # what the backward makes is added to them, and dies
        assert [o.operator for o in traced.of_phase(BACKWARD)].count("aten.add_") == 4

    def test_in_the_first_step_they_are_made(self) -> None:
        traced = step(set_to_none=False, first_step=True)
        assert of_role(traced, "gradient", born=True) == of_role(traced, "gradient") == 4 * PARAMETERS

    def test_without_an_optimizer(self) -> None:
        traced = step(optimizer=None, set_to_none=False)
        assert of_role(traced, "gradient", born=False) == 4 * PARAMETERS
        assert {o.operator for o in traced.of_phase(OPTIMIZER)} == {"aten.zero_"}

    def test_micro_batches(self) -> None:
        traced, one = step(accumulate=3), step()
        phases = [o.phase for o in traced.operations]
        changes = [phases[0], *(b for a, b in itertools.pairwise(phases) if a != b)]
        assert changes == [FORWARD, BACKWARD] * 3 + [OPTIMIZER]
        linears = [o for o in traced.of_phase(FORWARD) if o.operator == "aten.addmm"]
        assert len(linears) == 3 * 2
        assert of_role(traced, "gradient") == 4 * PARAMETERS
        assert memory_timeline(traced).saved_bytes == memory_timeline(one).saved_bytes
        # the gradients of the first are alive in the forward of the second, when all that one micro-batch saves is too
        assert memory_timeline(traced).peak_bytes > memory_timeline(one).peak_bytes


class TestOptimizerState:
    def test_the_first_step_makes_it(self) -> None:
        first, steady = step(optimizer="adam", first_step=True), step(optimizer="adam")
        assert of_role(first, "optimizer state", born=True) == 2 * 4 * PARAMETERS
        assert of_role(steady, "optimizer state", born=False) == 2 * 4 * PARAMETERS
        momentum = step(optimizer_options={"momentum": 0.9}, first_step=True)
        assert of_role(momentum, "optimizer state", born=True) == 4 * PARAMETERS
        assert "aten.clone" in [o.operator for o in momentum.of_phase(OPTIMIZER)]

    def test_step_counters_stay_on_the_host_beside_cuda(self) -> None:
        # four parameters, a float32 counter each
        assert of_role(step(optimizer="adam"), HOST) == 4 * 4
        assert of_role(step(optimizer="adam", optimizer_options={"fused": True}), HOST) == 0
        assert of_role(step(optimizer="adam", target="cpu"), "optimizer state") == 2 * 4 * PARAMETERS + 4 * 4
        cuda, cpu = (
            memory_timeline(step(optimizer="adam", optimizer_options={"foreach": True}, target=t))
            for t in ("cuda", "cpu")
        )
        assert cpu.live_bytes[0] - cuda.live_bytes[0] == 16
        assert not any(tensor.role == HOST for tensor in cuda.peak_tensors())

    @pytest.mark.parametrize(
        ("target", "options", "operator"),
        [
            ("cuda", {}, "aten._foreach_add_"),
            ("cpu", {}, "aten.add_"),
            ("cuda", {"foreach": False}, "aten.add_"),
            ("cpu", {"foreach": True}, "aten._foreach_add_"),
            ("cuda", {"fused": True}, "aten._fused_sgd_"),
            ("cpu", {"fused": True}, "aten._fused_sgd_"),
        ],
    )
    def test_how_it_steps(self, target: str, options: dict[str, Any], operator: str) -> None:
        traced = step(target=target, optimizer_options=options)
        assert {o.operator for o in traced.of_phase(OPTIMIZER)} == {operator}
        own = trace(MLP, SHAPE, train=True, target=target, optimizer=lambda p: torch.optim.SGD(p, **options))
        assert {o.operator for o in own.of_phase(OPTIMIZER)} == {operator}

    @pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}, {"momentum": 0.9}])
    def test_what_a_step_on_lists_makes(self, options: dict[str, float]) -> None:
        # weight decay is added to a copy of every gradient, all of which are alive at once
        traced = step(optimizer_options=options)
        made = [s for s in traced.storages if s.birth >= 0 and traced.operations[s.birth].phase == OPTIMIZER]
        assert sum(s.nbytes for s in made) == (4 * PARAMETERS if "weight_decay" in options else 0)


class TestCheckpoints:
    BLOCKS = nn.Sequential(*(nn.Sequential(nn.Linear(10, 10), nn.Tanh(), nn.Linear(10, 10)) for _ in range(3)))

    def traced(self, *names: str) -> Trace:
        return trace(self.BLOCKS, SHAPE, train=True, loss="sum", checkpoint=names)

    def test_recomputed_operations_stand_in_the_backward_and_in_their_layer(self) -> None:
        plain, saving = self.traced(), self.traced("1")

        def products(traced: Trace, phase: str) -> list[str]:
            return [o.layer for o in traced.of_phase(phase) if o.operator == "aten.addmm"]

        assert products(saving, FORWARD) == products(plain, FORWARD)
        assert products(plain, BACKWARD) == []
        assert products(saving, BACKWARD) == ["1.0"]  # the second layer's output is needed by nobody
        recomputed = [o for o in saving.of_phase(BACKWARD) if o.operator == "aten.tanh"]
        assert [o.layer for o in recomputed] == ["1.1"]
        assert saving.storages[recomputed[0].outputs[0].storage].role == "activation"

    def test_a_block_saves_its_input_alone(self) -> None:
        plain, saving = (memory_timeline(self.traced(*names)) for names in ((), ("1",)))
        # of each block: its input, and tanh's output, which the second layer has for its input; 4 x 10 float32 each
        assert plain.saved_by_layer == {f"{i}.{j}": 160 for i in range(3) for j in (0, 1)}
        assert saving.saved_by_layer == {"0.0": 160, "0.1": 160, "1": 160, "2.0": 160, "2.1": 160}
        assert plain.saved_bytes - saving.saved_bytes == 160

    def test_patterns(self) -> None:
        every = self.traced("*")
        assert memory_timeline(every).saved_by_layer == {"0": 160, "1": 160, "2": 160}
        assert every.operations == self.traced("0", "1", "2").operations == self.traced("0", "*").operations
        with pytest.raises(InputError, match="no module"):
            self.traced("*.*.*")

    def test_the_gradients_are_the_same(self) -> None:
        plain, saving = self.traced(), self.traced("*")
        assert of_role(plain, "gradient") == of_role(saving, "gradient") == 4 * 6 * 110
