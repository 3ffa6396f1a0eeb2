"""What a mutant changes: operators, comparisons, numbers, min and max, attributes and the order of operands."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]

ARITHMETIC = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "//"), ast.Pow: ("**", "*"),
}  # fmt: skip
COMPARISON = {
    ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"), ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="), ast.In: ("in", "not in"), ast.NotIn: ("not in", "in"),
}  # fmt: skip
CALLS = {
    "min": "max", "max": "min", "sum": "max", "any": "all", "all": "any", "ceil": "floor", "floor": "ceil",
    "minimum": "maximum", "maximum": "minimum",
}  # fmt: skip
TEXT = (ast.JoinedStr, ast.List, ast.Tuple, ast.ListComp)
"""What `+` and `%` join or fill in without arithmetic."""


class Edit(NamedTuple):
    """One change to a file's bytes."""

    start: int
    end: int
    new: bytes


class Piece:
    """Source with its place in a file: a whole module, or one expression of an f-string or of a template."""

    def __init__(self, source: bytes, base: int, siblings: dict[str, str], expression: bool = False) -> None:
        self.source = b"(" + source + b")" if expression else source
        self.base = base - expression
        self.siblings = siblings
        self.tree: ast.AST = ast.parse(self.source, mode="eval" if expression else "exec")
        self.lines = [0, *(match.end() for match in re.finditer(b"\n", self.source))]

    def span(self, node: Any) -> tuple[int, int]:
        return self.lines[node.lineno - 1] + node.col_offset, self.lines[node.end_lineno - 1] + node.end_col_offset

    def text(self, node: ast.AST) -> bytes:
        start, end = self.span(node)
        return self.source[start:end]

    def edits(self) -> Iterator[Edit]:
        """Every change, in no particular order."""
        for node in _numbers(self.tree):
            if isinstance(node, ast.FormattedValue):
                continue
            if isinstance(node, ast.JoinedStr):
                for value in node.values:
                    if isinstance(value, ast.FormattedValue):
                        yield from self._inside(node, value)
                continue
            for start, end, new in self._changes(node):
                yield Edit(self.base + start, self.base + end, new)

    def _inside(self, string: ast.JoinedStr, value: ast.FormattedValue) -> Iterator[Edit]:
        """The changes in a braced part of an f-string, which Python 3.11 does not place well itself."""
        start, end = self.span(string)
        wanted = ast.dump(value.value)
        text = self.source[start:end]
        for opening in re.finditer(rb"\{", text):
            for closing in re.finditer(rb"[}!:=]", text[opening.end() :]):
                part = text[opening.end() : opening.end() + closing.start()]
                try:
                    piece = Piece(part, self.base + start + opening.end(), self.siblings, expression=True)
                except (SyntaxError, ValueError):
                    continue
                if ast.dump(piece.tree.body) == wanted:  # type: ignore[attr-defined]
                    yield from piece.edits()
                    return

    def _changes(self, node: ast.AST) -> Iterator[Edit]:
        match node:
            case ast.BinOp(right=ast.BinOp(left=ast.Constant(value=0), op=ast.Mult())):
                pass  # `+ 0 * array`, which spreads a number over an array
            case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC and not _textual(left, right):
                yield from self._between(left, right, *ARITHMETIC[type(op)])
                if isinstance(op, ast.Div | ast.FloorDiv | ast.Sub):
                    yield self._swapped(left, right)
            case ast.AugAssign(target=left, op=op, value=right) if type(op) in ARITHMETIC and not _textual(right):
                yield from self._between(left, right, *ARITHMETIC[type(op)])
            case ast.Compare(left=left, ops=ops, comparators=others):
                for a, op, b in zip([left, *others], ops, others, strict=False):
                    if type(op) in COMPARISON:
                        yield from self._between(a, b, *COMPARISON[type(op)])
            case ast.BoolOp(op=op, values=values):
                words = ("and", "or") if isinstance(op, ast.And) else ("or", "and")
                for a, b in itertools.pairwise(values):
                    yield from self._between(a, b, *words)
            case ast.UnaryOp(op=ast.Not() | ast.USub()):
                start = self.span(node)[0]
                yield Edit(start, start + (3 if isinstance(node.op, ast.Not) else 1), b"")
            case ast.IfExp(body=body, orelse=orelse):
                yield self._swapped(body, orelse)
            case ast.Constant(value=bool()):
                pass
            case ast.Constant(value=int(value)):
                yield Edit(*self.span(node), repr(value + 1).encode())
            case ast.Constant(value=float(value)):
                yield Edit(*self.span(node), repr(2 * value or 1.0).encode())
            case ast.Attribute(attr=name, ctx=ast.Load()) if name in self.siblings:
                end = self.span(node)[1]
                yield Edit(end - len(name.encode()), end, self.siblings[name].encode())
            case ast.Call():
                yield from self._calls(node)

    def _calls(self, call: ast.Call) -> Iterator[Edit]:
        name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
        end = self.span(call.func)[1]
        if name in CALLS and not (name == "sum" and len(call.args) > 1):
            yield Edit(end - len(name), end, CALLS[name].encode())
        elif name == "len":
            yield Edit(*self.span(call), b"(" + self.text(call) + b" + 1)")
        if name[:1].isupper() or name == "cls":
            yield from (self._swapped(a, b) for a, b in itertools.pairwise(call.args) if _alike(a, b))
        named = [keyword for keyword in call.keywords if keyword.arg]
        for first, second in itertools.pairwise(named):
            same_unit = str(first.arg).rpartition("_")[2] == str(second.arg).rpartition("_")[2]
            if same_unit and _alike(first.value, second.value):
                yield self._swapped(first.value, second.value)

    def _between(self, left: ast.AST, right: ast.AST, old: str, new: str) -> Iterator[Edit]:
        start, end = self.span(left)[1], self.span(right)[0]
        found = re.search(re.escape(old.encode()), self.source[start:end])
        if found:
            yield Edit(start + found.start(), start + found.end(), new.encode())

    def _swapped(self, left: ast.AST, right: ast.AST) -> Edit:
        (start, after), (before, end) = self.span(left), self.span(right)
        middle = self.source[after:before]
        return Edit(start, end, b"(" + self.text(right) + b")" + middle + b"(" + self.text(left) + b")")


def _textual(*operands: ast.AST) -> bool:
    return any(isinstance(o, TEXT) or (isinstance(o, ast.Constant) and isinstance(o.value, str)) for o in operands)


def _alike(first: ast.AST, second: ast.AST) -> bool:
    if isinstance(first, ast.Constant) and isinstance(second, ast.Constant):
        return type(first.value) is type(second.value) and first.value != second.value
    return type(first) is type(second) and not isinstance(first, ast.Starred) and ast.dump(first) != ast.dump(second)


def _numbers(node: ast.AST) -> Iterator[ast.AST]:
    """A tree's nodes, without annotations, decorators, error messages, and what only a type checker reads."""
    yield node
    if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr | ast.FormattedValue):
        return
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        return
    for field, value in ast.iter_fields(node):
        if field not in ("annotation", "returns", "decorator_list"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _numbers(child)


def siblings(files: Iterable[Path]) -> dict[str, str]:
    """For a number's attribute another one of every class that has the first, of the same unit if there is one."""
    classes: list[list[str]] = []
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                fields = [f.target for f in node.body if isinstance(f, ast.AnnAssign) and _number(f.annotation)]
                made = [f for f in node.body if isinstance(f, ast.FunctionDef) and f.decorator_list]
                names = [f.id for f in fields if isinstance(f, ast.Name)]
                classes.append(names + [f.name for f in made if _number(f.returns)])
    found = {}
    for name in sorted({name for names in classes for name in names}):
        with_it = [names for names in classes if name in names]
        first = with_it[0]
        after = first[first.index(name) + 1 :] + first[: first.index(name)]
        shared = [other for other in after if all(other in names for names in with_it)]
        unit = name.rpartition("_")[2]
        shared.sort(key=lambda other: other.rpartition("_")[2] != unit)
        if shared:
            found[name] = shared[0]
    return found


def _number(annotation: ast.AST | None) -> bool:
    return annotation is not None and ast.unparse(annotation) in ("int", "float", "int | None", "float | None")


class Mutant(NamedTuple):
    """A file with one change."""

    file: str
    edit: Edit

    def apply(self, source: bytes) -> bytes:
        return source[: self.edit.start] + self.edit.new + source[self.edit.end :]

    def line(self, source: bytes) -> int:
        return source.count(b"\n", 0, self.edit.start) + 1

    def difference(self) -> tuple[str, str]:
        """The changed lines before and after, each without the blanks around it."""
        source = (ROOT / self.file).read_bytes()
        start, end = source.rfind(b"\n", 0, self.edit.start) + 1, source.find(b"\n", self.edit.end)
        changed = source[start : self.edit.start] + self.edit.new + source[self.edit.end : end]
        old, new = (text.decode().splitlines() for text in (source[start:end], changed))
        return "\n".join(map(str.strip, old)), "\n".join(map(str.strip, new))


def mutants(path: Path, known: dict[str, str]) -> list[Mutant]:
    """The mutants of a Python file, or of the expressions of a template."""
    source = path.read_bytes()
    if path.suffix == ".py":
        edits = list(Piece(source, 0, known).edits())
    else:
        edits = []
        for found in re.finditer(rb"\{\{-?(.*?)-?\}\}|\{%-?\s*(?:if|elif)\b(.*?)-?%\}", source, re.DOTALL):
            group = 1 if found[1] is not None else 2
            try:
                edits += Piece(found[group], found.start(group), known, expression=True).edits()
            except SyntaxError:  # a filter or a test that Python has no word for
                continue
    name = path.relative_to(ROOT).as_posix()
    unique = {Mutant(name, edit) for edit in edits if edit.new != source[edit.start : edit.end]}
    return sorted(unique, key=lambda mutant: mutant.edit)
