"""Answers kept in the user's cache folder, for the processes to come: traces of networks, the list of their names.

An answer stands under all that was asked, and under which Python, costmodel, torch and torchvision are installed. It is
given as long as what it was made of is unchanged (see `ingredients`). A file is written whole and carries a checksum of
its question and its content: what is damaged or foreign is no answer. Processes may share the folder.

COSTMODEL_CACHE names another folder, or is "off". A cache is a convenience: where the folder cannot be made, read or
written nothing is kept, and nothing is raised or said.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import sys
import time
import zlib
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

import costmodel
from costmodel.files import write_whole
from costmodel.networks.ingredients import Ingredients, Surroundings, ingredients, surroundings

LIMIT_BYTES = 512 * 2**20
"""Of all answers together; those that were not used for longest are dropped."""

_T = TypeVar("_T")


class Question(NamedTuple):
    """What is asked, before anything is done to answer it."""

    key: bytes
    place: str | None
    before: Surroundings


def question(place: str | None, *asked: Any) -> Question | None:
    """A question about a network whose code is in `place`, None for ours and torchvision's.

    None if no answer can be kept: what is asked is not made of plain values, or torch's defaults are not its own.
    """
    if _torch_was_changed():
        return None
    here = [] if place is None else [str(Path.cwd()), sys.path]
    try:
        return Question(json.dumps([asked, _installation(), here], sort_keys=True).encode(), place, surroundings())
    except (TypeError, ValueError):
        return None


def recall(asked: Question, kind: type[_T]) -> _T | None:
    """The answer of an earlier process; None if there is none, or things have changed since."""
    path = _path(asked.key)
    if path is None:
        return None
    try:
        whole = path.read_bytes()
        if whole[: len(_MAGIC) + _DIGEST_BYTES] != _head(asked.key, whole[len(_MAGIC) + _DIGEST_BYTES :]):
            return None
        content = zlib.decompress(whole[len(_MAGIC) + _DIGEST_BYTES :])
        made_of, answer = msgspec.msgpack.decode(content, type=tuple[Ingredients, kind])  # type: ignore[valid-type]
        if not made_of.unchanged(asked.before):
            return None
        os.utime(path)  # it was used
    except (OSError, zlib.error, msgspec.MsgspecError):
        return None
    return answer


def keep(asked: Question, answer: Any) -> None:
    """Keep an answer that was just found, if it is certain what it was made of."""
    path = _path(asked.key)
    made_of = ingredients(asked.place, asked.before) if path else None
    if path is None or made_of is None:
        return
    content = zlib.compress(msgspec.msgpack.encode((made_of, answer)), 1)
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, _head(asked.key, content) + content)
        _drop_oldest(path.parent)


def _torch_was_changed() -> bool:
    """Whether somebody gave torch another default type or device than its own, which changes what a network does."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    return torch.get_default_dtype() is not torch.float32 or torch.get_default_device().type != "cpu"


def _installation() -> list[Any]:
    """What everything is made of."""
    switches = sorted((name, value) for name, value in os.environ.items() if name.startswith(("TORCH_", "PYTORCH_")))
    packages = [_installed(name) for name in ("torch", "torchvision")]
    return [costmodel.__version__, sys.version, sys.flags.optimize, platform.machine(), packages, switches]


def _installed(package: str) -> list[str]:
    """Where a package is, and the name of its metadata, in which its version stands: without importing it."""
    spec = PathFinder.find_spec(package)
    if spec is None or spec.origin is None:
        return []
    return [spec.origin, *sorted(path.name for path in Path(spec.origin).parents[1].glob(f"{package}-*.dist-info"))]


_MAGIC = b"costmodel answer 1\n"
_SUFFIX = ".answer"
_DIGEST_BYTES = 16


def _head(key: bytes, content: bytes) -> bytes:
    """What a file begins with."""
    return _MAGIC + hashlib.blake2b(b"%d\n%b%b" % (len(key), key, content), digest_size=_DIGEST_BYTES).digest()


def _path(key: bytes) -> Path | None:
    """The file of a question; None if nothing is kept."""
    chosen = os.environ.get("COSTMODEL_CACHE", "")
    if chosen.lower() == "off":
        return None
    try:
        folder = Path(chosen).absolute() if chosen else _users_folder()
    except (OSError, RuntimeError):  # nobody knows where the user's home is
        return None
    return folder / (hashlib.blake2b(key, digest_size=_DIGEST_BYTES).hexdigest() + _SUFFIX)


def _users_folder() -> Path:
    import platformdirs

    return platformdirs.user_cache_path("costmodel", appauthor=False) / "answers"


def _drop_oldest(folder: Path) -> None:
    """Remove what was not used for longest until the rest is within the limit, and what a killed process left."""
    kept = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another process may be doing the same
            status = path.stat()
            if path.suffix == _SUFFIX:
                kept.append((status.st_mtime, status.st_size, path))
            elif _SUFFIX in path.name and status.st_mtime < time.time() - _ABANDONED_SECONDS:
                path.unlink()
    total = sum(size for _, size, _ in kept)
    for _, size, path in sorted(kept):
        if total <= LIMIT_BYTES:
            break
        with contextlib.suppress(OSError):
            path.unlink()
        total -= size


_ABANDONED_SECONDS = 3600.0  # after which nobody is still writing a file
