"""Metrics for Prometheus."""

from __future__ import annotations

import os
from typing import Any

_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """Counters of requests, events and model swaps, and a histogram of latencies; summed over all workers."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Histogram

        self._registry = CollectorRegistry()
        self._multiprocess = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        self._seconds = Histogram(
            "recsys_request_seconds", "Seconds from a request to its answer", ["path"],
            registry=self._registry, buckets=_BUCKETS,
        )  # fmt: skip
        self._requests = Counter("recsys_requests", "Requests", ["path", "status"], registry=self._registry)
        self._events = Counter("recsys_events", "Events that were stored", registry=self._registry)
        self._swaps = Counter("recsys_model_swaps", "Models that replaced another one", registry=self._registry)
        self._swap_failures = Counter(
            "recsys_model_swap_failures", "New models that could not be loaded", registry=self._registry
        )
        self._item_values = Counter("recsys_item_values", "Values of items that were set", registry=self._registry)
        self._items_failures = Counter(
            "recsys_items_file_failures",
            "Changes of the file of items that could not be taken",
            registry=self._registry,
        )
        # (path, status) -> its histogram and counter: looking them up by label at every request would be slow.
        self._by_label: dict[tuple[str, int], tuple[Any, Any]] = {}

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        found = self._by_label.get((path, status))
        if found is None:
            found = self._seconds.labels(path), self._requests.labels(path, str(status))
            self._by_label[path, status] = found
        histogram, counter = found
        histogram.observe(seconds)
        counter.inc()

    def count_events(self, n: int) -> None:
        """Count stored events."""
        self._events.inc(n)

    def count_swap(self, ok: bool) -> None:
        """Count a new model that replaced the current one, or that could not be loaded."""
        (self._swaps if ok else self._swap_failures).inc()

    def count_item_values(self, n: int) -> None:
        """Count values of items that were set."""
        self._item_values.inc(n)

    def count_items_failure(self) -> None:
        """Count a change of the file of items that could not be taken."""
        self._items_failures.inc()

    def text(self) -> tuple[bytes, str]:
        """Return the metrics and their media type."""
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

        registry = self._registry
        if self._multiprocess:
            from prometheus_client.multiprocess import MultiProcessCollector

            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        return generate_latest(registry), CONTENT_TYPE_LATEST
