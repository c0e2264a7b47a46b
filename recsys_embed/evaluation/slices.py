"""Metrics by slice: by item popularity, by user activity, or by a column of the item table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_embed.data.ids import Rows
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.user_items import UserItems
from recsys_embed.errors import SettingError
from recsys_embed.evaluation import metrics
from recsys_embed.evaluation.evaluate import Report, align_to_model
from recsys_embed.models.ranker import Ranker
from recsys_embed.recommender import Recommender
from recsys_embed.words import tokens

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# Most groups of a column that are measured: those with the most items. The others are counted.
MAX_GROUPS = 40
_USER_METRICS = ("ndcg", "recall", "precision", "mrr", "hit")
# The group of items without a value; no tag is in parentheses.
UNKNOWN = "(unknown)"
# Fewest users for an interval: with fewer, the bootstrap is overconfident.
_MIN_USERS = 10


class ItemGroups(NamedTuple):
    """Named groups of items. members: bool [items, groups]; an item may be in several. n_skipped: groups left out."""

    names: list[str]
    members: NDArray[np.bool_]
    n_skipped: int = 0


@dataclass(frozen=True)
class Slices:
    """An evaluation by slice.

    by: what the slices are made by. side: whether they are slices of "items" or "users". exposure: of all lists
    together. rows: one dict per slice, see `item_group_metrics` and `user_group_metrics`. n_skipped: slices beyond the
    `MAX_GROUPS` largest.
    """

    by: str
    side: str
    k: int
    exposure: dict[str, float]
    rows: list[dict[str, Any]]
    n_skipped: int = 0

    def summary(self) -> dict[str, Any]:
        """Return all fields, for JSON."""
        return {"left_out" if name == "n_skipped" else name: value for name, value in vars(self).items()}


def evaluate_slices(
    recommender: Recommender, test: Ratings, report: Report, by: str, k: int = 10, resamples: int = 1000
) -> Slices:
    """Measure lists of k by slice: by "popularity", by "activity", or by a column of the item table.

    test: the ratings that `report` is about, from `evaluate` with k among its lengths. Raises SettingError for any
    other name, or for a column that does not split the items.
    """
    exposure = exposure_summary(report.exposure[k], recommender.item_counts)
    if by == "activity":
        history = recommender.seen.count[recommender.users.rows(report.per_user["user_id"])]
        return Slices(by, "users", k, exposure, user_group_metrics(report.per_user, history, k, resamples))
    counts = recommender.item_counts
    groups = by_popularity(counts) if by == "popularity" else by_column(recommender.table, counts, by)
    known, _ = align_to_model(recommender, test)
    ranker = recommender.state.ranker
    rows = item_group_metrics(ranker, known, recommender.excluded, counts, groups, k, resamples)
    return Slices(by, "items", k, exposure, rows, groups.n_skipped)


def check_slice_name(table: pl.DataFrame, by: str) -> None:
    """Raise SettingError for a name that `evaluate_slices` would refuse, before any work is done."""
    if by not in ("popularity", "activity"):
        by_column(table, np.ones(table.height, np.int64), by)


def exposure_summary(exposure: Rows, counts: Rows) -> dict[str, float]:
    """Summarize how evenly lists expose the items that have training ratings.

    exposure: how many lists hold each item, [items]. Returns coverage: the share of items in at least one list; gini: 0
    if all items are in equally many lists, near 1 if few items fill all lists; half: the smallest number of items that
    together fill half of all list positions.
    """
    exposure = exposure[counts > 0]
    cumulative = np.cumsum(np.sort(exposure)[::-1])
    half = int(np.searchsorted(cumulative, cumulative[-1] / 2) + 1) if len(exposure) and cumulative[-1] else 0
    coverage = float((exposure > 0).mean()) if len(exposure) else 0.0
    return {"coverage": coverage, "gini": metrics.gini(exposure), "half": half}


def by_popularity(counts: Rows) -> ItemGroups:
    """Split items into head, mid and tail, with a third of the training ratings each.

    Sorted by ratings, most rated first (ties by row), each item covers an interval as long as its number of ratings; it
    belongs to the third that contains the midpoint. Items without a training rating, which are not ranked, belong to
    none.
    """
    order = np.argsort(-counts, kind="stable")
    lengths = counts[order]
    middle = np.empty(len(counts))
    middle[order] = (np.cumsum(lengths) - lengths / 2) / max(1, lengths.sum())
    third = np.minimum((3 * middle).astype(int), 2)
    return ItemGroups(["head", "mid", "tail"], (third[:, None] == np.arange(3)) & (counts > 0)[:, None])


def by_column(
    table: pl.DataFrame, counts: Rows, name: str, other_names: tuple[str, ...] = ("popularity", "activity")
) -> ItemGroups:
    """Group items by a column of the item table: by tags, by quarters of numbers, or by decades of years.

    counts: training ratings per item; items without any are ignored. Groups are ordered by size (tags) or value
    (numbers); the `MAX_GROUPS` largest are kept. Items without a value form a last group. Raises SettingError if the
    column does not exist, holds free text, or has a single value; the message lists the usable columns and
    `other_names`.
    """
    usable = {n: kind for n in table.columns if n not in ("item_id", "known_words") and (kind := _kind(table[n]))}
    if name not in usable:
        problem = "is not a column of tags or numbers" if name in table.columns else "is not a column of the item table"
        raise SettingError(f"{name!r} {problem}; what can be named is {', '.join((*other_names, *usable))}")
    rated = np.flatnonzero(counts)
    groups = (_tag_groups if usable[name] == "tags" else _number_groups)(table[name].gather(rated))
    if len(groups) < 2:
        raise SettingError(f"all rated items have the same value in the column {name!r}, so it cannot split them")
    largest = set(sorted(groups, key=lambda group: -len(groups[group]))[:MAX_GROUPS])  # ties keep their order
    selected = {group: rows for group, rows in groups.items() if group in largest}
    unknown = np.setdiff1d(np.arange(len(rated)), np.concatenate(list(groups.values())))
    if len(unknown):
        selected[UNKNOWN] = unknown
    members = np.zeros((len(counts), len(selected)), bool)
    for n, rows in enumerate(selected.values()):
        members[rated[rows], n] = True
    return ItemGroups(list(selected), members, len(groups) - len(largest))


def _kind(column: pl.Series) -> str | None:
    """Return whether a column holds "tags" or "number"s; None for free text and unreadable types."""
    dtype = column.dtype
    if dtype in (pl.Date, pl.Datetime):
        return "number"
    if dtype.is_temporal() or dtype in (pl.Binary, pl.Object, pl.Struct):
        return None
    if isinstance(dtype, pl.List | pl.Array) and (dtype.inner.is_nested() or dtype.inner in (pl.Binary, pl.Object)):
        return None
    kind = tokens.infer_kind(column)
    return None if kind == "words" else kind


def _tag_groups(column: pl.Series) -> dict[str, Rows]:
    """Return the rows that have each tag, most frequent tag first, ties by name."""
    pairs = pl.DataFrame({"row": np.arange(len(column)), "tag": tokens.split_tags(column)}).explode("tag").drop_nulls()
    tags = pairs.group_by("tag").agg("row").sort(pl.col("row").list.len(), pl.col("tag"), descending=[True, False])
    return {tag: np.array(rows) for tag, rows in tags.iter_rows()}


def _number_groups(column: pl.Series) -> dict[str, Rows]:
    """Return the rows in each decade if nearly all numbers are years, else the rows in each quarter."""
    if column.dtype in (pl.Date, pl.Datetime):
        column = column.dt.year()
    values = tokens.parse_numbers(column).fill_null(np.nan).to_numpy()
    known = values[np.isfinite(values)]
    if not len(known):
        return {}
    if np.mean((known == np.floor(known)) & (known >= 1000) & (known < 2200)) >= 0.95:
        decade = np.floor(values / 10) * 10
        return {f"{start:.0f}s": np.flatnonzero(decade == start) for start in np.unique(np.floor(known / 10) * 10)}
    ranges = _quarters(known)
    # Six digits are enough, unless two ranges would get the same label.
    digits = 6 if len({_label(*ends) for ends in ranges}) == len(ranges) else 17
    return {_label(low, high, digits): np.flatnonzero((values >= low) & (values <= high)) for low, high in ranges}


def _label(low: float, high: float, digits: int = 6) -> str:
    first, last = f"{low:.{digits}g}", f"{high:.{digits}g}"
    return first if first == last else f"{first} to {last}"


def _quarters(values: NDArray[np.floating]) -> list[tuple[float, float]]:
    """Return the inclusive ends of four groups of values of about equal size; fewer if ties do not allow four.

    Equal values are never separated: all of them go where the midpoint of their ranks falls.
    """
    distinct, count = np.unique(values, return_counts=True)
    middle = (np.cumsum(count) - count / 2) / count.sum()
    quarter = np.minimum((4 * middle).astype(int), 3)
    groups = [distinct[quarter == q] for q in range(4)]
    return [(float(group[0]), float(group[-1])) for group in groups if len(group)]


def item_group_metrics(
    ranker: Ranker, test: Ratings, seen: UserItems, counts: Rows, groups: ItemGroups, k: int, resamples: int = 0
) -> list[dict[str, Any]]:
    """Measure groups of items: return one dict per group.

    name; items: number of items; train, test, shown: the group's share of the training ratings, of the test ratings of
    ranked items, and of all list positions; test_ratings: their number; users: how many users have one; recall: the
    mean over these users of the share of their test ratings in the group that is in their list (None without users),
    with its 95 % interval; coverage: share of the group's items in at least one list. An item in several groups counts
    in each.
    """
    warm = test.take(counts[test.item] > 0)
    relevant = warm.matrix()
    users = np.flatnonzero(np.diff(relevant.indptr))
    listed = _list_matrix(ranker, users, k, seen, counts, relevant.shape)
    hits = listed.multiply(relevant)
    exposure = np.asarray(listed.sum(axis=0)).ravel()
    rows: list[dict[str, Any]] = []
    for n, name in enumerate(groups.names):
        members = groups.members[:, n]
        n_relevant, n_hits = relevant @ members.astype(np.float64), hits @ members.astype(np.float64)
        has_relevant = n_relevant > 0
        rows.append({"name": name, "items": int(members.sum()), "users": int(has_relevant.sum())})
        rows[-1] |= {"test_ratings": int(n_relevant.sum()), "train": _share(counts, members)}
        rows[-1] |= {"test": _share(warm.item_counts, members), "shown": _share(exposure, members)}
        rows[-1] |= {"coverage": float((exposure[members] > 0).mean()) if members.any() else 0.0}
        rows[-1] |= _mean("recall", n_hits[has_relevant] / n_relevant[has_relevant], resamples)
    return rows


def _list_matrix(
    ranker: Ranker, users: Rows, k: int, seen: UserItems, counts: Rows, shape: tuple[int, int]
) -> csr_matrix:
    """Return the lists as ones in a sparse matrix [users, items]."""
    from scipy.sparse import csr_matrix

    list_users, list_items = [], []
    for block, ranked in ranker.top_k(users, k, seen, None if counts.all() else counts > 0):
        line, rank = np.nonzero(ranked >= 0)
        list_users.append(block[line])
        list_items.append(ranked[line, rank])
    empty = np.zeros(0, int), np.zeros(0, int)
    pairs = (np.concatenate(list_users), np.concatenate(list_items)) if list_users else empty
    return csr_matrix((np.ones(len(pairs[0]), np.float64), pairs), shape=shape)


def user_group_metrics(per_user: pl.DataFrame, history: Rows, k: int, resamples: int = 0) -> list[dict[str, Any]]:
    """Measure users grouped by their number of training ratings: return one dict per group.

    per_user: as in `Report`. history: the number of ratings of each user, in the order of `per_user`. There are four
    groups of about equal size; users with equal numbers stay together, and users without ratings form their own group.
    name: the range of numbers ("20 to 49"); users: number of users; and their mean ndcg, recall, precision, mrr and
    hit, with the 95 % interval of ndcg.
    """
    ranges = [(0.0, 0.0)] if (history == 0).any() else []
    ranges += _quarters(history[history > 0].astype(float)) if (history > 0).any() else []
    rows: list[dict[str, Any]] = []
    for low, high in ranges:
        members = per_user.filter((history >= low) & (history <= high))
        rows.append({"name": _label(low, high), "users": members.height})
        for name in _USER_METRICS:
            rows[-1] |= _mean(name, members[f"{name}_at_{k}"].to_numpy(), resamples if name == "ndcg" else 0)
    return rows


def _share(weight: NDArray[Any], members: NDArray[np.bool_]) -> float:
    return float(weight[members].sum() / max(1, weight.sum()))


def _mean(name: str, values: metrics.Values, resamples: int) -> dict[str, Any]:
    """Return the mean over users, None without users, and its interval, None for fewer than `_MIN_USERS`."""
    result: dict[str, Any] = {name: float(values.mean()) if len(values) else None}
    if resamples:
        interval = metrics.interval(values[:, None], resamples) if len(values) >= _MIN_USERS else None
        result[f"{name}_interval"] = None if interval is None else [float(end[0]) for end in interval]
    return result
