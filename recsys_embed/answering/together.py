"""Pairs of items that the same users have: how many, how similar, and what is bought together."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_embed.answering.tables import as_table
from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.retrieval.base import Mask
from recsys_embed.retrieval.topk import topk
from recsys_embed.state.fitted import FittedState

# Added to the denominator of the cosine of two items' users, so that a few common users are no proof.
_SHRINKAGE = np.float32(10.0)


def similar_by_users(state: FittedState, rows: Rows, k: int, by: str, allowed: Mask | None) -> pl.DataFrame:
    """Return the k items that go best with each item row, by "neighbours" or "together"; see `Recommender.similar`."""
    shape = len(rows), min(k, len(state.items))
    scores, found, together = np.empty(shape, np.float32), np.empty(shape, np.int64), np.empty(shape, np.int64)
    count = state.users_of_items.count
    for line, row in enumerate(rows.tolist()):
        common = _common_users(state, row)
        score = _cosine(common, count, row) if by == "neighbours" else _log_likelihood_ratio(state, common, count, row)
        score[(common == 0) | (False if allowed is None else ~allowed)] = -np.inf
        score[row] = -np.inf
        best, items = topk(score[None], k)
        scores[line], found[line], together[line] = best[0], items[0], common[items[0]]
    table = as_table(state, scores, found, of=state.items.ids(rows)).with_columns(together=together[found >= 0])
    if by == "neighbours":
        return table
    lines, rank = np.nonzero(found >= 0)
    both, own, other = together[lines, rank], count[rows[lines]], count[found[lines, rank]]
    return table.with_columns(lift=both * _histories(state) / (own * other), confidence=both / own)


def _cosine(common: Rows, count: Rows, row: int) -> Floats:
    """Return the shrunk cosines [items] of who has an item and who has each other one."""
    count = np.maximum(1, count)
    return (common / (np.sqrt(count * count[row]) + _SHRINKAGE)).astype(np.float32)


def _log_likelihood_ratio(state: FittedState, common: Rows, count: Rows, row: int) -> Floats:
    """Return how surely an item and each other one are had together more often than by chance, [items].

    It is Dunning's log-likelihood ratio of the table of users who have both, either and neither; -inf for items that
    are had together no more often than by chance.
    """
    users, own = float(_histories(state)), float(count[row])
    both, other = common.astype(np.float64), count.astype(np.float64)
    cells = both, own - both, other - both, users - own - other + both
    sums = own, users - own, other, users - other
    ratio = 2 * (sum(_x_log_x(n) for n in cells) - sum(_x_log_x(n) for n in sums) + _x_log_x(users))
    return np.where(both * users > own * other, ratio, -np.inf).astype(np.float32)


def _x_log_x(n: NDArray[np.float64] | float) -> NDArray[np.float64]:
    values = np.asarray(n, np.float64)
    return values * np.log(np.where(values > 0, values, 1))


def _histories(state: FittedState) -> int:
    """Return how many users have a history."""
    return int(np.count_nonzero(state.seen.count))


def _common_users(state: FittedState, row: int) -> Rows:
    """Return how many users have both an item and each other item, int64 [items]."""
    _, items = state.seen.pairs_of(state.users_of_items[row])
    return np.bincount(items, minlength=len(state.items))
