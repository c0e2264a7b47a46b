"""Evaluates conditions from `expression` on the columns of an item table."""

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
from recsys_embed.rules.expression import BooleanOp, ColumnRef, Comparison, Condition, Not, SourceText, Value, ValueList
from recsys_embed.words import tokens

Mask = NDArray[np.bool_]

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
# Negated operators and those they negate.
_NEGATED = {"!=": "==", "not in": "in", "is not": "is"}
_KINDS = {"number": "a number", "text": "text", "tags": "tags", "nothing": "nothing"}


@dataclass(frozen=True)
class ColumnValues:
    """A column of n items, as conditions read it. A column of dates holds their years.

    kind: "number" (`numbers` [n], NaN where unknown); "text" or "tags" (`texts`: the whole text in lower case, null
    where unknown; `tags`: lists of names in lower case); or "nothing", if every value is missing. is_boolean: the
    numbers are true or false. case_sensitive: texts are ids.
    """

    name: str
    kind: str
    numbers: NDArray[Any] = field(default_factory=lambda: np.zeros(0))
    texts: pl.Series = field(default_factory=lambda: pl.Series([], dtype=pl.String))
    tags: pl.Series | None = None
    is_boolean: bool = False
    case_sensitive: bool = False

    def normalize(self, value: str) -> str:
        """Normalize a text in the same way as the texts of the column."""
        return value if self.case_sensitive else pl.Series([value]).str.strip_chars().str.to_lowercase()[0]

    @property
    def known(self) -> Mask:
        """Which items have a value, bool [n]."""
        return ~np.isnan(self.numbers) if self.kind == "number" else self.texts.is_not_null().to_numpy()


class ItemColumns:
    """The columns that conditions can name: those of the item table, and `ratings`. Each is read on first use."""

    def __init__(self, table: pl.DataFrame, counts: Rows) -> None:
        self.table, self.item_counts = table, counts
        self._columns: dict[str, ColumnValues] = {}

    def __len__(self) -> int:
        return self.table.height

    def column(self, column: ColumnRef, source: SourceText) -> ColumnValues:
        """Return a column. Raises SettingError if it does not exist or cannot be compared."""
        name = column.name
        if name not in self._columns:
            if name != "ratings" and name not in self.table.columns:
                names = ", ".join([*self.table.columns, "ratings"])
                names = names if len(names) <= 300 else names[:300] + "…"
                close = difflib.get_close_matches(name[:40], [*self.table.columns, "ratings"], 1)
                hint = f" (did you mean {close[0]}?)" if close else ""
                raise source.error(column.position, f"there is no column {name[:40]!r}{hint}; the columns are {names}")
            values = _read_column(pl.Series("ratings", self.item_counts) if name == "ratings" else self.table[name])
            if values is None:
                message = f"{name!r} holds {self.table[name].dtype}, which cannot be compared"
                raise source.error(column.position, message)
            self._columns[name] = values
        return self._columns[name]

    def where(self, condition: Condition, source: SourceText) -> Mask:
        """Return which items a condition holds for, bool [n].

        There are two truth values: a comparison with an unknown value is false, and `not` makes it true.
        """
        if isinstance(condition, BooleanOp):
            masks = [self.where(operand, source) for operand in condition.operands]
            return (np.logical_and if condition.conjunction else np.logical_or).reduce(masks)
        if isinstance(condition, Not):
            return ~self.where(condition.operand, source)
        if isinstance(condition, Value):
            return np.full(len(self), bool(condition.value))
        if isinstance(condition, Comparison):
            name = _NEGATED.get(condition.operator, condition.operator)
            holds = self._compare(condition, name, source)
            return holds if name == condition.operator else ~holds
        column = self.column(condition, source)
        if not column.is_boolean:
            example = f"compare it, e.g. {condition.name} is not None"
            message = f"{condition.name!r} is {_KINDS[column.kind]}, not a condition: {example}"
            raise source.error(condition.position, message)
        return np.asarray(column.numbers == 1)

    def _compare(self, comparison: Comparison, name: str, source: SourceText) -> Mask:
        """Evaluate a comparison with an operator that is not negated."""
        left, right = (
            self.column(side, source) if isinstance(side, ColumnRef) else side
            for side in (comparison.left, comparison.right)
        )
        if any(isinstance(side, ColumnValues) and side.kind == "nothing" for side in (left, right)):
            return np.full(len(self), name == "is")
        if isinstance(left, ColumnValues) and name == "is":
            return ~left.known
        if isinstance(left, ColumnValues) and isinstance(right, ValueList):
            return _is_one_of(left, _normalize_values(left, right.values, comparison, source))
        if isinstance(left, Value) and isinstance(right, ColumnValues) and name == "in":
            value = _normalize_values(right, (left.value,), comparison, source)[0]
            return _contains(right, value, comparison, source)
        return _compare_sides(left, right, _COMPARE[name], comparison, source)


def _read_column(column: pl.Series) -> ColumnValues | None:
    """Return a column as conditions read it, or None if its type cannot be compared."""
    name, column = column.name, tokens.normalize_column(column)
    dtype = column.dtype
    if dtype in (pl.Binary, pl.Object) or (dtype.is_nested() and dtype != pl.List(pl.String)):
        return None
    if dtype in (pl.Categorical, pl.Enum):
        column = column.cast(pl.String)
    if column.null_count() == len(column):
        return ColumnValues(name, "nothing")
    if name == "item_id" and dtype == pl.String:
        return ColumnValues(name, "text", texts=column, case_sensitive=True)
    is_list = dtype == pl.List
    kind = "tags" if is_list or _has_bars(column) else tokens.infer_kind(column)
    if kind == "number":
        whole = dtype.is_integer() and dtype != pl.UInt64 and not column.null_count()
        numbers = column.cast(pl.Int64) if whole else tokens.parse_numbers(column).fill_null(float("nan"))
        return ColumnValues(name, "number", numbers.to_numpy(), is_boolean=dtype == pl.Boolean)
    whole_text = column.list.join("|") if is_list else column.cast(pl.String)
    texts = whole_text.str.strip_chars().str.to_lowercase()
    tags = (tokens.split_tags(column) if is_list else _split_tags(column)) if kind == "tags" else None
    known = texts != "" if tags is None else tags.list.len() > 0
    texts = pl.select(pl.when(known).then(texts)).to_series()
    return ColumnValues(name, "text" if tags is None else "tags", texts=texts, tags=tags)


def _split_tags(column: pl.Series) -> pl.Series:
    """Do what `tokens.split_tags` does, but split each distinct text only once, since there are few of them."""
    distinct = column.drop_nulls().unique().alias("text")
    split = pl.DataFrame([distinct, tokens.split_tags(distinct).alias("tags")])
    joined = column.alias("text").to_frame().join(split, on="text", how="left", maintain_order="left")
    return joined.select(pl.col("tags").fill_null([])).to_series()


def _has_bars(column: pl.Series) -> bool:
    """Return whether a column holds lists separated by "|", even if it has too few items for `infer_kind` to tell."""
    if column.dtype != pl.String or column.name == "title":
        return False
    return bool(column.str.contains("|", literal=True).sum() >= 0.05 * (len(column) - column.null_count()))


def _normalize_values(
    column: ColumnValues, values: tuple[Any, ...], comparison: Comparison, source: SourceText
) -> list[Any]:
    """Normalize values in the same way as a column. Raises SettingError for a value of another kind."""
    for value in values:
        if isinstance(value, str) != (column.kind != "number"):
            kind = "text" if isinstance(value, str) else "a number"
            message = f"{column.name!r} is {_KINDS[column.kind]}, and {str(value)[:40]!r} is {kind}"
            raise source.error(comparison.position, message)
    return list(values) if column.kind == "number" else [column.normalize(value) for value in values]


def _is_one_of(column: ColumnValues, values: list[Any]) -> Mask:
    if column.kind == "number":
        whole = all(isinstance(value, int) for value in values)
        return np.isin(column.numbers, np.array(values, np.int64 if whole else np.float64))
    return column.texts.is_in(pl.Series(values, dtype=pl.String).implode()).fill_null(False).to_numpy()


def _contains(column: ColumnValues, value: Any, comparison: Comparison, source: SourceText) -> Mask:
    """Return which items have this tag, or this text within theirs."""
    if column.kind == "number":
        raise source.error(comparison.position, f"{column.name!r} is a number: nothing is in it; == compares")
    if column.tags is None:
        return column.texts.str.contains(value, literal=True).fill_null(False).to_numpy()
    tags = tokens.split_tags(pl.Series([[value]], dtype=pl.List(pl.String)))[0]
    return column.tags.list.contains(tags[0]).to_numpy() if len(tags) else np.zeros(len(column.tags), bool)


def _compare_sides(
    left: Any, right: Any, compare: Callable[[Any, Any], Any], comparison: Comparison, source: SourceText
) -> Mask:
    """Compare two columns, or a column and a value."""
    column, other = (left, right) if isinstance(left, ColumnValues) else (right, left)
    if isinstance(other, ColumnValues):
        if (column.kind == "number") != (other.kind == "number"):
            message = f"{column.name!r} is {_KINDS[column.kind]}, and {other.name!r} is {_KINDS[other.kind]}"
            raise source.error(comparison.position, message)
    else:
        _normalize_values(column, (other.value,), comparison, source)

    def values(side: Any) -> Any:
        if isinstance(side, ColumnValues):
            return side.numbers if side.kind == "number" else side.texts
        return side.value if column.kind == "number" else column.normalize(side.value)

    result = compare(values(left), values(right))
    return result.fill_null(False).to_numpy() if isinstance(result, pl.Series) else np.asarray(result)
