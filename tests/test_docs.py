"""What the pages for people say is true: their commands are commands, their Python runs, no public name is left out."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from test_architecture import LAYERS

import costmodel
from costmodel.cli.program import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\b[^\n]*\n(.*?)^```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def command_lines() -> list[str]:
    lines = [line for page in PAGES for block in blocks(page, "console") for line in block.splitlines()]
    calls = [call.strip() for line in lines for call in line.removeprefix("$ ").partition(" #")[0].split(";")]
    return sorted({call for call in calls if call.startswith("costmodel ")})


@pytest.mark.parametrize("line", command_lines())
def test_a_command_line_parses(line: str) -> None:
    """click raises for a command or an option that there is not, and for a value that an option cannot have."""
    _, name, *arguments = shlex.split(line)
    program = typer.main.get_command(app)
    command = program.commands[name]
    with command.make_context(name, arguments) as context:
        assert context.params


def test_the_readme_has_its_commands() -> None:
    assert len(command_lines()) > 30


def test_the_python_of_the_readme_runs() -> None:
    """Its comments say what the results are: a training step's 32 images, a faster memory."""
    (code,) = blocks(ROOT / "README.md", "python")
    names: dict[str, object] = {}
    exec(code, names)
    assert names["trace"].inputs[0].shape == (32, 1, 224, 224)
    assert names["faster"].speedup_over(names["prediction"]) > 1


def test_the_reference_has_every_public_name() -> None:
    pages = [page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md")]
    described = re.findall(r"^::: costmodel\.(\w+)$", "\n".join(pages), flags=re.MULTILINE)
    assert sorted(described) == sorted({*costmodel.__all__} - {"plot", "remember"} | {"plots"})


def test_the_house_in_the_readme_is_that_of_the_layers() -> None:
    """Floors from the top, as the imports run."""
    house = re.search(r"^    costmodel/\n((?:      .*\n)+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert house
    names = " ".join(line[6:].partition("  ")[0] for line in house[1].splitlines())
    rooms = [name.removesuffix("/").removesuffix(".py") for name in names.split()]
    floors = [next(level for level, floor in enumerate(LAYERS) if room in floor) for room in rooms]
    assert floors == sorted(floors, reverse=True)
    assert sorted(rooms) == sorted(set.union(*LAYERS) - {"__main__"})
