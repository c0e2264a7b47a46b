"""Baselines that a model has to beat. They are fitted on the same rows and tuned on the validation split."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
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
# Memory that EASE takes for each rating.
_EASE_BYTES_A_RATING = 60
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
    """Yield popularity, recent popularity if ratings have times, and EASE if there are not too many items.

    Each takes the weights of the ratings or leaves them, whichever is better on validation data.
    """
    yield "popularity", _best([(popularity, {})], splits)
    if splits.fitted.time is not None:
        windows = [(recent_popularity, {"share": share}) for share in _RECENT_SHARES]
        yield (
            "recent_popularity",
            _best(windows if len(splits.valid) else [(recent_popularity, {"share": 0.1})], splits),
        )
    fitted = splits.fitted
    if len(fitted.items) > EASE_MAX_ITEMS:
        log.info("EASE was skipped: %s items are too many for its closed form", f"{len(fitted.items):,}")
    elif fitted.disk is not None and len(fitted) * _EASE_BYTES_A_RATING > fitted.disk.memory:
        log.info("EASE was skipped: the histories of %s ratings are too long for memory", f"{len(fitted):,}")
    else:
        yield "ease", _best_ease(splits)


def _quality(ranker: Ranker, train: Ratings, valid: Ratings) -> float:
    """Return the NDCG@10 on validation ratings of a ranking that was fitted on training ratings."""
    return rank_metrics(ranker, valid, train.excluded(), train.item_counts, (10,)).metrics["ndcg_at_10"]


def _weightings(rows: Ratings) -> list[Ratings]:
    """Return the rows as they are and, if they have weights, without."""
    return [rows, *([] if rows.weight is None else [replace(rows, weight=None)])]


def _best(candidates: Sequence[tuple[Callable[..., Ranker], dict[str, float]]], splits: SplitPositives) -> Ranker:
    """Return the ranking that is best on validation data, fitted on `fitted`; the first one, with weights if there are
    any, where there is nothing to choose, or to choose by. candidates: functions of ratings, with their options."""
    options = [(make, given, number) for make, given in candidates for number in range(len(_weightings(splits.fitted)))]
    make, given, number = options[0]
    if len(options) > 1 and len(splits.valid):
        valid, trains = splits.valid.of_random_users(_CHOICE_USERS), _weightings(splits.train)
        make, given, number = max(options, key=lambda o: _quality(o[0](trains[o[2]], **o[1]), trains[o[2]], valid))
    return make(_weightings(splits.fitted)[number], **given)


def _best_ease(splits: SplitPositives) -> Ranker:
    """Return EASE with the regularization, and with the weights or without, that are best on validation data."""
    number, regularization = 0, _EASE_DEFAULT
    if len(splits.valid):
        trains, valid = _weightings(splits.train), splits.valid.of_random_users(_CHOICE_USERS)
        found = [_tuned(_ease(train), train, valid) for train in trains]
        number = max(range(len(found)), key=found.__getitem__)
        regularization = found[number][1]
    return _ease(_weightings(splits.fitted)[number]).fit(regularization)


def _ease(rows: Ratings) -> Ease:
    weight = rows.weight
    return Ease(rows, None if weight is None else weight / weight.mean())


def _tuned(ease: Ease, train: Ratings, valid: Ratings) -> tuple[float, float]:
    """Return the best quality of EASE on validation ratings, and the regularization that has it."""
    values = []

    def quality(ranker: Ranker) -> float:
        values.append(_quality(ranker, train, valid))
        return values[-1]

    regularization = ease.tune_regularization(quality)
    return max(values), regularization


def choose_ease(ease: Ease, train: Ratings, valid: Ratings, users: int = _CHOICE_USERS) -> float:
    """Return the regularization of EASE with the best NDCG@10 on the validation ratings of at most `users` users."""
    return _tuned(ease, train, valid.of_random_users(users))[1]


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
