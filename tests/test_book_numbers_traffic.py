"""The numbers of the chapter on DRAM traffic, derived again from AlexNet's shapes and from sums of single layers."""

from __future__ import annotations

import math

import pytest
from by_hand import ALEXNET, rows
from holding import hold

import costmodel as cm
from costmodel import networks
from costmodel.book.chapters.traffic import fusion_numbers, numbers
from costmodel.book.study import Study
from costmodel.chip.dram import traffic_curves
from costmodel.chip.lowering import lower

WORD = 2  # bytes
KIB = 1024
FULL = ((6400, 4096), (4096, 4096), (4096, 10))


@pytest.fixture(scope="module")
def alexnet() -> Study:
    return Study.of(networks.find("alexnet"))


def test_traffic_of_alexnet(alexnet: Study) -> None:
    weights = sum(into * out for into, out in FULL)
    once = WORD * (weights + sum(into + out for into, out in FULL))
    # a batch's traffic, layer by layer, from the public function, in place of the chapter's curves
    batch = cm.traffic(alexnet.trace(64), 108 * KIB)
    full = sum(row.dram_bytes for row in batch.rows if row.kind == "linear")
    # every buffer that could be the knee, one after another: the first behind which no doubling saves a tenth
    curves = traffic_curves(lower(alexnet.costs())).only("conv")
    sizes = [int(size) for size in curves.steps[0]]
    sizes = sorted({*sizes, *(size for half in sizes if (size := -(-half // 2)) >= sizes[0])})
    moved = {size: curves.dram_bytes(size) for size in [*sizes, *(2 * size for size in sizes)]}
    pays = [moved[2 * size] < 0.9 * moved[size] for size in sizes]
    knee = next(size for index, size in enumerate(sizes) if not any(pays[index:]))
    # each convolution touches its input, of which a stride may leave a margin, its weights and its outputs once
    least = sum(row.compulsory_bytes for row in cm.traffic(alexnet.trace(), 108 * KIB).rows if row.kind == "conv")
    by_hand = sum(
        row.parameters - row.outputs[0] + row.read_bytes // 4 - row.parameters + math.prod(row.outputs)
        for row in rows(ALEXNET)
        if row.kind == "conv"
    )
    assert WORD * by_hand * 0.99 < least <= WORD * by_hand  # 224 is not 4·53 + 11 - 2: one margin is never read
    found = numbers([alexnet], [alexnet])
    hold(
        found,
        {
            # Horowitz, ISSCC 2014: 1.3 to 2.6 nJ for 64 bits; 0.2 and 3.1 pJ for multipliers of 8 and 32 bits
            "word_joules": (1.3e-9 + 2.6e-9) / 2 / 4,
            "multiply_joules": math.sqrt(0.2e-12 * 3.1e-12),
            "word_multiplications": 600.0,
            "eyeriss_bytes": 110_592,
            "batch": 64,
            "networks": ["AlexNet (book)"],
            "convolutions": [
                {
                    "network": "AlexNet (book)",
                    "knee_buffer_bytes": knee,
                    "knee_bytes": moved[knee],
                    "compulsory_ratio": moved[knee] / least,
                }
            ],
            "fully_connected": [
                {
                    "network": "AlexNet (book)",
                    "least": True,
                    "compulsory_bytes": once,
                    "single_bytes": once,
                    "batched_bytes": full / 64,
                }
            ],
            "weights": [{"network": "AlexNet (book)", "count": 43_032_576, "bytes": 86_065_152}],
        },
    )
    assert found.word_joules / found.multiply_joules == pytest.approx(619, abs=1)
    assert weights == 43_032_576
    assert 1 / 64 < full / 64 / once < 1.1 / 64  # the weights are shared by the batch, inputs and outputs are not


def test_fusing_alexnet(alexnet: Study) -> None:
    found = fusion_numbers([alexnet])
    single = cm.traffic(alexnet.trace(), [108 * KIB, 512 * KIB, 4096 * KIB])
    # a ReLU or a pool by itself reads its input and writes its output
    taken = dict.fromkeys(("act", "max"), 0)
    before = 224 * 224
    for row in rows(ALEXNET):
        if row.kind in taken:
            taken[row.kind] += WORD * (before + math.prod(row.outputs))
        before = math.prod(row.outputs)
    apart = sum(taken.values())
    weights = WORD * sum(row.parameters - row.outputs[0] for row in rows(ALEXNET) if row.parameters)
    assert [network.network for network in found.networks] == ["AlexNet (book)"]
    network = found.networks[0]
    assert (found.middle_bytes, found.last_bytes) == (512 * KIB, 4096 * KIB)
    assert network.layers == 5 + 3 + 3  # convolutions, fully connected layers, pools; a ReLU goes with its layer
    assert network.middle is network.behind[1]
    assert [fused.buffer_bytes for fused in network.behind] == [108 * KIB, 512 * KIB, 4096 * KIB]
    for fused, total in zip(network.behind, single.totals, strict=True):
        assert fused.separate_bytes == total.dram_bytes + apart
        groups = cm.fuse(alexnet.trace(), fused.buffer_bytes).groups
        assert fused.dram_bytes == sum(g.input_bytes + g.weight_bytes + g.output_bytes for g in groups)
        assert fused.weight_share == sum(g.weight_bytes for g in groups) / fused.dram_bytes
        # what only the groups' last layers write leaves the chip; a single contraction may be pooled at once
        assert fused.on_chip == sum(len(g.layers) - 1 for g in groups if not g.schedule.endswith("pooled apart"))
    # with 4 MiB all layers run as one: the weights and what is needed of the image come in, ten logits go out; the
    # first pool's 26 rows need 25·2 + 3 = 53 of 54, those 52·4 + 11 = 219 rows of the image with a row of padding
    whole = network.behind[2]
    assert whole.on_chip == network.layers - 1
    assert whole.dram_bytes == weights + WORD * (218 * 218 + 10)
    assert whole.weight_share == pytest.approx(weights / whole.dram_bytes)
