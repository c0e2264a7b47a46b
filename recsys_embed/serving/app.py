"""The routes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Annotated, Any, cast

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from recsys_embed import __version__
from recsys_embed.answering.request import RecommendRequest
from recsys_embed.config.fields import options
from recsys_embed.config.settings import Rules
from recsys_embed.errors import BundleError, RecsysError, SettingError, UnknownId
from recsys_embed.serving import schema
from recsys_embed.serving.docs_page import docs_page
from recsys_embed.serving.event_store import Event
from recsys_embed.serving.live_model import LiveModel
from recsys_embed.serving.middleware import FastPath, RequestMiddleware
from recsys_embed.serving.service import Service

_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
# The page's own scripts and styles alone run in it, and it reaches nobody but this service.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_RULES = tuple(field.name for field, _, _ in options(Rules))
_LONGEST = 300  # characters of an error: it may name an id of any length
_STATUS = ((UnknownId, 404), (SettingError, 400), (BundleError, 503))
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": schema.Error, "description": text}
    for status, text in {
        400: "a setting or a filter makes no sense",
        401: "the token is missing or another one",
        404: "a user or an item is not known",
        413: "the body is too large",
        415: "the body does not come as JSON",
        422: "a field is missing or of another kind",
        503: "it took too long, or the events could not be kept",
    }.items()
}


def create_app(service: Service) -> RequestMiddleware:
    """Return the ASGI application that answers with a service."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(service.watch())
        try:
            yield
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
        finally:
            service.close()

    app = FastAPI(
        title="recsys-embed",
        version=__version__,
        description="Recommendations from embeddings: for users of the model, for somebody new, and for nobody known.",
        lifespan=lifespan,
        docs_url=None,  # it would fetch scripts from elsewhere
        redoc_url=None,
        responses=_REFUSALS,
    )
    _handle_errors(app)
    _answers(app, service)
    _kept(app, service)
    _facts(app, service)
    _watched(app, service)
    _page(app, service)
    paths = frozenset(str(getattr(route, "path", "")) for route in app.routes)
    return RequestMiddleware(app, service.config, service.metrics, paths, {("POST", "/recommend"): _direct(service)})


def _direct(service: Service) -> FastPath:
    """Return what the route of lists does without FastAPI, for questions that are in order."""
    body_of, most = TypeAdapter(schema.RecommendBody).validate_json, service.config.max_k

    async def answer(data: bytes) -> bytes | None:
        try:
            body, live = body_of(data), service.live
            return to_json(
                await service.run(lambda: _recommendations(live, body, most), _is_expensive(body)), inf_nan_mode="null"
            )
        except (ValidationError, RecsysError):
            return None

    return answer


def _json(content: Any, status: int = 200) -> Response:
    return Response(to_json(content, inf_nan_mode="null"), status, media_type="application/json")


def _error(status: int, text: str) -> Response:
    return _json({"error": text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"}, status)


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(RecsysError)
    async def refused(_: Request, error: RecsysError) -> Response:
        return _error(next((status for kind, status in _STATUS if isinstance(error, kind)), 503), str(error))

    @app.exception_handler(RequestValidationError)
    async def misunderstood(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where, message = ".".join(str(part) for part in first["loc"][1:]), str(first["msg"])
        if first["type"] == "json_invalid":
            return _error(422, f"the body is no JSON: {first['ctx']['error']}, at character {where}")
        if not where or first["type"] == "model_attributes_type":
            return _error(422, "the body must be a JSON object, sent as content-type: application/json")
        if first["type"] == "extra_forbidden":
            return _error(422, f"there is no field {where!r}; /docs says which there are")
        return _error(422, f"{where}: {message}")

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> Response:
        response = _error(error.status_code, str(error.detail))
        response.headers.update(error.headers or {})
        return response


def _check_k(k: int, most: int) -> None:
    if k > most:
        raise SettingError(f"k must be at most {most:,} here, got {k:,}")


def _is_expensive(body: Any) -> bool:
    """Return whether a question has conditions that may have to be read and looked for in the whole table."""
    return bool(body.where or body.boost or body.per_group)


def _request(body: Any, most: int) -> RecommendRequest:
    """Return the question of a request. Raises SettingError for a list that is too long."""
    _check_k(body.k, most)
    rules = Rules(**{name: getattr(body, name) for name in _RULES})
    return RecommendRequest(
        user=body.user,
        likes=body.likes,
        dislikes=body.dislikes,
        ratings=getattr(body, "ratings", {}),
        k=body.k,
        candidates=body.among,
        exclude=body.exclude,
        include_seen=body.include_seen,
        hide_test=body.hide_test,
        rules=rules,
        explain=body.why,
        on_unknown=body.on_unknown,
    )


def _recommendations(live: LiveModel, body: Any, most: int) -> dict[str, Any]:
    found = live.recommend(_request(body, most))
    return {"user": live.user_id(body.user), "items": found.entries(), "short": found.shortfall, "model": live.name}


def _answers(app: FastAPI, service: Service) -> None:
    """Add the routes that answer for people."""
    most = service.config.max_k

    @app.post(
        "/recommend",
        response_model=schema.RecommendResponse,
        summary="A list for a user, for somebody new, or for nobody",
    )
    async def recommend(body: schema.RecommendBody) -> Response:
        live = service.live
        return _json(await service.run(lambda: _recommendations(live, body, most), _is_expensive(body)))

    @app.get("/recommend", response_model=schema.RecommendResponse, summary="The same, asked in the address")
    async def recommend_by_address(query: Annotated[schema.RecommendQuery, Query()]) -> Response:
        live = service.live
        return _json(await service.run(lambda: _recommendations(live, query, most), _is_expensive(query)))

    @app.post(
        "/recommend/batch",
        response_model=schema.RecommendBatchResponse,
        summary="Several lists; one that fails fails all",
    )
    async def batch(body: schema.BatchBody) -> Response:
        live = service.live
        _check_batch(len(body.asks), service.config.max_batch, "asks")
        end = time.monotonic() + service.config.timeout

        def lists() -> list[dict[str, Any]]:
            answers = []
            for one in body.asks:
                if time.monotonic() > end:  # nobody waits for the others any more
                    raise TimeoutError
                answers.append(_recommendations(live, one, most))
            return answers

        return _json({"answers": await service.run(lists, expensive=True)})

    @app.post(
        "/events",
        response_model=schema.EventsAccepted,
        summary="New ratings: kept, and counted from the next answer on",
    )
    async def events(body: schema.EventsBody) -> Response:
        _check_batch(len(body.events), service.config.max_batch, "events")
        items = service.live.state.items
        rows = [Event(str(e.user), str(e.item), e.rating, e.timestamp, e.id) for e in body.events]
        kept = await asyncio.wrap_future(service.events.append(rows))
        service.metrics.events(kept.inserted)
        unknown = sum(e.item not in items for e in rows)
        return _json({"accepted": kept.inserted, "repeated": kept.duplicates, "unknown_items": unknown})


def _kept(app: FastAPI, service: Service) -> None:
    """Add the routes by which a user's events are seen, and forgotten."""

    @app.get("/events", response_model=schema.Events, summary="The events of a user")
    async def events_of(query: Annotated[schema.UserOnly, Query()]) -> Response:
        found = [{"item": event.item, "rating": event.rating} for event in service.events.of(str(query.user))]
        return _json({"user": query.user, "events": found})

    @app.delete("/events", response_model=schema.EventsDeleted, summary="Forget the events of a user, for good")
    async def forget(query: Annotated[schema.UserOnly, Query()]) -> Response:
        return _json({"removed": await asyncio.to_thread(service.events.delete_of, str(query.user))})


def _check_batch(n: int, most: int, what: str) -> None:
    if n > most:
        raise SettingError(f"at most {most:,} {what} in a request here, got {n:,}")


def _facts(app: FastAPI, service: Service) -> None:
    """Add the routes that answer about items and users."""

    @app.get("/similar", response_model=schema.Similar, summary="The items nearest to one")
    async def similar(query: Annotated[schema.SimilarQuery, Query()]) -> Response:
        live = service.live
        _check_k(query.k, service.config.max_k)
        return _json({**await service.run(lambda: live.similar(query.item, query.k)), "model": live.name})

    @app.get("/predict", response_model=schema.Prediction, summary="What a user is expected to make of an item")
    async def predict(query: Annotated[schema.PairQuery, Query()]) -> Response:
        live = service.live
        return _json({**live.predict(query.user, query.item), "model": live.name})

    @app.post("/explain", response_model=schema.Explained, summary="Why an item, for a user or for somebody new")
    async def explain(body: schema.ExplainBody) -> Response:
        live = service.live
        request = RecommendRequest(body.user, body.likes, body.dislikes, cast(Any, body.ratings))
        return _json({**await service.run(lambda: live.explain(request, body.item)), "model": live.name})

    @app.get("/items", response_model=schema.ItemList, summary="Items by a part of their title, or by id")
    async def items(query: Annotated[schema.ItemsQuery, Query()]) -> Response:
        live = service.live
        _check_k(query.k, service.config.max_k)
        return _json({"items": await service.run(lambda: live.items(query.query, query.k, query.item))})

    @app.get("/history", response_model=schema.History, summary="What a user rated")
    async def history(query: Annotated[schema.UserQuery, Query()]) -> Response:
        found = service.live.history(query.user)
        return _json({"user": service.live.user_id(query.user), "items": found[: query.k], "total": len(found)})


def _watched(app: FastAPI, service: Service) -> None:
    """Add the routes for those who keep it running."""

    @app.get("/health", response_model=schema.Health, summary="Whether the process lives")
    async def health() -> Response:
        return _json({"status": "ok"})

    @app.get("/ready", response_model=schema.Health, summary="Whether it answers, and with which model")
    async def ready() -> Response:
        live = service.live
        if not service.events.works:
            return _error(503, "events cannot be kept any more: start the service again")
        facts = {"users": len(live.state.users), "items": len(live.state.items), "columns": live.columns}
        return _json({"status": "ready", "model": live.name, "version": live.version, **facts})

    @app.get("/metrics", summary="For Prometheus", response_class=PlainTextResponse)
    async def metrics() -> Response:
        text, kind = await asyncio.to_thread(service.metrics.text)
        return Response(text, media_type=kind)


def _page(app: FastAPI, service: Service) -> None:
    """Add the page, and the map."""
    parts = {file.name: file for file in (files("recsys_embed.serving") / "page").iterdir()}

    def served(name: str) -> Response:
        headers = {"content-security-policy": _POLICY, "x-content-type-options": "nosniff", "cache-control": "no-cache"}
        kind = _KINDS[name.rpartition(".")[2]]
        return Response(parts[name].read_bytes(), media_type=kind, headers=headers)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return served("index.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        if name not in parts:
            raise HTTPException(404, "there is no such file")
        return served(name)

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        headers = {"content-security-policy": _POLICY, "x-content-type-options": "nosniff"}
        return HTMLResponse(docs_page(app.openapi(), str(request.base_url).rstrip("/")), headers=headers)

    @app.get("/map", include_in_schema=False)
    async def map_() -> Response:
        found = service.map()
        if found is None:
            waiting = '<!doctype html><meta http-equiv="refresh" content="2"><title>Map</title>The map is being drawn …'
            return HTMLResponse(waiting, 202, headers={"retry-after": "2"})
        return HTMLResponse(found.read_bytes(), headers={"x-content-type-options": "nosniff"})
