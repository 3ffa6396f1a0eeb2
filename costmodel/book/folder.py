"""Files into a folder, all or none, and never over somebody else's work.

A manifest in the folder (`.costmodel.json`) holds the SHA-256 of each file that was written here, and the versions of
the packages that its content depends on. A file at a place
that is to be written is ours if its content is what the manifest says; any other is refused unless `force` is set. New
files are staged in a temporary folder beside their places and renamed into them, and the manifest knows of both
contents meanwhile, so that a run that was cut off can be repeated.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from pathlib import Path, PurePosixPath

from costmodel.errors import InputError

MANIFEST = ".costmodel.json"
SCHEMA = "costmodel/manifest/1"

Known = Mapping[str, tuple[str, ...]]
"""For each path relative to the folder, the digests of the contents that are ours."""


MADE_WITH = ("torch", "torchvision", "fvcore", "matplotlib", "numpy")
"""Other versions of these may write other bytes: other operators, other lines of a drawing."""


def versions() -> dict[str, str]:
    """The installed versions of MADE_WITH; an empty text for what is not installed."""
    installed = {}
    for package in MADE_WITH:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            installed[package] = ""
    return installed


def check(folder: Path, paths: Collection[str], *, force: bool = False) -> None:
    """Whether `paths` (relative, with "/") may be written into `folder`; nothing is written.

    Raises InputError if the folder cannot be written to, or if files are there that we did not write or that were
    changed since, unless `force` is set.
    """
    ground = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not ground.is_dir():
        raise InputError(f"cannot write into {folder}: {ground} is not a folder.")
    try:
        tempfile.TemporaryDirectory(dir=ground).cleanup()  # permissions alone do not say it: think of /proc
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {error.strerror or error}.") from None
    known = _known(folder, force)
    blocked = sorted(path for path in paths if _blocked(folder, path))
    if blocked:
        raise InputError(f"cannot write {blocked[0]} into {folder}: something that is not a file stands in its way.")
    foreign = [] if force else sorted(path for path in paths if not _ours(folder / path, known.get(path, ())))
    if foreign:
        shown = ", ".join(foreign[:3]) + (f" and {len(foreign) - 3} more" if len(foreign) > 3 else "")
        raise InputError(
            f"{folder} holds files that costmodel did not write, or that were changed since: {shown}.\n"
            "Move them away, write into another folder (--output), or overwrite them with --force."
        )


def save(folder: Path, files: Mapping[str, bytes], *, force: bool = False) -> list[Path]:
    """Write `files` (relative path to content) into `folder`, all or none; return where they are, in the given order.

    Files that an earlier run wrote there, that are unchanged and that are not among `files` any more are removed.
    Raises InputError as `check` does, or if the disk refuses.
    """
    check(folder, files, force=force)
    try:
        return _save(folder, files, _known(folder, force))
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {error.strerror or error}.") from error


def _save(folder: Path, files: Mapping[str, bytes], known: Known) -> list[Path]:
    fresh = {path: (hashlib.sha256(content).hexdigest(),) for path, content in files.items()}
    stale = [path for path in known if path not in files and _ours(folder / path, known[path])]
    folder.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".costmodel-", dir=folder))
    try:
        for index, content in enumerate(files.values()):
            (staging / f"new{index}").write_bytes(content)
        _write_manifest(
            folder, staging, {path: known.get(path, ()) + fresh.get(path, ()) for path in {**known, **fresh}}
        )
        _put_in_place(folder, staging, list(files))
        for path in stale:
            (folder / path).unlink(missing_ok=True)
        _write_manifest(folder, staging, fresh)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return [folder / path for path in files]


def _put_in_place(folder: Path, staging: Path, paths: Sequence[str]) -> None:
    """Rename the staged files into their places; if one cannot be, put back what stood there."""
    done: list[int] = []
    try:
        for index, path in enumerate(paths):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                shutil.copyfile(target, staging / f"old{index}")
            (staging / f"new{index}").replace(target)
            done.append(index)
    except BaseException:
        for index in done:
            if (staging / f"old{index}").exists():
                (staging / f"old{index}").replace(folder / paths[index])
            else:
                (folder / paths[index]).unlink()
        raise


def _write_manifest(folder: Path, staging: Path, known: Known) -> None:
    document = {
        "schema": SCHEMA,
        "versions": versions(),
        "files": {path: sorted(set(digests)) for path, digests in sorted(known.items())},
    }
    staged = staging / "manifest"
    staged.write_bytes((json.dumps(document, indent=1) + "\n").encode())
    staged.replace(folder / MANIFEST)


def _known(folder: Path, force: bool) -> Known:
    """What the manifest says. A damaged one is an error, or nothing at all when `force` is set."""
    try:
        document = json.loads((folder / MANIFEST).read_bytes())
        if document["schema"] != SCHEMA:
            raise ValueError(document["schema"])
        return {path: tuple(digests) for path, digests in document["files"].items() if _inside(path)}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if force:
            return {}
        raise InputError(f"{folder / MANIFEST} is damaged ({error!r}): remove it, or overwrite with --force.") from None


def _inside(path: str) -> bool:
    """Whether a relative path stays in its folder: a manifest that somebody else wrote removes nothing outside."""
    return not PurePosixPath(path).is_absolute() and ".." not in PurePosixPath(path).parts


def _ours(path: Path, digests: tuple[str, ...]) -> bool:
    """Whether nothing stands at `path`, or something that we wrote."""
    if not path.exists() and not path.is_symlink():
        return True
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() in digests


def _blocked(folder: Path, path: str) -> bool:
    """Whether a folder stands where a file is wanted, or a file where a folder is."""
    target = folder / path
    above = [parent for parent in target.parents if parent != folder and folder in parent.parents]
    return target.is_dir() or any(parent.exists() and not parent.is_dir() for parent in above)
