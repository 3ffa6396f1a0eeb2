"""Anybody's networks, by import path and by file, hostile ones too."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from costmodel import networks
from costmodel.errors import InputError
from costmodel.tracer import Shape, trace

GOOD = """
from __future__ import annotations
from dataclasses import dataclass
import torch
from torch import nn

@dataclass
class Settings:
    width: int = 8

class Net(nn.Module):
    input_shape = (1, 8, 8)
    def __init__(self, num_classes: int = 4) -> None:
        super().__init__()
        self.body = nn.Linear(64, Settings().width)
        self.head = nn.Linear(Settings().width, num_classes)
    def forward(self, x):
        return self.head(self.body(x.flatten(1)).relu())

def make(classes=4):
    print("building")
    return Net(classes)

def plain():
    net = nn.Linear(3, 2)
    net.example_input = torch.zeros(5, 3)
    return net

def tokens():
    net = nn.Embedding(10, 3)
    net.example_input = torch.zeros(5, 7, dtype=torch.int64)
    return net

def silent():
    return nn.Linear(3, 2)

def tied():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    net.register_buffer("count", torch.tensor(0))
    return net

def reads_values():
    rates = torch.zeros(3) + 0.5
    return nn.Sequential(*(nn.Dropout(rate.item()) for rate in rates), nn.Linear(3, 2))

instance = nn.Linear(3, 2)
number = 3

def fails():
    raise ValueError("no luck\\nsecond line")

def leaves():
    raise SystemExit(3)

def needs(width, depth=1):
    return nn.Linear(width, width)

def needs_classes(num_classes):
    return nn.Linear(3, num_classes)

def wrong():
    return [1]

class Space:
    Net = Net
"""


@pytest.fixture
def good(tmp_path: Path) -> str:
    path = tmp_path / "nets" / "mine.py"
    path.parent.mkdir()
    path.write_text(GOOD)
    return str(path)


@pytest.fixture(autouse=True)
def as_it_was() -> object:
    """The import path and the modules are what they were, whatever a test loads."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    assert sys.path == path
    assert not {name for name in set(sys.modules) - modules if "costmodel_file" in name or "neighbour" in name}


@pytest.mark.parametrize("name", ["Net", "make", "Space.Net"])
def test_classes_functions_and_dotted_names(good: str, name: str) -> None:
    network = networks.find(f"{good}:{name}")
    assert network.name == f"{good}:{name}"
    assert network.inputs(2) == (Shape((2, 1, 8, 8)),)
    assert all(parameter.is_meta for parameter in network.module.parameters())
    assert trace(network.module, network.inputs(2)).outputs[0].shape == (2, 4)
    assert networks.find(f"{good}:{name}", classes=9).module.head.out_features == 9


def test_example_inputs(good: str) -> None:
    assert networks.find(f"{good}:plain").inputs(2) == (Shape((2, 3)),)
    assert networks.find(f"{good}:tokens").inputs(2) == (Shape((2, 7), "int64"),)


def test_without_an_example_the_input_must_be_given(good: str) -> None:
    network = networks.find(f"{good}:silent")
    assert network.input_shapes == ()
    with pytest.raises(InputError, match="give --input CxHxW"):
        network.inputs()
    assert network.inputs(4, ["3"]) == (Shape((4, 3)),)
    assert networks.find(f"{good}:silent", shapes=["3"]).inputs() == (Shape((1, 3)),)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((3, 8, 8), (Shape((3, 8, 8)),)),
        ([3, 8, 8], (Shape((3, 8, 8)),)),
        ("3x8x8", (Shape((3, 8, 8)),)),
        ("4:int64", (Shape((4,), "int64"),)),
        (Shape((2,)), (Shape((2,)),)),
        ([(3,), (4,)], (Shape((3,)), Shape((4,)))),
        ([torch.zeros(1, 2), "5"], (Shape((2,)), Shape((5,)))),
        ((3, 0), ()),
        ((), ()),
        (torch.tensor(1.0), ()),
        ("big", ()),
        (None, ()),
        (7, ()),
        ([(3,), None], ()),
    ],
)
def test_what_a_network_may_declare(monkeypatch: pytest.MonkeyPatch, value: object, expected: object) -> None:
    monkeypatch.setattr(nn.Identity, "input_shape", value, raising=False)
    assert networks.find("torch.nn:Identity").input_shapes == expected


def test_a_declaration_that_raises_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Identity, "input_shape", property(lambda self: 1 // 0), raising=False)
    assert networks.find("torch.nn:Identity").input_shapes == ()


def test_an_instance_is_taken_as_it_is(good: str) -> None:
    network = networks.find(f"{good}:instance")
    assert not any(parameter.is_meta for parameter in network.module.parameters())
    with pytest.raises(InputError, match="already built"):
        networks.find(f"{good}:instance", classes=3)


def test_shared_tensors_stay_shared_on_the_meta_device(good: str) -> None:
    network = networks.find(f"{good}:tied").module
    assert network[0].weight is network[1].weight
    assert network.count.is_meta


def test_a_constructor_that_reads_values_is_built_for_real(good: str) -> None:
    network = networks.find(f"{good}:reads_values").module
    assert [layer.p for layer in network[:3]] == [0.5, 0.5, 0.5]


def test_real_weights_come_from_a_fixed_seed(good: str) -> None:
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    first, second = (networks.find(f"{good}:silent", real=True).module for _ in range(2))
    assert torch.equal(first.weight, second.weight) and not first.weight.is_meta
    assert torch.equal(torch.rand(2), expected)


def test_what_it_prints_goes_to_stderr(good: str, capsys: pytest.CaptureFixture[str]) -> None:
    networks.find(f"{good}:make")
    out, err = capsys.readouterr()
    assert out == "" and "building" in err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Nett", "Did you mean Net?"),
        ("number", "is an int: neither"),
        ("fails", "raised ValueError: no luck."),
        ("leaves", "raised SystemExit: 3."),
        ("needs", "needs width: name a function"),
        ("needs_classes", "needs num_classes: give --classes N"),
        ("wrong", "returned a list, not a torch.nn.Module"),
        ("", "both parts are needed"),
        ("Net.nothing", "has no 'Net.nothing'"),
    ],
)
def test_each_step_that_fails_says_so(good: str, name: str, said: str) -> None:
    with pytest.raises(InputError) as raised:
        networks.find(f"{good}:{name}")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_classes_must_be_wanted(good: str) -> None:
    with pytest.raises(InputError, match="leave --classes out"):
        networks.find(f"{good}:silent", classes=3)
    assert networks.find(f"{good}:needs_classes", classes=3).module.out_features == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"def broken(:\n", "is not Python in line 1"),
        (b"import torch\n\nraise RuntimeError('early')\n", "failed in line 3: RuntimeError: early"),
        (b"import sys\nsys.exit()\n", "failed in line 2: SystemExit"),
        (b"import no_such_module_anywhere\n", "No module named 'no_such_module_anywhere'"),
        (b"\xff\xfe\x00\x01", "is not Python"),
        (b"x = 1\x00\n", "is not Python"),
        (b"# coding: no-such-coding\n", "is not Python"),
        (b"(" * 5000, "is not Python"),
        (b"", "has no 'Net'"),
        (b"def __getattr__(name):\n    raise ValueError('gone')\n", "reading 'Net'"),
        (b"def __getattr__(name):\n    raise AttributeError(name)\n", "has no 'Net'"),
        (b"import sys\nsys.path.clear(); sys.modules['planted.x'] = None\n", "has no 'Net'"),
        (b"def Net():\n    return Net()\n", "raised RecursionError"),
    ],
)
def test_hostile_files(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "hostile.py"
    path.write_bytes(content)
    with pytest.raises(InputError) as raised:
        networks.find(f"{path}:Net")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "__pycache__").exists()
    sys.modules.pop("planted.x", None)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "folder.py").mkdir()
    for place in (tmp_path / "folder.py", tmp_path / "missing.py", "missing/too.py", "no\0file.py"):
        with pytest.raises(InputError, match="there is no file"):
            networks.find(f"{place}:Net")


def test_neighbours_of_one_name_do_not_meet(tmp_path: Path) -> None:
    for folder, width in (("a", 3), ("b", 5)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "neighbour.py").write_text(f"WIDTH = {width}\n")
        (tmp_path / folder / "net.py").write_text(
            "from torch import nn\nimport neighbour\ndef make():\n    return nn.Linear(neighbour.WIDTH, 1)\n"
        )
    made = [networks.find(f"{tmp_path / folder / 'net.py'}:make").module.in_features for folder in "ab"]
    assert made == [3, 5]


def test_main_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(
        "from torch import nn\n"
        "def make():\n    return nn.Linear(2, 2)\n"
        "if __name__ == '__main__':\n    raise SystemExit(1)\n"
    )
    assert networks.find(f"{path}:make").module.in_features == 2


def test_import_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = networks.find("torchvision.models:squeezenet1_1")
    assert trace(network.module, network.inputs(1, ["3x224x224"])).outputs[0].shape == (1, 1000)
    package = tmp_path / "somebodys_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "net.py").write_text("from torch import nn\ndef make():\n    return nn.Linear(2, 2)\n")
    (package / "dependent.py").write_text("import no_such_module_anywhere\n")
    (package / "broken.py").write_text("1 +\n")
    monkeypatch.chdir(tmp_path)
    try:
        assert networks.find("somebodys_package.net:make").module.in_features == 2
        for place, said in {
            "somebodys_package.nett": "there is no module 'somebodys_package.nett'",
            "somebodys_package.dependent": "failed: ModuleNotFoundError: No module named 'no_such_module_anywhere'",
            "somebodys_package.broken": "failed: SyntaxError",
            "nobodys_package.net": "there is no module 'nobodys_package'",
            "..net": "is not the name of a module",
            "a b": "is not the name of a module",
        }.items():
            with pytest.raises(InputError) as raised:
                networks.find(f"{place}:make")
            assert said in str(raised.value)
    finally:
        for name in [name for name in sys.modules if name.startswith("somebodys_package")]:
            del sys.modules[name]
