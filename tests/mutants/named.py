"""Put each mutant of named.toml into a copy of the tree, and see whether the test beside it fails.

python tests/mutants/named.py [words of what it is]
"""

# ruff: noqa: T201

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Named(NamedTuple):
    """A mutant, and the test that it must fail."""

    what: str
    file: str
    old: str
    new: str
    test: str


def named() -> list[Named]:
    """Those of named.toml."""
    text = Path(__file__).with_name("named.toml").read_text(encoding="utf-8")
    return [Named(**each) for each in tomllib.loads(text)["mutants"]]


def fails(mutant: Named, tree: Path) -> str:
    """The first test that fails in a tree with the mutant; empty if none does."""
    path = tree / mutant.file
    before = path.read_text(encoding="utf-8")
    path.write_text(before.replace(mutant.old, mutant.new, 1), encoding="utf-8")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-x", "-rf", "--no-header", mutant.test],
            cwd=tree,
            env=os.environ | {"PYTHONPATH": str(tree)},
            capture_output=True,
            text=True,
        )
    finally:
        path.write_text(before, encoding="utf-8")
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0].split()[1] if done.returncode == 1 and failed else ""


def main(words: list[str]) -> int:
    """Print a line for each; 1 if one survives."""
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        kept = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, kept.split("\0")):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name, follow_symlinks=False)
        for mutant in named():
            if all(word in mutant.what for word in words):
                killed_by = fails(mutant, tree)
                survivors += not killed_by
                print(f"{'killed by ' + killed_by if killed_by else 'SURVIVES'}: {mutant.what}", flush=True)
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
