"""Processes that start as if Python had just been started with torch imported, at a hundredth of the cost: forks.

Run as a program, this reads a line of JSON for each process to make, makes it, and says when it has ended.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple


class Done(NamedTuple):
    """What a process wrote, and left."""

    result: Any
    stdout: str
    stderr: str


class Processes:
    """Makes processes one after the other."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-c", Path(__file__).read_text()],  # as text: no file of ours is loaded in it
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, code: str, folder: Path, *arguments: Any, **environment: str) -> Done:
        """Run code in a folder: `arguments` is a list in it, and what it puts into `result` comes back."""
        assert self._server.stdin and self._server.stdout
        files = {name: str(folder / f".{name}") for name in ("result", "stdout", "stderr")}
        order = {"code": code, "folder": str(folder), "arguments": arguments, "environment": environment, **files}
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        assert self._server.stdout.readline() == "done\n"
        texts = {name: Path(path).read_text() for name, path in files.items()}
        assert texts["result"], texts["stderr"]
        return Done(json.loads(texts["result"]), texts["stdout"], texts["stderr"])

    def close(self) -> None:
        self._server.communicate("")


def serve() -> None:
    """Fork a process for each line."""
    import costmodel.networks.resolve
    import costmodel.networks.variants  # noqa: F401

    for line in sys.stdin:
        child = os.fork()
        if not child:
            _become(json.loads(line))
        os.waitpid(child, 0)
        sys.stdout.write("done\n")
        sys.stdout.flush()


def _become(order: dict[str, Any]) -> None:
    """Be the process that was ordered, to the end."""
    from costmodel.networks import ingredients

    Path(order["result"]).write_text("")
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(order[name], os.O_CREAT | os.O_TRUNC | os.O_WRONLY), number)
    try:
        os.chdir(order["folder"])
        os.environ.update(order["environment"])
        sys.path[0] = ""
        time.sleep(0.03)  # Python takes longer to start, and files that were written before are not in doubt
        ingredients._STARTED_NS = time.time_ns()
        names = {"arguments": order["arguments"], "result": None}
        exec(order["code"], names)
        sys.stdout.flush()
        Path(order["result"]).write_text(json.dumps(names["result"]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    serve()
