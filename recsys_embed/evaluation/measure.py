"""What a training is measured by: the test set, its liked and its cold part, and baselines on the same rows."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

from recsys_embed.config import DataConfig, RunConfig
from recsys_embed.content.items import Descriptions
from recsys_embed.evaluation import baselines
from recsys_embed.evaluation.cold import cold_baselines, cold_metrics
from recsys_embed.evaluation.paired import paired
from recsys_embed.evaluation.protocol import Ranker, Report, rank_metrics, with_errors
from recsys_embed.ratings.splits import Split
from recsys_embed.ratings.table import Ratings
from recsys_embed.recommend.recommender import Recommender

log = logging.getLogger("recsys_embed")


def report_on(recommender: Recommender, positives: Ratings, run: RunConfig, rows: Ratings) -> Report:
    """Measure the lists against positives and, for a model of stars, its errors over all rows."""
    ranker = Ranker.of(recommender.plain)
    report = rank_metrics(ranker, positives, recommender.hidden, recommender.counts, run.lengths, run.resamples)
    return with_errors(report, recommender.plain, rows) if recommender.plain.link == "stars" and len(rows) else report


class Measured(NamedTuple):
    """metrics: {"test", "liked", "baselines"} and, for a cold-items split, "cold", as they are printed and saved.

    A baseline has, beside its means, the "difference" of the model to it: mean, low, high, p, users, clear (`paired`).

    test: the report behind metrics["test"], and popularity: the one of that baseline; None where not measured.
    """

    metrics: dict[str, Any]
    test: Report | None = None
    popularity: Report | None = None


def measure(
    recommender: Recommender,
    fitted: Ratings,
    split: Split,
    descriptions: Descriptions | None,
    data: DataConfig,
    run: RunConfig,
) -> Measured:
    """Score the test set, once; the liked part of it for explicit data; and the baselines, fitted on the same rows.

    fitted: the rows that the recommender was fitted on. descriptions: those that it was trained with.
    """
    test = split.test.positives(data.min_rating)
    if not len(test):
        return Measured({"test": None, "liked": None, "baselines": {}})
    parts = _Parts(*(part.positives(data.min_rating) for part in (split.train, split.valid, fitted)))
    own = report_on(recommender, test, run, split.test)
    result: dict[str, Any] = {"test": own.summary(), "liked": None}
    liked = None
    if fitted.explicit:
        threshold = 0.8 * float(fitted.value.max()) if data.liked is None else data.liked
        liked = split.test.take(split.test.value >= threshold)
        if len(liked):
            measured = rank_metrics(
                Ranker.of(recommender.plain), liked, recommender.hidden, recommender.counts, run.lengths, run.resamples
            )
            result["liked"] = {"threshold": threshold, **measured.summary()}
    if data.split == "cold-items":
        result["cold"] = _measure_cold(recommender, test, parts, descriptions, run)
    result["baselines"] = {}
    popularity = None
    if run.baselines:
        for name, ranker in _baselines(parts):
            report = rank_metrics(ranker, test, recommender.hidden, recommender.counts, run.lengths)
            result["baselines"][name] = {**report.metrics, **_difference(own, report, run.resamples)}
            popularity = report if name == "popularity" else popularity
            if liked is not None and len(liked):
                part = rank_metrics(ranker, liked, recommender.hidden, recommender.counts, (10,))
                result["baselines"][name]["liked_ndcg_at_10"] = part.metrics["ndcg_at_10"]
    return Measured(result, own, popularity)


def _difference(own: Report, other: Report, resamples: int) -> dict[str, Any]:
    """Return how far the model is above a baseline, user by user; nothing without resamples, or users.

    Both ranked the same test ratings, so the rows of their users are the same.
    """
    metric = "ndcg_at_10"
    if not resamples or not own.users:
        return {}
    found = paired(own.per_user[metric].to_numpy(), other.per_user[metric].to_numpy(), resamples)
    return {"difference": {"metric": metric, **found.summary()}}


class _Parts(NamedTuple):
    """The positives that baselines choose with (train, valid) and are fitted on (fitted: both after a refit)."""

    train: Ratings
    valid: Ratings
    fitted: Ratings


def _measure_cold(
    recommender: Recommender, test: Ratings, parts: _Parts, descriptions: Descriptions | None, run: RunConfig
) -> dict[str, Any]:
    """Score the items that had no training rating, and the baselines on the same descriptions."""
    shared = test, recommender.hidden, recommender.counts
    result = cold_metrics(Ranker.of(recommender.plain), *shared, run.resamples)
    result["baselines"] = {}
    features = words = None
    if descriptions is not None and len(test.items) <= baselines.EASE_ITEMS:
        features, describer = descriptions.features, descriptions.describer
        words = None if describer.words is None else features.dense[:, : describer.words.dim]
    if run.baselines:
        for name, ranker in cold_baselines(features, list(parts), words):
            result["baselines"][name] = cold_metrics(ranker, *shared)
    return result


def _baselines(parts: _Parts) -> Iterator[tuple[str, Ranker]]:
    yield "popularity", baselines.popularity(parts.fitted)
    if parts.fitted.time is not None:
        yield "recent_popularity", baselines.recent_popularity(parts.fitted)
    if len(parts.fitted.items) <= baselines.EASE_ITEMS:
        regularization = 300.0
        if len(parts.valid):
            regularization = baselines.Ease(parts.train).choose(parts.train, parts.valid)
        yield "ease", baselines.Ease(parts.fitted).rank(regularization)
    else:
        log.info("EASE was not measured: %s items are too many for its closed form", f"{len(parts.fitted.items):,}")
