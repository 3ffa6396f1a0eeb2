"""The committed report and the golden texts are what the code writes today, byte for byte.

A change of the report is meant, or it is a mistake. Where it is meant, write both again and read the difference:

    make report
    python tests/golden_texts.py
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from golden_texts import GOLDEN, PAIRS, written

from costmodel.book import folder
from costmodel.book.write import write_report

REPORTS = Path(__file__).parents[1] / "reports"


def _needs_versions(found: Mapping[str, str]) -> None:
    """Other versions of torch run other operators, other versions of matplotlib draw other lines."""
    here = folder.versions()
    other = [f"{name} {here[name]}, not {version}" for name, version in found.items() if here[name] != version]
    if other:
        pytest.skip(f"it was written with other versions (here: {'; '.join(other)}): run `make report` and compare")


def _difference(committed: str, now: str) -> str:
    return "\n".join(difflib.unified_diff(committed.splitlines(), now.splitlines(), "committed", "now", n=0))


def test_the_committed_report_is_what_the_code_writes(tmp_path: Path) -> None:
    manifest = json.loads((REPORTS / folder.MANIFEST).read_text())
    _needs_versions(manifest["versions"])
    write_report(folder=tmp_path)
    now = json.loads((tmp_path / folder.MANIFEST).read_text())
    for name in ("report.md", "numbers.json"):
        assert not _difference((REPORTS / name).read_text(), (tmp_path / name).read_text())
    assert now["files"] == manifest["files"]  # the SHA-256 of every page, table and figure
    for name in manifest["files"]:
        assert (REPORTS / name).read_bytes() == (tmp_path / name).read_bytes(), name


@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_the_golden_texts_are_what_the_code_writes(pair: tuple[str, ...]) -> None:
    """Two networks like those of the book, and two that are not: no sentence may hold for the first alone."""
    _needs_versions(json.loads((GOLDEN / "versions.json").read_text()))
    for name, text in written(pair).items():
        assert not _difference((GOLDEN / name).read_text(), text)


@pytest.mark.parametrize("path", [REPORTS / "report.md", *sorted(GOLDEN.glob("*.md"))], ids=lambda path: path.name)
def test_paragraphs_are_whole_sentences(path: Path) -> None:
    """What templates join wrongly: no end, an answer that runs into the text below it, a blank before a comma."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    prose = [line for line in text.splitlines() if line and not line.startswith(("|", "#", "**", "!", "<", "---"))]
    assert len(prose) > 50
    assert not [line for line in prose if not line.rstrip("*").endswith((".", ":", ")"))]
    assert not [line for line in prose if line.startswith(">") and len(line) > 600]
    assert not [line for line in prose if re.search(r" [.,;:!?)](\s|$)|\( |\.\.(\s|$)|\S  \S", line)]
