"""The same metrics in parts: by popularity of the items, by activity of the users, by a column of the item table."""

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
from recsys_embed.words import tokens as text

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# Parts of a column that are measured, the ones with the most items; others are counted.
MOST = 40
_USER_METRICS = ("ndcg", "recall", "precision", "mrr", "hit")
# The group of items of which nothing is known; tags never stand in parentheses.
NOTHING = "(unknown)"
# Users that an interval needs: the bootstrap of fewer is far too sure.
_FEW = 10


class Groups(NamedTuple):
    """Named groups of items. members: bool [items, groups]; an item may be in several. left_out: groups not kept."""

    names: list[str]
    members: NDArray[np.bool_]
    left_out: int = 0


@dataclass(frozen=True)
class Slices:
    """A test in parts. by: what parts them; side: "items" or "users". exposure: of all lists together.

    rows: one dict a part, see `of_items` and `of_users`. left_out: parts beyond the `MOST` largest.
    """

    by: str
    side: str
    k: int
    exposure: dict[str, float]
    rows: list[dict[str, Any]]
    left_out: int = 0

    def summary(self) -> dict[str, Any]:
        """Return all of it, for JSON."""
        return dict(vars(self))


def slices(
    recommender: Recommender, test: Ratings, report: Report, by: str, k: int = 10, resamples: int = 1000
) -> Slices:
    """Measure lists of k in parts: by "popularity", by "activity", or by a column of the item table.

    test: what `report` was made of, by `evaluate` with k among its lengths. Raises SettingError for a name that is
    none of these, or a column that parts nothing.
    """
    exposed = exposure(report.shown[k], recommender.counts)
    if by == "activity":
        history = recommender.seen.count[recommender.users.rows(report.per_user["user_id"])]
        return Slices(by, "users", k, exposed, of_users(report.per_user, history, k, resamples))
    counts = recommender.counts
    groups = by_popularity(counts) if by == "popularity" else by_column(recommender.table, counts, by)
    known, _ = align_to_model(recommender, test)
    rows = of_items(Ranker.of(recommender.model), known, recommender.hidden, counts, groups, k, resamples)
    return Slices(by, "items", k, exposed, rows, groups.left_out)


def check_name(table: pl.DataFrame, by: str) -> None:
    """Raise SettingError for what no test can be parted by, before the work."""
    if by not in ("popularity", "activity"):
        by_column(table, np.ones(table.height, np.int64), by)


def exposure(shown: Rows, counts: Rows) -> dict[str, float]:
    """Say how evenly lists show the items that have ratings.

    shown: how many lists hold each item, [items]. coverage: share of the items that stand in a list at all; gini: 0
    where all stand in equally many, near 1 where few items take all places; half: the fewest items that together take
    half of all places.
    """
    shown = shown[counts > 0]
    filled = np.cumsum(np.sort(shown)[::-1])
    half = int(np.searchsorted(filled, filled[-1] / 2) + 1) if len(shown) and filled[-1] else 0
    return {"coverage": float((shown > 0).mean()) if len(shown) else 0.0, "gini": metrics.gini(shown), "half": half}


def by_popularity(counts: Rows) -> Groups:
    """Part items into head, mid and tail, with a third of the training ratings each.

    The items stand in a row, the most rated first (equal ones by row), each as wide as its ratings; a part has those
    whose middle lies in its third. Items without a training rating are in none: they are not ranked.
    """
    order = np.argsort(-counts, kind="stable")
    wide = counts[order]
    middle = np.empty(len(counts))
    middle[order] = (np.cumsum(wide) - wide / 2) / max(1, wide.sum())
    third = np.minimum((3 * middle).astype(int), 2)
    return Groups(["head", "mid", "tail"], (third[:, None] == np.arange(3)) & (counts > 0)[:, None])


def by_column(
    table: pl.DataFrame, counts: Rows, name: str, beside: tuple[str, ...] = ("popularity", "activity")
) -> Groups:
    """Part items by a column of their table: by its tags, its numbers' quarters, or its years' decades.

    counts: training ratings of each item; only items that have some are looked at. The groups stand by number of
    items (tags) or in order (numbers); the `MOST` largest are kept. Items of which nothing is known have a group of
    their own at the end. Raises SettingError where the column does not exist, or holds texts or a single value; it
    lists the columns that do, and what else may be named (`beside`).
    """
    able = {n: kind for n in table.columns if n not in ("item_id", "known_words") and (kind := _kind(table[n]))}
    if name not in able:
        what = "is no column of tags or numbers" if name in table.columns else "is no column of the item table"
        raise SettingError(f"{name!r} {what}; what can be named is {', '.join((*beside, *able))}")
    rated = np.flatnonzero(counts)
    parts = (_tags if able[name] == "tags" else _ranges)(table[name].gather(rated))
    if len(parts) < 2:
        raise SettingError(f"all rated items have the same in the column {name!r}, so there is nothing to part them by")
    largest = set(sorted(parts, key=lambda part: -len(parts[part]))[:MOST])  # equal ones as they stand
    kept = {part: rows for part, rows in parts.items() if part in largest}
    nothing = np.setdiff1d(np.arange(len(rated)), np.concatenate(list(parts.values())))
    if len(nothing):
        kept[NOTHING] = nothing
    members = np.zeros((len(counts), len(kept)), bool)
    for at, rows in enumerate(kept.values()):
        members[rated[rows], at] = True
    return Groups(list(kept), members, len(parts) - len(largest))


def _kind(column: pl.Series) -> str | None:
    """Say whether a column holds tags or numbers; None for texts and what cannot be read."""
    kind = column.dtype
    if kind in (pl.Date, pl.Datetime):
        return "number"
    if kind.is_temporal() or kind in (pl.Binary, pl.Object, pl.Struct):
        return None
    if isinstance(kind, pl.List | pl.Array) and (kind.inner.is_nested() or kind.inner in (pl.Binary, pl.Object)):
        return None
    found = text.kind_of(column)
    return None if found == "words" else found


def _tags(column: pl.Series) -> dict[str, Rows]:
    """Return the rows that have each tag, the most frequent tag first and equal ones by name."""
    rows = pl.DataFrame({"row": np.arange(len(column)), "tag": text.tags(column)}).explode("tag").drop_nulls()
    tags = rows.group_by("tag").agg("row").sort(pl.col("row").list.len(), pl.col("tag"), descending=[True, False])
    return {tag: np.array(mine) for tag, mine in tags.iter_rows()}


def _ranges(column: pl.Series) -> dict[str, Rows]:
    """Return the rows in each decade, where nearly all numbers are years, else in each quarter."""
    if column.dtype in (pl.Date, pl.Datetime):
        column = column.dt.year()
    values = text.numbers(column).fill_null(np.nan).to_numpy()
    known = values[np.isfinite(values)]
    if not len(known):
        return {}
    if np.mean((known == np.floor(known)) & (known >= 1000) & (known < 2200)) >= 0.95:
        decade = np.floor(values / 10) * 10
        return {f"{start:.0f}s": np.flatnonzero(decade == start) for start in np.unique(np.floor(known / 10) * 10)}
    ends = _quarters(known)
    # Six digits say it, unless two parts were called alike.
    digits = 6 if len({_span(*end) for end in ends}) == len(ends) else 17
    return {_span(*end, digits): np.flatnonzero((values >= end[0]) & (values <= end[1])) for end in ends}


def _span(low: float, high: float, digits: int = 6) -> str:
    first, last = f"{low:.{digits}g}", f"{high:.{digits}g}"
    return first if first == last else f"{first} to {last}"


def _quarters(values: NDArray[np.floating]) -> list[tuple[float, float]]:
    """Return the ends of four groups of values, both included, as even as equal values allow; fewer where they do not.

    A value stands where the middle of all that equal it does, so that equal values are never parted.
    """
    different, count = np.unique(values, return_counts=True)
    middle = (np.cumsum(count) - count / 2) / count.sum()
    quarter = np.minimum((4 * middle).astype(int), 3)
    parts = [different[quarter == q] for q in range(4)]
    return [(float(p[0]), float(p[-1])) for p in parts if len(p)]


def of_items(
    ranker: Ranker, test: Ratings, seen: UserItems, counts: Rows, groups: Groups, k: int, resamples: int = 0
) -> list[dict[str, Any]]:
    """Measure groups of items: one dict a group.

    name; items; train, test and shown: the group's share of the training ratings, of the test ratings of ranked items
    and of all places in the lists; test_ratings: how many; users: who has one; recall: the mean over those users of
    the share of their test ratings in the group that stands in their list, None without one, and its 95 % interval;
    coverage: share of the group's items that stand in a list. Items in several groups count in each.
    """
    warm = test.take(counts[test.item] > 0)
    relevant = warm.matrix()
    users = np.flatnonzero(np.diff(relevant.indptr))
    listed = _lists(ranker, users, k, seen, counts, relevant.shape)
    found = listed.multiply(relevant)
    shown = np.asarray(listed.sum(axis=0)).ravel()
    rows: list[dict[str, Any]] = []
    for at, name in enumerate(groups.names):
        mine = groups.members[:, at]
        wanted, hit = relevant @ mine.astype(np.float64), found @ mine.astype(np.float64)
        have = wanted > 0
        rows.append({"name": name, "items": int(mine.sum()), "users": int(have.sum())})
        rows[-1] |= {"test_ratings": int(wanted.sum()), "train": _share(counts, mine)}
        rows[-1] |= {"test": _share(warm.counts, mine), "shown": _share(shown, mine)}
        rows[-1] |= {"coverage": float((shown[mine] > 0).mean()) if mine.any() else 0.0}
        rows[-1] |= _mean("recall", hit[have] / wanted[have], resamples)
    return rows


def _lists(ranker: Ranker, users: Rows, k: int, seen: UserItems, counts: Rows, shape: tuple[int, int]) -> csr_matrix:
    """Return who is shown what, ones in a sparse matrix [users, items]."""
    from scipy.sparse import csr_matrix

    who, what = [], []
    for block, ranked in ranker.lists(users, k, seen, None if counts.all() else counts > 0):
        line, place = np.nonzero(ranked >= 0)
        who.append(block[line])
        what.append(ranked[line, place])
    pairs = (np.concatenate(who), np.concatenate(what)) if who else (np.zeros(0, int), np.zeros(0, int))
    return csr_matrix((np.ones(len(pairs[0]), np.float64), pairs), shape=shape)


def of_users(per_user: pl.DataFrame, history: Rows, k: int, resamples: int = 0) -> list[dict[str, Any]]:
    """Measure users by how many ratings the model was fitted on of them: one dict a group.

    per_user: as in `Report`. history: those numbers of ratings, [users] in the order of `per_user`. Four groups of
    about as many users each; those with equal numbers stay together, and those with none have a group of their own.
    name: the numbers ("20 to 49"); users; and the means over them of ndcg, recall, precision, mrr and hit, with the
    95 % interval of ndcg.
    """
    parts = [(0.0, 0.0)] if (history == 0).any() else []
    parts += _quarters(history[history > 0].astype(float)) if (history > 0).any() else []
    rows: list[dict[str, Any]] = []
    for low, high in parts:
        mine = per_user.filter((history >= low) & (history <= high))
        rows.append({"name": _span(low, high), "users": mine.height})
        for name in _USER_METRICS:
            rows[-1] |= _mean(name, mine[f"{name}_at_{k}"].to_numpy(), resamples if name == "ndcg" else 0)
    return rows


def _share(weight: NDArray[Any], mine: NDArray[np.bool_]) -> float:
    return float(weight[mine].sum() / max(1, weight.sum()))


def _mean(name: str, values: metrics.Values, resamples: int) -> dict[str, Any]:
    """Return a mean over users and its interval; None where there is no user, and no interval of fewer than `_FEW`."""
    found: dict[str, Any] = {name: float(values.mean()) if len(values) else None}
    if resamples:
        ends = metrics.interval(values[:, None], resamples) if len(values) >= _FEW else None
        found[f"{name}_interval"] = None if ends is None else [float(end[0]) for end in ends]
    return found
