"""The numbers of the chapter on the batch, derived again from the shapes of AlexNet's layers and an H200's peaks."""

from __future__ import annotations

import pytest
from by_hand import ALEXNET, bound_seconds, rows
from holding import hold

from costmodel import device, networks
from costmodel.book.chapters.batch import Launches, batch, numbers, smallest_batch
from costmodel.book.study import Study

H200 = device("h200")


def test_alexnet_on_an_h200() -> None:
    one, two = rows(ALEXNET, 1), rows(ALEXNET, 2)
    parameters = 4 * sum(row.parameters for row in one)  # 4 · 46,764,746
    first = sum(row.moved_bytes for row in one)
    image = sum(row.moved_bytes for row in two) - first
    # beyond some batch every layer grows by as much: what 1000 more images take at a million is the limit
    million = 1_000_000
    limit = 1000 / (bound_seconds(ALEXNET, million + 1000) - bound_seconds(ALEXNET, million))
    fast = [batch / bound_seconds(ALEXNET, batch) >= 0.9 * limit for batch in range(1, 200)]
    # the first fully connected layer: B·(2·6400·4096 + 4096) / 66.9e12 s = B·0.78376 µs against (26,218,496 + B·10,496)
    # · 4 / 4.8e12 s = 21.849 µs + B·0.00875 µs: equal at B = 28.2
    tenth = next(batch for batch in range(1, 1000) if parameters < 0.1 * (parameters + batch * image))
    found = numbers(Study.of(networks.find("alexnet")), H200)
    hold(
        found,
        {
            "network": "AlexNet (book)",
            "device": "NVIDIA H200 SXM",
            "images_per_second": 1 / bound_seconds(ALEXNET),
            "limit_images_per_second": limit,
            "limit_ratio": limit * bound_seconds(ALEXNET),
            "near_share": 0.9,
            "near_batch": 1 + fast.index(True),
            "launches": {
                "operations": 5 + 3 + 7 + 3,  # convolutions, fully connected layers, ReLUs and pools
                "bound_seconds": bound_seconds(ALEXNET),
                "even_seconds": bound_seconds(ALEXNET) / 18,
                "launch_seconds": None,
                "total_seconds": None,
                "bound_ratio": None,
            },
            "fc_layer": "net.14",
            "fc_compute_batch": 29,
            "first_bytes": first,
            "parameter_bytes": 187_058_984,
            "fixed_bytes": parameters,
            "image_bytes": image,
            "tenth_batch": tenth,
            "first_share": parameters / first,
            "tenth_share": parameters / (parameters + tenth * image),
        },
    )
    assert all(fast[found.near_batch - 1 :])
    assert (found.near_batch, tenth) == (18, 145)


def test_a_known_launch_time() -> None:
    # LeNet: 2 convolutions, 4 sigmoids, 2 pools and 3 fully connected layers; the flatten is a view
    found = numbers(Study.of(networks.find("lenet")), H200.replace(launch_seconds=5e-6)).launches
    assert found == Launches(
        operations=11,
        bound_seconds=found.bound_seconds,
        even_seconds=found.bound_seconds / 11,
        launch_seconds=5e-6,
        total_seconds=pytest.approx(55e-6),
        bound_ratio=pytest.approx(55e-6 / found.bound_seconds),
    )


@pytest.mark.parametrize(
    ("name", "fixed", "image"),
    # MiB; ViT's from what 4 and 8 images move, (3359.4 - 1844.8) / 4 an image; a line through 1 and 2 images is wrong
    [("vit_b_16", 330.2, 378.65), ("swin_t", 122.0, None), ("swin_v2_t", 162.4, None), ("maxvit_t", 126.1, None)],
)
def test_one_image_may_run_other_operators(name: str, fixed: float, image: float | None) -> None:
    study = Study.of(networks.find(f"torchvision:{name}"))
    found = numbers(study, H200)
    assert found.fixed_bytes is not None
    assert found.image_bytes is not None
    assert found.fixed_bytes / 2**20 == pytest.approx(fixed, abs=0.05)
    assert image is None or found.image_bytes / 2**20 == pytest.approx(image, abs=0.05)
    assert study.costs(8).total.moved_bytes == found.fixed_bytes + 8 * found.image_bytes
    assert found.first_bytes != found.fixed_bytes + found.image_bytes


def test_smallest_batch() -> None:
    for threshold in (1, 2, 3, 28, 64, 65, 1000):
        assert smallest_batch(lambda batch, threshold=threshold: batch >= threshold) == threshold
    assert smallest_batch(lambda batch: False, limit=64) is None
    assert smallest_batch(lambda batch: batch == 1 or batch > 5) == 6  # what one image does may not last


def test_the_table_of_batches() -> None:
    """AlexNet at every batch: rate and share of the limit from the bound by hand, weights in traffic from the bytes."""
    chapter = batch([Study.of(networks.find("alexnet"))], H200)
    (table,) = chapter.tables.values()
    one, two = rows(ALEXNET, 1), rows(ALEXNET, 2)
    parameters = 4 * sum(row.parameters for row in one)
    image = sum(row.moved_bytes for row in two) - sum(row.moved_bytes for row in one)
    for row in table.data.records():
        bound = bound_seconds(ALEXNET, row["batch"])
        assert row["bound_seconds"] == pytest.approx(bound)
        assert row["images_per_second"] == int(row["batch"] / bound)
        assert row["limit_share"] == pytest.approx(row["batch"] / bound / chapter.numbers.limit_images_per_second)
        assert row["fixed_share"] == pytest.approx(parameters / (parameters + row["batch"] * image))
    assert [row["batch"] for row in table.data.records()] == [2**power for power in range(10)]
