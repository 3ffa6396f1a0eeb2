"""Live bytes by hand."""

from __future__ import annotations

from torch import nn

from costmodel.memory import remember
from costmodel.tracer import trace


def test_inference_by_hand() -> None:
    # Two layers 10 -> 20 -> 5 on a batch of 4, float32.
    memory = remember(trace(nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5)), (4, 10)))
    parameters = 4 * (10 * 20 + 20 + 20 * 5 + 5)
    given, hidden, out = 4 * 4 * 10, 4 * 4 * 20, 4 * 4 * 5
    # input and parameters stay; the first activation dies once ReLU has made the second
    assert memory.by_role["parameter"] == parameters
    assert memory.by_role["input"] == given
    assert memory.peak_bytes == parameters + given + 2 * hidden
    assert memory.peak_operation.operator == "aten.relu"
    assert memory.live_bytes[-1] == parameters + given + hidden + out


def test_in_place_saves_an_activation() -> None:
    memory = remember(trace(nn.Sequential(nn.Linear(10, 20), nn.ReLU(inplace=True), nn.Linear(20, 5)), (4, 10)))
    assert memory.peak_bytes == 4 * (325 + 4 * 10 + 4 * 20 + 4 * 5)
    assert memory.peak_operation.layer == "2"


def test_holders_add_up_to_the_peak() -> None:
    memory = remember(
        trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(288, 10)), (2, 3, 8, 8), train=True)
    )
    holders = memory.holders()
    assert sum(holder.nbytes for holder in holders) == memory.peak_bytes == sum(memory.by_role.values())
    assert holders[0].nbytes == max(holder.nbytes for holder in holders) == 4 * 2880
    assert len(memory.to_frame()) == len(memory.trace.operations)


def test_a_notebook_shows_the_largest_holders() -> None:
    memory = remember(trace(nn.Sequential(*(nn.Linear(5, 5) for _ in range(20))), (1, 5), name="<b>"))
    html = memory._repr_html_()
    assert "&lt;b&gt;: peak of" in html
    assert "more" in html
