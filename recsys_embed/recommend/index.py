"""Exact top-k: the one place that ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.kernels import MANY, worth
from recsys_embed.model.plain import PlainModel
from recsys_embed.ratings.vocab import Rows

# Scores that a block may hold: 64 MB of float32.
BLOCK = 1 << 24
# Scores that are worth a second thread.
_SHARE = 1 << 18

Pairs = tuple[Rows, Rows]
_NONE = np.zeros(0, np.int64)


class Index(Protocol):
    """Finds the k best keys of queries."""

    def search(
        self, queries: Floats, k: int, allowed: NDArray[np.bool_] | None = None, exclude: Pairs | None = None
    ) -> tuple[Floats, Rows]:
        """Return (scores [b, k'], rows [b, k']), best first, for queries [b, d]; k' = min(k, keys).

        allowed: bool [n], keys that may be found. exclude: (query, key) pairs, ascending by query, that may not.
        Where fewer are left, the end of a line holds row -1 and score -inf; that is where keys go whose score is -inf
        or no number. Equal scores go by ascending row.
        """
        ...


class ExactIndex:
    """Scores all keys, in blocks of queries, and takes the best.

    keys: [n, d]. score: how (queries [b, d], keys [n, d]) become scores [b, n], a new array, since it is written to; a
    dot product by default. Queries are whatever `score` takes, in rows that can be sliced: sparse ones too.
    """

    def __init__(self, keys: Floats, score: Callable[[Any, Floats], Floats] | None = None) -> None:
        self.keys = keys
        self.score = score or (lambda queries, keys: queries @ keys.T)

    @classmethod
    def of(cls, model: PlainModel) -> ExactIndex:
        """Index the items of a model, with their biases; ask it with `model.queries(users)`."""
        return cls(model.keys(), model.score)

    def search(
        self, queries: Any, k: int, allowed: NDArray[np.bool_] | None = None, exclude: Pairs | None = None
    ) -> tuple[Floats, Rows]:
        """See Index."""
        b, n, k = queries.shape[0], len(self.keys), min(k, len(self.keys))
        if allowed is not None and len(allowed) != n:
            raise ValueError(f"allowed must say of each of {n} keys whether it is, and says so of {len(allowed)}")
        if exclude is not None and len(exclude[1]) and not 0 <= exclude[1].min() <= exclude[1].max() < n:
            raise IndexError(f"of {n} keys, one is excluded that is none of them")
        scores, rows = np.empty((b, k), np.float32), np.empty((b, k), np.int64)
        barred = _NONE if allowed is None else np.flatnonzero(~allowed)
        query, hidden = (_NONE, _NONE) if exclude is None else exclude
        edge = np.searchsorted(query, np.arange(b + 1))
        best, step = _best(b * n), max(1, BLOCK // max(1, n))
        for start in range(0, b, step):
            block = slice(start, start + step)
            table = _table(self.score(queries[block], self.keys))
            best(table, barred, edge[start : start + len(table) + 1], hidden, scores[block], rows[block])
        return scores, rows


def at_once(keys: int) -> int:
    """Return how many queries to search with at once: few enough for the memory, and enough to be worth a kernel."""
    return max(8192, MANY // max(1, keys))


def neighbours(directions: Floats, rows: Rows, k: int) -> tuple[Floats, Rows]:
    """Return, for some rows of unit vectors [n, d], the k others nearest to each: cosines and rows, both [b, k'].

    Where there are fewer than k others, the end of a line is as in `Index.search`.
    """
    return ExactIndex(directions).search(directions[rows], k, exclude=(np.arange(len(rows)), rows))


def top(table: Floats, k: int) -> tuple[Floats, Rows]:
    """Return the k best of each line of [b, n], best first, as in `Index.search`: scores and rows, both [b, k']."""
    k = min(k, table.shape[1])
    scores, rows = np.empty((len(table), k), np.float32), np.empty((len(table), k), np.int64)
    _best(table.size)(_table(table), _NONE, np.zeros(len(table) + 1, np.int64), _NONE, scores, rows)
    return scores, rows


def _table(scores: Floats) -> Floats:
    return np.require(scores, np.float32, ("C", "W"))


def _best(numbers: int) -> Callable[..., None]:
    """Return the faster way to rank so many scores; both give the same. For an answer or two no Numba is loaded."""
    return _quick if worth("ranking", numbers) else _plain


def _quick(table: Floats, barred: Rows, edge: Rows, hidden: Rows, scores: Floats, rows: Rows) -> None:
    """Do what `_plain` does, 15 times as fast."""
    from recsys_embed.kernels import ranking
    from recsys_embed.kernels.compiled import over

    if not rows.size:
        return
    hidden = np.require(hidden, np.int64, ("C", "W"))
    over(len(table), ranking.best, table, barred, edge, hidden, scores, rows, least=1 + _SHARE // table.shape[1])


def _plain(table: Floats, barred: Rows, edge: Rows, hidden: Rows, scores: Floats, rows: Rows) -> None:
    """Write the k best of each line of a table [b, n] to scores and rows [b, k].

    barred: rows that no line may find; hidden[edge[x]:edge[x + 1]]: those that line x may not. The table is written to.
    """
    b, n, k = *table.shape, rows.shape[1]
    table[:, barred] = -np.inf
    table[np.repeat(np.arange(b), np.diff(edge)), hidden[edge[0] : edge[-1]]] = -np.inf
    if (nothing := np.isnan(table)).any():
        table = np.where(nothing, -np.inf, table)
    if k < n:
        found = np.argpartition(table, n - k, axis=1)[:, n - k :]
        least = np.take_along_axis(table, found, 1).min(axis=1)
        # Equal scores at the edge: which of them came in is chance, so those lines choose anew among all that are
        # good enough, the lowest rows first.
        for line in np.flatnonzero((table >= least[:, None]).sum(axis=1) > k):
            good = np.flatnonzero(table[line] >= least[line])
            found[line] = good[np.argsort(-table[line, good], kind="stable")[:k]]
    else:
        found = np.broadcast_to(np.arange(n), (b, n))
    found = np.sort(found, axis=1)
    values = np.take_along_axis(table, found, 1)
    order = np.argsort(-values, axis=1, kind="stable")
    scores[:] = np.take_along_axis(values, order, 1)
    rows[:] = np.where(np.isneginf(scores), -1, np.take_along_axis(found, order, 1))
