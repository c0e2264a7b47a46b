"""Recommender: the façade over the fitted state. Fit on ratings or load from a folder, then ask for answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from recsys_embed.answering import items as about_items
from recsys_embed.answering.audience import audience, similar_users
from recsys_embed.answering.batch import iter_recommendations, write_recommendations
from recsys_embed.answering.explain import Explanation, explain
from recsys_embed.answering.items import SimilarBy
from recsys_embed.answering.list_files import Written
from recsys_embed.answering.predict import predict
from recsys_embed.answering.profile import profile_of
from recsys_embed.answering.rank import check_k
from recsys_embed.answering.recipients import find_recipients
from recsys_embed.answering.recommend import nearest_in, recommend
from recsys_embed.answering.request import RecommendRequest
from recsys_embed.answering.tables import as_table, one_or_more, rows_of
from recsys_embed.arrays import Floats
from recsys_embed.config.answers import NO_RULES, IndexName, ListShape, OutputConfig, Rules
from recsys_embed.config.renamed import RENAMED_ATTRIBUTES
from recsys_embed.config.settings import ContentConfig, ModelConfig, TrainConfig
from recsys_embed.data.columns import as_polars
from recsys_embed.data.ids import Id, Rows
from recsys_embed.distributed.sharing import sharing
from recsys_embed.errors import NotFitted
from recsys_embed.forks import needs_threads
from recsys_embed.models.hybrid import embedding_of
from recsys_embed.state.add_items import add_items
from recsys_embed.state.card import model_card
from recsys_embed.state.change_items import add_described, set_item_table
from recsys_embed.state.fitted import FittedState
from recsys_embed.state.folder import load_state, save_state
from recsys_embed.state.update import update
from recsys_embed.storage.table_files import check_is_not_read

if TYPE_CHECKING:
    import pandas as pd

    from recsys_embed.data.ratings import Ratings
    from recsys_embed.data.user_items import UserItems
    from recsys_embed.data.vocab import Vocab
    from recsys_embed.features.item_features import ItemFeatures
    from recsys_embed.models.base import ScoringModel
    from recsys_embed.training.interface import TrainingResult, Validate


class AllUsers(Enum):
    """Stands for all users of a model. None does not, so that a missing user never means everyone."""

    ALL = "all"


class Recommender:
    """Fit on ratings, or load from a folder; then recommend, similar, predict, explain, search, update, save.

    Attributes, once fitted or loaded: `state`, the `FittedState`, whose fields can be read here as well: `users`,
    `items`, `table`, `model`, `seen`, `held_out`, `item_counts`, `metadata`, `per_user`. After `fit`, `training` is the
    `TrainingResult`.
    """

    if TYPE_CHECKING:
        state: FittedState
        training: TrainingResult
        users: Vocab
        items: Vocab
        table: pl.DataFrame
        model: ScoringModel
        seen: UserItems
        held_out: UserItems
        excluded: UserItems
        is_graph: bool
        item_counts: Rows
        metadata: dict[str, Any]
        per_user: pl.DataFrame | None

    def __init__(
        self,
        model: ModelConfig | None = None,
        train: TrainConfig | None = None,
        content: ContentConfig | None = None,
    ) -> None:
        self.configs = model or ModelConfig(), train or TrainConfig(), content or ContentConfig()

    @classmethod
    def of(cls, state: FittedState) -> Recommender:
        """Return a recommender for an existing state."""
        recommender = cls()
        recommender.state = state
        return recommender

    def __getattr__(self, name: str) -> Any:
        """Look up an attribute of the state. Raises NotFitted if there is none."""
        if name == "state" or name == "training" or hasattr(FittedState, name) or name in _FIELDS:
            if "state" not in vars(self):
                raise NotFitted(
                    "this Recommender is not fitted yet: call fit(ratings), or use Recommender.load(folder)"
                )
            if name == "training":
                raise NotFitted("this Recommender was loaded, not fitted, so that it has no `training`")
            return getattr(self.state, name)
        renamed = f": it is called {RENAMED_ATTRIBUTES[name]!r} now" if name in RENAMED_ATTRIBUTES else ""
        raise AttributeError(f"Recommender has no attribute {name!r}{renamed}")

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse to set a field of the state, since answers would not see it."""
        if name in _FIELDS:
            raise AttributeError(
                f"{name} belongs to the state: recommender.state = recommender.state.replace({name}=…)"
            )
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        return f"Recommender({self.state if 'state' in vars(self) else 'not fitted'})"

    def fit(
        self,
        ratings: Ratings,
        items: pl.DataFrame | pd.DataFrame | None = None,
        *,
        held_out: Ratings | None = None,
        min_rating: float | None = None,
        validate: Validate | None = None,
        monitor: tuple[str, int] = ("ndcg_at_10", 1),
        epochs: int | None = None,
        tracker: Any = None,
        item_features: ItemFeatures | None = None,
        warm_start: Recommender | None = None,
    ) -> Recommender:
        """Train on ratings: for the epochs of the settings or for `epochs`; with `validate`, until early stopping.

        items: item table with `item_id`, `title`, … held_out: ratings held out for testing, with the same vocabularies;
        `recommend(hide_test=True)` leaves them out. min_rating: the lowest rating that counts as positive; lower ones
        still count as seen. validate, monitor, tracker: see `training.trainer.fit`; its result is in `self.training`.
        item_features: the encoded item table, if it was encoded already (`encode_items`).
        warm_start: a model to start from, with the settings from its `warm_start_configs()`: its users and items start
        from their vectors, new users from their fold-in, and new items from random vectors.
        """
        from recsys_embed.training.fit import fit_state

        self.state, self.training = fit_state(
            ratings, self.configs, items, held_out=held_out, min_rating=min_rating, validate=validate, monitor=monitor,
            epochs=epochs, tracker=tracker, item_features=item_features,
            warm_start=None if warm_start is None else warm_start.state,
        )  # fmt: skip
        return self

    def warm_start_configs(self, **overrides: Any) -> tuple[ModelConfig, TrainConfig]:
        """Return the settings for a warm start from this model; `overrides` take precedence.

        `Recommender(*model.warm_start_configs()).fit(ratings, warm_start=model)` trains with its settings, but with a
        quarter of the epochs and of the learning rate.
        """
        from recsys_embed.training.warm_start import warm_start_configs

        return warm_start_configs(self.metadata, **overrides)

    def save(self, folder: str | Path) -> Path:
        """Write the model to a folder atomically, and return the folder. See docs/bundle.md."""
        return save_state(self.state, Path(folder))

    @classmethod
    def load(cls, folder: str | Path, *, mmap: bool = False) -> Recommender:
        """Load a model from its folder, and verify every byte against the manifest. Raises BundleError.

        mmap: memory-map the vectors, so that several processes share them.
        """
        return cls.of(load_state(Path(folder), mmap))

    def card(self) -> str:
        """Return the model card, in Markdown."""
        return model_card(self.state)

    def use_index(self, index: IndexName) -> Recommender:
        """Rank all items ("exact", the default), or promising candidates only ("approximate").

        The approximate index is built at once, in seconds for a million items, and again whenever the items change. Its
        recall of the exact lists is measured on a sample of users and logged (`index.measured_recall`). Boosted lists
        stay exact. Returns this recommender. Raises SettingError for another name, or if faiss is missing. An MLP
        scorer does not need faiss: its candidates come from a dot product that approximates its score.
        """
        self.state = self.state.with_index(index)
        return self

    def recommend(
        self,
        users: Id | Iterable[Id] | AllUsers = AllUsers.ALL,
        k: int = 10,
        *,
        include_seen: bool = False,
        hide_test: bool = False,
        candidates: Sequence[Id] | None = None,
        exclude: Sequence[Id] = (),
        rules: Rules = NO_RULES,
    ) -> pl.DataFrame:
        """Return the k best items of one user, of several, or of all (the default), as one long table.

        Columns: user_id, item_id, title, score, rank (from 1). Every user gets exactly min(k, items left) rows.
        include_seen: rank the items that the model was fitted on too (but never a node for itself). hide_test: leave
            out held-out items as well.
        candidates: item ids to choose from; exclude: item ids to leave out. rules: filters, boosts and limits.
        Raises UnknownId for unknown users and items.
        """
        rows = np.arange(len(self.users)) if isinstance(users, AllUsers) else rows_of(self.users, users)
        request = RecommendRequest(
            k=k, candidates=candidates, exclude=exclude, include_seen=include_seen, hide_test=hide_test, rules=rules
        )
        return pl.concat(iter_recommendations(self.state, rows, request))

    @needs_threads("lists for many users")
    def write_recommendations(
        self, out: str | Path, users: Any = AllUsers.ALL, k: int = 10, *, shape: ListShape = "long", **options: Any
    ) -> Written:
        """Write lists to a file, or to a folder of parts that the same call continues: "lists/".

        users: as in `recommend`, or a table of them, a frame or the `Path` of a file (see `users_table`). options:
        those of `recommend`, on_unknown, those of `OutputConfig` and progress; see `answering.batch`. Processes that
        torchrun has started share the parts of a folder.
        """
        check_is_not_read(out, users=users if isinstance(users, Path) else None)
        output = OutputConfig(**{f.name: options.pop(f.name) for f in fields(OutputConfig) if f.name in options})
        kwargs = {"progress": options.pop("progress")} if "progress" in options else {}
        request = RecommendRequest(k=k, **options)
        who = None if isinstance(users, AllUsers) else find_recipients(self.state, users, request)
        with sharing() as team:
            return write_recommendations(self.state, out, who, request, shape, output=output, team=team, **kwargs)

    def recommend_for(
        self,
        likes: Id | Iterable[Id] = (),
        k: int = 10,
        *,
        dislikes: Id | Iterable[Id] = (),
        ratings: Mapping[Id, float] | None = None,
        candidates: Sequence[Id] | None = None,
        exclude: Sequence[Id] = (),
        rules: Rules = NO_RULES,
    ) -> pl.DataFrame:
        """Return the k best items for a new user, given their likes, dislikes and ratings.

        Columns: item_id, title, score, rank (from 1); min(k, items left) rows, without the given items.
        likes, dislikes: item ids in any order; duplicates count once. ratings: by item id.
            Without any of these the user is anonymous: items are ranked by popularity, and a score is
            log(1 + the number of ratings), as in a softmax over biases alone.
        candidates, exclude, rules: as in `recommend`. Raises UnknownId for unknown items.
        """
        check_k(k)
        liked, disliked = (list(one_or_more(self.items, ids)) for ids in (likes, dislikes))
        request = RecommendRequest(
            likes=liked, dislikes=disliked, ratings=ratings or {}, k=k, candidates=candidates, exclude=exclude,
            rules=rules,
        )  # fmt: skip
        recommendations = recommend(self.state, request)
        return as_table(self.state, recommendations.scores[None], recommendations.rows[None])

    def user_vector(self, likes: Id | Iterable[Id]) -> Floats:
        """Return the vector [dim] of a new user who likes these items, without a bias. Raises UnknownId."""
        vector = profile_of(self.state, likes=one_or_more(self.items, likes)).vector
        return np.zeros(self.model.dim, np.float32) if vector is None else embedding_of(vector)

    def similar(
        self, items: Id | Iterable[Id], k: int = 10, *, by: SimilarBy | None = None, min_support: int = 0
    ) -> pl.DataFrame:
        """Return the k items most similar to an item, or to each of several, by cosine.

        by: "embeddings" (the default if there are any), the cosine of vectors without biases; "neighbours", that of
            who rated the items, n_ij / (sqrt(n_i n_j) + 10), where n_ij users rated both; or "together", how surely the
            users of one have the other more often than by chance: Dunning's log-likelihood ratio.
        min_support: only items with at least this many training ratings.
        Columns: of, item_id, title, score, rank and, but for embeddings, together (n_ij); by "together" also lift,
        P(i and j) / (P(i) P(j)), and confidence, P(j given i). The item itself is left out. Raises UnknownId, and
        SettingError for a model without embeddings.
        """
        return about_items.similar(self.state, items, k, by, min_support)

    def audience(
        self, items: Id | Iterable[Id], k: int = 100, *, include_seen: bool = False, hide_test: bool = False
    ) -> pl.DataFrame:
        """Return the k users most likely to want an item, or each of several, as one long table.

        Columns: item_id, title, user_id, score (z + log n, see docs/audience.md), rank (from 1). Users whose lists
        leave the item out since they have it are left out, unless `include_seen`; hide_test: those for whom it is held
        out as well. Users without a history come only if no other is left. Raises UnknownId.
        """
        return audience(self.state, items, k, include_seen, hide_test)

    def similar_users(self, users: Id | Iterable[Id], k: int = 10) -> pl.DataFrame:
        """Return the k users most similar to a user, or to each of several: by the cosine of their vectors, or, for a
        model without embeddings, by n_uv / sqrt(n_u n_v), where users u and v have n_uv items in common.

        Columns: of, user_id, score (the cosine), rank, common (n_uv), items (n_v). The user themselves is left out, and
        so are users without a history. Raises UnknownId.
        """
        return similar_users(self.state, users, k)

    def search(self, query: str | None = None, k: int = 10, *, image: str | Path | None = None) -> pl.DataFrame:
        """Return the k items most similar to a text, an image, or both (see `ContentModel.similarity`).

        Columns: item_id, title, score, rank. Raises SettingError for a model that was trained without descriptions,
        and UnknownId if nothing in the query is known.
        """
        return about_items.search(self.state, query, k, image)

    def nearest_tokens(self, item: Id, k: int = 10) -> pl.DataFrame:
        """Return the k words and tags nearest to an item, by cosine in the item space: column, token, score, rank."""
        return about_items.nearest_tokens(self.state, item, k)

    def find_item(self, text: Id) -> Id:
        """Return the id of the item with this id or title. Raises UnknownId, with suggestions."""
        return about_items.find_item(self.state, text)

    def predict(self, users: Id | Iterable[Id], items: Id | Iterable[Id]) -> Floats:
        """Return predictions for pairs of a user and an item, float32 [n].

        For squared error, a rating within the rating scale; for the logistic loss, a probability; for ranking losses, a
        unitless score, where higher is better for the same user.
        """
        return predict(self.state, users, items)

    def explain(
        self,
        user: Id | None,
        item: Id,
        k: int = 5,
        *,
        likes: Id | Iterable[Id] = (),
        dislikes: Id | Iterable[Id] = (),
        ratings: Mapping[Id, float] | None = None,
    ) -> Explanation:
        """Explain why an item is recommended to a user, or (user None) to a new user; see `Explanation`.

        item: an id. k: number of the user's items to list. likes, dislikes, ratings: feedback as in `recommend_for`.
        Raises UnknownId.
        """
        check_k(k)
        liked, disliked = (one_or_more(self.items, ids) for ids in (likes, dislikes))
        return explain(self.state, profile_of(self.state, user, liked, disliked, ratings), self.items.row(item), k)

    def reasons(self, user: Id, items: Sequence[Id], k: int = 2) -> list[list[Id]]:
        """Return, for each item, the k items of a user's history that support it most."""
        return self._nearest(self.seen[self.users.row(user)], items, k)

    def reasons_for(self, likes: Id | Iterable[Id], items: Sequence[Id], k: int = 2) -> list[list[Id]]:
        """Return, for each item, the k of the items that a new user likes that support it most."""
        return self._nearest(np.unique(rows_of(self.items, likes)), items, k)

    def _nearest(self, history: Rows, items: Sequence[Id], k: int) -> list[list[Id]]:
        return [self.items.ids(rows).to_list() for rows in nearest_in(self.state, history, self.items.rows(items), k)]

    def update(self, ratings: Ratings | pl.DataFrame | pd.DataFrame) -> Recommender:
        """Take in new ratings without training: add new users, and update known ones.

        ratings: Ratings, or a frame with a user, an item and optionally a rating column; ids as in training.
        Rated items no longer appear in the user's list. Ratings of unknown items are skipped with a warning; ratings
        that the model was fitted on change nothing. A rating below the --min-rating of training marks the item as seen
        and does nothing else. Updating step by step equals updating at once.
        Returns this recommender. Raises SettingError for a graph, DataError for invalid ratings.
        """
        self.state = update(self.state, ratings)
        return self

    def add_items(
        self,
        table: pl.DataFrame | pd.DataFrame,
        *,
        item_vectors: str | Path | None = None,
        images: str | Path | None = None,
    ) -> Recommender:
        """Add items without training: their vectors are predicted from their descriptions.

        table: `item_id`, `title` and the columns that the model was trained on, as far as available. item_vectors: file
        of item vectors; images: folder of images; both only for models that were trained on them.
        Returns this recommender. Raises SettingError for a model without descriptions, DataError for ids that are
        known already or duplicated.
        """
        self.state = add_items(self.state, as_polars(table), item_vectors, images)
        return self

    def set_items(self, table: pl.DataFrame | pd.DataFrame) -> Recommender:
        """Set values in the item table, e.g. prices and stock; columns that are new are added.

        table: `item_id` and the columns to set, for some or all of the items. Items that the model does not know are
        added if it was trained with descriptions and finds them described, and left out otherwise. Vectors stay as
        they are. Returns this recommender. Raises DataError for a column that does not fit.
        """
        table = as_polars(table)
        self.state = set_item_table(add_described(self.state, table), table)
        return self


_FIELDS = frozenset(FittedState.__dataclass_fields__)
