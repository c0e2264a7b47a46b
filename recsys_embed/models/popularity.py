"""Popularity: what anonymous users are scored by, and rankings that are the same for everyone (baselines)."""

from __future__ import annotations

import math

import numpy as np

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.sorting import at_ranks
from recsys_embed.models.ranker import Ranker
from recsys_embed.retrieval.fixed_order import FixedOrderIndex


def popularity_scores(counts: Rows) -> Floats:
    """Return the scores [I] of items for a user of whom nothing is known: log(1 + the number of ratings), as in a
    softmax over biases alone. counts [I]: ratings per item."""
    scores: Floats = np.log1p(counts, dtype=np.float32)
    return scores


def unpersonalized(scores: Floats) -> Ranker:
    """Rank items by the same scores [I] for every user."""
    return Ranker(FixedOrderIndex(scores), lambda users: np.ones((len(users), 1), np.float32))


def popularity(train: Ratings) -> Ranker:
    """Rank items by their number of ratings, or by the sum of their weights."""
    return unpersonalized(train.item_amounts.astype(np.float32))


def recent_popularity(train: Ratings, share: float) -> Ranker:
    """Rank items by their ratings within the newest `share` of the ratings, then by all; see `popularity`."""
    assert train.time is not None
    since = at_ranks(train.time, [math.ceil(round((len(train) - 1) * (1 - share), 6))])[0]
    newest = train.where(lambda rows: np.asarray(rows.time) >= since)
    amounts = train.item_amounts
    return unpersonalized((newest.item_amounts + amounts / (amounts.max() + 1)).astype(np.float32))
