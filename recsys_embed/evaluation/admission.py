"""Whether a model is good enough to be served: better lists than popularity, and than the model that it replaces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from recsys_embed.answering.predict import is_seen
from recsys_embed.data.ids import Rows
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.user_items import UserItems
from recsys_embed.errors import RecsysError
from recsys_embed.evaluation.metrics import Values, hits, ndcg
from recsys_embed.evaluation.significance import Difference, by_user, paired
from recsys_embed.state.fitted import FittedState
from recsys_embed.state.update import update

# Most users that two models are compared on, and the length of their lists.
_USERS, _LENGTH = 5_000, 10
_METRIC = "ndcg_at_10"
# Fewer users than this say nothing.
_MIN_USERS = 20


def worse_than_popularity(state: FittedState) -> str | None:
    """Return in a sentence why a model's lists were clearly worse than popularity, or None if they were not.

    A model of "stars" is not made for lists, and never worse.
    """
    if state.model.output == "stars":
        return None
    metrics: Mapping[str, Any] = state.metadata.get("metrics") or {}
    for name in ("popularity", "recent_popularity"):
        difference = ((metrics.get("baselines") or {}).get(name) or {}).get("difference")
        if difference and difference["clear"] and difference["mean"] < 0:
            return f"it is clearly worse than {name.replace('_', ' ')} ({_span(difference)} in NDCG@10, user by user)"
    return None


def _span(difference: Mapping[str, Any]) -> str:
    return f"{difference['mean']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}]"


def compare_with_served(new: FittedState, served: FittedState, known: Ratings, test: Ratings) -> Difference | None:
    """Return how much better the lists of a new model are than those of a served one, in NDCG@10, user by user.

    The served model takes in the ratings that the new one was fitted on, as a service does with events. known: these
    ratings. test: held-out positives, over the vocabularies of the new model; those that the served model was fitted on
    are left out, and so are users whom it does not know then. Returns None where too few users are left, or where the
    models cannot be compared: graphs cannot take in ratings.
    """
    test = test.take(~is_seen(served, test)).of_random_users(_USERS)
    try:
        new_to_it = known.take(np.isin(known.user, test.user) & ~is_seen(served, known))
        # Of a log it has what was viewed and not bought: nobody who reads of the comparison has a use for their number.
        served = update(served, new_to_it.take(np.isin(new_to_it.item, _known_items(served, known))), quiet=True)
    except RecsysError:
        return None
    ids = new.users.ids(np.unique(test.user))
    rows = served.users.rows(ids, missing="negative")
    users = np.unique(test.user)[rows >= 0]
    if len(users) < _MIN_USERS:
        return None
    relevant = UserItems.of(test.user, test.item, len(new.users))
    items = new.items.rows(served.items.series, missing="negative")
    lists = _lists(new, users), _lists(served, rows[rows >= 0])
    served_lists = np.where(lists[1] >= 0, items[lists[1]], -1)
    return paired(_ndcg(lists[0], relevant, users), _ndcg(served_lists, relevant, users))


def compare_as_measured(new: FittedState, served: FittedState) -> Difference | None:
    """Return how much better the test lists of a new model were than those of a served one, each as it was measured.

    It is for a served model that was fitted on everything afterwards, so that there is no test rating that it does not
    know. Returns None where they were not measured on the same test ratings, or for too few users.
    """
    tables = new.per_user, served.per_user
    same_test = new.metadata.get("test_digest") == served.metadata.get("test_digest") is not None
    if not same_test or any(table is None or _METRIC not in table.columns for table in tables):
        return None
    ours, theirs = by_user(*tables, _METRIC)  # type: ignore[arg-type]
    return paired(ours, theirs) if len(ours) >= _MIN_USERS else None


def _known_items(state: FittedState, ratings: Ratings) -> Rows:
    """Return the item rows of ratings that a state knows."""
    return np.flatnonzero(state.items.rows(ratings.items.series, missing="negative") >= 0)


def _lists(state: FittedState, users: Rows) -> Rows:
    """Return the item rows of the users' lists, -1 where there is none, [users, k]."""
    lists = np.full((len(users), _LENGTH), -1, np.int64)
    order = np.argsort(users, kind="stable")
    done = 0
    for block, ranked in state.ranker.top_k(users[order], _LENGTH, state.excluded, state.item_counts > 0):
        lists[order[done : done + len(block)], : ranked.shape[1]] = ranked
        done += len(block)
    return lists


def _ndcg(lists: Rows, relevant: UserItems, users: Rows) -> Values:
    """Return the NDCG@10 of lists [users, k], [users]."""
    return ndcg(hits(lists, relevant, users), relevant.count[users], _LENGTH)


def worse_than_served(difference: Difference | None, name: str) -> str | None:
    """Return in a sentence why a model is clearly worse than the served one of this name, or None if it is not."""
    if difference is None or not difference.significant or difference.mean > 0:
        return None
    return f"it is clearly worse than {name} ({_span(difference.summary())} in NDCG@10, user by user)"
