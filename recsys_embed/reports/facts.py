"""What the report says, as numbers: computed from a model, and from its data where they are still there."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from recsys_embed.arrays import Floats
from recsys_embed.data.dataset import Dataset
from recsys_embed.data.ids import Rows
from recsys_embed.data.ratings import Ratings
from recsys_embed.errors import DataError, RecsysError
from recsys_embed.evaluation import slices
from recsys_embed.evaluation.evaluate import Report, align_to_model, rank_metrics
from recsys_embed.evaluation.held_out import held_out_test, training_data
from recsys_embed.models.popularity import popularity_scores, unpersonalized
from recsys_embed.recommender import Recommender
from recsys_embed.state.fitted import FittedState

log = logging.getLogger("recsys_embed")

K = 10  # items in a list
# Most users whose lists the report looks at, drawn at random.
_USERS = 20_000
# Most bars of the plot over time, and how many days each unit of time has.
_MAX_BARS = 40
_UNITS = (("day", "1d", 1), ("week", "1w", 7), ("month", "1mo", 31), ("quarter", "1q", 92), ("year", "1y", 366))


class Data(NamedTuple):
    """The data of the training. test: the test positives in the rows of the model, or None."""

    dataset: Dataset
    test: Ratings | None


class Timeline(NamedTuple):
    """Ratings over time. first, last: days. unit: of a bar. counts: one for each."""

    first: datetime.date
    last: datetime.date
    unit: str
    counts: list[int]


@dataclass(frozen=True)
class Lists:
    """The lists of 10 of many users. coverage, half: see `slices.exposure_summary`.

    top: how many items are the most rated tenth, their share of the ratings, and of the places in lists.
    """

    users: int
    coverage: float
    half: int
    top: tuple[int, float, float]


@dataclass(frozen=True)
class Groups:
    """Tests by group. by_activity: users by their ratings, of this model and of popularity (None: not measured).

    by_popularity: items by their ratings, of this model.
    """

    by_activity: list[dict[str, Any]] = field(default_factory=list)
    popularity: list[dict[str, Any]] | None = None
    by_popularity: list[dict[str, Any]] = field(default_factory=list)


def load_data(recommender: Recommender, offline: bool) -> tuple[Data | None, str]:
    """Return the data that a model was trained on, or None and the reason why the report has to do without them."""
    try:
        dataset, config = training_data(recommender, offline)
        test = held_out_test(recommender, dataset, config)
    except (RecsysError, OSError) as error:
        return None, str(error)
    digest = recommender.metadata.get("test_digest")
    if digest is not None and digest != test.pairs_digest():
        return None, "the data are not those of the training any more"
    try:
        aligned = align_to_model(recommender, test)[0]
    except DataError:  # it learned from them later on, by an update
        aligned = None
    return Data(dataset, aligned if aligned is not None and len(aligned) else None), ""


def count_bins(counts: Rows) -> list[tuple[str, int]]:
    """Return how many users (or items) have how many ratings: the bins 1, 2 to 4, 5 to 9, 10 to 19, … with the numbers.

    Those with none are not counted; empty bins are left out at both ends.
    """
    edges = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 100_000, 1_000_000]
    bins = []
    for low, high in zip(edges, [*edges[1:], np.inf], strict=True):
        label = (
            f"{low:,}" if high == low + 1 else f"{low:,} to {high - 1:,.0f}" if high < np.inf else f"{low:,} or more"
        )
        bins.append((label, int(((counts >= low) & (counts < high)).sum())))
    filled = [n for n, (_, count) in enumerate(bins) if count]
    return bins[filled[0] : filled[-1] + 1] if filled else []


def timeline_of(times: Rows | None) -> Timeline | None:
    """Return the number of ratings in each day, week, … of their times (seconds since 1970); None without times."""
    if times is None or not len(times):
        return None
    column = pl.from_epoch(pl.Series("time", times), time_unit="s")
    first, last = (datetime.datetime.fromtimestamp(int(t), datetime.UTC).date() for t in (times.min(), times.max()))
    days = (last - first).days + 1
    unit, every, _ = next((u for u in _UNITS if days <= _MAX_BARS * u[2]), _UNITS[-1])
    found = pl.DataFrame({"time": column.sort()}).group_by_dynamic("time", every=every).agg(pl.len())
    return Timeline(first, last, unit, found.upsample("time", every=every)["len"].fill_null(0).to_list())


def lists_of(state: FittedState) -> Lists:
    """Rank for all users who have something, or for many drawn at random."""
    users = np.flatnonzero(state.seen.count)
    if len(users) > _USERS:
        users = np.sort(np.random.default_rng(0).choice(users, _USERS, replace=False))
    counts, exposure = state.item_counts, np.zeros(len(state.items), np.int64)
    for _, ranked in state.ranker.top_k(users, K, state.excluded, None if counts.all() else counts > 0):
        exposure += np.bincount(ranked[ranked >= 0], minlength=len(exposure))
    found = slices.exposure_summary(exposure, counts)
    most = np.argsort(-counts, kind="stable")[: max(1, round((counts > 0).sum() / 10))]
    ratings, places = (float(values[most].sum() / max(1, values.sum())) for values in (counts, exposure))
    return Lists(len(users), found["coverage"], int(found["half"]), (len(most), ratings, places))


def groups_of(recommender: Recommender, test: Ratings | None) -> Groups:
    """Measure users by their number of ratings, and items by theirs, as far as that is possible.

    test: the test positives in the rows of the model. With them, model and popularity are ranked anew for as many users
    as `lists_of` takes. Without, what the model folder has of each user is grouped. A model for production has learnt
    from the test since it was measured, so its folder has the groups.
    """
    state = recommender.state
    if "production" in state.metadata:
        return Groups(**state.metadata.get("groups", {}))
    if test is None:
        return Groups() if state.per_user is None else Groups(_by_activity(state, state.per_user))
    test = test.of_random_users(_USERS)
    counts = state.item_counts
    own, popular = (
        rank_metrics(ranker, test, state.excluded, counts, (K,))
        for ranker in (state.ranker, unpersonalized(popularity_scores(counts)))
    )
    if not own.users:
        return Groups()
    by_items = slices.evaluate_slices(recommender, test, own, "popularity", K, resamples=0).rows
    return Groups(_of(state, own), _of(state, popular), by_items)


def _of(state: FittedState, report: Report) -> list[dict[str, Any]]:
    return _by_activity(state, report.per_user)


def _by_activity(state: FittedState, per_user: pl.DataFrame) -> list[dict[str, Any]]:
    """Group users by the number of their ratings. Users whom the model does not know have none."""
    rows = state.users.rows(per_user["user_id"], missing="negative")
    history = np.where(rows >= 0, state.seen.count[rows], 0)
    return slices.user_group_metrics(per_user, history, K)


class Rising(NamedTuple):
    """An item that is rated more lately. ratings: all of it. times: how often it is rated lately, compared with what
    its ratings would lead one to expect."""

    row: int
    ratings: int
    times: float


def rising(state: FittedState, number: int = 8) -> list[Rising]:
    """Return the items with the greatest growth; none without a trend, or where nothing grows."""
    if state.trend is None:
        return []
    growth: Floats = state.trend.growth(state.item_counts)
    best = np.argsort(-growth, kind="stable")[:number]
    return [Rising(int(n), int(state.item_counts[n]), float(np.exp(growth[n]))) for n in best if growth[n] > 0]


def values_of(ratings: Ratings, most: int = 10) -> list[tuple[float, int]]:
    """Return the values of explicit ratings with their numbers, ascending; none if there are too many to list."""
    if not ratings.explicit:
        return []
    values, counts = np.unique(ratings.value, return_counts=True)
    pairs: Sequence[tuple[float, int]] = list(zip(values.tolist(), counts.tolist(), strict=True))
    return list(pairs) if len(pairs) <= most else []
