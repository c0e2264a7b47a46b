"""The service's responses, as its OpenAPI document describes them."""

from __future__ import annotations

from typing import Any, Literal

from fastapi.responses import Response
from pydantic import BaseModel, Field
from pydantic_core import to_json

from recsys_embed.answering.request import ListOrigin


def json_response(content: Any, status: int = 200) -> Response:
    """Return content as JSON; numbers that JSON lacks are null."""
    return Response(to_json(content, inf_nan_mode="null"), status, media_type="application/json")


class ItemRef(BaseModel):
    """An item."""

    item: int | str
    title: str


class ListedItem(ItemRef):
    """An item in a list. why: the user's items nearest to it, if requested. from: exploration, if it is there because
    it is new rather than for its score, which is null where the model has none."""

    score: float | None
    rank: int
    why: list[ItemRef] | None = None
    origin: Literal["exploration"] | None = Field(None, alias="from")


class SimilarItem(ItemRef):
    """An item like another one. together: how many users have both. lift, confidence: by together only."""

    score: float
    rank: int
    together: int | None = None
    lift: float | None = None
    confidence: float | None = None


class ListedUser(BaseModel):
    """A user in a list. items: how many they have."""

    user: int | str
    score: float
    rank: int
    items: int


class SimilarUser(ListedUser):
    """A user like another one. common: how many items both have."""

    common: int


class AudienceResponse(ItemRef):
    """The users most likely to want an item. short: why there are fewer than requested."""

    users: list[ListedUser]
    short: str | None
    model: str
    variant: str | None = None


class RecommendResponse(BaseModel):
    """A list. short: why it holds fewer items than requested. from: what it goes by: the vector of a user of the model
    (personal) or of somebody else's events and likes (session), or what is popular lately (recent) or ever (popular).
    variant: the one that the model answers as, in a service with several models.
    """

    user: int | str | None
    items: list[ListedItem]
    short: str | None
    origin: ListOrigin = Field(alias="from")
    model: str
    variant: str | None = None


class RecommendBatchResponse(BaseModel):
    """Lists, in the order of the requests."""

    answers: list[RecommendResponse]


class SimilarResponse(BaseModel):
    """The items nearest to one, by vectors (embeddings), by their users (neighbours), or as they are had together;
    or the users nearest to one, by vectors (embeddings) or by what they have (items)."""

    item: int | str | None = None
    user: int | str | None = None
    by: str
    items: list[SimilarItem] | None = None
    users: list[SimilarUser] | None = None
    model: str
    variant: str | None = None


class PredictResponse(BaseModel):
    """The prediction for a user and an item. unit: stars, chance (a probability), or score (no unit)."""

    user: int | str
    item: int | str
    title: str
    value: float
    unit: str
    model: str
    variant: str | None = None


class Evidence(ItemRef):
    """One of the user's items: its similarity to the explained item, or its contribution to the score (kind)."""

    kind: str
    value: float


class CommonToken(BaseModel):
    """A token of the item's content, and how many of the user's items share it."""

    column: str
    token: str
    items: int


class ExplainResponse(ItemRef):
    """Why an item is recommended: the parts of its score, and the evidence among the user's items (own)."""

    user: int | str | None
    score: float
    unit: str
    value: float
    components: dict[str, float] = Field(alias="parts")
    own: list[Evidence]
    rest: dict[str, float] | None
    shared: list[CommonToken]
    seen: bool
    model: str
    variant: str | None = None


class ItemsResponse(BaseModel):
    """Items with all columns of the item table."""

    items: list[dict[str, Any]]


class HistoryItem(ItemRef):
    """An item of a user's history."""

    rating: float | None


class HistoryResponse(BaseModel):
    """A user's history: their events first, newest first, then the items of the training, most rated first."""

    user: int | str
    items: list[HistoryItem]
    total: int


class EventsAccepted(BaseModel):
    """The number of events stored, and of those stored before. unknown_items, unknown_types: events of items, and of
    types, unknown to the model.

    These are stored too, for a model that knows them.
    """

    accepted: int
    repeated: int
    unknown_items: int
    unknown_types: int


class ItemsChanged(BaseModel):
    """The number of items of the model whose values were set, and of new ones that their descriptions added to it.

    unknown_items: others, whose values are stored for a model that knows them.
    """

    changed: int
    added: int
    unknown_items: int


class StoredEvent(BaseModel):
    """A user's events of an item. item: the id as it was sent, as text. types: of the events, in the order of the
    latest of each; null: without a type."""

    item: str
    rating: float | None
    types: list[str | None]


class EventsResponse(BaseModel):
    """A user's events since the training, the oldest first."""

    user: int | str
    events: list[StoredEvent]


class EventsDeleted(BaseModel):
    """The number of events deleted."""

    removed: int


class VariantModel(BaseModel):
    """A model among several."""

    variant: str
    model: str
    version: str
    users: int
    items: int


class StatusResponse(BaseModel):
    """Whether the service is up, and which model answers. columns: of the items, for `where`. verdict: how the model
    compared with the best baseline when it was trained; null where that was not measured. items_error: why the file of
    items is not taken as it is, if so. variants: all models, if there are several; model is the first then."""

    status: str
    model: str | None = None
    version: str | None = None
    users: int | None = None
    items: int | None = None
    columns: list[str] | None = None
    verdict: str | None = None
    items_error: str | None = None
    variants: list[VariantModel] | None = None


class VariantOutcome(BaseModel):
    """What came of a variant. users: who got a list from it first; lists: that it gave them; converted: users with a
    target event after their first list; events: those events; hits: those of an item in the user's last lists. rate:
    the share of users who converted, and its interval. difference: the rate minus that of the first variant, and its
    interval; lift: the difference relative to that rate. The intervals hold with 95 % at all times together."""

    name: str
    model: str | None
    share: float
    users: int
    lists: int
    converted: int
    events: int
    hits: int
    rate: float | None
    interval: list[float] | None
    difference: float | None
    difference_interval: list[float] | None
    lift: float | None


class VariantsResponse(BaseModel):
    """An A/B test of the variants. target: the types of events that count. verdict: which is better, or how many more
    users it takes; warning: what is wrong with the test."""

    ab_test: str
    started: str
    target: str
    variants: list[VariantOutcome]
    verdict: str
    warning: str | None


class ErrorResponse(BaseModel):
    """What was wrong, in one line."""

    error: str
