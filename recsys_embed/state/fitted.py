"""FittedState: everything that training produces. All answers are functions of it; it needs no torch."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import polars as pl

from recsys_embed.arrays import Floats
from recsys_embed.config.answers import IndexName
from recsys_embed.data.event_types import EventTypes
from recsys_embed.data.ids import Id, Rows
from recsys_embed.data.user_items import UserItems
from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import SettingError
from recsys_embed.features.common_tokens import TokenIndex
from recsys_embed.models.base import ScoringModel
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.models.fold_in.base import FoldIn
from recsys_embed.models.hybrid import HybridCandidates, HybridModel
from recsys_embed.models.popularity import popularity_scores
from recsys_embed.models.ranker import Ranker, RankerOfKnown
from recsys_embed.models.registry import family
from recsys_embed.models.trend import Trend
from recsys_embed.models.user_scorer import comparable, user_scorer
from recsys_embed.retrieval.approximate import ApproximateIndex, same_items
from recsys_embed.retrieval.base import Index, Mask, VectorScorer
from recsys_embed.retrieval.exact import CosineIndex, ExactIndex
from recsys_embed.retrieval.fixed_order import FixedOrderIndex
from recsys_embed.retrieval.users import UserIndex
from recsys_embed.rules.compile import RuleCache
from recsys_embed.state.content_model import ContentModel

# Items that a trend makes candidates of an approximate index.
_PROMOTED = 4096
# Users on whose lists the recall of an approximate index is measured.
_RECALL_USERS = 300
# What a state computes from its trend.
_OF_TREND = ("trend_scores", "scorer", "ranker", "rules", "index", "popularity", "popularity_index")


@dataclass(frozen=True, eq=False)
class FittedState:
    """A trained model with its vocabularies, histories and item table.

    Immutable: updates and added items return a new state. Whatever is derived from its arrays (indexes, the fold-in,
    compiled rules) is computed on first use and cached.

    users, items: the vocabularies; for a graph, both are the vocabulary of its nodes. model: scores items for users.
    seen: the items of each user that the model was fitted on. held_out: their items that are held out for testing.
    hidden_items: those of them that are left out of the users' lists, if that is not everything seen; else None.
    history_items: the items that users of a history model are the sum of, if that is not everything seen; else None.
    table: one row per item (item_id, title, …). item_counts: training ratings per item, int64 [items].
    metadata: settings, metrics and dates, saved with the model. per_user: the test metrics of each user (user_id,
    ndcg_at_10, …), or None without a test.
    trend: popularity with a half-life, whose growth is added to the scores of the items; None: time plays no part.
    content: the content model, or the folder to load it from on first use, or None.
    index_name: "exact" to rank all items, "approximate" for candidates only. cached_fold_in, cached_index: what an
    earlier state computed and still holds, for reuse; see `replace`.
    """

    users: Vocab
    items: Vocab
    model: ScoringModel
    seen: UserItems
    held_out: UserItems
    table: pl.DataFrame
    item_counts: Rows
    metadata: dict[str, Any] = field(default_factory=dict)
    per_user: pl.DataFrame | None = None
    history_items: UserItems | None = None
    hidden_items: UserItems | None = None
    trend: Trend | None = None
    content: ContentModel | Path | None = None
    index_name: IndexName = "exact"
    cached_fold_in: FoldIn | None = None
    cached_index: ApproximateIndex | None = None

    def __repr__(self) -> str:
        sizes = (
            f"{len(self.users):,} nodes" if self.is_graph else f"{len(self.users):,} users, {len(self.items):,} items"
        )
        return f"{sizes}, vectors of {self.model.dim}"

    @property
    def is_graph(self) -> bool:
        """Whether users and items share one vocabulary: the nodes of a graph."""
        return self.users is self.items

    @property
    def embeddings(self) -> EmbeddingModel:
        """The embeddings of the model. Raises SettingError for a model that has none."""
        model = self.model.embedding if isinstance(self.model, HybridModel) else self.model
        if not isinstance(model, EmbeddingModel) or not model.dim:
            raise SettingError(f"this needs embeddings; this model of the family {self.model.family!r} has none")
        return model

    @property
    def positive_threshold(self) -> float | None:
        """The lowest rating that counted as positive in training; None if all did."""
        threshold: float | None = self.metadata.get("settings", {}).get("min_rating")
        return None if self.model.output == "stars" else threshold

    @cached_property
    def event_types(self) -> EventTypes:
        """What events of each type count."""
        return EventTypes.load(self.metadata)

    def history(self, user: int) -> Rows:
        """Return the item rows, ascending, that the vector of a trained user is based on."""
        return (self.seen if self.history_items is None else self.history_items)[user]

    @cached_property
    def excluded(self) -> UserItems:
        """The items excluded from each user's list: those the model was fitted on, unless what they did with them does
        not hide them, and, for a node, the node itself."""
        hidden = self.seen if self.hidden_items is None else self.hidden_items
        return hidden.with_self_loops() if self.is_graph else hidden

    @cached_property
    def users_of_items(self) -> UserItems:
        """The users of each item, by item row: the transpose of `seen`."""
        return self.seen.transposed(len(self.items))

    @cached_property
    def owners(self) -> UserItems:
        """The users whom the audience of each item leaves out, by item row: the transpose of `excluded`."""
        return self.excluded.transposed(len(self.items))

    @property
    def has_user_vectors(self) -> bool:
        """Whether the model has a vector of each user."""
        model = self.model.embedding if isinstance(self.model, HybridModel) else self.model
        return isinstance(model, EmbeddingModel) and model.dim > 0

    @cached_property
    def item_ids(self) -> list[Id]:
        """Item ids by row."""
        ids: list[Id] = self.items.series.to_list()
        return ids

    @cached_property
    def titles(self) -> list[str]:
        """Item titles by row."""
        titles: list[str] = self.table["title"].to_list()
        return titles

    @cached_property
    def content_model(self) -> ContentModel | None:
        """The content model, or None if the model was trained without descriptions."""
        return ContentModel.load(self.content) if isinstance(self.content, Path) else self.content

    def require_content_model(self) -> ContentModel:
        """Return `content_model`. Raises SettingError if the model was trained without descriptions."""
        if self.content_model is None:
            raise SettingError(
                "this model was trained without descriptions of its items: train one with --text title,genres,…"
            )
        return self.content_model

    @cached_property
    def fold_in(self) -> FoldIn:
        """The fold-in, which computes user vectors from feedback."""
        return self.cached_fold_in or family(self.model.family).fold_in(self.model, self.item_counts, self.seen)

    @cached_property
    def trend_scores(self) -> Floats:
        """What the trend adds to the scores of the items, [items]; zeros without one."""
        return np.zeros(len(self.items), np.float32) if self.trend is None else self.trend.added(self.item_counts)

    @cached_property
    def scorer(self) -> ScoringModel:
        """The model with the trend in its scores; lists come from it, vectors and fold-ins from the model itself."""
        return self.model if self.trend is None else self.model.boosted(self.trend_scores)

    def is_known(self, users: Rows) -> Mask:
        """Return of which users anything is known, bool [n]; the others get what is popular.

        In a model of "chance" or of "stars", whose scores are log-odds or ratings, all are known.
        """
        if self.model.output != "score":
            return np.ones(len(users), bool)
        return (self.seen if self.history_items is None else self.history_items).count[users] > 0

    @cached_property
    def ranker(self) -> Ranker:
        """Ranks all items for trained users, as evaluation needs it."""
        ranker, known = Ranker.of(self.scorer), self.is_known(np.arange(len(self.users)))
        if known.all():
            return ranker
        return RankerOfKnown(ranker.index, ranker.queries, known, FixedOrderIndex(self.popularity))

    @cached_property
    def rules(self) -> RuleCache:
        """Compiles rules for these items, and caches recent ones."""
        return RuleCache(self.table, self.item_counts, self.scorer, self.popularity)

    @cached_property
    def tokens(self) -> TokenIndex:
        """The tags and words of the items, for explanations."""
        kinds = {} if self.content_model is None else {c.name: c.kind for c in self.content_model.encoder.columns}
        return TokenIndex.of(self.table, kinds)

    @cached_property
    def index(self) -> Index:
        """The items by score; search it with `model.queries(users)`."""
        return ExactIndex.of(self.scorer) if self.index_name == "exact" else self._approximate()

    @cached_property
    def popularity(self) -> Floats:
        """The scores of the items for anonymous users, [items]."""
        return popularity_scores(self.item_counts) if self.trend is None else self.trend.popularity(self.item_counts)

    @cached_property
    def popularity_index(self) -> ExactIndex:
        """The items by popularity, for anonymous users; search it with ones [b, 1]."""
        return ExactIndex(self.popularity[:, None])

    @cached_property
    def user_index(self) -> UserIndex:
        """The users by how likely they want an item; search it with item rows. A trend, the same for all users, plays
        no part."""
        scorer = user_scorer(self.model, len(self.users))
        return UserIndex(comparable(scorer, self.users_of_items, self.seen.count, self.item_counts), len(self.users))

    @cached_property
    def user_cosine_index(self) -> CosineIndex:
        """The users by the cosine of their vectors. Raises SettingError for a model without embeddings."""
        return CosineIndex(self.embeddings.users)

    @cached_property
    def cosine_index(self) -> CosineIndex:
        """The items by the cosine of their vectors, without biases."""
        return CosineIndex(self.model.item_vectors)

    def with_index(self, name: IndexName) -> FittedState:
        """Return the state with the "exact" or the "approximate" index, which is built at once.

        Raises SettingError for another name, or if faiss is missing (an MLP scorer does not need it).
        """
        if name not in get_args(IndexName):
            raise SettingError(f"index must be one of {', '.join(get_args(IndexName))}, got {name!r}")
        state = self
        if name != self.index_name:
            state = self.replace(index_name=name, **({"cached_index": None} if name == "exact" else {}))
        if name == "approximate":
            _ = state.index
        return state

    def _approximate(self) -> ApproximateIndex:
        if self.cached_index is not None:
            return self.cached_index
        users = np.random.default_rng(0).permutation(len(self.users))[:_RECALL_USERS]
        sample = self.model.queries(users), self.excluded.pairs_of(users)
        if isinstance(self.scorer, HybridModel):
            return ApproximateIndex.of(self.scorer, *sample, make=HybridCandidates.of, promoted=self._promoted())
        model = self.scorer if isinstance(self.scorer, EmbeddingModel) else self.embeddings
        return ApproximateIndex.of(model, *sample, promoted=self._promoted())

    def _promoted(self) -> Rows | None:
        """Return the items to whose scores the trend adds most, best first."""
        if self.trend is None:
            return None
        count = min(_PROMOTED, len(self.items))
        best = np.argpartition(-self.trend_scores, count - 1)[:count]
        return best[np.argsort(-self.trend_scores[best], kind="stable")]

    def with_trend(self, trend: Trend) -> FittedState:
        """Return the state with another trend. All else that was computed is kept."""
        state = replace(self, trend=trend)
        computed = vars(self)
        for name, value in computed.items():
            if name not in self.__dataclass_fields__ and name not in _OF_TREND:
                vars(state)[name] = value
        if "rules" in computed:
            vars(state)["rules"] = self.rules.with_scores(state.scorer, state.popularity)
        if isinstance(index := computed.get("index"), ApproximateIndex):
            vars(state)["index"] = index.for_model(cast(VectorScorer, state.scorer), state._promoted())
        return state

    def with_table(
        self, table: pl.DataFrame, rows: Rows, names: Collection[str], *, new_kinds: bool = False
    ) -> FittedState:
        """Return the state with an item table that differs in the columns `names` of these rows only.

        All else that was computed is kept, and compiled rules are mended. new_kinds: what columns hold is told anew.
        """
        state, computed = replace(self, table=table), vars(self)
        for name, value in computed.items():
            if name not in self.__dataclass_fields__ and name not in ("rules", "titles", "tokens"):
                vars(state)[name] = value
        if not new_kinds:
            vars(state)["rules"] = rules = self.rules.with_values(table, rows, names)
            if "tokens" in computed and all(rules.columns.kind(name) in ("number", "date") for name in names):
                vars(state)["tokens"] = self.tokens
        if "titles" in computed and "title" not in names:
            vars(state)["titles"] = self.titles
        elif "titles" in computed and not new_kinds:
            vars(state)["titles"] = titles = list(self.titles)
            for row in rows.tolist():
                titles[row] = table["title"][row]
        return state

    def replace(self, **changes: Any) -> FittedState:
        """Return the state with some fields replaced.

        What was computed is kept: the content model, the fold-in if it depends on none of the changes, and an
        approximate index if the items are the same.
        """
        computed = vars(self)
        fold_in = computed.get("fold_in", self.cached_fold_in)
        index = computed.get("index", self.cached_index)
        kept: dict[str, Any] = {
            "metadata": dict(self.metadata),
            "content": computed.get("content_model", self.content),
            "cached_fold_in": None if {"model", "item_counts", "seen"} & changes.keys() else fold_in,
            "cached_index": None,
        }
        state = replace(self, **kept | changes)
        if isinstance(index, ApproximateIndex) and "cached_index" not in changes:
            old, new = (cast(VectorScorer, s.model) for s in (self, state))
            if same_items(old, new):
                return replace(state, cached_index=index.for_model(cast(VectorScorer, state.scorer), state._promoted()))
        return state

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields without what is computed from them."""
        return {name: vars(self)[name] for name in self.__dataclass_fields__}
