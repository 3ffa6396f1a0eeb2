"""Networks by name: what is found, what it is fed, and that nothing is allocated, downloaded or disturbed."""

from __future__ import annotations

import pytest
import torch
from torchvision import models

from costmodel import networks
from costmodel.errors import InputError
from costmodel.tracer import Shape, trace

OWN = {
    "lenet": (1, 28, 28),
    "lenet-relu": (1, 28, 28),
    "alexnet": (1, 224, 224),
    "alexnet-fashion": (1, 224, 224),
    "alexnet28": (1, 28, 28),
    "alexnet-grouped": (3, 227, 227),
    "vgg11": (1, 224, 224),
    "vgg11-slim": (1, 224, 224),
    "vgg13": (1, 224, 224),
    "vgg16": (1, 224, 224),
    "vgg19": (1, 224, 224),
    "vgg28": (1, 28, 28),
}
TORCHVISION = [name for name in models.list_models() if not name.startswith("quantized_")]
SIZES = {  # what the weights' documentation prints as crop_size, where it is not 224 (torchvision 0.21 to 0.29)
    "efficientnet_b1": 240, "efficientnet_b2": 288, "efficientnet_b3": 300, "efficientnet_b4": 380,
    "efficientnet_b5": 456, "efficientnet_b6": 528, "efficientnet_b7": 600, "efficientnet_v2_s": 384,
    "efficientnet_v2_m": 480, "efficientnet_v2_l": 480, "inception_v3": 299, "regnet_y_128gf": 384,
    "swin_v2_t": 256, "swin_v2_s": 256, "swin_v2_b": 256, "vit_h_14": 518,
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever tries to download weights fails."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a download was tried")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)


@pytest.mark.parametrize("name", OWN)
def test_own_networks_are_found_and_run(name: str) -> None:
    network = networks.find(name)
    assert network.name == name and not network.needs_run
    assert network.input_shapes == (Shape(OWN[name]),)
    traced = trace(network.module, network.inputs(2))
    assert traced.outputs[0].shape == (2, 1000 if name == "alexnet-grouped" else 10)


@pytest.mark.parametrize("base", TORCHVISION)
def test_every_torchvision_model_is_found_without_weights(base: str) -> None:
    """Against the number of parameters that torchvision publishes with the weights, for every model."""
    network = networks.find(f"torchvision:{base}")
    tensors = [*network.module.parameters(), *network.module.buffers()]
    assert all(tensor.is_meta for tensor in tensors)
    published = models.get_model_weights(base).DEFAULT.meta["num_params"]
    assert sum(parameter.numel() for parameter in network.module.parameters()) == published
    assert network.needs_run is (base in models.list_models(module=models.detection))
    if network.needs_run:  # images of the size that the model would scale them to
        resize = network.module.transform
        size = resize.fixed_size[0] if resize.fixed_size else resize.min_size[-1]
        assert network.inputs(2) == ([Shape((3, size, size)), Shape((3, size, size))],)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [("lenet", ["28x28"]), ("torchvision:resnet18", ["3x64x64"] * 2), ("torchvision:r3d_18", ["3x64x64"])],
)
def test_inputs_of_another_form_are_refused(name: str, shapes: list[str]) -> None:
    with pytest.raises(InputError, match=f"{name} does not take .*in the form of "):
        networks.find(name, shapes=shapes)


def test_the_words_of_the_book_and_of_torchvision_are_understood() -> None:
    assert trace(networks.alexnet(num_classes=7), (1, 1, 224, 224)).outputs[0].shape == (1, 7)


def test_classification_inputs() -> None:
    listed = {i.name: (i.input, i.classes) for i in networks.names() if i.group == "torchvision classification"}
    sizes = {base: SIZES.get(base, 224) for base in models.list_models(module=models)}
    assert len(sizes) >= 80
    assert listed == {f"torchvision:{base}": (f"3x{size}x{size}", 1000) for base, size in sizes.items()}


@pytest.mark.parametrize(
    ("base", "inputs"),
    [
        ("vit_h_14", [(3, 518, 518)]),
        ("fcn_resnet50", [(3, 520, 520)]),
        ("r3d_18", [(3, 16, 112, 112)]),
        ("mvit_v2_s", [(3, 16, 224, 224)]),
        ("raft_small", [(3, 512, 512), (3, 512, 512)]),
        ("ssd300_vgg16", [(3, 300, 300)]),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", [(3, 320, 320)]),
        ("maskrcnn_resnet50_fpn", [(3, 800, 800)]),
    ],
)
def test_other_inputs(base: str, inputs: list[tuple[int, ...]]) -> None:
    network = networks.find(f"torchvision:{base}")
    assert network.input_shapes == tuple(Shape(sizes) for sizes in inputs)


def test_a_detection_model_runs_for_real() -> None:
    network = networks.find("torchvision:ssdlite320_mobilenet_v3_large", real=True, classes=3)
    detections = network.module.eval()([torch.rand(3, 320, 320)])
    assert set(detections[0]) == {"boxes", "scores", "labels"}


@pytest.mark.parametrize(("base", "gmacs"), [("raft_small", 47.655), ("r3d_18", 40.697), ("fcn_resnet50", 152.717)])
def test_inputs_are_those_of_torchvisions_operation_counts(base: str, gmacs: float) -> None:
    """The published GFLOPS (torchvision's MACs) follow at our sizes, and at no other."""
    from torch.utils.flop_counter import FlopCounterMode

    assert models.get_model_weights(base).DEFAULT.meta["_ops"] == gmacs
    network = networks.find(f"torchvision:{base}")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.module.eval()(*(torch.empty(shape.sizes, device="meta") for shape in network.inputs()))
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, abs=0.0006)


@pytest.mark.parametrize("base", ["googlenet", "inception_v3"])
def test_auxiliary_heads_are_those_of_the_trained_network(base: str) -> None:
    network = networks.find(f"torchvision:{base}").module
    assert network.transform_input is True
    assert network.aux_logits is (base == "inception_v3")


def test_names_and_case() -> None:
    assert networks.find(" VGG11_Slim ").name == "vgg11-slim"
    assert networks.find("Torchvision:VGG16").name == "torchvision:vgg16"
    titles = {name: networks.find(name).title for name in ("alexnet", "vgg16-gap", "torchvision:vgg16")}
    assert titles == {
        "alexnet": "AlexNet (book)",
        "vgg16-gap": "VGG-16 (book), global average pooling",
        "torchvision:vgg16": "VGG-16 (torchvision)",
    }


def test_every_listed_name_is_distinct_and_complete() -> None:
    listed = networks.names()
    assert len({info.name for info in listed}) == len(listed)
    assert {f"torchvision:{base}" for base in TORCHVISION} <= {info.name for info in listed}
    assert {info.name for info in listed if info.group == "book"} == set(OWN)
    assert {info.group for info in listed if info.name.startswith("torchvision:")} == {
        *(f"torchvision {kind}" for kind in ("classification", "segmentation", "detection", "video", "optical flow")),
        "torchvision variants",
    }
    by_name = {info.name: info for info in listed}
    assert by_name["torchvision:raft_large"].input == "3x512x512, 3x512x512"
    assert by_name["torchvision:raft_large"].classes is None
    assert by_name["torchvision:fcn_resnet50"].classes == 21


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("resnet50", "torchvision:resnet50"),
        ("alexnt", "did you mean alexnet"),
        ("vgg16-gab", "Did you mean gap"),
        ("torchvision:resnet5", "torchvision:resnet50"),
        ("torchvision:", "costmodel models"),
        ("torchvision:quantized_resnet50", "take torchvision:resnet50"),
        ("torchvision:resnet50-gap", "only AlexNet and VGG"),
        ("torchvision:vgg16-width0", "from 1 to 4096"),
        ("vgg16-", "did you mean vgg16"),
        ("torchvision:vgg16-", "did you mean torchvision:vgg16"),
        ("zzzzzz", "costmodel models"),
        ("", "costmodel models"),
        ("nets/mine.py", "write nets/mine.py:NAME"),
        ("package.module", "write package.module:NAME"),
        ("lenet-gap", "there is no network"),  # LeNet's FC layers are not what makes it dear
    ],
)
def test_unknown_names_answer_with_the_nearest(spec: str, said: str) -> None:
    with pytest.raises(InputError) as raised:
        networks.find(spec)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_plain_name_that_torchvision_has_leads_to_it_first() -> None:
    with pytest.raises(InputError, match=r"did you mean torchvision:resnet50,"):
        networks.find("resnet50")


@pytest.mark.parametrize("name", ["alexnet", "alexnet-gap", "torchvision:vgg11", "torchvision:vgg11-gap"])
def test_classes(name: str) -> None:
    network = networks.find(name, classes=7)
    assert trace(network.module, network.inputs()).outputs[0].shape == (1, 7)


@pytest.mark.parametrize("classes", [0, -1, 2.0, True, "10"])
def test_bad_classes(classes: object) -> None:
    with pytest.raises(InputError, match="classes"):
        networks.find("lenet", classes=classes)  # type: ignore[arg-type]


def test_optical_flow_has_no_classes() -> None:
    with pytest.raises(InputError, match="no classes"):
        networks.find("torchvision:raft_small", classes=3)


@pytest.mark.parametrize("batch", [0, -3, 1.0, True, None])
def test_bad_batches(batch: object) -> None:
    with pytest.raises(InputError, match="batch"):
        networks.find("lenet").inputs(batch)  # type: ignore[arg-type]


def test_inputs_of_another_size() -> None:
    network = networks.find("vgg11")
    assert network.inputs(2, ["3x64x64"]) == (Shape((2, 3, 64, 64)),)
    assert network.inputs(2, [Shape((3, 64, 64))]) == (Shape((2, 3, 64, 64)),)
    with pytest.raises(InputError, match="cannot read the input"):
        network.inputs(1, ["big"])
    assert networks.find("vgg11", shapes=["3x64x64"]).inputs() == (Shape((1, 3, 64, 64)),)


@pytest.mark.parametrize("name", ["lenet", "torchvision:squeezenet1_1", "torchvision:alexnet-gap"])
def test_real_networks_are_reproducible_and_disturb_nothing(name: str) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second = networks.find(name, real=True).module, networks.find(name, real=True).module
    networks.find(name)
    assert torch.equal(torch.rand(3), expected)
    pairs = list(zip(first.parameters(), second.parameters(), strict=True))
    assert pairs and all(torch.equal(a, b) for a, b in pairs)
    assert not any(parameter.is_meta for parameter in first.parameters())
    assert first.training


def test_real_weights_for_another_input() -> None:
    network = networks.find("lenet", real=True, shapes=["3x28x28"])
    assert network.module.net[0].weight.shape == (6, 3, 5, 5)
    with pytest.raises(InputError, match="does not take an input of 3x4x4"):
        networks.find("lenet", real=True, shapes=["3x4x4"])


def test_real_weights_are_initialized() -> None:
    """The mode that skips initialization must be off: batch norms start at weight 1 and variance 1."""
    norm = networks.find("torchvision:resnet18", real=True).module.bn1
    assert torch.equal(norm.weight, torch.ones(64)) and torch.equal(norm.running_var, torch.ones(64))
    assert torch.ones(2).sum() == 2  # and outside nothing is on the meta device
