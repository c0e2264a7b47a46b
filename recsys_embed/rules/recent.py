"""RecentResults: what was computed lately, by key."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class RecentResults(Generic[K, V]):
    """The results of the keys used last, at most `size` of them. Thread-safe; unlike `lru_cache`, it can be looked
    through, so that results can be mended rather than computed again."""

    def __init__(self, size: int, results: dict[K, V] | None = None) -> None:
        self.size, self._results, self._lock = size, OrderedDict(results or {}), threading.Lock()

    def get(self, key: K, compute: Callable[[], V]) -> V:
        """Return the result of a key, computed unless it is there. Errors are not kept."""
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
                return self._results[key]
        value = compute()
        with self._lock:
            self._results[key] = value
            while len(self._results) > self.size:
                self._results.popitem(last=False)
        return value

    def set(self, key: K, value: V) -> None:
        """Replace the result of a key, if it is still there."""
        with self._lock:
            if key in self._results:
                self._results[key] = value

    def items(self) -> list[tuple[K, V]]:
        """Return the keys and results that are there, the least recently used first."""
        with self._lock:
            return list(self._results.items())
