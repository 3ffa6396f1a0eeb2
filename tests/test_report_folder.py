"""Writing into a folder: all or none, and never over somebody else's work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from costmodel.book.folder import MANIFEST, check, save
from costmodel.errors import InputError

FILES = {"report.md": b"one\n", "tables/a.csv": b"a,b\n1,2\n", "figures/a.svg": b"<svg/>"}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in a folder but the manifest."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.name != MANIFEST}


def test_writes_all_files_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "reports"
    assert save(folder, FILES) == [folder / path for path in FILES]
    assert contents(folder) == FILES


def test_writes_over_its_own_files(tmp_path: Path) -> None:
    save(tmp_path, FILES)
    save(tmp_path, FILES | {"report.md": b"two\n"})
    save(tmp_path, FILES | {"report.md": b"three\n"})
    assert contents(tmp_path) == FILES | {"report.md": b"three\n"}


def test_a_second_run_changes_no_byte(tmp_path: Path) -> None:
    save(tmp_path, FILES)
    before = (tmp_path / MANIFEST).read_bytes()
    save(tmp_path, FILES)
    assert (tmp_path / MANIFEST).read_bytes() == before


def test_removes_what_it_wrote_and_does_not_write_any_more(tmp_path: Path) -> None:
    save(tmp_path, FILES)
    (tmp_path / "tables" / "mine.csv").write_text("keep me")
    save(tmp_path, {"report.md": b"one\n"})
    assert contents(tmp_path) == {"report.md": b"one\n", "tables/mine.csv": b"keep me"}


def test_keeps_a_file_of_its_own_that_was_changed_since(tmp_path: Path) -> None:
    save(tmp_path, FILES)
    (tmp_path / "tables" / "a.csv").write_text("edited")
    save(tmp_path, {"report.md": b"one\n"})
    assert (tmp_path / "tables" / "a.csv").read_text() == "edited"


def test_refuses_a_file_that_it_did_not_write(tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text("mine")
    with pytest.raises(InputError, match=r"report\.md(.|\n)*--force"):
        save(tmp_path, FILES)
    assert contents(tmp_path) == {"report.md": b"mine"}


def test_refuses_a_file_that_was_changed_since(tmp_path: Path) -> None:
    save(tmp_path, FILES)
    (tmp_path / "report.md").write_text("edited")
    with pytest.raises(InputError, match=r"changed since: report\.md\."):
        save(tmp_path, dict.fromkeys(FILES, b"new"))
    assert contents(tmp_path) == FILES | {"report.md": b"edited"}


def test_names_the_first_few_of_many(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.csv").write_text("mine")
    with pytest.raises(InputError, match=r"0\.csv, 1\.csv, 2\.csv and 2 more"):
        save(tmp_path, {f"{number}.csv": b"" for number in range(5)})


def test_force_overwrites(tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text("mine")
    save(tmp_path, FILES, force=True)
    assert contents(tmp_path) == FILES
    save(tmp_path, FILES)  # they are ours now


@pytest.mark.parametrize("force", [False, True])
def test_a_path_through_a_file_is_an_error(tmp_path: Path, force: bool) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="file is not a folder"):
        save(tmp_path / "file" / "reports", FILES, force=force)
    assert contents(tmp_path) == {"file": b"x"}


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_in_the_place_of_a_file_is_an_error(tmp_path: Path, force: bool) -> None:
    (tmp_path / "report.md").mkdir()
    with pytest.raises(InputError, match=r"cannot write report\.md"):
        save(tmp_path, FILES, force=force)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("force", [False, True])
def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path: Path, force: bool) -> None:
    (tmp_path / "tables").write_text("mine")
    with pytest.raises(InputError, match=r"cannot write tables/a\.csv"):
        save(tmp_path, FILES, force=force)
    assert contents(tmp_path) == {"tables": b"mine"}


def test_checking_writes_nothing(tmp_path: Path) -> None:
    check(tmp_path / "reports", list(FILES))
    assert not (tmp_path / "reports").exists()


def test_a_failure_half_way_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, FILES)
    replace = Path.replace

    def failing(self: Path, target: Path) -> Path:
        if self.name == "new2":
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(InputError, match="No space left on device"):
        save(tmp_path, dict.fromkeys(FILES, b"new"))
    assert contents(tmp_path) == FILES  # and no staging folder is left
    monkeypatch.undo()
    save(tmp_path, FILES)


def test_a_run_that_was_cut_off_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the machine went down between two renames: one file is new, the other old, and both are known as ours."""
    new = dict.fromkeys(FILES, b"new")
    save(tmp_path, FILES)
    monkeypatch.setattr("costmodel.book.folder._put_in_place", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, new)
    monkeypatch.undo()
    (tmp_path / "report.md").write_bytes(b"new")
    save(tmp_path, new)
    assert contents(tmp_path) == new


@pytest.mark.parametrize("text", ["", "not json", "[]", '{"schema": "other/1", "files": {}}', '{"files": 1}'])
def test_a_damaged_manifest_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(InputError, match="damaged"):
        save(tmp_path, FILES)
    save(tmp_path, FILES, force=True)
    assert contents(tmp_path) == FILES


def test_a_manifest_that_points_outside_removes_nothing(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # SHA-256 of no bytes
    folder = tmp_path / "reports"
    folder.mkdir()
    document = {"schema": "costmodel/manifest/1", "files": {"../victim": [empty], str(victim): [empty]}}
    (folder / MANIFEST).write_text(json.dumps(document))
    save(folder, FILES)
    assert victim.exists()
