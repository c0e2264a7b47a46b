"""The evaluation protocol: rank all items, mask seen ones, and include every user with a test rating."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import polars as pl

from recsys_embed.config.settings import RunConfig
from recsys_embed.data.ids import Rows
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.user_items import UserItems
from recsys_embed.errors import DataError
from recsys_embed.evaluation import metrics
from recsys_embed.models.base import ScoringModel
from recsys_embed.models.ranker import Ranker
from recsys_embed.recommender import Recommender


def _aligned(recommender: Recommender, ratings: Ratings) -> tuple[Ratings, Rows]:
    """Map ratings to a recommender's vocabularies; return those of known users and items, and their places, [n]."""
    user = recommender.users.rows(ratings.users.ids(ratings.user), missing="negative")
    item = recommender.items.rows(ratings.items.ids(ratings.item), missing="negative")
    known = np.flatnonzero((user >= 0) & (item >= 0))
    aligned = replace(
        ratings.take(known), users=recommender.users, items=recommender.items, user=user[known], item=item[known]
    )
    return aligned, known


def without_hidden(recommender: Recommender, ratings: Ratings) -> Ratings:
    """Return the ratings without those of items that the user's list leaves out, such as what was bought before."""
    aligned, known = _aligned(recommender, ratings)
    kept = np.ones(len(ratings), bool)
    kept[known] = ~recommender.excluded.contains(aligned.user, aligned.item)
    return ratings.take(kept)


def align_to_model(recommender: Recommender, ratings: Ratings) -> tuple[Ratings, int]:
    """Map ratings to a recommender's vocabularies; return them and the number of rows with an unknown user or item.

    Raises DataError if the recommender was fitted on any of the rows.
    """
    aligned, known = _aligned(recommender, ratings)
    fitted = int(recommender.excluded.contains(aligned.user, aligned.item).sum())
    if fitted:
        raise DataError(
            f"the model was fitted on {fitted:,} of the {len(aligned):,} test ratings: the metrics would be too good; "
            "test it on ratings that were held out of its training"
        )
    return aligned, len(ratings) - len(known)


@dataclass(frozen=True)
class Report:
    """The result of an evaluation.

    metrics: means over users by name ("ndcg_at_10"), and "coverage_at_k", "gini_at_k", "popularity_at_k". low, high:
    ends of the 95 % intervals of the means over users. users: the number of users evaluated. rows: the number of test
    rows used. n_skipped: test rows of items without a training rating, and of unknown users and items. per_user: one
    row per user, one column per metric. exposure: by list length, how many lists hold each item, int64 [items].
    drawn_from: how many users the evaluated ones were drawn from at random; None if they are all.
    """

    metrics: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]
    users: int
    rows: int
    n_skipped: int
    per_user: pl.DataFrame
    exposure: dict[int, Rows]
    drawn_from: int | None = None

    def table(self) -> pl.DataFrame:
        """Return one row per metric: its name, value and interval."""
        names = list(self.metrics)
        return pl.DataFrame(
            {
                "metric": names,
                "value": [self.metrics[n] for n in names],
                "low": [self.low.get(n) for n in names],
                "high": [self.high.get(n) for n in names],
            }
        )

    def summary(self) -> dict[str, object]:
        """Return the metrics with counts and intervals, for JSON."""
        intervals = {name: [self.low[name], self.high[name]] for name in self.low}
        counts = {"users": self.users, "rows": self.rows, "left_out": self.n_skipped}
        counts |= {} if self.drawn_from is None else {"drawn_from": self.drawn_from}
        return {**self.metrics, **counts, "intervals": intervals}


def evaluate(
    recommender: Recommender, test: Ratings, ks: Sequence[int] = RunConfig().lengths, resamples: int = 1000
) -> Report:
    """Rank all items for every user of `test`, without those the recommender was fitted on, and compute metrics.

    test: held-out ratings, all of them relevant. Their ids are looked up in the recommender; rows of unknown users or
    items are skipped and counted. For a model of "stars", the metrics include RMSE and MAE over the test rows. Raises
    DataError if the recommender was fitted on any of the rows.
    """
    model, given = recommender.model, test
    test, unknown = align_to_model(recommender, given)
    if not len(test):
        raise no_known(recommender, given)
    report = rank_metrics(recommender.state.ranker, test, recommender.excluded, recommender.item_counts, ks, resamples)
    if not report.users:
        raise DataError(
            "no item of the test ratings has a training rating, so none could have been recommended: test it on items "
            "that were rated in its training, or train with descriptions of items (--items, --text)"
        )
    report = replace(report, n_skipped=report.n_skipped + unknown)
    return report if model.output != "stars" else with_rating_errors(report, model, test)


def no_known(recommender: Recommender, test: Ratings) -> DataError:
    """Return the error for test ratings of which none is of a user and an item that the model knows."""
    message = "there is no test rating of a user and an item that the model knows"
    if not len(test):
        return DataError(f"{message}, since there is none: name others, or a split that holds some out")
    known = f"user {recommender.users.series[0]!r} and item {recommender.items.series[0]!r}"
    given = f"user {test.users.ids(test.user[:1])[0]!r} and item {test.items.ids(test.item[:1])[0]!r}"
    return DataError(f"{message}, such as {known}; the test has {given}, …: give it the ids of the training")


def with_rating_errors(report: Report, model: ScoringModel, test: Ratings) -> Report:
    """Add RMSE and MAE over all test rows to a report."""
    predicted = model.predict(test.user, test.item)
    errors = {"rmse": metrics.rmse(predicted, test.value), "mae": metrics.mae(predicted, test.value)}
    return replace(report, metrics={**report.metrics, **errors})


class Target(NamedTuple):
    """What lists are evaluated against: test ratings, list lengths, and bootstrap resamples for intervals."""

    test: Ratings
    ks: Sequence[int] = (10,)
    resamples: int = 0


def rank_metrics(
    ranker: Ranker, test: Ratings, seen: UserItems, counts: Rows, ks: Sequence[int] = (10,), resamples: int = 0
) -> Report:
    """Evaluate the lists of a ranker against test ratings.

    seen: the items excluded from each user's list. counts: training ratings per item, int64 [items]; items without any
    are not ranked, and their test rows are skipped and counted (for those, see `cold_metrics`). Every user counts once,
    whatever their number of test rows.
    """
    return rank_metrics_of(ranker, (Target(test, ks, resamples),), seen, counts)[0]


def rank_metrics_of(ranker: Ranker, targets: Sequence[Target], seen: UserItems, counts: Rows) -> list[Report]:
    """Evaluate one ranking against several targets with the same vocabularies."""
    tallies = [_Tally(target, counts) for target in targets]
    users = np.unique(np.concatenate([tally.users for tally in tallies]))
    k = max(max(target.ks) for target in targets)
    for block, ranked in ranker.top_k(users, k, seen, None if counts.all() else counts > 0):
        for tally in tallies:
            tally.add(block, ranked)
    return [tally.report() for tally in tallies]


class _Tally:
    """Accumulates the metrics of lists for one target, block by block."""

    def __init__(self, target: Target, counts: Rows) -> None:
        self.target, self.item_counts = target, counts
        test = target.test
        self.warm = counts[test.item] > 0
        self.relevant = UserItems.of(test.user[self.warm], test.item[self.warm], len(test.users))
        self.users = np.flatnonzero(self.relevant.count)
        self.names = [f"{name}_at_{k}" for name in metrics.METRICS for k in target.ks]
        self.values = np.zeros((len(self.users), len(self.names)))
        self.exposure = {k: np.zeros(len(counts), np.int64) for k in target.ks}
        self.done = 0

    def add(self, users: Rows, ranked: Rows) -> None:
        """Add the lists [b, k] of users, ascending; users without a relevant item are ignored."""
        evaluated = self.relevant.count[users] > 0
        users, ranked, ks = users[evaluated], ranked[evaluated], self.target.ks
        hit, count = metrics.hits(ranked, self.relevant, users), self.relevant.count[users]
        columns = [f(hit, count, k) for f in metrics.METRICS.values() for k in ks]
        self.values[self.done : self.done + len(users)] = np.column_stack(columns)
        self.done += len(users)
        for k in ks:
            self.exposure[k] += np.bincount(ranked[:, :k][ranked[:, :k] >= 0], minlength=len(self.item_counts))

    def report(self) -> Report:
        """Return the means over users, and the exposure of items."""
        counts, exposure, resamples = self.item_counts, self.exposure, self.target.resamples
        means = self.values.mean(axis=0) if len(self.users) else np.full(len(self.names), np.nan)
        values = dict(zip(self.names, means.tolist(), strict=True))
        for k in self.target.ks:
            values[f"coverage_at_{k}"] = float((exposure[k] > 0).sum() / max(1, (counts > 0).sum()))
            values[f"gini_at_{k}"] = metrics.gini(exposure[k][counts > 0])
            values[f"popularity_at_{k}"] = float(counts @ exposure[k] / max(1, exposure[k].sum()))
        low: dict[str, float] = {}
        high: dict[str, float] = {}
        if resamples:
            intervals = metrics.interval(self.values, resamples)
            low, high = (dict(zip(self.names, end.tolist(), strict=True)) for end in intervals)
        ids = {"user_id": self.target.test.users.ids(self.users)}
        per_user = pl.DataFrame(ids | dict(zip(self.names, self.values.T, strict=True)))
        rows = int(self.warm.sum()), int((~self.warm).sum())
        return Report(values, low, high, len(self.users), *rows, per_user, exposure)
