"""How good a model is, honestly: full ranking, seen items masked, every user with a test rating."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.config import RunConfig
from recsys_embed.errors import DataError
from recsys_embed.evaluation import metrics
from recsys_embed.model.plain import PlainModel
from recsys_embed.ratings.table import Ratings, Seen
from recsys_embed.ratings.vocab import Rows
from recsys_embed.recommend.index import ExactIndex, at_once
from recsys_embed.recommend.recommender import Recommender


def onto(recommender: Recommender, ratings: Ratings) -> tuple[Ratings, int]:
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
class Ranker:
    """Anything that ranks items for users: what to ask, and whom with. `queries` maps user rows [b] to [b, d]."""

    index: ExactIndex
    queries: Callable[[Rows], Any]

    @classmethod
    def of(cls, model: PlainModel) -> Ranker:
        """Rank as the model scores."""
        return cls(ExactIndex.of(model), model.queries)

    def scores(self, users: Rows) -> Floats:
        """Return the scores of all items, [b, items]."""
        return self.index.scores(self.queries(users))

    def lists(
        self, users: Rows, k: int, seen: Seen, allowed: NDArray[np.bool_] | None = None
    ) -> Iterator[tuple[Rows, Rows]]:
        """Yield (users [b], their k best unseen items [b, k']) among the allowed ones."""
        step = at_once(len(self.index))
        for start in range(0, len(users), step):
            block = users[start : start + step]
            yield block, self.index.search(self.queries(block), k, allowed, seen.of_users(block))[1]


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
    model = recommender.plain
    test, unknown = onto(recommender, test)
    if not len(test):
        raise DataError("there is no test rating of a user and an item that the model knows")
    report = rank_metrics(Ranker.of(model), test, recommender.hidden, recommender.counts, ks, resamples)
    if not report.users:
        raise DataError("no item of the test ratings has a training rating, so none could have been recommended")
    report = replace(report, left_out=report.left_out + unknown)
    return report if model.link != "stars" else with_errors(report, model, test)


def with_errors(report: Report, model: PlainModel, test: Ratings) -> Report:
    """Add RMSE and MAE over all test rows to a report."""
    predicted = model.predict(test.user, test.item)
    errors = {"rmse": metrics.rmse(predicted, test.value), "mae": metrics.mae(predicted, test.value)}
    return replace(report, metrics={**report.metrics, **errors})


def rank_metrics(
    ranker: Ranker, test: Ratings, seen: Seen, counts: Rows, ks: Sequence[int] = (10,), resamples: int = 0
) -> Report:
    """Measure the lists of a ranker against test ratings.

    seen: what is hidden from each user's list. counts: training ratings of each item, int64 [items]; items that have
    none are not ranked, and their test rows are left out and counted (`cold_metrics` is about them). A user counts
    once, whatever the number of test rows.
    """
    warm = counts[test.item] > 0
    relevant = Seen.of(test.user[warm], test.item[warm], len(test.users))
    users = np.flatnonzero(relevant.count)
    names = [f"{name}_at_{k}" for name in metrics.METRICS for k in ks]
    values = np.zeros((len(users), len(names)))
    shown = {k: np.zeros(len(counts), np.int64) for k in ks}
    at = 0
    allowed = None if counts.all() else counts > 0
    for block, ranked in ranker.lists(users, max(ks), seen, allowed):
        hit = metrics.hits(ranked, relevant, block)
        columns = [f(hit, relevant.count[block], k) for f in metrics.METRICS.values() for k in ks]
        values[at : at + len(block)] = np.column_stack(columns)
        at += len(block)
        for k in ks:
            shown[k] += np.bincount(ranked[:, :k][ranked[:, :k] >= 0], minlength=len(counts))
    low, high = metrics.interval(values, resamples)
    means = values.mean(axis=0) if len(users) else np.full(len(names), np.nan)
    measured = dict(zip(names, means.tolist(), strict=True))
    for k in ks:
        measured[f"coverage_at_{k}"] = float((shown[k] > 0).sum() / max(1, (counts > 0).sum()))
        measured[f"gini_at_{k}"] = metrics.gini(shown[k][counts > 0])
        measured[f"popularity_at_{k}"] = float(counts @ shown[k] / max(1, shown[k].sum()))
    ends = {} if not resamples else {"low": low, "high": high}
    bounds = {end: dict(zip(names, ends[end].tolist(), strict=True)) if ends else {} for end in ("low", "high")}
    per_user = pl.DataFrame({"user_id": test.users.ids(users)} | dict(zip(names, values.T, strict=True)))
    rows = int(warm.sum()), int((~warm).sum())
    return Report(measured, bounds["low"], bounds["high"], len(users), *rows, per_user, shown)
