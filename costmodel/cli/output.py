"""Output of the answer: to stdout or into a file, whole or not at all. Anything else printed goes to stderr."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from costmodel import progress as progressing
from costmodel.cli.options import Format, FormatOptions, OutputOptions
from costmodel.errors import InputError
from costmodel.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from costmodel.chip.nests import Unlowered
    from costmodel.cost import Costs
    from costmodel.view import Table

WIDTH = 120
"""Of a table that does not go to a terminal."""


class Answer(NamedTuple):
    """A command's answer and its exit code."""

    text: str
    code: int = 0


def deliver(command: Callable[..., Answer], *args: Any, **kwargs: Any) -> None:
    """Call a command and write its answer; what a network prints while it is built or run goes to stderr.

    Raises typer.Exit with the answer's code if that is not 0, and InputError if a file cannot be written.
    """
    out = next((value for value in kwargs.values() if isinstance(value, OutputOptions)), None)
    file = out.output if out else None
    if out and file:
        check_free(file, out.force)
    with redirect_stdout(sys.stderr):
        try:
            answer = command(*args, **kwargs)
        except SystemExit as error:
            raise InputError(f"the network's own code left the program with exit code {error.code}.") from error
    if file:
        write_file(file, answer.text.encode(errors="replace"))
    else:
        _write_out(answer.text)
    if answer.code:
        raise typer.Exit(answer.code)


def check_free(path: Path, force: bool) -> None:
    """Raises InputError if a file cannot be written to `path`, or may not be overwritten."""
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a file in it.")
    if path.exists() and not force:
        raise InputError(f"{path} exists already: name another file, or overwrite it with --force.")
    if not path.absolute().parent.is_dir():
        raise InputError(f"cannot write {path}: there is no folder {path.parent}.")


def check_picture(path: Path, force: bool) -> None:
    """Raises InputError if no plot can be drawn into `path`."""
    if path.suffix.lower() not in (".png", ".svg"):
        raise InputError(f"cannot draw into {str(path)!r}: give it a name that ends in .png or .svg.")
    check_free(path, force)


def picture(axes: Axes, path: Path) -> bytes:
    """A plot as the content of a file of that name."""
    from costmodel import plots

    with tempfile.TemporaryDirectory() as folder:
        written = plots.save(axes.figure, Path(folder) / "figure")  # type: ignore[arg-type]  # its own, not a subfigure
        return next(file.read_bytes() for file in written if file.suffix == path.suffix.lower())


def exit_code(costs: Sequence[Costs], allow_unmodelled: bool) -> int:
    """0, or 3 for operators without a rule; they are named on stderr as well, for a program that reads the answer."""
    missing = sorted({entry.operator for each in costs for entry in each.unmodelled})
    if not missing:
        return 0
    way_out = "" if allow_unmodelled else "\nGive it a rule (costmodel.rule), or accept that with --allow-unmodelled."
    typer.echo(f"{'Warning' if allow_unmodelled else 'Error'}: no rule for {', '.join(missing)}.{way_out}", err=True)
    return 0 if allow_unmodelled else 3


def uncounted_code(unlowered: Sequence[Unlowered], allow_unmodelled: bool) -> int:
    """0, or 3 for contractions without a loop nest; they are named on stderr as well."""
    if not unlowered:
        return 0
    names = ", ".join(f"{lost.operator} ({lost.reason})" for lost in unlowered)
    way_out = "" if allow_unmodelled else "\nAccept that with --allow-unmodelled."
    typer.echo(f"{'Warning' if allow_unmodelled else 'Error'}: not counted: {names}.{way_out}", err=True)
    return 0 if allow_unmodelled else 3


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and say so on stderr. Raises InputError if that fails."""
    try:
        write_whole(path, content)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}.") from None
    typer.echo(f"Wrote {path}.", err=True)


def rendered(table: Table, shown: FormatOptions) -> str:
    """A table in the format that was chosen, as wide as the terminal, with colours if there is one that wants them."""
    if shown.format is Format.CSV:
        return table.csv()
    if shown.format is Format.MD:
        from costmodel.view.markdown import to_markdown

        return to_markdown(table)
    from costmodel.view.terminal import to_terminal

    to_file = isinstance(shown, OutputOptions) and shown.output is not None
    terminal = sys.__stdout__ is not None and sys.__stdout__.isatty() and not to_file
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    asked = terminal or os.environ.get("COLUMNS", "").isdecimal()
    width = shutil.get_terminal_size((WIDTH, 24)).columns if asked else WIDTH
    return to_terminal(table, width, color=terminal and not plain)


@contextmanager
def progress() -> Iterator[progressing.Progress]:
    """A progress bar on stderr if that is a terminal: called with a text, the steps done and the steps in all."""
    if not sys.stderr.isatty():
        yield progressing.silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda text, done, total: bar.update(task, description=text, completed=done, total=total)


def _write_out(text: str) -> None:
    """Write to stdout; a reader that closes the pipe early (`| head -1`) is no error."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains when it flushes
