"""Recommender: fit on ratings, or load from a folder; then ask. A thin face over the fitted state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from recsys_embed.answering import items as about_items
from recsys_embed.answering.batch import iter_recommendations
from recsys_embed.answering.explain import Explanation, explain
from recsys_embed.answering.predict import predict
from recsys_embed.answering.profile import profile_of
from recsys_embed.answering.rank import check_k
from recsys_embed.answering.recommend import nearest_in, recommend
from recsys_embed.answering.request import RecommendRequest
from recsys_embed.answering.tables import as_table, one_or_more, rows_of
from recsys_embed.arrays import Floats
from recsys_embed.config.settings import NO_RULES, ContentConfig, IndexName, ModelConfig, Rules, TrainConfig
from recsys_embed.data.columns import as_polars
from recsys_embed.data.ids import Id, Rows
from recsys_embed.errors import NotFitted
from recsys_embed.state.add_items import add_items
from recsys_embed.state.card import model_card
from recsys_embed.state.fitted import FittedState
from recsys_embed.state.folder import load_state, save_state
from recsys_embed.state.update import update

if TYPE_CHECKING:
    import pandas as pd

    from recsys_embed.data.ratings import Ratings
    from recsys_embed.data.user_items import UserItems
    from recsys_embed.data.vocab import Vocab
    from recsys_embed.features.item_features import ItemFeatures
    from recsys_embed.models.base import ScoringModel
    from recsys_embed.training.interface import TrainingResult, Validate


class AllUsers(Enum):
    """Stands for all users of a model; None does not, since a user that is missing must not mean everybody."""

    ALL = "all"


class Recommender:
    """Fit on ratings, or load from a folder; then recommend, similar, predict, explain, search, update, save.

    Attributes, once fitted or loaded: `state`, what the training left (`state.fitted.FittedState`), whose fields are
    read through: `users`, `items`, `table`, `model`, `seen`, `held_out`, `counts`, `metadata`, `per_user`; and after a
    fit `training`, its `TrainingResult`.
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
        hidden: UserItems
        shared: bool
        counts: Rows
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
        """Return a recommender over a state that is at hand."""
        recommender = cls()
        recommender.state = state
        return recommender

    def __getattr__(self, name: str) -> Any:
        """Read through to the state; say what to do where there is none yet."""
        if name == "state" or name == "training" or hasattr(FittedState, name) or name in _FIELDS:
            if "state" not in vars(self):
                raise NotFitted(
                    "this Recommender knows nothing yet: call fit(ratings), or use Recommender.load(folder)"
                )
            if name != "training":
                return getattr(self.state, name)
        raise AttributeError(f"Recommender has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse to lay something over a field of the state, which answers would not see."""
        if name in _FIELDS:
            raise AttributeError(f"{name} belongs to the state: recommender.state = recommender.state.but({name}=…)")
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
        """Train on ratings; without `validate` for all epochs of the settings, or for `epochs` of them.

        items: what is known of the items: `item_id`, `title`, … held_out: ratings kept back for test, of the same
        vocabularies; `recommend(hide_test=True)` leaves them out. min_rating: only ratings from here on are positives;
        all are hidden. validate, monitor, tracker: as in `training.trainer.fit`; `self.training` is what it came to.
        item_features: what `encode_items` made of the item table, where it is at hand already.
        warm_start: a model to begin from, with settings as `warm_start.warm_start_configs()` gives them: its users and
        items begin with their vectors, new users with their fold-in, and new items anew.
        """
        from recsys_embed.training.fit import fit_state

        self.state, self.training = fit_state(
            ratings, self.configs, items, held_out=held_out, min_rating=min_rating, validate=validate, monitor=monitor,
            epochs=epochs, tracker=tracker, item_features=item_features,
            warm_start=None if warm_start is None else warm_start.state,
        )  # fmt: skip
        return self

    def warm_start_configs(self, **given: Any) -> tuple[ModelConfig, TrainConfig]:
        """Return the settings of a training that begins from this model; settings that are given win.

        `Recommender(*model.warm_start_configs()).fit(ratings, warm_start=model)`: its own settings, with a quarter of
        the epochs and of the learning rate.
        """
        from recsys_embed.training.continue_from import warm_start_configs

        return warm_start_configs(self.metadata, **given)

    def save(self, folder: str | Path) -> Path:
        """Write the model to a folder, whole or not at all, and return it. See docs/bundle.md."""
        return save_state(self.state, Path(folder))

    @classmethod
    def load(cls, folder: str | Path, *, mmap: bool = False) -> Recommender:
        """Read a model from its folder; every byte is compared with the manifest. Raises BundleError.

        mmap: vectors stay in their files, mapped into memory, which several processes then share.
        """
        return cls.of(load_state(Path(folder), mmap))

    def card(self) -> str:
        """Return the model card, in Markdown."""
        return model_card(self.state)

    def use_index(self, index: IndexName) -> Recommender:
        """Rank all items ("exact", as at first), or promising candidates alone ("approximate").

        The approximate index is built at once, in seconds for a million items, and again whenever the items change. Its
        recall of the exact lists is measured on a sample of the users and logged (`index.measured_recall`). Boosted
        lists stay exact. Returns this recommender. Raises SettingError for another name, and without faiss, which an MLP
        scorer does not need: its candidates come from a dot product that is nearly its score.
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
        """Return the k best items of one user, of several, or of all (when none are named), as one long table.

        Columns: user_id, item_id, title, score, rank (from 1). Every user gets exactly min(k, items left) rows.
        include_seen: rank what the model was fitted on too, but for a node itself. hide_test: leave out held-out
            ratings as well.
        candidates: item ids to choose from; exclude: item ids to leave out. rules: what else may be shown, and boosted.
        Raises UnknownId for users and items that are not known.
        """
        rows = np.arange(len(self.users)) if isinstance(users, AllUsers) else rows_of(self.users, users)
        request = RecommendRequest(
            k=k, candidates=candidates, exclude=exclude, include_seen=include_seen, hide_test=hide_test, rules=rules
        )
        return pl.concat(iter_recommendations(self.state, rows, request))

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
        """Return the k best items for a new user, from what they like, dislike and rated.

        Columns: item_id, title, score, rank (from 1); min(k, items left) rows, the given items not among them.
        likes, dislikes: item ids, in any order; duplicates count once. ratings: by item id.
            Without any of these the user is anonymous: items go by popularity, and a score is the logarithm of one more
            than their number of ratings, as a softmax over biases would have it.
        candidates, exclude, rules: as in `recommend`. Raises UnknownId for items that are not known.
        """
        liked, disliked = (list(one_or_more(self.items, ids)) for ids in (likes, dislikes))
        request = RecommendRequest(
            likes=liked, dislikes=disliked, ratings=ratings or {}, k=k, candidates=candidates, exclude=exclude,
            rules=rules,
        )  # fmt: skip
        found = recommend(self.state, request)
        return as_table(self.state, found.scores[None], found.rows[None])

    def user_vector(self, likes: Id | Iterable[Id]) -> Floats:
        """Return the vector [dim] of a new user who likes these items; no bias is in it. Raises UnknownId."""
        vector = profile_of(self.state, likes=one_or_more(self.items, likes)).vector
        return np.zeros(self.model.dim, np.float32) if vector is None else vector

    def similar(self, items: Id | Iterable[Id], k: int = 10) -> pl.DataFrame:
        """Return the k items with the greatest cosine to an item, or to each of several.

        Columns: of, item_id, title, score (the cosine), rank. Biases take no part, nor does the item itself.
        """
        return about_items.similar(self.state, items, k)

    def search(self, query: str | None = None, k: int = 10, *, image: str | Path | None = None) -> pl.DataFrame:
        """Return the k items nearest to a text, to a picture, or to both (`ContentModel.similarity`).

        Columns: item_id, title, score, rank. Raises SettingError for a model that was trained without descriptions,
        and UnknownId where it knows nothing of the query.
        """
        return about_items.search(self.state, query, k, image)

    def nearest_tokens(self, item: Id, k: int = 10) -> pl.DataFrame:
        """Return the k words and tags nearest to an item, by cosine in the items' space: column, token, score, rank."""
        return about_items.nearest_tokens(self.state, item, k)

    def find_item(self, text: Id) -> Id:
        """Return the id of the item with this id or title. Raises UnknownId, with what may be meant."""
        return about_items.find_item(self.state, text)

    def predict(self, users: Id | Iterable[Id], items: Id | Iterable[Id]) -> Floats:
        """Return what each user is expected to make of the item beside it, float32 [n].

        Stars within the scale of the ratings for squared error, a probability for the logistic loss, and a score
        without a unit for ranking losses: higher is better, for one user at a time.
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
        """Say why an item is for a user, or (user None) for a new user who likes some items; see `Explanation`.

        item: an id. k: how many of the user's items are named. dislikes, ratings: as in `recommend_for`.
        Raises UnknownId.
        """
        check_k(k)
        liked, disliked = (one_or_more(self.items, ids) for ids in (likes, dislikes))
        return explain(self.state, profile_of(self.state, user, liked, disliked, ratings), self.items.row(item), k)

    def reasons(self, user: Id, items: Sequence[Id], k: int = 2) -> list[list[Id]]:
        """Return, for each item, the k items of a user's history that are nearest to it by cosine."""
        return self._nearest(self.seen[self.users.row(user)], items, k)

    def reasons_for(self, likes: Id | Iterable[Id], items: Sequence[Id], k: int = 2) -> list[list[Id]]:
        """Return, for each item, the k items among those that a new user likes that are nearest to it by cosine."""
        return self._nearest(np.unique(rows_of(self.items, likes)), items, k)

    def _nearest(self, history: Rows, items: Sequence[Id], k: int) -> list[list[Id]]:
        return [self.items.ids(rows).to_list() for rows in nearest_in(self.state, history, self.items.rows(items), k)]

    def update(self, ratings: Ratings | pl.DataFrame | pd.DataFrame) -> Recommender:
        """Take in new ratings without training: new users become users of the model, and known ones are updated.

        ratings: Ratings, or a frame with a user, an item, and where it has one a rating column; ids as in training.
        Rated items are in no list of the user any more. Ratings of unknown items are left out and counted in a warning;
        those that the model was fitted on change nothing. A rating below the --min-rating of the training hides the
        item and does nothing else. Updating one by one equals updating all at once.
        Returns this recommender. Raises SettingError for the nodes of a graph, DataError for what are no ratings.
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
        """Make new items known, without training: they get the vectors that their descriptions predict.

        table: `item_id`, `title` and the columns that the model was trained with, as far as they are known.
        item_vectors: file of their ready-made vectors; images: folder of their pictures, for models of such.
        Returns this recommender. Raises SettingError for a model without descriptions, DataError for ids that are
        known already or duplicated.
        """
        self.state = add_items(self.state, as_polars(table), item_vectors, images)
        return self


_FIELDS = frozenset(FittedState.__dataclass_fields__)
