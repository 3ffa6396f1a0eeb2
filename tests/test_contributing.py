"""The worked examples of CONTRIBUTING.md, each in a copy of the code: its files, its changes, its commands."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECTIONS = {
    section.partition("\n")[0]: re.findall(
        r'^```(\w+)(?: title="(.*?)")?\n(.*?)^```$', section, re.DOTALL | re.MULTILINE
    )
    for section in (ROOT / "CONTRIBUTING.md").read_text().split("\n## ")
}
EXAMPLES = {title: blocks for title, blocks in SECTIONS.items() if any(name for _, name, _ in blocks)}


def changed(text: str, diff: str) -> str:
    """A file's text after a change: each hunk, of which "..." stands between two, fits in one place."""
    for hunk in diff.split("...\n"):
        lines = hunk.splitlines(keepends=True)
        before = "".join(line[1:] or "\n" for line in lines if line[0] != "+")
        assert text.count(before) == 1, f"it is there {text.count(before)} times:\n{before}"
        text = text.replace(before, "".join(line[1:] for line in lines if line[0] != "-"))
    return text


def shown(command: str, folder: Path) -> str:
    """What a command prints, with its exit code 0."""
    program, *arguments = shlex.split(command)
    run = subprocess.run(
        [sys.executable, "-m", program, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
    return run.stdout


def test_there_are_the_examples() -> None:
    assert len(EXAMPLES) == 6


@pytest.mark.slow
@pytest.mark.parametrize("title", EXAMPLES)
def test_an_example_works(title: str, tmp_path: Path) -> None:
    for name in ("costmodel", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    checked = 0
    for language, name, text in EXAMPLES[title]:
        path = tmp_path / name
        if language == "console":
            output = ""
            for line in text.splitlines():
                if line.startswith("$ "):
                    output = shown(line[2:], tmp_path)
                else:
                    assert line in output
                    checked += 1
        elif language == "diff":
            path.write_text(changed(path.read_text(), text))
        else:
            assert not path.exists()
            path.write_text(text)
    assert checked
