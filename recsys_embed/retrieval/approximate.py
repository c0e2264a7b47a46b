"""Approximate top-k: score promising candidates only, for millions of items or an MLP scorer; recall is measured."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.retrieval.base import Mask, Pairs, VectorScorer, check_exclusions
from recsys_embed.retrieval.candidates import Candidates, IVFCandidates, LowRankCandidates
from recsys_embed.retrieval.exact import ExactIndex
from recsys_embed.retrieval.topk import topk

log = logging.getLogger("recsys_embed")

# Target recall of the exact lists, and the length of the lists that it is measured on.
RECALL, LENGTH = 0.98, 10
# With no more allowed items than this (dot product; MLP), all of them are scored: it takes a millisecond or two.
_FEW, _FEW_MLP = 20_000, 5_000
# Users on whom the recall of an MLP's index is measured: the MLP needs 0.2 s to score a million items for one user.
_MEASURED = 50


class ApproximateIndex:
    """Fetch promising candidates, score them with the model, and return the best. Implements `Index`.

    Scores are exact, and no excluded item is ever returned; the only error is that a better item was no candidate.
    All allowed items are scored where few are allowed, or where fewer than min(k, available) candidates are left.

    measured_recall: recall of the exact lists, measured when the index was built.
    """

    measured_recall = float("nan")

    def __init__(self, model: VectorScorer, candidates: Candidates, promoted: Rows | None = None) -> None:
        """Search with candidates. promoted: items, best first, that get most added to their scores: so many of them as
        there are candidates become candidates too."""
        self.model, self.candidates, self.exact = model, candidates, ExactIndex.of(model)
        self.promoted = np.zeros(0, np.int64) if promoted is None else promoted
        self.few = _FEW_MLP if model.layers else _FEW

    def __len__(self) -> int:
        return len(self.exact)

    @classmethod
    def of(
        cls,
        model: VectorScorer,
        queries: Any,
        exclude: Pairs | None = None,
        min_recall: float = RECALL,
        make: Callable[[Any, Any], Candidates] | None = None,
        promoted: Rows | None = None,
    ) -> ApproximateIndex:
        """Index a model's items, and raise the search effort until the target recall is reached.

        queries [b, d + 2]: a sample of users, with the (query, item) pairs to exclude from their lists. min_recall:
        share of the items in their exact lists of 10 that must be found. make: makes the candidates, by default
        `make_candidates`. For an MLP, half of the sample builds the
        candidates, and recall is measured on the other half. Raises SettingError without faiss, which an MLP does not
        need.
        """
        started = time.perf_counter()
        half = len(queries) // 2 if model.layers else 0
        index = cls(model, (make or make_candidates)(model, queries[: half or 1]), promoted)
        sample = np.arange(half, len(queries))[: _MEASURED if half else None]
        queries, exclude = _select_queries(queries, exclude, sample)
        exact = index.exact.search(queries, LENGTH, None, exclude)[1]
        index.measured_recall = index._recall_of(exact, queries, None, exclude)
        while index.measured_recall < min_recall and index.candidates.increase_effort():
            index.measured_recall = index._recall_of(exact, queries, None, exclude)
        log.info(
            "approximate index of %s items in %.1f s: recall@%d %.4f of the exact lists of %d users (effort %d)",
            f"{len(index):,}", time.perf_counter() - started, LENGTH, index.measured_recall, len(queries),
            index.candidates.effort,
        )  # fmt: skip
        return index

    def for_model(self, model: VectorScorer, promoted: Rows | None = None) -> ApproximateIndex:
        """Return this index for a model with the same items (see `same_items`); other biases change the scores and what
        is promoted, while the candidates stay."""
        index = ApproximateIndex(model, self.candidates, promoted)
        index.measured_recall = self.measured_recall
        return index

    def search(
        self, queries: Floats, k: int, allowed: Mask | None = None, exclude: Pairs | None = None
    ) -> tuple[Floats, Rows]:
        """See `Index`."""
        b, n, k = len(queries), len(self), min(k, len(self))
        query, excluded = check_exclusions(n, allowed, exclude)
        if (n if allowed is None else np.count_nonzero(allowed)) <= max(self.few, 4 * k):
            return self.exact.search(queries, k, allowed, exclude)
        scores, rows = np.empty((b, k), np.float32), np.empty((b, k), np.int64)
        edges = np.searchsorted(query, np.arange(b + 1))
        # Excluded items may be among the candidates, so as many more are fetched. Rounding the counts up to powers of
        # two lets users with histories of similar length share one search.
        counts = 2 ** np.ceil(np.log2(k + self.candidates.overfetch + np.diff(edges))).astype(int)
        too_few: list[int] = []
        promoted = self.promoted if allowed is None else self.promoted[allowed[self.promoted]]
        for count in np.unique(counts).tolist():
            lines = np.flatnonzero(counts == count)
            candidates = self.candidates.find(queries[lines], count, allowed)
            for line, candidate_rows in zip(lines.tolist(), candidates, strict=True):
                candidate_rows = np.append(candidate_rows, promoted[:count])
                candidate_rows = np.setdiff1d(candidate_rows, excluded[edges[line] : edges[line + 1]])
                candidate_rows = candidate_rows[np.searchsorted(candidate_rows, 0) :]  # without -1
                if len(candidate_rows) < k:
                    too_few.append(line)
                    continue
                best, columns = topk(self.model.score(queries[line : line + 1], candidate_rows), k)
                scores[line], rows[line] = best[0], np.where(columns[0] < 0, -1, candidate_rows[columns[0]])
        if too_few:
            too_few.sort()
            remaining, pairs = _select_queries(queries, (query, excluded), np.array(too_few))
            scores[too_few], rows[too_few] = self.exact.search(remaining, k, allowed, pairs)
        return scores, rows

    def recall(self, queries: Floats, k: int, allowed: Mask | None = None, exclude: Pairs | None = None) -> float:
        """Return the share of the items in the exact lists that this index finds; 1 if those lists are empty."""
        return self._recall_of(self.exact.search(queries, k, allowed, exclude)[1], queries, allowed, exclude)

    def _recall_of(self, exact: Rows, queries: Floats, allowed: Mask | None, exclude: Pairs | None) -> float:
        found, relevant = self.search(queries, exact.shape[1], allowed, exclude)[1], exact >= 0
        hits = (exact[:, :, None] == found[:, None, :]).any(axis=2) & relevant
        return float(hits.sum() / relevant.sum()) if relevant.any() else 1.0


def make_candidates(model: VectorScorer, queries: Floats) -> Candidates:
    """Return what finds candidates for a model of vectors. queries [b, d + 2]: users, needed for an MLP."""
    return LowRankCandidates(model, queries) if model.layers else IVFCandidates(model)


def same_items(one: VectorScorer, other: VectorScorer) -> bool:
    """Return whether two models differ in their users only."""
    same_arrays = one.items is other.items and one.item_bias is other.item_bias
    return same_arrays and len(one.layers) == len(other.layers)


def _select_queries(queries: Any, exclude: Pairs | None, lines: Rows) -> tuple[Any, Pairs]:
    """Return some of the queries, by ascending line, and the pairs to exclude for them."""
    if exclude is None:
        return queries[lines], (lines[:0], lines[:0])
    new_line = np.full(len(queries), -1)
    new_line[lines] = np.arange(len(lines))
    selected = new_line[exclude[0]] >= 0
    return queries[lines], (new_line[exclude[0][selected]], exclude[1][selected])
