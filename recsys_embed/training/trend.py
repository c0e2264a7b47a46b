"""Fit the trend of a state: its half-life by the likelihood of later ratings, and its weight in the scores."""

from __future__ import annotations

import numpy as np

from recsys_embed.data.ratings import Ratings
from recsys_embed.models.popularity import popularity_scores
from recsys_embed.models.trend import Trend
from recsys_embed.retrieval.exact import BLOCK
from recsys_embed.state.fitted import FittedState

# Half-lives in days to choose from, and how much growth counts if nothing says how much, in standard deviations of the
# scores (experiments/LOG.md).
HALF_LIVES = (0.25, 0.5, 1, 2, 4, 7, 14, 30, 60, 120, 240, 480, 960, 1920)
DEFAULT_TREND = 1.4
# Users on whom the spread of the scores is measured.
_SAMPLE = 500


def choose_half_life(train: Ratings, later: Ratings) -> float:
    """Return the half-life in days under which popularity makes later positives most likely; 0 for all-time popularity.

    Both have times, and every user of `later` counts the same. Of half-lives whose difference to the best is within one
    standard error, it is the longest: what is shorter follows chance.
    """
    counts = train.item_counts
    known = later.take(counts[later.item] > 0)
    users, line = np.unique(known.user, return_inverse=True)
    if not len(users):
        return 0.0
    half_lives, values = (*HALF_LIVES, 0.0), []
    for half_life in half_lives:
        scores = popularity_scores(counts) if not half_life else Trend.of(train, half_life).popularity(counts)
        chance = np.expm1(scores.astype(np.float64))  # of an item, up to a factor
        values.append(np.bincount(line, np.log(chance[known.item] / chance.sum())) / np.bincount(line))
    best = max(values, key=np.mean)
    behind = [best - value for value in values]
    return [h for h, b in zip(half_lives, behind, strict=True) if b.mean() <= b.std() / np.sqrt(len(b))][-1]


def with_trend(state: FittedState, positives: Ratings, half_life: float, trend: float) -> FittedState:
    """Return a state with the trend of the positives it was fitted on. half_life: in days, above 0. trend: how much an
    item's growth counts, in standard deviations of the scores of the items for a user."""
    return state.replace(trend=Trend.of(positives, half_life, trend * score_spread(state)))


def score_spread(state: FittedState) -> float:
    """Return the standard deviation of the model's scores of the rated items for a user, on average."""
    users = np.flatnonzero(state.seen.count)
    count = max(16, min(_SAMPLE, BLOCK // max(1, len(state.items))))
    sample = np.random.default_rng(0).permutation(users)[:count]
    scores = state.model.score(state.model.queries(sample))[:, state.item_counts > 0]
    return float(scores.std(axis=1).mean())
