"""The HTTP application: its routes, and how errors become responses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from functools import partial
from itertools import chain, repeat
from typing import Annotated, Any, cast

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, Response, StreamingResponse
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from recsys_embed.answering.request import RecommendRequest
from recsys_embed.config.answers import NO_RULES, Rules, ServeConfig
from recsys_embed.config.fields import options
from recsys_embed.errors import BundleError, RecsysError, SettingError, UnknownId
from recsys_embed.serving import responses, schema
from recsys_embed.serving.event_store import Event
from recsys_embed.serving.exploration import exploration_for
from recsys_embed.serving.middleware import FastPath, RequestMiddleware, is_head
from recsys_embed.serving.outcome_store import GivenList
from recsys_embed.serving.pages import add_page_routes
from recsys_embed.serving.responses import json_response as _json
from recsys_embed.serving.service import Service
from recsys_embed.serving.turns import grouped
from recsys_embed.serving.variant_routes import VariantMetrics, add_variant_routes
from recsys_embed.serving.variants import Chosen
from recsys_embed.state.change_items import ItemValue
from recsys_embed.state.fitted import FittedState
from recsys_embed.state.verdict import verdict
from recsys_embed.version import __version__

_RULES = tuple(field.name for field, _, _ in options(Rules))
_RULES_AND_OLD_NAMES = {*_RULES, *schema.OLD_NAMES}
_MAX_ERROR_LENGTH = 300  # characters: an error may quote an id of any length
_STATUS = ((UnknownId, 404), (SettingError, 400), (BundleError, 503))
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": responses.ErrorResponse, "description": text}
    for status, text in {
        400: "a setting or a filter is invalid",
        401: "the token is missing or wrong",
        404: "a user or an item is unknown",
        413: "the body is too large",
        415: "the body was not sent as JSON",
        422: "a field is missing or has the wrong type",
        503: "the request took too long, or the events could not be stored",
    }.items()
}


def create_app(service: Service) -> RequestMiddleware:
    """Return the ASGI application of a service."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        reloading = asyncio.create_task(service.reload_loop())
        try:
            yield
            reloading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reloading
        finally:
            service.close()

    app = FastAPI(
        title="recsys-embed",
        version=__version__,
        description="Recommendations from embeddings: for users of the model, for new users, and for anonymous users.",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's page would fetch scripts from elsewhere
        redoc_url=None,
        openapi_url=None,  # with examples of the model, it is a route of its own
        responses=_ERRORS,
    )
    _handle_errors(app)
    _add_recommend_routes(app, service)
    _add_event_routes(app, service)
    _add_item_routes(app, service)
    _add_lookup_routes(app, service)
    _add_status_routes(app, service)
    add_variant_routes(app, service)
    add_page_routes(app, service)
    paths = frozenset(str(getattr(route, "path", "")) for route in app.routes)
    fast_paths = {("POST", "/recommend"): _fast_recommend(service)}
    return RequestMiddleware(app, service.config, service.metrics, paths, fast_paths)


def _fast_recommend(service: Service) -> FastPath:
    """Return a function that answers valid POST /recommend bodies without FastAPI."""
    parse = TypeAdapter(schema.RecommendBody).validate_json

    async def answer(data: bytes) -> bytes | None:
        try:
            return to_json(await _recommend(service, parse(data)), inf_nan_mode="null")
        except (ValidationError, RecsysError):
            return None

    return answer


def _error(status: int, text: str) -> Response:
    text = text.encode(errors="replace").decode()  # it may quote half of a surrogate pair
    return _json({"error": text if len(text) <= _MAX_ERROR_LENGTH else text[: _MAX_ERROR_LENGTH - 1] + "…"}, status)


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(RecsysError)
    async def handle_recsys_error(_: Request, error: RecsysError) -> Response:
        return _error(next((status for kind, status in _STATUS if isinstance(error, kind)), 503), str(error))

    @app.exception_handler(Exception)
    async def handle_bug(_: Request, error: Exception) -> Response:
        return _error(500, "internal error; the service's log has the details")

    @app.exception_handler(RequestValidationError)
    async def handle_invalid_request(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where, message = ".".join(str(key) for key in first["loc"][1:]), str(first["msg"])
        if first["type"] == "json_invalid":
            return _error(422, f"the body is not valid JSON: {first['ctx']['error']}, at character {where}")
        if not where or first["type"] == "model_attributes_type":
            return _error(422, "the body must be a JSON object, sent as content-type: application/json")
        if first["type"] == "extra_forbidden":
            return _error(422, f"there is no field {where!r}; /docs lists the fields")
        return _error(422, f"{where}: {message}")

    @app.exception_handler(HTTPException)
    async def handle_http_error(_: Request, error: HTTPException) -> Response:
        response = _error(error.status_code, str(error.detail))
        response.headers.update(error.headers or {})
        return response


def _check_k(k: int, max_k: int) -> None:
    if k > max_k:
        raise SettingError(f"k must be at most {max_k:,} here, got {k:,}")


def _check_batch(n: int, max_batch: int, what: str) -> None:
    if n > max_batch:
        raise SettingError(f"at most {max_batch:,} {what} in a request here, got {n:,}")


def _is_expensive(body: Any) -> bool:
    """Return whether a request has expressions, which may have to be parsed and evaluated over the whole table."""
    return bool(body.where or body.boost or body.per_group)


def _recommend_request(body: Any, config: ServeConfig) -> RecommendRequest:
    """Return the request of a body or address. Raises SettingError for a list that is too long."""
    # vars() rather than attributes: reading a deprecated field as an attribute would warn.
    fields, given = vars(body), body.model_fields_set
    if not given.isdisjoint(schema.OLD_NAMES):
        fields = _by_current_names(fields, given, schema.OLD_NAMES)
    _check_k(fields["k"], config.max_k)
    has_rules = not given.isdisjoint(_RULES_AND_OLD_NAMES)
    return RecommendRequest(
        user=fields["user"],
        likes=fields["likes"],
        dislikes=fields["dislikes"],
        ratings=fields.get("ratings", {}),
        k=fields["k"],
        candidates=fields["candidates"],
        exclude=fields["exclude"],
        include_seen=fields["include_seen"],
        hide_test=fields["hide_test"],
        rules=Rules(**{name: fields[name] for name in _RULES}) if has_rules else NO_RULES,
        explain=fields["why"],
        on_unknown=fields["on_unknown"],
        exploration=exploration_for(config, fields) if config.explore_share else None,
    )


def _by_current_names(
    fields: Mapping[str, Any], given: Collection[str], old_names: Mapping[str, str]
) -> dict[str, Any]:
    """Return fields with the values of old names under the new ones. Raises SettingError where both were given."""
    both = next((name for name, new in old_names.items() if name in given and new in given), None)
    if both is not None:
        raise SettingError(f"{both} is the old name of {old_names[both]}: give one of them")
    return {**fields, **{new: fields[name] for name, new in old_names.items() if fields[name] is not None}}


async def _recommend(service: Service, body: Any, counts: bool = True) -> dict[str, Any]:
    """Answer a request for a list. counts: it is going to be seen."""
    chosen = service.choose(body.user, body.session, body.variant)
    work = partial(_list, service, chosen, body)
    answer, given = await service.run(work, _is_expensive(body), body.user)
    if counts:  # here rather than in the work, whose answer may come too late
        service.count([given])
    return answer


def _list(service: Service, chosen: Chosen, body: Any) -> tuple[dict[str, Any], GivenList | None]:
    answer = chosen.model.recommend(_recommend_request(body, service.config))
    facts = {"short": answer.shortfall, "from": answer.origin, **chosen.facts}
    listed = {"user": chosen.model.user_id(body.user), "items": answer.entries(), **facts}
    return listed, chosen.given(answer) if body.count else None


def _add_recommend_routes(app: FastAPI, service: Service) -> None:
    @app.post(
        "/recommend",
        response_model=responses.RecommendResponse,
        summary="Recommend items to a user of the model, a new user, or an anonymous one",
    )
    async def recommend(body: schema.RecommendBody) -> Response:
        return _json(await _recommend(service, body))

    @app.get(
        "/recommend", response_model=responses.RecommendResponse, summary="The same, with the request in the address"
    )
    async def recommend_by_query(request: Request, query: Annotated[schema.RecommendQuery, Query()]) -> Response:
        return _json(await _recommend(service, query, counts=not is_head(request.scope)))

    @app.post(
        "/recommend/batch",
        response_model=responses.RecommendBatchResponse,
        summary="Several lists; if one fails, all do",
    )
    async def recommend_batch(body: schema.RecommendBatchBody) -> Response:
        fields = _by_current_names(vars(body), body.model_fields_set, {"asks": "requests"})
        requests: list[schema.RecommendBody] | None = fields["requests"]
        if requests is None:
            return _error(422, "requests: Field required")
        _check_batch(len(requests), service.config.max_batch, "requests")
        service.follow_values()
        chosen = [service.choose(r.user, r.session, r.variant, follow=False) for r in requests]
        before = chain([b'{"answers":['], repeat(b","))
        given: list[GivenList | None] = []
        lists = [partial(_list_json, service, given, *each) for each in zip(before, chosen, requests, strict=False)]
        chunks = [*await service.turns.run(lists), b"]}"]
        service.count(given)
        length = {"content-length": str(sum(map(len, chunks)))}
        return StreamingResponse(grouped(chunks), headers=length, media_type="application/json")


def _list_json(
    service: Service, lists: list[GivenList | None], before: bytes, chosen: Chosen, body: schema.RecommendBody
) -> bytes:
    """Return a list as JSON, and add what is to be counted of it to lists."""
    answer, given = _list(service, chosen, body)
    lists.append(given)
    return before + to_json(answer, inf_nan_mode="null")


def _knows(states: Sequence[FittedState], event: str) -> bool:
    return any(state.event_types.type_of(event) is not None for state in states)


def _add_event_routes(app: FastAPI, service: Service) -> None:
    """Add the routes that store, show and delete events."""

    @app.post(
        "/events",
        response_model=responses.EventsAccepted,
        summary="Store new ratings; they count from the next answer on",
    )
    async def add_events(body: schema.EventsBody) -> Response:
        _check_batch(len(body.events), service.config.max_batch, "events")
        states = [slot.model.state for slot in service.slots]
        events = [Event(str(e.user), str(e.item), e.rating, e.timestamp, e.id, e.event) for e in body.events]
        result = await asyncio.wrap_future(service.events.append(events))
        service.metrics.count_events(result.inserted)
        unknown = {
            "unknown_items": sum(all(e.item not in state.items for state in states) for e in events),
            "unknown_types": sum(e.event is not None and not _knows(states, e.event) for e in events),
        }
        return _json({"accepted": result.inserted, "repeated": result.duplicates, **unknown})

    @app.get("/events", response_model=responses.EventsResponse, summary="The events of a user")
    async def events_of(query: Annotated[schema.UserQuery, Query()]) -> Response:
        found = await service.run(lambda: service.events.by_item(str(query.user)), user=query.user)
        events = [{"item": event.item, "rating": event.rating, "types": event.types} for event in found]
        return _json({"user": query.user, "events": events})

    @app.delete("/events", response_model=responses.EventsDeleted, summary="Delete the events of a user for good")
    async def delete_events(query: Annotated[schema.UserQuery, Query()]) -> Response:
        return _json({"removed": await service.delete_user(query.user)})


def _add_item_routes(app: FastAPI, service: Service) -> None:
    """Add the routes that change and show the item table."""

    @app.patch(
        "/items",
        response_model=responses.ItemsChanged,
        summary="Set values of items, all or none; they count from the next answer on",
    )
    async def set_items(body: schema.ItemsBody) -> Response:
        _check_batch(len(body.items), service.config.max_batch, "items")
        values = [ItemValue(str(entry.item), *pair) for entry in body.items for pair in entry.set.items()]
        return _json(await service.set_items(values))

    @app.get("/items", response_model=responses.ItemsResponse, summary="Items by a part of their title, or by id")
    async def items(query: Annotated[schema.ItemsQuery, Query()]) -> Response:
        model = service.choose(variant=query.variant).model
        _check_k(query.k, service.config.max_k)
        return _json({"items": await service.run(lambda: model.items(query.query, query.k, query.item))})


def _add_lookup_routes(app: FastAPI, service: Service) -> None:
    """Add the routes about single items and users."""

    @app.get(
        "/similar",
        response_model=responses.SimilarResponse,
        summary="The items nearest to one, or the users nearest to one",
    )
    async def similar(query: Annotated[schema.SimilarQuery, Query()]) -> Response:
        chosen = service.choose(query.user, variant=query.variant)
        model = chosen.model
        _check_k(query.k, service.config.max_k)
        item, user = query.item, query.user
        if item is not None and user is None:
            found = await service.run(lambda: model.similar(item, query.k, query.by, query.min_support))
        elif user is None or item is not None:
            return _error(422, "item: one of item and user is required")
        elif query.by is not None or query.min_support:
            return _error(422, "by: by and min_support go with item")
        else:
            found = await service.run(lambda: model.similar_users(user, query.k), expensive=True)
        return _json({**found, **chosen.facts})

    @app.get("/audience", response_model=responses.AudienceResponse, summary="The users most likely to want an item")
    async def audience(query: Annotated[schema.AudienceQuery, Query()]) -> Response:
        chosen = service.choose(variant=query.variant)
        _check_k(query.k, service.config.max_k)

        def answer() -> dict[str, Any]:
            return chosen.model.audience(query.item, query.k, query.include_seen, query.hide_test)

        return _json({**await service.run(answer, expensive=True), **chosen.facts})

    @app.get("/predict", response_model=responses.PredictResponse, summary="Predict a user's rating of an item")
    async def predict(query: Annotated[schema.PredictQuery, Query()]) -> Response:
        chosen = service.choose(query.user, variant=query.variant)
        found = await service.run(lambda: chosen.model.predict(query.user, query.item), user=query.user)
        return _json({**found, **chosen.facts})

    @app.post("/explain", response_model=responses.ExplainResponse, summary="Explain an item for a user or a new user")
    async def explain(body: schema.ExplainBody) -> Response:
        chosen = service.choose(body.user, body.session, body.variant)
        request = RecommendRequest(body.user, body.likes, body.dislikes, cast(Any, body.ratings))
        found = await service.run(lambda: chosen.model.explain(request, body.item), user=body.user)
        return _json({**found, **chosen.facts})

    @app.get("/history", response_model=responses.HistoryResponse, summary="The items that a user rated")
    async def history(query: Annotated[schema.HistoryQuery, Query()]) -> Response:
        model = service.choose(query.user, variant=query.variant).model
        items = await service.run(lambda: model.history(query.user), user=query.user)
        return _json({"user": model.user_id(query.user), "items": items[: query.k], "total": len(items)})


def _add_status_routes(app: FastAPI, service: Service) -> None:
    """Add the routes for operators."""
    variant_metrics = None if service.variants is None else VariantMetrics(service.variants.outcomes)

    @app.get("/health", response_model=responses.StatusResponse, summary="Whether the process is alive")
    async def health() -> Response:
        return _json({"status": "ok"})

    @app.get("/ready", response_model=responses.StatusResponse, summary="Whether it can answer, and with which model")
    async def readiness() -> Response:
        model = service.model
        problem = service.events.problem()
        if problem is not None:
            return _error(503, problem)
        facts: dict[str, Any] = {"users": len(model.state.users), "items": len(model.state.items)}
        found = verdict(model.state.metadata.get("metrics"))
        facts |= {"columns": model.columns, "verdict": None if found is None else found.sentence}
        if service.items_file is not None:
            facts["items_error"] = service.items_error
        if service.variants is not None:
            facts["variants"] = service.variants.status()
        return _json({"status": "ready", "model": model.name, "version": model.version, **facts})

    @app.get("/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
    async def metrics() -> Response:
        text, media_type = await asyncio.to_thread(service.metrics.text)
        if variant_metrics is not None:
            text += await asyncio.to_thread(variant_metrics.text)
        return Response(text, media_type=media_type)
