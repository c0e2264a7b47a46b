"""When a new model is taken in, and when it is not."""

from __future__ import annotations

import time

from recsys_embed.errors import DataError
from recsys_embed.state.fitted import FittedState

# Seconds between two tries to read a broken model at most.
_MAX_RETRY_S = 60.0


class RetryBackoff:
    """A model that could not be read: it may be half copied, so it is tried again, ever more rarely."""

    def __init__(self) -> None:
        self._version, self._pause, self._next = "none", 0.0, 0.0

    def blocks(self, version: str) -> bool:
        """Return whether this version failed, and is not to be tried yet."""
        return version == self._version and time.monotonic() < self._next

    def record_failure(self, version: str, watch: float) -> bool:
        """Take down that a version failed; return whether it is the first time."""
        first = version != self._version
        self._pause = watch if first else min(2 * self._pause, _MAX_RETRY_S)
        self._version, self._next = version, time.monotonic() + self._pause
        return first


def check_same_data(old: FittedState, new: FittedState, name: str) -> None:
    """Refuse a model that knows less than half of what the one before it does: it is of other data."""
    for ours, theirs in ((old.users, new.users), (old.items, new.items)):
        there = int((theirs.rows(ours.series, missing="negative") >= 0).sum())
        if 2 * there < len(ours):
            raise DataError(
                f"{name} knows {there:,} of the {len(ours):,} {ours.name}s that are served: it does not come by itself "
                "(recsys serve --model takes it)"
            )
