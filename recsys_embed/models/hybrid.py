"""HybridModel: item neighbours beside embeddings, one score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.models.base import Arrays, OutputKind
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.models.item_weights import Histories, Ints
from recsys_embed.models.neighbours import Neighbours
from recsys_embed.retrieval.approximate import make_candidates
from recsys_embed.retrieval.base import Mask
from recsys_embed.retrieval.candidates import Candidates

_HISTORIES = "histories."


class HybridUser(NamedTuple):
    """A user of a hybrid model: an embedding [d], and a history of items [n] with amounts [n]."""

    embedding: Floats
    items: Ints
    amounts: Floats


def embedding_of(vector: Any) -> Floats:
    """Return the embedding [d] of a user vector of a hybrid model or of embeddings alone."""
    embedding: Floats = vector.embedding if isinstance(vector, HybridUser) else vector
    return embedding


def describe_share(family: str, share: float) -> str:
    """Return what a score is made of, in words. share: that of the neighbours."""
    percent = round(100 * share)
    if family == "ease":
        return "EASE alone"
    if percent in (0, 100):
        return "item neighbours alone" if percent else "embeddings alone"
    return f"item neighbours {percent} %, embeddings {100 - percent} %"


@dataclass(frozen=True)
class HybridQueries:
    """Users prepared for scoring by a hybrid model: queries of the embeddings [b, d + 2], and histories."""

    embeddings: Floats
    histories: Histories

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the embeddings' queries."""
        return self.embeddings.shape

    def __len__(self) -> int:
        return len(self.embeddings)

    def __getitem__(self, lines: Any) -> HybridQueries:
        return HybridQueries(self.embeddings[lines], self.histories[lines])


@dataclass(frozen=True)
class HybridModel:
    """Item neighbours and embeddings. Implements `ScoringModel`.

    score = scale x (score of the embeddings) + what the history adds (see `Neighbours`) + boost.

    family: "neighbours", "ease" or "both". embedding: trained beside; similar items and maps come from it, and with
    `dim` 0 there is none. embedding_scale: 1, or 0 where neighbours alone score. share: the neighbours' share of the
    score, for display. boosts [items]: amounts added to the scores of items, or None.
    """

    output: ClassVar[OutputKind] = "score"
    scale: ClassVar[tuple[float, float]] = (0.0, 1.0)
    offset: ClassVar[float] = 0.0
    has_history_users: ClassVar[bool] = True

    family: str
    embedding: EmbeddingModel
    neighbours: Neighbours
    histories: Histories
    embedding_scale: float = 1.0
    share: float = 1.0
    boosts: Floats | None = None

    @property
    def dim(self) -> int:
        """See `ScoringModel`; the width of the embeddings."""
        return self.embedding.dim

    @property
    def item_vectors(self) -> Floats:
        """See `ScoringModel`."""
        return self.embedding.items

    @property
    def items(self) -> Floats:
        """The item vectors of the embeddings; see `retrieval.base.VectorScorer`."""
        return self.embedding.items

    @property
    def item_bias(self) -> Floats:
        """The item biases of the embeddings."""
        return self.embedding.item_bias

    @property
    def layers(self) -> list[tuple[Floats, Floats]]:
        """The layers of the embeddings' scorer."""
        return self.embedding.layers

    @property
    def scoring_cost(self) -> int:
        """See `ScoringModel`."""
        return self.embedding.scoring_cost + len(self.neighbours)

    def user(self, row: int) -> tuple[HybridUser, float]:
        """See `ScoringModel`."""
        vector, bias = self.embedding.user(row)
        return HybridUser(vector, *self.histories.user(row)), bias

    def queries(self, users: Rows) -> HybridQueries:
        """See `ScoringModel`."""
        return HybridQueries(self.embedding.queries(users), self.histories[users])

    def query(self, vector: HybridUser, bias: float = 0.0) -> HybridQueries:
        """See `ScoringModel`."""
        indptr = np.array([0, len(vector.items)])
        return HybridQueries(self.embedding.query(vector.embedding, bias), Histories(indptr, *vector[1:]))

    def score(self, queries: HybridQueries, rows: Rows | None = None) -> Floats:
        """See `ScoringModel`."""
        out = self.neighbours.scores(queries.histories, rows)
        if self.embedding_scale:
            out += np.float32(self.embedding_scale) * self.embedding.score(queries.embeddings, rows)
        if self.boosts is not None:
            out += self.boosts if rows is None else self.boosts[rows]
        return out

    def score_components(self, vector: HybridUser, bias: float, item: int, score: float) -> dict[str, float]:
        """See `ScoringModel`."""
        if not self.embedding_scale:
            return {"neighbours": score}
        neighbours = float(self.neighbours.contributions(vector.items, vector.amounts, item).sum())
        rest = (score - neighbours) / self.embedding_scale
        components = self.embedding.score_components(vector.embedding, bias, item, rest)
        return {name: self.embedding_scale * value for name, value in components.items()} | {"neighbours": neighbours}

    def support(self, history: Rows, rows: Rows) -> Floats:
        """See `ScoringModel`: what the items of a history add, and their cosines where they add nothing."""
        added, others = self.neighbours.weights.between(history, rows).T, np.float32(-np.inf)
        cosines = self.embedding.support(history, rows) if self.dim else others
        return np.where(added > 0, 2 + added / max(float(added.max(initial=0)), 1e-30), cosines)

    def predict(self, users: Rows, items: Rows) -> Floats:
        """See `ScoringModel`."""
        out = np.empty(len(users), np.float32)
        order = np.argsort(users, kind="stable")
        for lines in np.split(order, np.flatnonzero(np.diff(users[order])) + 1) if len(order) else ():
            out[lines] = self.score(self.queries(users[lines[:1]]), items[lines])[0]
        return out

    def to_prediction(self, score: Floats) -> Floats:
        """See `ScoringModel`."""
        return score

    def boosted(self, amounts: Floats) -> HybridModel:
        """See `ScoringModel`."""
        return replace(self, boosts=amounts if self.boosts is None else self.boosts + amounts)

    def with_users(self, count: int, changed: Mapping[int, tuple[HybridUser, float]]) -> HybridModel:
        """See `ScoringModel`."""
        embedding = self.embedding.with_users(
            count, {row: (user.embedding, bias) for row, (user, bias) in changed.items()}
        )
        histories = self.histories.with_users(count, {row: user[1:] for row, (user, _) in changed.items()})
        return replace(self, embedding=embedding, histories=histories)

    def with_items(self, vectors: Floats, bias: Floats) -> HybridModel:
        """Return the model with more items, which have no neighbours; see `EmbeddingModel.with_items`."""
        embedding = self.embedding.with_items(vectors, bias)
        return replace(self, embedding=embedding, neighbours=self.neighbours.with_items(len(embedding.items)))

    def save(self) -> tuple[Arrays, dict[str, Any]]:
        """See `ScoringModel`."""
        arrays, metadata = self.embedding.save()
        more, neighbours = self.neighbours.save()
        histories = {_HISTORIES + name: getattr(self.histories, name) for name in ("indptr", "item", "amount")}
        neighbours |= {"scale": self.embedding_scale, "share": self.share}
        return {**arrays, **more, **histories}, {**metadata, "neighbours": neighbours}

    @classmethod
    def load(cls, arrays: Arrays, metadata: Mapping[str, Any]) -> HybridModel:
        """Restore a model from what `save` returned. Raises KeyError if something is missing."""
        scales = metadata["neighbours"]
        return cls(
            family=metadata["family"],
            embedding=EmbeddingModel.load(
                {n: a for n, a in arrays.items() if "." not in n or n.startswith("layer.")}, metadata
            ),
            neighbours=Neighbours.load(arrays, scales),
            histories=Histories(*(arrays[_HISTORIES + name] for name in ("indptr", "item", "amount"))),
            embedding_scale=scales["scale"],
            share=scales["share"],
        )


class HybridCandidates:
    """Promising items of a hybrid model: those of its embeddings, and the best by neighbours. See `Candidates`."""

    def __init__(self, model: HybridModel, embeddings: Candidates | None) -> None:
        self.neighbours, self.embeddings = model.neighbours, embeddings
        self.overfetch, self.effort, self.nbytes = 16, 1, 0
        self._follow()

    def _follow(self) -> None:
        """Take over the numbers of the embeddings' candidates."""
        if self.embeddings is not None:
            self.overfetch, self.effort = self.embeddings.overfetch, self.embeddings.effort
            self.nbytes = self.embeddings.nbytes

    @classmethod
    def of(cls, model: HybridModel, queries: HybridQueries) -> HybridCandidates:
        """Return the candidates of a model. queries: some users, needed for an MLP."""
        return cls(model, make_candidates(model.embedding, queries.embeddings) if model.embedding_scale else None)

    def find(self, queries: HybridQueries, count: int, allowed: Mask | None) -> Rows:
        """See `Candidates`; up to twice as many as asked for, an item perhaps twice."""
        rows = np.full((len(queries), count), -1, np.int64)
        for line in range(len(queries)):
            items, scores = self.neighbours.sparse_scores(*queries.histories.user(line))
            if allowed is not None:
                scores, items = scores[allowed[items]], items[allowed[items]]
            best = items if len(items) <= count else items[np.argpartition(-scores, count)[:count]]
            rows[line, : len(best)] = best
        if self.embeddings is None:
            return rows
        return np.concatenate((rows, self.embeddings.find(queries.embeddings, count, allowed)), axis=1)

    def increase_effort(self) -> bool:
        """See `Candidates`."""
        increased = self.embeddings is not None and self.embeddings.increase_effort()
        self._follow()
        return increased
