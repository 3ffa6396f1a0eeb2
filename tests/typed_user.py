"""What a user writes, for mypy alone: each type is the class, and a wrong call is an error (or its ignore is unused).

`make test` checks it with the package; pytest does not run it.
"""

from typing import assert_type

from matplotlib.axes import Axes
from torch import nn

import costmodel as cm

trace = cm.trace(nn.Linear(4, 4), (8, 4), train=True)
assert_type(trace, cm.Trace)
costs = cm.count(trace)
assert_type(costs, cm.Costs)
assert_type(costs.total.macs, int)
device = cm.device("h200")
assert_type(device, cm.Device)
prediction = cm.predict(costs, device)
assert_type(prediction, cm.Prediction)
assert_type(prediction.bound_seconds, float)
assert_type(cm.plot.roofline(prediction), Axes)
memory = cm.memory_timeline(trace)
assert_type(memory, cm.MemoryTimeline)
assert_type(memory.peak_bytes, int)
assert_type(cm.evaluate(trace, "edge-npu"), cm.Evaluation)
assert_type(cm.networks.find("vgg16"), cm.Network)
assert_type(cm.validate(cm.networks.find("vgg16")), cm.Validation)


@cm.rule("mylib.scale", kind="elementwise")
def scale(op: cm.Operation) -> cm.Work:
    """One multiplication for each element."""
    return cm.Work(vector_flops=op.outputs[0].numel)


cm.trace(nn.Linear(4, 4), (8, 4), channels_last="yes")  # type: ignore[arg-type]
cm.predict(trace, device)  # type: ignore[arg-type]
cm.predict(costs, 600)  # type: ignore[arg-type]
cm.count(costs)  # type: ignore[arg-type]
cm.vgg()  # type: ignore[attr-defined]
