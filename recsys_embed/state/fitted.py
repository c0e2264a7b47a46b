"""FittedState: everything that a training leaves. All answers are functions of it; it needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl

from recsys_embed.config.settings import IndexName
from recsys_embed.data.ids import Id, Rows
from recsys_embed.data.user_items import UserItems
from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import SettingError
from recsys_embed.features.common_tokens import TokenIndex
from recsys_embed.models.base import ScoringModel
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.models.fold_in.base import FoldIn
from recsys_embed.models.registry import family
from recsys_embed.retrieval.approximate import ApproximateIndex
from recsys_embed.retrieval.base import Index
from recsys_embed.retrieval.exact import CosineIndex, ExactIndex
from recsys_embed.rules.compile import RuleCache
from recsys_embed.state.content_model import ContentModel

# Users whose lists measure the recall of an approximate index.
_RECALL_USERS = 300


@dataclass(frozen=True, eq=False)
class FittedState:
    """A trained model with its vocabularies, and what is known of its users and items.

    It never changes: what takes in new ratings or items returns another one. What it derives from its arrays (indexes,
    the fold-in, compiled rules) is made when first asked for, and kept.

    users, items: the vocabularies; for a graph both are the one vocabulary of its nodes. model: scores items for users.
    seen: the items of each user that the model was fitted on; held_out: those kept back for test. history_items: the
    items that users of a history model are the sum of, where that is not all that was seen; else None.
    table: one row an item (item_id, title, …). counts: training ratings of each item, int64 [items].
    metadata: settings, metrics and dates, saved with the model. per_user: every user's metrics in the test of the
    training (user_id, ndcg_at_10, …), or None without one.
    content: what makes vectors of descriptions; the folder where it lies, to be read when asked for; or None.
    index_name: whether all items are ranked, or promising ones. fold_in_of, index_of: what another state of the same
    training had made already, to be used again.
    """

    users: Vocab
    items: Vocab
    model: ScoringModel
    seen: UserItems
    held_out: UserItems
    table: pl.DataFrame
    counts: Rows
    metadata: dict[str, Any] = field(default_factory=dict)
    per_user: pl.DataFrame | None = None
    history_items: UserItems | None = None
    content: ContentModel | Path | None = None
    index_name: IndexName = "exact"
    fold_in_of: FoldIn | None = None
    index_of: ApproximateIndex | None = None

    def __repr__(self) -> str:
        sizes = f"{len(self.users):,} nodes" if self.shared else f"{len(self.users):,} users, {len(self.items):,} items"
        return f"{sizes}, vectors of {self.model.dim}"

    @property
    def shared(self) -> bool:
        """Whether users and items are one vocabulary: the nodes of a graph."""
        return self.users is self.items

    @property
    def embeddings(self) -> EmbeddingModel:
        """The model, where it is one of embeddings. Raises SettingError for another family."""
        if not isinstance(self.model, EmbeddingModel):
            raise SettingError(f"this needs a model of embeddings; this one is of the family {self.model.family!r}")
        return self.model

    @property
    def positive_threshold(self) -> float | None:
        """The rating from which on training took ratings for positives, or None: all of them."""
        threshold: float | None = self.metadata.get("settings", {}).get("min_rating")
        return None if self.model.output == "stars" else threshold

    def history(self, user: int) -> Rows:
        """Return the item rows, ascending, that a user of the model is made of."""
        return (self.seen if self.history_items is None else self.history_items)[user]

    @cached_property
    def hidden(self) -> UserItems:
        """What is in no list of a user: what the model was fitted on; for a node, itself too."""
        return self.seen.with_self_loops() if self.shared else self.seen

    @cached_property
    def item_ids(self) -> list[Id]:
        """The items' ids by row."""
        ids: list[Id] = self.items.series.to_list()
        return ids

    @cached_property
    def titles(self) -> list[str]:
        """The items' titles by row."""
        titles: list[str] = self.table["title"].to_list()
        return titles

    @cached_property
    def content_model(self) -> ContentModel | None:
        """What makes vectors of descriptions, or None where the model was trained without."""
        return ContentModel.load(self.content) if isinstance(self.content, Path) else self.content

    def require_content_model(self) -> ContentModel:
        """Return `content_model`. Raises SettingError where the model was trained without."""
        if self.content_model is None:
            raise SettingError(
                "this model was trained without descriptions of its items: train one with --text title,genres,…"
            )
        return self.content_model

    @cached_property
    def fold_in(self) -> FoldIn:
        """What makes vectors of users from their feedback."""
        return self.fold_in_of or family(self.model.family).fold_in(self.model, self.counts, self.seen)

    @cached_property
    def rules(self) -> RuleCache:
        """The rules that were asked for lately, compiled for these items."""
        return RuleCache(self.table, self.counts, self.model)

    @cached_property
    def tokens(self) -> TokenIndex:
        """The items' tags and words, for explanations."""
        kinds = {} if self.content_model is None else {c.name: c.kind for c in self.content_model.encoder.columns}
        return TokenIndex.of(self.table, kinds)

    @cached_property
    def index(self) -> Index:
        """The items by score; ask it with `model.queries(users)`."""
        return ExactIndex.of(self.model) if self.index_name == "exact" else self._approximate()

    @cached_property
    def popularity_index(self) -> ExactIndex:
        """The items by popularity, for an anonymous user; ask it with ones [b, 1]."""
        return ExactIndex(np.log1p(self.counts, dtype=np.float32)[:, None])

    @cached_property
    def cosine_index(self) -> CosineIndex:
        """The items by the cosine of their vectors; biases take no part."""
        return CosineIndex(self.model.item_vectors)

    def with_index(self, name: IndexName) -> FittedState:
        """Return the state with the "exact" or the "approximate" index, which is built now.

        Raises SettingError for another name, and without faiss, which an MLP scorer does not need.
        """
        if name not in get_args(IndexName):
            raise SettingError(f"index must be one of {', '.join(get_args(IndexName))}, got {name!r}")
        state = replace(self, index_name=name, index_of=None if name == "exact" else self.index_of)
        if name == "approximate":
            _ = state.index
        return state

    def _approximate(self) -> ApproximateIndex:
        model = self.embeddings
        index = self.index_of.for_model(model) if self.index_of else None
        if index is None:
            users = np.random.default_rng(0).permutation(len(self.users))[:_RECALL_USERS]
            index = ApproximateIndex.of(model, model.queries(users), self.hidden.of_users(users))
        return index

    def but(self, **changed: Any) -> FittedState:
        """Return the state with other fields; an approximate index is used again where the items are the same."""
        built = vars(self).get("index")
        return replace(self, **{"index_of": built if isinstance(built, ApproximateIndex) else self.index_of} | changed)
