"""How long we take to analyse a network, beside other programs: time, memory, and what each reports.

Every program is timed twice: called as its README says (real weights on the CPU, a real input), and as an expert would
(all on the meta device), where it survives that. The rounds are interleaved, so that whatever else the machine does
hits all alike, and each program has one call before the first to import and warm up. In a round it is called three
times in a row, so that nobody pays for what the program before left in the processor's caches. Memory is measured in a
process for each program, as what building and analysing the network adds at most to one that has everything loaded.

    frame = run(["torchvision:vgg19"], repeat=5)
    write(frame, "reports/benchmark.md")
"""

from __future__ import annotations

import datetime
import gc
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costmodel.bench.document import BARE, STARTUP, write
from costmodel.errors import InputError
from costmodel.progress import Progress, silent

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "MODELS", "STARTUP", "run", "write"]

MODELS = tuple(f"torchvision:{name}" for name in ("alexnet", "vgg16", "vgg19", "resnet50", "vit_b_16", "densenet201"))

COLUMNS = (
    "model", "program", "version", "way", "best_seconds", "median_seconds", "quartile_range_seconds", "macs", "agrees",
    "times_ours", "peak_bytes", "problem",
)  # fmt: skip

_STARTUPS = {
    BARE: ["-c", "pass"],
    "import costmodel": [
        "-c",
        "import time; start = time.perf_counter(); import costmodel; print(time.perf_counter() - start)",
    ],
    "costmodel --help": ["-m", "costmodel", "--help"],
    "costmodel predict vgg16 -d h200 --no-cache": ["-m", "costmodel", "predict", "vgg16", "-d", "h200", "--no-cache"],
    "costmodel predict vgg16 -d h200, not for the first time": ["-m", "costmodel", "predict", "vgg16", "-d", "h200"],
    "costmodel models, not for the first time": ["-m", "costmodel", "models"],
}


def run(
    models: Sequence[str] = MODELS,
    peers: Iterable[str] | None = None,
    repeat: int = 7,
    *,
    memory: bool = True,
    startup: bool = True,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Measure, and return one row for each network, program and way of calling it.

    Args:
        models: what `networks.find` takes; networks with one input.
        peers: programs to compare with, by the names in `costmodel.peers.contenders`; all of them if None.
        repeat: how many timed rounds, of three calls each.
        memory: also measure memory, in a process for each row.
        startup: also time `import costmodel` and `costmodel --help`, in processes of their own.
        progress: told of each step.

    Seconds, bytes, multiply-accumulates. `times_ours` is a program's best time over ours for the same network given in
    the same way; `agrees` is whether it reports as many multiply-accumulates as we do; `problem` says why a row has no
    numbers. Raises InputError for an unknown network or program, a network that not every program can be given, and no
    rounds.
    """
    import pandas as pd

    from costmodel.peers.contenders import CONTENDERS, FLOOR, OURSELVES, WAYS, contender, network_for

    if repeat < 1:
        raise InputError(f"{repeat} rounds measure nothing: repeat must be at least 1.")
    chosen = [contender(name) for name in dict.fromkeys([OURSELVES, FLOOR, *(CONTENDERS if peers is None else peers)])]
    for model in models:
        network_for(model, "expert")  # unknown ones are told before the first minute has passed
    tell = progress or silent
    steps = len(models) * len(WAYS) + startup
    rows: list[dict[str, Any]] = []
    for number, (model, way) in enumerate((model, way) for model in models for way in WAYS):
        tell(f"{model}, {way}", number, steps)
        names = [entry.name for entry in chosen if way in entry.ways and entry.version is not None]
        rows += _race(model, way, names, repeat, memory)
        rows += [
            _row(model, entry.name, way, problem=f"{entry.package} is not installed")
            for entry in chosen
            if way in entry.ways and entry.version is None
        ]
    if startup:
        tell(STARTUP, steps - 1, steps)
        rows += _startups(repeat)
    tell("done", steps, steps)
    versions = {entry.name: entry.version for entry in chosen}
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame["version"] = [versions.get(name) for name in frame["program"]]
    frame = frame.astype({"macs": "Int64", "peak_bytes": "Int64", "agrees": "boolean"})
    frame.attrs |= _circumstances(models, repeat)
    return frame


_CALLS = 3
"""Of one program in a row, in each round."""


def _timed(call: Callable[[], int]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _race(model: str, way: str, names: Sequence[str], repeat: int, memory: bool) -> Iterator[dict[str, Any]]:
    """One network, given in one way, to each program in turn, `repeat` times over."""
    from costmodel.peers.contenders import OURSELVES, network_for, ready, silence

    network = network_for(model, way)
    calls: dict[str, Callable[[], int]] = {}
    reported: dict[str, int] = {}
    problems: dict[str, str] = {}
    times: dict[str, list[float]] = {name: [] for name in names}
    with silence():
        for name in names:
            try:
                calls[name] = ready(name, network)
                reported[name] = calls[name]()
            except Exception as error:
                if name == OURSELVES:
                    raise
                problems[name] = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        for _ in range(repeat):
            for name, call in calls.items():
                if name not in problems:
                    gc.collect()
                    times[name] += [_timed(call) for _ in range(_CALLS)]
    for name in names:
        if name in problems:
            yield _row(model, name, way, problem=problems[name])
            continue
        numbers: dict[str, Any] = _summary(times[name]) | {"times_ours": min(times[name]) / min(times[OURSELVES])}
        if reported[name]:
            numbers |= {"macs": reported[name], "agrees": reported[name] == reported[OURSELVES]}
        if memory:
            numbers["peak_bytes"] = _peak(name, model, way)
        yield _row(model, name, way, **numbers)


def _startups(repeat: int) -> Iterator[dict[str, Any]]:
    """Time a fresh interpreter: inside it for the import, from outside for a command; a first call is not timed."""
    with tempfile.TemporaryDirectory() as kept:
        environment = {**os.environ, "COSTMODEL_CACHE": kept}
        for what, arguments in _STARTUPS.items():
            taken = []
            for _ in range(repeat + 1):
                start = time.perf_counter()
                done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)
                taken.append(time.perf_counter() - start)
                if done.returncode:
                    yield _row("", what, STARTUP, problem=done.stderr.strip().rpartition("\n")[2])
                    break
                if what == "import costmodel":
                    taken[-1] = float(done.stdout)
            else:
                yield _row("", what, STARTUP, **_summary(taken[1:]))


def _peak(name: str, model: str, way: str) -> int | None:
    """Bytes that one analysis adds, from a process of its own; None if that fails."""
    code = f"from costmodel.peers.contenders import peak_memory; print(peak_memory({name!r}, {model!r}, {way!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return int(done.stdout.split()[-1]) if done.returncode == 0 else None


def _summary(taken: Sequence[float]) -> dict[str, Any]:
    several = taken if len(taken) > 1 else [*taken, *taken]
    first, median, third = statistics.quantiles(several, n=4, method="inclusive")
    return {"best_seconds": min(taken), "median_seconds": median, "quartile_range_seconds": third - first}


def _row(model: str, program: str, way: str, **numbers: Any) -> dict[str, Any]:
    return {"model": model, "program": program, "way": way, **numbers}


def _circumstances(models: Sequence[str], repeat: int) -> dict[str, str]:
    """What a reader needs to know to judge the numbers, or to measure again."""
    called = Path(sys.argv[0]).stem in ("costmodel", "__main__")
    library = f"costmodel.bench.run({[*models]}, repeat={repeat})"
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": shlex.join(["costmodel", *sys.argv[1:]]) if called else library,
        "rounds": str(repeat),
        "machine": f"{_processor()}, {os.cpu_count()} logical cores, {platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    """The processor's name as the system gives it."""
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"
