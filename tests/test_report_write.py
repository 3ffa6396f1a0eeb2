"""The whole report: which files there are, that a second run changes none, and that nothing of the user's is lost."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from costmodel.book.write import MODELS, write_report
from costmodel.errors import InputError

NETWORK = """
from torch import nn

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.add_module("<b>conv</b>", nn.Conv2d(3, 8, 3))
        self.add_module("a|b`c`", nn.Linear(8, 10))
        self.add_module("</script><script>alert(1)</script>", nn.Linear(10, 10))
        self.add_module("x" * 200, nn.Linear(10, 10))

    def forward(self, x):
        conv, first, second, last = self.children()
        return last(second(first(conv(x).mean((2, 3)))))

def hostile(): return Network()
hostile.input_shape = (3, 16, 16)

def empty(): return nn.Flatten()
empty.input_shape = (3, 16, 16)
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def lenet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path], list[tuple[str, int, int]]]:
    """A report on LeNet: its folder, the paths that were returned, and what was told on the way."""
    folder = tmp_path_factory.mktemp("lenet")
    told: list[tuple[str, int, int]] = []
    paths = write_report(["lenet"], folder, devices=["h200"], progress=lambda *step: told.append(step))
    return folder, paths, told


def test_files(lenet: tuple[Path, list[Path], object]) -> None:
    folder, paths, _ = lenet
    names = {str(path.relative_to(folder)) for path in paths}
    assert names | {".costmodel.json"} == contents(folder).keys()
    assert {"report.md", "report.html", "tables/networks.csv", "tables/lenet-layers.csv"} <= names
    assert {"figures/roofline-lenet-h200.svg", "figures/roofline-lenet-h200.png"} <= names


def test_every_link_leads_somewhere(lenet: tuple[Path, list[Path], object]) -> None:
    folder, _, _ = lenet
    page, text = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    ids = set(re.findall(r'\bid="([^"]+)"', page))
    assert len(ids) == len(re.findall(r'\bid="', page)), "an id occurs twice"
    for target in re.findall(r'(?:href|xlink:href)="([^"]*)"', page):
        assert target[1:] in ids if target.startswith("#") else (folder / target).is_file(), target
    anchors = set(re.findall(r'<a id="([^"]+)">', text))
    for target in re.findall(r"\]\(([^)]*)\)", text):
        assert target[1:] in anchors if target.startswith("#") else (folder / target).is_file(), target


def test_the_layers_in_the_csv_add_up(lenet: tuple[Path, list[Path], object]) -> None:
    """LeNet-5, by hand: (5²·1+1)·6 + (5²·6+1)·16 + (400+1)·120 + (120+1)·84 + (84+1)·10 = 61,706 parameters."""
    with (lenet[0] / "tables" / "lenet-layers.csv").open(newline="") as file:
        layers = list(csv.DictReader(file))
    assert sum(int(layer["parameters"]) for layer in layers) == 61_706
    # 28²·25·6 + 10²·150·16 + 400·120 + 120·84 + 84·10 multiply-accumulates
    assert sum(int(layer["macs"]) for layer in layers) == 117_600 + 240_000 + 48_000 + 10_080 + 840
    assert [layer["parameter_formula"] for layer in layers if layer["parameter_formula"]] == [
        "(5²·1+1)·6", "(5²·6+1)·16", "(400+1)·120", "(120+1)·84", "(84+1)·10",
    ]  # fmt: skip


def test_progress_goes_up_to_its_end(lenet: tuple[Path, list[Path], list[tuple[str, int, int]]]) -> None:
    steps = [(done, total) for _, done, total in lenet[2]]
    assert steps == sorted(steps)
    assert steps[0][0] == 0
    assert steps[-1][0] == steps[-1][1]


def test_a_second_run_writes_the_same_bytes(lenet: tuple[Path, list[Path], object]) -> None:
    folder, _, _ = lenet
    before = contents(folder)
    write_report(["lenet"], folder, devices=["h200"])
    assert contents(folder) == before


def test_nothing_of_this_machine_or_day_is_in_it(lenet: tuple[Path, list[Path], object]) -> None:
    folder, _, _ = lenet
    for name, content in contents(folder).items():
        assert str(folder).encode() not in content, name
        assert str(Path.cwd()).encode() not in content, name


def test_refuses_the_users_files_before_it_starts(tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text("my own notes")
    with pytest.raises(InputError, match="--force"):
        write_report(["no-such-network"], tmp_path)  # refused before the network is even looked for
    assert contents(tmp_path) == {"report.md": b"my own notes"}


def test_refuses_a_table_of_the_users_before_it_writes(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "networks.csv").write_text("mine")
    with pytest.raises(InputError, match=r"tables/networks\.csv"):
        write_report(["lenet"], tmp_path, devices=["h200"])
    assert contents(tmp_path) == {"tables/networks.csv": b"mine"}


def test_a_folder_under_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="not a folder"):
        write_report(["lenet"], tmp_path / "file" / "reports")


@pytest.mark.parametrize(
    ("models", "devices", "message"),
    [
        (["alexnt"], ["h200"], "alexnet"),
        (["lenet"], ["h2000"], "h200"),
        ([], ["h200"], "at least one network"),
        (["lenet"], [], "at least one network and one device"),
        (["torchvision:ssd300_vgg16"], ["h200"], "without running"),
    ],
)
def test_bad_input_writes_nothing(tmp_path: Path, models: list[str], devices: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_report(models, tmp_path / "reports", devices=devices)
    assert not (tmp_path / "reports").exists()


def test_a_network_that_computes_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NETWORK)
    with pytest.raises(InputError, match="computes nothing"):
        write_report([f"{tmp_path / 'net.py'}:empty"], tmp_path / "reports")
    assert not (tmp_path / "reports").exists()


def test_hostile_names_and_then_fewer_networks(lenet: tuple[Path, list[Path], object], tmp_path: Path) -> None:
    """Names stay text; and without the hostile network the folder is what it would be if it had never been there."""
    (tmp_path / "net.py").write_text(NETWORK)
    folder = tmp_path / "reports"
    write_report([f"{tmp_path / 'net.py'}:hostile", "lenet"], folder, devices=["h200"])
    page, text = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    assert page.count("<script>") == 1
    assert "&lt;b&gt;conv&lt;/b&gt;" in page
    assert "<b>conv" not in page
    assert "&lt;b&gt;conv&lt;/b&gt;" in text
    assert str(tmp_path).encode() not in b"".join(contents(folder).values())  # a user's folders are nobody's business
    assert any(line.startswith(r"| a\|b\`c\` |") for line in text.splitlines())
    write_report(["lenet"], folder, devices=["h200"])
    assert contents(folder) == contents(lenet[0])


def test_the_default_is_the_books_and_torchvisions_form() -> None:
    names = ("alexnet", "vgg11", "vgg16", "vgg19")
    assert (*names, *(f"torchvision:{name}" for name in names)) == MODELS
