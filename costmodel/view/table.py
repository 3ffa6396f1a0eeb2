"""A result as a table: columns of the schema and their values in base units, with what people read around them.

The data are tidy: a row says one thing, and what it says it of stands in columns. DataFrame, CSV and JSON have these
rows. `across` names a column (the batch, say) whose values a page spreads side by side; see `costmodel.view.grid`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

from costmodel.errors import InputError, nearest
from costmodel.view.columns import Column, column
from costmodel.view.kinds import is_missing

if TYPE_CHECKING:
    import pandas as pd

Values: TypeAlias = "Sequence[Any] | pd.Series[Any]"

TOTAL = "total"
"""What names the row of sums."""


@dataclass(frozen=True, eq=False)
class Table:
    """A table of any result."""

    columns: tuple[Column, ...]
    data: tuple[Values, ...]
    """The values of each column, as many as there are rows: lists, numpy arrays or a data frame's columns."""

    title: str = ""
    notes: tuple[str, ...] = ()
    """Sentences that say what the numbers mean and what they were computed for."""

    warnings: tuple[str, ...] = ()
    """Sentences that nobody should miss."""

    total: Mapping[str, Any] | None = None
    """A last row, apart from the data, of what the rows add up to: its values by name; those of a column that `across`
    spreads are mappings by the value of `across`."""

    across: str = ""
    """The column whose values stand side by side for people: the columns before it say what a row is about, those
    after it are repeated for each of its values."""

    @classmethod
    def of(cls, columns: Iterable[str | Column], rows: Iterable[Sequence[Any]], **around: Any) -> Table:
        """A table of rows, with a value for each column; `around` are the fields other than columns and data.

        Raises InputError for a name that the schema does not have.
        """
        found = tuple(column(each) if isinstance(each, str) else each for each in columns)
        data = tuple(zip(*rows, strict=True)) or ((),) * len(found)
        if len(data) != len(found):
            raise InputError(f"{len(found)} columns ({', '.join(c.name for c in found)}), {len(data)} values in a row.")
        return cls(found, data, **around)

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, columns: Mapping[str, Column] | None = None, **around: Any) -> Table:
        """A table that shares the columns of a data frame; `columns` describes those that the schema does not."""
        own = columns or {}

        def plain(values: pd.Series[Any]) -> pd.Series[Any]:  # pandas' own missing value is of no use elsewhere
            nullable = str(values.dtype) in ("Int64", "Float64", "boolean")
            return values.astype(object).where(values.notna(), None) if nullable else values

        names = [str(name) for name in frame.columns]
        found = tuple(own.get(name) or column(name) for name in names)
        return cls(found, tuple(plain(frame[name]) for name in frame.columns), **around)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(each.name for each in self.columns)

    def __len__(self) -> int:
        return len(self.data[0]) if self.data else 0

    def __getitem__(self, name: str) -> Values:
        """The values of a column. Raises InputError for a column that the table does not have."""
        if name not in self.names:
            raise InputError(f"the table has no column {name!r}.{nearest(name, self.names)}")
        return self.data[self.names.index(name)]

    def select(self, *names: str) -> Table:
        """The table with these columns, in this order."""
        by_name = dict(zip(self.names, self.columns, strict=True))
        return replace(self, data=tuple(self[name] for name in names), columns=tuple(by_name[name] for name in names))

    def beside(self, other: Table) -> Table:
        """This table with the columns of another one, of as many rows, at its right."""
        return replace(self, columns=(*self.columns, *other.columns), data=(*self.data, *other.data))

    def around(self, **fields: Any) -> Table:
        """The table with another title, other notes, warnings or total."""
        return replace(self, **fields)

    def summed(self) -> Table:
        """The table with a total of the columns that add up, if there are any; ratios are those of the sums.

        What is missing in a row is left out of the sum.
        """
        if not self.across:
            sums = self._sums(range(len(self)))
        else:
            alike: dict[Any, list[int]] = {}
            for index, value in enumerate(_plain_values(self[self.across])):
                alike.setdefault(value, []).append(index)
            by_value = {value: self._sums(rows) for value, rows in alike.items()}
            sums = dict(next(iter(by_value.values()), {}))  # what stands before `across` is said again for each value
            for name in set(self.spread) & set(sums):
                sums[name] = {value: own.get(name) for value, own in by_value.items()}
        return replace(self, total={self.names[0]: TOTAL} | sums if sums else None)

    @property
    def spread(self) -> tuple[str, ...]:
        """The names of the columns that stand side by side for people, once for each value of `across`."""
        return self.names[self.names.index(self.across) + 1 :] if self.across else ()

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """The rows as plain Python values: int, float, str, bool, tuple, None."""
        return zip(*map(_plain_values, self.data), strict=True)

    def records(self) -> list[dict[str, Any]]:
        """The rows for JSON, by the columns' names: int, float, str, bool, list, dict, None."""
        names = self.names
        return [dict(zip(names, map(_as_json, row), strict=True)) for row in self.rows()]

    def csv(self) -> str:
        """The rows as CSV: base units, whole numbers in full, shapes as 1x96x54x54, nothing for a missing value."""
        cells = zip(*map(_csv_cells, self.data), strict=True)
        return "".join(",".join(line) + "\n" for line in chain([self.names], cells))

    def to_frame(self) -> pd.DataFrame:
        """The rows as a data frame: whole numbers stay whole where others are missing."""
        import pandas as pd

        return pd.DataFrame({name: _series(values) for name, values in zip(self.names, self.data, strict=True)})

    def _repr_html_(self) -> str:
        """The table for a notebook, folded where it is long."""
        from costmodel.view.html import html_table

        return html_table(self)

    def _sums(self, rows: Sequence[int]) -> dict[str, Any]:
        """The sums over some rows, and the ratios of sums."""
        sums: dict[str, Any] = {}
        for each in self.columns:
            if each.adds:
                values = _plain_values(self[each.name])
                total = _sum([values[index] for index in rows])
                sums |= {} if total is None else {each.name: total}
        parts = {"moved_bytes": sums.get("read_bytes", 0) + sums.get("write_bytes", 0)} | sums
        for each in self.columns:
            if each.of and each.of[0] in sums:
                sums[each.name] = share(sums[each.of[0]], parts.get(each.of[1], 0))
        return sums


def share(part: float, whole: float) -> float:
    """A part over its whole; 0 where there is nothing to divide by."""
    return part / whole if whole else 0.0


def _sum(values: Iterable[Any]) -> Any:
    """Whole numbers exactly, times with one rounding; what is missing is left out."""
    known = [value for value in values if not is_missing(value)]
    if not known:
        return None
    return sum(known) if all(isinstance(value, int) for value in known) else math.fsum(known)


def _plain_values(values: Values) -> list[Any]:
    """A column as Python's own values, None where one is missing."""
    listed = _listed(values)
    if set(map(type, listed)) <= {int, str, bool}:
        return listed
    return [None if is_missing(value) else value.item() if hasattr(value, "item") else value for value in listed]


def _listed(values: Values) -> list[Any]:
    """A column as a list; numpy's and pandas' hand out Python's numbers."""
    return values.tolist() if hasattr(values, "tolist") else list(values)


def _as_json(value: Any) -> Any:
    """A value as JSON has it, which knows no infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return list(map(_as_json, value)) if isinstance(value, tuple) else value


def _csv_cells(values: Values) -> Iterable[str]:
    """A column's cells; of numbers and of texts that repeat no look is taken at each, as there may be a million."""
    listed = _listed(values)
    types = set(map(type, listed))
    if types <= {int}:
        return map(str, listed)
    if types <= {int, float}:
        return ("" if value != value else str(value) for value in listed)
    if types <= {str}:
        cells = {value: _csv_cell(value) for value in set(listed)}
        return map(cells.__getitem__, listed)
    return map(_csv_cell, _plain_values(listed))


def _csv_cell(value: Any) -> str:
    """A value as RFC 4180 has it; Python's own writer would leave a lone carriage return bare."""
    if isinstance(value, (tuple, list)):
        value = (", " if any(isinstance(item, str) for item in value) else "x").join(map(str, value))
    text = "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if re.search(r'[",\r\n]', text) else text


def _series(values: Values) -> Any:
    """A column for pandas, which would make floats of whole numbers where one is missing."""
    import pandas as pd

    if hasattr(values, "dtype"):
        return values
    kinds = set(map(type, values))
    return pd.Series(list(values), dtype=object if not kinds or kinds > {int} else None)
