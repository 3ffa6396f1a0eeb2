"""The second command about a network says the same as the first, without torch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fresh_process import Processes

if not hasattr(os, "fork"):
    pytest.skip("these tests fork", allow_module_level=True)

RUN = "from costmodel.cli import run; result = run(arguments)"

COMMANDS = [
    "models",
    "models lenet --format json",
    "analyze lenet --format json",
    "analyze lenet --train --by kind",
    "analyze own.py:Net",
    "analyze own.py:Net --format json --allow-unmodelled",
    "compare lenet own.py:Net -d h200 --allow-unmodelled",
    "predict lenet -d h200 --train --optimizer adam",
    "predict lenet -d h200 --sweep 1,2,4 --format json",
    "roofline lenet lenet-relu -d h200 --format json",
    "memory lenet -d h200 --fit",
    "memory lenet --train --what-ifs",
    "memory lenet --sweep 1,4,16 --format csv",
    "traffic lenet --buffer-bytes 4KiB --buffer-bytes 64KiB --fuse",
    "chip lenet -a eyeriss --what-if",
    "explore lenet lenet-relu --array 8x8 --buffer-bytes 64KiB --bandwidth 8GB --format json",
    "analyze lenet --dtype nothing",
]

EXIT_CODES = {"analyze own.py:Net": 3, "analyze lenet --dtype nothing": 2}

OWN = """
import torch, warnings
from torch import nn
print("imported")
class Net(nn.Module):
    input_shape = (8,)
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 4)
    def forward(self, x):
        warnings.warn("run")
        return torch.special.airy_ai(self.layer(x))  # for which there is no rule
"""


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    made = Processes()
    yield made
    made.close()


@pytest.mark.parametrize("command", COMMANDS)
def test_the_second_time_needs_no_torch(command: str, processes: Processes, tmp_path: Path) -> None:
    folder = tmp_path / "work"  # not where the cache is: a new folder there might be a package to import
    folder.mkdir()
    (folder / "own.py").write_text(OWN)
    cache = {"COSTMODEL_CACHE": str(tmp_path / "cache")}
    first = processes.run(RUN, folder, *command.split(), **cache)
    code = f"import sys; sys.modules['torch'] = None; arguments = {command.split()!r}; {RUN}; sys.exit(result)"
    environment = {**os.environ, **cache, "PYTHONPATH": str(Path(__file__).parents[1])}
    second = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert (second.returncode, second.stdout, second.stderr) == first
    assert second.returncode == EXIT_CODES.get(command, 0)


def test_no_cache(processes: Processes, tmp_path: Path) -> None:
    for command in ("predict lenet -d h200 --sweep 1,2", "models lenet", "chip lenet -a eyeriss --what-if"):
        processes.run(RUN, tmp_path, *command.split(), "--no-cache", COSTMODEL_CACHE=str(tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()
