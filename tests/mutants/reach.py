"""Which tests reach which function, recorded by coverage.py, and running some tests of a file."""

from __future__ import annotations

import ast
import itertools
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import coverage
import pytest
from edits import ROOT, Mutant

SHARED = "shared fixtures"

PYTEST = ["-q", "-p", "no:cacheprovider", "--hypothesis-seed=0"]


def functions(path: Path) -> dict[int, str]:
    """For each line the function or method that it stands in; lines outside of any are left out."""
    found: dict[int, str] = {}

    def visit(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = name
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                inner = f"{name}.{child.name}".lstrip(".")
            if isinstance(child, ast.FunctionDef):
                found.update(dict.fromkeys(range(child.body[0].lineno, (child.end_lineno or 0) + 1), inner))
            visit(child, inner)

    visit(ast.parse(path.read_text()), "")
    return found


def record(test_file: str) -> dict[str, Any]:
    """Runs a test file and says how long each passing test took, and which tests reached which functions."""
    taken: dict[str, float] = {}
    counter = coverage.Coverage(data_file=None, source=["costmodel"], config_file=False)

    class Plugin:
        test = ""

        def pytest_runtest_logstart(self, nodeid: str) -> None:
            self.test = nodeid
            counter.switch_context(nodeid)

        @pytest.hookimpl(wrapper=True)
        def pytest_fixture_setup(self, fixturedef: Any) -> Any:
            """What a fixture that tests share reaches, each of them may judge."""
            if fixturedef.scope == "function":
                return (yield)
            counter.switch_context(SHARED)
            try:
                return (yield)
            finally:
                counter.switch_context(self.test)

        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.when == "call" and report.passed:
                taken[report.nodeid] = report.duration

    counter.start()
    pytest.main([*PYTEST, test_file], plugins=[Plugin()])
    counter.stop()
    data = counter.get_data()
    reached: dict[str, dict[str, list[str]]] = {}
    for name in data.measured_files():
        path = Path(name)
        inside = functions(path)
        by_function = defaultdict(set)
        for line, contexts in data.contexts_by_lineno(name).items():
            if line in inside:
                tests = taken if SHARED in contexts else contexts
                by_function[inside[line]].update(test for test in tests if test in taken)
        kept = {function: sorted(tests) for function, tests in by_function.items() if tests}
        if kept:
            reached[path.relative_to(Path.cwd()).as_posix()] = kept
    return {"seconds": taken, "reached": reached}


def run(test_file: str, names: set[str]) -> int:
    """The exit status of those tests of a file."""

    class Plugin:
        def pytest_collection_modifyitems(self, items: list[Any]) -> None:
            items[:] = [item for item in items if item.nodeid in names]

    return int(pytest.main([*PYTEST, "-x", test_file], plugins=[Plugin()]))


def tests_of(mutant: Mutant, known: dict[str, Any]) -> list[tuple[str, set[str], float]]:
    """Test files with the tests that reach a mutant and the seconds they take, the nearest by name and fastest first.

    Code outside of functions, and functions that were not there when the tests were recorded, are reached by all tests
    that reach the file, constants also by those beside them in a test file that is named alike; a template is reached
    by all that reach a file of its folder.
    """
    path = ROOT / mutant.file
    source = path.read_bytes()
    function = functions(path).get(mutant.line(source)) if path.suffix == ".py" else None
    words = _words(mutant.file)
    found = []
    for test_file, entry in known.items():
        reached = entry["reached"].get(mutant.file, {})
        if path.suffix != ".py":
            folder = str(Path(mutant.file).parent)
            there = [tests for file, tests in entry["reached"].items() if str(Path(file).parent) == folder]
            reached = dict(enumerate(itertools.chain(*(tests.values() for tests in there))))
        names = set(reached.get(function, ()) or itertools.chain(*reached.values()))
        if names:
            near = len(words & _words(test_file))
            if not function and near:
                names = set(entry["seconds"])
            seconds = sum(entry["seconds"][name] for name in names)
            found.append((test_file, names, seconds, near))
    return [entry[:3] for entry in sorted(found, key=lambda entry: (-entry[3], entry[2]))]


def _words(path: str) -> set[str]:
    return set(re.findall("[a-z]+", path)) - {"costmodel", "tests", "test", "py"}
