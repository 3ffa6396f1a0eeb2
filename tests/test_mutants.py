"""The wrong numbers of tests/mutants/named.toml can be put in today: each place is there once, and its test exists."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
_SPEC = importlib.util.spec_from_file_location("named_mutants", TESTS / "mutants" / "named.py")
assert _SPEC is not None
assert _SPEC.loader is not None
MUTANTS = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS.named(), ids=lambda mutant: mutant.what)
def test_the_place_of_a_wrong_number_is_there(mutant) -> None:
    assert (TESTS.parent / mutant.file).read_text().count(mutant.old) == 1
    assert mutant.new != mutant.old
    assert (TESTS.parent / mutant.test).exists()
