"""What costmodel raises: each message says in one or two lines what was wrong and what to do about it.

Every error carries the exit code that the command line answers with, so that a script can tell them apart.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CostModelError(Exception):
    """The parent of every error of this package."""

    exit_code = 2


class InputError(CostModelError):
    """A name, an option, a shape or a file that cannot be used as given."""


class TraceError(CostModelError):
    """The network could not be traced: its forward raised, or depends on values that meta tensors do not have."""


class HardwareError(CostModelError):
    """The requested hardware is not on this machine."""

    exit_code = 4


def type_of(value: object) -> str:
    """What a value is, for a message: "an int", "a Trace"."""
    return with_article(type(value).__name__)


def with_article(noun: str) -> str:
    """A noun with its article: "an accelerator"."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def missing_extra(package: str, extra: str) -> str:
    """What to say where a package is missing that one of costmodel's extras brings."""
    return f"{package} is not installed: pip install 'costmodel[{extra}]' brings it"


def nearest(word: str, choices: Iterable[str], limit: int = 3) -> str:
    """The choices closest to a misspelt `word`, as a phrase to put behind an error message (or an empty text).

    >>> nearest("vgg1", ["vgg16", "vgg19x", "lenet"])
    ' Did you mean vgg16, vgg19x?'
    """
    by_lower = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(word.lower(), by_lower, n=limit, cutoff=0.6)
    return f" Did you mean {', '.join(by_lower[name] for name in found)}?" if found else ""
