"""The route that compares the variants of a service, and their counters for Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.responses import Response
from pydantic_core import to_json

from recsys_embed.serving.responses import VariantsResponse
from recsys_embed.serving.service import Service
from recsys_embed.serving.variant_report import report_of
from recsys_embed.serving.variants import Variants

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
        counts = await asyncio.to_thread(outcomes.counts)
        return Response(to_json(report_of(outcomes.test, counts)), media_type="application/json")


def metrics_of(variants: Variants) -> bytes:
    """Return the counts of the variants as text for Prometheus; they are the same in every process."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily

    counts = variants.outcomes.counts(flush=False)

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
