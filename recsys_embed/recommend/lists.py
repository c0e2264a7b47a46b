"""Lists of items under rules, for one person or a block of users."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recsys_embed.arrays import Floats, unit
from recsys_embed.errors import SettingError
from recsys_embed.ratings.vocab import Rows
from recsys_embed.recommend.index import Index, Pairs
from recsys_embed.recommend.person import Person
from recsys_embed.recommend.rules import Shown
from recsys_embed.recommend.where import Mask

if TYPE_CHECKING:
    from recsys_embed.recommend.recommender import Recommender

# A list that is not simply the best is chosen from a pool of the best: so many, or so many times its length.
_POOL, _TIMES = 100, 4


def check_k(k: int) -> None:
    """Refuse a length of a list that is none."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise SettingError(f"k must be a whole number, at least 1, got {k!r}")


def ranking(recommender: Recommender, shown: Shown) -> Index:
    """Return what ranks the items for `plain.queries` under these rules."""
    return recommender.index if shown.boost is None else shown.boost.index


def lists(index: Index, queries: Floats, k: int, shown: Shown, hidden: Pairs) -> tuple[Floats, Rows]:
    """Return the k best that may be shown for queries [b, d]: scores and rows, both [b, k'], as `Index.search` does.

    index: `ranking` of the same rules. hidden: (query, item row) pairs, ascending by query, of what is not shown to
    whom. With diversity, or a limit for groups, the order is that of `Choice`, in which scores need not fall.
    """
    if shown.limits is None and not shown.diversity:
        return index.search(queries, k, shown.allowed, hidden)
    scores, rows = index.search(queries, _pool(k), shown.allowed, hidden)
    size = len(rows), min(k, rows.shape[1])
    best, chosen = np.full(size, -np.inf, np.float32), np.full(size, -1, np.int64)
    edge = np.searchsorted(hidden[0], np.arange(len(rows) + 1))
    for line in range(len(rows)):
        own = hidden[1][edge[line] : edge[line + 1]]
        choice = _chosen(index, queries[line : line + 1], k, shown, own, (scores[line], rows[line]))
        best[line, : len(choice.rows)], chosen[line, : len(choice.rows)] = choice.scores, choice.rows
    return best, chosen


def _pool(k: int) -> int:
    return max(_POOL, _TIMES * k)


def _chosen(index: Index, query: Floats, k: int, shown: Shown, hidden: Rows, pool: tuple[Floats, Rows]) -> Choice:
    """Choose one list from a first pool, and from more where full groups leave too little of it."""
    choice = Choice(shown, k)
    choice.take(*pool)
    while shown.limits is not None and len(choice.rows) < k and pool[1][-1] >= 0:
        allowed = ~shown.limits.barred(choice.full)
        allowed[choice.rows] = False
        if shown.allowed is not None:
            allowed &= shown.allowed
        scores, rows = index.search(query, _pool(k), allowed, (np.zeros(len(hidden), np.int64), hidden))
        pool = scores[0], rows[0]
        choice.take(*pool)
    return choice


class Choice:
    """One list, chosen item by item from pools of the best.

    An item is chosen only while none of its groups is full. Among those that may be, the next is the one with the
    largest (1 - diversity) x relevance - diversity x (greatest cosine with one chosen already): maximal marginal
    relevance (Carbonell & Goldstein, SIGIR 1998), where relevance is the score, brought to 0..1 over the pool. Equal
    ones go by their place in the pool, so that without diversity the order is that of the scores.

    rows, scores: what was chosen so far; full: the groups that are full.
    """

    def __init__(self, shown: Shown, k: int) -> None:
        self.shown, self.k = shown, k
        self.rows: list[int] = []
        self.scores: list[float] = []
        self.full: list[int] = []
        self._counts: dict[int, int] = {}

    def take(self, scores: Floats, rows: Rows) -> None:
        """Choose from a pool, best first, until it has nothing more to choose; row -1 is none."""
        rows = rows[rows >= 0]
        still, worth = np.ones(len(rows), bool), _Worth(self.shown, scores[: len(rows)], rows, self.rows)
        limits = self.shown.limits
        place, group = (rows[:0], rows[:0]) if limits is None else limits.of(rows)
        while len(self.rows) < self.k and still.any():
            at = worth.best(still)
            self.rows.append(int(rows[at]))
            self.scores.append(float(scores[at]))
            still[at] = False
            for full in self._counted(group[place == at]):
                still[place[group == full]] = False
            worth.chosen(at)

    def _counted(self, groups: Rows) -> list[int]:
        """Count an item in its groups, and return those that are full now."""
        limits, full = self.shown.limits, []
        for group in groups.tolist():
            self._counts[group] = count = self._counts.get(group, 0) + 1
            if limits is not None and count == limits.most[group]:
                full.append(group)
        self.full += full
        return full


class _Worth:
    """What the items of a pool are worth beside those that were chosen already."""

    def __init__(self, shown: Shown, scores: Floats, rows: Rows, chosen: list[int]) -> None:
        self.diversity = shown.diversity
        if shown.vectors is None or not len(rows):
            return
        self.vectors = unit(shown.vectors[rows])
        width = float(scores[0]) - float(scores[-1])
        self.relevance = (1 - self.diversity) * (scores.astype(np.float64) - scores[-1]) / (width or 1.0)
        self.nearest = np.full(len(rows), -np.inf)
        self.worth = self.relevance
        if chosen:
            self._beside(unit(shown.vectors[chosen]))

    def best(self, still: Mask) -> int:
        """Return the place of the one that is worth most among those that may still be chosen."""
        return int(np.argmax(np.where(still, self.worth, -np.inf) if self.diversity else still))

    def chosen(self, at: int) -> None:
        """Tell that one was chosen."""
        if self.diversity:
            self._beside(self.vectors[at : at + 1])

    def _beside(self, others: Floats) -> None:
        self.nearest = np.maximum(self.nearest, (self.vectors @ others.T).max(axis=1))
        self.worth = self.relevance - self.diversity * self.nearest


def list_for(
    recommender: Recommender, person: Person, k: int, shown: Shown, hidden: Rows
) -> tuple[Rows, Floats, str | None]:
    """Return (rows, scores, why there are fewer than k, or None) for one person, best first.

    hidden: item rows that do not stand in it, ascending. Of somebody nothing is known of a score is the logarithm of
    one more than an item's number of ratings, as a softmax over biases would have it, and what a boost adds.
    """
    index: Index
    if person.vector is None:
        query = np.ones((1, 1), np.float32)
        index = recommender.popular if shown.boost is None else shown.boost.popular
    else:
        query, index = recommender.plain.folded(person.vector[None], person.bias), ranking(recommender, shown)
    scores, rows = lists(index, query, k, shown, (np.zeros(len(hidden), np.int64), hidden))
    found = int(np.count_nonzero(rows[0] >= 0))
    short = _short(recommender, k, found, shown, hidden) if found < k else None
    return rows[0, :found], scores[0, :found], short


def scores_of(recommender: Recommender, person: Person, rows: Rows) -> Floats:
    """Return a person's scores of some item rows, [n]; of somebody nothing is known of as in `list_for`."""
    if person.vector is None:
        return np.log1p(recommender.counts[rows], dtype=np.float32)
    plain = recommender.plain
    return plain.score(plain.folded(person.vector[None], person.bias), rows)[0]


def _short(recommender: Recommender, k: int, found: int, shown: Shown, hidden: Rows) -> str:
    """Say why there are fewer than k."""
    items, allowed = len(recommender.items), shown.allowed
    left = items if allowed is None else int(allowed.sum())
    theirs = len(hidden) if allowed is None else int(allowed[hidden].sum())
    said = f"{found:,} of {k:,}: " + (
        f"the model has {items:,} items" if allowed is None else f"{left:,} of {items:,} items may be shown"
    )
    if theirs:
        said += f", {theirs:,} of them {'is' if theirs == 1 else 'are'} theirs already"
    rest = left - theirs - found
    if rest:
        why = "no score" if shown.limits is None else f"no place in their groups ({shown.limits.text})"
        said += f", {rest:,} {'has' if rest == 1 else 'have'} {why}"
    return said
