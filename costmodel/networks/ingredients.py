"""What a trace was made of, so that a later process can tell whether it would come out the same.

A trace is made by code, and by what that code reads. Installed files (the standard library and site-packages: torch,
torchvision ...) are known by size and time of change, all others by their contents. For a network of ours or of
torchvision's they are the files of all modules in `sys.modules`. For anybody else's they are also the files and folders
that its code opened while it was imported, called and traced, which an audit hook sees; a file that was not there must
still not be there.

A trace is not kept where its code did something that does not show in files: it used the network, a database or another
program, wrote a file, drew from Python's or numpy's random numbers, or registered a rule. Code with the word `environ`
or `getenv` in it depends on all of the environment, code with `argv` or `argparse` on the command line. What remains
unseen: the clock, checks for a file that do not open it, and what compiled extensions open.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import os
import re
import site
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

_STARTED_NS = time.time_ns()
_TICK_NS = 20_000_000  # a file's times are those of the system's last tick, up to 10 ms ago
_MOST_BYTES = 32 * 2**20  # of files known by their contents


class Surroundings(NamedTuple):
    """What code can read of the process that it runs in: digests of the environment and of the command line."""

    environment: bytes
    command: bytes


def surroundings() -> Surroundings:
    """Those of this process; to be taken before anybody's code changes them."""
    # importing torchvision sets a folder for torch's compiler
    variables = sorted(f"{name}={value}" for name, value in os.environ.items() if not name.startswith("TORCHINDUCTOR"))
    return Surroundings(_digest("\0".join(variables)), _digest("\0".join(sys.argv)))


class Ingredients(NamedTuple):
    """What a trace was made of; where there is a digest, None says that there was no such file or folder."""

    installed: tuple[str, ...]
    """Files and folders known by size and time of change."""

    installed_digest: bytes
    files: Mapping[str, bytes | None]
    """Other files, and digests of their contents."""

    folders: Mapping[str, bytes | None]
    """Other folders that were listed, and digests of the names in them."""

    searched: Mapping[str, bytes | None]
    """Folders that imports searched, and digests of the names that can be imported from there."""

    environment: bytes | None
    """The environment's digest, if it matters."""

    command: bytes | None
    """The command line's digest, if it matters."""

    def unchanged(self, now: Surroundings) -> bool:
        """Whether all of it is as it was."""
        return (
            self.environment in (None, now.environment)
            and self.command in (None, now.command)
            and _stamps(self.installed) == self.installed_digest
            and all(_contents(path) == digest for path, digest in self.files.items())
            and all(_names(path) == digest for path, digest in self.folders.items())
            and all(_names(path, importable=True) == digest for path, digest in self.searched.items())
        )


@contextmanager
def watched(place: str) -> Iterator[None]:
    """While the code of `place` runs: note what it reads."""
    import tempfile

    if not _watch.places:
        tempfile.gettempdir()  # or whoever asks for it first writes a file
        sys.addaudithook(_watch.audit)
        _watch.uncertain = _strangers()  # what they read was not seen
    _watch.places.add(place)
    before, on, _watch.on = _random_states(), _watch.on, True
    try:
        yield
    finally:
        _watch.on = on
        _watch.uncertain |= _random_states() != before


def ingredients(place: str | None, before: Surroundings) -> Ingredients | None:
    """What a trace was made of that was just made in this process, which was in these surroundings before it.

    `place` says whose code made it, None that it is ours or torchvision's. None if nobody can tell what it was made of:
    also after other code than that of `place` ran, which may have changed anything (torch's functions, for example).
    """
    foreign = place is not None
    if _watch.places - {place} or (_watch.uncertain or _has_foreign_rules() if foreign else _strangers()):
        return None
    found = {path for module in list(sys.modules.values()) if (path := _file_of(module)) and Path(path).exists()}
    found |= {str(path) for path in Path(sys.modules["torch"].__file__ or "").parent.glob("lib/*torch*")}
    files = found | (_watch.files if foreign else set())
    folders, searched = (_watch.folders, _watch.searched) if foreign else (set[str](), set[str]())
    installed = tuple(sorted(path for path in files | folders | searched if _is_installed(path)))
    own = sorted(path for path in files if not _is_installed(path))
    if _changed_since(_STARTED_NS, files) or sum(map(_size, own)) > _MOST_BYTES:
        return None
    words = set[bytes]().union(*(_WORDS.findall(_read(path) or b"") for path in own if not _is_ours(path)))
    return Ingredients(
        installed,
        _stamps(installed),
        {path: _contents(path) for path in own},
        {path: _names(path) for path in sorted(folders) if not _is_installed(path)},
        {path: _names(path, importable=True) for path in sorted(searched) if not _is_installed(path)},
        before.environment if words & {b"environ", b"getenv"} else None,
        before.command if words & {b"argv", b"argparse"} else None,
    )


_WORDS = re.compile(rb"\b(?:environ|getenv|argv|argparse)\b")


class _Watch:
    """What others' code did in this process: modules and audit hooks are the process's, so this is as well."""

    def __init__(self) -> None:
        self.on = False
        self.places: set[str | None] = set()
        self.uncertain = False
        """Whether it did something whose result may be another one next time."""

        self.files: set[str] = set()
        self.folders: set[str] = set()
        self.searched: set[str] = set()

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """The hook."""
        if not self.on:
            return
        if event == "open":
            self._note_file(*arguments)
        elif event in ("os.listdir", "os.scandir"):
            path = "." if arguments[0] is None else arguments[0]
            if not isinstance(path, int):
                asking = sys._getframe(1).f_code.co_filename
                (self.searched if asking.startswith(_IMPORT) else self.folders).add(_absolute(path))
        elif event in _UNCERTAIN or event.partition(".")[0] in _UNCERTAIN:
            self.uncertain = True

    def _note_file(self, path: Any, mode: Any, flags: int) -> None:
        if isinstance(path, int) or (opened := _absolute(path)) == os.devnull:
            return
        if Path(opened).parent.name == "__pycache__":  # read in place of a source, or written for the next time
            self.files.add(_source_of(opened))
        elif flags & (os.O_WRONLY | os.O_RDWR):
            self.uncertain = True
        else:
            self.files.add(opened)


_watch = _Watch()

_UNCERTAIN = frozenset({
    "socket", "subprocess", "urllib", "http", "ftplib", "smtplib", "sqlite3", "pty",
    "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system",
})  # fmt: skip
"""Audit events, or what their names begin with."""


_IMPORT = ("<frozen importlib", str(Path(importlib.__file__).parent))
"""What the files of Python's import begin with, and those that look for the versions of packages."""


def _source_of(bytecode: str) -> str:
    """The source of a file in __pycache__, which may be one that is being written: "x.cpython-311.pyc.140122"."""
    try:
        return importlib.util.source_from_cache(bytecode.partition(".pyc")[0] + ".pyc")
    except ValueError:
        return bytecode


def _random_states() -> tuple[Any, ...]:
    import random

    numpy = sys.modules.get("numpy")
    return random.getstate(), str(numpy.random.get_state()) if numpy else ""


def _has_foreign_rules() -> bool:
    from costmodel.rules import rules

    return any(not rule.count.__module__.startswith("costmodel.") for rule in rules().values())


def _strangers() -> bool:
    """Whether a module is loaded that is neither installed nor ours: its code may have done anything."""
    files = (_file_of(module) for module in list(sys.modules.values()))
    return any(file and not _is_installed(file) and not _is_ours(file) for file in files)


def _file_of(module: object) -> str | None:
    """Where a module came from; None if that is no file."""
    name = getattr(module, "__dict__", {}).get("__file__")  # not by attribute, which some modules answer with anything
    return name if isinstance(name, str) and Path(name).is_absolute() else None


def _is_installed(path: str) -> bool:
    return path.startswith(_installation())


@cache
def _installation() -> tuple[str, ...]:
    """The folders of the standard library and of site-packages, each with a separator at its end."""
    folders = [str(Path(os.__file__).parent), *site.getsitepackages(), site.getusersitepackages()]
    return tuple(folder + os.sep for folder in folders)


def _is_ours(path: str) -> bool:
    """Whether a file is of costmodel, the script that starts it included."""
    return path.startswith(str(Path(__file__).parents[1]) + os.sep) or Path(path).stem == "costmodel"


def _absolute(path: Any) -> str:
    return str(Path(os.fsdecode(path)).absolute())


def _changed_since(moment_ns: int, paths: Iterable[str]) -> bool:
    """Whether a file changed so late that another one may have been read."""
    for path in paths:
        try:
            status = Path(path).stat()
        except OSError:
            continue
        if max(status.st_mtime_ns, status.st_ctime_ns) > moment_ns - _TICK_NS:
            return True
    return False


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def _stamps(paths: Iterable[str]) -> bytes:
    """A digest of sizes and times of change."""
    stamps = []
    for path in paths:
        try:
            status = os.stat(path)  # noqa: PTH116  (a thousand of them: Path takes three times as long)
            stamps.append(f"{status.st_size} {status.st_mtime_ns}")
        except OSError:
            stamps.append("")
    return _digest("\n".join(stamps))


def _contents(path: str) -> bytes | None:
    content = _read(path)
    return None if content is None else _digest(content)


def _read(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes() if Path(path).is_file() else None
    except OSError:
        return None


def _names(path: str, importable: bool = False) -> bytes | None:
    """A digest of the names in a folder: all of them, or those of modules and packages."""
    try:
        with os.scandir(path) as entries:
            found = [entry.name for entry in entries if not importable or _can_be_imported(entry)]
    except OSError:
        return None
    return _digest("\0".join(sorted(name for name in found if name != "__pycache__")))


def _can_be_imported(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(_SUFFIXES) or (entry.name.isidentifier() and entry.is_dir())


_SUFFIXES = (*importlib.machinery.all_suffixes(), ".dist-info", ".egg-info")


def _digest(content: bytes | str) -> bytes:
    plain = content.encode(errors="surrogateescape") if isinstance(content, str) else content
    return hashlib.blake2b(plain, digest_size=16).digest()
