"""Modules by name or by file, for a visit: afterwards the interpreter is what it was, as far as that makes sense.

A file is run with its folder in front of the import path, as Python runs a script, but not as "__main__". When the
visit ends, the import path is restored, and what was imported from the file's own folder is forgotten, so that another
file may have a neighbour of the same name. A module that was imported by its name stays imported.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, ModuleType

from costmodel.errors import InputError

_FILE_MODULE = "__costmodel_file__"


def visit(place: str) -> contextlib.AbstractContextManager[ModuleType]:
    """The module at a place, "package.module" or "path/file.py". Raises InputError that says what is wrong with it."""
    is_file = place.endswith(".py") or "/" in place or "\\" in place
    return _run(Path(place).expanduser()) if is_file else _imported(place)


@contextlib.contextmanager
def _imported(place: str) -> Iterator[ModuleType]:
    """Import a module; also from the current folder, as `python -m` does."""
    if not all(part.isidentifier() for part in place.split(".")):
        raise InputError(f"{place!r} is not the name of a module, and a file's name ends in .py.")
    with _import_path(""):
        try:
            module = importlib.import_module(place)
        except (Exception, SystemExit) as error:
            if isinstance(error, ModuleNotFoundError) and error.name and f"{place}.".startswith(f"{error.name}."):
                raise InputError(f"there is no module {error.name!r}, installed or in the current folder.") from None
            raise InputError(f"importing {place} failed: {in_one_line(error)}.") from error
        yield module


@contextlib.contextmanager
def _run(path: Path) -> Iterator[ModuleType]:
    """Run a file as a module of a private name."""
    code = _compiled(path)
    folder = path.resolve().parent
    module = ModuleType(_FILE_MODULE)
    module.__file__ = str(path)
    with _forgetting(folder), _import_path(str(folder)):
        sys.modules[_FILE_MODULE] = module  # where dataclasses look for it
        try:
            exec(code, module.__dict__)
        except (Exception, SystemExit) as error:
            raise InputError(f"running {path} failed{_line(error, str(path))}: {in_one_line(error)}.") from error
        yield module


def _compiled(path: Path) -> CodeType:
    try:
        if not path.is_file():
            raise InputError(f"there is no file {str(path)!r}.")
        return compile(importlib.util.decode_source(path.read_bytes()), str(path), "exec", dont_inherit=True)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
    except SyntaxError as error:
        line = f" in line {error.lineno}" if error.lineno else ""
        raise InputError(f"{path} is not Python{line}: {error.msg}.") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"{path} is not Python: {in_one_line(error)}.") from None


@contextlib.contextmanager
def _import_path(folder: str) -> Iterator[None]:
    before = list(sys.path)
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


@contextlib.contextmanager
def _forgetting(folder: Path) -> Iterator[None]:
    """Drop the modules that come from `folder`, unless it is on the import path anyway."""
    before = dict(sys.modules)
    try:
        yield
    finally:
        shared = any(Path(entry).resolve() == folder for entry in sys.path)
        new = {name: sys.modules.get(name.partition(".")[0]) for name in sys.modules if name not in before}
        for name, top in new.items():
            if name == _FILE_MODULE or (_folder_of(top) == folder and not shared):
                del sys.modules[name]
        if _FILE_MODULE in before:  # a file that visits a file
            sys.modules[_FILE_MODULE] = before[_FILE_MODULE]


def _folder_of(top: object) -> Path | None:
    """The folder on the import path where a top-level module or package was found."""
    names = getattr(top, "__dict__", {})  # not by attribute, which some modules answer with anything
    first = next(iter(names.get("__path__") or [names.get("__file__")]), None)
    return Path(first).resolve().parent if isinstance(first, str) else None


def in_one_line(error: BaseException) -> str:
    """An exception as "ValueError: what it said", without the end of the sentence."""
    text = str(error).strip().partition("\n")[0].rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _line(error: BaseException, path: str) -> str:
    """The innermost line of the file that was being run: " in line 12"."""
    lines = []
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f" in line {lines[-1]}" if lines else ""
