"""The example notebook runs from top to bottom, and shows what it showed when it was committed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent.parent / "reports" / "notebooks" / "alexnet_and_vgg.ipynb"


def shown(cell: Any) -> list[str]:
    """The texts of a cell's outputs."""
    return [output.get("text") or output["data"]["text/plain"] for output in cell.outputs]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
def test_the_example_notebook(tmp_path: Path) -> None:
    committed = nbformat.read(NOTEBOOK, as_version=4)
    fresh = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(fresh, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    code = [pair for pair in zip(committed.cells, fresh.cells, strict=True) if pair[0].cell_type == "code"]
    assert len(code) >= 8
    for before, after in code:
        assert shown(after) == shown(before)
    assert sum("image/png" in output.get("data", {}) for _, cell in code for output in cell.outputs) == 2
