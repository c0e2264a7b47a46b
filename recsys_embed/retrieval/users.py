"""UserIndex: the best users for an item, exactly."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.retrieval.exact import ExactIndex


class _ScoresUsers(Protocol):
    def scores(self, items: Rows, users: Rows | None = None) -> Floats: ...


class UserIndex(ExactIndex):
    """The users of a model, scored for items; queries are item rows [b]. Implements `Index`.

    scorer: see `models.user_scorer.UserScorer`. users: how many there are.
    """

    def __init__(self, scorer: _ScoresUsers, users: int) -> None:
        super().__init__(np.empty((users, 0), np.float32))
        self.scorer = scorer

    def scores(self, queries: Any, rows: Rows | None = None) -> Floats:
        """See `ExactIndex`."""
        return self.scorer.scores(queries, rows)
