"""The report of a training: the test set, its liked and its cold part, and baselines on the same rows."""

from __future__ import annotations

from typing import Any, NamedTuple

from recsys_embed.config.settings import DataConfig, RunConfig
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.splits import Split
from recsys_embed.evaluation.baselines import SplitPositives, baselines, cold_baselines
from recsys_embed.evaluation.cold_start import cold_metrics
from recsys_embed.evaluation.evaluate import Report, Target, rank_metrics, rank_metrics_of, with_errors
from recsys_embed.evaluation.significance import paired
from recsys_embed.features.item_features import ItemFeatures
from recsys_embed.models.item_item import EASE_ITEMS
from recsys_embed.models.ranker import Ranker
from recsys_embed.state.fitted import FittedState

# What counts as liked, as a share of the highest rating: 4 of 5.
_LIKED_SHARE = 0.8


def evaluate_on(state: FittedState, positives: Ratings, run: RunConfig, rows: Ratings) -> Report:
    """Measure the lists against positives and, for a model of stars, its errors over all rows."""
    report = rank_metrics(Ranker.of(state.model), positives, state.hidden, state.counts, run.lengths, run.resamples)
    return _with_errors(report, state, rows)


def _with_errors(report: Report, state: FittedState, rows: Ratings) -> Report:
    return with_errors(report, state.model, rows) if state.model.output == "stars" and len(rows) else report


class TrainingReport(NamedTuple):
    """metrics: {"test", "liked", "baselines"} and, for a cold-items split, "cold", as they are printed and saved.

    A baseline has, beside its means, the "difference" of the model to it: mean, low, high, p, users, clear (`paired`).

    test: the report behind metrics["test"], and popularity: the one of that baseline; None where not measured.
    """

    metrics: dict[str, Any]
    test: Report | None = None
    popularity: Report | None = None


def training_report(
    state: FittedState,
    fitted: Ratings,
    split: Split,
    item_features: ItemFeatures | None,
    data: DataConfig,
    run: RunConfig,
) -> TrainingReport:
    """Measure the test set, the liked part of it for explicit data, and the baselines, fitted on the same rows.

    Every model ranks the items once. fitted: the rows that the model was fitted on. item_features: those that it was
    trained with.
    """
    test = split.test.positives(data.min_rating)
    if not len(test):
        return TrainingReport({"test": None, "liked": None, "baselines": {}})
    splits = SplitPositives(*(part.positives(data.min_rating) for part in (split.train, split.valid, fitted)))
    liked, threshold = _liked(fitted, split.test, data)
    targets = [Target(test, run.lengths, run.resamples)]
    targets += [] if liked is None else [Target(liked, run.lengths, run.resamples)]
    own, *own_liked = rank_metrics_of(Ranker.of(state.model), targets, state.hidden, state.counts)
    own = _with_errors(own, state, split.test)
    result: dict[str, Any] = {"test": own.summary(), "liked": None}
    if own_liked:
        result["liked"] = {"threshold": threshold, **own_liked[0].summary()}
    if data.split == "cold-items":
        result["cold"] = _cold_report(state, test, splits, item_features, run)
    result["baselines"] = {}
    popularity = None
    targets = [Target(test, run.lengths), *([] if liked is None else [Target(liked)])]
    for name, ranker in baselines(splits) if run.baselines else ():
        report, *liked_report = rank_metrics_of(ranker, targets, state.hidden, state.counts)
        result["baselines"][name] = {**report.metrics, **_difference(own, report, run.resamples)}
        if liked_report:
            result["baselines"][name]["liked_ndcg_at_10"] = liked_report[0].metrics["ndcg_at_10"]
        popularity = report if name == "popularity" else popularity
    return TrainingReport(result, own, popularity)


def _liked(fitted: Ratings, test: Ratings, data: DataConfig) -> tuple[Ratings | None, float]:
    """Return the liked part of the test ratings, or None where there is none, and the rating from which it counts."""
    if not fitted.explicit:
        return None, 0.0
    threshold = _LIKED_SHARE * float(fitted.value.max()) if data.liked is None else data.liked
    liked = test.take(test.value >= threshold)
    return (liked if len(liked) else None), threshold


def _difference(own: Report, other: Report, resamples: int) -> dict[str, Any]:
    """Return how far the model is above a baseline, user by user; nothing without resamples, or users.

    Both ranked the same test ratings, so the rows of their users are the same.
    """
    metric = "ndcg_at_10"
    if not resamples or not own.users:
        return {}
    found = paired(own.per_user[metric].to_numpy(), other.per_user[metric].to_numpy(), resamples)
    return {"difference": {"metric": metric, **found.summary()}}


def _cold_report(
    state: FittedState, test: Ratings, splits: SplitPositives, item_features: ItemFeatures | None, run: RunConfig
) -> dict[str, Any]:
    """Measure the items that had no training rating, and the baselines on the same descriptions."""
    on = test, state.hidden, state.counts
    result = cold_metrics(Ranker.of(state.model), *on, run.resamples)
    result["baselines"] = {}
    features = words = None
    if item_features is not None and len(test.items) <= EASE_ITEMS:
        features, encoder = item_features.features, item_features.encoder
        words = None if encoder.words is None else features.dense[:, : encoder.words.dim]
    if run.baselines:
        for name, ranker in cold_baselines(features, splits, words):
            result["baselines"][name] = cold_metrics(ranker, *on)
    return result
