"""Users and items: those with one rating, users who do more than people can, and the item table."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from recsys_embed.data.dataset import Dataset
from recsys_embed.data.ids import Rows
from recsys_embed.data.vocab import Vocab
from recsys_embed.doctor.codes import N_EXAMPLES, Finding, Severity, finding, plural, share_of

# Nobody does so much on a day; nor, where there are many users, has one of them such a share of all rows.
_MAX_A_DAY, _MAX_SHARE, _MANY_USERS, _TIMES_MEDIAN = 2_000, 0.05, 100, 50
# From which share on single ratings and lacking items are pointed out.
_MANY, _DAY = 0.05, 86_400


def find_single(vocab: Vocab, counts: Rows) -> Iterator[Finding]:
    """Yield users, or items, with one rating, if these are many. counts: the ratings of each, [n]."""
    single, rated = int((counts == 1).sum()), int((counts > 0).sum())
    if rated and single >= _MANY * rated:
        code = "D501" if vocab.name == "user" else "D502"
        have = "has" if single == 1 else "have"
        message = f"{plural(single, vocab.name)} of {rated:,} ({share_of(single / rated)}) {have} one rating"
        yield finding(code, single, message)


def find_superhuman(users: Vocab, user: Rows, time: Rows | None) -> Iterator[Finding]:
    """Yield users with more rows a day, or a larger share of all rows, than a person has."""
    counts = np.bincount(user, minlength=len(users))
    reasons: dict[int, str] = {}
    if time is not None and len(time) and time.min() != time.max():
        busy = (counts >= _MAX_A_DAY)[user]
        table = pl.DataFrame({"user": user[busy], "day": time[busy] // _DAY})
        most = (
            table.group_by("user", "day").len().group_by("user").agg(pl.col("len").max()).sort("len", descending=True)
        )
        found = most.filter(pl.col("len") >= _MAX_A_DAY)
        reasons |= {row: f"user {users.ids([row])[0]}: {number:,} rows in one day" for row, number in found.iter_rows()}
    rated = counts[counts > 0]
    if len(rated) >= _MANY_USERS:
        limit = max(_MAX_SHARE * len(user), _TIMES_MEDIAN * np.median(rated))
        for row in np.flatnonzero(counts > limit).tolist():
            share = share_of(counts[row] / len(user))
            reasons.setdefault(row, f"user {users.ids([row])[0]}: {counts[row]:,} rows, {share} of all")
    if reasons:
        message = f"{plural(len(reasons), 'user')} with more rows than a person has"
        yield finding("D503", len(reasons), message, list(reasons.values())[:N_EXAMPLES])


def find_item_table(dataset: Dataset) -> Iterator[Finding]:
    """Yield what the item table lacks, or has twice."""
    if dataset.items is None:
        return
    vocab, counts = dataset.ratings.items, dataset.ratings.item_counts
    ids = vocab.cast_column(dataset.items["item_id"].drop_nulls()).drop_nulls()
    has_row = vocab.series.is_in(ids.implode()).to_numpy()
    lacking = np.flatnonzero(~has_row & (counts > 0))
    rated = int((counts > 0).sum())
    if len(lacking):
        share = len(lacking) / rated
        severity: Severity = "error" if share == 1 else "warning" if share >= _MANY else "note"
        message = f"the item table lacks {len(lacking):,} of {plural(rated, 'rated item')} ({share_of(share)})"
        yield finding("D504", len(lacking), message, vocab.ids(lacking[:N_EXAMPLES]).to_list(), severity=severity)
    repeated = len(ids) - ids.n_unique()
    if repeated:
        examples = ids.filter(ids.is_duplicated()).unique(maintain_order=True).head(N_EXAMPLES).to_list()
        yield finding("D505", repeated, f"{plural(repeated, 'row')} of the item table repeat an item", examples)
