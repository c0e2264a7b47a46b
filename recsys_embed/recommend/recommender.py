"""Recommender: a trained model with its vocabularies. It answers in outside ids."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.config import NO_RULES, ContentConfig, IndexName, ModelConfig, Rules, TrainConfig, settings
from recsys_embed.content.items import Descriptions, describe_items
from recsys_embed.errors import DataError, NotFitted, SettingError, UnknownId
from recsys_embed.model.plain import PlainModel
from recsys_embed.ratings.checks import check_trainable
from recsys_embed.ratings.order import pair_keys
from recsys_embed.ratings.table import Ratings, Seen, as_polars
from recsys_embed.ratings.vocab import Id, Rows, Vocab
from recsys_embed.recipes import Size, recipe
from recsys_embed.recommend import store
from recsys_embed.recommend.approximate import ApproximateIndex
from recsys_embed.recommend.continued import configs, going_on, went_on
from recsys_embed.recommend.described import Described
from recsys_embed.recommend.explain import Explanation, Tokens, explain_for, nearest_own
from recsys_embed.recommend.fold_in import Fold, fold_of
from recsys_embed.recommend.index import CosineIndex, ExactIndex, Index, at_once, top
from recsys_embed.recommend.lists import check_k, list_for, lists, ranking
from recsys_embed.recommend.person import somebody
from recsys_embed.recommend.rules import Prepared, ready
from recsys_embed.recommend.tables import aligned
from recsys_embed.recommend.titles import find_item

if TYPE_CHECKING:
    import pandas as pd

    from recsys_embed.track.tracker import Tracker
    from recsys_embed.train.loop import Fitted

log = logging.getLogger("recsys_embed")

# Users whose lists an approximate index is measured on.
_MEASURED = 300


class Everybody:
    """Stands for all users of a model."""

    def __repr__(self) -> str:
        return "EVERYBODY"


EVERYBODY = Everybody()


class Recommender:
    """Fit on ratings, or load from a folder; then recommend, similar, predict, save.

    Attributes, once fitted or loaded: `users`, `items` (Vocab); `table`, one row an item (item_id, title, …);
    `plain` (PlainModel); `seen` and `held`, what each user's model was fitted on and what was held out (Seen);
    `counts`, ratings of each item; `facts`, a dict of settings and metrics that is saved with the model; `per_user`,
    every user's metrics in the test of a training (user_id, ndcg_at_10, …), or None without one; `made_of`, the items
    that users made of their histories are the sum of, or None where that is what was `seen`.
    """

    users: Vocab
    items: Vocab
    table: pl.DataFrame
    plain: PlainModel
    seen: Seen
    held: Seen
    counts: Rows
    facts: dict[str, Any]
    per_user: pl.DataFrame | None = None
    made_of: Seen | None = None
    _described: Described | None = None
    _folder: Path | None = None
    _index: IndexName = "exact"
    _promising: ApproximateIndex | None = None

    def __init__(
        self,
        model: ModelConfig | None = None,
        train: TrainConfig | None = None,
        content: ContentConfig | None = None,
    ) -> None:
        self.model, self.train = model or ModelConfig(), train or TrainConfig()
        self.content = content or ContentConfig()

    def fit(
        self,
        ratings: Ratings,
        items: pl.DataFrame | pd.DataFrame | None = None,
        *,
        held: Ratings | None = None,
        min_rating: float | None = None,
        validate: Callable[[PlainModel], dict[str, float]] | None = None,
        better: tuple[str, int] = ("ndcg_at_10", 1),
        epochs: int | None = None,
        tracker: Tracker | None = None,
        descriptions: Descriptions | None = None,
        start: Recommender | None = None,
    ) -> Recommender:
        """Train on ratings; without `validate` for all epochs of the settings, or for `epochs` of them.

        items: what is known of the items: `item_id`, `title`, … held: ratings that were held out, of the same
        vocabularies; `recommend(hide_held=True)` hides them. min_rating: only ratings from here on are positives;
        all are hidden. validate, better, tracker: as in `train.loop.fit`; what it came to is in `self.fitted`.
        descriptions: what `describe_items` made of the item table, where it is at hand already.
        start: a model to go on from, with settings as `start.configs()` has them: whom and what it knows begins with
        its vectors, new users with those that it makes of their ratings, and new items anew.
        """
        if not isinstance(ratings, Ratings):
            raise DataError(f"fit takes Ratings, not a {type(ratings).__name__}: Ratings.from_frame(frame) makes them")
        from recsys_embed.model.model import build
        from recsys_embed.train.gibbs import fit_gibbs
        from recsys_embed.train.loop import choose_device, fit

        size = Size(len(ratings.users), len(ratings.items), len(ratings), ratings.shared)
        model, train = recipe(self.model, self.train, size, self.content.any)
        device, _ = choose_device(train.device)
        train = replace(train, device=device)
        # A model of stars learns from all of them; for the others, a rating below the threshold is no positive.
        positives = ratings if train.loss == "mse" else ratings.positives(min_rating)
        check_trainable(positives)
        begin = None if start is None else going_on(start, model, train, ratings, self.content.any)
        table = aligned(items, ratings.items)
        if self.content.any and descriptions is None:
            descriptions = describe_items(table, self.content)
        self.fitted: Fitted
        if train.method == "gibbs":
            self.fitted = fit_gibbs(positives, model.dim or 1, train, tracker, validate, epochs)
        else:
            history = positives.seen(), train.history_dropout
            net = build(
                model, size.users, size.items, train.seed, descriptions, self.content, history, shared=size.shared
            )
            self.fitted = fit(net, positives, train, tracker, validate, better, epochs, begin)
        self._forget()
        self._described = self._folder = self.per_user = None
        if descriptions is not None:
            self._described = Described.of(descriptions, self.fitted.model, self.content.image_size)
        self.users, self.items, self.plain = ratings.users, ratings.items, self.fitted.model
        self.seen, self.counts = ratings.seen(), positives.counts
        fewer = self.plain.history is not None and len(positives) < len(ratings)
        self.made_of = positives.seen() if fewer else None
        self.held = held.seen() if held is not None else Seen.nothing(len(ratings.users))
        self.table = table if descriptions is None else table.with_columns(known_words=descriptions.coverage)
        chosen = settings(model, train, self.content) | {"min_rating": min_rating}
        self.facts = {"settings": chosen, "epochs": self.fitted.epochs, "metrics": {}}
        if start is not None:
            self.facts["continued"] = went_on(start, ratings)
        return self

    def configs(self, **given: Any) -> tuple[ModelConfig, TrainConfig]:
        """Return the settings of a training that goes on from this model; settings that are given win.

        `Recommender(*model.configs()).fit(ratings, start=model)`: its own ones, with a quarter of the epochs and of
        the learning rate.
        """
        return configs(self.facts, **given)

    def _forget(self) -> None:
        """Drop what was made of the vectors before."""
        for kept in ("index", "hidden", "popular", "item_ids", "titles", "tokens", "fold", "prepared", "near"):
            vars(self).pop(kept, None)

    def __getattr__(self, name: str) -> Any:
        """Say what to do where an answer is asked of what was neither fitted nor loaded."""
        if name in type(self).__annotations__ or name == "fitted":
            raise NotFitted("this Recommender knows nothing yet: call fit(ratings), or use Recommender.load(folder)")
        raise AttributeError(f"Recommender has no attribute {name!r}")

    def __repr__(self) -> str:
        if "plain" not in vars(self):
            return "Recommender(not fitted)"
        if self.shared:
            return f"Recommender({len(self.users):,} nodes, vectors of {self.plain.dim})"
        return f"Recommender({len(self.users):,} users, {len(self.items):,} items, vectors of {self.plain.dim})"

    @cached_property
    def index(self) -> Index:
        """The items, ready to be ranked."""
        return ExactIndex.of(self.plain) if self._index == "exact" else self._approximate()

    def use_index(self, index: IndexName) -> Recommender:
        """Rank by all items ("exact", as it is from the start), or by promising ones alone ("approximate").

        The approximate index is made at once, in seconds for a million items, and again whenever the items change;
        what it finds of the exact lists is measured on a sample of the users, logged, and stands in `index.found`.
        Boosted lists stay exact. Returns this recommender. Raises SettingError for another name, and without faiss,
        which an MLP scorer does not need: its candidates come from a dot product that is nearly its score.
        """
        if index not in get_args(IndexName):
            raise SettingError(f"index must be one of {', '.join(get_args(IndexName))}, got {index!r}")
        self._index = index
        vars(self).pop("index", None)
        if index == "exact":
            self._promising = None
        else:
            vars(self)["index"] = self._approximate()
        return self

    def _approximate(self) -> ApproximateIndex:
        made = self._promising.of_same_items(self.plain) if self._promising else None
        if made is None:
            users = np.random.default_rng(0).permutation(len(self.users))[:_MEASURED]
            made = ApproximateIndex.of(self.plain, self.plain.queries(users), self.hidden.of_users(users))
        self._promising = made
        return made

    @cached_property
    def prepared(self) -> Prepared:
        """The rules that were asked for lately, ready for these items."""
        return Prepared(self)

    @property
    def shared(self) -> bool:
        """Whether users and items are one vocabulary: the nodes of a graph."""
        return self.users is self.items

    @cached_property
    def hidden(self) -> Seen:
        """What stands in no list of a user: what the model was fitted on; of a node, itself too."""
        return self.seen.with_own() if self.shared else self.seen

    def history_of(self, row: int) -> Rows:
        """Return the item rows of which a user of the model is made, ascending."""
        return (self.seen if self.made_of is None else self.made_of)[row]

    @property
    def described(self) -> Described | None:
        """What makes vectors of descriptions, or None where the model was trained without them."""
        if self._described is None and self._folder is not None:
            self._described = Described.read(self._folder)
        return self._described

    def recommend(
        self,
        users: Id | Iterable[Id] | Everybody = EVERYBODY,
        k: int = 10,
        *,
        include_seen: bool = False,
        hide_held: bool = False,
        among: Sequence[Id] | None = None,
        exclude: Sequence[Id] = (),
        rules: Rules = NO_RULES,
    ) -> pl.DataFrame:
        """Return the k best items of one user, of several, or of all (when none are named), as one long table.

        Columns: user_id, item_id, title, score, rank (from 1). Every user gets exactly min(k, items left) rows.
        include_seen: rank what the model was fitted on too, but for a node itself. hide_held: leave out held-out
            ratings as well.
        among: item ids to choose from; exclude: item ids to leave out. rules: what else may be shown, and boosted.
        Raises UnknownId for users and items that are not known.
        """
        rows = np.arange(len(self.users)) if isinstance(users, Everybody) else self._rows(self.users, users)
        frames = list(self.blocks(rows, k, include_seen, hide_held, among, exclude, rules))
        return pl.concat(frames)

    def blocks(
        self,
        users: Rows,
        k: int = 10,
        include_seen: bool = False,
        hide_held: bool = False,
        among: Sequence[Id] | None = None,
        exclude: Sequence[Id] = (),
        rules: Rules = NO_RULES,
    ) -> Iterator[pl.DataFrame]:
        """Yield the tables of `recommend` for user rows, a block of users at a time, so that memory stays bounded."""
        check_k(k)
        shown = ready(self, rules, among, exclude)
        index, hidden = ranking(self, shown), self.hidden
        if include_seen:
            hidden = Seen.nothing(len(self.users))
            hidden = hidden.with_own() if self.shared else hidden
        if hide_held:
            hidden = hidden.union(self.held)
        step = at_once(len(self.items))
        for start in range(0, max(1, len(users)), step):
            block = users[start : start + step]
            scores, items = lists(index, self.plain.queries(block), k, shown, hidden.of_users(block))
            yield self._listed(scores, items, user_id=self.users.ids(block))

    def recommend_for(
        self,
        items: Id | Iterable[Id] = (),
        k: int = 10,
        *,
        dislikes: Id | Iterable[Id] = (),
        ratings: Mapping[Id, float] | None = None,
        among: Sequence[Id] | None = None,
        exclude: Sequence[Id] = (),
        rules: Rules = NO_RULES,
    ) -> pl.DataFrame:
        """Return the k best items for somebody the model does not know, from what they like, dislike and rated.

        Columns: item_id, title, score, rank (from 1); min(k, items left) rows, the given items not among them.
        items, dislikes: item ids, in any order; what stands twice counts once. ratings: stars, by item id.
            Without any of these, the items with most ratings come first, and a score is the logarithm of one more than
            their number, as a softmax over biases would have it.
        among: item ids to choose from; exclude: item ids to leave out too. rules: what else may be shown.
        Raises UnknownId for items that are not known.
        """
        check_k(k)
        likes, dislikes = (_listed_ids(self.items, ids) for ids in (items, dislikes))
        person = somebody(self, likes=likes, dislikes=dislikes, ratings=ratings)
        hidden = np.union1d(person.own, person.disliked)
        rows, scores, _ = list_for(self, person, k, ready(self, rules, among, exclude), hidden)
        return self._listed(scores[None], rows[None])

    def vector_of(self, items: Id | Iterable[Id]) -> Floats:
        """Return the vector [dim] of somebody the model does not know, from items that they like; no bias is in it.

        Raises UnknownId for items that are not known.
        """
        vector = somebody(self, likes=_listed_ids(self.items, items)).vector
        return np.zeros(self.plain.dim, np.float32) if vector is None else vector

    @cached_property
    def fold(self) -> Fold:
        """What makes vectors of people from what they say of items."""
        return fold_of(self.plain, self.counts, self.seen)

    @property
    def least(self) -> float | None:
        """The rating from which on the training took ratings for positives, or None: all of them."""
        least: float | None = self.facts.get("settings", {}).get("min_rating")
        return None if self.plain.link == "stars" else least

    @cached_property
    def popular(self) -> ExactIndex:
        """The items by their numbers of ratings, for somebody nothing is known of; ask it with ones [b, 1]."""
        return ExactIndex(np.log1p(self.counts, dtype=np.float32)[:, None])

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
    def tokens(self) -> Tokens:
        """The items' tags and words, for reasons."""
        return Tokens.of(self)

    def similar(self, items: Id | Iterable[Id], k: int = 10) -> pl.DataFrame:
        """Return the k items whose vectors point most nearly the way of an item's (or of each of several).

        Columns: of, item_id, title, score (the cosine), rank. Biases take no part, nor does the item itself.
        """
        check_k(k)
        rows = self._rows(self.items, items)
        scores, found = self.near.neighbours(rows, k)
        return self._listed(scores, found, of=self.items.ids(rows))

    def search(self, query: str | None = None, k: int = 10, *, image: str | Path | None = None) -> pl.DataFrame:
        """Return the k items nearest to a text, to a picture, or to both together; see `Described.likeness`.

        Columns: item_id, title, score, rank. Raises SettingError where the model was trained without descriptions,
        and UnknownId where it knows nothing of what is asked.
        """
        check_k(k)
        described = self.need_described()
        if not query and image is None:
            raise SettingError("search needs a text or a picture")
        near = described.likeness(query, None if image is None else Path(image), self.plain.items)
        scores, rows = top(near[None], min(k, len(near)))
        return self._listed(scores, rows)

    def words_near(self, item: Id, k: int = 10) -> pl.DataFrame:
        """Return the k words and tags nearest to an item, by cosine in the items' space: column, token, score, rank."""
        check_k(k)
        return self.need_described().words_near(self.plain.items[int(self._rows(self.items, item)[0])], k)

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
        known already or stand twice.
        """
        from recsys_embed.recommend.new_items import add_items

        return add_items(self, as_polars(table), item_vectors, images)

    def update(self, ratings: Ratings | pl.DataFrame | pd.DataFrame) -> Recommender:
        """Take in new ratings without training: new users become users of the model, and known ones move.

        ratings: Ratings, or a frame with a user, an item, and where it has one a rating column; ids as in training.
        What is rated stands in no list of theirs any more. Ratings of items that are not known are left out and counted
        in a warning; those that the model was fitted on change nothing. A rating below the --min-rating of the training
        is hidden and moves nobody. In one go or one by one comes to the same.
        Returns this recommender. Raises SettingError for the nodes of a graph, DataError for ratings that are none.
        """
        from recsys_embed.recommend.update import update

        return update(self, ratings)

    def need_described(self) -> Described:
        """Return `described`. Raises SettingError where the model was trained without."""
        if self.described is None:
            raise SettingError(
                "this model was trained without descriptions of its items: train one with --text title,genres,…"
            )
        return self.described

    def knows(self, ratings: Ratings) -> NDArray[np.bool_]:
        """Return which ratings the model was fitted on, or told of since, bool [n]."""
        users, items = (
            own.rows(theirs.series, missing="negative")
            for own, theirs in ((self.users, ratings.users), (self.items, ratings.items))
        )
        user, item, width = users[ratings.user], items[ratings.item], len(self.items)
        seen = pair_keys(*self.seen.of_users(np.arange(len(self.users))), width)
        return (user >= 0) & (item >= 0) & np.isin(pair_keys(user, item, width), seen)

    def predict(self, users: Id | Iterable[Id], items: Id | Iterable[Id]) -> NDArray[np.float32]:
        """Return what each user is expected to make of the item beside it, float32 [n].

        Stars within the scale of the ratings for squared error, a chance for the logistic loss, and a score
        without a unit for ranking losses: higher is better, for one user at a time.
        """
        rows = self._rows(self.users, users), self._rows(self.items, items)
        if len(rows[0]) != len(rows[1]):
            raise SettingError(f"predict takes one item for each user; it was given {len(rows[0])} and {len(rows[1])}")
        return self.plain.predict(*rows)

    def find_item(self, text: Id) -> Id:
        """Return the id of the item with this id or title; see `titles.find_item`."""
        if not isinstance(text, int | str | np.integer):
            raise UnknownId(f"{text!r} names no item: an id or a title is needed")
        found: Id = self.items.ids([find_item(str(text), self.items, self.table["title"])])[0]
        return found

    def explain(
        self,
        user: Id | None,
        item: Id,
        n: int = 5,
        *,
        likes: Id | Iterable[Id] = (),
        dislikes: Id | Iterable[Id] = (),
        ratings: Mapping[Id, float] | None = None,
    ) -> Explanation:
        """Say why an item is for a user, or (user None) for somebody new who likes some items; see `Explanation`.

        item: an id. n: how many items of theirs are named. dislikes, ratings: as in `recommend_for`. Raises UnknownId.
        """
        check_k(n)
        liked, disliked = (_listed_ids(self.items, ids) for ids in (likes, dislikes))
        return explain_for(self, somebody(self, user, liked, disliked, ratings), self.items.row(item), n)

    def reasons(self, user: Id, items: Sequence[Id], n: int = 2) -> list[list[Id]]:
        """Return, for each item, the n nearest items by cosine that the user has seen."""
        return self._nearest(self.seen[int(self.users.rows([user])[0])], items, n)

    def reasons_for(self, likes: Id | Iterable[Id], items: Sequence[Id], n: int = 2) -> list[list[Id]]:
        """Return, for each item, the n nearest by cosine among the items that somebody likes."""
        return self._nearest(np.unique(self._rows(self.items, likes)), items, n)

    def _nearest(self, own: Rows, items: Sequence[Id], n: int) -> list[list[Id]]:
        return [self.items.ids(rows).to_list() for rows in self.near_own(own, self.items.rows(items), n)]

    def near_own(self, own: Rows, rows: Rows, n: int = 2) -> list[list[int]]:
        """Return, for each item row, the n of somebody's own rows that are nearest to it by cosine."""
        if not len(own) or not len(rows):
            return [[] for _ in rows]
        near: list[list[int]] = own[nearest_own(self.plain.items, own, rows, n)[1]].tolist()
        return near

    def save(self, folder: str | Path) -> Path:
        """Write the model to a folder, whole or not at all, and return it. See `docs/bundle.md`."""
        return store.write(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path, *, mmap: bool = False) -> Recommender:
        """Read a model from its folder; every byte is compared with the manifest. Raises BundleError.

        mmap: vectors stay in their files, mapped into memory, which several processes then share.
        """
        return store.read(cls(), Path(folder), mmap)

    def card(self) -> str:
        """Return the model card, in Markdown."""
        return store.card(self)

    @cached_property
    def near(self) -> CosineIndex:
        """The items by the cosine of their vectors; biases take no part."""
        return CosineIndex(self.plain.items)

    def _listed(self, scores: Floats, rows: Rows, **whose: pl.Series) -> pl.DataFrame:
        """Return lists as one long table: scores and item rows [b, k], best first; row -1 is none.

        whose: a column, by its name, of whose lists they are: [b] ids.
        """
        which, rank = np.nonzero(rows >= 0)
        found = rows[rows >= 0]
        return pl.DataFrame(
            {
                **{name: ids.gather(which) for name, ids in whose.items()},
                "item_id": self.items.ids(found),
                "title": self.table["title"].gather(found),
                "score": scores[rows >= 0],
                "rank": rank + 1,
            }
        )

    def _rows(self, vocab: Vocab, ids: Id | Iterable[Id]) -> Rows:
        return vocab.rows(_listed_ids(vocab, ids))


def _listed_ids(vocab: Vocab, ids: Id | Iterable[Id]) -> Iterable[Id]:
    """Return one id or several as several."""
    if isinstance(ids, int | str | np.integer):
        return [ids]
    if isinstance(ids, bytes | Mapping) or not isinstance(ids, Iterable):
        raise UnknownId(f"{ids!r} names no {vocab.name}: ids are integers or text, one or a list of them")
    return ids
