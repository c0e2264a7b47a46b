"""TrendOfEvents: the trend of a served model, kept current as events come in."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys_embed.data.sorting import pair_keys
from recsys_embed.models.trend import Trend
from recsys_embed.serving.event_store import EventStore, StoredEvent
from recsys_embed.state.fitted import FittedState


class TrendOfEvents:
    """Counts the events of a store into the trend of a state, each of them once. Thread-safe.

    An event from before `created` (seconds since 1970) of a pair that the model was fitted on is in the trend already.
    """

    def __init__(self, state: FittedState, events: EventStore, created: float) -> None:
        self.fitted, self.events, self.created = state, events, created
        self._state, self._seq, self._deleted = state, 0, events.deleted
        self._lock = threading.Lock()

    def state(self) -> FittedState:
        """Return the state with all events in its trend."""
        if self.fitted.trend is None:
            return self.fitted
        if self.events.last_seq_of_all() > self._seq or self.events.deleted != self._deleted:
            with self._lock:
                self._follow()
        return self._state

    def _follow(self) -> None:
        if self.events.deleted != self._deleted:  # what a user withdrew is counted no longer
            self._state, self._seq, self._deleted = self.fitted, 0, self.events.deleted
        new = self.events.since(self._seq)
        if not new:
            return
        trend = self._state.trend
        assert trend is not None
        self._state, self._seq = self._state.with_trend(self._with_events(trend, new)), new[-1].seq

    def _with_events(self, trend: Trend, new: Sequence[StoredEvent]) -> Trend:
        """Return a trend with the events that are positives of known items and that it does not contain."""
        state, threshold = self.fitted, self.fitted.positive_threshold
        items = state.items.rows([event.item for event in new], missing="negative")
        counted = items >= 0
        if threshold is not None:
            counted &= np.array([event.rating is None or event.rating >= threshold for event in new])
        counted &= ~self._is_fitted(new, items)
        times = np.array([event.time for event in new])
        return trend.with_ratings(items[counted], times[counted])

    def _is_fitted(self, new: Sequence[StoredEvent], items: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which events the model was fitted on."""
        old = np.array([event.received < self.created for event in new])
        if not old.any():
            return old
        state, width = self.fitted, len(self.fitted.items)
        users = state.users.rows([event.user for event in new], missing="negative")
        seen = pair_keys(*state.seen.pairs_of(np.arange(len(state.users))), width)
        return old & (users >= 0) & (items >= 0) & np.isin(pair_keys(users, items, width), seen)
