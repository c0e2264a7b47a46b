"""How good a model is, honestly: full ranking, seen items masked, every user with a test rating."""

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


def align_to_model(recommender: Recommender, ratings: Ratings) -> tuple[Ratings, int]:
    """Put ratings onto a recommender's vocabularies; return them and how many rows had an unknown user or item.

    Raises DataError where the recommender was fitted on some of the rows.
    """
    user = recommender.users.rows(ratings.users.ids(ratings.user), missing="negative")
    item = recommender.items.rows(ratings.items.ids(ratings.item), missing="negative")
    known = (user >= 0) & (item >= 0)
    kept = replace(
        ratings.take(known), users=recommender.users, items=recommender.items, user=user[known], item=item[known]
    )
    width = len(recommender.items)
    users, items = recommender.seen.of_users(np.arange(len(recommender.users)))
    fitted = int(np.isin(kept.user * width + kept.item, users * width + items).sum())
    if fitted:
        raise DataError(
            f"the model was fitted on {fitted:,} of the {len(kept):,} test ratings: the metrics would be too good; "
            "test it on ratings that were held out of its training"
        )
    return kept, int((~known).sum())


@dataclass(frozen=True)
class Report:
    """What an evaluation came to.

    metrics: means over users by name ("ndcg_at_10"), and "coverage_at_k", "gini_at_k", "popularity_at_k". low, high:
    ends of the 95 % intervals of those that are means over users. users: how many took part. left_out: test rows of
    items that have no training rating, and of unknown users and items. per_user: one row a user, one column a metric.
    shown: by list length, how many users' lists hold each item, int64 [items].
    """

    metrics: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]
    users: int
    rows: int
    left_out: int
    per_user: pl.DataFrame
    shown: dict[int, Rows]

    def table(self) -> pl.DataFrame:
        """Return one row a metric: its name, value and interval."""
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
        """Return the metrics with their counts and intervals, for JSON."""
        ends = {name: [self.low[name], self.high[name]] for name in self.low}
        return {**self.metrics, "users": self.users, "rows": self.rows, "left_out": self.left_out, "intervals": ends}


def evaluate(
    recommender: Recommender, test: Ratings, ks: Sequence[int] = RunConfig().lengths, resamples: int = 1000
) -> Report:
    """Rank all items for every user of `test`, hide what the recommender was fitted on, and measure.

    test: held-out ratings, all of them relevant; their ids are looked up in the recommender, and rows of users or
    items that it does not know are left out and counted. For a model of stars, RMSE and MAE over the test rows
    stand in the metrics too. Raises DataError where the recommender was fitted on some of the rows.
    """
    model = recommender.model
    test, unknown = align_to_model(recommender, test)
    if not len(test):
        raise DataError("there is no test rating of a user and an item that the model knows")
    report = rank_metrics(Ranker.of(model), test, recommender.hidden, recommender.counts, ks, resamples)
    if not report.users:
        raise DataError("no item of the test ratings has a training rating, so none could have been recommended")
    report = replace(report, left_out=report.left_out + unknown)
    return report if model.output != "stars" else with_errors(report, model, test)


def with_errors(report: Report, model: ScoringModel, test: Ratings) -> Report:
    """Add RMSE and MAE over all test rows to a report."""
    predicted = model.predict(test.user, test.item)
    errors = {"rmse": metrics.rmse(predicted, test.value), "mae": metrics.mae(predicted, test.value)}
    return replace(report, metrics={**report.metrics, **errors})


class Target(NamedTuple):
    """What lists are measured against: test ratings, the list lengths, and bootstrap resamples for intervals."""

    test: Ratings
    ks: Sequence[int] = (10,)
    resamples: int = 0


def rank_metrics(
    ranker: Ranker, test: Ratings, seen: UserItems, counts: Rows, ks: Sequence[int] = (10,), resamples: int = 0
) -> Report:
    """Measure the lists of a ranker against test ratings.

    seen: what is hidden from each user's list. counts: training ratings of each item, int64 [items]; items that have
    none are not ranked, and their test rows are left out and counted (`cold_metrics` is about them). A user counts
    once, whatever the number of test rows.
    """
    return rank_metrics_of(ranker, (Target(test, ks, resamples),), seen, counts)[0]


def rank_metrics_of(ranker: Ranker, targets: Sequence[Target], seen: UserItems, counts: Rows) -> list[Report]:
    """Measure the lists of a ranker against several targets of the same users and items, with one ranking for all."""
    tallies = [_Tally(target, counts) for target in targets]
    users = np.unique(np.concatenate([tally.users for tally in tallies]))
    k = max(max(target.ks) for target in targets)
    for block, ranked in ranker.lists(users, k, seen, None if counts.all() else counts > 0):
        for tally in tallies:
            tally.add(block, ranked)
    return [tally.report() for tally in tallies]


class _Tally:
    """Adds up what lists come to, block by block, for one target."""

    def __init__(self, target: Target, counts: Rows) -> None:
        self.target, self.counts = target, counts
        test = target.test
        self.warm = counts[test.item] > 0
        self.relevant = UserItems.of(test.user[self.warm], test.item[self.warm], len(test.users))
        self.users = np.flatnonzero(self.relevant.count)
        self.names = [f"{name}_at_{k}" for name in metrics.METRICS for k in target.ks]
        self.values = np.zeros((len(self.users), len(self.names)))
        self.shown = {k: np.zeros(len(counts), np.int64) for k in target.ks}
        self.done = 0

    def add(self, users: Rows, ranked: Rows) -> None:
        """Take the lists [b, k] of users, ascending; those without a relevant item are passed over."""
        mine = self.relevant.count[users] > 0
        users, ranked, ks = users[mine], ranked[mine], self.target.ks
        hit, count = metrics.hits(ranked, self.relevant, users), self.relevant.count[users]
        columns = [f(hit, count, k) for f in metrics.METRICS.values() for k in ks]
        self.values[self.done : self.done + len(users)] = np.column_stack(columns)
        self.done += len(users)
        for k in ks:
            self.shown[k] += np.bincount(ranked[:, :k][ranked[:, :k] >= 0], minlength=len(self.counts))

    def report(self) -> Report:
        """Return the means over users, and what the lists hold."""
        counts, shown, resamples = self.counts, self.shown, self.target.resamples
        means = self.values.mean(axis=0) if len(self.users) else np.full(len(self.names), np.nan)
        measured = dict(zip(self.names, means.tolist(), strict=True))
        for k in self.target.ks:
            measured[f"coverage_at_{k}"] = float((shown[k] > 0).sum() / max(1, (counts > 0).sum()))
            measured[f"gini_at_{k}"] = metrics.gini(shown[k][counts > 0])
            measured[f"popularity_at_{k}"] = float(counts @ shown[k] / max(1, shown[k].sum()))
        low: dict[str, float] = {}
        high: dict[str, float] = {}
        if resamples:
            ends = metrics.interval(self.values, resamples)
            low, high = (dict(zip(self.names, end.tolist(), strict=True)) for end in ends)
        ids = {"user_id": self.target.test.users.ids(self.users)}
        per_user = pl.DataFrame(ids | dict(zip(self.names, self.values.T, strict=True)))
        rows = int(self.warm.sum()), int((~self.warm).sum())
        return Report(measured, low, high, len(self.users), *rows, per_user, shown)
