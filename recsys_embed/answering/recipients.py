"""Recipients: the users whom a file of lists is for, and what each list may hold."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys_embed.answering.rank import check_k
from recsys_embed.answering.recommend import compile_rules
from recsys_embed.answering.request import RecommendRequest
from recsys_embed.answering.tables import one_or_more
from recsys_embed.config.answers import NO_RULES
from recsys_embed.config.fields import settings
from recsys_embed.data.ids import Rows, row_labels
from recsys_embed.data.users_table import UsersTable, users_table
from recsys_embed.errors import DataError, SettingError
from recsys_embed.state.fitted import FittedState
from recsys_embed.storage.digest import frame_digest

log = logging.getLogger("recsys_embed")

# The columns of lists, in all shapes.
_OF_LISTS = re.compile(r"user_id|item_id|title|score|rank|items|(?:item|title|score)_\d+")
# So many ids are written out in a description; of more there is a digest.
_MAX_IDS = 20
_NONE, _NOTHING = pl.DataFrame(), pl.DataFrame({"where": [None], "k": [None]}, {"where": pl.String, "k": pl.Int64})


@dataclass(frozen=True, eq=False)
class Recipients:
    """The users whom lists are for, each once, by id [n] and by row, int64 [n]: -1 for strangers.

    Strangers get what is popular. requests: what lists may hold; the users that they name are ignored. group [n]: which
    of the requests a user's list answers. columns [n, c]: what is written beside a user's list. own [requests, 2]: what
    the users of a request ask for themselves (`where`, `k`), null for nothing.
    """

    ids: pl.Series
    rows: Rows
    requests: Sequence[RecommendRequest]
    group: Rows
    columns: pl.DataFrame
    own: pl.DataFrame

    @classmethod
    def alike(cls, state: FittedState, rows: Rows, request: RecommendRequest) -> Recipients:
        """Return users of the model whose lists may all hold the same."""
        return cls(state.users.ids(rows), rows, [request], np.zeros(len(rows), np.int64), _NONE, _NOTHING)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def k(self) -> int:
        """The length of the longest list."""
        return max(request.k for request in self.requests)

    def slice(self, start: int, stop: int) -> Recipients:
        """Return some of the users, in their order."""
        columns = self.columns[start:stop] if self.columns.width else self.columns
        ids, rows, group = self.ids[start:stop], self.rows[start:stop], self.group[start:stop]
        return replace(self, ids=ids, rows=rows, group=group, columns=columns)

    def at(self, moment: str) -> Recipients:
        """Return them with a date for `today` and `now` where they have none, so that all lists are of one moment."""
        requests = [
            request if request.rules.as_of else replace(request, rules=replace(request.rules, as_of=moment))
            for request in self.requests
        ]
        return replace(self, requests=requests)

    def describe(self) -> dict[str, Any]:
        """Return who they are, and what differs among them, as JSON values."""
        frame = pl.DataFrame({"user_id": self.ids}).hstack(self.own[self.group])
        frame = frame.hstack(self.columns.rename(lambda name: f"column {name}").get_columns())
        return {"count": len(self), "sha256": frame_digest(frame)}


def describe_request(state: FittedState, request: RecommendRequest) -> dict[str, Any]:
    """Return what all lists of a file go by, as JSON values."""

    def short(ids: Sequence[Any] | None) -> Any:
        if ids is None or len(ids) <= _MAX_IDS:
            return None if ids is None else list(ids)
        return {"count": len(ids), "sha256": frame_digest(pl.DataFrame({"id": list(ids)}))}

    return {
        "k": request.k, **settings(request.rules), "candidates": short(request.candidates),
        "exclude": short(request.exclude), "include_seen": request.include_seen, "hide_test": request.hide_test,
        "index": state.index_name,
    }  # fmt: skip


def find_recipients(state: FittedState, users: Any, request: RecommendRequest) -> Recipients:
    """Return the users whom a caller names: by one id or several, by a table, or by the `Path` of a file.

    Raises what `recipients_of` does.
    """
    if isinstance(users, Path):
        from recsys_embed.sources.users_file import read_users

        return recipients_of(state, read_users(users), request)
    if hasattr(type(users), "columns"):  # a table; asking a lazy one itself costs a warning
        return recipients_of(state, users_table(users), request)
    ids = list(one_or_more(state.users, users))
    if any(isinstance(id_, str) for id_ in ids):  # 42 and "42" are the same user
        ids = [str(id_) for id_ in ids]
    return recipients_of(state, users_table(pl.DataFrame({"user_id": ids})), request)


def recipients_of(state: FittedState, users: UsersTable, request: RecommendRequest) -> Recipients:
    """Return the users in a table, each once, with the request changed by what their own row says.

    A condition of a user holds beside that of the request. A user's first row counts. Unknown users are
    strangers, left out, or an UnknownId, by the request's on_unknown. Raises DataError for a condition that does not
    fit the items.
    """
    check_k(request.k)
    rows = state.users.rows(users.ids, missing="raise" if request.on_unknown == "error" else "negative")
    ids = _ids_in_lists(state, users.ids, rows)
    at = ids.arg_unique().sort().to_numpy()
    n_unknown, strangers = int((rows < 0).sum()), request.on_unknown == "popular"
    if n_unknown:
        what = "their lists hold what is popular" if strangers else "left out"
        log.warning("%s of %s users are unknown: %s", f"{n_unknown:,}", f"{len(rows):,}", what)
    if n_again := len(rows) - len(at):
        log.warning("rows of users who came before are left out: %s", f"{n_again:,}")
    at = at if strangers else at[rows[at] >= 0]
    clashing = [name for name in users.columns.columns if _OF_LISTS.fullmatch(name)]
    if clashing:
        names = ", ".join(clashing)
        log.warning("columns of the users are left out, since lists have columns of these names: %s", names)
    own = pl.DataFrame({"where": users.where, "k": users.k})
    groups = own[at].unique(maintain_order=True).with_row_index("group")
    if not len(groups):
        return Recipients.alike(state, rows[at], request)
    group = own[at].join(groups, on=["where", "k"], how="left", nulls_equal=True, maintain_order="left")["group"]
    requests = [_own_request(state, request, where, k, users) for where, k in groups.select("where", "k").iter_rows()]
    columns = users.columns.drop(clashing)
    return Recipients(
        ids[at], rows[at], requests, group.cast(pl.Int64).to_numpy(), columns[at] if columns.width else _NONE,
        groups.drop("group"),
    )  # fmt: skip


def _ids_in_lists(state: FittedState, ids: pl.Series, rows: Rows) -> pl.Series:
    """Return the ids of users, by row, as the model has them, and the `ids` of strangers; all as text if one must."""
    known = state.users.ids(np.maximum(rows, 0))
    if known.dtype != pl.String and ids.dtype == pl.String:
        numbers = ids.cast(known.dtype, strict=False)
        if ((numbers.cast(pl.String) != ids).fill_null(value=True) & pl.Series(rows < 0)).any():
            known = known.cast(pl.String)
        else:
            ids = numbers
    return known.zip_with(pl.Series(rows >= 0), ids.cast(known.dtype)).alias("user_id")


def _own_request(
    state: FittedState, request: RecommendRequest, where: str | None, k: int | None, users: UsersTable
) -> RecommendRequest:
    """Return the request of users with a condition and a length of their own, None for none."""
    rules = request.rules
    if where is not None:
        rules = replace(rules, where=where if rules.where is None else f"({rules.where}) and ({where})")
        try:
            for condition in dict.fromkeys((where, rules.where)):  # by itself first: an error tells its own characters
                compile_rules(state, replace(NO_RULES, where=condition, as_of=rules.as_of), None, ())
        except SettingError as error:
            place = row_labels((users.where == where).fill_null(value=False), users.row_label)
            raise DataError(f"the condition in {place} of the users: {error}") from None
    return replace(request, rules=rules, k=request.k if k is None else k)
