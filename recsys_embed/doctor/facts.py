"""What is in a data set, in numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys_embed.config.settings import DataConfig
from recsys_embed.data.ids import Rows
from recsys_embed.doctor.check import Examination
from recsys_embed.doctor.numbers import date_of
from recsys_embed.doctor.types import event_table

# So many different values are listed.
_VALUES = 20


def facts_of(result: Examination, config: DataConfig) -> dict[str, Any]:
    """Return the facts of an examination for JSON: sizes, types of ids, values, times, events, splits."""
    facts: dict[str, Any] = {"dataset": config.dataset}
    if result.dataset is None:
        return facts
    ratings, log = result.dataset.ratings, result.dataset.log
    per_user = np.bincount(ratings.user, minlength=len(ratings.users))
    counts, times = ratings.item_counts, (ratings if log is None else log).time
    return facts | {
        "digest": ratings.digest(),
        "users": int((per_user > 0).sum()),
        "items": int((counts > 0).sum()),
        "ratings": len(ratings),
        **({"edges": len(ratings) // 2} if ratings.is_graph else {}),
        **({} if log is None else {"events": event_table(log)}),
        "density": len(ratings) / (len(ratings.users) * len(ratings.items)),
        "repeated_rows_merged": ratings.n_duplicates,
        "user_ids": "text" if ratings.users.is_text else "integers",
        "item_ids": "text" if ratings.items.is_text else "integers",
        "values": sorted({float(v) for v in np.unique(ratings.value)[:_VALUES]}),
        "ratings_a_user": _spread(per_user),
        "ratings_an_item": _spread(counts),
        "users_below_5_ratings": int(((per_user > 0) & (per_user < 5)).sum()),
        "items_below_5_ratings": int(((counts > 0) & (counts < 5)).sum()),
        "times": None if times is None else [int(times.min()), int(times.max())],
        "dates": None if times is None else [date_of(int(times.min())), date_of(int(times.max()))],
        "splits": result.splits,
        "suits": None if result.suits is None else dict(zip(("split", "because"), result.suits, strict=True)),
    }


def _spread(counts: Rows) -> dict[str, float]:
    rated = counts[counts > 0]
    return {"min": int(rated.min()), "median": float(np.median(rated)), "max": int(rated.max())}
