"""Lists of items under rules, for one user or a block of users."""

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

# A list that is not simply the best is chosen from a pool of the best: of this size, or this many times its length.
_POOL_SIZE, _POOL_FACTOR = 100, 4


def check_k(k: int) -> None:
    """Raise SettingError for what is no length of a list."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise SettingError(f"k must be a whole number, at least 1, got {k!r}")


def index_for(state: FittedState, rules: CompiledRules) -> Index:
    """Return the index that ranks items for `model.queries` under these rules."""
    return state.index if rules.boost is None else rules.boost.index


def rank_block(index: Index, queries: Floats, k: int, rules: CompiledRules, hidden: Pairs) -> tuple[Floats, Rows]:
    """Return the k best allowed items of queries [b, q]: scores and rows, both [b, k'], as `Index.search` does.

    index: `index_for` the same rules. hidden: (query, item row) pairs, ascending by query, that no list may hold. With
    diversity, or limits for groups, the order is that of `GreedyReranker`, in which scores need not fall.
    """
    if rules.limits is None and not rules.diversity:
        return index.search(queries, k, rules.allowed, hidden)
    scores, rows = index.search(queries, _pool_size(k), rules.allowed, hidden)
    size = len(rows), min(k, rows.shape[1])
    best, chosen = np.full(size, -np.inf, np.float32), np.full(size, -1, np.int64)
    edge = np.searchsorted(hidden[0], np.arange(len(rows) + 1))
    for line in range(len(rows)):
        own = hidden[1][edge[line] : edge[line + 1]]
        found = _rerank(index, queries[line : line + 1], k, rules, own, (scores[line], rows[line]))
        best[line, : len(found.rows)], chosen[line, : len(found.rows)] = found.scores, found.rows
    return best, chosen


def _pool_size(k: int) -> int:
    return max(_POOL_SIZE, _POOL_FACTOR * k)


def _rerank(
    index: Index, query: Floats, k: int, rules: CompiledRules, hidden: Rows, pool: tuple[Floats, Rows]
) -> GreedyReranker:
    """Choose one list from a first pool, and from further ones where full groups leave too little of it."""
    reranker = GreedyReranker(rules, k)
    reranker.take(*pool)
    while rules.limits is not None and len(reranker.rows) < k and pool[1][-1] >= 0:
        allowed = ~rules.limits.blocked(reranker.full)
        allowed[reranker.rows] = False
        if rules.allowed is not None:
            allowed &= rules.allowed
        scores, rows = index.search(query, _pool_size(k), allowed, (np.zeros(len(hidden), np.int64), hidden))
        pool = scores[0], rows[0]
        reranker.take(*pool)
    return reranker


def rank_for(
    state: FittedState, profile: UserProfile, k: int, rules: CompiledRules, hidden: Rows
) -> tuple[Rows, Floats, str | None]:
    """Return (rows, scores, why there are fewer than k, or None) for one user, best first.

    hidden: item rows, ascending, that the list may not hold. For an anonymous user a score is the logarithm of one
    more than an item's number of ratings, as a softmax over biases would have it, and what a boost adds.
    """
    index: Index
    if profile.vector is None:
        query = np.ones((1, 1), np.float32)
        index = state.popularity_index if rules.boost is None else rules.boost.popularity_index
    else:
        query, index = state.model.augment(profile.vector[None], profile.bias), index_for(state, rules)
    scores, rows = rank_block(index, query, k, rules, (np.zeros(len(hidden), np.int64), hidden))
    found = int(np.count_nonzero(rows[0] >= 0))
    shortfall = _shortfall(len(state.items), k, found, rules, hidden) if found < k else None
    return rows[0, :found], scores[0, :found], shortfall


def scores_of(state: FittedState, profile: UserProfile, rows: Rows) -> Floats:
    """Return a user's scores of some item rows, [n]; for an anonymous user as in `rank_for`."""
    if profile.vector is None:
        return np.log1p(state.counts[rows], dtype=np.float32)
    return state.model.score(state.model.augment(profile.vector[None], profile.bias), rows)[0]


def _shortfall(items: int, k: int, found: int, rules: CompiledRules, hidden: Rows) -> str:
    """Say why there are fewer than k."""
    allowed = rules.allowed
    left = items if allowed is None else int(allowed.sum())
    theirs = len(hidden) if allowed is None else int(allowed[hidden].sum())
    text = f"{found:,} of {k:,}: " + (
        f"the model has {items:,} items" if allowed is None else f"{left:,} of {items:,} items may be shown"
    )
    if theirs:
        text += f", {theirs:,} of them {'is' if theirs == 1 else 'are'} theirs already"
    rest = left - theirs - found
    if rest:
        why = "no score" if rules.limits is None else f"no place in their groups ({rules.limits.text})"
        text += f", {rest:,} {'has' if rest == 1 else 'have'} {why}"
    return text
