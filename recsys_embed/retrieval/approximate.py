"""Lists from promising items alone, for very many items or an MLP scorer: nearly the exact ones, and it says how."""

from __future__ import annotations

import logging
import time

import numpy as np

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.retrieval.base import Mask, Pairs, VectorScorer, check_exclusions
from recsys_embed.retrieval.candidates import Candidates, IVFCandidates, LowRankCandidates
from recsys_embed.retrieval.exact import ExactIndex
from recsys_embed.retrieval.topk import topk

log = logging.getLogger("recsys_embed")

# The share of the exact lists that is to be found, in lists of this length.
RECALL, LENGTH = 0.98, 10
# Allowed items below which all of them are scored, with a dot product and with an MLP: that takes a millisecond or two.
_FEW, _FEW_MLP = 20_000, 5_000
# Users whom an MLP is measured on: scoring a million items takes it .2 s for each.
_MEASURED = 50


class ApproximateIndex:
    """Takes promising items, scores these as the model does, and takes the best: see Index.

    Scores are exact, and so is which items may be found; what may happen is that a better one was not promising.
    Where fewer than min(k, available) were found, or few are allowed, all that are allowed are scored.

    found: the recall that was measured when it was built.
    """

    measured_recall = float("nan")

    def __init__(self, model: VectorScorer, candidates: Candidates) -> None:
        self.model, self.candidates, self.exact = model, candidates, ExactIndex.of(model)
        self.few = _FEW_MLP if model.layers else _FEW

    def __len__(self) -> int:
        return len(self.exact)

    @classmethod
    def of(
        cls, model: VectorScorer, queries: Floats, exclude: Pairs | None = None, least: float = RECALL
    ) -> ApproximateIndex:
        """Index the items of a model, and look so hard for them that enough of the exact lists is found.

        queries [b, d + 2]: of a sample of users, with what is excluded from their lists; least: share of the items in
        their exact lists of 10 that is to be found. An MLP's candidates are drawn up from these users too, and
        measured on others of them. Raises SettingError without faiss, which an MLP does not need.
        """
        begin = time.perf_counter()
        half = len(queries) // 2 if model.layers else 0
        index = cls(model, LowRankCandidates(model, queries[: half or 1]) if model.layers else IVFCandidates(model))
        queries, exclude = _some(queries, exclude, np.arange(half, len(queries))[: _MEASURED if half else None])
        exact = index.exact.search(queries, LENGTH, None, exclude)[1]
        index.measured_recall = index._share(exact, queries, None, exclude)
        while index.measured_recall < least and index.candidates.harder():
            index.measured_recall = index._share(exact, queries, None, exclude)
        log.info(
            "approximate index of %s items in %.1f s: recall@%d %.4f of the exact lists of %d users (effort %d)",
            f"{len(index):,}", time.perf_counter() - begin, LENGTH, index.measured_recall, len(queries),
            index.candidates.effort,
        )  # fmt: skip
        return index

    def for_model(self, model: VectorScorer) -> ApproximateIndex | None:
        """Return this index for a model of other users, or None where the items are not the same."""
        mine, same = self.model, model.items is self.model.items and model.item_bias is self.model.item_bias
        if not same or len(mine.layers) != len(model.layers):
            return None
        index = ApproximateIndex(model, self.candidates)
        index.measured_recall = self.measured_recall
        return index

    def search(
        self, queries: Floats, k: int, allowed: Mask | None = None, exclude: Pairs | None = None
    ) -> tuple[Floats, Rows]:
        """See Index."""
        b, n, k = len(queries), len(self), min(k, len(self))
        query, hidden = check_exclusions(n, allowed, exclude)
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
                best, at = topk(self.model.score(queries[line : line + 1], some), k)
                scores[line], rows[line] = best[0], np.where(at[0] < 0, -1, some[at[0]])
        if short:
            short.sort()
            theirs, pairs = _some(queries, (query, hidden), np.array(short))
            scores[short], rows[short] = self.exact.search(theirs, k, allowed, pairs)
        return scores, rows

    def recall(self, queries: Floats, k: int, allowed: Mask | None = None, exclude: Pairs | None = None) -> float:
        """Return the share of the exact lists' items that this finds too; 1 where there is nothing to find."""
        return self._share(self.exact.search(queries, k, allowed, exclude)[1], queries, allowed, exclude)

    def _share(self, exact: Rows, queries: Floats, allowed: Mask | None, exclude: Pairs | None) -> float:
        mine, there = self.search(queries, exact.shape[1], allowed, exclude)[1], exact >= 0
        both = (exact[:, :, None] == mine[:, None, :]).any(axis=2) & there
        return float(both.sum() / there.sum()) if there.any() else 1.0


def _some(queries: Floats, exclude: Pairs | None, lines: Rows) -> tuple[Floats, Pairs]:
    """Return some lines of the queries, ascending, and what is excluded of these."""
    if exclude is None:
        return queries[lines], (lines[:0], lines[:0])
    place = np.full(len(queries), -1)
    place[lines] = np.arange(len(lines))
    theirs = place[exclude[0]] >= 0
    return queries[lines], (place[exclude[0][theirs]], exclude[1][theirs])
