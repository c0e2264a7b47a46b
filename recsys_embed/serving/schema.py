"""The service's requests: validated, and described in its OpenAPI document."""

from __future__ import annotations

import json
from typing import Annotated, Any, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, create_model, field_validator

from recsys_embed.answering.items import SimilarBy
from recsys_embed.config.answers import OnUnknown, Rules
from recsys_embed.config.fields import options

_MAX_ID_LENGTH = 10_000


def _not_bool(value: Any) -> Any:
    """Refuse true and false, which Python counts among the integers."""
    if isinstance(value, bool):
        raise ValueError("an id is an integer or text")
    return value


# Blanks around an id are no part of it, as in files.
_TextId = Annotated[str, StringConstraints(max_length=_MAX_ID_LENGTH, strip_whitespace=True)]
ItemId = Annotated[Annotated[int, Field(strict=True)] | _TextId, BeforeValidator(_not_bool)]
_StoredId = Annotated[  # an id that is missing in a file stops a training
    Annotated[int, Field(strict=True)] | Annotated[_TextId, StringConstraints(min_length=1)], BeforeValidator(_not_bool)
]
Rating = Annotated[float, Field(allow_inf_nan=False, ge=-1e6, le=1e6)]
_Ids = Annotated[list[ItemId], Field(max_length=10_000)]
_UrlIds = Annotated[list[ItemId], Field(max_length=100)]  # an address ends at 64 KB
_Ratings = Annotated[dict[_TextId, Rating], Field(max_length=10_000)]


def _seconds(value: Any) -> Any:
    """Refuse dates and text: files may hold times of many forms, a request only one."""
    if not isinstance(value, int | None):
        raise ValueError(f"a time is whole seconds since 1970, such as 1767189900, not {value!r:.40}")
    return value


class _Strict(BaseModel):
    """Refuses unknown fields, so that a misspelled one is not silently ignored."""

    model_config = ConfigDict(extra="forbid")


# JSON has types, so true is no number there; in an address everything is text.
_JSON = ConfigDict(strict=True)

# Old names of fields, still accepted; `app` reads them under the new names. They are optional fields of their own
# rather than aliases, so that the OpenAPI document lists them as deprecated.
OLD_NAMES = {"among": "candidates", "min_ratings": "min_support", "max_ratings": "max_support"}


def _old_name(of: str) -> Any:
    return Field(None, deprecated=True, description=f"old name of {of}")


# One field for each field of config.answers.Rules.
RulesFields = create_model(
    "RulesFields",
    __base__=_Strict,
    **{field.name: cast(Any, (kind, Field(field.default, description=text))) for field, kind, text in options(Rules)},
)


_Variant = Annotated[str, StringConstraints(max_length=200)] | None
_VARIANT = Field(None, description="the variant that is to answer, for tests: its list does not count")


class _RecommendFields(RulesFields):  # type: ignore[valid-type, misc]
    user: ItemId | None = Field(None, description="a user's id")
    session: ItemId | None = Field(
        None, description="instead: a key of the visitor, such as a cookie, which always gets the same variant"
    )
    variant: _Variant = _VARIANT
    count: bool = Field(True, description="false: the list counts for no variant, as nobody sees it but for a trial")
    likes: _Ids = Field([], description="ids of items that a new user likes; with user: likes lately")
    dislikes: _Ids = Field([], description="ids of items that the user dislikes")
    k: int = Field(10, ge=1, description="length of the list")
    why: bool = Field(False, description="name, for each item, the user's items that are nearest to it")
    candidates: _Ids | None = Field(None, description="ids of the items to choose from")
    exclude: _Ids = Field([], description="ids of items to leave out")
    include_seen: bool = Field(False, description="include the user's own items")
    hide_test: bool = Field(False, description="leave out the user's held-out items as well")
    on_unknown: OnUnknown = Field(
        "error", description="skip or popular: leave out unknown ids; an unknown user is then a new user"
    )
    among: _Ids | None = _old_name("candidates")
    min_ratings: int | None = _old_name("min_support")
    max_ratings: int | None = _old_name("max_support")


class RecommendQuery(_RecommendFields):
    """A request for a list, in the address."""

    likes: _UrlIds = Field([], description="ids of items that a new user likes; with user: likes lately")
    dislikes: _UrlIds = Field([], description="ids of items that the user dislikes")
    candidates: _UrlIds | None = Field(None, description="ids of the items to choose from")
    exclude: _UrlIds = Field([], description="ids of items to leave out")
    among: _UrlIds | None = _old_name("candidates")


class RecommendBody(_RecommendFields):
    """A request for a list. Without user, likes, dislikes and ratings it is for an anonymous user."""

    ratings: _Ratings = Field({}, description="the user's ratings, by item id")
    model_config = ConfigDict(
        strict=True,
        json_schema_extra={
            "examples": [
                {"user": 42, "k": 10},
                {"likes": [50, 181], "dislikes": [1], "k": 5, "why": True},
                {"ratings": {"50": 5, "1": 2}, "where": "ratings >= 20", "diversity": 0.3},
            ]
        },
    )


class RecommendBatchBody(_Strict):
    """Several requests for lists at once."""

    model_config = _JSON
    requests: list[RecommendBody] | None = Field(None, min_length=1, description="one request for each list (required)")
    asks: list[RecommendBody] | None = Field(None, min_length=1, deprecated=True, description="old name of requests")


class AudienceQuery(_Strict):
    """A request for the users most likely to want an item."""

    item: ItemId = Field(description="an item's id")
    k: int = Field(100, ge=1, description="how many users at most")
    include_seen: bool = Field(False, description="include users who have the item already")
    hide_test: bool = Field(False, description="leave out users for whom the item is held out as well")
    variant: _Variant = _VARIANT


class SimilarQuery(_Strict):
    """A request for the items nearest to an item, or for the users nearest to a user."""

    item: ItemId | None = Field(None, description="an item's id")
    user: ItemId | None = Field(None, description="instead: a user's id")
    k: int = Field(10, ge=1, description="length of the list")
    by: SimilarBy | None = Field(
        None, description="nearest vectors, rated by the same users, or had together more often than by chance"
    )
    min_support: int = Field(0, ge=0, description="only items with at least this many training ratings")
    variant: _Variant = _VARIANT


class PredictQuery(_Strict):
    """A user and an item."""

    user: ItemId = Field(description="a user's id")
    item: ItemId = Field(description="an item's id")
    variant: _Variant = _VARIANT


class UserQuery(_Strict):
    """A user."""

    user: ItemId = Field(description="a user's id")


class HistoryQuery(UserQuery):
    """A user, and the length of their history."""

    k: int = Field(100, ge=1, description="how many items at most")
    variant: _Variant = _VARIANT


class ItemsQuery(_Strict):
    """Items by title, or by id."""

    query: str = Field("", max_length=200, description="a part of a title; if empty, the most rated items")
    item: _Ids = Field([], description="instead: ids of the items")
    k: int = Field(10, ge=1, description="how many items at most, if found by title")
    variant: _Variant = _VARIANT


class ExplainBody(_Strict):
    """A request to explain an item, for a user of the model or a new one."""

    model_config = _JSON
    item: ItemId = Field(description="an item's id", examples=[50])
    user: ItemId | None = Field(None, description="a user's id", examples=[42])
    likes: _Ids = Field([], description="ids of items that a new user likes; with user: likes lately")
    dislikes: _Ids = Field([], description="ids of items that the user dislikes")
    ratings: _Ratings = Field({}, description="the user's ratings, by item id")
    session: ItemId | None = Field(None, description="instead of user: a key of the visitor, see recommend")
    variant: _Variant = _VARIANT


class EventBody(_Strict):
    """A user rated or took an item."""

    model_config = _JSON
    user: _StoredId
    item: _StoredId
    rating: Rating | None = Field(None, description="the rating; without one, the user took the item: a like")
    event: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = Field(
        None,
        description="its type, such as view: it counts and hides as in training; without one it is a like",
    )
    timestamp: Annotated[int | None, BeforeValidator(_seconds)] = Field(
        None, ge=-(2**62), le=2**62, description="seconds since 1970"
    )
    id: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = Field(
        None, description="your id of this event: an event that is sent twice under one id is stored once"
    )


class EventsBody(_Strict):
    """New ratings."""

    events: list[EventBody] = Field(min_length=1)
    model_config = ConfigDict(
        strict=True,
        json_schema_extra={
            "examples": [
                {"events": [{"user": 42, "item": 50, "rating": 5, "id": "a1"}]},
                {"events": [{"user": 42, "item": 50, "event": "view", "id": "a2"}]},
            ]
        },
    )


class ItemValuesBody(_Strict):
    """New values of an item."""

    model_config = _JSON
    item: ItemId
    set: dict[str, Any] = Field(
        min_length=1,
        description="values by column: numbers, texts, true, false, lists of texts, or null; dates as ISO text",
    )

    @field_validator("set")
    @classmethod
    def _check_text(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Refuse halves of surrogate pairs, which JSON can hold, and no file."""
        try:
            json.dumps(values, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a text is not valid Unicode") from None
        return values


class ItemsBody(_Strict):
    """New values of items: of price, stock, or any other column, which may be a new one."""

    items: list[ItemValuesBody] = Field(min_length=1, description="items, each with its new values")
    model_config = ConfigDict(
        strict=True,
        json_schema_extra={"examples": [{"items": [{"item": 50, "set": {"stock": 3, "price": 9.5}}]}]},
    )
