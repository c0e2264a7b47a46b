"""Negative sampling: which items a positive is compared with, and which items are known positives of a user."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from recsys_embed.data.user_items import UserItems
from recsys_embed.nets.sparse_ops import expand_ranges


class Sampler:
    """Draws items with fixed probabilities. probs: float [I], sums to 1; all are above 0."""

    def __init__(self, probs: Tensor) -> None:
        self.probs = probs / probs.sum()
        self.cdf = torch.cumsum(self.probs.double(), 0).clamp_(max=1.0)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw item rows with replacement, int64 [*shape]."""
        point = torch.rand(shape, generator=generator, device=self.probs.device, dtype=torch.float64)
        return torch.searchsorted(self.cdf, point, right=True).clamp_(max=len(self.cdf) - 1)

    def draw_distinct(self, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw min(k, I) distinct items; return them, ascending, and the log of each one's inclusion probability.

        One exponential race: the items whose clocks ring first are a draw without replacement. The probability that an
        item is among them is 1 - exp(-q t), where t is the time of the first clock that is too late (Rosén, 1997).
        """
        k = min(k, len(self.probs))
        if k == len(self.probs):
            rows = torch.arange(k, device=self.probs.device)
            return rows, torch.zeros(k, device=self.probs.device)
        clock = torch.empty(len(self.probs), device=self.probs.device).exponential_(generator=generator) / self.probs
        first, rows = torch.topk(clock, k + 1, largest=False)
        rows = rows[:k].sort().values
        return rows, torch.log(-torch.expm1(-self.probs[rows] * first[k]))


class UniformSampler(Sampler):
    """Draws every item with the same probability."""

    def draw_distinct(self, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Do as `Sampler` does, by drawing until there are enough items, which does not look at every item."""
        device, n = self.probs.device, len(self.probs)
        if not k or 4 * k > n:
            return super().draw_distinct(k, generator)
        rows = torch.empty(0, dtype=torch.int64, device=device)
        while len(rows) < k:
            drawn = torch.randint(n, (k + k // 4,), generator=generator, device=device)
            rows = torch.cat((rows, drawn)).unique()
        rows = rows[torch.randperm(len(rows), generator=generator, device=device)[:k]].sort().values
        return rows, torch.full((k,), math.log(k / n), device=device)


def uniform(counts: Tensor) -> Sampler:
    """Return a sampler that draws every item with the same probability."""
    return UniformSampler(torch.ones_like(counts, dtype=torch.float32))


def popularity(counts: Tensor) -> Sampler:
    """Return a sampler by number of ratings to the power 0.75 (Mikolov et al., 2013); unrated items count as 1."""
    return Sampler(counts.clamp(min=1).float() ** 0.75)


SAMPLERS = {"uniform": uniform, "popularity": popularity}


class KnownPositives:
    """The known positives of each user, on a device: they are not used as negatives.

    indptr: int64 [users + 1], indices: int64 [n], as in `UserItems`.
    """

    def __init__(self, user_items: UserItems, items: int, device: torch.device) -> None:
        self.items = items
        self.indptr, self.indices = (
            torch.from_numpy(a if a.flags.writeable else a.copy()).to(device)
            for a in (user_items.indptr, user_items.indices)
        )

    @cached_property
    def pair_keys(self) -> Tensor:
        """Each (user, item) pair as one number, ascending, int64 [n]."""
        count = self.indptr.diff()
        return torch.repeat_interleave(torch.arange(len(count), device=count.device), count) * self.items + self.indices

    def pairs_among(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pairs (d, k) where items[k] is a known positive of users[d], by d: [n] and [n].

        users [D], items [K]: distinct rows.
        """
        start = self.indptr[users]
        index, user_of = expand_ranges(start, (self.indptr[users + 1] - start).long())
        item = self.indices[index]
        column_of = torch.full((self.items,), -1, device=users.device)
        column_of[items] = torch.arange(len(items), device=users.device)
        column = column_of[item]
        present = (column >= 0).nonzero()[:, 0]  # once: on CUDA it waits for the device
        return user_of[present], column[present]

    def mask(self, users: Tensor, items: Tensor) -> Tensor:
        """Return whether items[k] is a known positive of users[d], bool [D, K]; users [D], items [K] are distinct."""
        known = torch.zeros(len(users), len(items), dtype=torch.bool, device=users.device)
        known[self.pairs_among(users, items)] = True
        return known

    def contains(self, users: Tensor, items: Tensor) -> Tensor:
        """Return whether each item is a known positive of the user in the same place, bool of the broadcast shape."""
        if not len(self.pair_keys):
            return torch.zeros_like(users + items, dtype=torch.bool)
        keys = users * self.items + items
        index = torch.searchsorted(self.pair_keys, keys).clamp_(max=len(self.pair_keys) - 1)
        return self.pair_keys[index] == keys


def draw_negatives(
    sampler: Sampler,
    known: KnownPositives,
    items: Tensor,
    users: Tensor,
    k: int,
    generator: torch.Generator,
    rounds: int = 4,
) -> tuple[Tensor, Tensor]:
    """Draw k negatives for each user; return them, [B, k], row b for users[b], and which are known positives after all.

    items: the item rows that the sampler draws among.

    A known positive is drawn again, up to `rounds` times: a user who knows nearly everything keeps a few, which the
    caller masks by the second result, bool [B, k].
    """
    rows = items[sampler.draw((len(users), k), generator)]
    is_known = known.contains(users[:, None], rows)
    for _ in range(rounds):
        if users.is_cuda:
            rows, is_known = _redraw_on_cuda(sampler, known, items, users, (rows, is_known), generator)
            continue
        again = is_known.nonzero(as_tuple=True)
        if not len(again[0]):
            break
        rows[again] = items[sampler.draw((len(again[0]),), generator)]
        is_known[again] = known.contains(users[again[0]], rows[again])
    return rows, is_known


def _redraw_on_cuda(
    sampler: Sampler,
    known: KnownPositives,
    items: Tensor,
    users: Tensor,
    drawn: tuple[Tensor, Tensor],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Draw again in place of known positives: for all users, since counting known ones would wait for the device."""
    rows, is_known = drawn
    rows = torch.where(is_known, items[sampler.draw(tuple(rows.shape), generator)], rows)
    return rows, known.contains(users[:, None], rows)
