"""The k best of each line of scores: the only place that ranks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.kernels import use_kernel
from recsys_embed.retrieval.base import NO_ROWS

# Scores that make another thread worthwhile.
_SCORES_PER_THREAD = 1 << 18

_LOWEST = np.finfo(np.float32).min

# A ranker: (table [b, n], blocked, edges, excluded, scores [b, k], rows [b, k]); see `_topk_numpy`.
RankTable = Callable[..., None]


def topk(table: Floats, k: int) -> tuple[Floats, Rows]:
    """Return the k best of each line of [b, n], best first, as `Index.search` does: scores and rows, both [b, k']."""
    b, k = len(table), min(k, table.shape[1])
    return topk_of(choose_topk(table.size), as_table(table), NO_ROWS, np.zeros(b + 1, np.int64), NO_ROWS, k)


def topk_of(rank: RankTable, table: Floats, blocked: Rows, edges: Rows, excluded: Rows, k: int) -> tuple[Floats, Rows]:
    """Return the k best of each line of a table as new arrays."""
    scores, rows = np.empty((len(table), k), np.float32), np.empty((len(table), k), np.int64)
    rank(table, blocked, edges, excluded, scores, rows)
    return scores, rows


def as_table(scores: Floats) -> Floats:
    """Return scores [b, n] as the rankers below take them: float32, row-major and writable."""
    return np.require(scores, np.float32, ("C", "W"))


def choose_topk(n_scores: int) -> RankTable:
    """Return the faster ranker for so many scores; both give the same. Numba is not loaded for one or two answers."""
    return _topk_numba if use_kernel("ranking", n_scores) else _topk_numpy


def _topk_numba(table: Floats, blocked: Rows, edges: Rows, excluded: Rows, scores: Floats, rows: Rows) -> None:
    """Do what `_topk_numpy` does, 15 times as fast."""
    from recsys_embed.kernels import ranking
    from recsys_embed.kernels.compiled import parallel_for

    if not rows.size:
        return
    excluded = np.require(excluded, np.int64, ("C", "W"))
    parallel_for(
        len(table),
        ranking.topk,
        table,
        blocked,
        edges,
        excluded,
        scores,
        rows,
        min_rows=1 + _SCORES_PER_THREAD // table.shape[1],
    )


def _topk_numpy(table: Floats, blocked: Rows, edges: Rows, excluded: Rows, scores: Floats, rows: Rows) -> None:
    """Write the k best of each line of a table [b, n] to scores and rows, both [b, k]. The table is overwritten.

    blocked: rows that no line may return. excluded[edges[x]:edges[x + 1]]: rows that line x may not.
    """
    b, n, k = *table.shape, rows.shape[1]
    scores[:], rows[:] = -np.inf, -1
    if not rows.size:
        return
    if b == 1:
        return _topk_single(table, blocked, excluded[edges[0] : edges[1]], scores[0], rows[0])
    table[:, blocked] = -np.inf
    table[np.repeat(np.arange(b), np.diff(edges)), excluded[edges[0] : edges[-1]]] = -np.inf
    if 4 * k > n:
        order = np.argsort(-table, axis=1, kind="stable")[:, :k]
        values = np.take_along_axis(table, order, 1)
        np.copyto(scores, values, where=values > -np.inf)
        np.copyto(rows, order, where=values > -np.inf)
        return
    maxima = _group_maxima(table, k)
    if np.isnan(maxima).any():
        table = np.where(np.isnan(table), -np.inf, table)
        maxima = _group_maxima(table, k)
    # At least k scores reach the k-th best group maximum, and not many more do.
    threshold = np.maximum(np.partition(maxima, maxima.shape[1] - k, axis=1)[:, -k, None], _LOWEST)
    reached = np.flatnonzero(table >= threshold)
    line, row = np.divmod(reached, n)
    score = table.ravel()[reached]
    order = np.lexsort((-score, line))  # equal scores stay in the order of their rows
    start = np.searchsorted(line, np.arange(b))
    rank = np.arange(len(line)) - start[line]
    in_top = rank < k
    line, rank, order = line[in_top], rank[in_top], order[in_top]
    scores[line, rank], rows[line, rank] = score[order], row[order]


def _topk_single(table: Floats, blocked: Rows, excluded: Rows, scores: Floats, rows: Rows) -> None:
    """Do what `_topk_numpy` does for one line [1, n], in half the time."""
    line, k = table[0], len(rows)
    if len(blocked):
        line[blocked] = -np.inf
    line[excluded] = -np.inf
    maxima = _group_maxima(table, k)[0]
    if np.isnan(maxima).any():
        line = np.where(np.isnan(line), -np.inf, line)
        maxima = _group_maxima(line[None], k)[0]
    reached = np.flatnonzero(line >= max(np.partition(maxima, len(maxima) - k)[-k], _LOWEST))
    best = np.argsort(-line[reached], kind="stable")[:k]  # equal scores stay in the order of their rows
    rows[: len(best)] = reached[best]
    scores[: len(best)] = line[rows[: len(best)]]


def _group_maxima(table: Floats, k: int) -> Floats:
    """Return the largest score of each group of columns, line by line: at least k groups, or all scores if few."""
    b, n = table.shape
    groups = max(256, 4 * k)
    if n < 2 * groups:
        return table
    whole = n // groups * groups
    maxima: Floats = table[:, :whole].reshape(b, -1, groups).max(axis=1)
    np.maximum(maxima[:, : n - whole], table[:, whole:], out=maxima[:, : n - whole])
    return maxima
