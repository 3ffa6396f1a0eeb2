"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import secrets
from pathlib import Path


def write_whole(target: Path, content: bytes) -> None:
    """Put a file in place once all of it is written; what stood there stays until then. Raises OSError."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")  # no other thread's or process's
    try:
        temporary.write_bytes(content)
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
