"""Rules compiled for the items of one model: masks, boosts, limits for groups; kept for the next request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import polars as pl

from recsys_embed.arrays import Floats
from recsys_embed.config.settings import NO_RULES, Rules
from recsys_embed.data.ids import Rows
from recsys_embed.models.base import ScoringModel
from recsys_embed.retrieval.exact import ExactIndex
from recsys_embed.rules.evaluate import Column, ItemColumns, Mask
from recsys_embed.rules.expression import parse_boost, parse_per_group, parse_where


@dataclass(frozen=True, eq=False)
class Boost:
    """Amounts [I] that rules add to the scores of items: a ranking with other biases.

    counts: ratings of each item; popularity is boosted too, for anonymous users.
    """

    model: ScoringModel
    counts: Rows
    amounts: Floats

    @cached_property
    def index(self) -> ExactIndex:
        """The items with these amounts on their scores."""
        return ExactIndex.of(self.model.boosted(self.amounts))

    @cached_property
    def popularity_index(self) -> ExactIndex:
        """The items by popularity, with these amounts."""
        return ExactIndex((np.log1p(self.counts, dtype=np.float32) + self.amounts)[:, None])


@dataclass(frozen=True, eq=False)
class GroupLimits:
    """The groups of I items, and how many items of a group a list may hold.

    groups[start[i]:start[i + 1]] are those of item i; max_per_group [G]; text: the rule.
    """

    start: Rows
    groups: Rows
    max_per_group: Rows
    text: str

    def of(self, rows: Rows) -> tuple[Rows, Rows]:
        """Return (place in rows, group) of every group of some items."""
        length = self.start[rows + 1] - self.start[rows]
        place = np.repeat(np.arange(len(rows)), length)
        within = np.arange(len(place)) - np.repeat(np.cumsum(length) - length, length)
        return place, self.groups[self.start[rows][place] + within]

    def blocked(self, full: Sequence[int]) -> Mask:
        """Return which items belong to one of these groups, bool [I]."""
        is_full = np.zeros(len(self.max_per_group), bool)
        is_full[list(full)] = True
        blocked = np.zeros(len(self.start) - 1, bool)
        blocked[np.repeat(np.arange(len(blocked)), np.diff(self.start))[is_full[self.groups]]] = True
        return blocked


@dataclass(frozen=True, eq=False)
class CompiledRules:
    """Rules for the items of a model. allowed [I]: which may be in a list, or None: all.

    vectors [I, e]: the items', where diversity counts.
    """

    allowed: Mask | None = None
    boost: Boost | None = None
    limits: GroupLimits | None = None
    diversity: float = 0.0
    vectors: Floats | None = None


class RuleCache:
    """Compiles rules for one model, and keeps the parts for the next request with the same ones.

    table: one row an item. counts: training ratings of each item. Only so many parts are kept: a mask is a byte an
    item, and a boost holds an index.
    """

    def __init__(self, table: pl.DataFrame, counts: Rows, model: ScoringModel) -> None:
        self.counts, self.model = counts, model
        self.columns = ItemColumns(table, counts)
        self.allowed = lru_cache(32)(self._allowed)
        self.boost = lru_cache(4)(self._boost)
        self.limits = lru_cache(8)(self._limits)

    def compile(self, rules: Rules, candidates: Rows | None, exclude: Rows) -> CompiledRules:
        """Compile rules. candidates: item rows to choose from, or None: all; exclude: item rows to leave out.

        Raises SettingError for a rule that does not fit the table.
        """
        compiled = CompiledRules() if rules is NO_RULES else self._compile(rules)
        if candidates is None and not len(exclude):
            return compiled
        masks = [] if compiled.allowed is None else [compiled.allowed]
        if candidates is not None:
            masks.append(self._mask(candidates))
        if len(exclude):
            masks.append(~self._mask(exclude))
        return replace(compiled, allowed=np.logical_and.reduce(masks))

    def _compile(self, rules: Rules) -> CompiledRules:
        filters = rules.where, rules.min_ratings, rules.max_ratings
        return CompiledRules(
            self.allowed(*filters) if filters != (None, 0, None) else None,
            self.boost(rules.boost) if rules.boost is not None else None,
            self.limits(rules.per_group) if rules.per_group is not None else None,
            rules.diversity,
            self.model.item_vectors if rules.diversity else None,
        )

    def _mask(self, rows: Rows) -> Mask:
        mask = np.zeros(len(self.columns), bool)
        mask[rows] = True
        return mask

    def _allowed(self, where: str | None, min_support: int, max_support: int | None) -> Mask:
        allowed = self.counts >= min_support
        if max_support is not None:
            allowed &= self.counts <= max_support
        if where is not None:
            allowed &= self.columns.where(*parse_where(where))
        return allowed

    def _boost(self, text: str) -> Boost:
        amounts = np.zeros(len(self.columns), np.float32)
        terms, source = parse_boost(text)
        for condition, amount in terms:
            amounts[self.columns.where(condition, source)] += np.float32(amount)
        return Boost(self.model, self.counts, amounts)

    def _limits(self, text: str) -> GroupLimits:
        limits, source = parse_per_group(text)
        rows, groups, largest = [], [], [np.zeros(0, np.int64)]
        for column, number in limits:
            found, group = _groups(self.columns.column(column, source))
            rows.append(found)
            groups.append(group + sum(map(len, largest)))
            largest.append(np.full(int(group.max(initial=-1)) + 1, number))
        row = np.concatenate(rows)
        order = np.argsort(row, kind="stable")
        start = np.concatenate(([0], np.cumsum(np.bincount(row, minlength=len(self.columns)))))
        return GroupLimits(start, np.concatenate(groups)[order], np.concatenate(largest), text)


def _groups(column: Column) -> tuple[Rows, Rows]:
    """Return (row, group) of every group of every item: its tags, its text or its number. Unknown belongs to none."""
    if column.kind == "nothing":
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    if column.tags is not None:
        pairs = column.tags.alias("name").to_frame().with_row_index("row").explode("name")
    else:
        values = pl.Series(column.numbers).fill_nan(None) if column.kind == "number" else column.texts
        pairs = values.alias("name").to_frame().with_row_index("row")
    pairs = pairs.drop_nulls()
    names = pairs["name"].unique()
    groups = pl.DataFrame({"name": names, "group": np.arange(len(names))})
    found = pairs.join(groups, on="name", how="left", maintain_order="left")
    return found["row"].cast(pl.Int64).to_numpy(), found["group"].to_numpy()
