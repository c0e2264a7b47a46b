"""Audiences: the users most likely to want an item; and users alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys_embed.answering.list_files import Progress, Written, write_lists
from recsys_embed.answering.rank import check_k
from recsys_embed.answering.tables import rows_of
from recsys_embed.arrays import Floats
from recsys_embed.config.answers import OutputConfig
from recsys_embed.data.ids import Id, Rows
from recsys_embed.data.user_items import UserItems
from recsys_embed.forks import needs_threads
from recsys_embed.retrieval.base import NO_ROWS, Mask
from recsys_embed.retrieval.topk import topk
from recsys_embed.state.digest import state_digest
from recsys_embed.state.fitted import FittedState
from recsys_embed.storage.part_folder import ALONE, Facts, Team
from recsys_embed.storage.table_files import Append

# Items whose audiences are found together.
_BLOCK = 1024


def audience(
    state: FittedState, items: Id | Iterable[Id], k: int = 100, include_seen: bool = False, hide_test: bool = False
) -> pl.DataFrame:
    """Return the k users most likely to want each item; see `Recommender.audience`."""
    return pl.concat(iter_audiences(state, rows_of(state.items, items), k, include_seen, hide_test))


@needs_threads("audiences")
def iter_audiences(
    state: FittedState,
    items: Rows,
    k: int = 100,
    include_seen: bool = False,
    hide_test: bool = False,
    exclude: Rows = NO_ROWS,
) -> Iterator[pl.DataFrame]:
    """Yield the audiences of items, by row, block by block: item_id, title, user_id, score, rank.

    exclude: user rows that no audience may hold, ascending. For the rest see `Recommender.audience`.
    """
    check_k(k)
    owners, known = _owners(state, include_seen, hide_test), _known(state)
    known, unknown = _without(known, exclude), _without(~known, exclude)
    for start in range(0, max(1, len(items)), _BLOCK):
        block = items[start : start + _BLOCK]
        excluded = owners.pairs_of(block)
        scores, users = state.user_index.search(block, k, None if known.all() else known, excluded)
        if unknown.any() and users.shape[1]:
            left = np.flatnonzero(users[:, 0] < 0)  # nobody of whom something is known is left for these
            if len(left):
                pairs = owners.pairs_of(block[left])
                scores[left], users[left] = state.user_index.search(block[left], k, unknown, pairs)
        yield _as_table(state, block, scores, users)


@needs_threads("audiences")
def write_audiences(
    state: FittedState,
    out: str | Path,
    k: int = 100,
    include_seen: bool = False,
    hide_test: bool = False,
    progress: Progress = lambda done, total: None,
    output: OutputConfig = OutputConfig(),  # noqa: B008
    team: Team = ALONE,
) -> Written:
    """Write item_id, user_id, score, rank of the audiences of all items to a file or to a folder of parts.

    out: a folder if it is one, or ends in a slash; see `answering.batch.write_recommendations`. progress: called with
    the number of items that are done, and of all. team: processes that share the parts.
    """
    check_k(k)

    def describe() -> dict[str, Any]:
        model = {"sha256": state_digest(state)}
        return {"k": k, "include_seen": include_seen, "hide_test": hide_test, "model": model}

    def write(append: Append, start: int, stop: int, moment: str, tick: Callable[[int], None]) -> Facts:
        items, done = np.arange(start, stop), 0
        facts: Facts = {"items": len(items), "rows": 0, "lists": 0, "without_list": []}
        for frame in iter_audiences(state, items, k, include_seen, hide_test):
            append(frame.select("item_id", "user_id", "score", "rank"))
            block, found = items[done : done + _BLOCK], state.items.rows(frame["item_id"].unique())
            facts["without_list"] += state.items.ids(np.setdiff1d(block, found)).to_list()
            facts["rows"] += frame.height
            facts["lists"] += len(found)
            done += len(block)
            tick(done)
        return facts

    return write_lists(out, output, "audiences", len(state.items), k, describe, write, progress, team)


def audience_entries(
    state: FittedState, item: int, k: int, include_seen: bool, hide_test: bool, exclude: Rows = NO_ROWS
) -> dict[str, Any]:
    """Return the audience of an item row as `recsys audience --json` and the service do.

    users: their ids, scores, ranks and numbers of items. short: why there are fewer than k, or that nothing is known
    of those listed; else None.
    """
    frames = iter_audiences(state, np.array([item]), k, include_seen, hide_test, exclude)
    table = pl.concat(frames).select(user="user_id", score="score", rank="rank")
    rows = state.users.rows(table["user"])
    table = table.with_columns(items=state.seen.count[rows])
    owners = _owners(state, include_seen, hide_test)[item]
    return {"users": table.to_dicts(), "short": _shortfall(state, k, rows, len(np.union1d(owners, exclude)))}


def _shortfall(state: FittedState, k: int, rows: Rows, n_excluded: int) -> str | None:
    known = _known(state)
    what = "nodes" if state.is_graph else "users"
    if len(rows) and not known[rows].any():
        return f"no other user is left: nothing is known of these {what}, so that their order says little"
    if len(rows) == min(k, len(known)):
        return None
    text = f"{len(rows):,} of {k:,}: the model has {len(known):,} {what}, {n_excluded:,} of them have the item already"
    n_unknown = int((~known).sum())
    return text + (f", {n_unknown:,} have no history, so that nothing is known of them" if n_unknown else "")


def _known(state: FittedState) -> Mask:
    """Return of which users anything is known, bool [users]."""
    known: Mask = (state.seen if state.history_items is None else state.history_items).count > 0
    return known


def _without(users: Mask, rows: Rows) -> Mask:
    users = users.copy()
    users[rows] = False
    return users


def _owners(state: FittedState, include_seen: bool, hide_test: bool) -> UserItems:
    """Return, for each item, the users whom its audience leaves out."""
    owners = state.owners
    if include_seen:
        owners = UserItems.empty(len(state.items))
        owners = owners.with_self_loops() if state.is_graph else owners
    return owners.union(state.held_out.transposed(len(state.items))) if hide_test else owners


def _as_table(state: FittedState, items: Rows, scores: Floats, users: Rows) -> pl.DataFrame:
    """Return audiences (scores and user rows [b, k], best first, padded with row -1) as one long table."""
    line, rank = np.nonzero(users >= 0)
    return pl.DataFrame(
        {
            "item_id": state.items.ids(items[line]),
            "title": state.table["title"].gather(items[line]),
            "user_id": state.users.ids(users[line, rank]),
            "score": scores[line, rank],
            "rank": rank + 1,
        }
    )


def similar_users(state: FittedState, users: Id | Iterable[Id], k: int = 10) -> pl.DataFrame:
    """Return the k users most similar to each user; see `Recommender.similar_users`."""
    check_k(k)
    rows, known = rows_of(state.users, users), _known(state)
    shape = len(rows), min(k, len(state.users))
    common = np.zeros(shape, np.int64)
    if state.has_user_vectors:
        scores, nearest = state.user_cosine_index.neighbours(rows, k, None if known.all() else known)
        for line, row in enumerate(rows.tolist()):
            common[line] = _common_items(state, row)[nearest[line]]
    else:
        scores, nearest = np.empty(shape, np.float32), np.empty(shape, np.int64)
        for line, row in enumerate(rows.tolist()):
            shared = _common_items(state, row)
            cosine = shared / np.sqrt(np.maximum(1, state.seen.count * state.seen.count[row]))
            cosine[(shared == 0) | (np.arange(len(shared)) == row)] = -np.inf
            best, at = topk(cosine[None].astype(np.float32), k)
            scores[line], nearest[line], common[line] = best[0], at[0], shared[at[0]]
    lines, rank = np.nonzero(nearest >= 0)
    return pl.DataFrame(
        {
            "of": state.users.ids(rows[lines]),
            "user_id": state.users.ids(nearest[lines, rank]),
            "score": scores[lines, rank],
            "rank": rank + 1,
            "common": common[lines, rank],
            "items": state.seen.count[nearest[lines, rank]],
        }
    )


def similar_user_entries(state: FittedState, user: Id, k: int = 10) -> dict[str, Any]:
    """Return the users similar to one as `recsys similar --user … --json` and the service do: by, users."""
    table = similar_users(state, user, k).drop("of").rename({"user_id": "user"})
    return {"by": "embeddings" if state.has_user_vectors else "items", "users": table.to_dicts()}


def _common_items(state: FittedState, row: int) -> Rows:
    """Return how many items a user has in common with each user, int64 [users]."""
    _, users = state.users_of_items.pairs_of(state.seen[row])
    return np.bincount(users, minlength=len(state.users))
