"""The numbers of the answers to the book's questions, and of the opening, derived again.

From the shapes of AlexNet and VGG-11 (`by_hand`), from torch's own MemTracker, or by plain loops over a trace.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache

import pytest
from by_hand import ALEXNET, LENET, VGG11, VGG16, Row, rows
from holding import hold

import costmodel as cm
from costmodel import device, networks
from costmodel.book.chapters import arithmetic, bandwidth, blocks, comparison, footprint, heads, opening, questions
from costmodel.book.study import Study
from costmodel.peers.mem_tracker import tracked_peak

H200 = device("h200")
SGD = {"optimizer": "sgd", "optimizer_options": {"momentum": 0.9, "weight_decay": 5e-4}}


@cache
def study(name: str) -> Study:
    return Study.of(networks.find(name))


def total(found: Iterable[Row], value: Callable[[Row], float], kind: str = "") -> float:
    """The sum over the layers, or over those of a kind."""
    return sum(value(row) for row in found if kind in ("", row.kind))


def parameters(row: Row) -> int:
    return row.parameters


def flops(row: Row) -> int:
    return row.flops


def bound(row: Row) -> float:
    return row.bound_seconds()


def peak(name: str, batch: int) -> int:
    """The peak of a training step, by torch's MemTracker."""
    network = networks.find(name)
    return tracked_peak(network.module, network.inputs(batch), **SGD)


ONE, MANY, VGG = rows(ALEXNET), rows(ALEXNET, 64), rows(VGG11)


def test_opening() -> None:
    peaks = peak("alexnet", 64), peak("vgg11", 64)
    once = [row for row in ONE if row.kind == "fc"]
    assert all(row.moved_bytes / 4.8e12 > row.compute_seconds(494.7e12, 66.9e12) for row in once)  # memory binds them
    hold(
        opening.opening([study("alexnet"), study("vgg11")], H200).numbers,
        {
            "networks": ["AlexNet", "VGG-11"],
            "network": "AlexNet (book)",
            "dtype": "float32",
            "parameters": 46_764_746,
            "flops": total(ONE, flops),
            "fc_parameters_share": 43_040_778 / 46_764_746,
            "conv_flops_share": total(ONE, flops, "conv") / total(ONE, flops),
            "device": "NVIDIA H200 SXM",
            "batch": 64,
            "bound_seconds": total(ONE, bound),
            "batch_bound_seconds": total(MANY, bound),
            "fc_time_share": total(ONE, bound, "fc") / total(ONE, bound),
            "batch_fc_time_share": total(MANY, bound, "fc") / total(MANY, bound),
            "fc_once": True,
            "peak_bytes": peaks[0],
            "peak_ratio": peaks[0] / 187_058_984,
            "heaviest": {
                "network": "VGG-11 (book)",
                "parameters_ratio": 128_806_154 / 46_764_746,
                "flops_ratio": total(VGG, flops) / total(ONE, flops),
                "peak_ratio": peaks[1] / peaks[0],
            },
            "versions": study("alexnet").trace().versions,
        },
    )


def test_a_cause_is_said_only_where_it_is_one() -> None:
    """ResNet-18 has 1,000 x 512 weights in one layer, 1.7 % of its time; LeNet stands alone."""
    found = opening.opening([study("torchvision:resnet18")], H200).numbers
    assert found.fc_time_share < 0.05
    assert found.heaviest is None
    compute = opening.opening([study("torchvision:vit_b_16")], H200).numbers
    assert not compute.fc_once  # arithmetic binds most of its products already at batch 1


def test_questions() -> None:
    hold(
        questions.questions([study("alexnet"), study("vgg11"), study("torchvision:resnet18")], H200).numbers,
        {
            "networks": ["AlexNet (book)", "VGG-11 (book)"],
            "network": "AlexNet (book)",
            "image": "1×224×224",
            "dtype": "float32",
            "device": "NVIDIA H200 SXM",
        },
    )


def test_comparison() -> None:
    first, other = total(ONE, flops), total(VGG, flops)
    hold(
        comparison.numbers(study("alexnet"), [study("lenet"), study("vgg11")]),
        {
            "networks": ["AlexNet (book)", "LeNet-5 (book)", "VGG-11 (book)"],
            "first": "AlexNet (book)",
            "heaviest": "VGG-11 (book)",
            "parameters_ratio": 128_806_154 / 46_764_746,
            "flops_ratio": other / first,
            "first_parameters": 46_764_746,
            "heaviest_parameters": 128_806_154,
            "first_flops": first,
            "heaviest_flops": other,
            "more_flops": other - first,
            "conv_share": (total(VGG, flops, "conv") - total(ONE, flops, "conv")) / (other - first),
            "first_flops_per_parameter": first / 46_764_746,
            "heaviest_flops_per_parameter": other / 128_806_154,
        },
    )
    assert comparison.numbers(study("vgg11"), [study("alexnet")]).conv_share is None


def test_arithmetic() -> None:
    whole = total(ONE, flops)
    hold(
        arithmetic.numbers(study("alexnet")),
        {
            "network": "AlexNet (book)",
            "flops": whole,
            "macs": 938_146_176,
            "conv_share": total(ONE, flops, "conv") / whole,
            "fc_share": total(ONE, flops, "fc") / whole,
            "rest_share": (whole - total(ONE, flops, "conv") - total(ONE, flops, "fc")) / whole,
            "largest": [
                {
                    "layer": "net.3", "what": "conv 5×5, 96 → 256", "formula": "26·26·5²·96·256",
                    "macs": 26 * 26 * 25 * 96 * 256, "vector_flops": 26 * 26 * 256,
                    "flops": 2 * 415_334_400 + 173_056,
                },
                {
                    "layer": "net.14", "what": "FC 6400 → 4096", "formula": "6,400·4,096",
                    "macs": 6400 * 4096, "vector_flops": 4096, "flops": 2 * 26_214_400 + 4096,
                },
            ],
            "busiest": {"layer": "net.0", "macs_per_weight": 54 * 54},
            "idlest": {"layer": "net.14", "macs_per_weight": 1},
        },
    )  # fmt: skip


def test_footprint() -> None:
    outputs = total(ONE, lambda row: row.write_bytes)
    steps = []
    for batch in (1, 64):
        trace = cm.trace(networks.find("alexnet").module, (batch, 1, 224, 224), train=True, **SGD)
        # by a plain walk: what is alive while each operation runs
        moments = [Counter[str]() for _ in trace.operations]
        for storage in trace.storages:
            last = len(moments) - 1 if storage.death is None else storage.death
            for index in range(max(storage.birth, 0), last + 1):
                moments[index][storage.role] += storage.nbytes
        index = max(range(len(moments)), key=lambda i: sum(moments[i].values()))
        held = moments[index]
        whole = sum(held.values())
        if batch == 64:  # at batch 1 the optimizer is the peak, which a CPU's takes one parameter after another
            assert whole == peak("alexnet", batch)
        state = held["parameter"] + held["gradient"] + held["optimizer state"]
        others = {
            role: nbytes for role, nbytes in held.items() if role not in ("parameter", "gradient", "optimizer state")
        }
        role = max(others, key=lambda name: others[name])
        steps.append(
            {
                "batch": batch, "phase": trace.operations[index].phase, "state_share": state / whole,
                "next_role": role, "next_share": others[role] / whole,
            }
        )  # fmt: skip
    hold(
        footprint.numbers(study("alexnet")),
        {
            "network": "AlexNet (book)",
            "dtype": "float32",
            "holder": "fully connected layers",
            "holder_bytes": 4 * 43_040_778,
            "holder_share": 43_040_778 / 46_764_746,
            "parameter_bytes": 4 * 46_764_746,
            "output_bytes": outputs,
            "conv_output_bytes": 4 * (96 * 54**2 + 256 * 26**2 + (384 + 384 + 256) * 12**2),
            "fc_output_bytes": 4 * (4096 + 4096 + 10),
            "parameters_ratio": 187_058_984 / outputs,
            "crossing_batch": next(batch for batch in range(1, 100) if batch * outputs > 187_058_984),
            "largest": [
                {
                    "layer": "net.8", "what": "conv 3×3, 384 → 384", "formula": "(3²·384+1)·384",
                    "parameters": 1_327_488, "parameter_bytes": 4 * 1_327_488,
                    "output_sizes": [384, 12, 12], "outputs": 55_296, "output_bytes": 4 * 55_296,
                },
                {
                    "layer": "net.14", "what": "FC 6400 → 4096", "formula": "(6,400+1)·4,096",
                    "parameters": 26_218_496, "parameter_bytes": 4 * 26_218_496,
                    "output_sizes": [4096], "outputs": 4096, "output_bytes": 4 * 4096,
                },
            ],
            "steps": steps,
        },
    )  # fmt: skip


def test_bandwidth() -> None:
    def at(found: list[Row]) -> dict[str, float]:
        bounds = [row.bound_seconds() for row in found]
        faster = [row.bound_seconds(bandwidth=9.6e12) for row in found]
        bound_by_memory = [
            row.bound_seconds() for row in found if row.moved_bytes / 4.8e12 >= row.compute_seconds(494.7e12, 66.9e12)
        ]
        return {
            "memory_share": math.fsum(bound_by_memory) / math.fsum(bounds),
            "faster_ratio": math.fsum(bounds) / math.fsum(faster),
            "fc_share": total(found, bound, "fc") / math.fsum(bounds),
        }

    def step(batch: int, train: bool) -> tuple[int, int, float, float, float]:
        """FLOPs, bytes, and the bound: in all, of what memory binds, and of the optimizer."""
        options = SGD if train else {}
        trace = cm.trace(networks.find("alexnet").module, (batch, 1, 224, 224), train=train, **options)
        work = moved = 0
        bounds, memory, optimizer = [], [], []
        for row in cm.predict(cm.count(trace), H200).operations:
            work += row.cost.flops
            moved += row.cost.read_bytes + row.cost.write_bytes
            bounds.append(max(row.compute_seconds, row.memory_seconds))
            memory.append(bounds[-1] if row.memory_seconds >= row.compute_seconds else 0.0)
            optimizer.append(bounds[-1] if row.operation.phase == "optimizer" else 0.0)
        return work, moved, *(math.fsum(times) for times in (bounds, memory, optimizer))  # type: ignore[return-value]

    inference, training, alone = step(64, False), step(64, True), step(1, True)
    hold(
        bandwidth.numbers(study("alexnet"), H200),
        {
            "network": "AlexNet (book)",
            "device": "NVIDIA H200 SXM",
            "batch": 64,
            "one": at(ONE),
            "many": at(MANY),
            "bandwidth_bytes_per_second": 4.8e12,
            "ridges": [
                {"path": "FP32", "flops_per_second": 66.9e12, "flops_per_byte": 66.9 / 4.8},
                {"path": "TF32 tensor", "flops_per_second": 494.7e12, "flops_per_byte": 494.7 / 4.8},
            ],
            "half": "float16",
            "half_paths": [{"path": "FP16 tensor", "flops_per_second": 989.4e12, "flops_per_byte": 989.4 / 4.8}],
            "cache": {  # an L2 of 50 MiB; 100 MiB and 64 MiB of weights do not fit
                "cache_bytes": 50 * 2**20,
                "parameter_bytes": 187_058_984,
                "larger": [
                    {"layer": "net.14", "parameter_bytes": 4 * 6401 * 4096},
                    {"layer": "net.17", "parameter_bytes": 4 * 4097 * 4096},
                ],
                "others": 6,
                "others_bytes": 187_058_984 - 4 * 6401 * 4096 - 4 * 4097 * 4096,
                "all_fit": False,
            },
            "launches": {
                "operations": 18,
                "bound_seconds": total(ONE, bound),
                "even_seconds": total(ONE, bound) / 18,
                "launch_seconds": None,
                "total_seconds": None,
                "bound_ratio": None,
            },
            "training": {
                "flops_ratio": training[0] / inference[0],
                "bytes_ratio": training[1] / inference[1],
                "bound_ratio": training[2] / inference[2],
                "memory_share": training[3] / training[2],
                "optimizer_share": training[4] / training[2],
                "optimizer_alone_share": alone[4] / alone[2],
            },
        },
    )
    assert 2.8 < training[0] / inference[0] < 3.1  # two more products for each, but for the first layer's input


def test_heads() -> None:
    pooled = [*ALEXNET[:13], ("avg", 5, 5), ("fc", 10)]  # the mean of each of 256 maps of 5 x 5, and one layer
    one, many = rows(pooled), rows(pooled, 64)
    peaks = peak("alexnet", 64), peak("alexnet-gap", 64)
    hold(
        heads.numbers(study("alexnet"), [study("alexnet-gap"), study("alexnet-width1024")], H200, (("t", "AlexNet"),)),
        {
            "network": "AlexNet (book)",
            "head": "global average pooling",
            "device": "NVIDIA H200 SXM",
            "batch": 64,
            "parameters": 3_723_968 + 2570,
            "own_parameters": 46_764_746,
            "parameters_saved_share": 1 - 3_726_538 / 46_764_746,
            "flops": total(one, flops),
            "own_flops": total(ONE, flops),
            "flops_saved_share": 1 - total(one, flops) / total(ONE, flops),
            "speedup_ratio": total(ONE, bound) / total(one, bound),
            "batch_speedup_ratio": total(MANY, bound) / total(many, bound),
            "peak_bytes": peaks[1],
            "own_peak_bytes": peaks[0],
            "tables": [["t", "AlexNet"]],
        },
    )


def test_hidden_layers() -> None:
    # five blocks of 1, 1, 2, 2 and 2 convolutions, and three fully connected layers beside them
    sizes = [(1, 64, 224), (64, 128, 112), (128, 256, 56), (256, 256, 56), (256, 512, 28), (512, 512, 28)]
    sizes += [(512, 512, 14)] * 2
    places = ["net.0.0", "net.1.0", "net.2.0", "net.2.2", "net.3.0", "net.3.2", "net.4.0", "net.4.2"]
    hold(
        blocks.hidden_numbers(study("vgg11")),
        {
            "network": "VGG-11 (book)",
            "layers": 11,
            "rows": 8,
            "blocks": 5,
            "shown": 3,
            "inside": [
                {"layer": place, "what": f"conv 3×3, {channels} → {filters}", "image": f"{filters}×{size}×{size}"}
                for place, (channels, filters, size) in zip(places, sizes, strict=True)
            ],
            "hidden": 3,
        },
    )


def test_depth() -> None:
    deep = rows(VGG16)
    # five more 3x3 convolutions: 64→64, 128→128, 256→256, 512→512, 512→512
    more = sum((9 * c + 1) * c for c in (64, 128, 256, 512, 512))
    hold(
        blocks.depth_numbers([study("vgg11"), study("vgg16")], H200),
        {
            "networks": [
                {"network": "VGG-11 (book)", "stages": [[1, 64], [1, 128], [2, 256], [2, 512], [2, 512]]},
                {"network": "VGG-16 (book)", "stages": [[2, 64], [2, 128], [3, 256], [3, 512], [3, 512]]},
            ],
            "device": "NVIDIA H200 SXM",
            "batch": 64,
            "deep_convolutions": 13,
            "shallow_convolutions": 8,
            "more_convolutions": 5,
            "more_parameters": more,
            "more_parameters_share": more / 128_806_154,
            "more_flops": total(deep, flops) - total(VGG, flops),
            "more_flops_share": total(deep, flops) / total(VGG, flops) - 1,
        },
    )


def test_no_chapter_is_without_derived_numbers() -> None:
    """Every chapter with numbers is held by a test of this kind: its module is imported by one of these files."""
    from importlib import resources
    from pathlib import Path

    chapters = resources.files("costmodel.book") / "chapters"
    written = {file.name.removesuffix(".py") for file in chapters.iterdir() if file.name.endswith(".py")}
    have = {name for name in written if "Numbers:" in (chapters / f"{name}.py").read_text(encoding="utf-8")}
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_book_numbers_*.py"))
    assert have
    for name in have:
        assert name in tests, f"no test derives the numbers of {name}"
    with pytest.raises(AssertionError, match="not derived"):
        hold({"a": 1, "b": 2}, {"a": 1})
    with pytest.raises(AssertionError, match="b"):
        hold({"a": 1, "b": 2.0}, {"a": 1, "b": 2.001})


def test_the_table_of_the_comparison() -> None:
    """AlexNet, LeNet and VGG-11 by hand: parameters and FLOPs by part, and as multiples of the first network's."""
    chapter = comparison.comparison(study("alexnet"), [study("lenet"), study("vgg11")])
    (table,) = chapter.tables.values()
    parts = []
    for layers, shape in ((ALEXNET, (1, 224, 224)), (LENET, (1, 28, 28)), (VGG11, (1, 224, 224))):
        found = rows(layers, 1, shape)
        conv, fc = ([row for row in found if row.kind == kind] for kind in ("conv", "fc"))
        rest = [row for row in found if row.kind not in ("conv", "fc")]
        held = [sum(row.parameters for row in part) for part in (conv, fc)]
        parts.append(held + [sum(row.flops for row in part) for part in (conv, fc, rest)])
    first = parts[0]
    for record, (conv, fc, conv_flops, fc_flops, rest_flops) in zip(table.data.records(), parts, strict=True):
        assert (record["conv_parameters"], record["fc_parameters"], record["parameters"]) == (conv, fc, conv + fc)
        flops = conv_flops + fc_flops + rest_flops
        assert (record["conv_flops"], record["fc_flops"], record["other_flops"]) == (conv_flops, fc_flops, rest_flops)
        assert record["flops"] == flops
        assert record["parameters_ratio"] == pytest.approx((conv + fc) / sum(first[:2]))
        assert record["flops_ratio"] == pytest.approx(flops / sum(first[2:]))
