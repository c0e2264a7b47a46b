"""Exact top-k: the one place that ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats, dots, shrink
from recsys_embed.kernels import MANY, worth
from recsys_embed.model.plain import PlainModel
from recsys_embed.ratings.vocab import Rows

# Scores that a block may hold: 64 MB of float32.
BLOCK = 1 << 24
# Scores that are worth a second thread.
_SHARE = 1 << 18
# Share of the keys below which it pays to gather those that are allowed.
_FEW = 0.2
_LEAST = np.finfo(np.float32).min

Pairs = tuple[Rows, Rows]
Mask = NDArray[np.bool_]
_NONE = np.zeros(0, np.int64)


class Index(Protocol):
    """Finds the k best keys of queries."""

    def __len__(self) -> int:
        """Return the number of keys."""
        ...

    def search(
        self, queries: Floats, k: int, allowed: Mask | None = None, exclude: Pairs | None = None
    ) -> tuple[Floats, Rows]:
        """Return (scores [b, k'], rows [b, k']), best first, for queries [b, d]; k' = min(k, keys).

        allowed: bool [n], keys that may be found. exclude: (query, key) pairs, ascending by query, that may not.
        Where fewer are left, the end of a line holds row -1 and score -inf; that is where keys go whose score is -inf
        or no number. Equal scores go by ascending row.
        """
        ...


class ExactIndex:
    """Scores all keys that are allowed, in blocks of queries, and takes the best.

    keys: [n, d]. score: how (queries [b, d], keys [n, d]) become scores [b, n], a new array, since it is written to; a
    dot product by default. Queries are whatever `score` takes, in rows that can be sliced: sparse ones too.
    """

    def __init__(self, keys: Floats, score: Callable[[Any, Floats], Floats] | None = None) -> None:
        self.keys = keys
        self._score = score

    def __len__(self) -> int:
        return len(self.keys)

    @staticmethod
    def of(model: PlainModel) -> ExactIndex:
        """Index the items of a model, with their biases; ask it with `model.queries(users)`. It copies nothing."""
        return ItemIndex(model)

    def scores(self, queries: Any, rows: Rows | None = None) -> Floats:
        """Return the scores of queries with all keys, [b, n], or with those of some rows, [b, rows]."""
        if self._score is None:
            return dots(queries, self.keys, rows)
        return self._score(queries, self.keys if rows is None else self.keys[rows])

    def search(
        self, queries: Any, k: int, allowed: Mask | None = None, exclude: Pairs | None = None
    ) -> tuple[Floats, Rows]:
        """See Index."""
        b, n, k = queries.shape[0], len(self), min(k, len(self))
        query, hidden = _checked(n, allowed, exclude)
        scores, rows = np.full((b, k), -np.inf, np.float32), np.full((b, k), -1, np.int64)
        barred, among = _NONE, None
        if allowed is not None and np.count_nonzero(allowed) < n * _FEW:
            among = np.flatnonzero(allowed)
            query, hidden = _within(among, query, hidden)
        elif allowed is not None:
            barred = np.flatnonzero(~allowed)
        width = n if among is None else len(among)
        first = min(k, width)
        edge = np.searchsorted(query, np.arange(b + 1))
        best, step = _best(b * width), max(1, BLOCK // max(1, width))
        for start in range(0, b if first else 0, step):
            block = slice(start, start + step)
            table = _table(self.scores(queries[block], among))
            edges = edge[start : start + len(table) + 1]
            if first == k:
                best(table, barred, edges, hidden, scores[block], rows[block])
            else:
                scores[block, :first], rows[block, :first] = _new(best, table, barred, edges, hidden, first)
        if among is not None and len(among):
            rows[:] = np.where(rows < 0, -1, among[rows])
        return scores, rows


class ItemIndex(ExactIndex):
    """The items of a model, scored as it scores, where they lie: nothing is copied."""

    def __init__(self, model: PlainModel) -> None:
        super().__init__(model.items)
        self.model = model

    def scores(self, queries: Any, rows: Rows | None = None) -> Floats:
        """See ExactIndex."""
        return self.model.score(queries, rows)


class CosineIndex(ExactIndex):
    """Vectors [n, d], of any length, by their cosine with queries of unit length; they are not copied."""

    def __init__(self, vectors: Floats) -> None:
        super().__init__(vectors)
        self.shrink = shrink(vectors)

    def scores(self, queries: Any, rows: Rows | None = None) -> Floats:
        """See ExactIndex."""
        by = self.shrink if rows is None else self.shrink[rows]
        if len(queries) > self.keys.shape[1]:  # of many, a copy of the keys is less work, and less than the scores
            return dots(queries, (self.keys if rows is None else self.keys[rows]) * by[:, None])
        out = dots(queries, self.keys, rows)
        out *= by
        return out

    def directions(self, rows: Rows) -> Floats:
        """Return the vectors of some rows at unit length, [b, d]; zeros stay zeros."""
        made: Floats = self.keys[rows] * self.shrink[rows, None]
        return made

    def neighbours(self, rows: Rows, k: int) -> tuple[Floats, Rows]:
        """Return, for some rows, the k others nearest to each: cosines and rows, both [b, k'], as `search` does."""
        return self.search(self.directions(rows), k, exclude=(np.arange(len(rows)), rows))


def _checked(n: int, allowed: Mask | None, exclude: Pairs | None) -> Pairs:
    """Return what is excluded; refuse what names no key of n."""
    if allowed is not None and len(allowed) != n:
        raise ValueError(f"allowed must say of each of {n} keys whether it is, and says so of {len(allowed)}")
    if exclude is None:
        return _NONE, _NONE
    if len(exclude[1]) and not 0 <= exclude[1].min() <= exclude[1].max() < n:
        raise IndexError(f"of {n} keys, one is excluded that is none of them")
    return exclude


def _within(among: Rows, query: Rows, hidden: Rows) -> Pairs:
    """Return the (query, key) pairs whose key is one of `among`, ascending, as places in it."""
    place = np.searchsorted(among, hidden)
    inside = place < len(among)
    inside[inside] = among[place[inside]] == hidden[inside]
    return query[inside], place[inside]


def at_once(keys: int) -> int:
    """Return how many queries to search with at once: few enough for the memory, and enough to be worth a kernel."""
    return max(8192, MANY // max(1, keys))


def top(table: Floats, k: int) -> tuple[Floats, Rows]:
    """Return the k best of each line of [b, n], best first, as in `Index.search`: scores and rows, both [b, k']."""
    b, k = len(table), min(k, table.shape[1])
    return _new(_best(table.size), _table(table), _NONE, np.zeros(b + 1, np.int64), _NONE, k)


def _new(
    best: Callable[..., None], table: Floats, barred: Rows, edge: Rows, hidden: Rows, k: int
) -> tuple[Floats, Rows]:
    """Return the k best of each line of a table as new arrays."""
    scores, rows = np.empty((len(table), k), np.float32), np.empty((len(table), k), np.int64)
    best(table, barred, edge, hidden, scores, rows)
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
    scores[:], rows[:] = -np.inf, -1
    if not rows.size:
        return
    if b == 1:
        return _one(table, barred, hidden[edge[0] : edge[1]], scores[0], rows[0])
    table[:, barred] = -np.inf
    table[np.repeat(np.arange(b), np.diff(edge)), hidden[edge[0] : edge[-1]]] = -np.inf
    groups = _groups(table, k)
    if np.isnan(groups).any():
        table = np.where(np.isnan(table), -np.inf, table)
        groups = _groups(table, k)
    # At least k scores reach the k-th best of the groups' best, and not many more do.
    enough = np.maximum(np.partition(groups, groups.shape[1] - k, axis=1)[:, -k, None], _LEAST)
    found = np.flatnonzero(table >= enough)
    line, row = np.divmod(found, n)
    score = table.ravel()[found]
    order = np.lexsort((-score, line))  # equal scores stay in the order of their rows
    start = np.searchsorted(line, np.arange(b))
    place = np.arange(len(line)) - start[line]
    kept = place < k
    line, place, order = line[kept], place[kept], order[kept]
    scores[line, place], rows[line, place] = score[order], row[order]


def _one(table: Floats, barred: Rows, hidden: Rows, scores: Floats, rows: Rows) -> None:
    """Do what `_plain` does for one line [1, n], in half the time."""
    line, k = table[0], len(rows)
    if len(barred):
        line[barred] = -np.inf
    line[hidden] = -np.inf
    groups = _groups(table, k)[0]
    if np.isnan(groups).any():
        line = np.where(np.isnan(line), -np.inf, line)
        groups = _groups(line[None], k)[0]
    found = np.flatnonzero(line >= max(np.partition(groups, len(groups) - k)[-k], _LEAST))
    best = np.argsort(-line[found], kind="stable")[:k]  # equal scores stay in the order of their rows
    rows[: len(best)] = found[best]
    scores[: len(best)] = line[rows[: len(best)]]


def _groups(table: Floats, k: int) -> Floats:
    """Return the best of each of some groups of the scores in each line, at least k of them."""
    b, n = table.shape
    wide = max(256, 4 * k)
    if n < 2 * wide:
        return table
    whole = n // wide * wide
    groups: Floats = table[:, :whole].reshape(b, -1, wide).max(axis=1)
    np.maximum(groups[:, : n - whole], table[:, whole:], out=groups[:, : n - whole])
    return groups
