"""The settings of what is done with a trained model: lists, the service, maps, word vectors."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

from recsys_embed.config.fields import check, check_choices, parse_names
from recsys_embed.config.variants import Variant, parse_share, parse_variants
from recsys_embed.errors import SettingError

ProjectionName = Literal["auto", "pca", "tsne", "umap"]
IndexName = Literal["exact", "approximate"]
ListShape = Literal["long", "wide", "json"]
OnUnknown = Literal["error", "skip", "popular"]
TableFormat = Literal["parquet", "csv", "jsonl"]
_ORIGIN = re.compile(r"https?://[^\s/*?#@\\]+")


@dataclass(frozen=True)
class WordsConfig:
    """The word vectors that a `recsys words` command reads."""

    vectors: Annotated[str, "name of word vectors, or a GloVe, word2vec or fastText file"] = "glove-6b-50d"
    data_dir: Annotated[str | None, "folder of downloads (default: $RECSYS_DATA, ./data, or the user's cache)"] = None
    offline: Annotated[bool, "never use the network"] = False


@dataclass(frozen=True)
class MapConfig:
    """What a map of a model shows."""

    method: Annotated[ProjectionName, "how vectors are projected to two dimensions (auto: t-SNE)"] = "auto"
    colour: Annotated[str | None, "column that colours the points (default: genres or other tags, or ratings)"] = None
    users: Annotated[bool, "show users too, among the items nearest to their vectors"] = False
    min_support: Annotated[int, "leave out items with fewer training ratings (0: keeps unrated items with content)"] = 0
    seed: Annotated[int, "seed of the layout"] = 0

    def __post_init__(self) -> None:
        check_choices(self)
        check(self.min_support >= 0, "min_support", self.min_support, "0 or more")
        check(self.seed >= 0, "seed", self.seed, "0 or more")


@dataclass(frozen=True)
class Rules:
    """Which items a list may hold, and how it is ordered besides by score."""

    where: Annotated[str | None, "only items that match, e.g. \"year >= 1990 and 'Comedy' in genres\""] = None
    boost: Annotated[str | None, "add to the scores of matching items: EXPRESSION: AMOUNT; EXPRESSION: AMOUNT"] = None
    per_group: Annotated[str | None, "most items of one group: COLUMN: NUMBER, e.g. genres: 2"] = None
    diversity: Annotated[float, "weight of being unlike the items above, from 0 to 1"] = 0.0
    min_support: Annotated[int, "only items with at least this many training ratings"] = 0
    max_support: Annotated[int | None, "only items with at most this many training ratings"] = None
    as_of: Annotated[str | None, "date that today and now stand for in conditions, e.g. 2026-12-24"] = None

    def __post_init__(self) -> None:
        for name in ("where", "boost", "per_group", "as_of"):
            value = getattr(self, name)
            check(value is None or isinstance(value, str), name, value, "text")
        check(0 <= self.diversity <= 1, "diversity", self.diversity, "from 0 to 1")
        check(self.min_support >= 0, "min_support", self.min_support, "0 or more")
        maximum = self.max_support
        check(maximum is None or maximum >= self.min_support, "max_support", maximum, "at least min-support")


@dataclass(frozen=True)
class OutputConfig:
    """How lists of many users, or audiences of all items, are written to a folder of parts."""

    format: Annotated[TableFormat | None, "format of the parts, where --out is a folder (default: parquet)"] = None
    per_part: Annotated[int | None, "lists in a part, where --out is a folder (default: of about a million rows)"] = (
        None
    )
    overwrite: Annotated[bool, "write all parts of a folder anew, whatever it holds of other lists"] = False

    def __post_init__(self) -> None:
        check_choices(self)
        check(self.per_part is None or self.per_part >= 1, "per_part", self.per_part, "at least 1")


@dataclass(frozen=True)
class ServeConfig:
    """Which model is served, where, and within which limits."""

    model: Annotated[
        str | None, "model folder, or models:/NAME@ALIAS of MLflow; newer ones replace it (default: newest in models/)"
    ] = None
    variant: Annotated[
        list[str] | None,
        "several models, each for a share of the users: NAME=MODEL or NAME:SHARE%=MODEL; repeat it for each",
    ] = None
    ab_test: Annotated[
        str, "name of the comparison of variants: another one assigns users anew and counts from the start"
    ] = "default"
    target: Annotated[
        str | None, "types of events that variants are compared by (default: the targets of the first one's model)"
    ] = None
    explore_new: Annotated[str, "share of the places in lists that is given to new items, e.g. 5%"] = "0%"
    new_item_ratings: Annotated[int, "most training ratings of an item that is new"] = 5
    host: Annotated[str, "address to listen on; any but this machine's own needs a token"] = "127.0.0.1"
    port: Annotated[int, "port to listen on; 0: a free one"] = 8000
    workers: Annotated[int, "number of processes; they share the vectors"] = 1
    events: Annotated[
        str | None, "file of ratings and values of items received since the training (default: events.db here)"
    ] = None
    items: Annotated[
        str | None, "table of items (CSV, Parquet) with current values, read again whenever it changes"
    ] = None
    token: Annotated[
        str | None, "token that requests must send as Authorization: Bearer … (default: $RECSYS_TOKEN)"
    ] = None
    cors: Annotated[
        str | None, "web pages elsewhere that may ask from a browser, by origin: https://shop.example,… (default: none)"
    ] = None
    index: Annotated[IndexName, "how items are found: exact, or approximate (for millions of items)"] = "exact"
    max_k: Annotated[int, "longest list that may be requested"] = 1000
    max_batch: Annotated[int, "most lists or events in one request"] = 1000
    max_body: Annotated[int, "most bytes in a request's body"] = 1_000_000
    timeout: Annotated[float, "seconds that a request may take"] = 10.0
    reload_interval: Annotated[float, "seconds between checks for a new model; 0: never"] = 2.0
    allow_worse: Annotated[bool, "serve a model even if its lists are clearly worse than popularity"] = False
    log_requests: Annotated[bool, "write a line of JSON to stderr for every request"] = False
    tracking_uri: Annotated[str | None, "MLflow store (default: $MLFLOW_TRACKING_URI or sqlite:///mlflow.db)"] = None

    def __post_init__(self) -> None:
        check_choices(self)
        check(0 <= self.port <= 65_535, "port", self.port, "from 0 to 65535")
        for name in ("workers", "max_k", "max_batch", "max_body"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        check(not self.variants or self.model is None, "model", self.model, "left out where --variant names models")
        check(0 < len(self.ab_test) <= 200, "ab_test", repr(self.ab_test), "a name of at most 200 characters")
        check(0 <= self.explore_share <= 0.5, "explore_new", self.explore_new, "at most 50%")
        check(self.new_item_ratings >= 0, "new_item_ratings", self.new_item_ratings, "0 or more")
        check(0 < self.timeout < math.inf, "timeout", self.timeout, "above 0")
        check(0 <= self.reload_interval < math.inf, "reload_interval", self.reload_interval, "0 or more")
        check(self.secret is None or len(self.secret) >= 8, "token", "a shorter one", "at least 8 characters")
        for origin in self.origins:
            check(_ORIGIN.fullmatch(origin) is not None, "cors", origin, "origins such as https://shop.example")
        if self.secret is None and not self.local:
            raise SettingError(
                f"host {self.host} can be reached from other machines: give a --token (or set RECSYS_TOKEN), "
                "or listen on 127.0.0.1"
            )

    @cached_property
    def variants(self) -> tuple[Variant, ...]:
        """The models that are compared, the first of which is the one that others are compared with; () for one."""
        return parse_variants(self.variant or ())

    @cached_property
    def explore_share(self) -> float:
        """The share of the places in lists that is given to new items."""
        return parse_share(self.explore_new, "explore-new")

    @property
    def secret(self) -> str | None:
        """The token that requests must send, or None."""
        return self.token or os.environ.get("RECSYS_TOKEN") or None

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins of other pages that may ask, as browsers write them."""
        return tuple(origin.lower().removesuffix("/") for origin in parse_names(self.cors))

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the service."""
        return self.host in ("127.0.0.1", "::1", "localhost")


NO_RULES = Rules()
