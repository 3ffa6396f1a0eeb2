"""The command line: parse, call, render. `main` is the program `costmodel`; `run` gives its exit code back.

Exit codes: 0 fine, 1 a check fell outside its tolerance, 2 wrong usage or a bad file, 3 operators without a rule, 4 the
hardware is missing, 70 a bug of ours, 130 interrupted. An error is a line or two on stderr, never a traceback,
unless COSTMODEL_DEBUG=1 asks for one.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import typer

from costmodel.cli import (  # noqa: F401  (their import makes the commands)
    analysis,
    calibration,
    checks,
    chip,
    lists,
    measuring,
    memory,
    traffic,
)
from costmodel.cli.program import app
from costmodel.errors import CostModelError

USAGE, BUG, INTERRUPTED = 2, 70, 130


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the program and leave the interpreter with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show "µ" shows something else
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (that of the process if None) and return its exit code; nothing is raised."""
    try:
        command = typer.main.get_command(app)
        code = command.main(arguments, prog_name="costmodel", standalone_mode=False)
        if code == INTERRUPTED:  # some versions of typer return it
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except CostModelError as error:
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted.", INTERRUPTED)
    except Exception as error:
        if hasattr(error, "format_message"):
            return _fail(error.format_message() + _hint(error), USAGE)
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return _fail(f"{text[:300]}\nThis is a bug in costmodel: COSTMODEL_DEBUG=1 shows where it happened.", BUG)


def _fail(message: str, code: int) -> int:
    if os.environ.get("COSTMODEL_DEBUG"):
        traceback.print_exc()
    else:
        typer.echo(f"Error: {message}", err=True)
    return code


def _hint(error: Exception) -> str:
    """Where to find help after wrong usage."""
    context = getattr(error, "ctx", None)
    return f"\nTry '{context.command_path} --help'." if context is not None else ""
