"""The house rules that can be read off the imports: they run downward, and torch stays where it belongs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import costmodel

ROOT = Path(costmodel.__file__).parent

LAYERS = [
    {"errors", "files", "progress"},
    {"units", "typed"},
    {"facts", "view"},
    {"graph", "devices"},
    {"formulas", "grouping", "rules"},
    {"cost"},
    {"estimate", "parts"},
    {"memory", "roofline", "chip"},
    {"compare"},
    {"tracer"},
    {"networks"},
    {"peers", "hardware"},
    {"validation"},
    {"plots"},
    {"book"},
    {"bench"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MAY_IMPORT_TORCH = {"tracer", "networks", "peers", "hardware"}
HEAVY = {"torch", "torchvision", "fvcore", "pandas", "matplotlib", "numpy"}


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """Dotted names of the modules that a file imports, also inside functions but not under TYPE_CHECKING."""
    tree = ast.parse(path.read_text())
    found: set[str] = set()

    def visit(node: ast.AST, inside: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names if node.module == "costmodel")
        deeper = inside or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        if not (top_level_only and deeper):
            for child in ast.iter_child_nodes(node):
                visit(child, deeper)

    visit(tree, False)
    return found


FILES = sorted(path for path in ROOT.rglob("*.py") if path.name != "__init__.py" or path.parent != ROOT)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downward(path: Path) -> None:
    here = part_of(path)
    for name in imports(path):
        if name.startswith("costmodel.") and name != "costmodel.__version__":
            there = name.split(".")[1]
            assert there in LEVEL, f"{there} has no place in the order of layers"
            assert there == here or LEVEL[there] < LEVEL[here], f"{here} imports {there}, which is not below it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_torch_stays_where_it_belongs(path: Path) -> None:
    if part_of(path) not in MAY_IMPORT_TORCH:
        assert not {name.split(".")[0] for name in imports(path)} & {"torch", "torchvision", "fvcore"}


PUBLIC_ENOUGH = {"_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks"}
"""Tables of torch's modules, which torch_private.py judges to be as good as public."""


def internals_named(path: Path, internals: set[str]) -> set[str]:
    """Torch's internals that a file names: as attributes, imports or strings. Operators are not internal."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            if owner.startswith("torch.") and not owner.startswith("torch.ops") and node.attr.startswith("_"):
                found.add(node.attr)
            if owner == "torch" and node.attr.startswith("_") and not node.attr.startswith(("__", "_foreach_")):
                found.add(node.attr)
            found |= {node.attr} & internals
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            module = getattr(node, "module", None) or ""
            for alias in node.names:
                parts = f"{module}.{alias.name}".split(".")
                if parts[0] == "torch" or parts[1:2] == ["torch"]:
                    found |= {part for part in parts if part.startswith("_") or part in internals}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {node.value} & {name for name in internals if name.startswith("_")}
            found |= {node.value} if node.value.startswith("torch._") else set()
    return {name for name in found if not name.startswith("__")} - PUBLIC_ENOUGH


def test_one_file_names_torchs_internals() -> None:
    from costmodel.tracer.torch_private import INTERNALS

    internals = {path.rpartition(".")[2] for path in INTERNALS} | {"_C", "_raw_saved", "_version"}
    private = ROOT / "tracer" / "torch_private.py"
    found = {str(path.relative_to(ROOT)): internals_named(path, internals) for path in FILES if path != private}
    assert {path: names for path, names in found.items() if names} == {}
    assert {"_C", "_cdata", "_sequence_nr"} <= internals and len(internals_named(private, internals)) > 5


def test_every_file_has_a_place() -> None:
    assert {part_of(path) for path in FILES} <= set(LEVEL)


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_costmodel_imports_nothing_heavy() -> None:
    loaded = run("import sys, costmodel; print(*(name.split('.')[0] for name in sys.modules))").split()
    assert not HEAVY & set(loaded)


def test_reading_a_trace_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import costmodel.cost, costmodel.memory, costmodel.roofline, costmodel.devices, costmodel.view\n"
        "print(len(costmodel.rules.rules()) > 50)"
    )
    assert run(code).strip() == "True"


def test_every_public_name_is_there() -> None:
    assert dir(costmodel) == costmodel.__all__ == sorted(costmodel._homes())
    for name in costmodel.__all__:
        assert getattr(costmodel, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'vgg'"):
        costmodel.vgg  # noqa: B018


CHAPTERS = sorted((ROOT / "book" / "chapters").glob("*.py"))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_sentences_stand_in_templates(path: Path) -> None:
    """A chapter's Python computes; what ends with a full stop belongs into its template."""
    tree = ast.parse(path.read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    errors = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.Raise) for inner in ast.walk(node)}
    strings = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    said = [node.value for node in strings if id(node) not in docstrings | errors]
    assert not [text for text in said if (text.rstrip().endswith(".") and " " in text.strip()) or ". " in text]
    chapters = re.findall(r'Chapter\(\s*"(\w+)"', path.read_text())
    assert all((path.parent / f"{name}.md.j2").exists() for name in chapters)
