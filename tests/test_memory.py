"""Live bytes by hand."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from torch import nn

from costmodel.errors import InputError
from costmodel.graph import HOST
from costmodel.memory import memory_timeline
from costmodel.tracer import trace


def test_inference_by_hand() -> None:
    # Two layers 10 -> 20 -> 5 on a batch of 4, float32.
    memory = memory_timeline(trace(nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5)), (4, 10)))
    parameters = 4 * (10 * 20 + 20 + 20 * 5 + 5)
    given, hidden, out = 4 * 4 * 10, 4 * 4 * 20, 4 * 4 * 5
    # input and parameters stay; the first activation dies once ReLU has made the second
    assert memory.by_role["parameter"] == parameters
    assert memory.by_role["input"] == given
    assert memory.peak_bytes == parameters + given + 2 * hidden
    assert memory.peak_operation.operator == "aten.relu"
    assert memory.live_bytes[-1] == parameters + given + hidden + out


def test_in_place_saves_an_activation() -> None:
    memory = memory_timeline(trace(nn.Sequential(nn.Linear(10, 20), nn.ReLU(inplace=True), nn.Linear(20, 5)), (4, 10)))
    assert memory.peak_bytes == 4 * (325 + 4 * 10 + 4 * 20 + 4 * 5)
    assert memory.peak_operation.layer == "2"


class TestSaved:
    """What the backward needs, by hand: a batch of 2, 3 channels of 8 x 8, float32."""

    IMAGE, MAPS = 4 * 2 * 3 * 64, 4 * 2 * 4 * 64

    def saved(self, *layers: nn.Module, **options: object) -> Mapping[str, int]:
        model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *layers)
        memory = memory_timeline(trace(model, (2, 3, 8, 8), train=True, loss="sum", **options))
        assert memory.saved_bytes == sum(memory.saved_by_layer.values())
        return memory.saved_by_layer

    def test_a_convolution_keeps_its_input_and_relu_its_output(self) -> None:
        assert self.saved() == {"0": self.IMAGE}
        assert self.saved(nn.ReLU()) == {"0": self.IMAGE, "1": self.MAPS}
        # the next convolution keeps its input, which is the same tensor: nothing is added
        assert self.saved(nn.ReLU(), nn.Conv2d(4, 4, 1)) == {"0": self.IMAGE, "1": self.MAPS}

    def test_in_place_relu_saves_nothing_in_training(self) -> None:
        # the convolution's output, over which it is written, is needed by nobody either way
        assert self.saved(nn.ReLU(inplace=True)) == self.saved(nn.ReLU())
        assert self.saved(nn.SiLU()) == {"0": self.IMAGE, "1": self.MAPS}

    def test_max_pool_keeps_its_input_and_int64_indices(self) -> None:
        indices = 8 * 2 * 4 * 16
        assert self.saved(nn.MaxPool2d(2)) == {"0": self.IMAGE, "1": self.MAPS + indices}

    def test_dropouts_mask_is_bool_on_cuda_and_of_the_networks_type_on_a_cpu(self) -> None:
        assert self.saved(nn.Dropout()) == {"0": self.IMAGE, "1": self.MAPS // 4}
        assert self.saved(nn.Dropout(), target="cpu") == {"0": self.IMAGE, "1": self.MAPS}

    def test_half_the_bytes_in_mixed_precision_and_the_weights_cast(self) -> None:
        weight = 2 * 4 * 27
        assert self.saved(nn.ReLU(), autocast="bfloat16") == {"0": self.IMAGE // 2 + weight, "1": self.MAPS // 2}

    def test_rows_name_every_layer_that_saves(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1))
        memory = memory_timeline(trace(model, (1, 3, 5, 5), train=True, loss="sum"))
        found = {(row.name, row.role): row.layers for row in memory.saved()}
        assert found == {
            ("input", "input"): ("0",),
            ("0.weight", "parameter"): ("0",),
            ("2.weight", "parameter"): ("2",),
            ("1", "activation"): ("1", "2"),
        }

    def test_inference_saves_nothing(self) -> None:
        assert memory_timeline(trace(nn.Linear(3, 4), (2, 3))).saved_bytes == 0


def test_activations_are_what_the_forward_leaves_to_the_backward() -> None:
    memory = memory_timeline(trace(nn.Sequential(nn.Linear(10, 20), nn.Tanh(), nn.Linear(20, 5)), (4, 10), train=True))
    first_backward = next(i for i, o in enumerate(memory.trace.operations) if o.phase == "backward")
    # tanh's output, the logarithm of the softmax (4 x 5), the loss and the sum of its weights
    assert memory.timeline["activation"][first_backward] == 4 * (80 + 20 + 1 + 1)
    assert memory.timeline["activation"][-1] == 4  # the loss


def test_holders_add_up_to_the_peak() -> None:
    memory = memory_timeline(
        trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(288, 10)), (2, 3, 8, 8), train=True)
    )
    peak_tensors = memory.peak_tensors()
    assert sum(tensor.nbytes for tensor in peak_tensors) == memory.peak_bytes == sum(memory.by_role.values())
    assert peak_tensors[0].nbytes == max(tensor.nbytes for tensor in peak_tensors) == 4 * 2880
    assert len(memory.to_frame("operation")) == len(memory.trace.operations)


def test_sums_by_hand() -> None:
    # 10 -> 20 -> 5 on a batch of 4 in inference; the peak is in the ReLU.
    network = nn.Sequential()
    network.add_module("body", nn.Sequential(nn.Linear(10, 20), nn.ReLU()))
    network.add_module("head", nn.Linear(20, 5))
    memory = memory_timeline(trace(network, (4, 10)))
    weights, hidden, head, given = 4 * 220, 4 * 4 * 20, 4 * 105, 4 * 4 * 10
    layers = memory.by("layer")
    assert layers == {"body.0": weights + hidden, "body.1": hidden, "head": head, "(input)": given}
    assert list(layers) == ["body.0", "head", "body.1", "(input)"]
    assert memory.by("block") == {"body": weights + 2 * hidden, "": head, "(input)": given}
    assert memory.by("block", depth=1) == {"body": weights + 2 * hidden, "head": head, "(input)": given}
    assert memory.by("role") == {"parameter": weights + head, "activation": 2 * hidden, "input": given}
    assert memory.to_frame("layer")["held_bytes"].sum() == memory.peak_bytes
    assert "body.0" in memory.table("layer")._repr_html_()
    with pytest.raises(InputError, match="use one of layer, role, block"):
        memory.by("kind")


def test_tables_by_hand() -> None:
    # As above, but named; 2100 bytes: weights of 800, 80, 400 and 20, 160 of input, and 320 twice where the ReLU runs.
    layers = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5))
    memory = memory_timeline(trace(layers, (4, 10), name="net"))
    table = memory.table(most=2)
    assert [(row["tensor"], row["held_bytes"], row["held_share"]) for row in table.records()] == [
        ("0.weight", 800, pytest.approx(800 / 2100)), ("2.weight", 400, pytest.approx(400 / 2100)),
        ("5 more", 900, pytest.approx(900 / 2100)),
    ]  # fmt: skip
    assert table.total is not None
    assert (table.total["held_bytes"], table.total["held_share"]) == (2100, pytest.approx(1))
    assert len(memory.table()) == 7 and memory.table(most=7).records() == memory.table().records()
    assert table.title == "net: peak of 2.05 KiB in aten.relu of 1 (forward)"
    assert memory.notes == (
        "Peak of 2.05 KiB in aten.relu of 1 (forward).", "By role: parameter 1.27 KiB, input 160 B, activation 640 B."
    )  # fmt: skip
    timeline = memory.table("operation").records()
    assert [row["operator"] for row in timeline if row["activation"] == 640] == ["aten.relu"]
    assert [row["activation"] for row in timeline if row["operator"] == "aten.addmm"] == [320, 320 + 80]
    assert {(row["parameter"], row["input"]) for row in timeline} == {(1300, 160)}


def test_a_parameters_gradient_and_state_belong_to_its_layer() -> None:
    layer = nn.Sequential(nn.Linear(100, 100, bias=False))
    memory = memory_timeline(trace(layer, (1, 100), train=True, loss="sum", optimizer="adam"))
    # at the optimizer: weights, gradient, two states; and a temporary of the optimizer's own
    assert memory.by("layer")["0"] == 4 * 40_000
    assert memory.by("layer")["(optimizer)"] == memory.by_role["temporary"]


def test_what_stands_in_the_hosts_memory_is_not_held_on_the_device() -> None:
    # Adam counts each parameter's steps on the host, in a float32 that lives on: 2 of 4 bytes that no holder is
    memory = memory_timeline(trace(nn.Linear(100, 50), (1, 100), train=True, loss="sum", optimizer="adam"))
    on_host = [storage for storage in memory.trace.storages if storage.role == HOST]
    assert [storage.nbytes for storage in on_host] == [4, 4]
    assert all(storage.death is None for storage in on_host)
    peak_tensors = memory.peak_tensors()
    assert sum(tensor.nbytes for tensor in peak_tensors) == memory.peak_bytes
    assert {tensor.role for tensor in peak_tensors if tensor.nbytes == 4} <= {"activation", "gradient"}  # the loss


def test_a_notebook_shows_the_largest_holders() -> None:
    memory = memory_timeline(trace(nn.Sequential(*(nn.Linear(5, 5) for _ in range(20))), (1, 5), name="<b>"))
    html = memory._repr_html_()
    assert "&lt;b&gt;: peak of" in html
    assert "more" in html
