"""External ids: columns of integers or text, which never pass through a float."""

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

# Row numbers of a vocabulary, a table or a matrix.
Rows = NDArray[np.int64]

# Text that an int64 prints as: "42" and "-7" match; "007", "+5" and "1.0" do not.
CANONICAL_INTEGER = r"^(?:0|-?[1-9][0-9]{0,17})$"

_INTEGER_AS_FLOAT = r"^-?[0-9]+\.0+$"


class RowLabel(NamedTuple):
    """How messages number rows: "row" from 1 for a frame, "line" from 2 for a file with a header."""

    word: str = "row"
    first: int = 1


def id_column(
    column: pl.Series,
    name: str,
    from_text: bool = False,
    row_label: RowLabel = RowLabel(),  # noqa: B008
) -> pl.Series:
    """Return the ids of a column as Int64 or String, without going through a float.

    name: what the ids identify, for messages ("user", "item").
    from_text: the column was read from a text file. It becomes integers if every value is the canonical text of one;
        a single "007" keeps the whole column text.
    row_label: how messages number the rows.
    Raises DataError for floats, nulls and other types.
    """
    if column.dtype.is_integer() and column.dtype != pl.UInt64:
        ids = column.cast(pl.Int64)
    elif column.dtype in (pl.String, pl.Categorical, pl.Enum, pl.UInt64):
        ids = column.cast(pl.String)
        if from_text:
            ids = _as_integers(ids, name)
    elif column.dtype.is_float():
        raise DataError(
            f"column {column.name!r} holds floats, but {name} ids must be integers or text: "
            "cast it first (a missing value may have turned integers into floats)"
        )
    else:
        raise DataError(f"column {column.name!r} holds {column.dtype}, but {name} ids must be integers or text")
    if ids.null_count():
        raise DataError(f"{name} id is missing in {row_labels(ids.is_null(), row_label)}")
    return ids


def _as_integers(ids: pl.Series, name: str) -> pl.Series:
    """Return text ids as integers if each is the canonical text of one, else unchanged."""
    present = ids.drop_nulls()
    if not len(present):
        return ids
    # Printing the integers again is faster, on a file of millions of rows, than matching every text to the pattern.
    if re.search(CANONICAL_INTEGER, present[0]):
        integers = ids.cast(pl.Int64, strict=False)
        if integers.is_between(-(10**18) + 1, 10**18 - 1).all() and integers.cast(pl.String).equals(ids):
            return integers
    elif re.search(_INTEGER_AS_FLOAT, present[0]) and present.str.contains(_INTEGER_AS_FLOAT).all():
        log.warning(
            "the %s ids look like %s: a missing value may have turned integers into floats when the file was written; "
            "they are used as text",
            name,
            present[0],
        )
    return ids


def row_labels(mask: pl.Series, row_label: RowLabel = RowLabel()) -> str:  # noqa: B008
    """Name the rows where the mask is true: "row 3", "lines 3, 9", "rows 1, 2, 3, 4, 5, … (812 in all)"."""
    rows = mask.arg_true().to_numpy() + row_label.first
    word = row_label.word + "s" * (len(rows) != 1)
    if len(rows) <= 5:
        return f"{word} {', '.join(map(str, rows))}"
    return f"{word} {', '.join(map(str, rows[:5]))}, … ({len(rows)} in all)"
