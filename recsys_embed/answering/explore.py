"""Give some places of a list to new items, which otherwise get no ratings because they have none."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from recsys_embed.answering.profile import UserProfile
from recsys_embed.answering.rank import rank_for, scores_of
from recsys_embed.answering.request import Exploration
from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.retrieval.base import NO_ROWS, Mask
from recsys_embed.rules.compile import CompiledRules, GroupLimits
from recsys_embed.state.fitted import FittedState

# New items are drawn from the best of them, this many for each place, so that not the same ones are given to everybody.
_POOL = 10


def explore(
    state: FittedState,
    profile: UserProfile,
    exploration: Exploration,
    rules: CompiledRules,
    excluded: Rows,
    ranked: tuple[Rows, Floats],
) -> tuple[Rows, Floats, list[int]]:
    """Return a list's item rows and scores with new items in some places, and these places, ascending.

    ranked: rows and scores of the list as it is, best first. A new item takes the place of the last one and is put
    anywhere but first, so that a list of one stays as it is; it is none that the rules or the exclusions forbid. It is
    drawn from the new items with the best scores for the user; from all of them if nothing is known of the user or of
    the items. The number of places is the share, rounded up or down by chance.
    """
    rows, scores = ranked
    digest = hashlib.blake2b(exploration.key.encode(errors="surrogatepass"), digest_size=16).digest()
    random = np.random.default_rng(int.from_bytes(digest))
    n_places = min(int(exploration.share * len(rows) + random.random()), max(len(rows) - 1, 0))
    if not n_places:
        return rows, scores, []
    is_new = state.item_counts <= exploration.max_ratings
    if rules.allowed is not None:
        is_new &= rules.allowed
    is_new[excluded] = False
    is_new[rows] = False
    drawn = _drawn(state, profile, replace(rules, limits=None, diversity=0.0), is_new, n_places, random)
    if rules.limits is not None:
        drawn = _within_limits(rules.limits, rows[: len(rows) - n_places], drawn)
    new_rows = drawn[:n_places]
    if not len(new_rows):
        return rows, scores, []
    kept = len(rows) - len(new_rows)
    places = np.sort(random.choice(np.arange(1, len(rows)), len(new_rows), replace=False))
    is_explored = np.zeros(len(rows), bool)
    is_explored[places] = True
    found_rows, found_scores = np.empty_like(rows), np.empty_like(scores)
    found_rows[~is_explored], found_scores[~is_explored] = rows[:kept], scores[:kept]
    found_rows[is_explored] = new_rows
    amounts = 0.0 if rules.boost is None else rules.boost.amounts[new_rows]
    found_scores[is_explored] = scores_of(state, profile, new_rows) + amounts
    return found_rows, found_scores, places.tolist()


def _drawn(
    state: FittedState,
    profile: UserProfile,
    rules: CompiledRules,
    is_new: Mask,
    n_places: int,
    random: np.random.Generator,
) -> Rows:
    """Return new items in the order in which they get places, some more than there are."""
    is_scored = is_new & (profile.vector is not None)
    if state.content is None:  # an item without ratings then has no vector that says anything
        is_scored &= state.item_counts > 0
    others, size = np.flatnonzero(is_new & ~is_scored), _POOL * n_places
    n_scored, best = int(is_scored.sum()), NO_ROWS
    n_others = round(size * len(others) / max(n_scored + len(others), 1))
    if n_scored and n_others < size:
        best = rank_for(state, profile, size - n_others, replace(rules, allowed=is_scored), NO_ROWS)[0]
    return random.permutation(np.concatenate((best, random.permutation(others)[:n_others])))


def _within_limits(limits: GroupLimits, kept: Rows, drawn: Rows) -> Rows:
    """Return those of the drawn items, in their order, that find a place in their groups beside the kept items."""
    counts = np.bincount(limits.of(kept)[1], minlength=len(limits.max_per_group))
    found = []
    for row in drawn.tolist():
        groups = limits.of(np.array([row]))[1]
        if (counts[groups] < limits.max_per_group[groups]).all():
            counts[groups] += 1
            found.append(row)
    return np.array(found, np.int64)
