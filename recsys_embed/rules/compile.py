"""Compile rules for the items of a model into masks, boosts and group limits, and cache them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
import polars as pl

from recsys_embed.arrays import Floats
from recsys_embed.config.answers import NO_RULES, Rules
from recsys_embed.data.ids import Rows
from recsys_embed.errors import SettingError
from recsys_embed.models.base import ScoringModel
from recsys_embed.retrieval.exact import ExactIndex
from recsys_embed.rules.columns import ColumnValues, Mask
from recsys_embed.rules.dates import moment_of
from recsys_embed.rules.evaluate import ItemColumns
from recsys_embed.rules.expression import parse_boost, parse_per_group, parse_where
from recsys_embed.rules.recent import RecentResults
from recsys_embed.rules.walk import at_moment, named_columns, relevant_moment


@dataclass(frozen=True, eq=False)
class Boost:
    """Amounts [I] that rules add to item scores, i.e. a ranking with other biases.

    popularity [I]: scores for anonymous users, which are boosted too.
    """

    model: ScoringModel
    popularity: Floats
    amounts: Floats

    @cached_property
    def index(self) -> ExactIndex:
        """The items by score plus amount."""
        return ExactIndex.of(self.model.boosted(self.amounts))

    @cached_property
    def popularity_index(self) -> ExactIndex:
        """The items by popularity plus amount."""
        return ExactIndex((self.popularity + self.amounts)[:, None])


@dataclass(frozen=True, eq=False)
class GroupLimits:
    """The groups of I items in compressed rows (CSR), and how many items of each group a list may hold.

    groups[indptr[i]:indptr[i + 1]]: the groups of item i. max_per_group [G]. text: the rule.
    """

    indptr: Rows
    groups: Rows
    max_per_group: Rows
    text: str

    def of(self, rows: Rows) -> tuple[Rows, Rows]:
        """Return (position in rows, group) pairs of the groups of some items."""
        length = self.indptr[rows + 1] - self.indptr[rows]
        position = np.repeat(np.arange(len(rows)), length)
        offset = np.arange(len(position)) - np.repeat(np.cumsum(length) - length, length)
        return position, self.groups[self.indptr[rows][position] + offset]

    def blocked(self, full: Sequence[int]) -> Mask:
        """Return which items belong to a full group, bool [I]. full: groups."""
        is_full = np.zeros(len(self.max_per_group), bool)
        is_full[list(full)] = True
        blocked = np.zeros(len(self.indptr) - 1, bool)
        blocked[np.repeat(np.arange(len(blocked)), np.diff(self.indptr))[is_full[self.groups]]] = True
        return blocked


@dataclass(frozen=True, eq=False)
class CompiledRules:
    """Rules for the items of a model.

    allowed [I]: which items a list may hold; None for all. vectors [I, e]: item vectors, for diversity only.
    """

    allowed: Mask | None = None
    boost: Boost | None = None
    limits: GroupLimits | None = None
    diversity: float = 0.0
    vectors: Floats | None = None


class _Filter(NamedTuple):
    """Which items a list may hold. moment: when, if the condition depends on that."""

    where: str | None
    min_support: int
    max_support: int | None
    moment: float | None


class _CachedMask(NamedTuple):
    """A mask, and the rows whose values changed since it was computed, or None."""

    mask: Mask
    stale: Rows | None = None


class RuleCache:
    """Compiles rules for a model, and caches masks, boosts and limits for later requests with the same rules.

    table: one row per item. counts [I]: training ratings per item. popularity [I]: scores for anonymous users. base:
    see `ItemColumns`. The caches are small, since a mask takes a byte per item, and a boost holds an index.
    """

    def __init__(
        self,
        table: pl.DataFrame,
        counts: Rows,
        model: ScoringModel,
        popularity: Floats,
        base: pl.DataFrame | None = None,
    ) -> None:
        self.item_counts, self.model, self.popularity = counts, model, popularity
        self.columns = ItemColumns(table, counts, base)
        self._masks: RecentResults[_Filter, _CachedMask] = RecentResults(32)
        self._boosts: RecentResults[tuple[str, float | None], Boost] = RecentResults(4)
        self._limits: RecentResults[str, GroupLimits] = RecentResults(8)

    def with_scores(self, model: ScoringModel, popularity: Floats) -> RuleCache:
        """Return a cache for the same items with other scores; masks and limits stay."""
        other = copy(self)
        other.model, other.popularity, other._boosts = model, popularity, RecentResults(self._boosts.size)
        return other

    def with_values(self, table: pl.DataFrame, rows: Rows, names: Collection[str]) -> RuleCache:
        """Return a cache for a table that differs in the columns `names` of these rows only.

        Masks and boosts that name one of the columns are evaluated for the rows alone, masks when they are used next;
        all else stays.
        """
        other, names = copy(self), frozenset(names)
        other.columns = self.columns.with_values(table, rows, names)
        part = other.columns.of_rows(rows)
        masks, boosts = dict(self._masks.items()), dict(self._boosts.items())
        for key, cached in self._masks.items():
            if key.where is not None and names & named_columns(parse_where(key.where)[0]):
                stale = rows if cached.stale is None else np.union1d(cached.stale, rows)
                masks[key] = _CachedMask(cached.mask, stale)
        for (text, moment), boost in self._boosts.items():
            terms, _ = parse_boost(text)
            if names & frozenset().union(*(named_columns(condition) for condition, _ in terms)) and not np.array_equal(
                other._amounts(text, moment, part), boost.amounts[rows]
            ):
                del boosts[text, moment]
        limits = {
            text: limits
            for text, limits in self._limits.items()
            if not names & {column.name for column, _ in parse_per_group(text)[0]}
        }
        other._masks, other._boosts = RecentResults(32, masks), RecentResults(4, boosts)
        other._limits = RecentResults(8, limits)
        return other

    def compile(self, rules: Rules, candidates: Rows | None, exclude: Rows) -> CompiledRules:
        """Compile rules. candidates: item rows to choose from, None for all; exclude: item rows to leave out.

        Raises SettingError for a rule that does not fit the item table.
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
        if rules.diversity and not self.model.item_vectors.shape[1]:
            raise SettingError("--diversity compares vectors of items, and this model has no embeddings")
        filters, moment = (rules.where, rules.min_support, rules.max_support), moment_of(rules.as_of)
        return CompiledRules(
            self.allowed(*filters, moment) if filters != (None, 0, None) else None,
            self.boost(rules.boost, moment) if rules.boost is not None else None,
            self._limits.get(rules.per_group, partial(self._group_limits, rules.per_group))
            if rules.per_group
            else None,
            rules.diversity,
            self.model.item_vectors if rules.diversity else None,
        )

    def _mask(self, rows: Rows) -> Mask:
        mask = np.zeros(len(self.columns), bool)
        mask[rows] = True
        return mask

    def allowed(self, where: str | None, min_support: int, max_support: int | None, moment: float) -> Mask:
        """Return which items fulfil a condition and have so many ratings, bool [I]. moment: see `dates.moment_of`."""
        relevant = None if where is None else relevant_moment(parse_where(where)[0], moment)
        key = _Filter(where, min_support, max_support, relevant)
        cached = self._masks.get(key, lambda: _CachedMask(self._allowed(key, self.columns, self.item_counts)))
        if cached.stale is None:
            return cached.mask
        mask = cached.mask.copy()
        mask[cached.stale] = self._allowed(key, self.columns.of_rows(cached.stale), self.item_counts[cached.stale])
        self._masks.set(key, _CachedMask(mask))
        return mask

    def _allowed(self, key: _Filter, columns: ItemColumns, counts: Rows) -> Mask:
        allowed = counts >= key.min_support
        if key.max_support is not None:
            allowed &= counts <= key.max_support
        if key.where is not None:
            condition, source = parse_where(key.where)
            allowed &= columns.where(at_moment(condition, key.moment), source)
        return allowed

    def boost(self, text: str, moment: float) -> Boost:
        """Return a boost. moment: see `dates.moment_of`."""
        moments = {relevant_moment(condition, moment) for condition, _ in parse_boost(text)[0]} - {None}
        relevant = max(moments, default=None)  # type: ignore[type-var]

        def compute() -> Boost:
            return Boost(self.model, self.popularity, self._amounts(text, relevant, self.columns))

        return self._boosts.get((text, relevant), compute)

    def _amounts(self, text: str, moment: float | None, columns: ItemColumns) -> Floats:
        amounts = np.zeros(len(columns), np.float32)
        terms, source = parse_boost(text)
        for condition, amount in terms:
            amounts[columns.where(at_moment(condition, moment), source)] += np.float32(amount)
        return amounts

    def _group_limits(self, text: str) -> GroupLimits:
        limits, source = parse_per_group(text)
        rows, groups, maxima = [], [], [np.zeros(0, np.int64)]
        for column, limit in limits:
            row, group = _groups(self.columns.column(column, source))
            rows.append(row)
            groups.append(group + sum(map(len, maxima)))
            maxima.append(np.full(int(group.max(initial=-1)) + 1, limit))
        all_rows = np.concatenate(rows)
        order = np.argsort(all_rows, kind="stable")
        indptr = np.concatenate(([0], np.cumsum(np.bincount(all_rows, minlength=len(self.columns)))))
        return GroupLimits(indptr, np.concatenate(groups)[order], np.concatenate(maxima), text)


def _groups(column: ColumnValues) -> tuple[Rows, Rows]:
    """Return (row, group) pairs: an item's groups are its tags, its text or its number; none if unknown."""
    if column.kind == "nothing":
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    if column.tags is not None:
        pairs = column.tags.alias("name").to_frame().with_row_index("row").explode("name")
    else:
        values = pl.Series(column.numbers).fill_nan(None) if column.is_numeric else column.texts
        pairs = values.alias("name").to_frame().with_row_index("row")
    pairs = pairs.drop_nulls()
    names = pairs["name"].unique()
    groups = pl.DataFrame({"name": names, "group": np.arange(len(names))})
    joined = pairs.join(groups, on="name", how="left", maintain_order="left")
    return joined["row"].cast(pl.Int64).to_numpy(), joined["group"].to_numpy()
