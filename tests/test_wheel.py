"""The wheel, installed where there is no checkout: nothing that a user needs is left behind in the repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, as a build leaves folders behind, and takes what an earlier one left."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in ("costmodel", "reports/measurements"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, source / folder, symlinks=True, ignore=ignored)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    pip("wheel", source, "--no-build-isolation", "--wheel-dir", target)
    (path,) = target.glob("costmodel-*.whl")
    return path


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run([*command, "--no-deps", "--no-index"], check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Runs a program of an environment that has the wheel, its dependencies from this environment, and no extras."""
    home = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    (packages,) = home.glob("lib/python*/site-packages")
    here = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    # The .pth files that lie in these folders are not followed, so an editable install of ours is not seen.
    (packages / "dependencies.pth").write_text("\n".join(here))
    for extra in ("fvcore", "scipy", "dask", "distributed"):
        (packages / f"{extra}.py").write_text(f'raise ModuleNotFoundError("not installed", name="{extra}")')
    pip("--python", home / "bin" / "python", "install", "--ignore-installed", wheel)
    empty = tmp_path_factory.mktemp("empty")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV_", "COVERAGE"))}

    def run(program: str, *arguments: str) -> str:
        command = [home / "bin" / program, *arguments]
        return subprocess.run(command, cwd=empty, env=clean, check=True, capture_output=True, text=True).stdout

    run.folder = empty
    assert Path(run("python", "-c", "import costmodel; print(costmodel.__file__)").strip()).is_relative_to(packages)
    return run


def test_the_wheel_holds_every_file(wheel) -> None:
    """Also the records, which costmodel/hardware/measurements links to."""
    ours = {
        str((Path(folder) / name).relative_to(ROOT))
        for folder, _, names in os.walk(ROOT / "costmodel", followlinks=True)
        for name in names
        if "__pycache__" not in folder
    }
    names = set(zipfile.ZipFile(wheel).namelist())
    assert ours <= names
    assert sum(name.startswith("costmodel/hardware/measurements/") for name in names) >= 10
    assert {name.partition("/")[2] for name in names - ours} == {
        "METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt", "licenses/LICENSE",
    }  # fmt: skip


def test_the_commands_of_the_installed_wheel(installed) -> None:
    """LeNet: 61,706 parameters of which the first convolution has 6 x (25 + 1)."""
    analysis = json.loads(installed("costmodel", "analyze", "lenet", "--format", "json"))
    assert analysis["totals"]["parameters"] == 61_706 and analysis["layers"][0]["parameters"] == 156
    memory = json.loads(installed("costmodel", "memory", "lenet", "--train", "--format", "json"))
    assert memory["peak_bytes"] > 2 * 4 * 61_706, "parameters and their gradients"
    chip = json.loads(installed("costmodel", "chip", "lenet", "-a", "edge-npu", "--format", "json"))
    assert chip["totals"]["frames_per_second"] > 0


def test_the_installed_report_shows_the_packaged_records(installed) -> None:
    paths = installed("costmodel", "report", "alexnet", "-d", "h200").splitlines()
    assert {path.name for path in installed.folder.iterdir()} == {"reports"}
    assert all((installed.folder / path).is_file() for path in paths)
    records = {path.name for path in (ROOT / "reports" / "measurements").iterdir()}
    pages = {(installed.folder / f"reports/report.{suffix}").read_text() for suffix in ("md", "html")}
    for record in records:
        assert f"reports/tables/measured-{record}.csv" in paths
        assert all(f"measured-{record}" in page for page in pages)
