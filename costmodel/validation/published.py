"""Our counts against published numbers, to the digit that is printed: what torchvision publishes, and the VGG paper.

torchvision's numbers hold for its models as built with their weights, which is how `costmodel.networks` builds them:
GoogLeNet without its auxiliary classifiers, segmentation models with theirs, detection models with frozen norms (their
scale and shift are no parameters), vision transformers at the size of their weights. Its multiply-accumulates hold for
one input size, so an entry for another size is not compared; what image a detection model was run on is not said, so
only its parameters are.
"""

from __future__ import annotations

from costmodel.cost import Costs
from costmodel.graph import FORWARD
from costmodel.peers.published import Published, published
from costmodel.validation.rows import TOTAL, ComparisonRow, compare

VGG_PAPER = "Simonyan and Zisserman, arXiv:1409.1556, table 2"
VGG_PAPER_MILLIONS = {"vgg11": 133, "vgg13": 133, "vgg16": 138, "vgg19": 144}
"""Parameters in millions of configurations A, B, D and E, with 1000 classes on 3 x 224 x 224 images."""

_PREFIX = "torchvision:"


def published_rows(name: str, costs: Costs) -> tuple[list[ComparisonRow], list[str]]:
    """Rows for the numbers that hold for this network on these inputs, and notes on those that do not.

    Both are empty if the network is not torchvision's.
    """
    rows: list[ComparisonRow] = []
    notes: list[str] = []
    if not name.startswith(_PREFIX):
        return rows, notes
    base = name.removeprefix(_PREFIX)
    for entry in published(base):
        if _holds(entry, costs):
            rows.append(compare(entry.source, "", TOTAL, "parameters", costs.parameters, entry.parameters, {}))
        if entry.sizes is None:
            notes.append(f"{entry.source}: MACs not compared, the image that they were counted on is not published")
        elif _holds(entry, costs):
            rows.append(_macs(entry, costs.phase(FORWARD).total.macs))
        else:
            sizes = ", ".join("x".join(map(str, size)) for size in entry.sizes)
            notes.append(f"{entry.source} not compared: it holds for one input of {sizes} and {entry.classes} classes")
    if base in VGG_PAPER_MILLIONS and costs.trace.outputs[0].shape[-1] == 1000:
        millions = VGG_PAPER_MILLIONS[base] * 10**6
        rounding = {"printed in millions": round(costs.parameters, -6) - costs.parameters}
        rows.append(compare(VGG_PAPER, "", TOTAL, "parameters", costs.parameters, millions, rounding))
    return rows, notes


def _holds(entry: Published, costs: Costs) -> bool:
    """Whether the entry speaks of one sample of these sizes and as many classes."""
    if entry.sizes is None:
        return True
    fed = tuple(tensor.shape for tensor in costs.trace.inputs)
    same_classes = entry.classes is None or costs.trace.outputs[0].shape[1] == entry.classes
    return same_classes and fed == tuple((1, *sizes) for sizes in entry.sizes)


def _macs(entry: Published, macs: int) -> ComparisonRow:
    """The multiply-accumulates; what three decimals of a billion leave away is expected."""
    rounding = round(round(macs / 10**9, 3) * 10**9) - macs
    theirs = round(entry.gigamacs * 10**9)
    expected = {"printed in billions with three decimals": rounding}
    return compare(entry.source, FORWARD, TOTAL, "macs", macs, theirs, expected)
