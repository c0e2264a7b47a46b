"""Lists from promising items alone, for very many items or an MLP scorer: nearly the exact ones, and it says how."""

from __future__ import annotations

import logging
import time

import numpy as np

from recsys_embed.arrays import Floats
from recsys_embed.model.plain import PlainModel
from recsys_embed.ratings.vocab import Rows
from recsys_embed.recommend.candidates import Candidates, Lists, Sketch
from recsys_embed.recommend.index import ExactIndex, Mask, Pairs, checked, top

log = logging.getLogger("recsys_embed")

# The share of the exact lists that is to be found, in lists of this length.
RECALL, LENGTH = 0.98, 10
# Allowed items below which all of them are scored, with a dot product and with an MLP: that takes a millisecond or two.
_FEW, _FEW_MLP = 20_000, 5_000


class ApproximateIndex:
    """Takes promising items, scores these as the model does, and takes the best: see Index.

    Scores are exact, and so is which items may be found; what may happen is that a better one was not promising.
    Where fewer than min(k, available) were found, or few are allowed, all that are allowed are scored.

    found: the recall that was measured when it was built.
    """

    found = float("nan")

    def __init__(self, model: PlainModel, candidates: Candidates) -> None:
        self.model, self.candidates, self.exact = model, candidates, ExactIndex.of(model)
        self.few = _FEW_MLP if model.layers else _FEW

    def __len__(self) -> int:
        return len(self.exact)

    @classmethod
    def of(
        cls, model: PlainModel, queries: Floats, exclude: Pairs | None = None, least: float = RECALL
    ) -> ApproximateIndex:
        """Index the items of a model, and look so hard for them that enough of the exact lists is found.

        queries [b, d + 2]: of a sample of users, with what is excluded from their lists; least: share of the items in
        their exact lists of 10 that is to be found. An MLP's candidates are drawn up from these users too, and
        measured on the second half of them. Raises SettingError without faiss, which an MLP does not need.
        """
        begin = time.perf_counter()
        if model.layers:
            half = len(queries) // 2
            index = cls(model, Sketch(model, queries[:half] if half else queries))
            if exclude is not None:
                late = exclude[0] >= half
                exclude = exclude[0][late] - half, exclude[1][late]
            queries = queries[half:]
        else:
            index = cls(model, Lists(model))
        found = index.recall(queries, LENGTH, exclude=exclude)
        while found < least and index.candidates.harder():
            found = index.recall(queries, LENGTH, exclude=exclude)
        index.found = found
        took = time.perf_counter() - begin
        log.info(
            "approximate index of %s items in %.1f s: recall@%d %.4f of the exact lists of %d users (effort %d)",
            f"{len(index):,}", took, LENGTH, found, len(queries), index.candidates.effort,
        )  # fmt: skip
        return index

    def of_same_items(self, model: PlainModel) -> ApproximateIndex | None:
        """Return this index for a model of other users, or None where the items are not the same."""
        mine, same = self.model, model.items is self.model.items and model.item_bias is self.model.item_bias
        if not same or len(mine.layers) != len(model.layers):
            return None
        index = ApproximateIndex(model, self.candidates)
        index.found = self.found
        return index

    def search(
        self, queries: Floats, k: int, allowed: Mask | None = None, exclude: Pairs | None = None
    ) -> tuple[Floats, Rows]:
        """See Index."""
        b, n, k = len(queries), len(self), min(k, len(self))
        query, hidden = checked(n, allowed, exclude)
        if (n if allowed is None else np.count_nonzero(allowed)) <= max(self.few, 4 * k):
            return self.exact.search(queries, k, allowed, exclude)
        scores, rows = np.empty((b, k), np.float32), np.empty((b, k), np.int64)
        edge = np.searchsorted(query, np.arange(b + 1))
        # Somebody's own items are among those found for them. Users who have about as many are asked for together.
        room = 2 ** np.ceil(np.log2(k + self.candidates.spare + np.diff(edge))).astype(int)
        short: list[int] = []
        for count in np.unique(room).tolist():
            lines = np.flatnonzero(room == count)
            for line, some in zip(lines.tolist(), self.candidates.find(queries[lines], count, allowed), strict=True):
                some = np.setdiff1d(some, hidden[edge[line] : edge[line + 1]])
                some = some[np.searchsorted(some, 0) :]
                if len(some) < k:
                    short.append(line)
                    continue
                best, at = top(self.model.score(queries[line : line + 1], some), k)
                scores[line], rows[line] = best[0], np.where(at[0] < 0, -1, some[at[0]])
        if short:
            place = np.full(b, -1)
            place[short] = np.arange(len(short))
            theirs = place[query] >= 0
            pairs = place[query[theirs]], hidden[theirs]
            scores[short], rows[short] = self.exact.search(queries[short], k, allowed, pairs)
        return scores, rows

    def recall(self, queries: Floats, k: int, allowed: Mask | None = None, exclude: Pairs | None = None) -> float:
        """Return the share of the exact lists' items that this finds too; 1 where there is nothing to find."""
        exact = self.exact.search(queries, k, allowed, exclude)[1]
        mine = self.search(queries, k, allowed, exclude)[1]
        there = exact >= 0
        both = (exact[:, :, None] == mine[:, None, :]).any(axis=2) & there
        return float(both.sum() / there.sum()) if there.any() else 1.0
