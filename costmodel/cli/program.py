"""The program, and the decorator that turns a function into a command."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

import costmodel
from costmodel.cli.options import expanded
from costmodel.cli.output import Answer, deliver

app = typer.Typer(
    name="costmodel",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="What a neural network costs (parameters, memory, arithmetic, time), without running it.",
    epilog="Exit codes: 0 fine, 1 a check failed, 2 wrong usage or a bad file, 3 operators without a rule, "
    "4 hardware that is not there.",
)


class _Command(TyperCommand):
    """A command whose help lists options by what they are about, in plain text, which loads nothing."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
            if record := parameter.get_help_record(ctx):
                panels.setdefault(getattr(parameter, "rich_help_panel", None) or usual, []).append(record)
        for title, records in panels.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def command(function: Callable[..., Answer]) -> Callable[..., Answer]:
    """Turn a function that returns an answer into a command."""

    @wraps(function)
    def called(**values: Any) -> None:
        deliver(function, **values)

    app.command(cls=_Command)(expanded(called))
    return function


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """The program without a command: its version or its help."""
    if version:
        typer.echo(f"costmodel {costmodel.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
