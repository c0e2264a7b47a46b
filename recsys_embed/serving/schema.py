"""What the service is asked and what it answers: checked, and described in its OpenAPI."""

from __future__ import annotations

from typing import Annotated, Any, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, create_model

from recsys_embed.config.fields import options
from recsys_embed.config.settings import Rules, UnknownName

_LONGEST = 10_000


def _no_switch(value: Any) -> Any:
    """Refuse true and false, which Python counts among the integers."""
    if isinstance(value, bool):
        raise ValueError("an id is an integer or text")
    return value


ItemId = Annotated[
    Annotated[int, Field(strict=True)] | Annotated[str, StringConstraints(max_length=_LONGEST)],
    BeforeValidator(_no_switch),
]
Rating = Annotated[float, Field(allow_inf_nan=False, ge=-1e6, le=1e6)]
_Ids = Annotated[list[ItemId], Field(max_length=10_000)]
_Few = Annotated[list[ItemId], Field(max_length=100)]  # in an address, which ends at 64 KB


class _Strict(BaseModel):
    """Refuses fields that it does not know, so that a misspelled one is no silent default."""

    model_config = ConfigDict(extra="forbid")


# JSON has kinds, so true is no number there; in an address all is text.
_JSON = ConfigDict(strict=True)


# One field for every field of config.Rules: none is written twice.
RulesFields = create_model(
    "RulesFields",
    __base__=_Strict,
    **{field.name: cast(Any, (kind, Field(field.default, description=text))) for field, kind, text in options(Rules)},
)


class _Asked(RulesFields):  # type: ignore[valid-type, misc]
    user: ItemId | None = Field(None, description="a user's id")
    likes: _Ids = Field([], description="items that somebody likes, by id; with a user: lately")
    dislikes: _Ids = Field([], description="items that they do not like")
    k: int = Field(10, ge=1, description="length of the list")
    why: bool = Field(False, description="say what of theirs each item is near to")
    among: _Ids | None = Field(None, description="items to choose from")
    exclude: _Ids = Field([], description="items to leave out")
    include_seen: bool = Field(False, description="show what is theirs too")
    hide_test: bool = Field(False, description="leave out what was held out for test as well")
    on_unknown: UnknownName = Field(
        "error", description="skip: leave out ids that are not known; a user then is somebody new"
    )


class RecommendQuery(_Asked):
    """A question for a list, in the address."""

    likes: _Few = Field([], description="items that somebody likes, by id; with a user: lately")
    dislikes: _Few = Field([], description="items that they do not like")
    among: _Few | None = Field(None, description="items to choose from")
    exclude: _Few = Field([], description="items to leave out")


class RecommendBody(_Asked):
    """A question for a list. Without a user, likes, dislikes and ratings it is for nobody in particular."""

    ratings: dict[Annotated[str, StringConstraints(max_length=_LONGEST)], Rating] = Field(
        {}, max_length=10_000, description="how somebody rated items, by id"
    )
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


class BatchBody(_Strict):
    """Several questions at once."""

    model_config = _JSON
    asks: list[RecommendBody] = Field(min_length=1)


class SimilarQuery(_Strict):
    """Which items are near to one."""

    item: ItemId = Field(description="an item's id")
    k: int = Field(10, ge=1, description="length of the list")


class PairQuery(_Strict):
    """A user and an item."""

    user: ItemId = Field(description="a user's id")
    item: ItemId = Field(description="an item's id")


class UserOnly(_Strict):
    """A user."""

    user: ItemId = Field(description="a user's id")


class UserQuery(UserOnly):
    """A user, and how much of theirs."""

    k: int = Field(100, ge=1, description="how many at most")


class ItemsQuery(_Strict):
    """Items by title, or by id."""

    query: str = Field("", max_length=200, description="a part of a title; without one, the most rated come")
    item: _Ids = Field([], description="instead: these items, by id")
    k: int = Field(10, ge=1, description="how many at most, by title")


class ExplainBody(_Strict):
    """Why an item, for a user or for somebody of whom only this is known."""

    model_config = _JSON
    item: ItemId = Field(description="an item's id", examples=[50])
    user: ItemId | None = Field(None, description="a user's id", examples=[42])
    likes: _Ids = Field([], description="items that somebody likes, by id")
    dislikes: _Ids = Field([], description="items that they do not like")
    ratings: dict[Annotated[str, StringConstraints(max_length=_LONGEST)], Rating] = Field({}, max_length=10_000)


class EventBody(_Strict):
    """A user rated an item, or took it."""

    model_config = _JSON
    user: ItemId
    item: ItemId
    rating: Rating | None = Field(None, description="stars; none: the user took the item, which is a like")
    timestamp: int | None = Field(None, ge=-(2**62), le=2**62, description="seconds since 1970")
    id: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = Field(
        None, description="your name for this event: sent again under it, it is kept once"
    )


class EventsBody(_Strict):
    """New ratings."""

    model_config = _JSON
    events: list[EventBody] = Field(min_length=1)
    model_config = ConfigDict(
        strict=True,
        json_schema_extra={"examples": [{"events": [{"user": 42, "item": 50, "rating": 5, "id": "a1"}]}]},
    )


class ItemRef(BaseModel):
    """An item."""

    item: int | str
    title: str


class Entry(ItemRef):
    """An item in a list. why: what of theirs it is near to, where that was asked."""

    score: float
    rank: int
    why: list[ItemRef] | None = None


class RecommendResponse(BaseModel):
    """An answer. short: why there are fewer items than asked for."""

    user: int | str | None
    items: list[Entry]
    short: str | None
    model: str


class RecommendBatchResponse(BaseModel):
    """Answers, in the order of the questions."""

    answers: list[RecommendResponse]


class Similar(BaseModel):
    """The items nearest to one, by cosine."""

    item: int | str
    items: list[Entry]
    model: str


class Prediction(BaseModel):
    """What is expected of a user and an item, in stars, a chance, or a score without unit."""

    user: int | str
    item: int | str
    title: str
    value: float
    unit: str
    model: str


class Evidence(ItemRef):
    """An item of theirs: how near it is, or what it adds to the score."""

    kind: str
    value: float


class Shared(BaseModel):
    """What is said of the item, and of so many of theirs."""

    column: str
    token: str
    items: int


class Explained(ItemRef):
    """Why an item: the parts that add up to its score, and what of theirs speaks for it."""

    user: int | str | None
    score: float
    unit: str
    value: float
    parts: dict[str, float]
    own: list[Evidence]
    rest: dict[str, float] | None
    shared: list[Shared]
    seen: bool
    model: str


class ItemList(BaseModel):
    """Items with all that their table says."""

    items: list[dict[str, Any]]


class Rated(ItemRef):
    """An item of a history."""

    rating: float | None


class History(BaseModel):
    """What a user rated: the newest events first, then what the model was fitted on, most rated items first."""

    user: int | str
    items: list[Rated]
    total: int


class EventsAccepted(BaseModel):
    """What became of events. unknown_items: how many name an item that this model does not know; they are kept too."""

    accepted: int
    repeated: int
    unknown_items: int


class Event(BaseModel):
    """An event of a user; the id of an item as it was sent, as text."""

    item: str
    rating: float | None


class Events(BaseModel):
    """What a user rated since the training, the oldest first."""

    user: int | str
    events: list[Event]


class EventsDeleted(BaseModel):
    """How many events were removed."""

    removed: int


class Health(BaseModel):
    """That the process lives, and what it answers with. columns: of the items, for `where`."""

    status: str
    model: str | None = None
    version: str | None = None
    users: int | None = None
    items: int | None = None
    columns: list[str] | None = None


class Error(BaseModel):
    """What was wrong, in one line."""

    error: str
