"""Choose a trend on validation ratings that are later than the training ratings."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from recsys_embed.config.settings import DataConfig, ModelConfig
from recsys_embed.data.splits import Split
from recsys_embed.errors import SettingError
from recsys_embed.evaluation.evaluate import rank_metrics
from recsys_embed.state.fitted import FittedState
from recsys_embed.training.interface import as_good
from recsys_embed.training.trend import DEFAULT_TREND, choose_half_life, with_trend

log = logging.getLogger("recsys_embed")

# How much an item's growth may count, in standard deviations of the scores.
TRENDS = (0.0, 0.35, 0.7, 1.0, 1.4, 2.0, 2.8)
# Most validation users that it is chosen on.
_USERS = 5_000
# It is chosen on longer lists than settings of the model are, since few of the validation users are known.
_LENGTH, _METRIC = 20, "ndcg_at_20"


def validates_future(split: Split, data: DataConfig) -> bool:
    """Return whether the validation positives are later than all training positives."""
    train, valid = (part.positives(data.min_rating) for part in (split.train, split.valid))
    if train.time is None or valid.time is None or not len(valid):
        return False
    return bool(valid.time.min() >= train.time.max())


def check_trend(model: ModelConfig, loss: str | None, split: Split, data: DataConfig) -> None:
    """Raise SettingError for a weight of a trend where there will be none."""
    if model.trend is not None and not model.half_life and (loss == "mse" or not validates_future(split, data)):
        raise SettingError("--trend needs --half-life too, unless a split by time chooses one: --split time")


def choose_trend(first: FittedState, split: Split, data: DataConfig, model: ModelConfig, seed: int) -> dict[str, Any]:
    """Return the settings of the trend, {"half_life", "trend"}, or nothing where none is chosen.

    It is chosen where validation ratings are later than all training ratings, so that they are the future of these.
    first: a state that was fitted on the training ratings.
    """
    if not validates_future(split, data) or first.is_graph or first.model.output == "stars" or model.half_life == 0:
        return {}
    train, valid = (part.positives(data.min_rating) for part in (split.train, split.valid))
    half_life = choose_half_life(train, valid) if model.half_life is None else model.half_life
    if not half_life:
        log.info("kept: no trend, since what was popular lately is no more popular later")
        return {"half_life": 0.0}
    trend, gain = model.trend, ""
    if trend is None:
        known = np.isin(valid.user, train.user)
        rows, counts = valid.take(known).of_random_users(_USERS, seed), train.item_counts
        trend = DEFAULT_TREND
        if len(rows):
            states = [with_trend(first, train, half_life, t) for t in TRENDS]
            values = [rank_metrics(s.ranker, rows, s.excluded, counts, (_LENGTH,)).metrics[_METRIC] for s in states]
            good = [n for n in as_good(values) if values[n] >= values[0]]
            best = good[len(good) // 2]
            trend, gain = TRENDS[best], f"; validation {_METRIC} of known users {values[0]:.4f} -> {values[best]:.4f}"
    log.info("kept: a trend with a half-life of %g days, weight %g%s", half_life, trend, gain)
    return {"half_life": half_life, "trend": trend}
