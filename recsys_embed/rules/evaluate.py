"""Evaluates conditions from `expression` on the columns of an item table."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import polars as pl

from recsys_embed.data.ids import Rows
from recsys_embed.forks import needs_threads
from recsys_embed.rules.columns import ColumnKind, ColumnValues, Mask, kind_of, kind_of_type, read_column
from recsys_embed.rules.dates import Span, clock_span, has_other_dates, moment_of, span_of
from recsys_embed.rules.expression import (
    BooleanOp,
    Clock,
    ColumnRef,
    Comparison,
    Condition,
    Not,
    SourceText,
    Value,
    ValueList,
)
from recsys_embed.rules.hints import as_written
from recsys_embed.words import tokens

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
# What a comparison is with its sides exchanged.
_MIRRORED = {"==": "==", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
# Negated operators and those they negate.
_NEGATED = {"!=": "==", "not in": "in", "is not": "is"}
_ORDERED = ("<", "<=", ">", ">=")
_KINDS = {"number": "a number", "date": "a date", "text": "text", "tags": "tags", "nothing": "nothing"}


class ItemColumns:
    """The columns that conditions can name: those of the item table, and `ratings`. Each is read on first use.

    base: the table by which kinds of columns are told, if that is not `table`: kinds do not change when values do, so
    that a condition means the same in every process. A column that `base` lacks goes by its type.
    """

    def __init__(self, table: pl.DataFrame, counts: Rows, base: pl.DataFrame | None = None) -> None:
        self.table, self.item_counts, self.base = table, counts, table if base is None else base
        self._columns: dict[str, ColumnValues] = {}
        self._kinds: dict[str, ColumnKind | None] = {}

    def __len__(self) -> int:
        return self.table.height

    def kind(self, name: str) -> ColumnKind | None:
        """Return what a column of the table holds, or None if it cannot be compared."""
        known = self._kinds.get(name)
        if known is None and name in self.base.columns:
            known = self._kinds[name] = kind_of(self.base[name])
            if known is None:
                return None
        column = self.table[name]
        if known in (None, "nothing") and column.null_count() < len(column):
            known = self._kinds[name] = kind_of_type(column.dtype)
        return known or "nothing"

    @needs_threads("a rule")
    def column(self, column: ColumnRef, source: SourceText) -> ColumnValues:
        """Return a column. Raises SettingError if it does not exist or cannot be compared."""
        name = column.name
        if name not in self._columns:
            if name == "ratings":
                self._columns[name] = read_column(pl.Series(name, self.item_counts), "number")
                return self._columns[name]
            if name not in self.table.columns:
                names = ", ".join([*self.table.columns, "ratings"])
                names = names if len(names) <= 300 else names[:300] + "…"
                close = difflib.get_close_matches(name[:40], [*self.table.columns, "ratings"], 1)
                hint = f" (did you mean {as_written(close[0])}?)" if close else ""
                raise source.error(column.position, f"there is no column {name[:40]!r}{hint}; the columns are {names}")
            kind = self.kind(name)
            if kind is None:
                message = f"{name!r} holds {self.table[name].dtype}, which cannot be compared"
                raise source.error(column.position, message)
            self._columns[name] = read_column(self.table[name], kind)
        return self._columns[name]

    def with_values(self, table: pl.DataFrame, rows: Rows, names: Collection[str]) -> ItemColumns:
        """Return the columns of a table that differs in the columns `names` of these rows only."""
        other = ItemColumns(table, self.item_counts, self.base)
        other._kinds = dict(self._kinds)
        for name, values in self._columns.items():
            if name not in names:
                other._columns[name] = values
            elif (kind := other.kind(name)) == values.kind and kind not in (None, "nothing"):
                other._columns[name] = values.with_values(rows, read_column(table[name].gather(rows), kind))
        return other

    def of_rows(self, rows: Rows) -> ItemColumns:
        """Return the columns of some items, by row."""
        return _ColumnsOfRows(self, rows)

    @needs_threads("a rule")
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
            return _contains(right, left.value, comparison, source)
        return _compare_sides(left, right, name, comparison, source)


class _ColumnsOfRows(ItemColumns):
    def __init__(self, parent: ItemColumns, rows: Rows) -> None:
        super().__init__(parent.table, parent.item_counts, parent.base)
        self._parent, self._rows = parent, rows

    def __len__(self) -> int:
        return len(self._rows)

    @needs_threads("a rule")
    def column(self, column: ColumnRef, source: SourceText) -> ColumnValues:
        if column.name not in self._columns:
            self._columns[column.name] = self._parent.column(column, source).take(self._rows)
        return self._columns[column.name]


def _normalize_values(
    column: ColumnValues, values: tuple[Any, ...], comparison: Comparison, source: SourceText
) -> list[Any]:
    """Normalize values in the same way as a column: to numbers, texts or, for dates, years and `Span`s.

    Raises SettingError for a value of another kind.
    """
    for value in values:
        text = isinstance(value, str) and column.kind != "date"
        if text == column.is_numeric or (isinstance(value, Clock) and column.kind != "date"):
            kind = "a date" if isinstance(value, Clock) else "text" if text else "a number"
            quoted = value.word if isinstance(value, Clock) else repr(str(value)[:40])
            message = f"{column.name!r} is {_KINDS[column.kind]}, and {quoted} is {kind}"
            raise source.error(comparison.position, message)
        if text and comparison.operator in _ORDERED and span_of(value) is not None and has_other_dates(column.texts):
            message = f"{column.name!r} has dates that are not ISO (2026-12-24), and as text they have another order"
            raise source.error(comparison.position, message)
    if column.kind == "date":
        return [_year_or_span(column, value, comparison, source) for value in values]
    return list(values) if column.is_numeric else [column.normalize(value) for value in values]


def _year_or_span(column: ColumnValues, value: Any, comparison: Comparison, source: SourceText) -> Any:
    if isinstance(value, Clock):
        return clock_span(value.word, moment_of(None) if value.moment is None else value.moment)
    if not isinstance(value, str):
        return value
    span = span_of(value)
    if span is None:
        message = f"{column.name!r} is a date, and {value[:40]!r} is none: write e.g. '2026-12-24', or a year"
        raise source.error(comparison.position, message)
    return span


def _is_one_of(column: ColumnValues, values: list[Any]) -> Mask:
    if column.is_numeric:
        spans = [value for value in values if isinstance(value, Span)]
        values = [value for value in values if not isinstance(value, Span)]
        whole = all(isinstance(value, int) for value in values)
        found = np.isin(column.numbers, np.array(values, np.int64 if whole else np.float64))
        return np.logical_or.reduce([found, *(_compare_times(column, "==", span) for span in spans)])
    return column.texts.is_in(pl.Series(values, dtype=pl.String).implode()).fill_null(False).to_numpy()


def _compare_times(column: ColumnValues, name: str, span: Span) -> Mask:
    """Compare dates with a span of time: equal is within it, less is before it, and more is after it."""
    times = column.times
    if name == "==":
        return np.asarray((times >= span.start) & (times < span.end))
    bound = span.start if name in ("<", ">=") else span.end
    return np.asarray(times < bound if name in ("<", "<=") else times >= bound)


def _contains(column: ColumnValues, value: Any, comparison: Comparison, source: SourceText) -> Mask:
    """Return which items have this tag, or this text within theirs."""
    is_date_text = column.kind == "date" and len(column.texts) > 0 and isinstance(value, str)
    value = column.normalize(value) if is_date_text else _normalize_values(column, (value,), comparison, source)[0]
    if column.is_numeric and not is_date_text:
        message = f"{column.name!r} is {_KINDS[column.kind]}: nothing is in it; == compares"
        raise source.error(comparison.position, message)
    if column.tags is None:
        return column.texts.str.contains(value, literal=True).fill_null(False).to_numpy()
    tags = tokens.split_tags(pl.Series([[value]], dtype=pl.List(pl.String)))[0]
    return column.tags.list.contains(tags[0]).to_numpy() if len(tags) else np.zeros(len(column.tags), bool)


def _compare_sides(left: Any, right: Any, name: str, comparison: Comparison, source: SourceText) -> Mask:
    """Compare two columns, or a column and a value."""
    if not isinstance(left, ColumnValues):
        left, right, name = right, left, _MIRRORED[name]
    if isinstance(right, ColumnValues):
        if left.is_numeric != right.is_numeric:
            message = f"{left.name!r} is {_KINDS[left.kind]}, and {right.name!r} is {_KINDS[right.kind]}"
            raise source.error(comparison.position, message)
        if left.kind == right.kind == "date":
            return np.asarray(_COMPARE[name](left.times, right.times))
        right = right.numbers if right.is_numeric else right.texts
    else:
        (right,) = _normalize_values(left, (right.value,), comparison, source)
        if isinstance(right, Span):
            return _compare_times(left, name, right)
    result = _COMPARE[name](left.numbers if left.is_numeric else left.texts, right)
    return result.fill_null(False).to_numpy() if isinstance(result, pl.Series) else np.asarray(result)
