"""Tables of ratings from Python objects: SciPy matrices and tuples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
import polars as pl

from recsys_embed.errors import DataError

if TYPE_CHECKING:
    from scipy.sparse import sparray, spmatrix

_NAMES = ("user_id", "item_id", "rating", "timestamp")


def matrix_frame(
    matrix: spmatrix | sparray, users: Sequence[Any] | None = None, items: Sequence[Any] | None = None
) -> pl.DataFrame:
    """Return the stored values of a sparse matrix [users, items] as user_id, item_id, rating.

    users, items: the ids of the rows and columns; by default their numbers. Raises DataError; see
    `Ratings.from_matrix`.
    """
    if not (type(matrix).__module__.startswith("scipy.sparse") and getattr(matrix, "ndim", 0) == 2):
        raise DataError(
            f"a SciPy sparse matrix [users, items] is needed, not a {type(matrix).__name__}: "
            "scipy.sparse.csr_matrix(X) makes one, and leaves out zeros"
        )
    if not (np.issubdtype(matrix.dtype, np.number) or matrix.dtype == bool) or np.iscomplexobj(matrix):
        raise DataError(f"the matrix holds {matrix.dtype}; its values must be numbers")
    stored = matrix.tocsr(copy=True)
    stored.sum_duplicates()  # as SciPy reads a pair that is stored twice
    coo = stored.tocoo()
    zeros = int((coo.data == 0).sum())
    if zeros:
        n = int(np.argmax(coo.data == 0))
        raise DataError(
            f"the matrix stores {zeros:,} zeros, the first in row {coo.row[n]}, column {coo.col[n]}: "
            "X.eliminate_zeros() drops them; Ratings.from_tuples takes ratings of 0"
        )
    columns = []
    for name, ids, index, size in (
        ("users", users, coo.row, matrix.shape[0]),
        ("items", items, coo.col, matrix.shape[1]),
    ):
        if ids is None:
            columns.append(pl.Series(index.astype(np.int64)))
            continue
        series = _column(list(ids), name)
        if len(series) != size or series.n_unique() != size:
            raise DataError(
                f"{name} must be {size:,} distinct ids, as the matrix is {matrix.shape}; got {len(series):,}"
            )
        columns.append(series.gather(index.astype(np.int64)))
    return pl.DataFrame({"user_id": columns[0], "item_id": columns[1], "rating": coo.data.astype(np.float32)})


def tuples_frame(rows: Iterable[Sequence[Any]]) -> pl.DataFrame:
    """Return (user, item[, rating[, time]]) tuples, all of one length, as a frame. Raises DataError."""
    if isinstance(rows, str | bytes | dict) or hasattr(rows, "columns"):
        raise DataError(f"tuples (user, item[, rating[, time]]) are needed, not a {type(rows).__name__}")
    table = list(rows)
    if not table:
        raise DataError("there are no ratings: the iterable is empty")
    sized = [isinstance(row, Sequence | np.ndarray) and not isinstance(row, str | bytes) for row in table]
    if not all(sized):
        n = sized.index(False)
        raise DataError(f"tuple {n + 1} is a {type(table[n]).__name__}; (user, item[, rating[, time]]) is needed")
    width = len(table[0])
    if not 2 <= width <= len(_NAMES):
        raise DataError(f"tuple 1 has {width} values; (user, item[, rating[, time]]) has 2 to 4")
    other = next((n for n, row in enumerate(table) if len(row) != width), None)
    if other is not None:
        raise DataError(f"tuple {other + 1} has {len(table[other])} values, but tuple 1 has {width}")
    columns = zip(_NAMES, zip(*table, strict=True), strict=False)
    return pl.DataFrame({name: _column(list(values), name) for name, values in columns})


def _column(values: list[Any], name: str) -> pl.Series:
    """Return values of one kind as a column; UUIDs as text."""
    values = [v.item() if isinstance(v, np.generic) else str(v) if isinstance(v, UUID) else v for v in values]
    kinds = {type(v).__name__ for v in values if v is not None}
    if len(kinds) > 1 and not kinds <= {"int", "float", "bool"}:
        raise DataError(f"{name} holds values of several types ({', '.join(sorted(kinds))}): choose one of them")
    if len(kinds) > 1 and name not in ("rating", "timestamp"):
        raise DataError(f"{name} holds {' and '.join(sorted(kinds))}, but ids must be integers or text")
    try:
        if len(kinds) > 1:
            return pl.Series(name, [None if v is None else float(v) for v in values], dtype=pl.Float64)
        return pl.Series(name, values, strict=True)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{name} cannot be a column: {str(error).splitlines()[0][:200]}") from None
