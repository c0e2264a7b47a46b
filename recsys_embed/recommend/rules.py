"""What may be shown: rules and lists of ids, made ready for the items of one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from recsys_embed.arrays import Floats
from recsys_embed.config import NO_RULES, Rules
from recsys_embed.ratings.vocab import Id, Rows
from recsys_embed.recommend.grammar import parse_boost, parse_per_group, parse_where
from recsys_embed.recommend.index import ExactIndex
from recsys_embed.recommend.where import Facts, Items, Mask

if TYPE_CHECKING:
    from recsys_embed.recommend.recommender import Recommender


@dataclass(frozen=True, eq=False)
class Boost:
    """The amounts [I] that rules add to the scores of items: a ranking with other biases.

    Of somebody nothing is known of they are added to what stands for a score then.
    """

    recommender: Recommender
    amounts: Floats

    @cached_property
    def index(self) -> ExactIndex:
        """The items with these amounts on their biases."""
        plain = self.recommender.plain
        return ExactIndex.of(replace(plain, item_bias=plain.item_bias + self.amounts))

    @cached_property
    def popular(self) -> ExactIndex:
        """The items by their numbers of ratings, with these amounts."""
        return ExactIndex((np.log1p(self.recommender.counts, dtype=np.float32) + self.amounts)[:, None])


@dataclass(frozen=True, eq=False)
class Limits:
    """The groups of I items, and how many of a group a list may hold.

    groups[start[i]:start[i + 1]] are those of item i; most [G]; text: the rule.
    """

    start: Rows
    groups: Rows
    most: Rows
    text: str

    def of(self, rows: Rows) -> tuple[Rows, Rows]:
        """Return (place in rows, group) of every group of some items."""
        length = self.start[rows + 1] - self.start[rows]
        place = np.repeat(np.arange(len(rows)), length)
        within = np.arange(len(place)) - np.repeat(np.cumsum(length) - length, length)
        return place, self.groups[self.start[rows][place] + within]

    def barred(self, full: Sequence[int]) -> Mask:
        """Return which items belong to one of these groups, bool [I]."""
        is_full = np.zeros(len(self.most), bool)
        is_full[list(full)] = True
        barred = np.zeros(len(self.start) - 1, bool)
        barred[np.repeat(np.arange(len(barred)), np.diff(self.start))[is_full[self.groups]]] = True
        return barred


@dataclass(frozen=True, eq=False)
class Shown:
    """Rules, ready for the items of a model. allowed [I]: which may be shown, or None: all.

    vectors [I, d]: the items', where diversity counts.
    """

    allowed: Mask | None = None
    boost: Boost | None = None
    limits: Limits | None = None
    diversity: float = 0.0
    vectors: Floats | None = None


class Prepared:
    """The parts of rules for one model, kept for the next who asks with the same ones; at most so many, since each of
    the first is a byte an item, and a boost holds an index."""

    def __init__(self, recommender: Recommender) -> None:
        self.recommender = recommender
        self.items = Items(recommender.table, recommender.counts)
        self.allowed = lru_cache(32)(self._allowed)
        self.boost = lru_cache(4)(self._boost)
        self.limits = lru_cache(8)(self._limits)

    def _allowed(self, where: str | None, least: int, most: int | None) -> Mask:
        counts = self.recommender.counts
        allowed = counts >= least
        if most is not None:
            allowed &= counts <= most
        if where is not None:
            allowed &= self.items.where(*parse_where(where))
        return allowed

    def _boost(self, text: str) -> Boost:
        amounts = np.zeros(len(self.items), np.float32)
        parts, source = parse_boost(text)
        for condition, amount in parts:
            amounts[self.items.where(condition, source)] += np.float32(amount)
        return Boost(self.recommender, amounts)

    def _limits(self, text: str) -> Limits:
        parts, source = parse_per_group(text)
        rows, groups, most = [], [], [np.zeros(0, np.int64)]
        for column, number in parts:
            found, group = _groups(self.items.facts(column, source))
            rows.append(found)
            groups.append(group + sum(map(len, most)))
            most.append(np.full(int(group.max(initial=-1)) + 1, number))
        row = np.concatenate(rows)
        order = np.argsort(row, kind="stable")
        start = np.concatenate(([0], np.cumsum(np.bincount(row, minlength=len(self.items)))))
        return Limits(start, np.concatenate(groups)[order], np.concatenate(most), text)


def ready(recommender: Recommender, rules: Rules, among: Sequence[Id] | None, exclude: Sequence[Id]) -> Shown:
    """Make rules ready. among: item ids to choose from; exclude: ids to leave out. Raises UnknownId, SettingError."""
    shown = Shown() if rules is NO_RULES else _ready(recommender, rules)
    if among is None and not len(exclude):
        return shown
    masks = [] if shown.allowed is None else [shown.allowed]
    if among is not None:
        masks.append(_at(recommender, among))
    if len(exclude):
        masks.append(~_at(recommender, exclude))
    return replace(shown, allowed=np.logical_and.reduce(masks))


def _ready(recommender: Recommender, rules: Rules) -> Shown:
    prepared = recommender.prepared
    filters = rules.where, rules.min_ratings, rules.max_ratings
    return Shown(
        prepared.allowed(*filters) if filters != (None, 0, None) else None,
        prepared.boost(rules.boost) if rules.boost is not None else None,
        prepared.limits(rules.per_group) if rules.per_group is not None else None,
        rules.diversity,
        recommender.plain.items if rules.diversity else None,
    )


def _at(recommender: Recommender, ids: Sequence[Id]) -> Mask:
    mask = np.zeros(len(recommender.items), bool)
    mask[recommender.items.rows(ids)] = True
    return mask


def _groups(facts: Facts) -> tuple[Rows, Rows]:
    """Return (row, group) of every group of every item: its tags, its text or its number. Unknown belongs to none."""
    if facts.kind == "nothing":
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    if facts.tags is not None:
        pairs = facts.tags.alias("name").to_frame().with_row_index("row").explode("name")
    else:
        values = pl.Series(facts.numbers).fill_nan(None) if facts.kind == "number" else facts.texts
        pairs = values.alias("name").to_frame().with_row_index("row")
    pairs = pairs.drop_nulls()
    names = pairs["name"].unique()
    groups = pl.DataFrame({"name": names, "group": np.arange(len(names))})
    found = pairs.join(groups, on="name", how="left", maintain_order="left")
    return found["row"].cast(pl.Int64).to_numpy(), found["group"].to_numpy()
