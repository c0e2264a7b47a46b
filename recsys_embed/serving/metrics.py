"""What Prometheus is told."""

from __future__ import annotations

import os
from typing import Any

_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """Counts of requests and events, and how long answers take; of all workers together where there are several."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Histogram

        self._registry = CollectorRegistry()
        self._several = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        self._seconds = Histogram(
            "recsys_request_seconds", "Seconds from a request to its answer", ["path"],
            registry=self._registry, buckets=_BUCKETS,
        )  # fmt: skip
        self._requests = Counter("recsys_requests", "Requests", ["path", "status"], registry=self._registry)
        self._events = Counter("recsys_events", "Events that were kept", registry=self._registry)
        self._swaps = Counter("recsys_model_swaps", "Models that took another one's place", registry=self._registry)
        self._failed = Counter(
            "recsys_model_swap_failures", "New models that could not be read", registry=self._registry
        )
        self._known: dict[tuple[str, int], tuple[Any, Any]] = {}

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        found = self._known.get((path, status))
        if found is None:
            found = self._seconds.labels(path), self._requests.labels(path, str(status))
            self._known[path, status] = found
        found[0].observe(seconds)
        found[1].inc()

    def events(self, kept: int) -> None:
        """Count events."""
        self._events.inc(kept)

    def swapped(self, well: bool) -> None:
        """Count a model that came, or could not."""
        (self._swaps if well else self._failed).inc()

    def text(self) -> tuple[bytes, str]:
        """Return the metrics and their media type."""
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

        registry = self._registry
        if self._several:
            from prometheus_client.multiprocess import MultiProcessCollector

            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        return generate_latest(registry), CONTENT_TYPE_LATEST
