"""Columns of an item table, as conditions read them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_embed.data.cells import with_cells
from recsys_embed.data.ids import Rows
from recsys_embed.rules.dates import read_dates, seconds_of
from recsys_embed.words import tokens

Mask = NDArray[np.bool_]
ColumnKind = Literal["number", "date", "text", "tags", "nothing"]


@dataclass(frozen=True)
class ColumnValues:
    """A column of n items, as conditions read it.

    kind: "number" (`numbers` [n], NaN where unknown); "date" (`numbers`: the years; `times` [n]: seconds since 1970;
    `texts` too, if it was text); "text" or "tags" (`texts`: the whole text in lower case, null where unknown; `tags`:
    lists of names in lower case); or "nothing", if every value is missing. is_boolean: the numbers are true or false.
    case_sensitive: texts are ids.
    """

    name: str
    kind: ColumnKind
    numbers: NDArray[Any] = field(default_factory=lambda: np.zeros(0))
    times: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    texts: pl.Series = field(default_factory=lambda: pl.Series([], dtype=pl.String))
    tags: pl.Series | None = None
    is_boolean: bool = False
    case_sensitive: bool = False

    def normalize(self, value: str) -> str:
        """Normalize a text in the same way as the texts of the column."""
        return value if self.case_sensitive else pl.Series([value]).str.strip_chars().str.to_lowercase()[0]

    @property
    def is_numeric(self) -> bool:
        """Whether it holds numbers, or dates, which count as their years."""
        return self.kind in ("number", "date")

    @property
    def known(self) -> Mask:
        """Which items have a value, bool [n]."""
        return ~np.isnan(self.numbers) if self.is_numeric else self.texts.is_not_null().to_numpy()

    def take(self, rows: Rows) -> ColumnValues:
        """Return the values of some items, by row."""
        return replace(
            self,
            numbers=self.numbers[rows] if len(self.numbers) else self.numbers,
            times=self.times[rows] if len(self.times) else self.times,
            texts=self.texts.gather(rows) if len(self.texts) else self.texts,
            tags=None if self.tags is None else self.tags.gather(rows),
        )

    def with_values(self, rows: Rows, values: ColumnValues) -> ColumnValues:
        """Return the column with other values of some items, by row. values: of the same kind."""
        numbers = self.numbers.astype(np.result_type(self.numbers, values.numbers))
        times = self.times.copy()
        if len(numbers):
            numbers[rows] = values.numbers
        if len(times):
            times[rows] = values.times
        return replace(
            self,
            numbers=numbers,
            times=times,
            texts=with_cells(self.texts, rows, values.texts) if len(self.texts) else self.texts,
            tags=None if self.tags is None or values.tags is None else with_cells(self.tags, rows, values.tags),
        )


def kind_of(column: pl.Series) -> ColumnKind | None:
    """Return what a column of an item table holds, or None if it cannot be compared."""
    if isinstance(column.dtype, pl.Date | pl.Datetime) and column.null_count() < len(column):
        return "date"
    name, column = column.name, _plain(column)
    dtype = column.dtype
    if dtype in (pl.Binary, pl.Object) or (dtype.is_nested() and dtype != pl.List(pl.String)):
        return None
    if column.null_count() == len(column):
        return "nothing"
    if name == "item_id" and dtype == pl.String:
        return "text"
    if dtype == pl.List or _has_bars(column):
        return "tags"
    if dtype == pl.String and read_dates(column) is not None:
        return "date"
    kind = tokens.infer_kind(column)
    return "text" if kind == "words" else kind


def kind_of_type(dtype: pl.DataType) -> ColumnKind:
    """Return what a column of a type holds whatever its values are."""
    if isinstance(dtype, pl.List):
        return "tags"
    if isinstance(dtype, pl.Date | pl.Datetime):
        return "date"
    return "number" if dtype.is_numeric() or dtype == pl.Boolean else "text"


def read_column(column: pl.Series, kind: ColumnKind) -> ColumnValues:
    """Return a column as conditions read it. kind: from `kind_of`."""
    name = column.name
    if kind == "nothing":
        return ColumnValues(name, "nothing")
    if kind == "date":
        return _read_dates(column)
    column = _plain(column)
    dtype = column.dtype
    if name == "item_id" and dtype == pl.String:
        return ColumnValues(name, "text", texts=column, case_sensitive=True)
    if kind == "number":
        whole = dtype.is_integer() and dtype != pl.UInt64 and not column.null_count()
        numbers = column.cast(pl.Int64) if whole else tokens.parse_numbers(column).fill_null(float("nan"))
        return ColumnValues(name, "number", numbers.to_numpy(), is_boolean=dtype == pl.Boolean)
    is_list = dtype == pl.List
    whole_text = column.list.join("|") if is_list else column.cast(pl.String)
    texts = whole_text.str.strip_chars().str.to_lowercase()
    tags = (tokens.split_tags(column) if is_list else _split_tags(column)) if kind == "tags" else None
    known = texts != "" if tags is None else tags.list.len() > 0
    texts = pl.select(pl.when(known).then(texts)).to_series()
    return ColumnValues(name, "text" if tags is None else "tags", texts=texts, tags=tags)


def _read_dates(column: pl.Series) -> ColumnValues:
    dates = read_dates(column, certain=True)
    assert dates is not None
    years = dates.dt.year()
    numbers = years.cast(pl.Float64).fill_null(float("nan")) if years.null_count() else years.cast(pl.Int64)
    values = ColumnValues(column.name, "date", numbers.to_numpy(), seconds_of(dates))
    return values if column.dtype != pl.String else replace(values, texts=column.str.to_lowercase())


def _plain(column: pl.Series) -> pl.Series:
    """Return a column with times of day as text, lists as lists of text, and NaN as null."""
    column = tokens.normalize_column(column)
    return column.cast(pl.String) if column.dtype in (pl.Categorical, pl.Enum) else column


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
