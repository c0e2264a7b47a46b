"""The k best of each line of scores: the one place that ranks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.kernels import worth
from recsys_embed.retrieval.base import NO_ROWS

# Scores that are worth a second thread.
_SCORES_PER_THREAD = 1 << 18


_LOWEST = np.finfo(np.float32).min


def topk(table: Floats, k: int) -> tuple[Floats, Rows]:
    """Return the k best of each line of [b, n], best first, as in `Index.search`: scores and rows, both [b, k']."""
    b, k = len(table), min(k, table.shape[1])
    return topk_of(choose_topk(table.size), as_table(table), NO_ROWS, np.zeros(b + 1, np.int64), NO_ROWS, k)


def topk_of(
    best: Callable[..., None], table: Floats, blocked: Rows, edge: Rows, hidden: Rows, k: int
) -> tuple[Floats, Rows]:
    """Return the k best of each line of a table as new arrays."""
    scores, rows = np.empty((len(table), k), np.float32), np.empty((len(table), k), np.int64)
    best(table, blocked, edge, hidden, scores, rows)
    return scores, rows


def as_table(scores: Floats) -> Floats:
    """Return scores [b, n] as the rankers below take them: float32 by rows, which may be written to."""
    return np.require(scores, np.float32, ("C", "W"))


def choose_topk(numbers: int) -> Callable[..., None]:
    """Return the faster way to rank so many scores; both give the same. For an answer or two no Numba is loaded."""
    return _topk_numba if worth("ranking", numbers) else _topk_numpy


def _topk_numba(table: Floats, blocked: Rows, edge: Rows, hidden: Rows, scores: Floats, rows: Rows) -> None:
    """Do what `_topk_numpy` does, 15 times as fast."""
    from recsys_embed.kernels import ranking
    from recsys_embed.kernels.compiled import over

    if not rows.size:
        return
    hidden = np.require(hidden, np.int64, ("C", "W"))
    over(
        len(table),
        ranking.best,
        table,
        blocked,
        edge,
        hidden,
        scores,
        rows,
        least=1 + _SCORES_PER_THREAD // table.shape[1],
    )


def _topk_numpy(table: Floats, blocked: Rows, edge: Rows, hidden: Rows, scores: Floats, rows: Rows) -> None:
    """Write the k best of each line of a table [b, n] to scores and rows [b, k].

    barred: rows that no line may find; hidden[edge[x]:edge[x + 1]]: those that line x may not. The table is written to.
    """
    b, n, k = *table.shape, rows.shape[1]
    scores[:], rows[:] = -np.inf, -1
    if not rows.size:
        return
    if b == 1:
        return _topk_single(table, blocked, hidden[edge[0] : edge[1]], scores[0], rows[0])
    table[:, blocked] = -np.inf
    table[np.repeat(np.arange(b), np.diff(edge)), hidden[edge[0] : edge[-1]]] = -np.inf
    if 4 * k > n:
        order = np.argsort(-table, axis=1, kind="stable")[:, :k]
        values = np.take_along_axis(table, order, 1)
        np.copyto(scores, values, where=values > -np.inf)
        np.copyto(rows, order, where=values > -np.inf)
        return
    groups = _group_maxima(table, k)
    if np.isnan(groups).any():
        table = np.where(np.isnan(table), -np.inf, table)
        groups = _group_maxima(table, k)
    # At least k scores reach the k-th best of the groups' best, and not many more do.
    enough = np.maximum(np.partition(groups, groups.shape[1] - k, axis=1)[:, -k, None], _LOWEST)
    found = np.flatnonzero(table >= enough)
    line, row = np.divmod(found, n)
    score = table.ravel()[found]
    order = np.lexsort((-score, line))  # equal scores stay in the order of their rows
    start = np.searchsorted(line, np.arange(b))
    place = np.arange(len(line)) - start[line]
    kept = place < k
    line, place, order = line[kept], place[kept], order[kept]
    scores[line, place], rows[line, place] = score[order], row[order]


def _topk_single(table: Floats, blocked: Rows, hidden: Rows, scores: Floats, rows: Rows) -> None:
    """Do what `_topk_numpy` does for one line [1, n], in half the time."""
    line, k = table[0], len(rows)
    if len(blocked):
        line[blocked] = -np.inf
    line[hidden] = -np.inf
    groups = _group_maxima(table, k)[0]
    if np.isnan(groups).any():
        line = np.where(np.isnan(line), -np.inf, line)
        groups = _group_maxima(line[None], k)[0]
    found = np.flatnonzero(line >= max(np.partition(groups, len(groups) - k)[-k], _LOWEST))
    best = np.argsort(-line[found], kind="stable")[:k]  # equal scores stay in the order of their rows
    rows[: len(best)] = found[best]
    scores[: len(best)] = line[rows[: len(best)]]


def _group_maxima(table: Floats, k: int) -> Floats:
    """Return the best of each of some groups of the scores in each line, at least k of them."""
    b, n = table.shape
    wide = max(256, 4 * k)
    if n < 2 * wide:
        return table
    whole = n // wide * wide
    groups: Floats = table[:, :whole].reshape(b, -1, wide).max(axis=1)
    np.maximum(groups[:, : n - whole], table[:, whole:], out=groups[:, : n - whole])
    return groups
