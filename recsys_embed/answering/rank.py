"""Rank items under rules, for one user or for a block of users."""

from __future__ import annotations

import numpy as np

from recsys_embed.answering.profile import UserProfile
from recsys_embed.answering.rerank import GreedyReranker
from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.errors import SettingError
from recsys_embed.retrieval.base import Index, Pairs
from recsys_embed.rules.compile import CompiledRules
from recsys_embed.state.fitted import FittedState

# Reranked lists are chosen from a pool of the best items, of this size or of this many times the list's length.
_POOL_SIZE, _POOL_FACTOR = 100, 4


def check_k(k: int) -> None:
    """Raise SettingError unless k is a valid list length."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise SettingError(f"k must be a whole number, at least 1, got {k!r}")


def index_for(state: FittedState, rules: CompiledRules) -> Index:
    """Return the index that ranks items for `model.queries` with the boosts of these rules."""
    return state.index if rules.boost is None else rules.boost.index


def popularity_index_for(state: FittedState, rules: CompiledRules) -> Index:
    """Return the index that ranks items for ones [b, 1]: users of whom nothing is known."""
    return state.popularity_index if rules.boost is None else rules.boost.popularity_index


def rank_block(index: Index, queries: Floats, k: int, rules: CompiledRules, excluded: Pairs) -> tuple[Floats, Rows]:
    """Return the k best allowed items of queries [b, q]: scores and rows, both [b, k'], as `Index.search` does.

    index: from `index_for` with the same rules. excluded: (query, item row) pairs, ascending by query. With
    diversity or group limits, the order is that of `GreedyReranker`, where scores need not be descending.
    """
    if rules.limits is None and not rules.diversity:
        return index.search(queries, k, rules.allowed, excluded)
    scores, rows = index.search(queries, _pool_size(k), rules.allowed, excluded)
    shape = len(rows), min(k, rows.shape[1])
    best_scores, best_rows = np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int64)
    edges = np.searchsorted(excluded[0], np.arange(len(rows) + 1))
    for line in range(len(rows)):
        line_excluded = excluded[1][edges[line] : edges[line + 1]]
        reranked = _rerank(index, queries[line : line + 1], k, rules, line_excluded, (scores[line], rows[line]))
        n = len(reranked.rows)
        best_scores[line, :n], best_rows[line, :n] = reranked.scores, reranked.rows
    return best_scores, best_rows


def _pool_size(k: int) -> int:
    return max(_POOL_SIZE, _POOL_FACTOR * k)


def _rerank(
    index: Index, query: Floats, k: int, rules: CompiledRules, excluded: Rows, pool: tuple[Floats, Rows]
) -> GreedyReranker:
    """Choose a list from a pool, and from further pools while full groups leave it too short."""
    reranker = GreedyReranker(rules, k)
    reranker.select_from(*pool)
    while rules.limits is not None and len(reranker.rows) < k and pool[1][-1] >= 0:
        allowed = ~rules.limits.blocked(reranker.full)
        allowed[reranker.rows] = False
        if rules.allowed is not None:
            allowed &= rules.allowed
        scores, rows = index.search(query, _pool_size(k), allowed, (np.zeros(len(excluded), np.int64), excluded))
        pool = scores[0], rows[0]
        reranker.select_from(*pool)
    return reranker


def rank_for(
    state: FittedState, profile: UserProfile, k: int, rules: CompiledRules, excluded: Rows
) -> tuple[Rows, Floats, str | None]:
    """Return (item rows, scores, shortfall) for one user, best first; shortfall says why there are fewer than k, if so.

    excluded: item rows that the list may not hold, ascending. For an anonymous user the scores are those of
    `popularity_scores`, plus any boost.
    """
    index: Index
    if profile.vector is None:
        query, index = np.ones((1, 1), np.float32), popularity_index_for(state, rules)
    else:
        query, index = state.model.query(profile.vector, profile.bias), index_for(state, rules)
    scores, rows = rank_block(index, query, k, rules, (np.zeros(len(excluded), np.int64), excluded))
    n = int(np.count_nonzero(rows[0] >= 0))
    shortfall = _explain_shortfall(len(state.items), k, n, rules, excluded) if n < k else None
    return rows[0, :n], scores[0, :n], shortfall


def scores_of(state: FittedState, profile: UserProfile, rows: Rows) -> Floats:
    """Return the scores of some item rows for a user, [n]; for an anonymous user, see `rank_for`."""
    if profile.vector is None:
        return state.popularity[rows]
    return state.scorer.score(state.model.query(profile.vector, profile.bias), rows)[0]


def _explain_shortfall(items: int, k: int, found: int, rules: CompiledRules, excluded: Rows) -> str:
    """Say why a list holds fewer than k items."""
    allowed = rules.allowed
    n_allowed = items if allowed is None else int(allowed.sum())
    n_excluded = len(excluded) if allowed is None else int(allowed[excluded].sum())
    text = f"{found:,} of {k:,}: " + (
        f"the model has {items:,} items" if allowed is None else f"{n_allowed:,} of {items:,} items may be shown"
    )
    if n_excluded:
        text += f", {n_excluded:,} of them {'is' if n_excluded == 1 else 'are'} theirs already"
    remaining = n_allowed - n_excluded - found
    if remaining:
        why = "no score" if rules.limits is None else f"no place in their groups ({rules.limits.text})"
        text += f", {remaining:,} {'has' if remaining == 1 else 'have'} {why}"
    return text
