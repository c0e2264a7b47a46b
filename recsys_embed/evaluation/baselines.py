"""Baselines that a model has to beat. They are fitted on the same rows and tuned on the validation split."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import NamedTuple

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.data.ratings import Ratings
from recsys_embed.evaluation.cold_start import cold_only_metrics
from recsys_embed.evaluation.evaluate import rank_metrics
from recsys_embed.features.encoder import Features
from recsys_embed.models.content_ridge import ContentRidge, content_neighbours, random_ranker
from recsys_embed.models.ease import EASE_MAX_ITEMS, Ease
from recsys_embed.models.popularity import popularity, recent_popularity
from recsys_embed.models.ranker import Ranker

log = logging.getLogger("recsys_embed")

# Regularization of EASE if there are no validation ratings.
_EASE_DEFAULT = 300.0
# Most validation users that settings of baselines are chosen on.
_CHOICE_USERS = 2000
# Shares of the newest ratings that recent popularity may be, chosen on validation data.
_RECENT_SHARES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)


class SplitPositives(NamedTuple):
    """Positives that baselines are tuned with (train, valid) and fitted on (fitted: both, after a refit)."""

    train: Ratings
    valid: Ratings
    fitted: Ratings


def baselines(splits: SplitPositives) -> Iterator[tuple[str, Ranker]]:
    """Yield popularity, recent popularity if ratings have times, and EASE if there are not too many items."""
    yield "popularity", popularity(splits.fitted)
    if splits.fitted.time is not None:
        yield "recent_popularity", recent_popularity(splits.fitted, choose_recent_share(splits.train, splits.valid))
    if len(splits.fitted.items) <= EASE_MAX_ITEMS:
        regularization = _EASE_DEFAULT
        if len(splits.valid):
            regularization = choose_ease(Ease(splits.train), splits.train, splits.valid)
        yield "ease", Ease(splits.fitted).fit(regularization)
    else:
        log.info("EASE was skipped: %s items are too many for its closed form", f"{len(splits.fitted.items):,}")


def choose_recent_share(train: Ratings, valid: Ratings) -> float:
    """Return the share of the newest ratings that are the best popularity on validation ratings, or .1 without any."""
    if not len(valid):
        return 0.1
    valid, seen = valid.of_random_users(_CHOICE_USERS), train.excluded()

    def quality(share: float) -> float:
        ranker = recent_popularity(train, share)
        return rank_metrics(ranker, valid, seen, train.item_counts, (10,)).metrics["ndcg_at_10"]

    return max(_RECENT_SHARES, key=quality)


def choose_ease(ease: Ease, train: Ratings, valid: Ratings, users: int = _CHOICE_USERS) -> float:
    """Return the regularization of EASE with the best NDCG@10 on the validation ratings of at most `users` users."""
    valid, seen = valid.of_random_users(users), train.excluded()
    return ease.tune_regularization(
        lambda ranker: rank_metrics(ranker, valid, seen, train.item_counts, (10,)).metrics["ndcg_at_10"]
    )


def choose_content_ridge(ridge: ContentRidge, valid: Ratings, counts: Rows) -> float:
    """Return the regularization with the best NDCG@10 among the cold items of the validation ratings."""
    return ridge.tune_regularization(lambda ranker: cold_only_metrics(ranker, valid, counts)["ndcg_at_10"])


def cold_baselines(
    features: Features | None, splits: SplitPositives, words: Floats | None = None
) -> Iterator[tuple[str, Ranker]]:
    """Yield baselines for cold items, by name.

    features: the same item features that the model has, except images. splits: the regularization is chosen on `valid`
    for a fit on `train`; the rankings are fitted on `fitted`. words: mean word vectors, [items, f].
    """
    train, valid, fitted = splits
    yield "random", random_ranker(len(fitted.items))
    if features is None or not (features.bag.nnz or features.dense.any()):
        return
    regularization = 3.0
    if len(valid):
        regularization = choose_content_ridge(ContentRidge(features, train), valid, train.item_counts)
    ridge = ContentRidge(features, fitted)
    yield "content_mean", ridge.mean(regularization)
    if words is not None:
        yield "word_neighbours", content_neighbours(words, fitted)
    yield "content_ridge", ridge.fit(regularization)
