"""Files are written whole or not at all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from costmodel.files import write_whole


def test_what_stood_there_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "answer"
    for content in (b"a long answer", b"short"):
        write_whole(target, content)
        assert target.read_bytes() == content
    assert list(tmp_path.iterdir()) == [target]


def test_what_cannot_be_finished_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "answer"
    target.write_bytes(b"the old one")

    def interrupted(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(target, b"the new one")
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_bytes() == b"the old one"


def test_of_several_that_write_at_once_one_is_whole(tmp_path: Path) -> None:
    """Large contents, so that threads that shared a temporary file would mix them, or find it gone."""
    target, contents = tmp_path / "answer", [bytes([number]) * 5_000_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write_whole, [target] * 8, contents))
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_bytes() in contents
