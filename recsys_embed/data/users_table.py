"""UsersTable: users whom lists are for, with conditions and lengths of their own, and what to carry along."""

from __future__ import annotations

import logging
import re
from typing import Any, NamedTuple

import polars as pl

from recsys_embed.data.column_guess import undecided, usual_columns
from recsys_embed.data.columns import COLUMN_NAMES, as_polars
from recsys_embed.data.ids import RowLabel, id_column, row_labels
from recsys_embed.errors import DataError

log = logging.getLogger("recsys_embed")

# Names of the column of ids; "source" often says where a customer came from, so it is the last.
_FIRST = tuple(name for name in COLUMN_NAMES["user"] if name != "source")
_LAST = ("id", "node", "source")
# Columns in which pandas wrote the numbers of its rows.
_INDEX = re.compile(r"|Unnamed: \d+|__index_level_\d+__")
# The names that columns have which have none.
_ASSUMED = {"user", "item", "rating", "timestamp"}


class UsersTable(NamedTuple):
    """Users whom lists are for.

    ids [n]: as integers or text, in the order of the rows, maybe more than once. where [n]: a condition of each user,
    or null. k [n]: the length of each list, or null. columns [n, c]: what is written beside the lists. row_label: how
    messages number the rows.
    """

    ids: pl.Series
    where: pl.Series
    k: pl.Series
    columns: pl.DataFrame
    row_label: RowLabel


def users_table(
    frame: Any,
    user_col: str | None = None,
    from_text: bool = False,
    row_label: RowLabel = RowLabel(),  # noqa: B008
) -> UsersTable:
    """Return the users in a polars, pandas or pyarrow table.

    The columns `where` and `k` say what the user's list may hold and how long it is; others are carried along.
    user_col: the column of the ids; by default, the one with a usual name, or the only one. from_text, row_label: see
    `id_column`. Raises DataError.
    """
    data = as_polars(frame)
    data = data.drop([name for name in data.columns if _INDEX.fullmatch(name) and name != user_col])
    if data.is_empty():
        raise DataError("there are no users: the table has no row")
    name = _user_column(data.columns, user_col)
    ids = id_column(data[name], "user", from_text, row_label)
    others = [c for c in data.columns if c not in (name, "where", "k")]
    if from_text and set(data.columns) <= _ASSUMED and data.columns[0] == "user":
        others = []  # ratings, or rows without a header
    nested = [c for c in others if data[c].dtype.is_nested() or data[c].dtype in (pl.Object, pl.Binary)]
    if nested:
        log.warning("columns of the users are left out, since they hold no plain values: %s", ", ".join(nested))
    where, k = _texts(data, "where"), _lengths(data, row_label)
    columns = data.select(c for c in others if c not in nested).with_columns(
        pl.selectors.by_dtype(pl.Categorical, pl.Enum).cast(pl.String)
    )
    return UsersTable(ids.alias("user_id"), where, k, columns, row_label)


def _user_column(columns: list[str], given: str | None) -> str:
    if given is not None:
        if given not in columns:
            raise DataError(f"there is no column {given!r} for the user; the columns are {', '.join(columns)[:200]}")
        return given
    usual = usual_columns(columns, "user")
    found = next((name for name in _FIRST if name in columns), None)
    if found is None and len(usual) > 1:
        raise undecided({"user": usual})
    found = found or next((name for name in (*usual, *_LAST) if name in columns), None)
    if found is None and len(columns) == 1:
        found = columns[0]
    if found is None:
        raise DataError(f"no column for the user among {', '.join(columns)[:200]}: name it with --user-col")
    return found


def _texts(data: pl.DataFrame, name: str) -> pl.Series:
    """Return a column as text, with null for none and for blanks."""
    if name not in data.columns:
        return pl.Series(name, [None] * data.height, pl.String)
    text = pl.col(name).cast(pl.String).str.strip_chars()
    return data.select(pl.when(text != "").then(text).alias(name))[name]


def _lengths(data: pl.DataFrame, row_label: RowLabel) -> pl.Series:
    """Return the lengths of lists, Int64; null for none. Raises DataError for what is no whole number above 0."""
    text = _texts(data, "k")
    lengths = text.str.replace(r"\.0+$", "").cast(pl.Int64, strict=False)
    wrong = text.is_not_null() & ~(lengths >= 1).fill_null(value=False)
    if wrong.any():
        value = text.filter(wrong)[0]
        raise DataError(f"k must be a whole number, at least 1, got {value[:40]!r} in {row_labels(wrong, row_label)}")
    return lengths
