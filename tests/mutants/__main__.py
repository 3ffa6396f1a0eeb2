"""Mutation testing of the numbers: change one thing in a source file, and see whether any test fails.

    python tests/mutants --sample 200 --seed 1 costmodel/chip costmodel/cost.py

Each mutant runs in a copy of the tree, in a process forked after the heavy imports, against the tests that reach the
changed function, nearest file first, until one fails. Which tests reach what is recorded in `.mutants/`, and again for
test files that changed. Mutants that no test can kill, as they compute the same, stand in equivalent.toml with the
reason.

Neither mutmut (3.8) nor cosmic-ray (8.7) does this: the former mutates no constant of a module and nothing decorated,
so no property; the latter starts a whole test run in a new process for each mutant.
"""

# ruff: noqa: T201

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from edits import ROOT, Mutant, mutants, siblings
from reach import record, run, tests_of

RECORD = ROOT / ".mutants" / "record.json"
EQUIVALENT = ROOT / "tests" / "mutants" / "equivalent.toml"
TARGETS = ["chip", "memory", "book", "view", "cost.py", "roofline.py"]
HEAVY = ["torch", "torchvision", "pandas", "matplotlib.pyplot", "scipy.optimize", "typer", "rich", "jinja2", "msgspec"]

FAILED_ITSELF = 99
"""The exit status of a process in which not a test, but running it, failed."""


def forked(work: Callable[[], int], seconds: float) -> int | None:
    """The exit status of `work()` in a process of its own; None if it takes longer than that."""
    pid = os.fork()
    if not pid:
        status = FAILED_ITSELF
        try:
            os.setpgid(0, 0)
            quiet = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(quiet, stream)
            sys.path[0] = str(Path.cwd())
            status = work()
        finally:
            os._exit(status)
    end = time.monotonic() + seconds
    status = None
    while status is None and time.monotonic() < end:
        done, code = os.waitpid(pid, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(code)
        else:
            time.sleep(0.02)
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return status
    if status is None:
        os.waitpid(pid, 0)
    return status


def settle(folder: str) -> None:
    """A worker's own copy of the tree, to work in."""
    mine = Path(folder) / str(os.getpid())
    shutil.copytree(ROOT, mine, ignore=shutil.ignore_patterns(".*", "*.egg-info"))
    os.chdir(mine)
    sys.dont_write_bytecode = False  # only one file of hundreds changes from mutant to mutant
    os.environ.update(PYTHONPATH=str(mine), XDG_CACHE_HOME=str(mine / ".cache"), OMP_NUM_THREADS="1", MPLBACKEND="Agg")


def recorded(test_file: str) -> tuple[str, dict[str, Any] | None]:
    """What a test file's tests reach; None if they did not end."""

    def work() -> int:
        Path("record.json").write_text(json.dumps(record(test_file)))
        return 0

    Path("record.json").unlink(missing_ok=True)
    forked(work, 3600)
    return test_file, json.loads(Path("record.json").read_text()) if Path("record.json").exists() else None


def judged(job: tuple[int, Mutant, list[tuple[str, set[str], float]]]) -> tuple[Mutant, str]:
    """Whether a mutant was "killed", ran into the "timeout", or "survived"."""
    number, mutant, tests = job
    path = Path(mutant.file)
    original = path.read_bytes()
    path.write_bytes(mutant.apply(original))
    os.utime(path, (number, number))  # Python recompiles a file whose time or size changed
    try:
        for test_file, names, seconds in tests:
            status = forked(lambda: run(test_file, names), 60 + 10 * seconds)  # noqa: B023
            if status == FAILED_ITSELF:
                raise RuntimeError(f"{test_file} could not be run")
            if status is None:
                return mutant, "timeout"
            if status not in (0, 5):  # 5: nothing collected
                return mutant, "killed"
        return mutant, "survived"
    finally:
        path.write_bytes(original)
        os.utime(path, (0, 0))


def each(pool: Executor, work: Callable[[Any], Any], jobs: list[Any]) -> Iterator[Any]:
    """The results of a function, as they come."""
    return (future.result() for future in as_completed([pool.submit(work, job) for job in jobs]))


def remembered(pool: Executor, tests: list[str], again: bool) -> dict[str, Any]:
    """What each test file reaches; only those that changed since the last time are run."""
    files = sorted({path for pattern in tests for path in ROOT.glob(f"tests/{pattern}")})
    known: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.exists() and not again else {}
    hashes = {f"tests/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    stale = sorted(file for file, digest in hashes.items() if known.get(file, {}).get("hash") != digest)
    for test_file, entry in each(pool, recorded, stale):
        print(f"recorded {test_file}" if entry else f"{test_file} did not end", file=sys.stderr, flush=True)
        if entry:
            known[test_file] = {"hash": hashes[test_file], **entry}
            RECORD.parent.mkdir(exist_ok=True)
            RECORD.write_text(json.dumps(known))
    return {file: known[file] for file in hashes if file in known}


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("paths", nargs="*", type=Path, help="files and folders to mutate")
    options.add_argument("--sample", type=int, help="this many mutants, drawn at random")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--least", type=float, default=95, help="percent killed that make it a success")
    options.add_argument("--tests", nargs="+", default=["test_*.py"], help="patterns of the test files to run")
    options.add_argument("--record", action="store_true", help="record again which tests reach what")
    options.add_argument("--list", action="store_true", help="only print the mutants")
    arguments = options.parse_args()

    package = sorted((ROOT / "costmodel").rglob("*.py"))
    paths = [p.resolve() for p in arguments.paths] or [ROOT / "costmodel" / name for name in TARGETS]
    files = [f for p in paths for f in ([p] if p.is_file() else sorted([*p.rglob("*.py"), *p.rglob("*.j2")]))]
    known = siblings(package)
    every = [mutant for file in files for mutant in mutants(file, known)]
    drawn = every
    if arguments.sample and arguments.sample < len(every):
        drawn = sorted(random.Random(arguments.seed).sample(every, arguments.sample))
    if arguments.list:
        for mutant in drawn:
            show(mutant)
        return 0

    named = {mutant: (mutant.file, *mutant.difference()) for mutant in every}
    listed = [
        (each["file"], each["is"], each["becomes"]) for each in tomllib.loads(EQUIVALENT.read_text())["equivalent"]
    ]
    reached = {file.relative_to(ROOT).as_posix() for file in files}
    for entry in listed:
        if entry[0] in reached and entry not in named.values():
            print(f"{EQUIVALENT.name}: no mutant of {entry[0]} makes {entry[1]!r} into {entry[2]!r}", file=sys.stderr)
    equivalent = [mutant for mutant in drawn if named[mutant] in listed]
    judging = [mutant for mutant in drawn if mutant not in equivalent]
    for mutant in judging:
        if mutant.file.endswith(".py"):
            ast.parse(mutant.apply((ROOT / mutant.file).read_bytes()))  # a mutant that does not parse tests nothing
    for module in HEAVY:
        importlib.import_module(module)
    counts: Counter[str] = Counter()
    fork = multiprocessing.get_context("fork")
    with (
        tempfile.TemporaryDirectory(prefix="mutants-") as folder,
        ProcessPoolExecutor(2, fork, settle, (folder,)) as pool,
    ):
        reach = remembered(pool, arguments.tests, arguments.record)
        jobs = [(n, mutant, tests_of(mutant, reach)) for n, mutant in enumerate(judging, 1)]
        for mutant, verdict in each(pool, judged, jobs):
            counts[verdict] += 1
            if verdict == "survived":
                show(mutant)
            if sys.stderr.isatty():
                print(f"{sum(counts.values())} of {len(judging)}", end="\r", file=sys.stderr, flush=True)
    dead = counts["killed"] + counts["timeout"]
    share = 100 * dead / len(judging) if judging else 100.0
    print(
        f"{dead} of {len(judging)} mutants killed, {share:.1f} % ({counts['timeout']} by running too long); "
        f"{len(equivalent)} equivalent ones left out; {len(every)} in all files"
    )
    return int(share < arguments.least)


def show(mutant: Mutant) -> None:
    """Prints where a mutant is and what it changes."""
    old, new = mutant.difference()
    print(f"{mutant.file}:{mutant.line((ROOT / mutant.file).read_bytes())}")
    print("\n".join([*(f"  - {line}" for line in old.splitlines()), *(f"  + {line}" for line in new.splitlines())]))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
