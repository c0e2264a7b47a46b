"""Change single cells of a column."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import polars as pl

from recsys_embed.data.ids import Rows

# From so many rows on, a column of lists is gathered rather than cut and joined.
_MANY = 1000


def with_cells(column: pl.Series, rows: Rows, values: pl.Series) -> pl.Series:
    """Return a column with other values in some rows. values: of the column's type, one for each row.

    Takes a copy of the column, some milliseconds for a million rows.
    """
    if not len(rows) or column.dtype == pl.Null():
        return column  # of type null are nulls alone
    # In the order of the rows; of several values of a row, the last.
    order = np.argsort(rows, kind="stable")
    order = order[np.append(np.diff(rows[order]) > 0, True)]
    rows, values = rows[order], values.gather(order)
    if not isinstance(column.dtype, pl.List):
        return column.clone().scatter(rows, values)
    if len(rows) > _MANY:
        at = np.arange(len(column))
        at[rows] = np.arange(len(column), len(column) + len(rows))
        return pl.concat([column, values.alias(column.name)]).gather(at)
    # Cells of lists have no fixed size: the column is cut at the rows and joined again.
    pieces = []
    for position, (before, after) in enumerate(pairwise([-1, *rows.tolist(), len(column)])):
        if position:
            pieces.append(values[position - 1 : position])
        pieces.append(column[before + 1 : after])
    return pl.concat(pieces, rechunk=True).alias(column.name)
