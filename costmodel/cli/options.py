"""The options that several commands share, each declared once, as classes whose fields are options.

A command takes such a class as one parameter; `expanded` turns that into the options that typer sees.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_type_hints

import typer


class Format(StrEnum):
    """How an answer is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MD = "md"


class By(StrEnum):
    """What costs are grouped by."""

    LAYER = "layer"
    BLOCK = "block"
    KIND = "kind"
    OPERATOR = "operator"
    PHASE = "phase"


class PeakBy(StrEnum):
    """What the bytes at a peak are grouped by."""

    TENSOR = "tensor"
    LAYER = "layer"
    BLOCK = "block"
    ROLE = "role"


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A name (see `costmodel models`), torchvision:NAME, package.module:callable or path/file.py:callable.",
        show_default=False,
    ),
]
Models = Annotated[list[str], typer.Argument(metavar="MODEL...", help="One or more networks.", show_default=False)]


def _complete_device(incomplete: str) -> list[str]:
    from costmodel.devices import names

    return [name for name in names() if name.startswith(incomplete)]


_DEVICE = typer.Option(
    "--device",
    "-d",
    metavar="DEVICE",
    help="A name (see `costmodel devices`) or a TOML file.",
    autocompletion=_complete_device,
    show_default=False,
)
DeviceOption = Annotated[str, _DEVICE]
OptionalDevice = Annotated[str | None, _DEVICE]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there.")]
GroupBy = Annotated[By, typer.Option("--by", help="What each row stands for.")]
Depth = Annotated[
    int | None, typer.Option("--depth", metavar="N", help="With --by block: cut paths to N components.", min=1)
]
Sweep = Annotated[
    str | None,
    typer.Option(
        "--sweep",
        metavar="B,B,...",
        help="One row a batch, for these batches instead of --batch: 1,2,4,8.",
        show_default=False,
    ),
]
AllowUnmodelled = Annotated[
    bool, typer.Option("--allow-unmodelled", help="Exit with 0 even if operators without a rule were not counted.")
]


NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Neither use what earlier commands found out about networks nor keep it.")
]


@dataclass(frozen=True)
class NetworkOptions:
    """A network's inputs and classes."""

    panel: ClassVar = "Network"
    input: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SHAPE",
            help="An input without the batch, like 3x224x224, 128:int64 or input_ids=128:int64; once for each input.",
        ),
    ] = None
    classes: Annotated[
        int | None, typer.Option(metavar="N", help="Number of classes.", show_default="the network's own")
    ] = None


@dataclass(frozen=True)
class InputOptions(NetworkOptions):
    """A network's inputs, its batch, and whether it really runs."""

    batch: Annotated[int, typer.Option(metavar="N", help="Batch size.")] = 1
    run: Annotated[
        bool, typer.Option("--run", help="Really run it, on the CPU: for control flow that depends on values.")
    ] = False
    no_cache: NoCache = False


@dataclass(frozen=True)
class TrainingOptions:
    """The data type, and how a network is trained."""

    panel: ClassVar = "Training step and types"
    dtype: Annotated[
        str | None,
        typer.Option(metavar="TYPE", help="float32, float16, bfloat16 ...", show_default="the network's own"),
    ] = None
    train: Annotated[bool, typer.Option("--train", help="A training step: forward, loss, backward, optimizer.")] = False
    optimizer: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --train: sgd, adam, adamw.", show_default="sgd")
    ] = None
    momentum: Annotated[float | None, typer.Option(metavar="M", help="With --train and sgd.", show_default="none")] = (
        None
    )
    weight_decay: Annotated[
        float | None, typer.Option(metavar="W", help="With --train.", show_default="the optimizer's own")
    ] = None
    fused: Annotated[
        bool, typer.Option("--fused", help="With --train: the fused optimizer, one kernel without temporaries.")
    ] = False
    foreach: Annotated[
        bool | None,
        typer.Option(
            "--foreach/--no-foreach",
            help="With --train: the optimizer's implementation over lists of tensors.",
            show_default="as PyTorch: on cuda",
        ),
    ] = None


@dataclass(frozen=True)
class StepOptions(TrainingOptions):
    """How a step is run."""

    first_step: Annotated[
        bool, typer.Option("--first-step", help="With --train: the first step, which allocates the optimizer's state.")
    ] = False
    keep_gradients: Annotated[
        bool, typer.Option("--keep-gradients", help="With --train: zero_grad(set_to_none=False) keeps them alive.")
    ] = False
    accumulate: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="With --train: gradients of N micro-batches of --batch samples.",
            show_default="1",
        ),
    ] = None
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="With --train: a module to recompute in the backward, like features or layers.*; repeatable.",
        ),
    ] = None
    autocast: Annotated[
        str | None, typer.Option(metavar="TYPE", help="Mixed precision: bfloat16, float16.", show_default="none")
    ] = None
    channels_last: Annotated[bool, typer.Option("--channels-last", help="The channels_last memory format.")] = False
    target: Annotated[
        str | None,
        typer.Option(
            metavar="TARGET",
            help="Operators of cuda (needs no GPU) or cpu.",
            show_default="the device's, else cuda",
        ),
    ] = None


@dataclass(frozen=True)
class Tf32Options:
    """Which float32 contractions may use TF32; the defaults are PyTorch's."""

    panel: ClassVar = TrainingOptions.panel
    tf32_conv: Annotated[
        bool, typer.Option("--tf32-conv/--no-tf32-conv", help="Whether float32 convolutions may use TF32.")
    ] = True
    tf32_matmul: Annotated[
        bool, typer.Option("--tf32-matmul/--no-tf32-matmul", help="Whether float32 matrix products may use TF32.")
    ] = False


@dataclass(frozen=True)
class FormatOptions:
    """How the answer is written."""

    panel: ClassVar = "Output"
    format: Annotated[
        Format, typer.Option("--format", "-f", help="For people: table, md. For programs, in base units: json, csv.")
    ] = Format.TABLE


@dataclass(frozen=True)
class OutputOptions(FormatOptions):
    """How the answer is written, and where to."""

    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write to a file.", show_default="standard output"),
    ] = None
    force: Force = False


def expanded(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with each parameter that is a class of options replaced by that class's fields."""
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name not in groups:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[parameter.name]))
            continue
        group = groups[parameter.name]
        inner = get_type_hints(group, include_extras=True)
        parameters += [
            inspect.Parameter(
                f.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=f.default,
                annotation=_in_panel(inner[f.name], group.panel),
            )
            for f in fields(group)
        ]

    @wraps(function)
    def call(**values: Any) -> Any:
        made = {name: group(**{f.name: values.pop(f.name) for f in fields(group)}) for name, group in groups.items()}
        return function(**values, **made)

    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call


def _in_panel(hint: Any, panel: str) -> Any:
    """An option's annotation, shown in a panel of the help."""
    option = copy(hint.__metadata__[0])
    option.rich_help_panel = panel
    return Annotated[hint.__origin__, option]
