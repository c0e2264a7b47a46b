"""Finding promising items among very many, faster than by scoring all; what they are worth is for the model to say."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.errors import SettingError
from recsys_embed.retrieval.base import Mask, VectorScorer
from recsys_embed.retrieval.exact import ExactIndex

# Lists that items are put into, at most, and how many items of each their centres are learnt from.
_LISTS, _LEARNT = 1024, 64
# Items that are worked on at once: 4 MB of vectors of 64 numbers.
_BLOCK = 1 << 14
# Users and directions of their scores that a sketch keeps, items whose scores place somebody in it, and those that the
# directions are learnt from (experiments/LOG.md).
_USERS, _DIRECTIONS, _ANCHORS, _SAMPLE = 128, 32, 256, 1 << 14
_RIDGE = 1e-3


class Candidates(Protocol):
    """Finds promising items.

    spare: how many more than are wanted it should be asked for. effort: how hard it looks. nbytes: its memory.
    """

    spare: int
    effort: int
    nbytes: int

    def find(self, queries: Floats, count: int, allowed: Mask | None) -> Rows:
        """Return rows [b, count] of items that are allowed, for queries [b, d + 2]; -1 where it found no more."""
        ...

    def harder(self) -> bool:
        """Look harder from now on; False where it looks everywhere already."""
        ...


class IVFCandidates:
    """Items of a model with a dot product in lists of neighbours, by faiss: only the nearest lists are looked into.

    A largest inner product is a nearest neighbour on a sphere: with items (vector, bias, sqrt(m^2 - length^2)), all of
    length m, and queries (vector, 1, 0), brought to length m too (Bachrach et al., Speeding Up the Xbox Recommender
    System, RecSys 2014). Centres and the way to them are by distance there; in a list it is the inner product itself.
    """

    spare = 16  # more than equal scores at the edge, and their last bits, may leave out

    def __init__(self, model: VectorScorer, effort: int = 16) -> None:
        faiss = _faiss()
        n, wide = len(model.items), model.dim + 2
        squared = np.einsum("nd,nd->n", model.items, model.items) + np.square(model.item_bias)
        self.length = float(np.sqrt(squared.max(initial=0)))
        if not np.isfinite(self.length):
            raise SettingError("an approximate index needs vectors and biases that are all finite numbers")
        lists = max(1, min(_LISTS, int(np.sqrt(n))))
        self._centres = faiss.IndexFlatL2(wide)  # faiss does not keep it alive
        self._index = faiss.IndexIVFFlat(self._centres, wide, lists, faiss.METRIC_INNER_PRODUCT)
        self._index.cp.spherical, self._index.cp.min_points_per_centroid, self._index.cp.niter = False, 1, 10

        def placed(rows: Any) -> Floats:
            rest = np.sqrt(np.maximum(self.length**2 - squared[rows], 0))
            return np.column_stack((model.items[rows], model.item_bias[rows], rest)).astype(np.float32)

        drawn = np.random.default_rng(0).permutation(n)[: _LEARNT * lists]
        self._index.train(placed(np.sort(drawn)))
        for start in range(0, n, _BLOCK):
            self._index.add(placed(slice(start, start + _BLOCK)))
        self.effort, self.nbytes = min(effort, lists), n * (4 * wide + 8)

    def find(self, queries: Floats, count: int, allowed: Mask | None) -> Rows:
        """See Candidates."""
        faiss = _faiss()
        asked = np.zeros((len(queries), queries.shape[1]), np.float32)
        asked[:, :-2], asked[:, -2] = queries[:, :-2], 1
        asked *= self.length / np.linalg.norm(asked, axis=1, keepdims=True)
        chosen = None if allowed is None else faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        settings = faiss.SearchParametersIVF(sel=chosen, nprobe=self.effort)
        found: Rows = self._index.search(asked, count, params=settings)[1]
        return found

    def harder(self) -> bool:
        """See Candidates."""
        more = min(2 * self.effort, self._index.nlist)
        more, self.effort = more > self.effort, more
        return more


class LowRankCandidates:
    """Items of a model with an MLP scorer as vectors whose dot product is nearly its score.

    The scores of some users with all items, taken together, have few directions that matter; somebody's place in these
    follows from their own scores of a few items, the anchors, which the MLP gives (Yadav et al., Efficient Nearest
    Neighbor Search for Cross-Encoder Models using Matrix Factorization, EMNLP 2022; here with a ridge, and with
    principal directions of the users' scores).
    """

    def __init__(self, model: VectorScorer, queries: Floats, effort: int = 256) -> None:
        """Draw up the sketch from some users, [b, d + 2]."""
        self.model, self.spare, self.effort = model, effort, effort
        n, random = len(model.items), np.random.default_rng(0)
        queries = queries[:_USERS]
        sample = np.sort(random.permutation(n)[:_SAMPLE])
        scores = model.score(queries, sample).astype(np.float64)
        common = scores.mean(axis=0)
        vectors, size, _ = np.linalg.svd(scores - common, full_matrices=False)
        kept = max(1, min(_DIRECTIONS, int((size > size.max(initial=0) * 1e-6).sum())))
        turn = (vectors[:, :kept] / np.maximum(size[:kept], 1e-12) * np.sqrt(len(sample))).astype(np.float32)
        keys = np.empty((n, kept + 1), np.float32)
        for start in range(0, n, _BLOCK):
            part = np.arange(start, min(n, start + _BLOCK))
            table = model.score(queries, part)
            keys[part, -1] = mean = table.mean(axis=0)
            keys[part, :-1] = (table - mean).T @ turn
        self.index, self.nbytes = ExactIndex(keys), keys.nbytes
        # Half of the anchors are what some user would be shown, where a score has to be right.
        best = sample[np.argsort(-scores.max(axis=0))[: max(_ANCHORS, len(sample) // 20)]]
        halves = [random.permutation(rows)[: _ANCHORS // 2] for rows in (best, sample)]
        self.anchors = np.unique(np.concatenate(halves))
        at = keys[self.anchors, :-1].astype(np.float64)
        ridge = _RIDGE * len(at) * np.eye(kept)
        self.solve = np.linalg.solve(at.T @ at + ridge, at.T).T.astype(np.float32)

    def find(self, queries: Floats, count: int, allowed: Mask | None) -> Rows:
        """See Candidates."""
        own = self.model.score(queries, self.anchors) - self.index.keys[self.anchors, -1]
        place = np.column_stack((own @ self.solve, np.ones(len(queries), np.float32)))
        return self.index.search(place, count, allowed)[1]

    def harder(self) -> bool:
        """See Candidates."""
        self.spare = self.effort = 2 * self.effort
        return self.effort < len(self.index)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise SettingError("an approximate index needs faiss: pip install 'recsys-embed[ann]'") from None
    return faiss
