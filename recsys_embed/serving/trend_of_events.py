"""TrendOfEvents: the trend of a served model, kept current as events come in."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from recsys_embed.errors import DataError
from recsys_embed.models.trend import Trend
from recsys_embed.serving.event_store import EventStore, StoredEvent
from recsys_embed.state.fitted import FittedState

# From so many items on, events are counted now and then rather than with each of them.
_MANY_ITEMS = 50_000


class TrendOfEvents:
    """Counts the events of a store into the trend of a state, each of them once. Thread-safe.

    An event from before `created` (seconds since 1970) of a pair that the model was fitted on is in the trend already.
    """

    def __init__(self, state: FittedState, events: EventStore, created: float) -> None:
        self.fitted, self.events, self.created = state, events, created
        self._state, self._seq, self._deleted = state, 0, events.deletions()
        self._counted: set[int] = set()
        self._lock, self._next = threading.Lock(), 0.0

    def state(self) -> FittedState:
        """Return the state with all events in its trend, or with those before they could not be read any more."""
        if self.fitted.trend is not None:
            with contextlib.suppress(DataError):
                self._follow_now_and_then()
        return self._state

    def _follow_now_and_then(self) -> None:
        started = time.monotonic()
        if started >= self._next and (
            self.events.last_seq_of_all() > self._seq or self.events.deletions() != self._deleted
        ):
            with self._lock:
                self._follow()
            # With millions of items this takes a while: no more than a tenth of the time is spent on it.
            self._next = time.monotonic() + 10 * (time.monotonic() - started) * (len(self.fitted.items) > _MANY_ITEMS)

    def change(self, change: Callable[[FittedState], FittedState]) -> None:
        """Change the state otherwise, but for its users, its items and its trend."""
        with self._lock:
            self._state = change(self._state)

    def _follow(self) -> None:
        deletions = self.events.deletions()
        if deletions != self._deleted:  # what a user withdrew is counted no longer
            assert self.fitted.trend is not None
            self._state = self._state.with_trend(self.fitted.trend)
            self._seq, self._deleted, self._counted = 0, deletions, set()
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
        counted &= np.array([state.event_types.interaction((event.event,)).weight > 0 for event in new])
        if threshold is not None:
            counted &= np.array([event.rating is None or event.rating >= threshold for event in new])
        counted &= ~self._is_fitted(new, items)
        counted &= self._is_first(new, counted)
        # An event is no later than its arrival, whatever clock (or unit) its sender has.
        times = np.array([min(event.time, event.received) for event in new])
        return trend.with_ratings(items[counted], times[counted])

    def _is_first(self, new: Sequence[StoredEvent], counted: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which of the events that count are the first of their user and item: repeats count once, as in
        training."""
        first = np.zeros(len(new), bool)
        for n in np.flatnonzero(counted).tolist():
            pair = hash((new[n].user, new[n].item))
            if pair not in self._counted:
                self._counted.add(pair)
                first[n] = True
        return first

    def _is_fitted(self, new: Sequence[StoredEvent], items: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which events the model was fitted on."""
        old = np.array([event.received < self.created for event in new])
        if not old.any():
            return old
        users = self.fitted.users.rows([event.user for event in new], missing="negative")
        return old & self.fitted.seen.contains(users, items)
