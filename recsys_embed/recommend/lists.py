"""Lists of items under rules, for one person or a block of users."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from recsys_embed.arrays import Floats
from recsys_embed.ratings.vocab import Rows
from recsys_embed.recommend.index import ExactIndex, Pairs
from recsys_embed.recommend.person import Person
from recsys_embed.recommend.rules import Shown

if TYPE_CHECKING:
    from recsys_embed.recommend.recommender import Recommender


def lists(index: ExactIndex, queries: Floats, k: int, shown: Shown, hidden: Pairs) -> tuple[Floats, Rows]:
    """Return the k best that may be shown for queries [b, d]: scores and rows, both [b, k'], as `Index.search` does.

    hidden: (query, item row) pairs, ascending by query, of what is not shown to whom.
    """
    return index.search(queries, k, shown.allowed, hidden)


def list_for(
    recommender: Recommender, person: Person, k: int, shown: Shown, hidden: Rows
) -> tuple[Rows, Floats, str | None]:
    """Return (rows, scores, why there are fewer than k, or None) for one person, best first.

    hidden: item rows that do not stand in it, ascending. Of somebody nothing is known of a score is the logarithm of
    one more than an item's number of ratings, as a softmax over biases would have it.
    """
    if person.vector is None:
        query, index = np.ones((1, 1), np.float32), recommender.popular
    else:
        query, index = recommender.plain.folded(person.vector[None], person.bias), recommender.index
    scores, rows = lists(index, query, k, shown, (np.zeros(len(hidden), np.int64), hidden))
    found = int(np.count_nonzero(rows[0] >= 0))
    short = _short(recommender, k, shown, hidden) if found < k else None
    return rows[0, :found], scores[0, :found], short


def scores_of(recommender: Recommender, person: Person, rows: Rows) -> Floats:
    """Return a person's scores of some item rows, [n]; of somebody nothing is known of as in `list_for`."""
    if person.vector is None:
        return np.log1p(recommender.counts[rows], dtype=np.float32)
    plain = recommender.plain
    some = replace(plain, items=plain.items[rows], item_bias=plain.item_bias[rows])
    return some.score(plain.folded(person.vector[None], person.bias), some.keys())[0]


def _short(recommender: Recommender, k: int, shown: Shown, hidden: Rows) -> str:
    """Say why there are fewer than k."""
    n = len(recommender.items) if shown.allowed is None else int(shown.allowed.sum())
    theirs = len(hidden) if shown.allowed is None else int(shown.allowed[hidden].sum())
    left = f"{n:,} items may be shown" if shown.allowed is not None else f"the model has {n:,} items"
    return f"{n - theirs:,} of {k:,}: {left}" + (f", and {theirs:,} of them are theirs already" if theirs else "")
