"""Rules for reloading: when to try a broken model again, and which new models to refuse."""

from __future__ import annotations

import time

from recsys_embed.errors import DataError
from recsys_embed.evaluation.admission import worse_than_popularity
from recsys_embed.state.fitted import FittedState

# Most seconds between two attempts to load a broken model.
_MAX_RETRY_S = 60.0


class RetryBackoff:
    """Exponential backoff for a model that could not be loaded: it may be half copied, so it is tried again."""

    def __init__(self) -> None:
        self._version, self._pause, self._next = "none", 0.0, 0.0

    def blocks(self, version: str) -> bool:
        """Return whether this version failed and must not be tried again yet."""
        return version == self._version and time.monotonic() < self._next

    def record_failure(self, version: str, pause: float) -> bool:
        """Record that a version failed; return whether for the first time. pause: seconds until the second attempt."""
        first = version != self._version
        self._pause = pause if first else min(2 * self._pause, _MAX_RETRY_S)
        self._version, self._next = version, time.monotonic() + self._pause
        return first


def check_quality(state: FittedState, name: str) -> None:
    """Raise DataError for a model whose lists were measured to be clearly worse than popularity."""
    reason = worse_than_popularity(state)
    if reason:
        raise DataError(f"{name} is not served: {reason}; --allow-worse serves it all the same")


def check_same_data(old: FittedState, new: FittedState, name: str) -> None:
    """Raise DataError for a model that lacks more than half of the old one's users or items: it is of other data."""
    for old_ids, new_ids in ((old.users, new.users), (old.items, new.items)):
        n_common = int((new_ids.rows(old_ids.series, missing="negative") >= 0).sum())
        if 2 * n_common < len(old_ids):
            raise DataError(
                f"{name} has only {n_common:,} of the {len(old_ids):,} {old_ids.name}s that are served, so it does not "
                "replace the model by itself (recsys serve --model takes it)"
            )
