"""The report of a training: test metrics, those of liked and of cold items, and baselines on the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from recsys_embed.config.settings import DataConfig, RunConfig
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.splits import Split
from recsys_embed.evaluation.baselines import SplitPositives, baselines, cold_baselines
from recsys_embed.evaluation.cold_start import cold_metrics
from recsys_embed.evaluation.evaluate import Report, Target, rank_metrics, rank_metrics_of, with_rating_errors
from recsys_embed.evaluation.significance import paired
from recsys_embed.features.item_features import ItemFeatures
from recsys_embed.models.ease import EASE_MAX_ITEMS
from recsys_embed.state.fitted import FittedState

# Most users that are ranked, drawn at random, of a test part and of a validation part. The 95 % interval of an NDCG
# whose standard deviation over users is .2 is then .0018 wide.
_TEST_USERS, _VALIDATION_USERS = 200_000, 50_000
# The threshold for liked ratings, as a share of the highest rating: 4 of 5.
_LIKED_SHARE = 0.8


def evaluate_on(state: FittedState, positives: Ratings, run: RunConfig, rows: Ratings) -> Report:
    """Evaluate lists against the positives of validation, and for a model of "stars" the errors over all rows."""
    positives, drawn_from = _drawn(positives, _VALIDATION_USERS, run)
    report = rank_metrics(state.ranker, positives, state.excluded, state.item_counts, run.lengths, run.resamples)
    return _with_rating_errors(replace(report, drawn_from=drawn_from), state, rows)


def _drawn(positives: Ratings, most: int, run: RunConfig) -> tuple[Ratings, int | None]:
    """Return the ratings of at most `most` users, and the number of users if that is more; all if `run` says so."""
    drawn = positives if run.evaluate_all else positives.of_random_users(most)
    return drawn, None if drawn is positives else len(np.unique(positives.user))


def _with_rating_errors(report: Report, state: FittedState, rows: Ratings) -> Report:
    return with_rating_errors(report, state.model, rows) if state.model.output == "stars" and len(rows) else report


class TrainingReport(NamedTuple):
    """The metrics of a training, as printed and saved.

    metrics: {"test", "liked", "baselines"} and, for a cold-items split, "cold". A baseline has, besides its means, the
    "difference" of the model to it: mean, low, high, p, users, clear (see `significance.paired`), and in the same form
    the "hit_difference", of the share of lists with an item of the test.
    test: the full report behind metrics["test"], or None if not measured. baselines: those of the baselines, by name.
    """

    metrics: dict[str, Any]
    test: Report | None = None
    baselines: Mapping[str, Report] = MappingProxyType({})

    @property
    def popularity(self) -> Report | None:
        """The report of popularity, or None if it was not measured."""
        return self.baselines.get("popularity")


def training_report(
    state: FittedState,
    fitted: Ratings,
    split: Split,
    item_features: ItemFeatures | None,
    data: DataConfig,
    run: RunConfig,
    by_type: Mapping[str, Ratings] = MappingProxyType({}),
) -> TrainingReport:
    """Evaluate a model and the baselines, fitted on the same rows, on the test set.

    For explicit data, its liked part is evaluated too. Every model ranks the items only once. fitted: the rows that the
    model was fitted on. item_features: those that it was trained with. by_type: what is evaluated besides, by the name
    of a type of events.
    """
    test, drawn_from = _drawn(split.test.positives(data.min_rating), _TEST_USERS, run)
    if not len(test):
        return TrainingReport({"test": None, "liked": None, "baselines": {}})
    splits = SplitPositives(*(rows.positives(data.min_rating) for rows in (split.train, split.valid, fitted)))
    rows = split.test if drawn_from is None else split.test.take(np.isin(split.test.user, test.user))
    liked, threshold = _liked(fitted, rows, data)
    typed = {name: _drawn(part, _TEST_USERS, run)[0] for name, part in by_type.items()}
    targets = [Target(test, run.lengths, run.resamples), *(Target(part) for part in typed.values())]
    targets += [] if liked is None else [Target(liked, run.lengths, run.resamples)]
    test_report, *others = rank_metrics_of(state.ranker, targets, state.excluded, state.item_counts)
    of_types, liked_reports = {"this model": others[: len(typed)]}, others[len(typed) :]
    test_report = _with_rating_errors(replace(test_report, drawn_from=drawn_from), state, split.test)
    result: dict[str, Any] = {"test": test_report.summary(), "liked": None}
    if liked_reports:
        result["liked"] = {"threshold": threshold, **liked_reports[0].summary()}
    if data.split == "cold-items":
        result["cold"] = _cold_report(state, test, splits, item_features, run)
    result["baselines"] = {}
    reports = {}
    targets = [Target(part) for part in (*typed.values(), *([] if liked is None else [liked]))]
    for name, ranker in baselines(splits) if run.baselines else ():
        report, *others = rank_metrics_of(
            ranker, [Target(test, run.lengths), *targets], state.excluded, state.item_counts
        )
        of_types[name], liked_reports = others[: len(typed)], others[len(typed) :]
        result["baselines"][name] = {**report.metrics, **_difference(test_report, report, run.resamples)}
        if liked_reports:
            result["baselines"][name]["liked_ndcg_at_10"] = liked_reports[0].metrics["ndcg_at_10"]
        reports[name] = report
    result |= _by_history(state, {"this model": test_report, **reports})
    result |= _by_type(list(typed), of_types)
    return TrainingReport(result, test_report, reports)


def _by_history(state: FittedState, reports: Mapping[str, Report]) -> dict[str, Any]:
    """Return NDCG@10 by name for test users with and without a rating in training, where there are both."""
    users = state.users.rows(reports["this model"].per_user["user_id"])
    known = state.seen.count[users] > 0
    if known.all() or not known.any():
        return {}
    values = {name: report.per_user["ndcg_at_10"].to_numpy() for name, report in reports.items()}
    return {
        name: {"users": int(group.sum()), "ndcg_at_10": {n: float(v[group].mean()) for n, v in values.items()}}
        for name, group in (("known_users", known), ("new_users", ~known))
    }


def _by_type(types: Sequence[str], reports: Mapping[str, Sequence[Report]]) -> dict[str, Any]:
    """Return {"events": NDCG@10 by the name of a type and of a model}, where there are types. reports: of each model,
    one for each type."""
    if not types:
        return {}
    return {
        "events": {
            type_: {
                "users": reports["this model"][n].users,
                "ndcg_at_10": {name: found[n].metrics["ndcg_at_10"] for name, found in reports.items()},
            }
            for n, type_ in enumerate(types)
        }
    }


def _liked(fitted: Ratings, test: Ratings, data: DataConfig) -> tuple[Ratings | None, float]:
    """Return the liked test ratings, or None without any, and the rating from which they count as liked."""
    if not fitted.explicit:
        return None, 0.0
    threshold = _LIKED_SHARE * float(fitted.value.max()) if data.liked is None else data.liked
    liked = test.take(test.value >= threshold)
    return (liked if len(liked) else None), threshold


def _difference(model: Report, baseline: Report, resamples: int) -> dict[str, Any]:
    """Return the paired differences of a model to a baseline, in NDCG and in lists with a hit; nothing without
    resamples or users.

    Both reports are about the same test ratings, so their users are in the same order.
    """
    if not resamples or not model.users:
        return {}
    found = {}
    for key, metric in (("difference", "ndcg_at_10"), ("hit_difference", "hit_at_10")):
        ours, theirs = (report.per_user[metric].to_numpy() for report in (model, baseline))
        found[key] = {"metric": metric, **paired(ours, theirs, resamples).summary()}
    return found


def _cold_report(
    state: FittedState, test: Ratings, splits: SplitPositives, item_features: ItemFeatures | None, run: RunConfig
) -> dict[str, Any]:
    """Evaluate cold items, and baselines that use the same descriptions."""
    target = test, state.excluded, state.item_counts
    result = cold_metrics(state.ranker, *target, run.resamples)
    result["baselines"] = {}
    features = words = None
    if item_features is not None and len(test.items) <= EASE_MAX_ITEMS:
        features, encoder = item_features.features, item_features.encoder
        words = None if encoder.words is None else features.dense[:, : encoder.words.dim]
    if run.baselines:
        for name, ranker in cold_baselines(features, splits, words):
            result["baselines"][name] = cold_metrics(ranker, *target)
    return result
