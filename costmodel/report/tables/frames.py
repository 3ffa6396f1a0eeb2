"""What every table shares: frames of rows, the row of sums below them, and their rows as plain values and as CSV."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from costmodel.display import is_missing
from costmodel.report.columns import column

if TYPE_CHECKING:
    import pandas as pd

TOTAL = "total"


def frame_of(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> pd.DataFrame:
    """A frame whose whole numbers stay whole where others are missing."""
    import pandas as pd

    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    return pd.DataFrame({name: _series(values) for name, values in zip(names, columns, strict=True)})


def share(part: float, whole: float) -> float:
    """A part over its whole; 0 where there is nothing to divide by."""
    return part / whole if whole else 0.0


def total_of(frame: pd.DataFrame) -> dict[str, Any] | None:
    """The row of sums under a frame, or None where nothing adds up; what does not add up is missing from it.

    Ratios are those of the sums.
    """
    sums: dict[str, Any] = {
        str(name): _sum(frame[name]) for name in frame.columns if column(str(name)).adds and _complete(frame, str(name))
    }
    if not sums:
        return None
    moved = sums["moved_bytes"] if "moved_bytes" in sums else sums.get("read_bytes", 0) + sums.get("write_bytes", 0)
    ratios = {
        "arithmetic_intensity": share(sums.get("flops", 0), moved),
        "flops_per_second": share(sums.get("flops", 0), sums.get("bound_seconds", 0)),
    }
    return (
        {str(frame.columns[0]): TOTAL} | sums | {name: value for name, value in ratios.items() if name in frame.columns}
    )


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as plain Python values: int, float, str, bool, list, None."""
    names = [str(name) for name in frame.columns]
    values = frame.astype(object).where(frame.notna(), None)
    return [dict(zip(names, map(_plain, row), strict=True)) for row in values.itertuples(index=False)]


def csv(frame: pd.DataFrame) -> str:
    """A frame as CSV: base units, whole numbers in full, shapes as 1x96x54x54, nothing where a value is missing."""
    heads = [_csv_cell(str(name)) for name in frame.columns]
    rows = zip(*(_csv_column(frame[name]) for name in frame.columns), strict=True)
    return "".join(",".join(line) + "\n" for line in chain([heads], rows))


def _series(values: Sequence[Any]) -> pd.Series[Any]:
    import pandas as pd

    kinds = {type(value) for value in values}
    return pd.Series(list(values), dtype=None if kinds in ({int}, {float}, {bool}) else object)


def _complete(frame: pd.DataFrame, name: str) -> bool:
    """Whether a column of estimates has one for each row that takes time: a sum of some would pass for that of all."""
    if name != "estimate_seconds":
        return True
    return not any(map(is_missing, frame[name][frame["bound_seconds"] > 0]))


def _sum(values: pd.Series[Any]) -> Any:
    """Whole numbers exactly, as Python's integers; times with one rounding."""
    known = [_plain(value) for value in values if not is_missing(value)]
    return sum(known) if all(isinstance(value, int) for value in known) else math.fsum(known)


def _csv_column(values: pd.Series[Any]) -> Iterable[str]:
    """The cells of a column; numbers, and texts that repeat, take no look at each, as there may be a million."""
    if hasattr(values, "cat"):
        cells = {value: _csv_cell(_plain(value)) for value in values.cat.categories}
        return (cells.get(value, "") for value in values.tolist())
    if str(values.dtype) in ("int8", "int64", "float64") and not values.hasnans:
        return map(str, values.tolist())
    return (_csv_cell(_plain(value)) for value in values.astype(object).where(values.notna(), None))


def _csv_cell(value: Any) -> str:
    """A value as RFC 4180 has it; Python's own writer would leave a lone carriage return bare."""
    text = "" if value is None else "x".join(map(str, value)) if isinstance(value, list) else str(value)
    return '"' + text.replace('"', '""') + '"' if re.search(r'[",\r\n]', text) else text


def _plain(value: Any) -> Any:
    """Numpy's numbers as Python's, tuples as lists, NaN as None."""
    if is_missing(value):
        return None
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.item() if hasattr(value, "item") else value
