"""Which places of a service's lists new items get: a user's are the same all day, so that no page flickers."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from recsys_embed.answering.request import Exploration
from recsys_embed.config.answers import ServeConfig

# What tells visitors without an id or a session apart.
_FEEDBACK = ("likes", "dislikes", "ratings")


def exploration_for(config: ServeConfig, fields: Mapping[str, Any]) -> Exploration:
    """Return the exploration of a request. fields: of the request, by name."""
    key = fields["session"] if fields["user"] is None else fields["user"]
    if key is None:
        key = [fields.get(name) for name in _FEEDBACK]
    day = datetime.datetime.now(datetime.UTC).date()
    return Exploration(config.explore_share, config.new_item_ratings, f"{key} {day}")
