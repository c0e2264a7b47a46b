"""Values that are set in an item table: whether they fit a column, and the column with them in it."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from recsys_embed.data.cells import with_cells
from recsys_embed.errors import DataError
from recsys_embed.rules.columns import ColumnKind, kind_of_type
from recsys_embed.rules.dates import read_dates, span_of
from recsys_embed.words.tokens import parse_numbers

_MAX_NAME = 200  # characters
# Columns that are no values: what an item is called, and what is counted.
_FIXED = ("item_id", "item", "ratings")
_DAY_SECONDS = 86_400
_TRUTH = {"true": True, "false": False, "1": True, "0": False}
_KINDS = {"number": "numbers", "date": "dates", "text": "text", "tags": "tags"}


def check_name(name: str) -> None:
    """Raise DataError for the name of a column that cannot be set."""
    if name in _FIXED:
        raise DataError(f"{name!r} cannot be set: it is the id of an item, or counted")
    if (
        not name.strip()
        or len(name) > _MAX_NAME
        or any(ord(c) < 32 or c == "`" or 0xD800 <= ord(c) < 0xE000 for c in name)
    ):
        raise DataError(f"a column needs a name of 1 to {_MAX_NAME} characters, got {name[:40]!r}")


def fit_value(name: str, value: Any, dtype: pl.DataType, kind: ColumnKind | None) -> tuple[Any, pl.DataType]:
    """Return a value as a column holds it, and the column's type, which is a wider one where it must be.

    value: as JSON has it: a number, a text, true or false, a list of texts, or None. dtype, kind: of the column; kind
    "nothing" for one without values, which takes the type of its first. Raises DataError for a value that does not fit.
    """
    if kind is None:
        raise DataError(f"{name!r} holds {dtype}, which cannot be set")
    if name == "title" and (value is None or not str(value).strip()):
        raise DataError("a title cannot be empty")
    if value is None:
        return None, dtype
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"{name!r} cannot be {value}")
    if kind == "nothing":
        dtype = _type_of(name, value)
        kind = kind_of_type(dtype)
    if kind == "date":
        return _date(name, value, dtype)
    if dtype.is_numeric():
        return _number(name, value, dtype)
    fitted = _plain_value(value, dtype, kind)
    if fitted is None:
        raise _misfit(name, value, dtype, kind)
    return fitted, dtype


def _plain_value(value: Any, dtype: pl.DataType, kind: ColumnKind) -> Any:
    """Return a value as a column of texts, lists, or true and false holds it; None if it does not fit."""
    is_list = isinstance(value, list) and all(isinstance(text, str) for text in value)
    if dtype == pl.Boolean:
        return value if isinstance(value, bool) else None
    if isinstance(dtype, pl.List):
        return value.split("|") if isinstance(value, str) else value if is_list else None
    if kind == "number":  # numbers as text
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        is_number |= isinstance(value, str) and parse_numbers(pl.Series([value]))[0] is not None
        return str(value) if is_number else None
    if kind == "tags" and is_list:
        return "|".join(value)
    return value if isinstance(value, str) else None


def _misfit(name: str, value: Any, dtype: pl.DataType, kind: str) -> DataError:
    holds = "true or false" if dtype == pl.Boolean else _KINDS[kind]
    return DataError(f"{name!r} holds {holds}, and {str(value)[:40]!r} is {_described(value)}")


def _held(dtype: pl.DataType) -> str:
    """Return in words what a column of a type holds."""
    if dtype.is_nested() and dtype != pl.List(pl.String):
        return str(dtype)
    return "true or false" if dtype == pl.Boolean else _KINDS[kind_of_type(dtype)]


def _described(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    names = {int: "a number", float: "a number", str: "text", list: "a list"}
    return names.get(type(value), f"a {type(value).__name__}")


def _type_of(name: str, value: Any) -> pl.DataType:
    """Return the type of a column whose first value this is."""
    if isinstance(value, bool):
        return pl.Boolean()
    if isinstance(value, int) and abs(value) < 2**63:
        return pl.Int64()
    if isinstance(value, int | float):
        return pl.Float64()
    if isinstance(value, str):
        span = span_of(value) if len(value.strip()) >= 10 else None  # of a day, at least
        if span is None or name == "title":
            return pl.String()
        return pl.Date() if span.end - span.start == _DAY_SECONDS else pl.Datetime("us")
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return pl.List(pl.String)
    raise DataError(f"{name!r} can be a number, a text, true, false, null or a list of texts, not {str(value)[:40]!r}")


def _number(name: str, value: Any, dtype: pl.DataType) -> tuple[int | float, pl.DataType]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _misfit(name, value, dtype, "number")
    if dtype.is_float():
        return float(value), dtype
    if float(value) != int(value) or abs(value) >= 2**63:
        return float(value), pl.Float64()
    whole = int(value)
    low, high = (int(pl.select(bound).item()) for bound in (dtype.min(), dtype.max()))  # type: ignore[attr-defined]
    return whole, dtype if low <= whole <= high else pl.Int64()


def _date(name: str, value: Any, dtype: pl.DataType) -> tuple[Any, pl.DataType]:
    span = span_of(value) if isinstance(value, str) and len(value.strip()) >= 10 else None
    if span is None:
        raise DataError(f"{name!r} holds dates, and {str(value)[:40]!r} is none: write e.g. 2026-12-24")
    if dtype == pl.String:
        return value, dtype
    moment = datetime.datetime.fromtimestamp(span.start, datetime.UTC)
    if dtype == pl.Date and span.end - span.start == _DAY_SECONDS:
        return moment.date(), dtype
    if isinstance(dtype, pl.Datetime):
        return moment if dtype.time_zone else moment.replace(tzinfo=None), dtype
    return moment.replace(tzinfo=None), pl.Datetime("us")


def as_set(column: pl.Series | None, name: str, height: int, dtype: pl.DataType) -> pl.Series:
    """Return a column as one that takes values of a type: a new one of nulls, or the same in a wider type."""
    if column is None:
        return pl.Series(name, [None], dtype=dtype).new_from_index(0, height)
    return column if column.dtype == dtype else column.cast(dtype)


def set_values(
    column: pl.Series | None, name: str, height: int, kind: ColumnKind | None, values: Mapping[int, Any]
) -> tuple[pl.Series, dict[int, DataError]]:
    """Return a column of a table of `height` rows with other values, and the errors of values that do not fit, by row.

    column: None for a new one. values: by row, as JSON has them.
    """
    dtype: pl.DataType = pl.Null() if column is None else column.dtype
    if isinstance(dtype, pl.Categorical | pl.Enum):
        dtype = pl.String()
    fitted: dict[int, Any] = {}
    errors: dict[int, DataError] = {}
    for row, value in values.items():
        try:
            fitted[row], dtype = fit_value(name, value, dtype, kind)
            kind = kind if kind != "nothing" or fitted[row] is None else kind_of_type(dtype)
        except DataError as error:
            errors[row] = error
    column = as_set(column, name, height, dtype)
    if not fitted:
        return column, errors
    cells = pl.Series(name, list(fitted.values()), dtype=dtype, strict=False)
    return with_cells(column, np.fromiter(fitted, np.int64, len(fitted)), cells), errors


def fit_column(values: pl.Series, dtype: pl.DataType | None) -> pl.Series:
    """Return a column of a file as a table with a column of this type can take it, widened where it must be.

    dtype: None where the table has no such column. Raises DataError if it does not fit.
    """
    name, given = values.name, values.dtype
    if given.is_nested() and given != pl.List(pl.String):
        values = values.cast(pl.List(pl.String)) if isinstance(given, pl.List) else values
    if dtype is None or dtype == pl.Null or given == dtype:
        return values
    if given == pl.Null:
        return values.cast(dtype)
    if dtype.is_numeric() and given.is_numeric():
        wider = dtype if dtype.is_float() or (given.is_integer() and dtype == pl.Int64) else pl.Float64()
        return values.cast(pl.Int64() if given.is_integer() and dtype.is_integer() else wider)
    fitted: pl.Series | None = None
    if isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
        fitted = values.list.join("|") if isinstance(given, pl.List) else values.cast(pl.String)
    elif isinstance(dtype, pl.List) and given == pl.String:
        fitted = values.str.split("|")
    elif given == pl.String:
        fitted = _parsed(values, dtype)
    elif dtype.is_temporal() and given.is_temporal():
        fitted = values.cast(pl.Datetime("us"))
    if fitted is None:
        raise DataError(f"column {name!r} holds {_held(given)}, and the model's {_held(dtype)}")
    wrong = fitted.is_null() & values.is_not_null() & ((values != "") if given == pl.String else True)
    if wrong.any():
        example = str(values.filter(wrong)[0])[:40]
        raise DataError(f"column {name!r} holds {_held(dtype)} in the model, and {example!r} is text")
    return fitted


def _parsed(texts: pl.Series, dtype: pl.DataType) -> pl.Series | None:
    if dtype.is_numeric():
        numbers = parse_numbers(texts)
        whole = bool(dtype.is_integer() and (numbers == numbers.round(0)).all())
        return numbers.cast(pl.Int64) if whole else numbers
    if dtype == pl.Boolean:
        return texts.str.strip_chars().str.to_lowercase().replace_strict(_TRUTH, default=None, return_dtype=pl.Boolean)
    if isinstance(dtype, pl.Date | pl.Datetime):
        dates = read_dates(texts, certain=True)
        return dates.dt.date() if dtype == pl.Date and dates is not None and not _has_times(dates) else dates
    return None


def _has_times(dates: pl.Series) -> bool:
    return bool((dates != dates.dt.truncate("1d")).any())
