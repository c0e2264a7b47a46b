"""External ids: columns of integers or text, which never pass through a float."""

from __future__ import annotations

import logging
import re
from bisect import bisect_right
from itertools import accumulate
from typing import NamedTuple
from uuid import UUID

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

# The 32 digits of a UUID of RFC 9562: its version and its variant are digits of their own.
_UUID_DIGITS = r"^.{12}[1-8].{3}[89ab]"

# Integers that need not fit an Int64.
_WIDE = (pl.UInt64, pl.Int128)

_INTEGER_AS_FLOAT = r"^-?[0-9]+\.0+$"


class FileRows(NamedTuple):
    """The rows that a table has of one of its files: their number, and how messages number them, see `RowLabel`."""

    name: str
    rows: int
    word: str
    first: int
    lines: Rows | None = None


class RowLabel(NamedTuple):
    """How messages number rows: "row" from 1 for a frame, "line" from 2 for a file with a header.

    files: those that the rows come from, one after the other, if they are several. lines [n]: the number of each row,
    where they do not go up by one.
    """

    word: str = "row"
    first: int = 1
    files: tuple[FileRows, ...] = ()
    lines: Rows | None = None

    def named(self, name: str, rows: int) -> tuple[FileRows, ...]:
        """Return the files that the rows come from: this one, of a name and so many rows, unless they are known."""
        return self.files or (FileRows(name, rows, self.word, self.first, self.lines),)


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
    Bytes are UTF-8 text, or UUIDs; UUIDs become text. Raises DataError for floats, nulls and other types.
    """
    column = as_text(column)
    if column.dtype == pl.Decimal and not column.dtype.scale:  # type: ignore[attr-defined]
        column, from_text = column.cast(pl.String), True
    if column.dtype.is_integer() and column.dtype not in _WIDE:
        ids = column.cast(pl.Int64)
    elif column.dtype in (pl.String, pl.Categorical, pl.Enum, *_WIDE):
        ids = column.cast(pl.String)
        if from_text:
            ids = _as_integers(ids, name)
    elif column.dtype.is_float():
        raise DataError(
            f"column {column.name!r} holds floats, but {name} ids must be integers or text: "
            "cast it first (a missing value may have turned integers into floats)"
        )
    elif column.dtype == pl.Struct:
        names = ", ".join(field.name for field in column.dtype.fields)  # type: ignore[attr-defined]
        raise DataError(
            f"column {column.name!r} holds objects with the fields {names[:80]}, but {name} ids must be integers or "
            "text: write the one that is the id into a column of its own"
        )
    else:
        raise DataError(f"column {column.name!r} holds {column.dtype}, but {name} ids must be integers or text")
    if ids.null_count():
        raise DataError(f"{name} id is missing in {row_labels(ids.is_null(), row_label)}")
    return ids


def as_text(column: pl.Series) -> pl.Series:
    """Return a column of bytes or UUIDs as text, and any other one as it is. Raises DataError for other bytes."""
    if column.dtype == pl.Object:
        kinds = {type(value) for value in column.to_list() if value is not None}
        if kinds != {UUID}:
            names = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise DataError(f"column {column.name!r} holds Python objects ({names[:80]}): turn them into text first")
        return pl.Series(column.name, [None if value is None else str(value) for value in column.to_list()], pl.String)
    if column.dtype != pl.Binary:
        return column
    digits = column.bin.encode("hex")
    if (column.bin.size() == 16).all() and digits.str.contains(_UUID_DIGITS).all():
        return uuid_text(digits)
    try:
        return column.cast(pl.String)
    except pl.exceptions.PolarsError:
        raise DataError(
            f"column {column.name!r} holds bytes that are neither UTF-8 text nor UUIDs: write them as text first, "
            "such as hexadecimal digits"
        ) from None


def uuid_text(digits: pl.Series) -> pl.Series:
    """Return UUIDs, given as 32 hexadecimal digits each, as text with dashes."""
    return digits.str.replace(r"^(.{8})(.{4})(.{4})(.{4})(.{12})$", "$1-$2-$3-$4-$5")


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


def row_name(row: int, row_label: RowLabel) -> str:
    """Name a row: "row 3", "line 3", or where they come from several files "line 3 of part-1.csv"."""
    if not row_label.files:
        return f"{row_label.word} {_number(row, row_label)}"
    ends = list(accumulate(file.rows for file in row_label.files))
    at = bisect_right(ends, row)
    file = row_label.files[at]
    return f"{file.word} {_number(row - ends[at] + file.rows, file)} of {file.name}"


def _number(row: int, label: RowLabel | FileRows) -> int:
    return row + label.first if label.lines is None else int(label.lines[row])


def row_labels(mask: pl.Series, row_label: RowLabel = RowLabel()) -> str:  # noqa: B008
    """Name the rows where the mask is true: "row 3", "lines 3, 9", "rows 1, 2, 3, 4, 5, … (812 in all)"; where they
    come from several files, "line 3 of part-1.csv"."""
    rows = mask.arg_true().to_numpy()
    more = f", … ({len(rows)} in all)" if len(rows) > 5 else ""
    if row_label.files:
        return ", ".join(row_name(row, row_label) for row in rows[:5].tolist()) + more
    word = row_label.word + "s" * (len(rows) != 1)
    return f"{word} {', '.join(str(_number(row, row_label)) for row in rows[:5].tolist())}{more}"
