"""Negatives: which items a positive is compared with, and which of them the user knows."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from recsys_embed.data.user_items import UserItems
from recsys_embed.nets.sparse_ops import ranges


class Sampler:
    """Draws items with a fixed chance each. chance: float [I], sums to 1; every item has some."""

    def __init__(self, chance: Tensor) -> None:
        self.chance = chance / chance.sum()
        self.edges = torch.cumsum(self.chance.double(), 0).clamp_(max=1.0)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw item rows with replacement, int64 [*shape]."""
        point = torch.rand(shape, generator=generator, device=self.chance.device, dtype=torch.float64)
        return torch.searchsorted(self.edges, point, right=True).clamp_(max=len(self.edges) - 1)

    def draw_distinct(self, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw min(k, I) distinct items; return them, ascending, and log of the chance with which each was among them.

        One exponential race: the items whose clock rings first are a draw without replacement. The chance of an
        item is 1 - exp(-q t), where t is the time of the first clock that came too late (Rosén, 1997).
        """
        k = min(k, len(self.chance))
        if k == len(self.chance):
            rows = torch.arange(k, device=self.chance.device)
            return rows, torch.zeros(k, device=self.chance.device)
        clock = torch.empty(len(self.chance), device=self.chance.device).exponential_(generator=generator) / self.chance
        first, rows = torch.topk(clock, k + 1, largest=False)
        rows = rows[:k].sort().values
        return rows, torch.log(-torch.expm1(-self.chance[rows] * first[k]))


class Uniform(Sampler):
    """Draws every item alike."""

    def draw_distinct(self, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """See `Sampler`: by drawing until there are enough, which costs no look at every item."""
        device, n = self.chance.device, len(self.chance)
        if not k or 4 * k > n:
            return super().draw_distinct(k, generator)
        rows = torch.empty(0, dtype=torch.int64, device=device)
        while len(rows) < k:
            drawn = torch.randint(n, (k + k // 4,), generator=generator, device=device)
            rows = torch.cat((rows, drawn)).unique()
        rows = rows[torch.randperm(len(rows), generator=generator, device=device)[:k]].sort().values
        return rows, torch.full((k,), math.log(k / n), device=device)


def uniform(counts: Tensor) -> Sampler:
    """Draw every item alike."""
    return Uniform(torch.ones_like(counts, dtype=torch.float32))


def popularity(counts: Tensor) -> Sampler:
    """Draw by number of ratings to the power 0.75 (Mikolov et al., 2013), unrated items as if rated once."""
    return Sampler(counts.clamp(min=1).float() ** 0.75)


SAMPLERS = {"uniform": uniform, "popularity": popularity}


class KnownPositives:
    """The items that each user is known to like, on a device: they are no negatives.

    start: int64 [users + 1], item: int64 [n], as in `UserItems`.
    """

    def __init__(self, seen: UserItems, items: int, device: torch.device) -> None:
        self.items = items
        self.start, self.item = torch.tensor(seen.start, device=device), torch.tensor(seen.item, device=device)

    @cached_property
    def pair(self) -> Tensor:
        """Each pair as one number, ascending, int64 [n]."""
        count = self.start.diff()
        return torch.repeat_interleave(torch.arange(len(count), device=count.device), count) * self.items + self.item

    def among(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pairs (d, k) where user d knows item k, d in order: [n] and [n]; users [D], items [K] distinct."""
        start = self.start[users]
        at, which = ranges(start, (self.start[users + 1] - start).long())
        item = self.item[at]
        place = torch.full((self.items,), -1, device=users.device)
        place[items] = torch.arange(len(items), device=users.device)
        column = place[item]
        known = (column >= 0).nonzero()[:, 0]  # once: on CUDA it waits for the device
        return which[known], column[known]

    def mask(self, users: Tensor, items: Tensor) -> Tensor:
        """Return whether user d knows item k, bool [D, K]; users [D], items [K] distinct."""
        known = torch.zeros(len(users), len(items), dtype=torch.bool, device=users.device)
        known[self.among(users, items)] = True
        return known

    def has(self, users: Tensor, items: Tensor) -> Tensor:
        """Return whether each user knows each item beside it, bool of the broadcast shape."""
        if not len(self.pair):
            return torch.zeros_like(users + items, dtype=torch.bool)
        pair = users * self.items + items
        place = torch.searchsorted(self.pair, pair).clamp_(max=len(self.pair) - 1)
        return self.pair[place] == pair


def draw_unknown(
    sampler: Sampler,
    known: KnownPositives,
    items: Tensor,
    users: Tensor,
    k: int,
    generator: torch.Generator,
    rounds: int = 4,
) -> tuple[Tensor, Tensor]:
    """Draw k negatives for each user; return them, [B, k], row b for users[b], and which are known all the same.

    items: the item rows that the sampler draws among.

    A known item is drawn again, `rounds` times at most: a user who knows nearly everything keeps a few, which
    the caller leaves out by the mask, bool [B, k].
    """
    rows = items[sampler.draw((len(users), k), generator)]
    known_rows = known.has(users[:, None], rows)
    for _ in range(rounds):
        if users.is_cuda:
            rows, known_rows = _again(sampler, known, items, users, (rows, known_rows), generator)
            continue
        again = known_rows.nonzero(as_tuple=True)
        if not len(again[0]):
            break
        rows[again] = items[sampler.draw((len(again[0]),), generator)]
        known_rows[again] = known.has(users[again[0]], rows[again])
    return rows, known_rows


def _again(
    sampler: Sampler,
    known: KnownPositives,
    items: Tensor,
    users: Tensor,
    drawn: tuple[Tensor, Tensor],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Draw again in place of what is known, on CUDA: for everybody, since to ask how many are would be to wait."""
    rows, known_rows = drawn
    rows = torch.where(known_rows, items[sampler.draw(tuple(rows.shape), generator)], rows)
    return rows, known.has(users[:, None], rows)
