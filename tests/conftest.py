"""What holds for every test."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest

hypothesis.settings.register_profile("untimed", deadline=None)  # other processes and the coverage slow a test down
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is read from the user's cache folder or kept there, in the processes that tests start either."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COSTMODEL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
