"""The route that compares the variants of a service, and their counters for Prometheus."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.responses import Response

from recsys_embed.errors import DataError
from recsys_embed.serving.outcome_store import Counts, Outcomes
from recsys_embed.serving.responses import VariantsResponse, json_response
from recsys_embed.serving.service import Service
from recsys_embed.serving.variant_report import report_of

log = logging.getLogger("recsys_embed")

_HELP = {
    "users": "Users who got a list",
    "lists": "Lists that users got",
    "converted": "Users with a target event after their first list",
    "events": "Target events of these users",
    "hits": "Target events of items of the user's last lists",
}


def add_variant_routes(app: FastAPI, service: Service) -> None:
    """Add the route that compares the variants, if there are any."""
    outcomes = None if service.variants is None else service.variants.outcomes
    if outcomes is None:
        return

    @app.get("/variants", response_model=VariantsResponse, summary="What came of the variants, and which is better")
    async def variants() -> Response:
        await asyncio.wrap_future(outcomes.flush_soon())  # a file that is locked holds up nobody else
        counts = await asyncio.to_thread(outcomes.counts, flush=False)
        return json_response(report_of(outcomes.test, counts))


class VariantMetrics:
    """The counts of the variants for Prometheus; they are the same in every process."""

    def __init__(self, outcomes: Outcomes) -> None:
        self._outcomes, self._failed = outcomes, False

    def text(self) -> bytes:
        """Return them as text; nothing while they cannot be read, which is logged once."""
        try:
            counts = self._outcomes.counts(flush=False)
        except DataError as error:
            if not self._failed:
                log.warning("GET /metrics leaves the variants out: %s", error)
            self._failed = True
            return b""
        self._failed = False
        return _as_text(counts)


def _as_text(counts: Mapping[str, Counts]) -> bytes:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily

    class Collector:
        def collect(self) -> Iterator[Any]:
            for field, text in _HELP.items():
                family = CounterMetricFamily(f"recsys_variant_{field}", text, labels=["variant"])
                for name, found in counts.items():
                    family.add_metric([name], getattr(found, field))
                yield family

    registry = CollectorRegistry()
    registry.register(Collector())
    return generate_latest(registry)
