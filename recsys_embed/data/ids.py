"""Outside ids: columns of integers or text, never by way of a float."""

from __future__ import annotations

import logging
import re
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_embed.errors import DataError

log = logging.getLogger("recsys_embed")


Id = int | str


Rows = NDArray[np.int64]


# Text that an integer prints as, within int64: "42" and "-7" are, "007", "+5" and "1.0" are not.
CANONICAL_INTEGER = r"^(?:0|-?[1-9][0-9]{0,17})$"


_WAS_FLOAT = r"^-?[0-9]+\.0+$"


class RowLabel(NamedTuple):
    """How rows are named in messages: "row" counted from 1 in a frame, "line" from 2 in a file with a header."""

    word: str = "row"
    first: int = 1


def id_column(column: pl.Series, name: str, from_text: bool = False, place: RowLabel = RowLabel()) -> pl.Series:  # noqa: B008
    """Return the ids of a column as Int64 or String, never by way of a float.

    With `from_text` (a text file, where everything is text) a column whose every value is the canonical
    text of an integer becomes integers; one "007" in it keeps the whole column text.
    Raises DataError for floats, nulls and other types.
    """
    if column.dtype.is_integer() and column.dtype != pl.UInt64:
        ids = column.cast(pl.Int64)
    elif column.dtype in (pl.String, pl.Categorical, pl.Enum, pl.UInt64):
        ids = column.cast(pl.String)
        if from_text:
            ids = _integers(ids, name)
    elif column.dtype.is_float():
        raise DataError(
            f"column {column.name!r} holds floats, but {name} ids must be integers or text: "
            "cast it first (a missing value may have turned integers into floats)"
        )
    else:
        raise DataError(f"column {column.name!r} holds {column.dtype}, but {name} ids must be integers or text")
    if ids.null_count():
        raise DataError(f"{name} id is missing in {row_labels(ids.is_null(), place)}")
    return ids


def _integers(ids: pl.Series, name: str) -> pl.Series:
    """Return integers where each id is what an integer prints as, else the text as it is."""
    known = ids.drop_nulls()
    if not len(known):
        return ids
    # Each integer is printed again: on a file of millions that is faster than a pattern on every text.
    if re.search(CANONICAL_INTEGER, known[0]):
        numbers = ids.cast(pl.Int64, strict=False)
        if numbers.is_between(-(10**18) + 1, 10**18 - 1).all() and numbers.cast(pl.String).equals(ids):
            return numbers
    elif re.search(_WAS_FLOAT, known[0]) and known.str.contains(_WAS_FLOAT).all():
        log.warning(
            "the %s ids look like %s: a missing value may have made floats of integers when the file was written; "
            "they are taken as text",
            name,
            known[0],
        )
    return ids


def row_labels(bad: pl.Series, place: RowLabel = RowLabel()) -> str:  # noqa: B008
    """Name the rows where `bad` is true: "row 3", "lines 3, 9", "rows 1, 2, 3, 4, 5, … (812 in all)"."""
    rows = bad.arg_true().to_numpy() + place.first
    word = place.word + "s" * (len(rows) != 1)
    if len(rows) <= 5:
        return f"{word} {', '.join(map(str, rows))}"
    return f"{word} {', '.join(map(str, rows[:5]))}, … ({len(rows)} in all)"
