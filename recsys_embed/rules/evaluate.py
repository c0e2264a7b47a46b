"""Which items a condition holds for: trees of `grammar` on the columns of an item table."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_embed.data.ids import Rows
from recsys_embed.rules import expression as grammar
from recsys_embed.rules.expression import Compared, Condition, Expression, Joined, Negated, Value, Values
from recsys_embed.words import tokens as text

Mask = NDArray[np.bool_]

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_POSITIVE = {"!=": "==", "not in": "in", "is not": "is"}
_KINDS = {"number": "a number", "text": "text", "tags": "tags", "nothing": "nothing"}


@dataclass(frozen=True)
class Column:
    """A column of n items, as conditions read it. Columns of dates are their years.

    kind: "number" (`numbers` [n], NaN where none is known), "text" or "tags" (`texts`: whole, in lower case, null where
    none is known; `tags`: lists of names in lower case), or "nothing", where no item has anything. truth: they are true
    or false. exact: texts are ids, whose case counts.
    """

    name: str
    kind: str
    numbers: NDArray[Any] = field(default_factory=lambda: np.zeros(0))
    texts: pl.Series = field(default_factory=lambda: pl.Series([], dtype=pl.String))
    tags: pl.Series | None = None
    truth: bool = False
    exact: bool = False

    def folded(self, value: str) -> str:
        """Return a text as those of the column are written."""
        return value if self.exact else pl.Series([value]).str.strip_chars().str.to_lowercase()[0]

    @property
    def known(self) -> Mask:
        """Of which items something is known."""
        return ~np.isnan(self.numbers) if self.kind == "number" else self.texts.is_not_null().to_numpy()


class ItemColumns:
    """The items that conditions are about: columns of their table, and `ratings`. Each is made ready when asked for."""

    def __init__(self, table: pl.DataFrame, counts: Rows) -> None:
        self.table, self.counts = table, counts
        self._compile: dict[str, Column] = {}

    def __len__(self) -> int:
        return self.table.height

    def column(self, column: grammar.Column, source: Expression) -> Column:
        """Return what is known of a column. Raises SettingError where there is none."""
        name = column.name
        if name not in self._compile:
            if name != "ratings" and name not in self.table.columns:
                known = ", ".join([*self.table.columns, "ratings"])
                known = known if len(known) <= 300 else known[:300] + "…"
                near = difflib.get_close_matches(name[:40], [*self.table.columns, "ratings"], 1)
                meant = f" (did you mean {near[0]}?)" if near else ""
                raise source.wrong(column.at, f"there is no column {name[:40]!r}{meant}; there are {known}")
            found = _read_column(pl.Series("ratings", self.counts) if name == "ratings" else self.table[name])
            if found is None:
                raise source.wrong(column.at, f"{name!r} holds {self.table[name].dtype}, which cannot be compared")
            self._compile[name] = found
        return self._compile[name]

    def where(self, condition: Condition, source: Expression) -> Mask:
        """Return for which items a condition holds, bool [n]: of the others, and of no third kind, `not` holds."""
        if isinstance(condition, Joined):
            parts = [self.where(part, source) for part in condition.parts]
            return (np.logical_and if condition.every else np.logical_or).reduce(parts)
        if isinstance(condition, Negated):
            return ~self.where(condition.part, source)
        if isinstance(condition, Value):
            return np.full(len(self), bool(condition.value))
        if isinstance(condition, Compared):
            name = _POSITIVE.get(condition.operator, condition.operator)
            holds = self._compared(condition, name, source)
            return holds if name == condition.operator else ~holds
        facts = self.column(condition, source)
        if not facts.truth:
            example = f"compare it, e.g. {condition.name} is not None"
            raise source.wrong(condition.at, f"{condition.name!r} is {_KINDS[facts.kind]}, no condition: {example}")
        return np.asarray(facts.numbers == 1)

    def _compared(self, it: Compared, name: str, source: Expression) -> Mask:
        sides = [self.column(s, source) if isinstance(s, grammar.Column) else s for s in (it.left, it.right)]
        if any(isinstance(side, Column) and side.kind == "nothing" for side in sides):
            return np.full(len(self), name == "is")
        left, right = sides
        if isinstance(left, Column) and name == "is":
            return ~left.known
        if isinstance(left, Column) and isinstance(right, Values):
            return _one_of(left, _fitting(left, right.values, it, source))
        if isinstance(left, Value) and isinstance(right, Column) and name == "in":
            return _within(_fitting(right, (left.value,), it, source)[0], right, it, source)
        return _side_by_side(left, right, _COMPARE[name], it, source)


def _read_column(column: pl.Series) -> Column | None:
    """Return what is known of a column, or None of one that cannot be read."""
    name, column = column.name, text.readable(column)
    kind = column.dtype
    if kind in (pl.Binary, pl.Object) or (kind.is_nested() and kind != pl.List(pl.String)):
        return None
    if kind in (pl.Categorical, pl.Enum):
        column = column.cast(pl.String)
    if column.null_count() == len(column):
        return Column(name, "nothing")
    if name == "item_id" and kind == pl.String:
        return Column(name, "text", texts=column, exact=True)
    listed = kind == pl.List
    what = "tags" if listed or _barred(column) else text.kind_of(column)
    if what == "number":
        whole = kind.is_integer() and kind != pl.UInt64 and not column.null_count()
        numbers = column.cast(pl.Int64) if whole else text.numbers(column).fill_null(float("nan"))
        return Column(name, "number", numbers.to_numpy(), truth=kind == pl.Boolean)
    whole_text = column.list.join("|") if listed else column.cast(pl.String)
    texts = whole_text.str.strip_chars().str.to_lowercase()
    tags = (text.tags(column) if listed else _tags(column)) if what == "tags" else None
    known = texts != "" if tags is None else tags.list.len() > 0
    texts = pl.select(pl.when(known).then(texts)).to_series()
    return Column(name, "text" if tags is None else "tags", texts=texts, tags=tags)


def _tags(column: pl.Series) -> pl.Series:
    """Return what `text.tags` does, from each different text once: there are few."""
    distinct = column.drop_nulls().unique().alias("text")
    made = pl.DataFrame([distinct, text.tags(distinct).alias("tags")])
    joined = column.alias("text").to_frame().join(made, on="text", how="left", maintain_order="left")
    return joined.select(pl.col("tags").fill_null([])).to_series()


def _barred(column: pl.Series) -> bool:
    """Whether a column is lists parted by bars, however few items there are for `kind_of` to see it by."""
    if column.dtype != pl.String or column.name == "title":
        return False
    return bool(column.str.contains("|", literal=True).sum() >= 0.05 * (len(column) - column.null_count()))


def _fitting(facts: Column, values: tuple[Any, ...], it: Compared, source: Expression) -> list[Any]:
    """Return values as those of a column are written. Raises SettingError for one that is of another kind."""
    for value in values:
        if isinstance(value, str) != (facts.kind != "number"):
            what = "text" if isinstance(value, str) else "a number"
            raise source.wrong(it.at, f"{facts.name!r} is {_KINDS[facts.kind]}, and {str(value)[:40]!r} is {what}")
    return list(values) if facts.kind == "number" else [facts.folded(value) for value in values]


def _one_of(facts: Column, values: list[Any]) -> Mask:
    if facts.kind == "number":
        whole = all(isinstance(value, int) for value in values)
        return np.isin(facts.numbers, np.array(values, np.int64 if whole else np.float64))
    return facts.texts.is_in(pl.Series(values, dtype=pl.String).implode()).fill_null(False).to_numpy()


def _within(value: Any, facts: Column, it: Compared, source: Expression) -> Mask:
    """Return which items have a tag, or a text that this is a part of."""
    if facts.kind == "number":
        raise source.wrong(it.at, f"{facts.name!r} is a number: nothing is in it; == compares")
    if facts.tags is None:
        return facts.texts.str.contains(value, literal=True).fill_null(False).to_numpy()
    wanted = text.tags(pl.Series([[value]], dtype=pl.List(pl.String)))[0]
    return facts.tags.list.contains(wanted[0]).to_numpy() if len(wanted) else np.zeros(len(facts.tags), bool)


def _side_by_side(left: Any, right: Any, compare: Callable[[Any, Any], Any], it: Compared, source: Expression) -> Mask:
    """Compare two columns, or a column and a value."""
    first, other = (left, right) if isinstance(left, Column) else (right, left)
    if isinstance(other, Column):
        if (first.kind == "number") != (other.kind == "number"):
            kinds = f"{first.name!r} is {_KINDS[first.kind]}, and {other.name!r} is {_KINDS[other.kind]}"
            raise source.wrong(it.at, kinds)
    else:
        _fitting(first, (other.value,), it, source)

    def values(side: Any) -> Any:
        if isinstance(side, Column):
            return side.numbers if side.kind == "number" else side.texts
        return side.value if first.kind == "number" else first.folded(side.value)

    found = compare(values(left), values(right))
    return found.fill_null(False).to_numpy() if isinstance(found, pl.Series) else np.asarray(found)
