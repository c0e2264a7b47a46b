"""Baselines that a trained model has to beat, fitted on the same rows; what they choose, they choose on validation."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.data.ratings import Ratings
from recsys_embed.evaluation.cold_start import among_cold
from recsys_embed.evaluation.evaluate import rank_metrics
from recsys_embed.features.encoder import Features
from recsys_embed.models.content_ridge import ContentRidge, at_random, content_neighbours
from recsys_embed.models.item_item import EASE_ITEMS, Ease
from recsys_embed.models.popularity import popularity, recent_popularity
from recsys_embed.models.ranker import Ranker

log = logging.getLogger("recsys_embed")

# Regularization of EASE without validation ratings.
_EASE_DEFAULT = 300.0
# Validation users that EASE's regularization is chosen on, at most.
_EASE_USERS = 2000


class SplitPositives(NamedTuple):
    """The positives that baselines choose with (train, valid) and are fitted on (fitted: both after a refit)."""

    train: Ratings
    valid: Ratings
    fitted: Ratings


def baselines(splits: SplitPositives) -> Iterator[tuple[str, Ranker]]:
    """Yield popularity, recent popularity where times are known, and EASE where the items are not too many."""
    yield "popularity", popularity(splits.fitted)
    if splits.fitted.time is not None:
        yield "recent_popularity", recent_popularity(splits.fitted)
    if len(splits.fitted.items) <= EASE_ITEMS:
        regularization = _EASE_DEFAULT
        if len(splits.valid):
            regularization = choose_ease(Ease(splits.train), splits.train, splits.valid)
        yield "ease", Ease(splits.fitted).rank(regularization)
    else:
        log.info("EASE was not measured: %s items are too many for its closed form", f"{len(splits.fitted.items):,}")


def choose_ease(ease: Ease, train: Ratings, valid: Ratings, users: int = _EASE_USERS) -> float:
    """Return EASE's regularization with the best NDCG@10 on validation ratings, of that many users at most."""
    chosen = np.random.default_rng(0).permutation(np.unique(valid.user))[:users]
    valid, seen = valid.take(np.isin(valid.user, chosen)), train.hidden()
    return ease.choose(lambda ranker: rank_metrics(ranker, valid, seen, train.counts, (10,)).metrics["ndcg_at_10"])


def choose_content_ridge(ridge: ContentRidge, valid: Ratings, counts: Rows) -> float:
    """Return the regularization with the best NDCG@10 among the cold items of validation ratings."""
    return ridge.choose(lambda ranker: among_cold(ranker, valid, counts)["ndcg_at_10"])


def cold_baselines(
    features: Features | None, splits: SplitPositives, words: Floats | None = None
) -> Iterator[tuple[str, Ranker]]:
    """Yield what a model of cold items must beat, by name.

    features: the same descriptions that the model has, but for pictures. splits: (train, valid, fitted): the
    regularization is chosen on valid for a fit on train, and the rankings are fitted on `fitted`. words: [items, f],
    mean word vectors.
    """
    train, valid, fitted = splits
    yield "random", at_random(len(fitted.items))
    if features is None or not (features.bag.nnz or features.dense.any()):
        return
    regularization = 3.0
    if len(valid):
        regularization = choose_content_ridge(ContentRidge(features, train), valid, train.counts)
    ridge = ContentRidge(features, fitted)
    yield "content_mean", ridge.mean(regularization)
    if words is not None:
        yield "word_neighbours", content_neighbours(words, fitted)
    yield "content_ridge", ridge.rank(regularization)
