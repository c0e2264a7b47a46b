"""The digest of a fitted state: it changes with whatever its lists are computed from."""

from __future__ import annotations

import hashlib
import json

from recsys_embed.state.fitted import FittedState
from recsys_embed.storage.digest import update_with_arrays, update_with_frame
from recsys_embed.storage.json import jsonable


def state_digest(state: FittedState) -> str:
    """Return the SHA-256 of what lists are computed from: vectors, histories, the items and users, the trend.

    A model that was saved and loaded, or trained again to the same vectors, has the same digest.
    """
    sha = hashlib.sha256()
    arrays, metadata = state.model.save()
    sha.update(json.dumps([state.model.family, jsonable(metadata)], sort_keys=True).encode())
    update_with_arrays(sha, arrays)
    for name in ("seen", "held_out", "hidden_items", "history_items"):
        user_items = getattr(state, name)
        if user_items is not None:
            update_with_arrays(sha, {f"{name}.indptr": user_items.indptr, f"{name}.indices": user_items.indices})
    update_with_arrays(sha, {"item_counts": state.item_counts})
    update_with_frame(sha, state.users.series.rename("user_id").to_frame())
    update_with_frame(sha, state.table)
    if state.trend is not None:
        update_with_arrays(sha, {"recent": state.trend.recent, "trained": state.trend.trained})
        sha.update(repr([state.trend.time, state.trend.half_life, state.trend.weight]).encode())
    return sha.hexdigest()
