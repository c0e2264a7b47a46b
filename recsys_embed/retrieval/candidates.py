"""Candidate generation: find promising items among very many without scoring all; the model scores them afterwards."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.errors import SettingError
from recsys_embed.retrieval.base import Mask, VectorScorer
from recsys_embed.retrieval.exact import ExactIndex

# Most inverted lists, and how many items per list their centroids are trained on.
_MAX_LISTS, _TRAIN_PER_LIST = 1024, 64
# Items handled at once: 4 MB of vectors of 64 numbers.
_BLOCK = 1 << 14
# Of the low-rank approximation (experiments/LOG.md): users, principal directions, anchor items, and items that the
# directions are computed from.
_USERS, _DIRECTIONS, _ANCHORS, _SAMPLE = 128, 32, 256, 1 << 14
_RIDGE = 1e-3


class Candidates(Protocol):
    """Finds promising items.

    overfetch: how many items to ask for beyond those needed. effort: how much of the catalogue is searched (the number
    of probed lists, or of extra candidates). nbytes: memory in bytes.
    """

    overfetch: int
    effort: int
    nbytes: int

    def find(self, queries: Any, count: int, allowed: Mask | None) -> Rows:
        """Return rows [b, count] of allowed items for queries [b, d + 2], padded with -1."""
        ...

    def increase_effort(self) -> bool:
        """Double the effort of later searches; return False if everything is searched already."""
        ...


class IVFCandidates:
    """Items of a dot-product model in a faiss inverted file (IVF): only the lists nearest to a query are searched.

    A largest inner product becomes a nearest neighbour on a sphere: items are (vector, bias, sqrt(m^2 - length^2)), all
    of length m, and queries are (vector, 1, 0), scaled to length m (Bachrach et al., Speeding Up the Xbox Recommender
    System, RecSys 2014). Centroids are trained and probed by that distance; within a list, the inner product ranks.
    """

    overfetch = 16  # more than ties at the edge, and rounding of their scores, could push out

    def __init__(self, model: VectorScorer, effort: int = 16) -> None:
        """Build the inverted file. effort: lists to probe (faiss: nprobe)."""
        faiss = _import_faiss()
        n, width = len(model.items), model.dim + 2
        squared = np.einsum("nd,nd->n", model.items, model.items) + np.square(model.item_bias)
        self.length = float(np.sqrt(squared.max(initial=0)))
        if not np.isfinite(self.length):
            raise SettingError("an approximate index needs vectors and biases that are all finite numbers")
        lists = max(1, min(_MAX_LISTS, int(np.sqrt(n))))
        self._quantizer = faiss.IndexFlatL2(width)  # faiss does not keep it alive
        self._index = faiss.IndexIVFFlat(self._quantizer, width, lists, faiss.METRIC_INNER_PRODUCT)
        self._index.cp.spherical, self._index.cp.min_points_per_centroid, self._index.cp.niter = False, 1, 10

        def on_sphere(rows: Any) -> Floats:
            remainder = np.sqrt(np.maximum(self.length**2 - squared[rows], 0))
            return np.column_stack((model.items[rows], model.item_bias[rows], remainder)).astype(np.float32)

        sample = np.random.default_rng(0).permutation(n)[: _TRAIN_PER_LIST * lists]
        self._index.train(on_sphere(np.sort(sample)))
        for start in range(0, n, _BLOCK):
            self._index.add(on_sphere(slice(start, start + _BLOCK)))
        self.effort, self.nbytes = min(effort, lists), n * (4 * width + 8)

    def find(self, queries: Floats, count: int, allowed: Mask | None) -> Rows:
        """See `Candidates`."""
        faiss = _import_faiss()
        scaled = np.zeros((len(queries), queries.shape[1]), np.float32)
        scaled[:, :-2], scaled[:, -2] = queries[:, :-2], 1
        scaled *= self.length / np.linalg.norm(scaled, axis=1, keepdims=True)
        selector = None if allowed is None else faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        settings = faiss.SearchParametersIVF(sel=selector, nprobe=self.effort)
        rows: Rows = self._index.search(scaled, count, params=settings)[1]
        return rows

    def increase_effort(self) -> bool:
        """See `Candidates`."""
        before, self.effort = self.effort, min(2 * self.effort, self._index.nlist)
        return self.effort > before


class LowRankCandidates:
    """Items of a model with an MLP scorer as vectors whose dot product approximates its score.

    The score matrix of users and items has few principal directions that matter. A user's coordinates along them follow
    from their MLP scores of a few anchor items (ANNCUR: Yadav et al., Efficient Nearest Neighbor Search for
    Cross-Encoder Models using Matrix Factorization, EMNLP 2022; here with a ridge, and with principal directions of the
    users' scores).
    """

    def __init__(self, model: VectorScorer, queries: Floats, effort: int = 256) -> None:
        """Compute the item vectors from the scores of some users, [b, d + 2]. effort: number of extra candidates."""
        self.model, self.overfetch, self.effort = model, effort, effort
        n, random = len(model.items), np.random.default_rng(0)
        queries = queries[:_USERS]
        sample = np.sort(random.permutation(n)[:_SAMPLE])
        scores = model.score(queries, sample).astype(np.float64)
        mean_scores = scores.mean(axis=0)
        vectors, singular, _ = np.linalg.svd(scores - mean_scores, full_matrices=False)
        rank = max(1, min(_DIRECTIONS, int((singular > singular.max(initial=0) * 1e-6).sum())))
        basis = (vectors[:, :rank] / np.maximum(singular[:rank], 1e-12) * np.sqrt(len(sample))).astype(np.float32)
        keys = np.empty((n, rank + 1), np.float32)
        for start in range(0, n, _BLOCK):
            block = np.arange(start, min(n, start + _BLOCK))
            table = model.score(queries, block)
            keys[block, -1] = mean = table.mean(axis=0)
            keys[block, :-1] = (table - mean).T @ basis
        self.index, self.nbytes = ExactIndex(keys), keys.nbytes
        # Half of the anchors are items that some user would be recommended, where the approximation must be good.
        best = sample[np.argsort(-scores.max(axis=0))[: max(_ANCHORS, len(sample) // 20)]]
        halves = [random.permutation(rows)[: _ANCHORS // 2] for rows in (best, sample)]
        self.anchors = np.unique(np.concatenate(halves))
        anchor_keys = keys[self.anchors, :-1].astype(np.float64)
        ridge = _RIDGE * len(anchor_keys) * np.eye(rank)
        self.solver = np.linalg.solve(anchor_keys.T @ anchor_keys + ridge, anchor_keys.T).T.astype(np.float32)

    def find(self, queries: Floats, count: int, allowed: Mask | None) -> Rows:
        """See `Candidates`."""
        residual = self.model.score(queries, self.anchors) - self.index.keys[self.anchors, -1]
        coordinates = np.column_stack((residual @ self.solver, np.ones(len(queries), np.float32)))
        return self.index.search(coordinates, count, allowed)[1]

    def increase_effort(self) -> bool:
        """See `Candidates`."""
        self.overfetch = self.effort = 2 * self.effort
        return self.effort < len(self.index)


def _import_faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise SettingError("an approximate index needs faiss: pip install 'recsys-embed[ann]'") from None
    return faiss
