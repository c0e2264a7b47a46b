"""Rankings that are the same for everybody: by popularity, and by recent popularity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recsys_embed.arrays import Floats
from recsys_embed.data.ratings import Ratings
from recsys_embed.models.ranker import Ranker
from recsys_embed.retrieval.exact import ExactIndex

if TYPE_CHECKING:
    pass


def _same_for_all(score: Floats) -> Ranker:
    """Rank the items alike for everybody."""
    return Ranker(ExactIndex(score[:, None]), lambda users: np.ones((len(users), 1), np.float32))


def popularity(train: Ratings) -> Ranker:
    """Rank the items by their number of ratings."""
    return _same_for_all(train.counts.astype(np.float32))


def recent_popularity(train: Ratings, share: float = 0.1) -> Ranker:
    """Rank the items by their number of ratings in the newest `share` of the ratings, then by all."""
    assert train.time is not None
    newest = train.take(train.time >= np.quantile(train.time, 1 - share))
    counts = train.counts
    return _same_for_all((newest.counts + counts / (counts.max() + 1)).astype(np.float32))
